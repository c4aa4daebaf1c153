//! What is said of other trust domains: the endpoint by which they get our bundle, those by which we
//! get theirs, and the documents of `OpenID` Connect.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::spiffe::SpiffeId;

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

impl EndpointProfile {
    /// Stable label, as the standard has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HttpsWeb => "https_web",
            Self::HttpsSpiffe => "https_spiffe",
        }
    }
}
