//! sock_ops: carries the record from the connecting socket to the accepted one, under the full
//! 4-tuple and namespace and for microseconds only; keeps the tables of listeners and dials.
//!
//! These callbacks mostly run in softirq: who is "current" there is somebody else. Identity comes
//! only from what connect, create and bind wrote into the socket's storage.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::{
    BPF_ANY, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
    BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB,
    BPF_TCP_CLOSE, BPF_TCP_CLOSE_WAIT, BPF_TCP_ESTABLISHED, BPF_TCP_FIN_WAIT2, BPF_TCP_LAST_ACK,
    BPF_TCP_LISTEN, BPF_TCP_SYN_SENT, bpf_sock, bpf_sock_ops,
};
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_setsockopt, bpf_sock_ops_cb_flags_set,
};
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use ebpf_abi::{
    Config, Counter, Dial, Ip, ListenKey, Process, Socket, Tuple, flags,
};

use crate::report::{self, Ends};
use crate::{acting, address, bypass, listeners, maps};

const GO_ON: u32 = 1;
const AF_INET: u32 = 2;
const IPPROTO_TCP: u32 = 6;
const SOL_TCP: i32 = 6;
const TCP_SYNCNT: i32 = 7;

/// The ends of the connection, as the socket at hand sees them.
struct Pair {
    local: Ip,
    remote: Ip,
    local_port: u16,
    remote_port: u16,
}

impl Pair {
    #[inline(always)]
    fn of(ops: *mut bpf_sock_ops) -> Self {
        // SAFETY: plain context fields, word by word. remote_port is in network order in the upper
        // half, local_port in host order (include/uapi/linux/bpf.h).
        unsafe {
            let (local, remote) = if (*ops).family == AF_INET {
                let local = [0, 0, address::V4_MAPPED, (*ops).local_ip4];
                (local, [0, 0, address::V4_MAPPED, (*ops).remote_ip4])
            } else {
                (
                    address::words(ptr::addr_of!((*ops).local_ip6).cast()),
                    address::words(ptr::addr_of!((*ops).remote_ip6).cast()),
                )
            };
            Self {
                local,
                remote,
                local_port: (*ops).local_port as u16,
                remote_port: u32::from_be((*ops).remote_port) as u16,
            }
        }
    }

    #[inline(always)]
    fn as_client(&self, netns: u64) -> Tuple {
        Tuple {
            netns,
            client: self.local,
            server: self.remote,
            client_port: self.local_port,
            server_port: self.remote_port,
            padding: 0,
        }
    }

    #[inline(always)]
    fn as_server(&self, netns: u64) -> Tuple {
        Tuple {
            netns,
            client: self.remote,
            server: self.local,
            client_port: self.remote_port,
            server_port: self.local_port,
            padding: 0,
        }
    }

    #[inline(always)]
    fn ends(&self) -> Ends {
        Ends {
            local: self.local,
            remote: self.remote,
            local_port: self.local_port,
            remote_port: self.remote_port,
            protocol: IPPROTO_TCP,
        }
    }
}

#[sock_ops]
pub fn tacit_established(ctx: SockOpsContext) -> u32 {
    let Some(config) = maps::config() else {
        return GO_ON;
    };
    let ops = ctx.ops;
    // SAFETY: plain context fields.
    let (op, sk) = unsafe { ((*ops).op, (*ops).__bindgen_anon_2.sk.cast::<c_void>()) };
    if sk.is_null() {
        return GO_ON;
    }
    match op {
        BPF_SOCK_OPS_TCP_CONNECT_CB => connecting(config, ops, sk),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => accepted(config, ops, sk),
        BPF_SOCK_OPS_TCP_LISTEN_CB => listening(config, ops, sk),
        BPF_SOCK_OPS_STATE_CB => changed(config, ops, sk),
        _ => {}
    }
    GO_ON
}

/// Asks for a callback at each change of the socket's state.
#[inline(always)]
fn watch(ops: *mut bpf_sock_ops) {
    // SAFETY: the helper takes the context.
    unsafe { bpf_sock_ops_cb_flags_set(ops, BPF_SOCK_OPS_STATE_CB_FLAG as i32) };
}

