//! What is said of other trust domains: what `[bundle_endpoint]`, `[federation]`, `[oidc]` and
//! `[[federates_with]]` mean.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::settings::interval;
use super::values::{absolute_if_given, include_dir_of};
use super::whole::Around;
use crate::config::file::{
    BundleEndpointSection, FederatesWithTable, FederationSection, Key, OidcSection,
};
use crate::config::problem::{Place, Reader};
use crate::config::{
    BundleEndpointConfig, EndpointProfile, FederationConfig, FetchProfile, OidcConfig,
    Relationship, endpoint_url,
};
use crate::spiffe::{BundleDocument, SpiffeId, TrustDomain, parse_id, parse_trust_domain};

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
    // A segment that begins with a colon means something else to the router.
    let has_colon = rest.split('/').skip(1).any(|segment| segment.starts_with(':'));
    if host.is_empty()
        || has_colon
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

/// Bounds of the bounds.
const SHORTEST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(1));
const LONGEST: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(7 * 24));
const TIMEOUT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));

pub(super) fn federation(section: FederationSection, reader: &mut Reader<'_>) -> FederationConfig {
    let default = FederationConfig::default();
    let mut bound = |name: &str, field, default, range| {
        interval(&format!("federation.{name}"), field, default, range, reader)
    };
    FederationConfig {
        shortest_refresh: bound(
            "shortest_refresh",
            section.shortest_refresh,
            default.shortest_refresh,
            SHORTEST,
        ),
        longest_refresh: bound(
            "longest_refresh",
            section.longest_refresh,
            default.longest_refresh,
            LONGEST,
        ),
        fetch_timeout: bound(
            "fetch_timeout",
            section.fetch_timeout,
            default.fetch_timeout,
            TIMEOUT,
        ),
    }
}

/// Where the bundle of another trust domain is fetched. `None` if there is a problem, which is told.
pub(super) fn relationship(
    table: FederatesWithTable,
    place: &Place,
    reader: &mut Reader<'_>,
    around: &Around<'_>,
) -> Option<Relationship> {
    let key = |name: &str| format!("{}.{name}", place.key);
    let remedy = "name the other trust domain, such as partner.org";
    let trust_domain = reader
        .required("trust_domain", table.trust_domain, place, remedy)
        .and_then(|(text, place)| partner(&text, &place, around.trust_domain, reader));
    let remedy = "write the URL of its bundle endpoint, such as https://partner.org:8443/";
    let url = reader.required("url", table.url, place, remedy).filter(|(url, place)| {
        let read = endpoint_url(url);
        if let Err(error) = &read {
            reader.problem(place, error.to_string(), remedy);
        }
        read.is_ok()
    });
    let remedy = "say profile = \"https_spiffe\" or \"https_web\"";
    let profile = reader.required("profile", table.profile, place, remedy);
    let is_given = table.endpoint_spiffe_id.0.is_some();
    let endpoint = reader
        .given(key("endpoint_spiffe_id"), table.endpoint_spiffe_id)
        .and_then(|(text, place)| foreign_id(&text, &place, reader));
    let bundle = reader.given(key("bundle"), table.bundle);
    let authorities = reader
        .given(key("authorities"), table.authorities)
        .and_then(|(file, place)| authorities(&file, &place, reader));
    let profile = match profile?.0.0 {
        EndpointProfile::HttpsWeb => FetchProfile::HttpsWeb { authorities },
        EndpointProfile::HttpsSpiffe => {
            if !is_given {
                let what = "has no endpoint_spiffe_id, which profile https_spiffe needs";
                let remedy = "write the endpoint's SPIFFE ID, as its operator says it";
                reader.problem(place, what, remedy);
            }
            FetchProfile::HttpsSpiffe { endpoint: endpoint? }
        }
    };
    let (trust_domain, (url, _)) = (trust_domain?, url?);
    let initial = match bundle {
        Some((file, place)) => Some(Arc::new(initial(&trust_domain, &file, &place, reader)?)),
        None => None,
    };
    let line = place.at.as_ref().map_or(0, |at| reader.line(at.start));
    let origin = format!("{}:{line}", reader.path.display());
    Some(Relationship { trust_domain, url, profile, initial, origin })
}

fn partner(
    text: &str,
    place: &Place,
    own: Option<&TrustDomain>,
    reader: &mut Reader<'_>,
) -> Option<TrustDomain> {
    match parse_trust_domain(text) {
        Ok(domain) if own == Some(&domain) => {
            let remedy = "name another one: nobody else says who vouches for this one";
            reader.problem(place, "is the node's own trust domain", remedy);
            None
        }
        Ok(domain) => Some(domain),
        Err(error) => {
            let what = format!("is no trust domain: {error}");
            reader.problem(place, what, "write a bare name such as partner.org");
            None
        }
    }
}

fn foreign_id(text: &str, place: &Place, reader: &mut Reader<'_>) -> Option<SpiffeId> {
    let remedy = "write the endpoint's SPIFFE ID, such as spiffe://partner.org/spire/server";
    match parse_id(text) {
        Ok(id) if !id.path().is_empty() => return Some(id),
        Ok(_) => reader.problem(place, "has no path, which every X.509-SVID has", remedy),
        Err(error) => reader.problem(place, format!("is not a SPIFFE ID: {error}"), remedy),
    }
    None
}

fn initial(
    trust_domain: &TrustDomain,
    file: &Path,
    place: &Place,
    reader: &mut Reader<'_>,
) -> Option<BundleDocument> {
    let text = contents(file, place, reader)?;
    match BundleDocument::given(trust_domain, &String::from_utf8_lossy(&text)) {
        Ok(document) => Some(document),
        Err(error) => {
            let remedy = "write the bundle into it, PEM or SPIFFE's JSON";
            reader.problem(place, format!("holds what {error}"), remedy);
            None
        }
    }
}

fn authorities(
    file: &Path,
    place: &Place,
    reader: &mut Reader<'_>,
) -> Option<Arc<[CertificateDer<'static>]>> {
    let text = contents(file, place, reader)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Some(certificates.into()),
        _ => {
            let remedy = "write the certificates of the authorities into it, PEM";
            reader.problem(place, "holds no certificates in PEM", remedy);
            None
        }
    }
}

fn contents(file: &Path, place: &Place, reader: &mut Reader<'_>) -> Option<Vec<u8>> {
    let file = include_dir_of(reader.path, file);
    match std::fs::read(&file) {
        Ok(text) => Some(text),
        Err(error) => {
            let what = format!("{} cannot be read: {error}", file.display());
            reader.problem(place, what, "check that it exists and that root may read it");
            None
        }
    }
}
