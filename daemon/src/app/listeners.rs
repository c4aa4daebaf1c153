//! Holds the programs' table of listeners against the kernel's own list. Listeners that are older
//! than the daemon, or that no program saw, are attributed by a scan of every process's descriptors,
//! and the evidence says so; holders that disagree get no identity. What the table counts wrongly in
//! two looks is set right; what has ended leaves it. A listener made outside every scope belongs to
//! the strictest scope of those who hold it: socket activation, inheritance.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::bpf::{FoundListener, Kernel, KnownListener};
use crate::metrics::Metrics;
use crate::proxy::Modes;
use crate::shutdown::Stop;
use crate::sys::cgroup::Cgroups;
use crate::sys::diag::{self, ListeningSocket};
use crate::sys::sockets::{self, Holder, Holders, Owner};
use crate::sys::{clock, sockopt};
use crate::workload::{ListenAddr, NetnsCookie, ProcessClaim, ScopeId};

use super::scopes::{Placed, ScopeTable};

/// How often the table is held against the kernel's list. Chosen: one listing of all that listens.
const LOOK: Duration = Duration::from_secs(2);
/// Every how many looks the processes of scopes are asked what they hold.
const HANDED_OVER: u32 = 5;
/// The service manager: it holds the listeners that it opens for others, and could be any of them.
const SERVICE_MANAGER: u32 = 1;

/// Which listeners a look takes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// All: at the start and when scopes have changed, since any process may be in one now.
    Everything,
    /// Sockets that were made in a scope, and were not looked at before.
    Scoped,
    /// Sockets that processes of a scope hold, wherever they were made.
    HandedOver,
}

/// The table of listeners, and what was seen of it at the last look.
#[derive(Debug)]
pub(super) struct ListenerTable {
    kernel: Arc<Kernel>,
    table: ScopeTable,
    cgroups: Cgroups,
    netns: NetnsCookie,
    metrics: Arc<Metrics>,
    /// Counts that looked wrong: in the table, and in truth. Seen twice, they are.
    doubtful: HashMap<ListenAddr, (u32, u32)>,
    /// Cookies of sockets whose holders have been looked for.
    scanned: HashSet<u64>,
    /// Cookies of the sockets that listened when an entry whose end no program sees was first met.
    unwatched: HashMap<ListenAddr, HashSet<u64>>,
    /// Entries were deleted in the last look. Who began to listen there in the same moment has lost
    /// his, and is found by another look at once.
    deleted: bool,
}

