//! Live connections, and what each of them hangs on. When that goes, the connection is cut.
//!
//! A connection survives the renewal of its SVID, and outlives its peer's: a certificate proves who
//! is there when the connection is made. It is cut when policy or the scope's mode no longer allows
//! it, when either end is on the deny list, when the entry that gave the workload its identity is gone, when the workload's own SVID ran
//! out unrenewed, and when an authority of either side's chain is no longer trusted: also because the
//! entry is no longer federated with the peer's trust domain.
//! Start at [`Live::enter`]; [`keep_watch`] does the looking.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::state::Proxy;
use crate::audit::CutReason;
use crate::policy::{
    DenyList, LiveInbound, LiveOutbound, Peer, Policy, recheck_inbound, recheck_outbound,
};
use crate::shutdown::Stop;
use crate::spiffe::{BundleSet, PeerIdentity, SpiffeId, TrustDomain, X509Svid};
use crate::sys::clock;
use crate::workload::{CgroupId, ClientAddr, ListenAddr, Mode, OriginalDst, ProcessClaim, ScopeId};

/// How often expiry is looked at. Chosen: an expired SVID is used for at most this long.
const TICK: Duration = Duration::from_secs(1);

/// All live connections.
pub(super) struct Live {
    policy: watch::Receiver<Arc<Policy>>,
    bundles: watch::Receiver<Arc<BundleSet>>,
    modes: watch::Receiver<Arc<Modes>>,
    scope_of: ScopeOf,
    table: Mutex<Table>,
}

/// The scope that a process is in now, 0 for none; nothing if its cgroup is gone.
pub type ScopeOf = Arc<dyn Fn(&ProcessClaim) -> Option<ScopeId> + Send + Sync>;

/// The mode of each scope. A scope keeps its id for as long as it is the same scope.
pub type Modes = HashMap<ScopeId, Mode>;

#[derive(Debug, Default)]
struct Table {
    last: u64,
    connections: HashMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    standing: Standing,
    cut: oneshot::Sender<CutReason>,
}

/// What a connection hangs on.
#[derive(Debug)]
pub(super) struct Standing {
    /// Who the local workload is; `None` for a program without identity.
    pub(super) local: Option<LocalIdentity>,
    /// Who the peer has proved to be; `None` where it has proved nothing.
    pub(super) peer: Option<PeerIdentity>,
    /// The local process.
    pub(super) claim: ProcessClaim,
    /// The scope that decided.
    pub(super) scope: ScopeId,
    /// Its mode at that time.
    pub(super) mode: Mode,
    /// What was asked for.
    pub(super) road: Road,
}

/// The local workload's identity, and its SVID as it is renewed.
#[derive(Debug, Clone)]
pub(super) struct LocalIdentity {
    /// The SPIFFE ID.
    pub(super) id: SpiffeId,
    /// Closed when the entry is gone.
    pub(super) svid: watch::Receiver<Arc<X509Svid>>,
    /// Trust domains that the entry is federated with.
    pub(super) federates_with: watch::Receiver<Arc<BTreeSet<TrustDomain>>>,
    /// Authorities of the chain that was shown to the peer; empty in the clear.
    pub(super) authorities: Arc<[String]>,
    /// Serial number of the certificate that was shown to the peer; none in the clear.
    pub(super) serial: Option<Arc<str>>,
}

/// Which way, and between which addresses.
#[derive(Debug, Clone, Copy)]
pub(super) enum Road {
    /// The local workload dialled.
    Outbound(OriginalDst),
    /// The local workload was dialled.
    Inbound {
        /// The address that was dialled.
        listen: ListenAddr,
        /// By whom.
        client: ClientAddr,
        /// TLS that the application itself speaks.
        passthrough: bool,
    },
}

/// The connection's side of it. Leaves the table when dropped.
#[derive(Debug)]
pub(super) struct Life {
    live: Arc<Live>,
    number: u64,
    cut: oneshot::Receiver<CutReason>,
    local: Option<LocalIdentity>,
    /// The peer's trust domain, and those that the entry is federated with; none for a peer of the
    /// own trust domain.
    foreign: Option<(TrustDomain, watch::Receiver<Arc<BTreeSet<TrustDomain>>>)>,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("table", &self.table).finish_non_exhaustive()
    }
}

impl Live {
    pub(super) fn new(
        policy: watch::Receiver<Arc<Policy>>,
        bundles: watch::Receiver<Arc<BundleSet>>,
        (modes, scope_of): (watch::Receiver<Arc<Modes>>, ScopeOf),
    ) -> Self {
        Self { policy, bundles, modes, scope_of, table: Mutex::default() }
    }

    /// Enters a connection. It is looked at once, here: what it hangs on may have changed since it
    /// was decided.
    pub(super) fn enter(self: &Arc<Self>, standing: Standing) -> Life {
        let (sender, receiver) = oneshot::channel();
        let (local, foreign) = (standing.local.clone(), standing.foreign());
        let number = {
            let mut table = self.table();
            table.last += 1;
            let number = table.last;
            table.connections.insert(number, Connection { standing, cut: sender });
            number
        };
        self.check_only(number);
        Life { live: Arc::clone(self), number, cut: receiver, local, foreign }
    }

