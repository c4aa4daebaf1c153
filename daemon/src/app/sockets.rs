//! The sockets that the daemon listens on: passed on by who had them before it (the service manager
//! or a predecessor), so that what is dialled in between waits in them; else opened.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::bpf::ProxyPorts;
use crate::config::ProxyConfig;
use crate::sys::service_manager::{self, Passed};
use crate::sys::sockopt;

use super::StartError;

/// Backlog of the proxy's listeners: bursts of captured connections wait here.
const BACKLOG: i32 = 4096;

/// Under which names sockets are passed on; also those of a socket unit (`FileDescriptorName=`).
pub(super) mod name {
    pub(in crate::app) const OUTBOUND4: &str = "outbound4";
    pub(in crate::app) const OUTBOUND6: &str = "outbound6";
    pub(in crate::app) const INBOUND4: &str = "inbound4";
    pub(in crate::app) const INBOUND6: &str = "inbound6";
    pub(in crate::app) const WORKLOAD_API: &str = "workload-api";
    pub(in crate::app) const METRICS: &str = "metrics";
    pub(in crate::app) const BUNDLE_ENDPOINT: &str = "bundle-endpoint";
    pub(in crate::app) const OPENID_CONNECT: &str = "openid-connect";
}

/// What was passed on and not yet taken.
#[derive(Debug, Default)]
pub(super) struct Estate {
    sockets: Vec<Passed>,
    /// The service manager keeps what it is given.
    kept: bool,
    taken: Vec<String>,
}

impl Estate {
    /// What the service manager passed on to this process.
    pub(super) fn of_service_manager() -> Self {
        let sockets = service_manager::passed().unwrap_or_else(|error| {
            tracing::warn!(%error, "what the service manager passed on cannot be read");
            Vec::new()
        });
        let kept = service_manager::keeps_descriptors() || !sockets.is_empty();
        Self { sockets, kept, taken: Vec::new() }
    }

    /// What a predecessor passed on goes before what the service manager did: it is newer.
    pub(super) fn join(&mut self, sockets: Vec<Passed>) {
        self.sockets.splice(..0, sockets);
    }

    /// Whether sockets outlive this process.
    pub(super) fn is_kept(&self) -> bool {
        self.kept
    }

    /// The TCP listener of this name, if it listens at this address.
    pub(super) fn tcp(&mut self, name: &str, at: SocketAddr) -> Option<TcpListener> {
        self.take(name, |socket| {
            let listener = TcpListener::from(socket);
            let there = listener.local_addr().is_ok_and(|there| there == at);
            (there && listener.set_nonblocking(true).is_ok()).then_some(listener)
        })
    }

    /// The Unix listener of this name, if it is the one that clients find at this path.
    pub(super) fn unix(&mut self, name: &str, at: &Path) -> Option<UnixListener> {
        self.take(name, |socket| {
            let listener = UnixListener::from(socket);
            let bound = listener.local_addr().ok()?.as_pathname()?.to_owned();
            let there = crate::api::is_bound_at(&bound, at);
            (there && listener.set_nonblocking(true).is_ok()).then_some(listener)
        })
    }

    fn take<T>(&mut self, name: &str, mut fit: impl FnMut(OwnedFd) -> Option<T>) -> Option<T> {
        while let Some(found) = self.sockets.iter().position(|passed| passed.name == name) {
            let Passed { socket, .. } = self.sockets.remove(found);
            let fitting = sockopt::is_listening(&socket).unwrap_or(false).then_some(socket);
            if let Some(taken) = fitting.and_then(&mut fit) {
                tracing::info!(name, "a listening socket was passed on");
                self.taken.push(name.to_owned());
                return Some(taken);
            }
            tracing::warn!(
                name,
                "a socket that was passed on does not listen where it should; it is closed"
            );
            self.release(name);
        }
        None
    }

