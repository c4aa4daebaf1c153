//! Who listens on an address: several sockets may, and they come and go at the same time on several
//! processors. Every change is made under the lock of the entry.

use ebpf_abi::{ListenKey, Listener, Process, Socket, flags, listener_flags};

use crate::maps;

const LOOPBACK_IFINDEX: u32 = 1;
/// The end of such a socket is not seen by `established.rs`.
const END_UNSEEN: u32 = listener_flags::SCANNED | listener_flags::UNWATCHED;

/// What a device that the socket is bound to (0 for none) means for its entry.
#[inline(always)]
pub fn bound_to(device: u32) -> u32 {
    if device > LOOPBACK_IFINDEX { listener_flags::DEVICE_BOUND } else { 0 }
}

/// Writes a listening socket down; `how` are [`listener_flags`]. False: no room.
#[inline(always)]
pub fn enter(key: &ListenKey, socket: &mut Socket, how: u32) -> bool {
    let entered = join(key, socket, how) || begin(key, socket, how) || join(key, socket, how);
    if entered {
        socket.flags |= flags::LISTENING;
    }
    entered
}

/// One more socket on an address that has an entry. False: it has none.
#[inline(always)]
fn join(key: &ListenKey, socket: &Socket, how: u32) -> bool {
    let Some(known) = maps::listener(key) else {
        return false;
    };
    maps::with_lock(known, |known| {
        // Who listens now counts, not who may be gone. If both are there, the last mile tells which
        // of them accepted.
        if known.sockets == 0 || known.flags & END_UNSEEN != 0 {
            known.owner = socket.owner;
            known.scope = socket.scope;
            known.flags = how;
            known.sockets = 0;
        } else if !same_owner(&known.owner, &socket.owner) || known.scope != socket.scope {
            known.flags |= listener_flags::AMBIGUOUS;
        }
        // One of them that is not bound to a device can be dialled.
        known.flags &= how | !listener_flags::DEVICE_BOUND;
        known.sockets += 1;
    });
    true
}

/// The first socket on an address. False: another was faster, or there is no room.
#[inline(always)]
fn begin(key: &ListenKey, socket: &Socket, how: u32) -> bool {
    let (owner, scope) = (socket.owner, socket.scope);
    let listener = Listener { owner, scope, flags: how, sockets: 1, ..Listener::default() };
    maps::take_listener_place(scope) && maps::add_listener(key, &listener)
}

/// One socket fewer listens on this address.
#[inline(always)]
pub fn leave(key: &ListenKey) {
    if let Some(known) = maps::listener(key) {
        maps::with_lock(known, |known| known.sockets = known.sockets.saturating_sub(1));
    }
}

/// Workers of one program share a port by SO_REUSEPORT; they are one owner if all that gives them
/// their identity is the same.
#[inline(always)]
fn same_owner(a: &Process, b: &Process) -> bool {
    a.uid == b.uid
        && a.gid == b.gid
        && a.cgroup == b.cgroup
        && a.exe_ino == b.exe_ino
        && a.exe_dev == b.exe_dev
}
