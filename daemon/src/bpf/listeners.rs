//! Who listens where: asked for each inbound connection, and told by the scan at start about
//! listeners that are older than the daemon.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;

use aya::maps::MapError;
use ebpf_abi::{ListenKey, Socket, flags, listener_flags};

use crate::workload::{ClaimSource, ListenAddr, Listener, ListenerLookup, ProcessClaim, ScopeId};

use super::kernel::locked;
use super::{Kernel, convert};

/// `BPF_NOEXIST`: never write over what the programs know better.
const ONLY_NEW: u64 = 1;
/// `BPF_EXIST`: never bring back what the programs have deleted.
const ONLY_KNOWN: u64 = 2;

impl Kernel {
    /// Who listens on `addr`, else on the wildcard of its family, else on the IPv6 wildcard: the
    /// order in which the kernel prefers sockets.
    pub fn listener(&self, addr: ListenAddr) -> ListenerLookup {
        let wildcards: &[IpAddr] = match addr.ip() {
            IpAddr::V4(_) => {
                &[IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
            }
            IpAddr::V6(_) => &[IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
        };
        std::iter::once(addr.ip())
            .chain(wildcards.iter().copied())
            .find_map(|ip| self.listener_on(SocketAddr::new(ip, addr.port())))
            .unwrap_or(ListenerLookup::Missing)
    }

    fn listener_on(&self, addr: SocketAddr) -> Option<ListenerLookup> {
        let entry = locked(&self.listeners).get(&self.listen_key(addr), 0).ok()?;
        let scope = ScopeId(entry.scope);
        let source = match entry.flags & listener_flags::SCANNED {
            0 => ClaimSource::Kernel,
            _ => ClaimSource::Scan,
        };
        let claim = convert::to_claim(&entry.owner, source);
        let listener = Listener { claim, scope, mode: self.mode_of(scope) };
        Some(match entry.flags & listener_flags::AMBIGUOUS {
            0 => ListenerLookup::Found(listener),
            _ => ListenerLookup::Ambiguous(listener),
        })
    }

    /// Every known listener.
    pub fn listeners(&self) -> Vec<(ListenAddr, ListenerLookup)> {
        let keys: Vec<ListenKey> = locked(&self.listeners).keys().flatten().collect();
        keys.into_iter()
            .map(|key| convert::from_addr(key.ip, key.port))
            .filter_map(|addr| Some((ListenAddr::new(addr), self.listener_on(addr)?)))
            .collect()
    }

    /// Writes down who holds a listener that is older than the daemon. `holders` that disagree
    /// make it ambiguous. What the programs already know is left as it is.
    pub fn adopt_listener(
        &self,
        addr: SocketAddr,
        holder: &ProcessClaim,
        scope: ScopeId,
        agree: bool,
        socket: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let entry = ebpf_abi::Listener {
            owner: convert::from_claim(holder),
            scope: scope.0,
            flags: listener_flags::SCANNED | if agree { 0 } else { listener_flags::AMBIGUOUS },
            sockets: 1,
            padding: 0,
        };
        let key = self.listen_key(addr);
        match locked(&self.listeners).insert(key, entry, ONLY_NEW) {
            Ok(()) => {}
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::EEXIST) =>
            {
                return Ok(());
            }
            Err(error) => return Err(io::Error::other(error)),
        }
        let record = Socket {
            owner: entry.owner,
            scope: scope.0,
            flags: flags::SCANNED | flags::CREATED | flags::LISTENING,
            ..Socket::default()
        };
        locked(&self.sockets).insert(&socket, record, ONLY_NEW).map_err(io::Error::other)
    }

    /// Puts every known listener into the scope that `scope_of` says, after scopes have changed;
    /// where it says nothing, the listener stays where it is.
    pub fn rescope_listeners(
        &self,
        scope_of: impl Fn(&ProcessClaim) -> Option<ScopeId>,
    ) -> io::Result<()> {
        let mut map = locked(&self.listeners);
        let entries: Vec<_> = map.iter().flatten().collect();
        for (key, mut entry) in entries {
            let claim = convert::to_claim(&entry.owner, ClaimSource::Kernel);
            let Some(scope) = scope_of(&claim) else { continue };
            if entry.scope != scope.0 {
                entry.scope = scope.0;
                // Gone since: then there is nothing to change.
                match map.insert(key, entry, ONLY_KNOWN) {
                    Ok(()) | Err(MapError::KeyNotFound) => {}
                    Err(error) => return Err(io::Error::other(error)),
                }
            }
        }
        Ok(())
    }

    /// Forgets a listener that is no longer there. The programs do so at close; this is for those
    /// that closed while no programs were attached.
    pub fn forget_listener(&self, addr: ListenAddr) {
        let gone = locked(&self.listeners).remove(&self.listen_key(addr.get()));
        if let Err(error) = gone {
            tracing::debug!(%addr, %error, "the listener was already forgotten");
        }
    }

    fn listen_key(&self, addr: SocketAddr) -> ListenKey {
        ListenKey {
            netns: self.netns(),
            ip: convert::to_ip(addr.ip()),
            port: addr.port(),
            padding16: 0,
            padding: 0,
        }
    }
}