/// Before the SYN leaves: the local port is known, and nobody can have accepted yet.
#[inline(always)]
fn connecting(config: &Config, ops: *mut bpf_sock_ops, sk: *mut c_void) {
    let Some(socket) = maps::socket(sk) else {
        return;
    };
    if socket.flags & (flags::REDIRECTED | flags::LAST_MILE | flags::OBSERVED) == 0 {
        return;
    }
    watch(ops);
    let pair = Pair::of(ops);
    if socket.flags & flags::LAST_MILE != 0 {
        let dial = Dial {
            owner: Process::default(),
            peer: socket.peer,
            scope: 0,
            peer_port: socket.peer_port,
            accepted: 0,
        };
        if maps::DIALS.insert(&pair.as_client(config.netns), &dial, u64::from(BPF_ANY)).is_err() {
            // Steered back to the daemon, which ends it: said as what it was meant to be.
            let ends = Ends {
                local: pair.remote,
                remote: socket.peer,
                local_port: pair.remote_port,
                remote_port: socket.peer_port,
                protocol: IPPROTO_TCP,
            };
            report::denied(Counter::MapFull, None, socket.scope, &ends);
        }
    } else if socket.flags & flags::REDIRECTED != 0 {
        let key = pair.as_client(socket.owner.netns);
        if socket.flags & flags::CREATED == 0 {
            // Made by the kernel: the application holds another socket over this one (MPTCP).
            socket.flags |= flags::CARRIED;
        }
        let carried = socket.flags & flags::CARRIED == 0
            || maps::TRUTHS.insert(&key, &*socket, u64::from(BPF_ANY)).is_ok();
        // Without a record sk_lookup drops the SYN: closed, and said. Never a lie to the client.
        if !carried || maps::FLOWS.insert(&key, &*socket, u64::from(BPF_ANY)).is_err() {
            let ends = Ends {
                local: [0; 4],
                remote: socket.dst,
                local_port: 0,
                remote_port: socket.dst_port,
                protocol: IPPROTO_TCP,
            };
            give_up_soon(ops);
            report::denied(Counter::MapFull, Some(&socket.owner), socket.scope, &ends);
        }
    }
}

/// connect() is to fail in seconds, not in minutes: its SYN will not be answered.
#[inline(always)]
fn give_up_soon(ops: *mut bpf_sock_ops) {
    let mut retries = 1_i32;
    let value = ptr::from_mut(&mut retries).cast();
    // SAFETY: the helper takes the context and a buffer of the given size.
    unsafe { bpf_setsockopt(ops.cast(), SOL_TCP, TCP_SYNCNT, value, 4) };
}

/// A listener of this host has accepted.
#[inline(always)]
fn accepted(config: &Config, ops: *mut bpf_sock_ops, sk: *mut c_void) {
    // SAFETY: the helper takes the context.
    let netns = unsafe { bpf_get_netns_cookie(ops.cast()) };
    if netns != config.netns {
        // Not of our namespace: the same addresses and ports mean another connection there.
        return accepted_elsewhere(config, ops, sk);
    }
    let pair = Pair::of(ops);
    let key = pair.as_server(netns);
    if bypass::is_outbound_port(config, &pair.local, pair.local_port) {
        if let Some(flow) = maps::FLOWS.get_ptr(&key) {
            maps::replace_socket(sk, flow);
            if let Some(socket) = maps::socket(sk) {
                // The daemon's own end: it is not to be told the application's truth.
                socket.flags |= flags::INBOUND;
            }
            let _gone = maps::FLOWS.remove(&key);
            return;
        }
    }
    let own = maps::socket(sk);
    if own.as_ref().is_some_and(|socket| bypass::is_ours(socket)) {
        return;
    }
    if let Some(dial) = maps::DIALS.get_ptr_mut(&key) {
        // SAFETY: a value of the map, valid while the program runs.
        served(unsafe { &mut *dial }, sk);
        return;
    }
    accepted_elsewhere(config, ops, sk);
}

/// Accepted without the daemon, in whatever scope: watched.
#[inline(always)]
fn accepted_elsewhere(config: &Config, ops: *mut bpf_sock_ops, sk: *mut c_void) {
    let Some(socket) = maps::socket(sk) else { return };
    if socket.scope != 0 || config.observe_unscoped != 0 {
        socket.flags = flags::OBSERVED | flags::INBOUND | flags::ESTABLISHED;
        socket.opened_ns = acting::now_ns();
        watch(ops);
        report::established(socket, &Pair::of(ops).ends());
    }
}

/// The application has accepted the daemon's dial: tell it the true client, and the daemon who
/// it was.
#[inline(always)]
fn served(dial: &mut Dial, sk: *mut c_void) {
    let Some(socket) = maps::socket_or_new(sk) else {
        return;
    };
    dial.owner = socket.owner;
    dial.scope = socket.scope;
    dial.accepted = 1;
    socket.peer = dial.peer;
    socket.peer_port = dial.peer_port;
    socket.flags = flags::TRUE_PEER | flags::INBOUND | flags::ESTABLISHED;
}

