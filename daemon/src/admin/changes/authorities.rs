//! Orders about the authorities of a node, and how these stand, as serde sees them; field names are
//! public.

use serde::{Deserialize, Serialize};

use crate::admin::dump::AuthorityDump;

/// What `tacit ca` asks of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaOrder {
    /// Prepares the next root of a node that keeps its own; or changes when it signs.
    Rotate {
        /// Seconds until it signs; the default where none.
        activate_after: Option<u64>,
        /// Seconds from then on until the old one is trusted no more; the default where none.
        retire_after: Option<u64>,
    },
    /// Replaces root, authority and keys at once, and distrusts the old ones.
    Replace,
    /// Makes a key, and a request to have it certified elsewhere.
    Request,
    /// Takes the certificate that was signed for the last request.
    Accept {
        /// The certificate, and the roots of whoever signed it.
        pem: String,
        /// Whether the authority that it follows is to be distrusted.
        compromised: bool,
    },
    /// Trusts roots.
    Trust {
        /// Their certificates.
        pem: String,
    },
    /// Trusts a root no more, on which this node does not hang.
    Retire {
        /// Which.
        key_id: String,
    },
    /// Trusts nothing any more that hangs on an authority.
    Distrust {
        /// Which.
        key_id: String,
    },
    /// Takes that back.
    UndoDistrust {
        /// Which.
        key_id: String,
    },
}

/// What became of an order. By the time of the answer it is on the disk and in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaChanged {
    /// The request that was made, PEM.
    pub request: Option<String>,
    /// Key ids of the authorities that came or went.
    pub changed: Vec<String>,
    /// Key ids of those that were trusted before.
    pub unchanged: Vec<String>,
    /// How the authorities stand now.
    pub ca: CaDump,
}

/// The authorities of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaDump {
    /// The trust domain.
    pub trust_domain: String,
    /// Whether the root's key is kept here: nodes can be given authorities from here.
    pub root_key_present: bool,
    /// The node's own authority, then every root that is trusted.
    pub authorities: Vec<AuthorityDump>,
    /// Key ids of the authorities through which nothing is trusted.
    #[serde(default)]
    pub distrusted: Vec<String>,
    /// SVIDs that the daemon holds.
    #[serde(default)]
    pub svids: usize,
    /// Those of them that hang on the authority that signs now.
    #[serde(default)]
    pub svids_replaced: usize,
}

impl CaOrder {
    /// What the audit log calls it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Rotate { .. } => "ca_rotate",
            Self::Replace => "ca_rotate_compromised",
            Self::Request => "ca_request",
            Self::Accept { .. } => "ca_accept",
            Self::Trust { .. } => "ca_trust",
            Self::Retire { .. } => "ca_retire",
            Self::Distrust { .. } => "ca_distrust",
            Self::UndoDistrust { .. } => "ca_distrust_undone",
        }
    }
}
