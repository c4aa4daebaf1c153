//! Tells the daemon what a program decided by itself, and what an observed connection came to.

use ebpf_abi::{Counter, Event, Ip, Process, Socket, kind};

use crate::{acting, maps};

/// The two ends of what is reported.
pub struct Ends {
    pub local: Ip,
    pub remote: Ip,
    pub local_port: u16,
    pub remote_port: u16,
    pub protocol: u32,
}

/// Counts a denial and tells the daemon about it.
#[inline(always)]
pub fn denied(reason: Counter, process: Option<&Process>, scope: u32, ends: &Ends) {
    denied_packet(reason, process, scope, ends, 0);
}

/// As [`denied`]; `flags` say what is known about the packet.
#[inline(always)]
pub fn denied_packet(
    reason: Counter,
    process: Option<&Process>,
    scope: u32,
    ends: &Ends,
    flags: u32,
) {
    maps::count(reason);
    submit(process, ends, |event| {
        event.kind = kind::DENIED;
        event.reason = reason.index();
        event.scope = scope;
        event.flags = flags;
        event.opened_ns = 0;
        event.bytes_sent = 0;
        event.bytes_received = 0;
    });
}

/// Tells the daemon who is about to open an observed connection.
#[inline(always)]
pub fn opening(socket: &Socket, ends: &Ends) {
    watched(kind::OPENING, socket, ends, 0, 0);
}

/// Tells the daemon that an observed connection is established.
#[inline(always)]
pub fn established(socket: &Socket, ends: &Ends) {
    watched(kind::ESTABLISHED, socket, ends, 0, 0);
}

/// Tells the daemon that an observed connection has closed.
#[inline(always)]
pub fn observed(socket: &Socket, ends: &Ends, bytes_sent: u64, bytes_received: u64) {
    watched(kind::OBSERVED, socket, ends, bytes_sent, bytes_received);
}

#[inline(always)]
fn watched(kind: u32, socket: &Socket, ends: &Ends, bytes_sent: u64, bytes_received: u64) {
    submit(Some(&socket.owner), ends, |event| {
        event.kind = kind;
        event.reason = 0;
        event.scope = socket.scope;
        event.flags = socket.flags;
        event.opened_ns = socket.opened_ns;
        event.bytes_sent = bytes_sent;
        event.bytes_received = bytes_received;
    });
}

#[inline(always)]
fn submit(process: Option<&Process>, ends: &Ends, fill: impl FnOnce(&mut Event)) {
    let Some(mut entry) = maps::EVENTS.reserve::<Event>(0) else {
        maps::count(Counter::EventsLost);
        return;
    };
    // SAFETY: the ring gives room for one Event, and every field is written below.
    let event = unsafe { &mut *entry.as_mut_ptr() };
    event.process = match process {
        Some(process) => *process,
        None => Process {
            start_ns: 0,
            seen_ns: 0,
            cgroup: 0,
            netns: 0,
            exe_ino: 0,
            exec_id: 0,
            exe_dev: 0,
            tgid: 0,
            uid: 0,
            gid: 0,
            real_uid: 0,
            real_gid: 0,
        },
    };
    event.time_ns = acting::now_ns();
    event.local = ends.local;
    event.remote = ends.remote;
    event.local_port = ends.local_port;
    event.remote_port = ends.remote_port;
    event.protocol = ends.protocol;
    fill(event);
    entry.submit(0);
}