    /// How many would be cut if this authority, by its key id, were no longer trusted.
    pub(super) fn under(&self, authority: &str) -> usize {
        self.table().connections.values().filter(|it| it.standing.is_under(authority)).count()
    }

    /// How many would be cut by this deny list.
    pub(super) fn denied(&self, list: &DenyList) -> usize {
        self.table().connections.values().filter(|it| it.standing.is_denied(list)).count()
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table().connections.len()
    }

    /// Cuts what may no longer be, by everything that it hangs on.
    pub(super) fn check_all(&self) {
        let ground = self.ground();
        self.cut_where(|standing| standing.fault(&ground));
    }

    /// Cuts what has run out of time.
    fn check_time(&self) {
        let now = clock::now();
        self.cut_where(|standing| standing.expired(now));
    }

    fn check_only(&self, number: u64) {
        let ground = self.ground();
        let mut table = self.table();
        let entered = table.connections.get(&number);
        let fault = entered.and_then(|entered| entered.standing.fault(&ground));
        if let Some(reason) = fault {
            table.end(number, reason);
        }
    }

    fn cut_where(&self, fault: impl Fn(&Standing) -> Option<CutReason>) {
        let mut table = self.table();
        let cut: Vec<_> = table
            .connections
            .iter()
            .filter_map(|(number, entered)| Some((*number, fault(&entered.standing)?)))
            .collect();
        for (number, reason) in cut {
            table.end(number, reason);
        }
    }

    fn ground(&self) -> Ground<'_> {
        Ground {
            policy: Arc::clone(&self.policy.borrow()),
            bundles: Arc::clone(&self.bundles.borrow()),
            modes: Arc::clone(&self.modes.borrow()),
            scope_of: &*self.scope_of,
            known: RefCell::default(),
            now: clock::now(),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn end(&mut self, number: u64, reason: CutReason) {
        let entered = self.connections.remove(&number);
        if entered.is_some_and(|entered| entered.cut.send(reason).is_err()) {
            tracing::trace!(?reason, "a connection ended by itself before it was cut");
        }
    }
}

/// What connections are judged by, as it is now.
struct Ground<'a> {
    policy: Arc<Policy>,
    bundles: Arc<BundleSet>,
    modes: Arc<Modes>,
    scope_of: &'a dyn Fn(&ProcessClaim) -> Option<ScopeId>,
    /// What has been asked: many connections are of few processes.
    known: RefCell<HashMap<Place, Option<ScopeId>>>,
    now: SystemTime,
}

/// What a scope is of: a cgroup, an effective and a real user.
type Place = (CgroupId, u32, u32);

impl Ground<'_> {
    /// The mode that holds for a process now. A scope that is gone captures nothing new and leaves
    /// alone what there is.
    fn mode_of(&self, standing: &Standing) -> Mode {
        let claim = &standing.claim;
        let place = (claim.cgroup, claim.uid, claim.real_uid);
        let mut known = self.known.borrow_mut();
        let scope = *known.entry(place).or_insert_with(|| (self.scope_of)(claim));
        let scope = scope.unwrap_or(standing.scope);
        self.modes.get(&scope).copied().unwrap_or(standing.mode)
    }
}

impl Standing {
    /// Why the connection may no longer be.
    fn fault(&self, ground: &Ground<'_>) -> Option<CutReason> {
        if self.is_denied(&ground.policy.denied) {
            return Some(CutReason::DenyListed);
        }
        if let Some(reason) = self.expired(ground.now) {
            return Some(reason);
        }
        if !self.is_trusted(&ground.bundles) {
            return Some(CutReason::AuthorityGone);
        }
        let mode = ground.mode_of(self);
        if self.is_allowed(&ground.policy, mode) {
            return None;
        }
        // Which of the two it was, if not both.
        let by_mode = mode != self.mode && self.is_allowed(&ground.policy, self.mode);
        Some(if by_mode { CutReason::ScopeChanged } else { CutReason::PolicyChanged })
    }

    fn expired(&self, now: SystemTime) -> Option<CutReason> {
        self.local.as_ref().and_then(|local| local.fault(now))
    }

    fn is_denied(&self, list: &DenyList) -> bool {
        let local = self.local.as_ref().is_some_and(|local| local.is_denied(list));
        local || self.peer.as_ref().is_some_and(|peer| list.peer(peer).is_some())
    }

    fn is_under(&self, authority: &str) -> bool {
        let own = self.local.iter().flat_map(|local| &*local.authorities);
        let peer = self.peer.iter().flat_map(PeerIdentity::authorities);
        own.chain(peer).any(|key_id| key_id == authority)
    }

