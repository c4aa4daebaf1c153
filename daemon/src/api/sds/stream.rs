//! `StreamSecrets`: all that is subscribed to, whenever any of it changes.

use proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use tonic::{Status, Streaming};

use super::secrets::{self, Named, SECRET_URL, Validation};
use super::service::{Discovery, Event, secrets_of};

/// One stream.
#[derive(Debug)]
pub(super) struct SecretStream {
    pub(super) discovery: Discovery,
    pub(super) requests: Streaming<DiscoveryRequest>,
    /// What is subscribed to; nothing before the first request.
    pub(super) names: Option<Vec<String>>,
    pub(super) validation: Validation,
    /// Names and versions of what was sent last.
    pub(super) sent: Vec<(String, String)>,
    pub(super) count: u64,
}

impl SecretStream {
    /// The next message; `None` when Envoy has said all that it wants.
    pub(super) async fn next(&mut self) -> Result<Option<DiscoveryResponse>, Status> {
        loop {
            let request = self.requests.message();
            let told = match self.discovery.event(request, self.names.is_some()).await? {
                Event::Said(None) => return Ok(None),
                Event::Said(Some(request)) => self.take(request)?,
                Event::MayHaveChanged => true,
            };
            if told && let Some(response) = self.answer().await? {
                return Ok(Some(response));
            }
        }
    }

    /// Takes a request; says whether it asks for anything new.
    fn take(&mut self, request: DiscoveryRequest) -> Result<bool, Status> {
        check_type(&request.type_url)?;
        if let Some(error) = &request.error_detail {
            // Told by the caller: not to be repeated in the log of everybody.
            tracing::debug!(code = error.code, "Envoy refused secrets");
        }
        // An answer to an older message than the last: another is on its way.
        if !request.response_nonce.is_empty() && request.response_nonce != nonce(self.count) {
            return Ok(false);
        }
        if request.node.is_some() {
            self.validation = Validation::of(request.node.as_ref());
        }
        let is_new = self.names.as_ref() != Some(&request.resource_names);
        if is_new {
            self.names = Some(request.resource_names);
            self.sent.clear();
        }
        Ok(is_new)
    }

    /// All that is subscribed to, if any of it is other than what was sent last.
    async fn answer(&mut self) -> Result<Option<DiscoveryResponse>, Status> {
        let names = self.names.clone().unwrap_or_default();
        let Some(entitlement) = self.discovery.entitlement(!self.sent.is_empty()).await? else {
            return Ok(None);
        };
        let found = secrets_of(&entitlement, &names, self.validation)?;
        let versions: Vec<_> =
            found.iter().map(|it| (it.name.clone(), it.version.clone())).collect();
        if versions == self.sent {
            return Ok(None);
        }
        self.discovery.record(&entitlement, &found);
        self.sent = versions;
        self.count += 1;
        Ok(Some(response(&found, self.count)))
    }
}

/// A message with these secrets, the `count`-th of its stream.
pub(super) fn response(secrets: &[Named], count: u64) -> DiscoveryResponse {
    DiscoveryResponse {
        version_info: count.to_string(),
        resources: secrets.iter().map(|named| secrets::any(&named.secret)).collect(),
        type_url: SECRET_URL.to_owned(),
        nonce: nonce(count),
    }
}

pub(super) fn nonce(count: u64) -> String {
    format!("{count:08x}")
}

/// Nothing but secrets is served. Clients may leave the type out.
pub(super) fn check_type(type_url: &str) -> Result<(), Status> {
    if type_url.is_empty() || type_url == SECRET_URL {
        return Ok(());
    }
    Err(Status::invalid_argument("only secrets are served"))
}