/// Listeners in no scope are nobody's concern: they are in no table, and none can fill it.
#[inline(always)]
fn listening(config: &Config, ops: *mut bpf_sock_ops, sk: *mut c_void) {
    let Some(socket) = maps::socket(sk) else {
        return;
    };
    if bypass::is_ours(socket) || socket.scope == 0 || socket.owner.netns != config.netns {
        return;
    }
    let pair = Pair::of(ops);
    watch(ops);
    // SAFETY: plain field of a socket that the verifier knows.
    let device = unsafe { (*sk.cast::<bpf_sock>()).bound_dev_if };
    let how = listeners::bound_to(device);
    if !listeners::enter(&listen_key(&pair, config.netns), socket, how) {
        // A strict listener without an entry is reached by nobody (backstop).
        report::denied(Counter::MapFull, Some(&socket.owner), socket.scope, &pair.ends());
    }
}

#[inline(always)]
fn listen_key(pair: &Pair, netns: u64) -> ListenKey {
    ListenKey { netns, ip: pair.local, port: pair.local_port, padding16: 0, padding: 0 }
}

/// A watched socket has changed its state.
#[inline(always)]
fn changed(config: &Config, ops: *mut bpf_sock_ops, sk: *mut c_void) {
    let Some(socket) = maps::socket(sk) else {
        return;
    };
    // SAFETY: plain context fields.
    let (from, to) = unsafe {
        let args = ptr::addr_of!((*ops).__bindgen_anon_1.args).cast::<u32>();
        (ptr::read_volatile(args), ptr::read_volatile(args.add(1)))
    };
    let pair = Pair::of(ops);
    if to == BPF_TCP_ESTABLISHED {
        socket.flags |= flags::ESTABLISHED;
        // Of an accepted one it has been said, before this callback.
        if socket.flags & (flags::OBSERVED | flags::INBOUND) == flags::OBSERVED {
            report::established(socket, &pair.ends());
        }
    }
    if to != BPF_TCP_CLOSE {
        return;
    }
    if socket.flags & flags::LISTENING != 0 && from == BPF_TCP_LISTEN {
        listeners::leave(&listen_key(&pair, config.netns));
        socket.flags &= !flags::LISTENING;
    } else if socket.flags & flags::LAST_MILE != 0 {
        let _gone = maps::DIALS.remove(&pair.as_client(config.netns));
    } else if socket.flags & flags::REDIRECTED != 0 {
        if from == BPF_TCP_SYN_SENT && !bypass::is_alive(config) {
            gave_up(socket);
        }
        forget(socket, &pair);
    } else if socket.flags & flags::OBSERVED != 0 {
        let (sent, received) = carried(ops, socket, from);
        report::observed(socket, &pair.ends(), sent, received);
        socket.flags &= !flags::OBSERVED;
    }
}

/// Bytes of the application. The kernel's counters also count SYN and FIN, one each, where they
/// were acknowledged or received (net/ipv4/tcp_input.c: tcp_snd_una_update, tcp_rcv_nxt_update).
#[inline(always)]
fn carried(ops: *mut bpf_sock_ops, socket: &Socket, from: u32) -> (u64, u64) {
    // SAFETY: plain context fields.
    let (acked, received) = unsafe { ((*ops).bytes_acked, (*ops).bytes_received) };
    let syn = u64::from(socket.flags & (flags::INBOUND | flags::ESTABLISHED) == flags::ESTABLISHED);
    let sent_fin = u64::from(from == BPF_TCP_FIN_WAIT2 || from == BPF_TCP_LAST_ACK);
    let got_fin = u64::from(
        from == BPF_TCP_CLOSE_WAIT || from == BPF_TCP_LAST_ACK || from == BPF_TCP_FIN_WAIT2,
    );
    (acked.saturating_sub(syn + sent_fin), received.saturating_sub(got_fin))
}

/// It was held, and no daemon came.
#[inline(always)]
fn gave_up(socket: &Socket) {
    let ends = Ends {
        local: [0; 4],
        remote: socket.dst,
        local_port: 0,
        remote_port: socket.dst_port,
        protocol: IPPROTO_TCP,
    };
    report::denied(Counter::DaemonAbsent, Some(&socket.owner), socket.scope, &ends);
}

#[inline(always)]
fn forget(socket: &Socket, pair: &Pair) {
    let key = pair.as_client(socket.owner.netns);
    let _gone = maps::FLOWS.remove(&key);
    if socket.flags & flags::CARRIED != 0 {
        let _gone = maps::TRUTHS.remove(&key);
    }
}
