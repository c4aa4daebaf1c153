//! What the programs tell the daemon without being asked.

use crate::{Ip, Process};

/// `Event.kind`
pub mod kind {
    /// A program denied something; `reason` is a [`crate::Counter`].
    pub const DENIED: u32 = 1;
    /// An observed connection has closed.
    pub const OBSERVED: u32 = 2;
    /// An observed connection is about to be opened: its process can be looked at while it lives.
    pub const OPENING: u32 = 3;
    /// An observed connection is established.
    pub const ESTABLISHED: u32 = 4;
}

/// A record of the `EVENTS` ring buffer.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Event {
    /// Who.
    pub process: Process,
    /// Now (`CLOCK_BOOTTIME`), ns.
    pub time_ns: u64,
    /// When the connection began, ns; 0 if unknown.
    pub opened_ns: u64,
    /// Bytes that the peer has acknowledged.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Local address.
    pub local: Ip,
    /// Remote address.
    pub remote: Ip,
    /// [`kind`]
    pub kind: u32,
    /// A [`crate::Counter`], for `DENIED`.
    pub reason: u32,
    /// Scope that decided.
    pub scope: u32,
    /// [`crate::flags`] of the socket.
    pub flags: u32,
    /// Local port.
    pub local_port: u16,
    /// Remote port.
    pub remote_port: u16,
    /// IP protocol number.
    pub protocol: u32,
}

const _: () = assert!(size_of::<Event>() == 72 + 32 + 32 + 16 + 8);