    /// Gives a socket into keeping, if somebody keeps.
    pub(super) fn keep(&self, name: &str, socket: &impl AsFd) {
        if !self.kept {
            return;
        }
        // One that is kept already is kept once (sd_notify(3), `FDSTORE=1`).
        if let Err(error) = service_manager::keep(name, socket) {
            tracing::warn!(name, %error, "a listening socket is not kept over a restart");
        }
    }

    fn release(&self, name: &str) {
        if !self.kept {
            return;
        }
        if let Err(error) = service_manager::release(name) {
            tracing::warn!(name, %error, "the service manager keeps a socket that is not wanted");
        }
    }

    /// Closes what nobody wanted.
    pub(super) fn settle(&mut self) {
        for Passed { name, .. } in std::mem::take(&mut self.sockets) {
            if self.taken.contains(&name) {
                continue;
            }
            tracing::warn!(name, "a socket was passed on that nobody wants; it is closed");
            self.release(&name);
        }
    }
}

/// The proxy's listening sockets.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) outbound4: TcpListener,
    pub(super) outbound6: Option<TcpListener>,
    pub(super) inbound4: TcpListener,
    pub(super) inbound6: Option<TcpListener>,
}

impl Listeners {
    /// Listens on loopback. A host without IPv6 has none of that family.
    pub(super) fn open(config: &ProxyConfig, estate: &mut Estate) -> Result<Self, StartError> {
        let (outbound, inbound) = (config.outbound_port, config.inbound_port);
        let listeners = Self {
            outbound4: listen4(name::OUTBOUND4, outbound, estate)?,
            outbound6: listen6(name::OUTBOUND6, outbound, estate)?,
            inbound4: listen4(name::INBOUND4, inbound, estate)?,
            inbound6: listen6(name::INBOUND6, inbound, estate)?,
        };
        for (name, listener) in listeners.named() {
            estate.keep(name, listener);
        }
        Ok(listeners)
    }

    /// All there are, with the names under which they are passed on.
    pub(super) fn named(&self) -> impl Iterator<Item = (&'static str, &TcpListener)> {
        let Self { outbound4, outbound6, inbound4, inbound6 } = self;
        let all = [
            (name::OUTBOUND4, Some(outbound4)),
            (name::OUTBOUND6, outbound6.as_ref()),
            (name::INBOUND4, Some(inbound4)),
            (name::INBOUND6, inbound6.as_ref()),
        ];
        all.into_iter().filter_map(|(name, listener)| Some((name, listener?)))
    }

    /// What the programs are told.
    pub(super) fn ports(&self) -> ProxyPorts<'_> {
        ProxyPorts {
            outbound4: &self.outbound4,
            outbound6: self.outbound6.as_ref(),
            inbound4: &self.inbound4,
            inbound6: self.inbound6.as_ref(),
        }
    }
}

fn listen4(name: &str, port: u16, estate: &mut Estate) -> Result<TcpListener, StartError> {
    let at = (Ipv4Addr::LOCALHOST, port).into();
    estate.tcp(name, at).map_or_else(|| listen(at), Ok)
}

fn listen6(name: &str, port: u16, estate: &mut Estate) -> Result<Option<TcpListener>, StartError> {
    let at = (Ipv6Addr::LOCALHOST, port).into();
    match estate.tcp(name, at).map_or_else(|| listen(at), Ok) {
        Err(StartError::Listen { source, .. })
            if matches!(source.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) =>
        {
            tracing::warn!("this host has no IPv6 loopback: IPv6 is not captured");
            Ok(None)
        }
        other => other.map(Some),
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let failed = |source| StartError::Listen { address, source };
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).map_err(failed)?;
    if address.is_ipv6() {
        socket.set_only_v6(true).map_err(failed)?;
    }
    socket.set_reuse_address(true).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    socket.bind(&address.into()).map_err(failed)?;
    socket.listen(BACKLOG).map_err(failed)?;
    Ok(socket.into())
}
