//! The service, and what its streams have in common: the caller, what it is entitled to, and when
//! that may have changed.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use proto::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryService;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::delta::DeltaStream;
use super::secrets::{self, Named, NoSecret, Validation};
use super::stream::{SecretStream, check_type, response};
use crate::api::caller::Caller;
use crate::api::handover::Handovers;
use crate::api::status;
use crate::api::watch::LOOK_AGAIN;
use crate::identity::{Entitlement, Identities, Subscription, void_bundle};
use crate::shutdown::Stop;
use crate::sys::clock;

/// The longest that a stream may wait for its first request. Chosen.
const FIRST_WORD: Duration = Duration::from_secs(30);

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
#[derive(Debug)]
pub(in crate::api) struct SecretDiscovery {
    pub(in crate::api) identities: Identities,
    pub(in crate::api) handovers: Arc<Handovers>,
    pub(in crate::api) stop: Stop,
}

/// The caller of one stream.
#[derive(Debug)]
pub(super) struct Discovery {
    caller: Arc<Caller>,
    subscription: Subscription,
    handovers: Arc<Handovers>,
    stop: Stop,
}

/// What a stream waits for.
#[derive(Debug)]
pub(super) enum Event<T> {
    /// A request, or that there will be none any more.
    Said(Option<T>),
    /// The caller may be entitled to something else than before.
    MayHaveChanged,
}

impl SecretDiscovery {
    fn discovery<T>(&self, request: &Request<T>, method: &str) -> Result<Discovery, Status> {
        Ok(Discovery {
            caller: Caller::of(request, method)?,
            subscription: self.identities.subscribe(),
            handovers: Arc::clone(&self.handovers),
            stop: self.stop.clone(),
        })
    }
}

impl Discovery {
    /// Waits for a request, or for a change once the caller has `begun` to ask.
    ///
    /// # Errors
    /// Why the stream ends.
    pub(super) async fn event<T>(
        &mut self,
        request: impl Future<Output = Result<Option<T>, Status>>,
        begun: bool,
    ) -> Result<Event<T>, Status> {
        let pause = if begun { LOOK_AGAIN } else { FIRST_WORD };
        tokio::select! {
            biased;
            () = self.stop.draining() => Err(status::stopping()),
            () = self.caller.peer.exited() => Err(status::not_attested()),
            said = request => {
                // The first was counted as the stream was opened.
                if begun && !self.caller.counted.may_ask() {
                    return Err(status::rate_limited("secrets"));
                }
                said.map(Event::Said)
            }
            () = self.subscription.changed(), if begun => Ok(Event::MayHaveChanged),
            () = tokio::time::sleep(pause) => {
                if begun { Ok(Event::MayHaveChanged) } else { Err(Status::deadline_exceeded("no request")) }
            }
        }
    }

