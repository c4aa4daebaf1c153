//! What is said of other trust domains: the endpoint by which they get our bundle, those by which we
//! get theirs, and the documents of `OpenID` Connect.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use rustls_pki_types::CertificateDer;
use thiserror::Error;

use crate::spiffe::{BundleDocument, SpiffeId, TrustDomain};

/// `[bundle_endpoint]`: where other trust domains get our bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleEndpointConfig {
    /// Where it listens; not served if absent.
    pub listen: Option<SocketAddr>,
    /// How it proves who it is.
    pub profile: EndpointProfile,
    /// The ID of its X.509-SVID, for `https_spiffe`; that of the trust domain's endpoint if absent.
    pub spiffe_id: Option<SpiffeId>,
    /// File of its certificate and chain, for `https_web`.
    pub certificate: Option<PathBuf>,
    /// File of its key, for `https_web`.
    pub key: Option<PathBuf>,
    /// After how long others should look again.
    pub refresh_hint: Duration,
}

/// `[federation]`: how the endpoints of other trust domains are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FederationConfig {
    /// The shortest wait between two looks at one.
    pub shortest_refresh: Duration,
    /// The longest.
    pub longest_refresh: Duration,
    /// The longest that one look may take.
    pub fetch_timeout: Duration,
}

/// `[[federates_with]]`: where the bundle of another trust domain is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relationship {
    /// Whose bundle it is.
    pub trust_domain: TrustDomain,
    /// Where it is: a URL that [`endpoint_url`] reads.
    pub url: String,
    /// Whom to believe there.
    pub profile: FetchProfile,
    /// What is known before the first look.
    pub initial: Option<Arc<BundleDocument>>,
    /// Where it stands.
    pub origin: String,
}

/// How an endpoint of another trust domain proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchProfile {
    /// By a certificate of the web.
    HttpsWeb {
        /// Its authorities, in place of the host's.
        authorities: Option<Arc<[CertificateDer<'static>]>>,
    },
    /// By an X.509-SVID.
    HttpsSpiffe {
        /// Of this ID.
        endpoint: SpiffeId,
    },
}

/// Why a text is no URL of a bundle endpoint. Source: SPIFFE Federation §5.2.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum UrlError {
    /// No URL.
    #[error("is no URL")]
    Malformed,
    /// Another scheme.
    #[error("does not begin with https://")]
    NotHttps,
    /// A name, perhaps with a password, before the host.
    #[error("has user information before its host")]
    UserInfo,
}

/// Reads the URL of a bundle endpoint.
///
/// # Errors
/// See [`UrlError`].
pub fn endpoint_url(text: &str) -> Result<Uri, UrlError> {
    let url: Uri = text.parse().map_err(|_malformed| UrlError::Malformed)?;
    if url.scheme_str() != Some("https") {
        return Err(UrlError::NotHttps);
    }
    let authority = url.authority().ok_or(UrlError::Malformed)?;
    if authority.as_str().contains('@') {
        return Err(UrlError::UserInfo);
    }
    if authority.host().is_empty() { Err(UrlError::Malformed) } else { Ok(url) }
}

/// How a bundle endpoint proves who it is. Source: SPIFFE Federation §5.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointProfile {
    /// By a certificate of the web.
    HttpsWeb,
    /// By an X.509-SVID.
    HttpsSpiffe,
}

/// `[oidc]`: the documents of `OpenID` Connect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OidcConfig {
    /// URL of the issuer, without a slash at its end; it stands in JWT-SVIDs. None: neither.
    pub issuer: Option<Arc<str>>,
    /// Where the documents are served; not at all if absent.
    pub listen: Option<SocketAddr>,
    /// File of the certificate and chain; in the clear, on a loopback address, if absent.
    pub certificate: Option<PathBuf>,
    /// File of the key.
    pub key: Option<PathBuf>,
}

impl BundleEndpointConfig {
    /// The ID by which the endpoint of a trust domain is known unless it is said otherwise.
    pub const USUAL_PATH: &str = "/tacit/bundle-endpoint";
}

impl Default for BundleEndpointConfig {
    fn default() -> Self {
        Self {
            listen: None,
            profile: EndpointProfile::HttpsSpiffe,
            spiffe_id: None,
            certificate: None,
            key: None,
            refresh_hint: Duration::from_mins(5),
        }
    }
}

impl Default for FederationConfig {
    fn default() -> Self {
        Self {
            shortest_refresh: Duration::from_mins(1),
            longest_refresh: Duration::from_hours(24),
            fetch_timeout: Duration::from_secs(30),
        }
    }
}

impl FetchProfile {
    /// Stable label, as the standard has it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::HttpsWeb { .. } => EndpointProfile::HttpsWeb.as_str(),
            Self::HttpsSpiffe { .. } => EndpointProfile::HttpsSpiffe.as_str(),
        }
    }
}

impl EndpointProfile {
    /// Stable label, as the standard has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HttpsWeb => "https_web",
            Self::HttpsSpiffe => "https_spiffe",
        }
    }
}
