//! Keeps the kernel's scope table true, as cgroups come and go.
//!
//! The programs know cgroups by id, the configuration by path. A cgroup that a service manager
//! makes anew has another id: the programs put it into its scope as it is made, and this table
//! follows, for those who ask and to forget the old one.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::audit::Audit;
use crate::bpf::{Kernel, Lack, LoadError, PlacedScope};
use crate::proxy::Modes;
use crate::shutdown::Stop;
use crate::sys::cgroup::{Cgroups, level};
use crate::workload::{CgroupId, Mode, ProcessClaim, Scope, ScopeId};

use super::ground::is_below;

/// How often cgroups are looked for. Chosen: a directory lookup for each scope.
const LOOK: Duration = Duration::from_millis(200);

/// The scopes as they hold now.
#[derive(Debug, Clone)]
pub(super) struct ScopeTable {
    kernel: Arc<Kernel>,
    cgroups: Cgroups,
    audit: Audit,
    placed: Arc<Mutex<Vec<Placed>>>,
    /// Held over a whole change.
    turn: Arc<Mutex<()>>,
    /// A change has begun and not ended well.
    half_written: Arc<AtomicBool>,
    modes: watch::Sender<Arc<Modes>>,
}

/// A configured scope, its index in the kernel, and its cgroup if that exists.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) scope: Scope,
    pub(super) cgroup: Option<CgroupId>,
    pub(super) id: ScopeId,
}

impl ScopeTable {
    pub(super) fn new(kernel: Arc<Kernel>, cgroups: Cgroups, audit: Audit) -> Self {
        Self {
            kernel,
            cgroups,
            audit,
            placed: Arc::default(),
            turn: Arc::default(),
            half_written: Arc::default(),
            modes: watch::Sender::default(),
        }
    }

    /// Makes the scopes of this configuration hold, also for cgroups that are yet to be made.
    pub(super) fn apply(&self, scopes: &[Scope]) -> Result<(), LoadError> {
        {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            self.apply_in_turn(scopes)?;
        }
        tracing::info!(scopes = scopes.len(), "scopes are in force");
        Ok(())
    }

    /// The same scopes, for cgroups that have come or gone since.
    fn apply_again(&self) -> Result<(), LoadError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let scopes: Vec<_> = self.current().into_iter().map(|placed| placed.scope).collect();
        self.apply_in_turn(&scopes)
    }

    /// Fails without a trace, or leaves the kernel no less strict and [`ScopeTable::is_stale`].
    fn apply_in_turn(&self, scopes: &[Scope]) -> Result<(), LoadError> {
        can_keep(scopes, self.kernel.lacks())?;
        let before = self.current();
        if self.kernel.is_retired() {
            self.keep(retained(before, scopes));
            return Ok(());
        }
        self.half_written.store(true, Ordering::Relaxed);
        let place = || scopes.iter().map(|scope| self.place(scope, &before)).collect();
        let (placed, ids) = self.kernel.set_scopes(place)?;
        let placed: Vec<Placed> = placed
            .into_iter()
            .zip(ids)
            .map(|(placed, id)| Placed { scope: placed.scope, cgroup: placed.cgroup, id })
            .collect();
        self.keep(placed);
        match self.kernel.rescope_listeners(|claim| self.rescoped(claim)) {
            Ok(()) => self.half_written.store(false, Ordering::Relaxed),
            Err(error) => {
                tracing::error!(%error, "listeners stay in the scopes that they were in; it is tried again");
            }
        }
        Ok(())
    }

    fn keep(&self, placed: Vec<Placed>) {
        self.audit.name_scopes(names(&placed));
        let modes = placed.iter().map(|placed| (placed.id, placed.scope.mode)).collect();
        self.modes.send_replace(Arc::new(modes));
        *self.placed.lock().unwrap_or_else(PoisonError::into_inner) = placed;
    }

    /// The modes, as they are now.
    pub(super) fn modes(&self) -> watch::Receiver<Arc<Modes>> {
        self.modes.subscribe()
    }

    /// What holds now.
    pub(super) fn current(&self) -> Vec<Placed> {
        self.placed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn place(&self, scope: &Scope, before: &[Placed]) -> PlacedScope {
        let same =
            |placed: &&Placed| placed.scope.cgroup == scope.cgroup && placed.scope.uid == scope.uid;
        PlacedScope {
            cgroup: self.cgroups.id_of(&scope.cgroup).ok(),
            level: u32::try_from(level(&scope.cgroup)).unwrap_or(u32::MAX),
            id: before.iter().find(same).map(|placed| placed.id),
            scope: scope.clone(),
        }
    }

    /// The scope that a process is in, as the programs find it: the deepest cgroup wins, a user in
    /// it before all users.
    pub(super) fn scope_of(&self, claim: &ProcessClaim) -> Option<Placed> {
        self.scope_at(claim.cgroup, [claim.uid, claim.real_uid])
    }

    /// The scope of a cgroup and a user, effective and real.
    pub(super) fn scope_at(&self, cgroup: CgroupId, [uid, real_uid]: [u32; 2]) -> Option<Placed> {
        let path = self.cgroups.path_of(cgroup)?;
        let users = [Some(uid), Some(real_uid), None];
        let applies = |placed: &Placed| {
            is_below(&path, &placed.scope.cgroup) && users.contains(&placed.scope.uid)
        };
        let rank = |placed: &Placed| {
            let user = users.iter().position(|user| *user == placed.scope.uid);
            (level(&placed.scope.cgroup), std::cmp::Reverse(user))
        };
        let placed = self.placed.lock().unwrap_or_else(PoisonError::into_inner);
        placed.iter().filter(|placed| applies(placed)).max_by_key(|placed| rank(placed)).cloned()
    }

    /// Index of that scope, 0 for none; nothing if its cgroup is not there to be asked.
    pub(super) fn rescoped(&self, claim: &ProcessClaim) -> Option<ScopeId> {
        self.cgroups.path_of(claim.cgroup)?;
        Some(self.id_of(claim))
    }

    /// Index of that scope, 0 for none.
    pub(super) fn id_of(&self, claim: &ProcessClaim) -> ScopeId {
        self.scope_of(claim).map_or(ScopeId(0), |placed| placed.id)
    }

    /// Whether the cgroup, or one above it, is of a scope.
    pub(super) fn covers(&self, cgroup: CgroupId) -> bool {
        let Some(path) = self.cgroups.path_of(cgroup) else { return false };
        self.current().iter().any(|placed| is_below(&path, &placed.scope.cgroup))
    }

    /// The pids of all processes in scopes.
    pub(super) fn processes(&self, cgroups: &Cgroups) -> BTreeSet<u32> {
        let scopes = self.current();
        let below = |placed: &Placed| cgroups.processes_below(&placed.scope.cgroup);
        scopes.iter().filter_map(|placed| below(placed).ok()).flatten().collect()
    }

    /// Whether a cgroup has come, gone or been made anew since, or the kernel has refused half of a
    /// change: then what holds is to be written again.
    fn is_stale(&self) -> bool {
        let half_written = self.half_written.load(Ordering::Relaxed);
        half_written
            || self
                .current()
                .iter()
                .any(|placed| self.cgroups.id_of(&placed.scope.cgroup).ok() != placed.cgroup)
    }

    /// Follows cgroups as they come and go until the daemon stops.
    pub(super) async fn run(self, mut stop: Stop) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.draining() => return,
                _ = look.tick() => if !self.is_stale() { continue },
            }
            if let Err(error) = self.apply_again() {
                tracing::error!(%error, "scopes stay with the cgroups that they had");
            }
        }
    }
}

