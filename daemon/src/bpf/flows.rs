//! The record of a captured connection, read from the accepted socket's own storage; and the
//! daemon's own dials to applications on this host.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use aya::maps::MapError;
use ebpf_abi::{Socket, Tuple, flags};

use crate::sys::sockopt;
use crate::workload::{ClaimSource, ClientAddr, Flow, Listener, Mode, OriginalDst, ScopeId};

use super::kernel::locked;
use super::{Kernel, convert};

impl Kernel {
    /// What the programs recorded about the connection behind a socket that the outbound listener
    /// has accepted. None: no record, so nobody who was captured.
    pub fn outbound(&self, accepted: BorrowedFd<'_>) -> io::Result<Option<Flow>> {
        let record = match locked(&self.sockets).get(&accepted, 0) {
            Ok(record) if record.flags & flags::REDIRECTED != 0 => record,
            Ok(_) | Err(MapError::KeyNotFound) => return Ok(None),
            Err(error) => return Err(io::Error::other(error)),
        };
        let known = record.flags & flags::SOURCE_KNOWN != 0;
        let source = if known { record.src } else { [0; 4] };
        // The application's own port is the port of the other end: only the address was redirected.
        let port = sockopt::peer_port(accepted)?;
        Ok(Some(Flow {
            claim: convert::to_claim(&record.owner, ClaimSource::Kernel),
            original_dst: OriginalDst::new(convert::from_addr(record.dst, record.dst_port)),
            source: convert::from_addr(source, port),
            source_bound: record.flags & flags::SOURCE_BOUND != 0,
            bound_ifindex: record.bound_ifindex,
            scope: ScopeId(record.scope),
            // The process may be in another scope by now, and the index another one's.
            mode: if record.flags & flags::STRICT != 0 {
                Mode::Strict
            } else {
                self.mode_of(ScopeId(record.scope))
            },
        }))
    }

    /// Marks a socket, before it connects, as the daemon's dial to an application on this host on
    /// behalf of `client`: the programs let it through to a captured listener, and show the
    /// application that client.
    pub fn mark_last_mile(&self, socket: BorrowedFd<'_>, client: ClientAddr) -> io::Result<()> {
        let record = Socket {
            flags: flags::OURS | flags::LAST_MILE,
            peer: convert::to_ip(client.ip()),
            peer_port: client.port(),
            ..Socket::default()
        };
        locked(&self.sockets).insert(&socket, record, 0).map_err(io::Error::other)
    }

    /// Whose listener accepted the dial with these ends; None as long as nobody has, or if nothing
    /// is known about who did.
    pub fn accepted_by(&self, local: SocketAddr, remote: SocketAddr) -> Option<Listener> {
        let tuple = Tuple {
            netns: self.netns(),
            client: convert::to_ip(local.ip()),
            server: convert::to_ip(remote.ip()),
            client_port: local.port(),
            server_port: remote.port(),
            padding: 0,
        };
        let dial = self.dials.get(&tuple, 0).ok()?;
        if dial.accepted == 0 || dial.owner.seen_ns == 0 {
            return None;
        }
        let scope = ScopeId(dial.scope);
        let claim = convert::to_claim(&dial.owner, ClaimSource::Kernel);
        Some(Listener { claim, scope, mode: self.mode_of(scope) })
    }
}
