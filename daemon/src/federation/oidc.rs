//! What verifiers of `OpenID` Connect look for: where the keys are, and the keys. Clouds that federate
//! by `OpenID` Connect thus take a JWT-SVID for a token of this issuer.
//! Source: `OpenID` Connect Discovery 1.0 §3, §4; of the metadata, what a verifier of tokens needs.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::json;
use tokio::sync::watch;

use crate::spiffe::{BundleSet, KeyUse, TrustDomain, jwks};

/// Where the metadata is, below the issuer.
const METADATA: &str = "/.well-known/openid-configuration";
/// Where the keys are, below the issuer. As SPIRE has it.
const KEYS: &str = "/keys";
/// Keys are published a day before they sign: five minutes is none of it.
const FRESH: &str = "public, max-age=300";

#[derive(Debug, Clone)]
struct Keys {
    trust_domain: TrustDomain,
    bundles: watch::Receiver<Arc<BundleSet>>,
}

/// The routes below an issuer's URL, which has no slash at its end.
pub fn oidc_routes(
    issuer: &str,
    trust_domain: TrustDomain,
    bundles: watch::Receiver<Arc<BundleSet>>,
) -> Router {
    // Behind `https://` and the host.
    let path = issuer.splitn(4, '/').nth(3).map_or_else(String::new, |path| format!("/{path}"));
    let metadata = json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}{KEYS}"),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "claims_supported": ["iss", "sub", "aud", "exp", "iat"],
    })
    .to_string();
    let metadata = move || {
        let text = metadata.clone();
        async move { answer("application/json", text) }
    };
    Router::new()
        .route(&format!("{path}{METADATA}"), get(metadata))
        .route(&format!("{path}{KEYS}"), get(keys))
        .with_state(Keys { trust_domain, bundles })
}

async fn keys(State(known): State<Keys>) -> impl IntoResponse {
    let bundles = Arc::clone(&known.bundles.borrow());
    let bundle = bundles.get(&known.trust_domain);
    let authorities = bundle.into_iter().flat_map(|bundle| bundle.jwt_authorities());
    // Source: RFC 7517 §8.5.2.
    answer("application/jwk-set+json", jwks(authorities, KeyUse::Signature))
}

fn answer(kind: &'static str, text: String) -> impl IntoResponse {
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, FRESH)], text)
}
