//! What the kernel's record of a captured socket says, in user-space words.

use std::net::SocketAddr;

use super::{Mode, OriginalDst, ProcessClaim, ScopeId};

/// One captured outbound connection, read from the accepted socket's own storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// Who called `connect()`.
    pub claim: ProcessClaim,
    /// Where it wanted to go.
    pub original_dst: OriginalDst,
    /// The application's own address as it sees it (`getsockname`).
    pub source: SocketAddr,
    /// Whether the application bound that address itself; then the daemon dials from it too.
    pub source_bound: bool,
    /// Interface that the application bound the socket to (`SO_BINDTODEVICE`), 0 for none.
    pub bound_ifindex: u32,
    /// The scope that decided.
    pub scope: ScopeId,
    /// Mode of that scope when the connection was captured.
    pub mode: Mode,
}

/// A listening socket of an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Who opened it.
    pub claim: ProcessClaim,
    /// The scope that decides.
    pub scope: ScopeId,
    /// Mode of that scope now.
    pub mode: Mode,
}

/// What is known about the listener on an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerLookup {
    /// One owner.
    Found(Listener),
    /// Several sockets share the address and their owners differ: no identity.
    Ambiguous(Listener),
    /// Nobody is known to listen there.
    Missing,
}
