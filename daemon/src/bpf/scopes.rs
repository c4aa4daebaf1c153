//! Tells the programs which cgroups are in which scope, and what holds there.
//!
//! A scope keeps its index as long as its cgroup and user stay the same, also over a restart:
//! sockets carry the index, and what holds is looked up at the moment it is needed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aya::maps::MapError;
use ebpf_abi::{
    ANY_USER, MAX_LEVEL, MAX_PATH, MAX_PORT_RANGES, MAX_SCOPES, PathScopes, PortRange, ScopeKey,
    ScopePath, fail, mode, other,
};

use crate::workload::{CgroupId, FailMode, Mode, OtherTransports, PortSet, Scope, ScopeId};

use super::kernel::{is_absent, locked, map_error};
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

impl Kernel {
    /// Makes exactly these scopes hold. New and changed ones first, so that no moment is less
    /// strict than both the old and the new state. Gives each one's index, in the same order.
    ///
    /// `place` finds out where the scopes are, after what is known was read: a cgroup that is made
    /// in between is not taken for one that has gone.
    pub fn set_scopes(
        &self,
        place: impl FnOnce() -> Vec<PlacedScope>,
    ) -> Result<(Vec<PlacedScope>, Vec<ScopeId>), LoadError> {
        let known = self.scope_ids();
        let scopes = place();
        let ids = self.write_scopes(&known, &scopes)?;
        Ok((scopes, ids))
    }

    fn write_scopes(
        &self,
        known: &BTreeMap<(u64, u32), u32>,
        scopes: &[PlacedScope],
    ) -> Result<Vec<ScopeId>, LoadError> {
        let mut taken: BTreeSet<u32> = known.values().copied().collect();
        taken.extend(scopes.iter().filter_map(|placed| Some(placed.id?.0)));
        // All that can be refused is refused before anything is written.
        let (mut ids, mut entries) = (Vec::new(), Vec::new());
        for placed in scopes {
            let before = key_of(placed)?.and_then(|key| known.get(&key).copied());
            let id = match before.or(placed.id.map(|id| id.0)) {
                Some(id) => id,
                None => self.free_id(&taken).ok_or_else(|| too_many(&placed.scope))?,
            };
            taken.insert(id);
            entries.push((id, to_entry(&placed.scope)?));
            ids.push(ScopeId(id));
        }
        let paths = paths(scopes, &ids)?;
        for (id, entry) in entries {
            locked(&self.scopes).set(id, entry, 0).map_err(map_error("SCOPES"))?;
        }
        let levels = scopes.iter().fold(0, |levels, placed| levels | 1_u64 << placed.level);
        // Both the old and the new depths, until the new cgroups are in.
        let before = self.config().map_or(0, |config| config.scope_levels);
        self.set_scope_levels(before | levels).map_err(map_error("CONFIG"))?;
        self.set_paths(&paths)?;
        let mut wanted = BTreeMap::new();
        for (placed, id) in scopes.iter().zip(&ids) {
            wanted.extend(key_of(placed)?.map(|key| (key, id.0)));
        }
        // Only what this call knew of is removed, and before anything is added: a full table must
        // not keep out what holds. What the programs have placed meanwhile stays.
        self.remove_scopes(known, &wanted, &ids)?;
        for ((cgroup, uid), id) in &wanted {
            let key = ScopeKey { cgroup: *cgroup, uid: *uid, padding: 0 };
            locked(&self.scope_ids).insert(key, id, 0).map_err(map_error("SCOPE_IDS"))?;
        }
        self.set_scope_levels(levels).map_err(map_error("CONFIG"))?;
        Ok(ids)
    }

    /// Tells the programs which paths are whose, for cgroups that are made later.
    fn set_paths(&self, wanted: &HashMap<ScopePath, PathScopes>) -> Result<(), LoadError> {
        let mut map = locked(&self.scope_paths);
        let stale: Vec<ScopePath> =
            map.keys().flatten().filter(|path| !wanted.contains_key(path)).collect();
        for (path, entry) in wanted {
            map.insert(path, entry, 0).map_err(map_error("SCOPE_PATHS"))?;
        }
        for path in stale {
            gone(map.remove(&path)).map_err(map_error("SCOPE_PATHS"))?;
        }
        Ok(())
    }

    fn remove_scopes(
        &self,
        known: &BTreeMap<(u64, u32), u32>,
        wanted: &BTreeMap<(u64, u32), u32>,
        ids: &[ScopeId],
    ) -> Result<(), LoadError> {
        for ((cgroup, uid), id) in known.iter().filter(|(key, _)| !wanted.contains_key(key)) {
            let key = ScopeKey { cgroup: *cgroup, uid: *uid, padding: 0 };
            // The programs remove the cgroup that one of the same path has replaced.
            gone(locked(&self.scope_ids).remove(&key)).map_err(map_error("SCOPE_IDS"))?;
            if !ids.contains(&ScopeId(*id)) {
                locked(&self.scopes).set(*id, RETIRED, 0).map_err(map_error("SCOPES"))?;
            }
        }
        Ok(())
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

/// Removed already is removed.
fn gone(removed: Result<(), MapError>) -> Result<(), MapError> {
    match removed {
        Err(error) if !is_absent(&error) => Err(error),
        _ => Ok(()),
    }
}

/// The first index that no scope has or ever had; only when there is none, one that a scope had.
fn free_id(taken: &BTreeSet<u32>, was_used: impl Fn(u32) -> bool) -> Option<u32> {
    let mut free = (1..MAX_SCOPES).filter(|id| !taken.contains(id));
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
        assert_eq!(free_id(&(1..MAX_SCOPES).collect(), |_| true), None);
    }
}
