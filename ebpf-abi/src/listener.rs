//! Who listens on which address.

use crate::{Ip, Process};

/// `Listener.flags`
pub mod listener_flags {
    /// Several sockets share the address and their owners differ.
    pub const AMBIGUOUS: u32 = 1;
    /// The facts come from a scan: the socket is older than the daemon.
    pub const SCANNED: u32 = 2;
    /// The programs do not see its end; the daemon's look does.
    pub const UNWATCHED: u32 = 8;
    /// The socket is bound to a device, so the daemon cannot dial it over loopback.
    pub const DEVICE_BOUND: u32 = 4;
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

/// The kernel's spin lock: the verifier knows it by this name in the type information of a map.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct bpf_spin_lock {
    /// The kernel's own business; user space reads zero.
    pub val: u32,
}

/// Value of the `LISTENERS` map. Programs write it under the lock; the daemon with `BPF_F_LOCK`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listener {
    /// Who listened first of those who listen now.
    pub owner: Process,
    /// Guards all the rest.
    pub lock: bpf_spin_lock,
    /// Scope that holds.
    pub scope: u32,
    /// [`listener_flags`]
    pub flags: u32,
    /// Sockets that listen on the address (several with `SO_REUSEPORT`). 0: nobody does any more;
    /// the entry is as good as gone.
    pub sockets: u32,
}

const _: () = assert!(size_of::<ListenKey>() == 32);
const _: () = assert!(size_of::<Listener>() == 88);
