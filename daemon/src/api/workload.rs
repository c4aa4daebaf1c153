//! The SPIFFE Workload API: each method, and what a request must be. What is answered is made in
//! `reply.rs`, how streams go on is `watch.rs`. Source: SPIFFE Workload API §5-§7.

use std::sync::Arc;

use proto::spiffe_workload_api_server::SpiffeWorkloadApi;
use proto::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse, WitBundlesRequest, WitBundlesResponse, WitsvidRequest,
    WitsvidResponse, X509BundlesRequest, X509BundlesResponse, X509svidRequest, X509svidResponse,
};
use tonic::{Request, Response, Status, async_trait};

use super::caller::Caller;
use super::handover::Handovers;
use super::reply;
use super::status;
use super::watch::{Message, Messages, Watch};
use crate::identity::{Entitlement, HeldSvid, Identities};
use crate::shutdown::Stop;
use crate::spiffe::{BundleSet, SpiffeId, parse_id, verify_jwt};
use crate::sys::clock;

/// What a request must carry, exactly once, so that a browser or a proxy that is made to talk to
/// the socket is not answered. Source: SPIFFE Workload Endpoint §6.
const HEADER: (&str, &str) = ("workload.spiffe.io", "true");

/// Longest audience, all of it. Chosen: tokens are sent in headers.
const AUDIENCE_BYTES: usize = 4096;

/// The service.
#[derive(Debug)]
pub(super) struct WorkloadApi {
    pub(super) identities: Identities,
    pub(super) handovers: Arc<Handovers>,
    pub(super) stop: Stop,
}

impl WorkloadApi {
    fn watch<T: Message>(&self, caller: Arc<Caller>) -> Watch<T> {
        Watch {
            caller,
            subscription: self.identities.subscribe(),
            handovers: Arc::clone(&self.handovers),
            stop: self.stop.clone(),
            said: None,
        }
    }
}

/// The caller of a request that is as the standard wants it.
fn caller<T>(request: &Request<T>, method: &str) -> Result<Arc<Caller>, Status> {
    let mut values = request.metadata().get_all(HEADER.0).iter();
    let is_true = values.next().is_some_and(|value| value.as_bytes() == HEADER.1.as_bytes());
    if !is_true || values.next().is_some() {
        return Err(status::no_header());
    }
    Caller::of(request, method)
}

/// A token for nobody in particular would be good for anybody. Source: JWT-SVID §3.2.
fn check_audience(audience: &[String]) -> Result<(), Status> {
    if audience.is_empty() || audience.iter().any(String::is_empty) {
        return Err(status::bad_request("audience must be specified"));
    }
    let bytes: usize = audience.iter().map(String::len).sum();
    if bytes > AUDIENCE_BYTES {
        return Err(status::bad_request(format!("audience is longer than {AUDIENCE_BYTES} bytes")));
    }
    Ok(())
}

/// The identity that a request names, if any.
fn requested_id(text: &str) -> Result<Option<SpiffeId>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let bad = |error| status::bad_request(format!("invalid requested SPIFFE ID: {error}"));
    parse_id(text).map(Some).map_err(bad)
}

#[async_trait]
impl SpiffeWorkloadApi for WorkloadApi {
    type FetchX509SVIDStream = Messages<X509svidResponse>;
    type FetchX509BundlesStream = Messages<X509BundlesResponse>;
    type FetchJWTBundlesStream = Messages<JwtBundlesResponse>;
    type FetchWITSVIDStream = Messages<WitsvidResponse>;
    type FetchWITBundlesStream = Messages<WitBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        self.watch(caller(&request, "FetchX509SVID")?).open().await
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        self.watch(caller(&request, "FetchX509Bundles")?).open().await
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<JwtsvidRequest>,
    ) -> Result<Response<JwtsvidResponse>, Status> {
        let caller = caller(&request, "FetchJWTSVID")?;
        let JwtsvidRequest { audience, spiffe_id } = request.into_inner();
        check_audience(&audience)?;
        let wanted = requested_id(&spiffe_id)?;
        let entitlement = caller.entitlement(&mut self.identities.subscribe()).await?;
        let is_wanted = |held: &&HeldSvid| wanted.as_ref().is_none_or(|id| *id == held.svid.id);
        let mut svids = Vec::new();
        for held in reply::distinct(&entitlement).filter(is_wanted) {
            let token = self.identities.jwt(&held.entry, &audience).await;
            let token = token.map_err(|error| status::no_jwt(&error))?;
            svids.push(reply::jwt_svid(held, &token));
        }
        if svids.is_empty() {
            return Err(status::no_identity());
        }
        Ok(Response::new(JwtsvidResponse { svids }))
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        self.watch(caller(&request, "FetchJWTBundles")?).open().await
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<ValidateJwtsvidRequest>,
    ) -> Result<Response<ValidateJwtsvidResponse>, Status> {
        let caller = caller(&request, "ValidateJWTSVID")?;
        let ValidateJwtsvidRequest { audience, svid } = request.into_inner();
        if audience.is_empty() {
            return Err(status::bad_request("audience must be specified"));
        }
        if svid.is_empty() {
            return Err(status::bad_request("svid must be specified"));
        }
        let entitlement = caller.entitlement(&mut self.identities.subscribe()).await?;
        let bundles = reply::own(&entitlement).chain(reply::federated(&entitlement)).cloned();
        let bundles: BundleSet = bundles.collect();
        let token = verify_jwt(&svid, &audience, &bundles, clock::now())
            .map_err(|error| status::bad_request(error.to_string()))?;
        if let Some(item) = self.identities.denied(token.id()) {
            return Err(status::bad_request(item.to_string()));
        }
        Ok(Response::new(reply::validated(&entitlement, &token)))
    }

    async fn fetch_witsvid(
        &self,
        request: Request<WitsvidRequest>,
    ) -> Result<Response<Self::FetchWITSVIDStream>, Status> {
        caller(&request, "FetchWITSVID")?;
        Err(status::not_served("FetchWITSVID"))
    }

    async fn fetch_wit_bundles(
        &self,
        request: Request<WitBundlesRequest>,
    ) -> Result<Response<Self::FetchWITBundlesStream>, Status> {
        caller(&request, "FetchWITBundles")?;
        Err(status::not_served("FetchWITBundles"))
    }
}

impl Message for X509svidResponse {
    const HOLDS_KEYS: bool = true;

    fn of(entitlement: &Entitlement) -> Self {
        reply::x509_svids(entitlement)
    }

    fn trace(&self) -> Self {
        reply::without_keys(self)
    }
}

impl Message for JwtBundlesResponse {
    const HOLDS_KEYS: bool = false;

    fn of(entitlement: &Entitlement) -> Self {
        reply::jwt_bundles(entitlement)
    }

    fn trace(&self) -> Self {
        self.clone()
    }
}

impl Message for X509BundlesResponse {
    const HOLDS_KEYS: bool = false;

    fn of(entitlement: &Entitlement) -> Self {
        reply::x509_bundles(entitlement)
    }

    fn trace(&self) -> Self {
        self.clone()
    }
}
