//! The listening TCP sockets of the daemon's network namespace, as the kernel lists them
//! (`NETLINK_SOCK_DIAG`): also those that were there before the daemon. Who holds them is answered
//! by [`crate::sys::sockets`].

use std::io;
use std::net::SocketAddr;

use netlink_packet_core::{DefaultNla, Emitable, NetlinkSerializable, Nla as _};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags,
};
use netlink_packet_sock_diag::{AF_INET, AF_INET6, SOCK_DIAG_BY_FAMILY, SockDiagMessage};
use nix::sys::socket::SockProtocol;

use super::frame::dump;
use crate::workload::{CgroupId, ListenAddr};

/// `INET_DIAG_REQ_PROTOCOL` and `INET_DIAG_CGROUP_ID`, `include/uapi/linux/inet_diag.h`.
const REQUEST_PROTOCOL: u16 = 3;
const CGROUP_ID: u16 = 21;

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
    let answers = dump(SockProtocol::NetlinkSockDiag, Request::new(family, protocol))?;
    let mptcp = protocol == libc::IPPROTO_MPTCP;
    Ok(answers
        .iter()
        .filter_map(|answer| match answer {
            SockDiagMessage::InetResponse(response) => Some(socket_in(response, mptcp)),
            _ => None,
        })
        .collect())
}

/// Asks for all that listen. The crate's request has no attributes, and MPTCP needs one: its number
/// does not fit the field.
struct Request {
    head: InetRequest,
    protocol: Option<DefaultNla>,
}

impl Request {
    fn new(family: u8, protocol: i32) -> Self {
        let short = u8::try_from(protocol).ok();
        Self {
            head: InetRequest {
                family,
                protocol: short.unwrap_or(u8::MAX),
                extensions: ExtensionFlags::empty(),
                states: StateFlags::LISTEN,
                socket_id: if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() },
            },
            protocol: short
                .is_none()
                .then(|| DefaultNla::new(REQUEST_PROTOCOL, protocol.to_ne_bytes().to_vec())),
        }
    }
}

impl NetlinkSerializable for Request {
    fn message_type(&self) -> u16 {
        SOCK_DIAG_BY_FAMILY
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
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
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

    fn parse(message: &[u8], mptcp: bool) {
        let message = SockDiagMessage::parse_with_param(message, SOCK_DIAG_BY_FAMILY);
        if let Ok(SockDiagMessage::InetResponse(response)) = message {
            socket_in(&response, mptcp);
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