/// What becomes of scopes by this configuration while another daemon tells the programs of them:
/// those that are still there hold as it says.
fn retained(before: Vec<Placed>, scopes: &[Scope]) -> Vec<Placed> {
    let now = |placed: Placed| {
        let same =
            |scope: &&Scope| (&scope.cgroup, scope.uid) == (&placed.scope.cgroup, placed.scope.uid);
        let scope = scopes.iter().find(same)?.clone();
        Some(Placed { scope, ..placed })
    };
    before.into_iter().filter_map(now).collect()
}

/// Refuses a strict scope where something is missing without which it would be a lie.
pub(super) fn can_keep(scopes: &[Scope], lacks: &[Lack]) -> Result<(), LoadError> {
    let strict = scopes.iter().find(|scope| scope.mode == Mode::Strict);
    match (strict, lacks.iter().find(|lack| lack.breaks_strict)) {
        (Some(scope), Some(lack)) => Err(LoadError::Strict {
            cgroup: scope.cgroup.clone(),
            program: lack.program,
            means: lack.means,
        }),
        _ => Ok(()),
    }
}

fn names(placed: &[Placed]) -> HashMap<ScopeId, String> {
    placed.iter().map(|placed| (placed.id, placed.name())).collect()
}

impl Placed {
    /// As records name it.
    pub(super) fn name(&self) -> String {
        match self.scope.uid {
            Some(uid) => format!("{} user {uid}", self.scope.cgroup),
            None => self.scope.cgroup.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{FailMode, OtherTransports, PortSet};

    fn scope(mode: Mode) -> Scope {
        Scope {
            cgroup: "/system.slice/db.service".to_owned(),
            uid: None,
            mode,
            fail: FailMode::Closed,
            other_transports: OtherTransports::DnsOnly,
            inbound_ports: PortSet::all(),
            outbound_ports: PortSet::all(),
        }
    }

    fn lack(breaks_strict: bool) -> Lack {
        let (program, reason) = ("tacit_egress", "unknown func".to_owned());
        Lack { program, means: "a socket could go around", breaks_strict, reason }
    }

    #[test]
    fn a_strict_scope_is_refused_where_it_would_be_a_lie() {
        let error = can_keep(&[scope(Mode::Observe), scope(Mode::Strict)], &[lack(true)]);
        let said = error.unwrap_err().to_string();
        for part in ["/system.slice/db.service", "tacit_egress", "a socket could go around"] {
            assert!(said.contains(part), "{said}");
        }
        can_keep(&[scope(Mode::Permissive)], &[lack(true)]).unwrap();
        can_keep(&[scope(Mode::Strict)], &[lack(false)]).unwrap();
    }
}
