//! What the kernel knows of a connection, as the proxy asks for it. Two implementations: the maps
//! of the programs, and a table for tests.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use crate::bpf::Kernel;
use crate::workload::{ClientAddr, Flow, ListenAddr, Listener, ListenerLookup};

/// The kernel's records of captured connections. Every call is one or a few system calls, and
/// none waits.
pub trait FlowSource: fmt::Debug + Send + Sync {
    /// The record that travelled with a captured connection to its accepted socket; `None` if it
    /// was not captured, which means that somebody dialled the proxy's own port.
    fn outbound(&self, accepted: BorrowedFd<'_>) -> io::Result<Option<Flow>>;

    /// Who listens on an address.
    fn listener(&self, addr: ListenAddr) -> ListenerLookup;

    /// Marks a socket, before it connects, as the daemon's own dial to a local listener on behalf
    /// of `client`, whose address the application is to see.
    fn mark_last_mile(&self, socket: BorrowedFd<'_>, client: ClientAddr) -> io::Result<()>;

    /// The listener on whose behalf the kernel has accepted a dial of the daemon from `local` to
    /// `remote`; `None` while it has not, or if that is not known.
    fn accepted_by(&self, local: SocketAddr, remote: SocketAddr) -> Option<Listener>;
}

impl FlowSource for Kernel {
    fn outbound(&self, accepted: BorrowedFd<'_>) -> io::Result<Option<Flow>> {
        Self::outbound(self, accepted)
    }

    fn listener(&self, addr: ListenAddr) -> ListenerLookup {
        Self::listener(self, addr)
    }

    fn mark_last_mile(&self, socket: BorrowedFd<'_>, client: ClientAddr) -> io::Result<()> {
        Self::mark_last_mile(self, socket, client)
    }

    fn accepted_by(&self, local: SocketAddr, remote: SocketAddr) -> Option<Listener> {
        Self::accepted_by(self, local, remote)
    }
}
