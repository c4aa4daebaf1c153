//! Which scope is this? Asked by every hook; the deepest cgroup wins, a user in it before all.
//! Only depths at which some scope exists are looked at, so a host without scopes pays nothing.

use aya_ebpf::helpers::generated::bpf_get_current_ancestor_cgroup_id;
use ebpf_abi::{ANY_USER, Config, MAX_LEVEL, Scope, mode};

use crate::{acting, maps};

/// The scope of `cgroup_at(level)` for these users: the index, 0 for none.
#[inline(always)]
fn deepest(config: &Config, users: (u32, u32), cgroup_at: impl Fn(i32) -> u64) -> u32 {
    let mut found = 0;
    let mut level = 0;
    while level <= MAX_LEVEL {
        if config.scope_levels >> level == 0 {
            break;
        }
        if config.scope_levels >> level & 1 == 1 {
            let cgroup = cgroup_at(level as i32);
            if cgroup == 0 {
                break;
            }
            // The effective user decides before the real one: it is who the process acts as.
            if let Some(id) = maps::scope_id(cgroup, users.1) {
                found = id;
            } else if let Some(id) = maps::scope_id(cgroup, users.0) {
                found = id;
            } else if let Some(id) = maps::scope_id(cgroup, ANY_USER) {
                found = id;
            }
        }
        level += 1;
    }
    found
}

/// Scope of the current thread.
#[inline(always)]
pub fn of_current(config: &Config) -> u32 {
    if config.scope_levels == 0 {
        return 0;
    }
    let users = acting::users(&config.offsets);
    // SAFETY: a plain number; the helper gives 0 beyond the thread's own depth.
    deepest(config, users, |level| unsafe { bpf_get_current_ancestor_cgroup_id(level) })
}

/// Scope of a socket of these users (real, effective), whose cgroup at each depth `cgroup_at` gives.
#[inline(always)]
pub fn of_cgroups(config: &Config, users: (u32, u32), cgroup_at: impl Fn(i32) -> u64) -> u32 {
    if config.scope_levels == 0 {
        return 0;
    }
    deepest(config, users, cgroup_at)
}

/// Mode of a scope; what is in none is observed.
#[inline(always)]
pub fn mode_of(id: u32) -> u32 {
    match maps::scope(id) {
        Some(scope) if id != 0 => scope.mode,
        _ => mode::OBSERVE,
    }
}

/// Whether the scope captures connections to this port.
#[inline(always)]
pub fn captures_outbound(scope: &Scope, port: u16) -> bool {
    scope.all_outbound != 0 || scope.outbound.iter().any(|r| r.first <= port && port <= r.last)
}

/// Whether the scope captures connections to its listeners on this port.
#[inline(always)]
pub fn captures_inbound(scope: &Scope, port: u16) -> bool {
    scope.all_inbound != 0 || scope.inbound.iter().any(|r| r.first <= port && port <= r.last)
}