    fn is_trusted(&self, bundles: &BundleSet) -> bool {
        let own = self.local.as_ref().map(|local| (&local.id, &*local.authorities));
        let peer = self.peer.as_ref().map(|peer| (peer.id(), peer.authorities()));
        let is_federated = self
            .foreign()
            .is_none_or(|(peer, federates_with)| federates_with.borrow().contains(&peer));
        is_federated
            && own
                .into_iter()
                .chain(peer)
                .all(|(id, path)| path.is_empty() || vouches(bundles, id, path))
    }

    fn foreign(&self) -> Option<(TrustDomain, watch::Receiver<Arc<BTreeSet<TrustDomain>>>)> {
        let (local, peer) = (self.local.as_ref()?, self.peer.as_ref()?.id().trust_domain());
        let is_foreign = local.id.trust_domain() != peer;
        is_foreign.then(|| (peer.clone(), local.federates_with.clone()))
    }

    fn is_allowed(&self, policy: &Policy, mode: Mode) -> bool {
        let local = self.local.as_ref().map(|local| &local.id);
        let verified = self.peer.as_ref();
        match self.road {
            Road::Outbound(dst) => {
                recheck_outbound(policy, &LiveOutbound { local, mode, dst, peer: verified }).is_ok()
            }
            Road::Inbound { listen, client, passthrough } => {
                let peer = match verified {
                    Some(peer) => Peer::Verified(peer),
                    None if passthrough => Peer::Passthrough,
                    None => Peer::Plaintext,
                };
                recheck_inbound(policy, &LiveInbound { local, mode, listen, client, peer }).is_ok()
            }
        }
    }
}

impl LocalIdentity {
    fn is_denied(&self, list: &DenyList) -> bool {
        let by_serial = self.serial.as_ref().and_then(|serial| list.serial(serial));
        list.id(&self.id).or(by_serial).is_some()
    }

    /// Why the identity no longer holds. `identity` closes the watch when the entry is gone, and
    /// also when the SVID ran out, which then shows in the last one.
    fn fault(&self, now: SystemTime) -> Option<CutReason> {
        let ran_out = self.svid.borrow().not_after <= now;
        let over_tls = !self.authorities.is_empty();
        match self.svid.has_changed() {
            _ if ran_out && over_tls => Some(CutReason::SvidExpired),
            Err(_closed) if !ran_out => Some(CutReason::EntryGone),
            _ => None,
        }
    }
}

/// Whether the bundle of the ID's trust domain still vouches for this path.
fn vouches(bundles: &BundleSet, id: &SpiffeId, path: &[String]) -> bool {
    bundles.for_id(id).is_some_and(|bundle| bundle.vouches_for(path))
}

impl Life {
    /// Resolves when the connection must end, with the reason.
    ///
    /// # Cancel safety
    /// Cancel safe until it has resolved.
    pub(super) async fn ended(&mut self) -> CutReason {
        tokio::select! {
            biased;
            Ok(reason) = &mut self.cut => reason,
            reason = svid_gone(self.local.as_mut()) => self.reason(reason),
            reason = federation_gone(self.foreign.as_mut()) => reason,
        }
    }
}

impl Life {
    /// A denied identity loses its SVID: the list, which was there first, is why.
    fn reason(&self, reason: CutReason) -> CutReason {
        let policy = self.live.policy.borrow();
        let denied = self.local.as_ref().is_some_and(|local| local.is_denied(&policy.denied));
        if denied { CutReason::DenyListed } else { reason }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.live.table().connections.remove(&self.number);
    }
}

/// Resolves when the SVID is withdrawn, which takes its connections with it.
async fn svid_gone(local: Option<&mut LocalIdentity>) -> CutReason {
    let Some(local) = local else {
        return std::future::pending().await;
    };
    while local.svid.changed().await.is_ok() {}
    match local.fault(clock::now()) {
        Some(reason) => reason,
        // In the clear, and the entry is still there: nothing that counts has gone.
        None => std::future::pending().await,
    }
}

/// Resolves when the entry is no longer federated with the peer's trust domain.
async fn federation_gone(
    foreign: Option<&mut (TrustDomain, watch::Receiver<Arc<BTreeSet<TrustDomain>>>)>,
) -> CutReason {
    let Some((peer, federates_with)) = foreign else {
        return std::future::pending().await;
    };
    if federates_with.wait_for(|now| !now.contains(peer)).await.is_ok() {
        return CutReason::AuthorityGone;
    }
    // The entry is gone, which its SVID tells.
    std::future::pending().await
}

/// Looks at live connections whenever the rules or the authorities change, and at their expiry
/// every second, until the daemon stops.
pub async fn keep_watch(proxy: Arc<Proxy>, mut stop: Stop) {
    let (mut policy, mut bundles) = (proxy.policy.clone(), proxy.bundles.clone());
    let mut modes = proxy.live.modes.clone();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.draining() => return,
            Ok(()) = policy.changed() => proxy.check_live().await,
            Ok(()) = bundles.changed() => proxy.check_live().await,
            Ok(()) = modes.changed() => proxy.check_live().await,
            () = proxy.limits.pass_time() => {}
            _ = tick.tick() => {
                proxy.live.check_time();
                proxy.tls.sweep();
                proxy.limits.sweep();
            }
        }
    }
}
