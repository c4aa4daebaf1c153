//! Tells the programs which cgroups are in which scope, and what holds there.
//!
//! A scope keeps its index as long as its cgroup and user stay the same, also over a restart:
//! sockets carry the index, and what holds is looked up at the moment it is needed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aya::maps::MapError;
use ebpf_abi::{
    ANY_USER, MAX_LEVEL, MAX_PATH, MAX_PORT_RANGES, MAX_SCOPES, PathScopes, PortRange, SCOPE_SLOTS,
    ScopeKey, ScopePath, fail, mode, other,
};

use crate::sys::barrier;
use crate::workload::{CgroupId, FailMode, Mode, OtherTransports, PortSet, Scope, ScopeId};

use super::kernel::{is_absent, locked};
use super::{Kernel, LoadError};

/// What holds in a scope that is no more: nothing. Told apart from an index that was never used.
const RETIRED: ebpf_abi::Scope = ebpf_abi::Scope {
    mode: mode::OBSERVE,
    fail: fail::OPEN,
    other: other::ALLOW,
    all_inbound: 0,
    all_outbound: 0,
    inbound: [PortRange { first: 1, last: 0 }; MAX_PORT_RANGES],
    outbound: [PortRange { first: 1, last: 0 }; MAX_PORT_RANGES],
};

/// A scope, its place in the hierarchy, and its cgroup if that exists now.
#[derive(Debug, Clone)]
pub struct PlacedScope {
    /// What holds.
    pub scope: Scope,
    /// The cgroup's id; none while it does not exist.
    pub cgroup: Option<CgroupId>,
    /// Depth of the cgroup, 0 for the root.
    pub level: u32,
    /// The index that it had before, if it had one.
    pub id: Option<ScopeId>,
}

/// Everything that is to be written, found to be possible.
struct Plan {
    ids: Vec<ScopeId>,
    /// What is to hold, by index.
    entries: BTreeMap<u32, ebpf_abi::Scope>,
    /// Which cgroup and user is to have which index.
    keys: BTreeMap<Key, u32>,
    paths: HashMap<ScopePath, PathScopes>,
    levels: u64,
}

/// A cgroup id and a user.
type Key = (u64, u32);

impl Kernel {
    /// Makes exactly these scopes hold, so that no moment is less strict than both the old and the new
    /// state: first what is new is added and what changes is as strict as it ever was or will be; then
    /// each cgroup and user has the old decision or the new one. Only then goes what is old, and what
    /// changes is lowered. Gives each one's index, in the same order.
    ///
    /// `place` finds out where the scopes are, after what is known was read: a cgroup that is made
    /// in between is not taken for one that has gone.
    ///
    /// # Errors
    /// What cannot be is refused before anything is written. If the kernel refuses half way, nothing
    /// is less strict for it; set the old scopes again.
    pub fn set_scopes(
        &self,
        place: impl FnOnce() -> Vec<PlacedScope>,
    ) -> Result<(Vec<PlacedScope>, Vec<ScopeId>), LoadError> {
        let known = self.scope_ids();
        let scopes = place();
        let plan = self.plan(&known, &scopes)?;
        self.add(&plan)?;
        // A program that has looked up the old index may still be about to ask what holds there.
        if let Err(error) = barrier::wait_for_programs() {
            tracing::debug!(%error, "programs that run now are not waited for");
        }
        self.remove(&plan, &known)?;
        Ok((scopes, plan.ids))
    }

