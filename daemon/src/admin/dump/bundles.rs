//! What `tacit bundle` shows.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::AuthorityDump;
use crate::audit::format_time;
use crate::spiffe::{BundleDocument, TrustDomain};

/// The bundle of one trust domain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleDump {
    /// The trust domain.
    pub trust_domain: String,
    /// How it came here: `own`, `set` by hand, `fetched` from its endpoint, `declared` in a file of the
    /// configuration, or `missing`: the trust domain is spoken of, and there is no bundle of it.
    #[serde(default)]
    pub source: String,
    /// Since when it is the one in force.
    #[serde(default)]
    pub since: Option<String>,
    /// Its version, as its publisher counts.
    #[serde(default)]
    pub sequence: Option<u64>,
    /// After how long its publisher wants it to be fetched again.
    #[serde(default)]
    pub refresh_hint: Option<u64>,
    /// How many entries are federated with the trust domain.
    #[serde(default)]
    pub entries: usize,
    /// Where it is fetched; none if it is not.
    #[serde(default)]
    pub endpoint: Option<EndpointDump>,
    /// Its authorities.
    pub authorities: Vec<AuthorityDump>,
    /// Key ids of its authorities for JWT-SVIDs.
    #[serde(default)]
    pub jwt_authorities: Vec<String>,
    /// The authorities for X.509-SVIDs, PEM.
    pub pem: String,
    /// All of it in SPIFFE's JSON, as it is published; none if there is none.
    #[serde(default)]
    pub document: Option<String>,
}

/// An endpoint of another trust domain, and how looks at it fare.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointDump {
    /// Where it is.
    pub url: String,
    /// How it proves who it is.
    pub profile: String,
    /// When it was looked at last with success.
    pub fetched: Option<String>,
    /// When it is looked at next.
    pub next: Option<String>,
    /// How often that has failed in a row.
    pub failures: u32,
    /// Why it failed last.
    pub last_error: Option<String>,
}

impl BundleDump {
    /// A bundle; `now` tells which of its authorities have ended.
    pub fn new(source: &str, document: &BundleDocument, now: SystemTime) -> Self {
        let bundle = &document.bundle;
        let authorities = bundle.authorities().iter().map(|authority| AuthorityDump {
            role: "root".to_owned(),
            key_id: authority.key_id.clone(),
            not_after: format_time(authority.not_after),
            warning: (authority.not_after <= now).then(|| "has ended".to_owned()),
            ..AuthorityDump::default()
        });
        let jwt = bundle.jwt_authorities().iter();
        Self {
            source: source.to_owned(),
            sequence: document.sequence,
            refresh_hint: document.refresh_hint.map(|hint| hint.as_secs()),
            authorities: authorities.collect(),
            jwt_authorities: jwt.map(|authority| authority.key_id.clone()).collect(),
            pem: bundle.to_pem(),
            document: Some(document.to_json()),
            ..Self::missing(bundle.trust_domain())
        }
    }

    /// A trust domain of which there is no bundle.
    pub fn missing(trust_domain: &TrustDomain) -> Self {
        let source = "missing".to_owned();
        Self { trust_domain: trust_domain.to_string(), source, ..Self::default() }
    }
}
