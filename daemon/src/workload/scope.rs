//! A scope: a part of the host that the kernel recognises by itself, and what holds in it.

use super::PortSet;

/// Index of a scope in the kernel's scope table; 0 is "in no scope".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScopeId(pub u32);

/// What is done with the connections of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Untouched, attributed and recorded.
    Observe,
    /// mTLS where a rule says so, else plaintext, recorded as such.
    Permissive,
    /// mTLS with an allowed identity, or refused.
    Strict,
}

/// What becomes of a scope's connections while no daemon is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailMode {
    /// Refused.
    Closed,
    /// Left untouched, as if observed.
    Open,
}

/// What becomes of transports other than TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OtherTransports {
    /// Nothing leaves the host.
    Refuse,
    /// Only UDP to port 53 leaves the host.
    DnsOnly,
    /// Left alone.
    Allow,
}

/// A cgroup subtree, optionally one user in it, and what holds there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Path of the cgroup below the cgroup2 mount, with a leading `/`.
    pub cgroup: String,
    /// Only processes of this real user id.
    pub uid: Option<u32>,
    /// What is done with its connections.
    pub mode: Mode,
    /// What becomes of them while no daemon is alive.
    pub fail: FailMode,
    /// What becomes of transports other than TCP.
    pub other_transports: OtherTransports,
    /// Ports of its listeners that are captured. Always all in a strict scope.
    pub inbound_ports: PortSet,
    /// Destination ports that are captured. Always all in a strict scope.
    pub outbound_ports: PortSet,
}

impl Mode {
    /// The more, the less is let through.
    pub fn strictness(self) -> u8 {
        match self {
            Self::Observe => 0,
            Self::Permissive => 1,
            Self::Strict => 2,
        }
    }

    /// Stable label, as the configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Permissive => "permissive",
            Self::Strict => "strict",
        }
    }
}

impl FailMode {
    /// Stable label, as the configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
        }
    }
}

impl OtherTransports {
    /// Stable label, as the configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::DnsOnly => "dns-only",
            Self::Allow => "allow",
        }
    }
}
