//! What goes past the scopes, or would if it could: packet sockets, which send below every hook;
//! connections that are older than the daemon in scopes that do not have them reset; processes in
//! network namespaces that the daemon does not serve. Found by looking, told by `tacit doctor`, and
//! by readiness where it makes strict a lie.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::proxy::Modes;
use crate::shutdown::Stop;
use crate::sys::cgroup::Cgroups;
use crate::sys::{netns, packet_sockets, sockets};
use crate::workload::Mode;

use super::connections::PassingBy;
use super::scopes::{Placed, ScopeTable};

/// How often it is looked. Chosen: reads the descriptors of processes in scopes, if there are packet
/// sockets at all.
const LOOK: Duration = Duration::from_secs(10);
/// How many of a kind are named; the rest is counted.
const NAMED: usize = 5;

/// How something goes past a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    PacketSocket,
    OtherNamespace,
    OlderConnection,
}

/// Everything that goes past one scope in one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bypass {
    pub(super) way: Way,
    pub(super) scope: String,
    pub(super) mode: Mode,
    who: Vec<String>,
}

impl Bypass {
    /// Whether the scope promises what it then does not keep.
    pub(super) fn breaks_strict(&self) -> bool {
        self.mode == Mode::Strict && self.way == Way::PacketSocket
    }
}

impl fmt::Display for Bypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.who.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        write!(f, "{}: {named}", self.way.as_str())?;
        match self.who.len().checked_sub(NAMED) {
            Some(more @ 1..) => write!(f, " and {more} more"),
            _ => Ok(()),
        }
    }
}

impl Way {
    fn as_str(self) -> &'static str {
        match self {
            Self::PacketSocket => "packet sockets, which no hook sees",
            Self::OtherNamespace => "processes in another network namespace, refused where strict",
            Self::OlderConnection => "connections older than the daemon, which go on without it",
        }
    }

    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::PacketSocket => "take CAP_NET_RAW from the program, or move it out of the scope",
            Self::OtherNamespace => "run it in the daemon's network namespace",
            Self::OlderConnection => "restart the program, or wait until they end",
        }
    }
}

/// Looks for bypasses, and keeps what the last look found.
#[derive(Debug, Clone)]
pub(super) struct Bypasses {
    table: ScopeTable,
    cgroups: Cgroups,
    passing: PassingBy,
    found: watch::Sender<Arc<Vec<Bypass>>>,
}

impl Bypasses {
    pub(super) fn new(table: ScopeTable, cgroups: Cgroups, passing: PassingBy) -> Self {
        Self { table, cgroups, passing, found: watch::Sender::default() }
    }

    /// What makes a strict scope a lie, by the last look.
    ///
    /// # Errors
    /// All of it.
    pub(super) fn standing(&self) -> Result<(), String> {
        let found = Arc::clone(&self.found.borrow());
        let broken = found.iter().filter(|one| one.breaks_strict());
        let lines: Vec<_> = broken.map(|one| format!("{}: {one}", one.scope)).collect();
        if lines.is_empty() { Ok(()) } else { Err(lines.join("; ")) }
    }

    /// Looks until the daemon stops.
    pub(super) async fn run(self, mut modes: watch::Receiver<Arc<Modes>>, mut stop: Stop) {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.draining() => return,
                changed = modes.changed() => if changed.is_err() { return },
                _ = tick.tick() => {}
            }
            if let Err(error) = self.look().await {
                tracing::error!(%error, "what goes past the scopes cannot be looked for");
            }
        }
    }

    /// Looks now.
    ///
    /// # Cancel safety
    /// A look that has begun is finished.
    pub(super) async fn look(&self) -> io::Result<Arc<Vec<Bypass>>> {
        let this = self.clone();
        let looked = tokio::task::spawn_blocking(move || this.find());
        let found = Arc::new(looked.await.map_err(io::Error::other)??);
        let before = self.found.send_replace(Arc::clone(&found));
        for new in found.iter().filter(|one| one.breaks_strict() && !before.contains(one)) {
            tracing::error!(scope = new.scope, bypass = %new, "a strict scope is gone past");
        }
        Ok(found)
    }

    fn find(&self) -> io::Result<Vec<Bypass>> {
        let mut found = Found::default();
        let packets = packet_sockets::inodes()?;
        for placed in self.table.current() {
            let pids = self.cgroups.processes_below(&placed.scope.cgroup).unwrap_or_default();
            let holders = (!packets.is_empty())
                .then(|| sockets::holders_among(pids.iter().copied(), &packets).by_inode);
            for holder in holders.into_iter().flat_map(|found| found.into_values().flatten()) {
                found.note(Way::PacketSocket, &placed, process(holder.pid));
            }
            for pid in pids {
                if netns::is_own(pid).is_ok_and(|own| own == Some(false)) {
                    found.note(Way::OtherNamespace, &placed, process(pid));
                }
            }
        }
        for (connection, placed) in self.passing.left_alone()? {
            let who =
                format!("{} - {} of user {}", connection.local, connection.remote, connection.uid);
            found.note(Way::OlderConnection, &placed, who);
        }
        Ok(found.0.into_values().collect())
    }
}

/// By scope and way, in a fixed order.
#[derive(Default)]
struct Found(BTreeMap<(String, Way), Bypass>);

impl Found {
    fn note(&mut self, way: Way, placed: &Placed, who: String) {
        let (scope, mode) = (placed.name(), placed.scope.mode);
        let new = || Bypass { way, scope: scope.clone(), mode, who: Vec::new() };
        let bypass = self.0.entry((scope.clone(), way)).or_insert_with(new);
        if !bypass.who.contains(&who) {
            bypass.who.push(who);
        }
    }
}

/// A process, for people.
fn process(pid: u32) -> String {
    let name = std::fs::read_link(format!("/proc/{pid}/exe"));
    name.map_or_else(
        |_| format!("process {pid}"),
        |name| format!("process {pid} ({})", name.display()),
    )
}
