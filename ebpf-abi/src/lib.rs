//! The contract across the kernel boundary: what the eBPF programs and the daemon share.
//!
//! Integers and arrays only, explicit padding, no logic. Addresses are 16 bytes in network order,
//! IPv4 as `::ffff:a.b.c.d`, held as four words; ports are in host byte order unless a field says
//! otherwise. Changing anything here means raising [`ABI_VERSION`], which is part of the pin path.
#![no_std]
#![cfg_attr(feature = "user", expect(unsafe_code, reason = "aya::Pod is an unsafe marker trait"))]

mod config;
mod counter;
mod event;
mod listener;
mod process;
mod scope;
mod socket;

pub use config::{Config, MAX_DAEMONS, TaskOffsets};
pub use counter::Counter;
pub use event::{Event, kind};
pub use listener::{ListenKey, Listener, bpf_spin_lock, listener_flags};
pub use process::Process;
pub use scope::{
    ANY_USER, MAX_LEVEL, MAX_LISTENERS, MAX_PATH, MAX_PORT_RANGES, MAX_SCOPES, MAX_USERS,
    PathScopes, PortRange, SCOPE_SLOTS, Scope, ScopeKey, ScopePath, fail, mode, other,
};
pub use socket::{Dial, Ip, Socket, SourceKey, Tuple, flags};

/// Version of this contract. Pinned maps of another version are never adopted.
pub const ABI_VERSION: u32 = 4;

/// Indices of the daemon's listening sockets in the `PROXY` socket map.
pub mod slot {
    /// Outbound, IPv4.
    pub const OUTBOUND4: u32 = 0;
    /// Outbound, IPv6.
    pub const OUTBOUND6: u32 = 1;
    /// Inbound, IPv4.
    pub const INBOUND4: u32 = 2;
    /// Inbound, IPv6.
    pub const INBOUND6: u32 = 3;
    /// Number of slots.
    pub const COUNT: u32 = 4;
}

#[cfg(feature = "user")]
mod pod {
    macro_rules! pod {
        ($($name:ty),+ $(,)?) => { $(
            // SAFETY: repr(C), integers and arrays only, no implicit padding (asserted by size).
            unsafe impl aya::Pod for $name {}
        )+ };
    }
    pod!(
        crate::Config,
        crate::Process,
        crate::Socket,
        crate::Tuple,
        crate::Dial,
        crate::SourceKey,
        crate::ListenKey,
        crate::Listener,
        crate::Scope,
        crate::ScopeKey,
        crate::ScopePath,
        crate::PathScopes,
    );
}