    /// What the caller is entitled to; nothing where it may keep `known` secrets while the issuer
    /// fails.
    ///
    /// # Errors
    /// What it is told.
    pub(super) async fn entitlement(&mut self, known: bool) -> Result<Option<Entitlement>, Status> {
        match self.caller.entitlement(&mut self.subscription).await {
            Ok(entitlement) => Ok(Some(entitlement)),
            Err(refusal) if refusal.passes && known => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Writes down whose keys are handed over.
    pub(super) fn record(&self, entitlement: &Entitlement, secrets: &[Named]) {
        let given = |entry: &str| secrets.iter().any(|it| it.entry.as_deref() == Some(entry));
        let identities = entitlement.identities.iter().filter(|held| given(&held.entry.id));
        self.handovers.record(&entitlement.attestation, identities);
    }
}

/// Names that one stream may subscribe to. Chosen: an Envoy has some for each cluster and listener.
const MOST_NAMES: usize = 1000;

/// Whether a stream may subscribe to so many names.
///
/// # Errors
/// It may not: each name costs memory and, where nothing is known of it, a key.
pub(super) fn check_count(names: usize) -> Result<(), Status> {
    if names <= MOST_NAMES {
        return Ok(());
    }
    Err(status::bad_request(format!("a stream may name at most {MOST_NAMES} secrets")))
}

/// The secrets of these names, or of all if there are none.
///
/// # Errors
/// Some are not for this caller.
pub(super) fn secrets_of(
    entitlement: &Entitlement,
    names: &[String],
    validation: Validation,
) -> Result<Vec<Named>, Status> {
    check_count(names.len())?;
    let all = if names.is_empty() { secrets::everything(entitlement) } else { names.to_vec() };
    let mut found = BTreeMap::new();
    let mut unknown = Vec::new();
    for name in &all {
        match secret_of(entitlement, name, validation)? {
            Some(secret) => drop(found.insert(name.clone(), secret)),
            None => unknown.push(name.as_str()),
        }
    }
    if unknown.is_empty() {
        return Ok(found.into_values().collect());
    }
    let list = unknown.join(" ");
    Err(status::bad_request(format!(
        "workload is not authorized for the requested identities [{list}]"
    )))
}

/// The secret of one name. For a trust domain that is none of the caller's, or whose bundle is not
/// known, it is one by which nobody is trusted: Envoy may have had its bundle once, and would go
/// on trusting it if it were told that there is no such secret.
///
/// # Errors
/// It cannot be had in the way that the caller validates.
pub(super) fn secret_of(
    entitlement: &Entitlement,
    name: &str,
    validation: Validation,
) -> Result<Option<Named>, Status> {
    match secrets::secret(entitlement, name, validation) {
        Ok(secret) => return Ok(Some(secret)),
        Err(NoSecret::NotPlain) => {
            let why = "several trust domains need Envoy's SPIFFE certificate validator";
            return Err(Status::internal(why));
        }
        Err(NoSecret::Unknown) => {}
    }
    let Some(domain) = secrets::trust_domain(name) else {
        return Ok(None);
    };
    let void = void_bundle(&domain, clock::now()).map_err(|error| {
        tracing::error!(%error, "a trust domain could not be removed from an Envoy");
        Status::unavailable("could not make a validation context")
    })?;
    let secret = secrets::context(name, &[&void], validation).ok();
    // The same whatever the throw-away authority is.
    Ok(secret.map(|secret| Named { version: format!("{domain}=nobody"), ..secret }))
}

#[async_trait]
impl SecretDiscoveryService for SecretDiscovery {
    type StreamSecretsStream = Responses<DiscoveryResponse>;
    type DeltaSecretsStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let secrets = SecretStream {
            discovery: self.discovery(&request, "StreamSecrets")?,
            requests: request.into_inner(),
            names: None,
            validation: Validation::Spiffe,
            sent: Vec::new(),
            count: 0,
        };
        Ok(Response::new(Box::pin(stream::unfold(Some(secrets), |secrets| async {
            let mut secrets = secrets?;
            match secrets.next().await.transpose()? {
                Ok(response) => Some((Ok(response), Some(secrets))),
                Err(status) => Some((Err(status), None)),
            }
        }))))
    }

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        let secrets = DeltaStream {
            discovery: self.discovery(&request, "DeltaSecrets")?,
            requests: request.into_inner(),
            began: false,
            names: std::collections::BTreeSet::new(),
            wildcard: false,
            validation: Validation::Spiffe,
            sent: BTreeMap::new(),
            count: 0,
        };
        Ok(Response::new(Box::pin(stream::unfold(Some(secrets), |secrets| async {
            let mut secrets = secrets?;
            match secrets.next().await.transpose()? {
                Ok(response) => Some((Ok(response), Some(secrets))),
                Err(status) => Some((Err(status), None)),
            }
        }))))
    }

    async fn fetch_secrets(
        &self,
        request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        let mut discovery = self.discovery(&request, "FetchSecrets")?;
        let request = request.into_inner();
        check_type(&request.type_url)?;
        let validation = Validation::of(request.node.as_ref());
        let Some(entitlement) = discovery.entitlement(false).await? else {
            return Err(status::not_attested());
        };
        let found = secrets_of(&entitlement, &request.resource_names, validation)?;
        discovery.record(&entitlement, &found);
        Ok(Response::new(response(&found, 1)))
    }
}
