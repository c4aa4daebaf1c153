//! The TCP sockets of the daemon's network namespace, as the kernel lists them
//! (`NETLINK_SOCK_DIAG`): also those that were there before the daemon. Who holds them is answered
//! by [`crate::sys::sockets`]. A connection can be reset.

use std::io;
use std::net::SocketAddr;

use netlink_packet_core::{DefaultNla, Emitable, NetlinkSerializable, Nla as _};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags,
};
use netlink_packet_sock_diag::{AF_INET, AF_INET6, SOCK_DIAG_BY_FAMILY, SockDiagMessage};
use nix::sys::socket::SockProtocol;

use super::frame::{change, dump};
use crate::workload::{CgroupId, ListenAddr};

/// `INET_DIAG_REQ_PROTOCOL` and `INET_DIAG_CGROUP_ID`, `include/uapi/linux/inet_diag.h`.
const REQUEST_PROTOCOL: u16 = 3;
const CGROUP_ID: u16 = 21;
/// `include/uapi/linux/sock_diag.h`.
const SOCK_DESTROY: u16 = 21;

/// A listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListeningSocket {
    /// The address it is bound to, possibly a wildcard.
    pub addr: ListenAddr,
    /// The socket is IPv6 and takes no IPv4 connections.
    pub v6_only: bool,
    /// Whether the socket's family is IPv6.
    pub is_v6: bool,
    /// Interface it is bound to, 0 for all.
    pub ifindex: u32,
    /// Owner of the socket's inode: the effective user that made it.
    pub uid: u32,
    /// Inode, as `/proc/PID/fd` shows it.
    pub inode: u64,
    /// Socket cookie.
    pub cookie: u64,
    /// The cgroup that the socket was made in.
    pub cgroup: Option<CgroupId>,
    /// An MPTCP socket, listed once; the cookie is that of its TCP part where the kernel shows it.
    pub mptcp: bool,
}

