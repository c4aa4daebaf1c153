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

/// What the kernel's tables can hold of scopes, fixed when the programs are compiled. A test holds
/// it against the contract with the programs (`tests/kernel/limits.rs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScopeLimits {
    /// Scopes in all.
    pub scopes: usize,
    /// Scopes (for different users) of one cgroup.
    pub users: usize,
    /// Ranges of ports in one direction of one scope.
    pub port_ranges: usize,
    /// Bytes of the path of a cgroup.
    pub path_bytes: usize,
    /// Levels of the path of a cgroup; the root has none.
    pub levels: usize,
}

impl ScopeLimits {
    /// Of this version.
    pub const HELD: Self =
        Self { scopes: 1023, users: 8, port_ranges: 8, path_bytes: 255, levels: 31 };
}

/// A cgroup subtree, optionally one user in it, and what holds there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Path of the cgroup below the cgroup2 mount, with a leading `/`.
    pub cgroup: String,
    /// Only processes of this user: by their effective user id, or if that is of no scope by their
    /// real one.
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
