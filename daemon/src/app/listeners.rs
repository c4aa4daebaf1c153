//! Holds the programs' table of listeners against the kernel's own list. Listeners that are older
//! than the daemon, or that no program saw, are attributed by a scan of every process's descriptors,
//! and the evidence says so; holders that disagree get no identity. What the table counts wrongly in
//! two looks is set right; what has ended leaves it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::bpf::{Kernel, KnownListener};
use crate::metrics::Metrics;
use crate::proxy::Modes;
use crate::shutdown::Stop;
use crate::sys::cgroup::Cgroups;
use crate::sys::clock;
use crate::sys::diag::{self, ListeningSocket};
use crate::sys::sockets::{self, Holder, Holders, Owner};
use crate::workload::{ListenAddr, NetnsCookie, ProcessClaim, ScopeId};

use super::scopes::ScopeTable;

/// How often the table is held against the kernel's list. Chosen: one listing of all that listens.
const LOOK: Duration = Duration::from_secs(2);

/// Which listeners a look takes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// All: at the start and when scopes have changed, since any process may be in one now.
    Everything,
    /// Sockets that were made in a scope, and were not looked at before.
    Scoped,
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
}

impl ListenerTable {
    pub(super) fn new(
        kernel: Arc<Kernel>,
        table: ScopeTable,
        (cgroups, netns): (Cgroups, NetnsCookie),
        metrics: Arc<Metrics>,
    ) -> Self {
        let (doubtful, scanned) = (HashMap::new(), HashSet::new());
        Self { kernel, table, cgroups, netns, metrics, doubtful, scanned }
    }

    /// Attributes what listens already. What cannot be attributed is reached by nobody in a strict
    /// scope, and said.
    pub(super) async fn begin(self) -> Self {
        self.look(Reach::Everything).await
    }

    /// Keeps the table true until the daemon stops.
    pub(super) async fn run(mut self, mut modes: watch::Receiver<Arc<Modes>>, mut stop: Stop) {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut whole, mut reach) = (Instant::now(), Reach::Scoped);
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
                _ = tick.tick() => {}
            }
            if reach == Reach::Everything {
                whole = Instant::now();
            }
            self = self.look(reach).await;
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
        // The table first: what begins to listen in between is missing there, never thought gone.
        let known = self.kernel.listeners();
        let listening = diag::listening()?;
        let mut there: HashMap<ListenAddr, u32> = HashMap::new();
        for socket in &listening {
            *there.entry(socket.addr).or_default() += 1;
        }
        let kept: HashSet<ListenAddr> = known
            .iter()
            .filter(|entry| self.is_kept(entry, there.get(&entry.addr).copied().unwrap_or(0)))
            .map(|entry| entry.addr)
            .collect();
        self.doubtful.retain(|addr, _| kept.contains(addr));
        let cookies: HashSet<u64> = listening.iter().map(|socket| socket.cookie).collect();
        self.scanned.retain(|cookie| cookies.contains(cookie));
        let unknown: Vec<&ListeningSocket> = listening
            .iter()
            .filter(|socket| !kept.contains(&socket.addr) && self.is_due(socket, reach))
            .collect();
        let adopted = if unknown.is_empty() { 0 } else { self.attribute(&unknown, &there)? };
        self.kernel.count_listeners(&self.kernel.listeners())?;
        Ok(adopted)
    }

    /// Whether the entry stays in the table, given how many sockets listen there.
    fn is_kept(&mut self, entry: &KnownListener, there: u32) -> bool {
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
        if !entry.scanned && entry.sockets > 0 {
            self.metrics.listener_corrected();
            tracing::warn!(address = %entry.addr, counted = entry.sockets, there, "corrected");
        }
        if entry.sockets == 0 || there == 0 {
            self.kernel.forget_listener(entry.addr);
            return false;
        }
        if let Err(error) = self.kernel.correct_listener(entry.addr, there) {
            tracing::error!(address = %entry.addr, %error, "listeners stay miscounted");
        }
        true
    }

    /// Whether the holders of an unknown socket are to be looked for.
    fn is_due(&mut self, socket: &ListeningSocket, reach: Reach) -> bool {
        let made_in_scope = || socket.cgroup.is_some_and(|cgroup| self.table.covers(cgroup));
        let new = !self.scanned.contains(&socket.cookie);
        if reach == Reach::Scoped && !(new && made_in_scope()) {
            return false;
        }
        self.scanned.insert(socket.cookie);
        true
    }

    /// Enters sockets that the table does not know.
    fn attribute(
        &self,
        unknown: &[&ListeningSocket],
        there: &HashMap<ListenAddr, u32>,
    ) -> io::Result<usize> {
        let inodes: BTreeSet<u64> = unknown.iter().map(|socket| socket.inode).collect();
        let holders = sockets::holders(&inodes)?;
        let now = u64::try_from(clock::since_boot().as_nanos()).unwrap_or(u64::MAX);
        let mut adopted = 0;
        for socket in unknown {
            let there = there.get(&socket.addr).copied().unwrap_or(1);
            match self.adopt(socket, &holders, (there, now)) {
                Ok(entered) => adopted += usize::from(entered),
                Err(error) => {
                    tracing::warn!(address = %socket.addr, %error, "an older listener stays unknown");
                }
            }
        }
        Ok(adopted)
    }

    /// False: nobody holds it, the daemon does, or its holders are in no scope.
    fn adopt(
        &self,
        socket: &ListeningSocket,
        holders: &Holders,
        (there, now): (u32, u64),
    ) -> io::Result<bool> {
        let Some(held) = holders.by_inode.get(&socket.inode) else { return Ok(false) };
        if held.iter().any(|holder| holder.pid == std::process::id()) {
            return Ok(false);
        }
        let (claim, agree) = match sockets::owner(self.claims(held, now)) {
            Owner::Nobody => return Ok(false),
            Owner::One(claim) => (claim, true),
            Owner::Disputed(claim) => (claim, false),
        };
        let scope = self.table.id_of(&claim);
        let Some(holder) = held.first().filter(|_| scope != ScopeId(0)) else { return Ok(false) };
        let fd = sockets::duplicate(*holder, socket.inode)?;
        self.kernel.adopt_listener((socket.addr, there), (&claim, scope), agree, fd.as_fd())?;
        Ok(true)
    }

    fn claims(&self, held: &[Holder], now: u64) -> Vec<ProcessClaim> {
        let pids: BTreeSet<u32> = held.iter().map(|holder| holder.pid).collect();
        let claim = |pid| sockets::claim_of(pid, &self.cgroups, self.netns, now).ok().flatten();
        pids.into_iter().filter_map(claim).collect()
    }
}