/// Lists the listening sockets of both families. Blocks.
pub fn listening() -> io::Result<Vec<ListeningSocket>> {
    let mut sockets = Vec::new();
    for family in [AF_INET, AF_INET6] {
        sockets.extend(list(family, libc::IPPROTO_TCP)?);
        match list(family, libc::IPPROTO_MPTCP) {
            Ok(mptcp) => mptcp.into_iter().for_each(|socket| merge(&mut sockets, socket)),
            // A kernel without MPTCP, or without its diagnosis.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

/// An MPTCP socket listens by a TCP socket of the same inode (seen on 6.18), whose cookie is the one
/// that programs in the kernel meet.
fn merge(sockets: &mut Vec<ListeningSocket>, mptcp: ListeningSocket) {
    match sockets.iter_mut().find(|known| known.inode == mptcp.inode) {
        Some(tcp) => tcp.mptcp = true,
        None => sockets.push(mptcp),
    }
}

fn list(family: u8, protocol: i32) -> io::Result<Vec<ListeningSocket>> {
    let request = Request::all(family, protocol, StateFlags::LISTEN);
    let mptcp = protocol == libc::IPPROTO_MPTCP;
    Ok(answers(request)?.iter().map(|response| socket_in(response, mptcp)).collect())
}

fn answers(request: Request) -> io::Result<Vec<InetResponse>> {
    let answers = dump(SockProtocol::NetlinkSockDiag, request)?;
    let inet = answers.into_iter().filter_map(|answer| match answer {
        SockDiagMessage::InetResponse(response) => Some(*response),
        _ => None,
    });
    Ok(inet.collect())
}

/// A TCP connection of this host: one end of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Effective user that made the socket.
    pub uid: u32,
    /// The cgroup that the socket was made in.
    pub cgroup: Option<CgroupId>,
    family: u8,
    id: SocketId,
}

impl Connection {
    /// What tells it from every other socket of this host.
    pub fn cookie(&self) -> u64 {
        u64::from_ne_bytes(self.id.cookie)
    }
}

/// Lists the connections of both families that can carry data. IPv4-mapped addresses are given as
/// IPv4. Blocks.
pub fn connections() -> io::Result<Vec<Connection>> {
    let states = StateFlags::ESTABLISHED
        | StateFlags::FIN_WAIT1
        | StateFlags::FIN_WAIT2
        | StateFlags::CLOSE_WAIT
        | StateFlags::SYN_SENT;
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let listed = answers(Request::all(family, libc::IPPROTO_TCP, states.clone()))?;
        found.extend(listed.iter().map(connection_in));
    }
    Ok(found)
}

/// Ends a connection: both ends see a reset, and what was not sent is dropped (`SOCK_DESTROY`,
/// Linux 4.5, `CONFIG_INET_DIAG_DESTROY`).
///
/// # Errors
/// `NotFound` if it has ended by itself; `Unsupported` if the kernel cannot.
pub fn reset(connection: &Connection) -> io::Result<()> {
    change(SockProtocol::NetlinkSockDiag, Request::destroy(connection.family, &connection.id))
}

/// As [`reset`], by its ends: whichever socket of this namespace has them now.
///
/// # Errors
/// As [`reset`].
pub fn reset_between(local: SocketAddr, remote: SocketAddr) -> io::Result<()> {
    let (family, mut id) = match local {
        SocketAddr::V4(_) => (AF_INET, SocketId::new_v4()),
        SocketAddr::V6(_) => (AF_INET6, SocketId::new_v6()),
    };
    id.source_address = local.ip();
    id.source_port = local.port();
    id.destination_address = remote.ip();
    id.destination_port = remote.port();
    // INET_DIAG_NOCOOKIE, `include/uapi/linux/inet_diag.h`.
    id.cookie = [u8::MAX; 8];
    change(SockProtocol::NetlinkSockDiag, Request::destroy(family, &id))
}

fn connection_in(response: &InetResponse) -> Connection {
    let id = response.header.socket_id.clone();
    let canonical = |ip: std::net::IpAddr, port| SocketAddr::new(ip.to_canonical(), port);
    let cgroup = response.nlas.iter().find_map(|attribute| match attribute {
        Nla::Other(other) if other.kind() == CGROUP_ID => cgroup_in(other),
        _ => None,
    });
    Connection {
        local: canonical(id.source_address, id.source_port),
        remote: canonical(id.destination_address, id.destination_port),
        uid: response.header.uid,
        cgroup,
        family: response.header.family,
        id,
    }
}

/// A question about sockets. The crate's request has no attributes, and MPTCP needs one: its number
/// does not fit the field.
struct Request {
    kind: u16,
    head: InetRequest,
    protocol: Option<DefaultNla>,
}

impl Request {
    /// For all sockets in these states.
    fn all(family: u8, protocol: i32, states: StateFlags) -> Self {
        let short = u8::try_from(protocol).ok();
        Self {
            kind: SOCK_DIAG_BY_FAMILY,
            head: InetRequest {
                family,
                protocol: short.unwrap_or(u8::MAX),
                extensions: ExtensionFlags::empty(),
                states,
                socket_id: if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() },
            },
            protocol: short
                .is_none()
                .then(|| DefaultNla::new(REQUEST_PROTOCOL, protocol.to_ne_bytes().to_vec())),
        }
    }

    /// To end this one.
    fn destroy(family: u8, id: &SocketId) -> Self {
        let protocol = u8::try_from(libc::IPPROTO_TCP).unwrap_or_default();
        Self {
            kind: SOCK_DESTROY,
            head: InetRequest {
                family,
                protocol,
                extensions: ExtensionFlags::empty(),
                states: StateFlags::all(),
                socket_id: id.clone(),
            },
            protocol: None,
        }
    }
}

impl NetlinkSerializable for Request {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.head.buffer_len() + self.protocol.as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (head, behind) = buffer.split_at_mut(self.head.buffer_len());
        self.head.emit(head);
        self.protocol.as_slice().emit(behind);
    }
}

fn socket_in(response: &InetResponse, mptcp: bool) -> ListeningSocket {
    let id = &response.header.socket_id;
    let mut socket = ListeningSocket {
        addr: ListenAddr::new(SocketAddr::new(id.source_address, id.source_port)),
        v6_only: false,
        is_v6: response.header.family == AF_INET6,
        ifindex: id.interface_id,
        cookie: u64::from_ne_bytes(id.cookie),
        uid: response.header.uid,
        inode: response.header.inode.into(),
        cgroup: None,
        mptcp,
    };
    for attribute in &response.nlas {
        match attribute {
            Nla::SkV6Only(only) => socket.v6_only = *only,
            Nla::Other(other) if other.kind() == CGROUP_ID => socket.cgroup = cgroup_in(other),
            _ => {}
        }
    }
    socket
}

