//! The tables about other trust domains. A missing table or key means its default.

use std::path::PathBuf;

use serde::Deserialize;

use super::words::ProfileWord;
use super::{Interval, Key};

/// `[bundle_endpoint]`: where other trust domains get this one's bundle. A change needs a restart.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct BundleEndpointSection {
    /// Address and port, such as `0.0.0.0:8443`. Default: not served.
    pub(in crate::config) listen: Key<String>,
    /// `https_spiffe` or `https_web`. Default: `https_spiffe`.
    pub(in crate::config) profile: Key<ProfileWord>,
    /// SPIFFE ID of its X.509-SVID, for `https_spiffe`. Default: `/tacit/bundle-endpoint` in the
    /// trust domain.
    pub(in crate::config) spiffe_id: Key<String>,
    /// File of its certificate and chain in PEM, for `https_web`; read again when it changes.
    pub(in crate::config) certificate: Key<PathBuf>,
    /// File of its key in PEM, for `https_web`.
    pub(in crate::config) key: Key<PathBuf>,
    /// Duration; after how long others should look again. Default: `5m`; `1s` to `1day`.
    pub(in crate::config) refresh_hint: Key<Interval>,
}

/// `[oidc]`: the documents of `OpenID` Connect. A change needs a restart.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct OidcSection {
    /// URL of the issuer, such as `https://oidc.example.org`; JWT-SVIDs bear it as `iss`. Default:
    /// none.
    pub(in crate::config) issuer: Key<String>,
    /// Address and port of the documents. Default: not served.
    pub(in crate::config) listen: Key<String>,
    /// File of its certificate and chain in PEM; read again when it changes. Default: in the clear,
    /// on a loopback address only.
    pub(in crate::config) certificate: Key<PathBuf>,
    /// File of its key in PEM.
    pub(in crate::config) key: Key<PathBuf>,
}

/// `[federation]`: how the endpoints of other trust domains are looked at. A change needs a restart.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct FederationSection {
    /// Duration; the shortest wait between two looks at an endpoint, whatever it says. Default: `1m`;
    /// `1s` to `1h`.
    pub(in crate::config) shortest_refresh: Key<Interval>,
    /// Duration; the longest. Default: `1day`; `1m` to `7days`.
    pub(in crate::config) longest_refresh: Key<Interval>,
    /// Duration; the longest that one look may take. Default: `30s`; `1s` to `5m`.
    pub(in crate::config) fetch_timeout: Key<Interval>,
}

/// `[[federates_with]]`: where the bundle of another trust domain is fetched.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct FederatesWithTable {
    /// Name of the other trust domain. Required.
    pub(in crate::config) trust_domain: Key<String>,
    /// URL of its bundle endpoint. Required.
    pub(in crate::config) url: Key<String>,
    /// `https_spiffe` or `https_web`. Required.
    pub(in crate::config) profile: Key<ProfileWord>,
    /// SPIFFE ID of the endpoint. Required for `https_spiffe`.
    pub(in crate::config) endpoint_spiffe_id: Key<String>,
    /// File of the bundle that is known before the first look, PEM or SPIFFE's JSON; relative to the
    /// file. Default: none.
    pub(in crate::config) bundle: Key<PathBuf>,
    /// File of the authorities of the endpoint's certificate in PEM, for `https_web`; relative to the
    /// file. Default: the host's.
    pub(in crate::config) authorities: Key<PathBuf>,
}
