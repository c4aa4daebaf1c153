//! Scopes as the programs look them up: by cgroup and user to an index, by index to what holds.

/// Scopes of one configuration, and one.
pub const MAX_SCOPES: u32 = 1024;
/// Indices of scopes, 0 ("in no scope") included: as many as two configurations have, since while one
/// takes the place of another both hold.
pub const SCOPE_SLOTS: u32 = 2 * MAX_SCOPES;
/// Addresses on which the programs of one scope can listen at a time, so that no scope can fill the
/// table of listeners for the others.
pub const MAX_LISTENERS: u64 = 8192;
/// Port ranges that a scope can hold per direction.
pub const MAX_PORT_RANGES: usize = 8;
/// Depth of the deepest cgroup that a scope can name (the root is 0).
pub const MAX_LEVEL: u32 = 31;
/// `ScopeKey.uid` of a scope for all users.
pub const ANY_USER: u32 = u32::MAX;

/// `Scope.mode`
pub mod mode {
    /// Untouched, attributed and recorded. Also what holds in no scope.
    pub const OBSERVE: u32 = 0;
    /// mTLS where a rule says so, else plaintext, all through the daemon.
    pub const PERMISSIVE: u32 = 1;
    /// mTLS or refused.
    pub const STRICT: u32 = 2;
}

/// `Scope.fail`
pub mod fail {
    /// Refuse while no daemon is alive.
    pub const CLOSED: u32 = 0;
    /// Leave alone while no daemon is alive.
    pub const OPEN: u32 = 1;
}

/// `Scope.other`
pub mod other {
    /// No other transport leaves the host.
    pub const REFUSE: u32 = 0;
    /// Only UDP to port 53.
    pub const DNS_ONLY: u32 = 1;
    /// Left alone.
    pub const ALLOW: u32 = 2;
}

/// Key of the `SCOPE_IDS` map.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ScopeKey {
    /// Cgroup id.
    pub cgroup: u64,
    /// User id, or [`ANY_USER`].
    pub uid: u32,
    /// Zero.
    pub padding: u32,
}

/// First and last port of a range, both within it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port; 0 marks an unused range.
    pub last: u16,
}

/// Entry of the `SCOPES` array.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scope {
    /// [`mode`]
    pub mode: u32,
    /// [`fail`]
    pub fail: u32,
    /// [`other`]
    pub other: u32,
    /// 1: all inbound ports; else those in `inbound`.
    pub all_inbound: u16,
    /// 1: all outbound ports; else those in `outbound`.
    pub all_outbound: u16,
    /// Captured ports of its listeners.
    pub inbound: [PortRange; MAX_PORT_RANGES],
    /// Captured destination ports.
    pub outbound: [PortRange; MAX_PORT_RANGES],
}

/// Length of the longest cgroup path that a scope can name, with its final zero byte.
pub const MAX_PATH: usize = 256;
/// Scopes (for different users) that one cgroup can have.
pub const MAX_USERS: usize = 8;

/// Key of the `SCOPE_PATHS` map: the path below the cgroup2 mount, zero-padded.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScopePath {
    /// With a leading `/`.
    pub path: [u8; MAX_PATH],
}

/// Value of the `SCOPE_PATHS` map: the scopes of a cgroup that may come to be.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathScopes {
    /// User ids, or [`ANY_USER`].
    pub uids: [u32; MAX_USERS],
    /// Scope indices, 0 for unused.
    pub scopes: [u32; MAX_USERS],
    /// The cgroup that has the path now, 0 for none; one that is made anew takes its place.
    pub cgroup: u64,
}

const _: () = assert!(size_of::<ScopeKey>() == 16);
const _: () = assert!(size_of::<PathScopes>() == 72);
const _: () = assert!(size_of::<Scope>() == 80);
