//! raw tracepoint cgroup_mkdir: a cgroup that the configuration names is in its scope before any
//! process can be in it, also while no daemon runs: a service that is restarted stays strict.

use core::ffi::c_void;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use ebpf_abi::{Counter, MAX_PATH, MAX_USERS};

use crate::{acting, maps};

/// Arguments: `struct cgroup *cgrp, const char *path` (include/trace/events/cgroup.h).
#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
pub fn tacit_cgroup_made(ctx: RawTracePointContext) -> i32 {
    let Some(config) = maps::config() else {
        return 0;
    };
    let args = ctx.as_ptr().cast::<u64>();
    // SAFETY: the tracepoint has two arguments.
    let (cgroup, path) = unsafe { (*args, *args.add(1)) };
    let root: u64 = acting::field(cgroup, config.offsets.cgroup_root);
    let hierarchy: u32 = acting::field(root, config.offsets.root_hierarchy);
    if hierarchy != 0 {
        // A version 1 hierarchy: no scope is there.
        return 0;
    }
    let Some(room) = maps::path_room() else {
        return 0;
    };
    room.path = [0; MAX_PATH];
    let to = room.path.as_mut_ptr().cast::<c_void>();
    // SAFETY: the helper writes at most so many bytes.
    let length = unsafe { bpf_probe_read_kernel_str(to, MAX_PATH as u32, path as *const c_void) };
    if length < 0 || length == MAX_PATH as i64 && is_longer(path) {
        return 0;
    }
    let Some(wanted) = maps::scopes_at(room) else {
        return 0;
    };
    let kn: u64 = acting::field(cgroup, config.offsets.cgroup_kn);
    let id: u64 = acting::field(kn, config.offsets.kn_id);
    // Whoever makes a cgroup again and again must not fill the table for others.
    let before = wanted.cgroup;
    let mut i = 0;
    while i < MAX_USERS {
        if wanted.scopes[i] != 0 {
            if before != 0 && before != id {
                maps::displace_scope(before, wanted.uids[i]);
            }
            if !maps::place_scope(id, wanted.uids[i], wanted.scopes[i]) {
                maps::count(Counter::MapFull);
            }
        }
        i += 1;
    }
    wanted.cgroup = id;
    0
}

/// Whether the path goes on where the room ends: then it is not the one that was read, but of a
/// cgroup below that, which must not take the place of the one above.
#[inline(always)]
fn is_longer(path: u64) -> bool {
    acting::field::<u8>(path, MAX_PATH as u32 - 1) != 0
}
