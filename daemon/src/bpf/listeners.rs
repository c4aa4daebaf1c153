//! Who listens where: asked for each inbound connection, and told about listeners that the programs
//! did not see begin or end.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;

use ebpf_abi::{ListenKey, SCOPE_SLOTS, Socket, flags, listener_flags};

use crate::workload::{ClaimSource, ListenAddr, Listener, ListenerLookup, ProcessClaim, ScopeId};

use super::kernel::{is_absent, is_present, locked};
use super::{Kernel, convert};

/// Index of the loopback interface.
const LOOPBACK: u32 = 1;
/// `BPF_F_LOCK`: whole, under the lock that the programs take too.
const LOCKED: u64 = 4;
/// `BPF_NOEXIST`: never write over what the programs know better.
const ONLY_NEW: u64 = 1;
/// `BPF_EXIST`: never bring back what the programs have deleted.
const ONLY_KNOWN: u64 = 2;

/// An entry of the table of listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownListener {
    /// Where.
    pub addr: ListenAddr,
    /// In which scope.
    pub scope: ScopeId,
    /// How many sockets listen there; 0 once none does any more.
    pub sockets: u32,
    /// The programs will not see its end.
    pub unwatched: bool,
}

/// A listener that was found by looking.
#[derive(Debug)]
pub struct FoundListener<'a> {
    /// Where.
    pub addr: ListenAddr,
    /// How many sockets listen there.
    pub sockets: u32,
    /// Interface that it is bound to, 0 for all.
    pub ifindex: u32,
    /// Who holds it.
    pub holder: ProcessClaim,
    /// Whether all who hold it are of one owner.
    pub agree: bool,
    /// The scope that it is in.
    pub scope: ScopeId,
    /// The socket itself.
    pub socket: BorrowedFd<'a>,
}

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
        let entry = locked(&self.listeners).get(&self.listen_key(addr), LOCKED).ok()?;
        if entry.sockets == 0 {
            return None;
        }
        let scope = ScopeId(entry.scope);
        let claim = convert::to_claim(&entry.owner, source(&entry));
        let listener = Listener { claim, scope, mode: self.mode_of(scope) };
        Some(match entry.flags & listener_flags::AMBIGUOUS {
            0 => ListenerLookup::Found(listener),
            _ => ListenerLookup::Ambiguous(listener),
        })
    }

    /// Every entry, also of addresses on which nobody listens any more.
    pub fn listeners(&self) -> Vec<KnownListener> {
        let map = locked(&self.listeners);
        map.iter()
            .flatten()
            .map(|(key, entry)| KnownListener {
                addr: ListenAddr::new(convert::from_addr(key.ip, key.port)),
                scope: ScopeId(entry.scope),
                sockets: entry.sockets,
                unwatched: entry.flags & (listener_flags::SCANNED | listener_flags::UNWATCHED) != 0,
            })
            .collect()
    }

    /// Writes down a listener that no program saw begin. What the programs have recorded of the
    /// socket itself is worth more than what was found out since, if it names the same owner; what
    /// they have in the table by now is left as it is.
    pub fn adopt_listener(&self, found: &FoundListener<'_>) -> io::Result<()> {
        let recorded = match locked(&self.sockets).get(&found.socket, 0) {
            Ok(record) => Some(record).filter(|record| is_of(record, &found.holder)),
            Err(error) if is_absent(&error) => None,
            Err(error) => return Err(io::Error::other(error)),
        };
        let mut how = listener_flags::UNWATCHED;
        how |= if recorded.is_some() { 0 } else { listener_flags::SCANNED };
        how |= if found.agree { 0 } else { listener_flags::AMBIGUOUS };
        how |= if found.ifindex > LOOPBACK { listener_flags::DEVICE_BOUND } else { 0 };
        let mut record = recorded.unwrap_or(Socket {
            owner: convert::from_claim(&found.holder),
            flags: flags::SCANNED | flags::CREATED,
            ..Socket::default()
        });
        record.flags |= flags::LISTENING;
        record.scope = found.scope.0;
        let entry = ebpf_abi::Listener {
            owner: record.owner,
            scope: found.scope.0,
            flags: how,
            sockets: found.sockets,
            ..ebpf_abi::Listener::default()
        };
        match locked(&self.listeners).insert(self.listen_key(found.addr.get()), entry, ONLY_NEW) {
            Ok(()) => {}
            Err(error) if is_present(&error) => return Ok(()),
            Err(error) => return Err(io::Error::other(error)),
        }
        locked(&self.sockets).insert(&found.socket, record, 0).map_err(io::Error::other)
    }

    /// Sets how many sockets listen on an address that the table has miscounted.
    pub fn correct_listener(&self, addr: ListenAddr, sockets: u32) -> io::Result<()> {
        self.change_listener(&self.listen_key(addr.get()), |entry| entry.sockets = sockets)
    }

    /// Puts every known listener into the scope that `scope_of` says, after scopes have changed;
    /// where it says nothing, the listener stays where it is.
    pub fn rescope_listeners(
        &self,
        scope_of: impl Fn(&ProcessClaim) -> Option<ScopeId>,
    ) -> io::Result<()> {
        let entries: Vec<_> = locked(&self.listeners).iter().flatten().collect();
        for (key, entry) in entries {
            let claim = convert::to_claim(&entry.owner, ClaimSource::Kernel);
            match scope_of(&claim) {
                Some(scope) if scope.0 != entry.scope => {
                    self.change_listener(&key, |entry| entry.scope = scope.0)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Tells the programs how many entries each scope has: their own count only goes up.
    pub fn count_listeners(&self, known: &[KnownListener]) -> io::Result<()> {
        let mut counts: BTreeMap<u32, u64> = BTreeMap::new();
        for entry in known {
            *counts.entry(entry.scope.0).or_default() += 1;
        }
        let mut map = locked(&self.scope_listeners);
        for scope in 1..SCOPE_SLOTS {
            let (counted, there) =
                (map.get(&scope, 0), counts.get(&scope).copied().unwrap_or_default());
            if counted.is_ok_and(|counted| counted != there) {
                map.set(scope, there, 0).map_err(io::Error::other)?;
            }
        }
        Ok(())
    }

    /// Forgets a listener that is no longer there.
    pub fn forget_listener(&self, addr: ListenAddr) {
        match locked(&self.listeners).remove(&self.listen_key(addr.get())) {
            Err(error) if !is_absent(&error) => {
                tracing::error!(%addr, %error, "a listener that has gone stays in the table");
            }
            _ => {}
        }
    }

    /// Changes an entry in place. One that has gone meanwhile stays gone.
    fn change_listener(
        &self,
        key: &ListenKey,
        change: impl FnOnce(&mut ebpf_abi::Listener),
    ) -> io::Result<()> {
        let mut map = locked(&self.listeners);
        let changed = map.get(key, LOCKED).and_then(|mut entry| {
            change(&mut entry);
            map.insert(key, entry, LOCKED | ONLY_KNOWN)
        });
        match changed {
            Err(error) if !is_absent(&error) => Err(io::Error::other(error)),
            _ => Ok(()),
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

/// Whether the programs recorded the socket, and this holder as its owner.
fn is_of(record: &Socket, holder: &ProcessClaim) -> bool {
    let owner = convert::to_claim(&record.owner, ClaimSource::Kernel);
    let known = owner.seen_ns != 0 && record.flags & flags::SCANNED == 0;
    known
        && (owner.uid, owner.gid, owner.real_uid, owner.real_gid, owner.cgroup, owner.exe)
            == (holder.uid, holder.gid, holder.real_uid, holder.real_gid, holder.cgroup, holder.exe)
}

fn source(entry: &ebpf_abi::Listener) -> ClaimSource {
    match entry.flags & listener_flags::SCANNED {
        0 => ClaimSource::Kernel,
        _ => ClaimSource::Scan,
    }
}
