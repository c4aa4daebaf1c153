//! `DeltaSecrets`: what has changed of that which is subscribed to, and what is no more.

use std::collections::{BTreeMap, BTreeSet};

use proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
};
use tonic::{Status, Streaming};

use super::secrets::{self, SECRET_URL, Validation};
use super::service::{Discovery, Event, check_count, secret_of};
use super::stream::{check_type, nonce};

/// The name that means everything. Source: xDS protocol, "wildcard subscription".
const WILDCARD: &str = "*";

/// One stream.
#[derive(Debug)]
pub(super) struct DeltaStream {
    pub(super) discovery: Discovery,
    pub(super) requests: Streaming<DeltaDiscoveryRequest>,
    pub(super) began: bool,
    pub(super) names: BTreeSet<String>,
    /// Whether all that the caller may have is subscribed to.
    pub(super) wildcard: bool,
    pub(super) validation: Validation,
    /// What the client has, by name: the version, or none if it was told that there is no such.
    pub(super) sent: BTreeMap<String, Option<String>>,
    pub(super) count: u64,
}

impl DeltaStream {
    /// The next message; `None` when Envoy has said all that it wants.
    pub(super) async fn next(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        loop {
            let request = self.requests.message();
            match self.discovery.event(request, self.began).await? {
                Event::Said(None) => return Ok(None),
                Event::Said(Some(request)) => self.take(request)?,
                Event::MayHaveChanged => {}
            }
            if let Some(response) = self.answer().await? {
                return Ok(Some(response));
            }
        }
    }

    fn take(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        check_type(&request.type_url)?;
        if let Some(error) = &request.error_detail {
            tracing::debug!(code = error.code, "Envoy refused secrets");
        }
        if request.node.is_some() {
            self.validation = Validation::of(request.node.as_ref());
        }
        if !self.began {
            self.began = true;
            self.wildcard = request.resource_names_subscribe.is_empty();
            let had = request.initial_resource_versions.into_iter();
            self.sent = had.map(|(name, version)| (name, Some(version))).collect();
        }
        for name in request.resource_names_unsubscribe {
            self.wildcard &= name != WILDCARD;
            self.names.remove(&name);
            self.sent.remove(&name);
        }
        for name in request.resource_names_subscribe {
            if name == WILDCARD {
                self.wildcard = true;
            } else {
                // A name that is asked for again is answered again.
                if !self.names.insert(name.clone()) {
                    self.sent.remove(&name);
                }
            }
        }
        check_count(self.names.len().max(self.sent.len()))
    }

    /// What differs from what the client has, if anything does.
    async fn answer(&mut self) -> Result<Option<DeltaDiscoveryResponse>, Status> {
        let Some(entitlement) = self.discovery.entitlement(!self.sent.is_empty()).await? else {
            return Ok(None);
        };
        let mut names = self.names.clone();
        if self.wildcard {
            names.extend(secrets::everything(&entitlement));
            names.extend(self.sent.keys().cloned());
        }
        let (mut fresh, mut removed) = (Vec::new(), Vec::new());
        for name in names {
            let had = self.sent.get(&name);
            match secret_of(&entitlement, &name, self.validation)? {
                Some(secret) if had.is_some_and(|it| it.as_ref() == Some(&secret.version)) => {}
                Some(secret) => fresh.push(secret),
                None if matches!(had, Some(None)) => {}
                None => removed.push(name),
            }
        }
        if fresh.is_empty() && removed.is_empty() {
            return Ok(None);
        }
        self.discovery.record(&entitlement, &fresh);
        self.sent.extend(fresh.iter().map(|it| (it.name.clone(), Some(it.version.clone()))));
        self.sent.extend(removed.iter().map(|name| (name.clone(), None)));
        self.count += 1;
        let resource = |named: secrets::Named| Resource {
            resource: Some(secrets::any(&named.secret)),
            name: named.name,
            version: named.version,
        };
        Ok(Some(DeltaDiscoveryResponse {
            system_version_info: self.count.to_string(),
            resources: fresh.into_iter().map(resource).collect(),
            type_url: SECRET_URL.to_owned(),
            nonce: nonce(self.count),
            removed_resources: removed,
        }))
    }
}