    fn plan(&self, known: &BTreeMap<Key, u32>, scopes: &[PlacedScope]) -> Result<Plan, LoadError> {
        let mut taken: BTreeSet<u32> = known.values().copied().collect();
        taken.extend(scopes.iter().filter_map(|placed| Some(placed.id?.0)));
        let (mut ids, mut entries, mut keys) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        for placed in scopes {
            let key = key_of(placed)?;
            let before = key.and_then(|key| known.get(&key).copied());
            let id = match before.or(placed.id.map(|id| id.0)) {
                Some(id) => id,
                None => self.free_id(&taken).ok_or_else(|| too_many(&placed.scope))?,
            };
            taken.insert(id);
            entries.insert(id, to_entry(&placed.scope)?);
            keys.extend(key.map(|key| (key, id)));
            ids.push(ScopeId(id));
        }
        let first_too_many = usize::try_from(MAX_SCOPES).unwrap_or(usize::MAX) - 1;
        if let Some(placed) = scopes.get(first_too_many) {
            return Err(too_many(&placed.scope));
        }
        let paths = paths(scopes, &ids)?;
        let levels = scopes.iter().fold(0, |levels, placed| levels | 1_u64 << placed.level);
        Ok(Plan { ids, entries, keys, paths, levels })
    }

    /// What is new, beside what is old.
    fn add(&self, plan: &Plan) -> Result<(), LoadError> {
        for (id, entry) in &plan.entries {
            let mut scopes = locked(&self.scopes);
            let before = scopes.get(id, 0).map_err(unwritten("SCOPES"))?;
            scopes.set(*id, stricter(&before, entry), 0).map_err(unwritten("SCOPES"))?;
        }
        // Both the old and the new depths.
        let before = self.config().map_or(0, |config| config.scope_levels);
        self.set_scope_levels(before | plan.levels).map_err(unwritten("CONFIG"))?;
        for (path, entry) in &plan.paths {
            locked(&self.scope_paths).insert(path, entry, 0).map_err(unwritten("SCOPE_PATHS"))?;
        }
        for ((cgroup, uid), id) in &plan.keys {
            let key = ScopeKey { cgroup: *cgroup, uid: *uid, padding: 0 };
            locked(&self.scope_ids).insert(key, id, 0).map_err(unwritten("SCOPE_IDS"))?;
        }
        Ok(())
    }

    /// What is old, and what is stricter than it is to be. Only keys that were `known` are removed: what
    /// the programs have placed meanwhile stays.
    fn remove(&self, plan: &Plan, known: &BTreeMap<Key, u32>) -> Result<(), LoadError> {
        let mut paths = locked(&self.scope_paths);
        let stale: Vec<ScopePath> =
            paths.keys().flatten().filter(|path| !plan.paths.contains_key(path)).collect();
        for path in stale {
            gone(paths.remove(&path)).map_err(unwritten("SCOPE_PATHS"))?;
        }
        drop(paths);
        for ((cgroup, uid), id) in known.iter().filter(|(key, _)| !plan.keys.contains_key(key)) {
            let key = ScopeKey { cgroup: *cgroup, uid: *uid, padding: 0 };
            // The programs remove the cgroup that one of the same path has replaced.
            gone(locked(&self.scope_ids).remove(&key)).map_err(unwritten("SCOPE_IDS"))?;
            if !plan.entries.contains_key(id) {
                locked(&self.scopes).set(*id, RETIRED, 0).map_err(unwritten("SCOPES"))?;
            }
        }
        for (id, entry) in &plan.entries {
            locked(&self.scopes).set(*id, entry, 0).map_err(unwritten("SCOPES"))?;
        }
        self.set_scope_levels(plan.levels).map_err(unwritten("CONFIG"))
    }

    /// An index for a new scope. One that was used is avoided, also by an earlier daemon: sockets of
    /// the scope that had it still carry it.
    fn free_id(&self, taken: &BTreeSet<u32>) -> Option<u32> {
        let scopes = locked(&self.scopes);
        free_id(taken, |id| scopes.get(&id, 0).is_ok_and(|held| held != ebpf_abi::Scope::default()))
    }

    fn scope_ids(&self) -> BTreeMap<(u64, u32), u32> {
        let map = locked(&self.scope_ids);
        map.iter().flatten().map(|(key, id)| ((key.cgroup, key.uid), id)).collect()
    }

