//! What is said of other trust domains: what `[bundle_endpoint]` and `[oidc]` mean.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::settings::interval;
use super::values::absolute_if_given;
use crate::config::file::{BundleEndpointSection, Key, OidcSection};
use crate::config::problem::{Place, Reader};
use crate::config::{BundleEndpointConfig, EndpointProfile, OidcConfig};
use crate::spiffe::{SpiffeId, TrustDomain, parse_id};

/// Shortest and longest refresh hint.
const REFRESH_HINT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(24));

pub(super) fn bundle_endpoint(
    section: BundleEndpointSection,
    own: Option<&TrustDomain>,
    reader: &mut Reader<'_>,
) -> BundleEndpointConfig {
    let default = BundleEndpointConfig::default();
    let listen = listen("bundle_endpoint.listen", section.listen, reader);
    let profile = reader
        .given("bundle_endpoint.profile", section.profile)
        .map_or(default.profile, |(word, _)| word.0);
    let spiffe_id = reader
        .given("bundle_endpoint.spiffe_id", section.spiffe_id)
        .and_then(|(text, place)| endpoint_id(&text, &place, own, reader));
    let certificate = absolute_if_given("bundle_endpoint.certificate", section.certificate, reader);
    let key = absolute_if_given("bundle_endpoint.key", section.key, reader);
    if let (Some((_, place)), EndpointProfile::HttpsWeb) = (&listen, profile) {
        for (name, file) in [("certificate", &certificate), ("key", &key)] {
            if file.is_none() {
                let what = format!("needs bundle_endpoint.{name} with profile https_web");
                reader.problem(place, what, "name the file, or choose profile https_spiffe");
            }
        }
    }
    let refresh_hint = interval(
        "bundle_endpoint.refresh_hint",
        section.refresh_hint,
        default.refresh_hint,
        REFRESH_HINT,
        reader,
    );
    let listen = listen.map(|(address, _)| address);
    BundleEndpointConfig { listen, profile, spiffe_id, certificate, key, refresh_hint }
}

/// The ID of the endpoint's SVID: one of a workload, of this node's own trust domain.
fn endpoint_id(
    text: &str,
    place: &Place,
    own: Option<&TrustDomain>,
    reader: &mut Reader<'_>,
) -> Option<SpiffeId> {
    let remedy = "write a SPIFFE ID with a path, such as spiffe://example.org/bundle-endpoint";
    match parse_id(text) {
        Err(error) => reader.problem(place, format!("is not a SPIFFE ID: {error}"), remedy),
        Ok(id) if own.is_some_and(|own| own != id.trust_domain()) => {
            let what = "is of another trust domain, for which this node does not sign";
            reader.problem(place, what, remedy);
        }
        Ok(id) if id.path().is_empty() => reader.problem(place, "has no path", remedy),
        Ok(id) => return Some(id),
    }
    None
}

pub(super) fn oidc(section: OidcSection, reader: &mut Reader<'_>) -> OidcConfig {
    let issuer = reader
        .given("oidc.issuer", section.issuer)
        .and_then(|(text, place)| issuer(text, &place, reader));
    let listen = listen("oidc.listen", section.listen, reader);
    let certificate = absolute_if_given("oidc.certificate", section.certificate, reader);
    let key = absolute_if_given("oidc.key", section.key, reader);
    if let Some((address, place)) = &listen {
        if issuer.is_none() {
            let remedy = "say issuer = \"https://…\", the URL under which the documents are found";
            reader.problem(place, "needs oidc.issuer", remedy);
        }
        match (&certificate, &key) {
            (Some(_), Some(_)) => {}
            (None, None) if address.ip().is_loopback() => {}
            (None, None) => {
                let what = "would speak in the clear where others can hear it";
                let remedy = "name oidc.certificate and oidc.key, or listen on a loopback address \
                              behind a server that speaks TLS";
                reader.problem(place, what, remedy);
            }
            _ => reader.problem(
                place,
                "has one of oidc.certificate and oidc.key only",
                "name both files, or neither",
            ),
        }
    }
    OidcConfig { issuer, listen: listen.map(|(address, _)| address), certificate, key }
}

/// Source: `OpenID` Connect Core 1.0 §2, `iss`: https, no query, no fragment.
fn issuer(text: String, place: &Place, reader: &mut Reader<'_>) -> Option<Arc<str>> {
    let rest = text.strip_prefix("https://").unwrap_or_default();
    let host = rest.split('/').next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~/:[]%".contains(c);
    if host.is_empty()
        || text.ends_with('/')
        || !text.strip_prefix("https://").is_some_and(|it| it.chars().all(plain))
    {
        let remedy = "write a URL such as https://oidc.example.org, without a slash at its end, a \
                      query or a fragment";
        reader.problem(place, "is no issuer of OpenID Connect", remedy);
        return None;
    }
    Some(text.into())
}

fn listen(key: &str, field: Key<String>, reader: &mut Reader<'_>) -> Option<(SocketAddr, Place)> {
    let (text, place) = reader.given(key, field)?;
    match text.parse() {
        Ok(address) => Some((address, place)),
        Err(_malformed) => {
            let remedy = "write one such as 0.0.0.0:8443 or [::]:8443";
            reader.problem(&place, "is not an address and port", remedy);
            None
        }
    }
}
