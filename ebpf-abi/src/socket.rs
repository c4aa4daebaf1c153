//! What travels with a socket, and the keys under which it crosses to another socket.

use crate::Process;

/// An IP address: 16 bytes in network order as four words, IPv4 as `::ffff:a.b.c.d`.
pub type Ip = [u32; 4];

/// `Socket.flags`
pub mod flags {
    /// `connect()` was redirected to the outbound listener; `dst` is where it wanted to go.
    pub const REDIRECTED: u32 = 1;
    /// The daemon's own socket.
    pub const OURS: u32 = 1 << 1;
    /// The daemon's dial to an application on this host; `peer` is the true client.
    pub const LAST_MILE: u32 = 1 << 2;
    /// An application's accepted socket whose true client is `peer`.
    pub const TRUE_PEER: u32 = 1 << 3;
    /// In the `LISTENERS` map.
    pub const LISTENING: u32 = 1 << 4;
    /// Left alone and watched: an event is due when it closes.
    pub const OBSERVED: u32 = 1 << 5;
    /// Accepted, not connected.
    pub const INBOUND: u32 = 1 << 6;
    /// The application bound the source address itself.
    pub const SOURCE_BOUND: u32 = 1 << 7;
    /// `src` holds what `getsockname` is to say.
    pub const SOURCE_KNOWN: u32 = 1 << 8;
    /// The socket that the application holds is another one (MPTCP): its truth is in `TRUTHS`.
    pub const CARRIED: u32 = 1 << 9;
    /// The facts come from a scan: the socket is older than the daemon.
    pub const SCANNED: u32 = 1 << 10;
    /// Made by `socket()` in user space, not by the kernel.
    pub const CREATED: u32 = 1 << 11;
    /// The connection was established.
    pub const ESTABLISHED: u32 = 1 << 12;
    /// In an event: the packet is a TCP socket's own, so its addresses are the socket's.
    pub const OF_TCP_SOCKET: u32 = 1 << 13;
    /// Captured while its scope was strict: it stays so, whatever becomes of the scope.
    pub const STRICT: u32 = 1 << 14;
}

/// Value of the `SOCKETS` socket storage: inherited by accepted sockets, freed with the socket.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Socket {
    /// Who opened it.
    pub owner: Process,
    /// When the connection began (`CLOCK_BOOTTIME`), ns.
    pub opened_ns: u64,
    /// Where the application wanted to go.
    pub dst: Ip,
    /// The application's own address, as it is to see it.
    pub src: Ip,
    /// The true client of a last-mile connection.
    pub peer: Ip,
    /// [`flags`]
    pub flags: u32,
    /// Index of the scope that holds.
    pub scope: u32,
    /// `SO_BINDTODEVICE` of the application, 0 for none.
    pub bound_ifindex: u32,
    /// Port of `dst`.
    pub dst_port: u16,
    /// Port of `peer`.
    pub peer_port: u16,
}

/// The full 4-tuple of a connection in one namespace, seen from its client.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Network namespace.
    pub netns: u64,
    /// Address of the connecting side.
    pub client: Ip,
    /// Address of the accepting side.
    pub server: Ip,
    /// Port of the connecting side.
    pub client_port: u16,
    /// Port of the accepting side.
    pub server_port: u16,
    /// Zero.
    pub padding: u32,
}

/// Value of the `DIALS` map: one last-mile dial of the daemon, from before its SYN to its close.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dial {
    /// Owner of the listener that accepted; `seen_ns` is 0 until one has.
    pub owner: Process,
    /// The true client.
    pub peer: Ip,
    /// Scope of the listener that accepted.
    pub scope: u32,
    /// Port of the true client.
    pub peer_port: u16,
    /// 1 once a listener has accepted.
    pub accepted: u16,
}

/// Key of the `SOURCES` longest-prefix-match trie: destination prefix to source address.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SourceKey {
    /// Destination network.
    pub net: Ip,
}

const _: () = assert!(size_of::<Socket>() == 72 + 8 + 48 + 16);
const _: () = assert!(size_of::<Tuple>() == 48);
const _: () = assert!(size_of::<Dial>() == 96);