    /// Mode that holds in a scope now.
    pub fn mode_of(&self, id: ScopeId) -> Mode {
        match locked(&self.scopes).get(&id.0, 0) {
            Ok(scope) if id.0 != 0 && scope.mode == mode::STRICT => Mode::Strict,
            Ok(scope) if id.0 != 0 && scope.mode == mode::PERMISSIVE => Mode::Permissive,
            // Closed: a scope that cannot be looked up may be strict.
            Err(_) => Mode::Strict,
            _ => Mode::Observe,
        }
    }
}

fn key_of(placed: &PlacedScope) -> Result<Option<(u64, u32)>, LoadError> {
    if placed.level > MAX_LEVEL {
        return Err(LoadError::Scope {
            cgroup: placed.scope.cgroup.clone(),
            problem: "the cgroup lies deeper than 31 levels; name one of its ancestors",
        });
    }
    let uid = placed.scope.uid.unwrap_or(ANY_USER);
    Ok(placed.cgroup.map(|cgroup| (cgroup.0, uid)))
}

/// The scopes by path, with the cgroup that has it now.
fn paths(
    scopes: &[PlacedScope],
    ids: &[ScopeId],
) -> Result<HashMap<ScopePath, PathScopes>, LoadError> {
    let mut wanted: HashMap<ScopePath, PathScopes> = HashMap::new();
    for (placed, id) in scopes.iter().zip(ids) {
        let entry = wanted.entry(to_path(&placed.scope)?).or_default();
        let free = entry.uids.iter_mut().zip(&mut entry.scopes).find(|(_, id)| **id == 0);
        let (uid, scope) = free.ok_or_else(|| LoadError::Scope {
            cgroup: placed.scope.cgroup.clone(),
            problem: "more than 8 users of one cgroup; give them cgroups of their own",
        })?;
        (*uid, *scope) = (placed.scope.uid.unwrap_or(ANY_USER), id.0);
        entry.cgroup = placed.cgroup.map_or(0, |cgroup| cgroup.0);
    }
    Ok(wanted)
}

/// A path as the kernel tells it, zero-padded.
fn to_path(scope: &Scope) -> Result<ScopePath, LoadError> {
    let bytes = scope.cgroup.as_bytes();
    let mut path = [0; MAX_PATH];
    // The last byte stays zero.
    if bytes.len() >= path.len() {
        return Err(LoadError::Scope {
            cgroup: scope.cgroup.clone(),
            problem: "the path is longer than 255 bytes; name one of its ancestors",
        });
    }
    for (to, from) in path.iter_mut().zip(bytes) {
        *to = *from;
    }
    Ok(ScopePath { path })
}

/// What holds while a scope changes from one to the other: in all the stricter of the two.
fn stricter(before: &ebpf_abi::Scope, after: &ebpf_abi::Scope) -> ebpf_abi::Scope {
    let wider = |all: (u16, u16), ranges: [&[PortRange; MAX_PORT_RANGES]; 2]| {
        let same = all.0 == all.1 && ranges[0] == ranges[1];
        // Ports of both, or all: of two lists of eight there may be sixteen.
        if same { (all.0, *ranges[0]) } else { (1, *ranges[1]) }
    };
    if before.mode == mode::OBSERVE {
        return *after;
    }
    if after.mode == mode::OBSERVE {
        return *before;
    }
    let (all_inbound, inbound) =
        wider((before.all_inbound, after.all_inbound), [&before.inbound, &after.inbound]);
    let (all_outbound, outbound) =
        wider((before.all_outbound, after.all_outbound), [&before.outbound, &after.outbound]);
    ebpf_abi::Scope {
        mode: before.mode.max(after.mode),
        fail: before.fail.min(after.fail),
        other: before.other.min(after.other),
        all_inbound,
        all_outbound,
        inbound,
        outbound,
    }
}

fn unwritten(name: &'static str) -> impl FnOnce(MapError) -> LoadError {
    move |source| LoadError::Unwritten { name, source: Box::new(source) }
}