/// From a look in which entries were deleted to the next.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl ListenerTable {
    pub(super) fn new(
        kernel: Arc<Kernel>,
        table: ScopeTable,
        (cgroups, netns): (Cgroups, NetnsCookie),
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            kernel,
            table,
            cgroups,
            netns,
            metrics,
            doubtful: HashMap::new(),
            scanned: HashSet::new(),
            unwatched: HashMap::new(),
            deleted: false,
        }
    }

    /// Attributes what listens already. What cannot be attributed is reached by nobody in a strict
    /// scope, and said.
    pub(super) async fn begin(self) -> Self {
        // Which sockets a predecessor meant by these, it took with it.
        for entry in self.kernel.listeners().iter().filter(|entry| entry.unwatched) {
            self.kernel.forget_listener(entry.addr);
        }
        self.look(Reach::Everything).await
    }

    /// Keeps the table true until the daemon stops.
    pub(super) async fn run(mut self, mut modes: watch::Receiver<Arc<Modes>>, mut stop: Stop) {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut whole, mut reach, mut looks) = (Instant::now(), Reach::Scoped, 0_u32);
        loop {
            tokio::select! {
                biased;
                () = stop.draining() => return,
                changed = modes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    reach = Reach::Everything;
                    // A cgroup that is made again and again must not keep the daemon busy.
                    if whole.elapsed() < LOOK {
                        continue;
                    }
                }
                _ = tick.tick() => {
                    looks = looks.wrapping_add(1);
                    if reach == Reach::Scoped && looks.is_multiple_of(HANDED_OVER) {
                        reach = Reach::HandedOver;
                    }
                }
            }
            if reach == Reach::Everything {
                whole = Instant::now();
            }
            self = self.look(reach).await;
            if self.deleted {
                sleep(LOOK_AGAIN).await;
                self = self.look(Reach::Scoped).await;
            }
            reach = Reach::Scoped;
        }
    }

    /// # Cancel safety
    /// A look that has begun is finished.
    async fn look(mut self, reach: Reach) -> Self {
        let fresh = Self::new(
            Arc::clone(&self.kernel),
            self.table.clone(),
            (self.cgroups.clone(), self.netns),
            Arc::clone(&self.metrics),
        );
        let looked = tokio::task::spawn_blocking(move || {
            match self.hold_against_kernel(reach) {
                Ok(0) => {}
                Ok(adopted) => tracing::info!(adopted, "older listeners are attributed"),
                Err(error) => tracing::error!(%error, "listeners cannot be looked at"),
            }
            self
        });
        looked.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a look at the listeners ended early");
            fresh
        })
    }

    /// Blocks. Gives how many listeners were attributed.
    fn hold_against_kernel(&mut self, reach: Reach) -> io::Result<usize> {
        self.deleted = false;
        // The table first: what begins to listen in between is missing there, never thought gone.
        let known = self.kernel.listeners();
        let listening = diag::listening()?;
        let mut there: HashMap<ListenAddr, HashSet<u64>> = HashMap::new();
        for socket in &listening {
            there.entry(socket.addr).or_default().insert(socket.cookie);
        }
        let nobody = HashSet::new();
        let kept: HashSet<ListenAddr> = known
            .iter()
            .filter(|entry| self.is_kept(entry, there.get(&entry.addr).unwrap_or(&nobody)))
            .map(|entry| entry.addr)
            .collect();
        self.doubtful.retain(|addr, _| kept.contains(addr));
        self.unwatched.retain(|addr, _| kept.contains(addr));
        let cookies: HashSet<u64> = listening.iter().map(|socket| socket.cookie).collect();
        self.scanned.retain(|cookie| cookies.contains(cookie));
        let unknown: Vec<&ListeningSocket> = listening
            .iter()
            .filter(|socket| !kept.contains(&socket.addr) && self.is_due(socket, reach))
            .collect();
        let adopted = if unknown.is_empty() { 0 } else { self.attribute(&unknown, &there, reach)? };
        self.kernel.count_listeners(&self.kernel.listeners())?;
        Ok(adopted)
    }

    /// Whether the entry stays in the table, given the cookies of the sockets that listen there.
    fn is_kept(&mut self, entry: &KnownListener, cookies: &HashSet<u64>) -> bool {
        if entry.unwatched {
            let meant = self.unwatched.entry(entry.addr).or_insert_with(|| cookies.clone());
            if meant.is_disjoint(cookies) {
                // Others listen there now, or nobody does.
                return self.forget(entry.addr);
            }
        }
        let there = u32::try_from(cookies.len()).unwrap_or(u32::MAX);
        if entry.sockets == there && there > 0 {
            self.doubtful.remove(&entry.addr);
            return true;
        }
        let seen = (entry.sockets, there);
        if self.doubtful.insert(entry.addr, seen) != Some(seen) {
            // Perhaps only on its way.
            return true;
        }
        self.doubtful.remove(&entry.addr);
        if !entry.unwatched && entry.sockets > 0 {
            self.metrics.listener_corrected();
            tracing::warn!(address = %entry.addr, counted = entry.sockets, there, "corrected");
        }
        if entry.sockets == 0 || there == 0 {
            return self.forget(entry.addr);
        }
        if let Err(error) = self.kernel.correct_listener(entry.addr, there) {
            tracing::error!(address = %entry.addr, %error, "listeners stay miscounted");
        }
        true
    }

    fn forget(&mut self, addr: ListenAddr) -> bool {
        self.kernel.forget_listener(addr);
        self.deleted = true;
        false
    }

    /// Whether the holders of an unknown socket are to be looked for.
    fn is_due(&mut self, socket: &ListeningSocket, reach: Reach) -> bool {
        let made_in_scope = || socket.cgroup.is_some_and(|cgroup| self.table.covers(cgroup));
        let new = !self.scanned.contains(&socket.cookie);
        if reach == Reach::Scoped && !(new && made_in_scope()) {
            return false;
        }
        if reach != Reach::HandedOver {
            self.scanned.insert(socket.cookie);
        }
        true
    }

    /// Enters sockets that the table does not know.
    fn attribute(
        &self,
        unknown: &[&ListeningSocket],
        there: &HashMap<ListenAddr, HashSet<u64>>,
        reach: Reach,
    ) -> io::Result<usize> {
        let mut inodes: BTreeSet<u64> = unknown.iter().map(|socket| socket.inode).collect();
        if reach == Reach::HandedOver {
            // Asking the few first spares asking all.
            let some = sockets::holders_among(self.table.processes(&self.cgroups), &inodes);
            inodes.retain(|inode| some.by_inode.contains_key(inode));
            if inodes.is_empty() {
                return Ok(0);
            }
        }
        let holders = sockets::holders(&inodes)?;
        let mut adopted = 0;
        for socket in unknown.iter().filter(|socket| inodes.contains(&socket.inode)) {
            let there = there.get(&socket.addr).map_or(1, HashSet::len);
            let there = u32::try_from(there).unwrap_or(u32::MAX);
            match self.adopt(socket, &holders, there) {
                Ok(entered) => adopted += usize::from(entered),
                Err(error) => {
                    tracing::warn!(address = %socket.addr, %error, "an older listener stays unknown");
                }
            }
        }
        Ok(adopted)
    }

    /// False: nobody holds it, the daemon does, or its holders are in no scope.
    fn adopt(&self, socket: &ListeningSocket, holders: &Holders, there: u32) -> io::Result<bool> {
        let Some(held) = holders.by_inode.get(&socket.inode) else { return Ok(false) };
        if held.iter().any(|holder| holder.pid == std::process::id()) {
            return Ok(false);
        }
        let (claims, all_known) = self.claims(held);
        let Some((holder, scope)) = self.strictest(&claims) else { return Ok(false) };
        let agree = all_known && matches!(sockets::owner(claims), Owner::One(_));
        let fd = held.first().copied().map(|held| sockets::duplicate(held, socket.inode));
        let fd = fd.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))?;
        // The daemon waits to see who accepts before it sends anything.
        sockopt::accept_at_once(&fd)?;
        let (addr, ifindex) = (socket.addr, socket.ifindex);
        let socket = fd.as_fd();
        let found = FoundListener { addr, sockets: there, ifindex, holder, agree, scope, socket };
        self.kernel.adopt_listener(&found)?;
        Ok(true)
    }

    /// The oldest holder in the strictest scope that any of them is in.
    fn strictest(&self, claims: &[ProcessClaim]) -> Option<(ProcessClaim, ScopeId)> {
        let placed = claims.iter().filter_map(|claim| Some((claim, self.table.scope_of(claim)?)));
        let rank = |(claim, placed): &(&ProcessClaim, Placed)| {
            (placed.scope.mode.strictness(), Reverse(claim.process.start_ns))
        };
        placed.max_by_key(rank).map(|(claim, placed)| (claim.clone(), placed.id))
    }

    /// What is known of each holder, and whether that is all of them.
    fn claims(&self, held: &[Holder]) -> (Vec<ProcessClaim>, bool) {
        let now = u64::try_from(clock::since_boot().as_nanos()).unwrap_or(u64::MAX);
        let mut pids: BTreeSet<u32> = held.iter().map(|holder| holder.pid).collect();
        if pids.len() > 1 {
            pids.remove(&SERVICE_MANAGER);
        }
        let claim = |pid| sockets::claim_of(pid, &self.cgroups, self.netns, now);
        let looked: Vec<_> = pids.into_iter().map(claim).collect();
        // Who has exited holds nothing; whoever cannot be read may be anybody.
        let all_known = looked.iter().all(Result::is_ok);
        (looked.into_iter().filter_map(|claim| claim.ok().flatten()).collect(), all_known)
    }
}