fn cgroup_in(attribute: &DefaultNla) -> Option<CgroupId> {
    let mut id = [0; 8];
    (attribute.value_len() == id.len()).then(|| {
        attribute.emit_value(&mut id);
        CgroupId(u64::from_ne_bytes(id))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use netlink_packet_core::ParseableParametrized;
    use proptest::prelude::*;
    use socket2::{Domain, Protocol, Socket, Type};

    use super::*;

    fn inode(socket: &impl AsFd) -> u64 {
        let file = std::fs::File::from(socket.as_fd().try_clone_to_owned().unwrap());
        file.metadata().unwrap().ino()
    }

    #[test]
    fn listeners_of_both_families_are_listed() {
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let listener = TcpListener::bind((ip, 0)).unwrap();
            let inode = inode(&listener);
            let found = listening().unwrap().into_iter().find(|socket| socket.inode == inode);
            let found = found.unwrap();
            assert_eq!(found.addr.get(), listener.local_addr().unwrap());
            assert_eq!(found.uid, nix::unistd::geteuid().as_raw());
            assert_eq!(found.is_v6, ip.is_ipv6());
            assert_ne!(found.cookie, 0);
            assert!(found.cgroup.is_some());
            drop(listener);
            assert!(!listening().unwrap().iter().any(|socket| socket.inode == inode));
        }
    }

    #[test]
    fn v6_only_is_told_apart() {
        for only in [true, false] {
            let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
            socket.set_only_v6(only).unwrap();
            socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into()).unwrap();
            socket.listen(1).unwrap();
            let inode = inode(&socket);
            let listed = listening().unwrap();
            let found = listed.iter().find(|socket| socket.inode == inode).unwrap();
            assert_eq!((found.v6_only, found.is_v6, found.mptcp), (only, true, false));
        }
    }

    #[test]
    fn an_mptcp_listener_is_listed_by_the_inode_that_its_holder_shows() {
        let protocol = Some(Protocol::from(libc::IPPROTO_MPTCP));
        let Ok(socket) = Socket::new(Domain::IPV4, Type::STREAM, protocol) else {
            // A kernel without MPTCP has no such listeners.
            return;
        };
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        socket.listen(1).unwrap();
        let inode = inode(&socket);
        let listed = listening().unwrap();
        let found: Vec<_> = listed.iter().filter(|one| one.inode == inode).collect();
        assert!(matches!(found[..], [one] if one.mptcp), "{found:?}");
    }

    #[test]
    fn privileged_a_connection_is_listed_and_reset() {
        assert!(nix::unistd::geteuid().is_root(), "needs root: run it by `cargo xtask test`");
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let listener = TcpListener::bind((ip, 0)).unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let mut server = listener.accept().unwrap().0;
            let own = client.local_addr().unwrap();
            let found = |at| connections().unwrap().into_iter().find(|one| one.local == at);
            let listed = found(own).unwrap();
            assert_eq!(listed.remote, listener.local_addr().unwrap());
            assert!(listed.cgroup.is_some());
            reset(&listed).unwrap();
            assert!(client.read(&mut [0]).is_err());
            assert_eq!(server.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            assert_eq!(reset(&listed).unwrap_err().kind(), io::ErrorKind::NotFound);
            let other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (own, peer) = (other.local_addr().unwrap(), other.peer_addr().unwrap());
            reset_between(own, peer).unwrap();
            assert!(reset_between(own, peer).is_err());
        }
    }

    fn parse(message: &[u8], mptcp: bool) {
        let message = SockDiagMessage::parse_with_param(message, SOCK_DIAG_BY_FAMILY);
        if let Ok(SockDiagMessage::InetResponse(response)) = message {
            socket_in(&response, mptcp);
            connection_in(&response);
        }
    }

    proptest! {
        #[test]
        fn never_panics(message: Vec<u8>, mptcp: bool) {
            parse(&message, mptcp);
        }

        #[test]
        fn never_panics_on_long_ones(mut message in prop::collection::vec(0_u8..30, 60..140)) {
            for family in [AF_INET, AF_INET6] {
                message[0] = family;
                parse(&message, false);
            }
        }
    }
}
