//! The shape of a policy: rules of two directions, in the order of the file.
//! Rules are values; what they mean is in `outbound.rs` and `inbound.rs`.

use std::sync::Arc;

use super::{DenyList, Networks, PeerPattern};
use crate::spiffe::SpiffeId;
use crate::workload::PortSet;

/// The rule name that stands in records where no rule speaks of a connection.
pub const DEFAULT_RULE: &str = "default";

/// A snapshot of all rules.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// Counts the snapshots; a decision carries the epoch it was made in.
    pub epoch: u64,
    /// Who is denied, whatever the rules say.
    pub denied: Arc<DenyList>,
    /// Rules for connections that local workloads open, in order.
    pub outbound: Vec<OutboundRule>,
    /// Rules for connections that local workloads accept, in order.
    pub inbound: Vec<InboundRule>,
}

/// A rule for connections that local workloads open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundRule {
    /// Unique name, as records show it.
    pub name: Arc<str>,
    /// Local identities; empty means any, and a program without identity too.
    pub workloads: Vec<PeerPattern>,
    /// Destination addresses.
    pub to: Networks,
    /// Destination ports.
    pub ports: PortSet,
    /// What is done.
    pub action: OutboundAction,
    /// The rule decides nothing; records say where it would have decided otherwise.
    pub dry_run: bool,
}

/// What an outbound rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutboundAction {
    /// Mutual TLS with one of these peers.
    Mtls {
        /// Identities that the peer may prove; nobody if empty.
        peers: Arc<[PeerPattern]>,
        /// ALPN protocols offered, in order; none if empty.
        alpn: Arc<[Vec<u8>]>,
        /// Server name sent; none if absent.
        sni: Option<Arc<str>>,
    },
    /// In the clear, through the daemon, recorded.
    Plaintext,
    /// Refused.
    Refuse,
}

/// A rule for connections that local workloads accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboundRule {
    /// Unique name, as records show it.
    pub name: Arc<str>,
    /// Local identities; empty means any, and a program without identity too.
    pub workloads: Vec<PeerPattern>,
    /// Ports of the local listener.
    pub ports: PortSet,
    /// Addresses of clients.
    pub from: Networks,
    /// Identities of clients; empty means any. Never speaks of a client without one.
    pub peers: Vec<PeerPattern>,
    /// Whom it is about: those it admits, or those it refuses.
    pub action: InboundAction,
    /// The rule decides nothing; records say where it would have decided otherwise.
    pub dry_run: bool,
}

/// What an inbound rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InboundAction {
    /// Admits clients that prove one of the rule's identities, and clients without identity only
    /// as far as these two say so.
    Allow {
        /// Whether clients in the clear are admitted.
        plaintext: bool,
        /// What is done with TLS that bears no mark of the mesh; `None` leaves it to later rules.
        unmarked_tls: Option<UnmarkedTls>,
    },
    /// Refuses them. With identities it refuses only those who prove one of them.
    Deny,
}

/// What is done with TLS that bears no mark of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnmarkedTls {
    /// Terminated: a stock SPIFFE client calls an application that speaks plaintext.
    Terminate,
    /// Passed through: the application speaks TLS itself.
    Passthrough,
    /// Refused.
    Refuse,
}

impl OutboundRule {
    pub(super) fn speaks_of(&self, local: Option<&SpiffeId>) -> bool {
        speaks_of(&self.workloads, local)
    }
}

impl InboundRule {
    pub(super) fn speaks_of(&self, local: Option<&SpiffeId>) -> bool {
        speaks_of(&self.workloads, local)
    }

    pub(super) fn denies(&self) -> bool {
        self.action == InboundAction::Deny
    }
}

impl OutboundAction {
    /// Stable label, as the configuration spells it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Mtls { .. } => "mtls",
            Self::Plaintext => "plaintext",
            Self::Refuse => "refuse",
        }
    }
}

impl InboundAction {
    /// Stable label, as the configuration spells it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Allow { .. } => "allow",
            Self::Deny => "deny",
        }
    }
}

impl UnmarkedTls {
    /// Stable label, as the configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Terminate => "terminate",
            Self::Passthrough => "passthrough",
            Self::Refuse => "refuse",
        }
    }
}

/// Whether patterns of local identities speak of this one: none speak of all.
fn speaks_of(workloads: &[PeerPattern], local: Option<&SpiffeId>) -> bool {
    workloads.is_empty() || local.is_some_and(|id| any_matches(workloads, id))
}

/// Whether one of the patterns matches.
pub(super) fn any_matches(patterns: &[PeerPattern], id: &SpiffeId) -> bool {
    patterns.iter().any(|pattern| pattern.matches(id))
}