/// Removed already is removed.
fn gone(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(error) if !is_absent(&error) => Err(error),
        _ => Ok(()),
    }
}

/// The first index that no scope has or ever had; only when there is none, one that a scope had.
fn free_id(taken: &BTreeSet<u32>, was_used: impl Fn(u32) -> bool) -> Option<u32> {
    let mut free = (1..SCOPE_SLOTS).filter(|id| !taken.contains(id));
    let oldest = free.clone().next();
    free.find(|id| !was_used(*id)).or(oldest)
}

fn too_many(scope: &Scope) -> LoadError {
    let problem = "the kernel table holds 1023 scopes; merge some under a common ancestor";
    LoadError::Scope { cgroup: scope.cgroup.clone(), problem }
}

fn to_entry(scope: &Scope) -> Result<ebpf_abi::Scope, LoadError> {
    Ok(ebpf_abi::Scope {
        mode: match scope.mode {
            Mode::Observe => mode::OBSERVE,
            Mode::Permissive => mode::PERMISSIVE,
            Mode::Strict => mode::STRICT,
        },
        fail: match scope.fail {
            FailMode::Closed => fail::CLOSED,
            FailMode::Open => fail::OPEN,
        },
        other: match scope.other_transports {
            OtherTransports::Refuse => other::REFUSE,
            OtherTransports::DnsOnly => other::DNS_ONLY,
            OtherTransports::Allow => other::ALLOW,
        },
        all_inbound: u16::from(scope.inbound_ports.is_all()),
        all_outbound: u16::from(scope.outbound_ports.is_all()),
        inbound: to_ranges(scope, &scope.inbound_ports)?,
        outbound: to_ranges(scope, &scope.outbound_ports)?,
    })
}

fn to_ranges(scope: &Scope, ports: &PortSet) -> Result<[PortRange; MAX_PORT_RANGES], LoadError> {
    // An unused range holds no port: its first lies above its last.
    let mut ranges = [PortRange { first: 1, last: 0 }; MAX_PORT_RANGES];
    if ports.ranges().len() > ranges.len() {
        return Err(LoadError::Scope {
            cgroup: scope.cgroup.clone(),
            problem: "more than 8 port ranges in one direction; join some",
        });
    }
    for (to, from) in ranges.iter_mut().zip(ports.ranges()) {
        *to = PortRange { first: *from.start(), last: *from.end() };
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_of_a_removed_scope_is_the_last_to_be_used_again() {
        let taken = BTreeSet::from([1, 2]);
        assert_eq!(free_id(&taken, |id| id <= 4), Some(5));
        assert_eq!(free_id(&taken, |_| true), Some(3));
        assert_eq!(free_id(&(1..SCOPE_SLOTS).collect(), |_| true), None);
    }

    #[test]
    fn a_scope_that_changes_is_meanwhile_as_strict_as_either() {
        let scope = |mode: u32, fail: u32, other: u32, port: u16| ebpf_abi::Scope {
            mode,
            fail,
            other,
            all_outbound: 0,
            outbound: [PortRange { first: port, last: port }; MAX_PORT_RANGES],
            ..RETIRED
        };
        let strict = scope(mode::STRICT, fail::CLOSED, other::DNS_ONLY, 80);
        let loose = scope(mode::PERMISSIVE, fail::OPEN, other::REFUSE, 443);
        for (before, after) in [(&strict, &loose), (&loose, &strict)] {
            let held = stricter(before, after);
            assert_eq!((held.mode, held.fail, held.other), (mode::STRICT, 0, other::REFUSE));
            assert_eq!((held.all_outbound, held.all_inbound), (1, 0), "ports of both");
        }
        assert_eq!(stricter(&strict, &strict), strict);
        // What is observed is captured on no port: the other one's words hold.
        assert_eq!(stricter(&RETIRED, &strict), strict);
        assert_eq!(stricter(&strict, &RETIRED), strict);
        assert_eq!(stricter(&ebpf_abi::Scope::default(), &loose), loose);
    }
}
