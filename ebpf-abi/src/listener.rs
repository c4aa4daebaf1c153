//! Who listens on which address.

use crate::{Ip, Process};

/// `Listener.flags`
pub mod listener_flags {
    /// Several sockets share the address and their owners differ.
    pub const AMBIGUOUS: u32 = 1;
    /// The facts come from a scan: the socket is older than the daemon.
    pub const SCANNED: u32 = 2;
}

/// Key of the `LISTENERS` map.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ListenKey {
    /// Network namespace.
    pub netns: u64,
    /// Address listened on; the unspecified address of its family for a wildcard.
    pub ip: Ip,
    /// Port.
    pub port: u16,
    /// Zero.
    pub padding16: u16,
    /// Zero.
    pub padding: u32,
}

/// Value of the `LISTENERS` map.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listener {
    /// Who bound it.
    pub owner: Process,
    /// Scope that holds.
    pub scope: u32,
    /// [`listener_flags`]
    pub flags: u32,
    /// Sockets that share the address (`SO_REUSEPORT`).
    pub sockets: u32,
    /// Zero.
    pub padding: u32,
}

const _: () = assert!(size_of::<ListenKey>() == 32);
const _: () = assert!(size_of::<Listener>() == 88);
