//! A table in place of the kernel's maps.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};

use socket2::SockRef;

use crate::proxy::FlowSource;
use crate::workload::{ClientAddr, Flow, ListenAddr, Listener, ListenerLookup};

/// What the kernel would know.
#[derive(Debug, Default)]
pub(super) struct Table(Mutex<Known>);

#[derive(Debug, Default)]
pub(super) struct Known {
    /// By the application's own address.
    pub(super) flows: HashMap<SocketAddr, Flow>,
    listeners: HashMap<ListenAddr, ListenerLookup>,
    /// Who accepts, if not the listener.
    accepts: Option<Listener>,
    /// Local addresses of last-mile dials.
    pub(super) dials: Vec<SocketAddr>,
    marked_for: Vec<ClientAddr>,
}

impl Table {
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Known) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn listener_is(&self, addr: SocketAddr, lookup: ListenerLookup) {
        self.with(|known| known.listeners.insert(ListenAddr::new(addr), lookup));
    }

    pub(super) fn accepts(&self, listener: Listener) {
        self.with(|known| known.accepts = Some(listener));
    }

    pub(super) fn marked_for(&self) -> Vec<ClientAddr> {
        self.with(|known| known.marked_for.clone())
    }
}

impl FlowSource for Table {
    fn outbound(&self, accepted: BorrowedFd<'_>) -> io::Result<Option<Flow>> {
        let app = SockRef::from(&accepted).peer_addr()?.as_socket().unwrap();
        Ok(self.with(|known| known.flows.remove(&app)))
    }

    fn listener(&self, addr: ListenAddr) -> ListenerLookup {
        self.with(|known| known.listeners.get(&addr).cloned().unwrap_or(ListenerLookup::Missing))
    }

    fn mark_last_mile(&self, socket: BorrowedFd<'_>, client: ClientAddr) -> io::Result<()> {
        // A port of its own now, so that the accept loop knows the dial by it.
        let socket = SockRef::from(&socket);
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
        let local = socket.local_addr()?.as_socket().unwrap();
        self.with(|known| {
            known.dials.push(local);
            known.marked_for.push(client);
        });
        Ok(())
    }

    fn accepted_by(&self, _local: SocketAddr, remote: SocketAddr) -> Option<Listener> {
        self.with(|known| {
            let found =
                known.listeners.get(&ListenAddr::new(remote)).and_then(|found| match found {
                    ListenerLookup::Found(listener) => Some(listener.clone()),
                    _ => None,
                });
            known.accepts.clone().or(found)
        })
    }
}
