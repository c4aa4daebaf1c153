//! Listeners that are older than the daemon: who holds them is found once, by a scan of every
//! process's descriptors, and said to be so in the evidence. Holders that disagree get no identity.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;

use crate::bpf::Kernel;
use crate::sys::cgroup::Cgroups;
use crate::sys::sockets::{self, Holder, Owner};
use crate::sys::{clock, diag};
use crate::workload::{ListenerLookup, NetnsCookie, ProcessClaim};

use super::scopes::ScopeTable;

/// Tells the programs about every listener that they do not know yet, and makes them forget those
/// that closed unseen. Blocks: reads the descriptors of every process. Gives how many were adopted.
pub(super) fn adopt_listeners(
    kernel: &Kernel,
    table: &ScopeTable,
    cgroups: &Cgroups,
    netns: NetnsCookie,
) -> io::Result<usize> {
    let listening = diag::listening()?;
    let inodes: BTreeSet<u64> = listening.iter().map(|socket| socket.inode).collect();
    let holders = sockets::holders(&inodes)?;
    let now = u64::try_from(clock::since_boot().as_nanos()).unwrap_or(u64::MAX);
    let mut adopted = 0;
    for socket in &listening {
        let Some(held) = holders.by_inode.get(&socket.inode) else { continue };
        let claims = claims(held, cgroups, netns, now);
        let (claim, agree) = match sockets::owner(claims) {
            Owner::Nobody => continue,
            Owner::One(claim) => (claim, true),
            Owner::Disputed(claim) => (claim, false),
        };
        if held.iter().any(|holder| holder.pid == std::process::id()) {
            continue;
        }
        let scope = table.id_of(&claim);
        let adopt = |holder: Holder| {
            let socket_fd = sockets::duplicate(holder, socket.inode)?;
            kernel.adopt_listener(socket.addr.get(), &claim, scope, agree, socket_fd.as_fd())
        };
        match held.first().copied().map_or(Err(io::ErrorKind::NotFound.into()), adopt) {
            Ok(()) => adopted += 1,
            Err(error) => {
                tracing::warn!(address = %socket.addr, %error, "an older listener stays unknown");
            }
        }
    }
    forget_gone(kernel, &listening);
    Ok(adopted)
}

fn claims(held: &[Holder], cgroups: &Cgroups, netns: NetnsCookie, now: u64) -> Vec<ProcessClaim> {
    let pids: BTreeSet<u32> = held.iter().map(|holder| holder.pid).collect();
    let claim = |pid| sockets::claim_of(pid, cgroups, netns, now).ok().flatten();
    pids.into_iter().filter_map(claim).collect()
}

/// Entries of listeners that closed while no programs watched.
fn forget_gone(kernel: &Kernel, listening: &[diag::ListeningSocket]) {
    for (addr, known) in kernel.listeners() {
        let there = listening.iter().any(|socket| socket.addr == addr);
        let (ListenerLookup::Found(_) | ListenerLookup::Ambiguous(_)) = known else { continue };
        if !there {
            kernel.forget_listener(addr);
        }
    }
}
