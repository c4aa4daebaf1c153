//! Sockets that a scope did not make: inherited, passed in, or opened by a service manager (socket
//! activation). No hook sees who reads and writes, so such a socket becomes the scope's with the
//! first call on it that a hook does see: an accept() that asks for the address, getsockname(),
//! getpeername(), and socket options. What is seen by none is found by the daemon's look.

use core::ptr;

use aya_ebpf::bindings::bpf_sock;
use ebpf_abi::{Config, Counter, ListenKey, flags, listener_flags, mode};

use crate::report::{self, Ends};
use crate::{acting, address, bypass, listeners, maps, scope};

const AF_INET: u32 = 2;
const SOCK_STREAM: u32 = 1;
const IPPROTO_TCP: u32 = 6;
const TCP_LISTEN: u32 = 10;
/// What the daemon has a part in is the scope's business already.
const CARRIED_BY_DAEMON: u32 =
    flags::OURS | flags::REDIRECTED | flags::LAST_MILE | flags::TRUE_PEER | flags::LISTENING;

/// Takes the socket into the scope of the current thread, if it is in none or only the thread is
/// strict. `netns` is the socket's; a null socket is nobody's.
#[inline(always)]
pub fn adopt(config: &Config, sk: *mut bpf_sock, netns: impl FnOnce() -> u64) {
    // SAFETY: plain fields of a socket that the verifier knows.
    let (kind, protocol) = unsafe { ((*sk).type_, (*sk).protocol) };
    if config.scope_levels == 0 || kind != SOCK_STREAM || protocol != IPPROTO_TCP {
        return;
    }
    let own = match maps::socket(sk.cast()) {
        Some(socket) if socket.flags & CARRIED_BY_DAEMON != 0 => return,
        Some(socket) => socket.scope,
        None => 0,
    };
    if scope::mode_of(own) == mode::STRICT {
        return;
    }
    let scope_id = scope::of_current(config);
    if scope_id == 0 || own != 0 && scope::mode_of(scope_id) != mode::STRICT {
        return;
    }
    if bypass::is_daemon(config) {
        return;
    }
    let Some(socket) = maps::socket_or_new(sk.cast()) else {
        maps::count(Counter::MapFull);
        return;
    };
    acting::record(&mut socket.owner, &config.offsets, netns());
    socket.scope = scope_id;
    // SAFETY: plain field of a socket that the verifier knows.
    if unsafe { (*sk).state } != TCP_LISTEN || socket.owner.netns != config.netns {
        return;
    }
    let key = key_of(sk, socket.owner.netns);
    // SAFETY: as above.
    let how = listener_flags::UNWATCHED | listeners::bound_to(unsafe { (*sk).bound_dev_if });
    if !listeners::enter(&key, socket, how) {
        let ends = Ends {
            local: key.ip,
            remote: [0; 4],
            local_port: key.port,
            remote_port: 0,
            protocol: IPPROTO_TCP,
        };
        report::denied(Counter::MapFull, Some(&socket.owner), scope_id, &ends);
    }
}

#[inline(always)]
fn key_of(sk: *mut bpf_sock, netns: u64) -> ListenKey {
    // SAFETY: plain fields, word by word; src_port is in host order.
    unsafe {
        let ip = if (*sk).family == AF_INET {
            [0, 0, address::V4_MAPPED, (*sk).src_ip4]
        } else {
            address::words(ptr::addr_of!((*sk).src_ip6).cast())
        };
        ListenKey { netns, ip, port: (*sk).src_port as u16, padding16: 0, padding: 0 }
    }
}
