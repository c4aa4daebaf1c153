//! cgroup connect4/6: records who wants to go where, and points the socket at the daemon.
//!
//! Decides by the scope of the *current thread*, so a socket that was made elsewhere and passed in
//! is caught too; and by the socket's own scope, so a strict socket that was passed out is refused.

use core::ptr;

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_setsockopt};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use ebpf_abi::{Config, Counter, Ip, Process, Socket, fail, flags, mode, slot};

use crate::report::{self, Ends};
use crate::{acting, address, bypass, maps, scope};

const ALLOW: i32 = 1;
const DENY: i32 = 0;
const SOCK_STREAM: u32 = 1;
const IPPROTO_TCP: u32 = 6;
const LOOPBACK_IFINDEX: u32 = 1;
const SOL_SOCKET: i32 = 1;
const SO_REUSEADDR: i32 = 2;

/// A connect() as both families have it. A program may only write what its own family has.
struct Call<const V6: bool> {
    ctx: *mut bpf_sock_addr,
    dst: Ip,
    port: u16,
}

impl<const V6: bool> Call<V6> {
    /// Before the connection has a local end.
    #[inline(always)]
    fn ends(&self) -> Ends {
        Ends {
            local: [0; 4],
            remote: self.dst,
            local_port: 0,
            remote_port: self.port,
            protocol: IPPROTO_TCP,
        }
    }
}

#[cgroup_sock_addr(connect4)]
pub fn tacit_connect4(ctx: SockAddrContext) -> i32 {
    let ctx = ctx.sock_addr;
    // SAFETY: plain context fields.
    let (ip, port) = unsafe { ((*ctx).user_ip4, (*ctx).user_port) };
    let dst = [0, 0, address::V4_MAPPED, ip];
    decide(&Call::<false> { ctx, dst, port: u16::from_be(port as u16) })
}

#[cgroup_sock_addr(connect6)]
pub fn tacit_connect6(ctx: SockAddrContext) -> i32 {
    let ctx = ctx.sock_addr;
    // SAFETY: plain context fields, read word by word as the verifier wants it.
    let (dst, port) =
        unsafe { (address::words(ptr::addr_of!((*ctx).user_ip6).cast()), (*ctx).user_port) };
    decide(&Call::<true> { ctx, dst, port: u16::from_be(port as u16) })
}

#[inline(always)]
fn decide<const V6: bool>(call: &Call<V6>) -> i32 {
    let Some(config) = maps::config() else {
        return ALLOW;
    };
    // SAFETY: plain context fields.
    let (kind, protocol) = unsafe { ((*call.ctx).type_, (*call.ctx).protocol) };
    if bypass::is_daemon(config) {
        return ALLOW;
    }
    // SAFETY: plain context field; the socket of a connect() is never null.
    let sk = unsafe { (*call.ctx).__bindgen_anon_1.sk };
    if kind != SOCK_STREAM || protocol != IPPROTO_TCP {
        return other_transport(config, sk);
    }
    let scope_id = scope::of_current(config);
    // SAFETY: the helper takes the context.
    let netns = unsafe { bpf_get_netns_cookie(call.ctx.cast()) };
    let reach = Reach { config, sk, scope_id, netns };
    let reason = match reach.judge(call) {
        Verdict::Redirect => match reach.redirect(call) {
            Ok(()) => return ALLOW,
            Err(reason) => reason,
        },
        Verdict::Observe => return reach.observe(call),
        Verdict::Deny(reason) => reason,
    };
    reach.deny(call, reason)
}

/// UDP: a socket that was made elsewhere and passed in is the strict scope's from its first packet.
#[cgroup_sock_addr(sendmsg4)]
pub fn tacit_sendmsg4(ctx: SockAddrContext) -> i32 {
    sending(ctx.sock_addr)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn tacit_sendmsg6(ctx: SockAddrContext) -> i32 {
    sending(ctx.sock_addr)
}

#[inline(always)]
fn sending(ctx: *mut bpf_sock_addr) -> i32 {
    let Some(config) = maps::config() else {
        return ALLOW;
    };
    if config.scope_levels == 0 || bypass::is_daemon(config) {
        return ALLOW;
    }
    // SAFETY: plain context field; the socket of a sendmsg() is never null.
    other_transport(config, unsafe { (*ctx).__bindgen_anon_1.sk })
}

/// Marks a socket of another transport as the strict scope's in which it is used. What it may send
/// is decided packet by packet, in `backstop.rs`.
#[inline(always)]
fn other_transport(config: &Config, sk: *mut bpf_sock) -> i32 {
    let scope_id = scope::of_current(config);
    if scope::mode_of(scope_id) != mode::STRICT {
        return ALLOW;
    }
    let Some(socket) = maps::socket_or_new(sk.cast()) else {
        maps::count(Counter::MapFull);
        return DENY;
    };
    socket.scope = scope_id;
    ALLOW
}

/// Lets the daemon dial from the address and port that the application bound, so that the peer sees
/// them: two sockets share a bound port if both allow it. Where that fails, the peer sees another
/// port.
#[inline(always)]
fn share_port<const V6: bool>(call: &Call<V6>) {
    let mut on = 1_i32;
    let value = ptr::from_mut(&mut on).cast();
    // SAFETY: the helper takes the context and a buffer of the given size.
    unsafe { bpf_setsockopt(call.ctx.cast(), SOL_SOCKET, SO_REUSEADDR, value, 4) };
}

#[inline(always)]
fn deny_if_strict(mode: u32, reason: Counter) -> Verdict {
    if mode == mode::STRICT { Verdict::Deny(reason) } else { Verdict::Observe }
}

/// What is done with a connect(). The code that does it stands once: the verifier walks through it
/// again for each place that it is reached from, and older kernels give up (6.1).
enum Verdict {
    /// To the daemon.
    Redirect,
    /// Left alone.
    Observe,
    /// EPERM.
    Deny(Counter),
}

/// One connect() and where it stands.
struct Reach<'a> {
    config: &'a Config,
    sk: *mut bpf_sock,
    scope_id: u32,
    netns: u64,
}

impl Reach<'_> {
    #[inline(always)]
    fn judge<const V6: bool>(&self, call: &Call<V6>) -> Verdict {
        let own_scope = maps::socket(self.sk.cast()).map_or(0, |socket| socket.scope);
        // In another namespace the same ports are somebody else's.
        if self.netns == self.config.netns
            && (bypass::is_outbound(self.config, &call.dst, call.port)
                || bypass::is_inbound(self.config, &call.dst, call.port))
        {
            return Verdict::Deny(Counter::ProxyDialled);
        }
        let mode = scope::mode_of(self.scope_id);
        if mode != mode::STRICT && scope::mode_of(own_scope) == mode::STRICT {
            return Verdict::Deny(Counter::ForeignSocket);
        }
        if mode == mode::OBSERVE {
            return Verdict::Observe;
        }
        self.judge_captured(call, mode)
    }

    #[inline(always)]
    fn judge_captured<const V6: bool>(&self, call: &Call<V6>, mode: u32) -> Verdict {
        let Some(scope) = maps::scope(self.scope_id) else {
            return Verdict::Deny(Counter::MapFull);
        };
        if mode != mode::STRICT && !scope::captures_outbound(scope, call.port) {
            return Verdict::Observe;
        }
        if self.netns != self.config.netns {
            // There is no listener of ours in that namespace: nowhere to send it.
            return deny_if_strict(mode, Counter::ForeignNetns);
        }
        if acting::borrows(&self.config.offsets) {
            return deny_if_strict(mode, Counter::BorrowedCredentials);
        }
        if address::is_link_local(&call.dst) {
            // The interface is in sin6_scope_id, which no hook is shown.
            return deny_if_strict(mode, Counter::LinkLocal);
        }
        let alive = bypass::is_alive(self.config);
        if scope.fail == fail::OPEN {
            // Never held up by a daemon that is gone, however lately.
            let slot = if address::is_v4(&call.dst) { slot::OUTBOUND4 } else { slot::OUTBOUND6 };
            if alive && maps::listens(slot) {
                return Verdict::Redirect;
            }
            maps::count(Counter::FailedOpen);
            return Verdict::Observe;
        }
        // Within the time in which the daemon counts as alive, whoever finds it gone is held: the
        // SYN is dropped and comes again (backstop.rs).
        if alive { Verdict::Redirect } else { Verdict::Deny(Counter::DaemonAbsent) }
    }

    /// Writes the record and points the socket at the outbound listener of its family.
    #[inline(always)]
    fn redirect<const V6: bool>(&self, call: &Call<V6>) -> Result<(), Counter> {
        let Some(socket) = maps::socket_or_new(self.sk.cast()) else {
            return Err(Counter::MapFull);
        };
        acting::record(&mut socket.owner, &self.config.offsets, self.netns);
        socket.opened_ns = socket.owner.seen_ns;
        socket.scope = self.scope_id;
        socket.dst = call.dst;
        if address::is_unspecified(&call.dst) {
            // connect() takes 0.0.0.0 and :: as loopback, and says so in getpeername().
            socket.dst[3] =
                if address::is_v4(&call.dst) { address::LOOPBACK4 } else { address::ONE };
        }
        socket.dst_port = call.port;
        socket.flags = socket.flags & flags::CREATED | flags::REDIRECTED;
        if scope::mode_of(self.scope_id) == mode::STRICT {
            socket.flags |= flags::STRICT;
        }
        self.remember_source(socket);
        if socket.flags & flags::SOURCE_BOUND != 0 {
            share_port(call);
        }
        let Some(to) = self.way_to_daemon(call, socket) else {
            return Err(Counter::BoundDevice);
        };
        let v4 = address::is_v4(&call.dst);
        let port = if v4 { self.config.outbound4 } else { self.config.outbound6 };
        // SAFETY: plain context fields, written as the hook may.
        unsafe {
            (*call.ctx).user_port = u32::from(port.to_be());
            if V6 {
                address::write6(call.ctx, &to);
            } else {
                (*call.ctx).user_ip4 = to[3];
            }
        }
        maps::count(Counter::Redirected);
        Ok(())
    }

    /// What getsockname() is to say: the address that the application bound, or the one that
    /// routing would have chosen.
    #[inline(always)]
    fn remember_source(&self, socket: &mut Socket) {
        // SAFETY: plain fields of the socket, word by word.
        let bound = unsafe {
            if (*self.sk).family == AF_INET {
                [0, 0, address::V4_MAPPED, (*self.sk).src_ip4]
            } else {
                address::words(ptr::addr_of!((*self.sk).src_ip6).cast())
            }
        };
        if !address::is_unspecified(&bound) {
            socket.src = bound;
            socket.flags |= flags::SOURCE_BOUND | flags::SOURCE_KNOWN;
        } else if let Some(source) = maps::source_for(&socket.dst) {
            socket.src = *source;
            socket.flags |= flags::SOURCE_KNOWN;
        } else {
            socket.src = [0; 4];
        }
    }

    /// Where the daemon can be reached from this socket: on loopback; or, from one that is bound to
    /// a device, at the host's own address there, which is local without leaving the host. Which
    /// address is dialled matters little: `lookup.rs` finds the daemon by the record.
    #[inline(always)]
    fn way_to_daemon<const V6: bool>(&self, call: &Call<V6>, socket: &mut Socket) -> Option<Ip> {
        // SAFETY: plain field of the socket.
        socket.bound_ifindex = unsafe { (*self.sk).bound_dev_if };
        if socket.bound_ifindex > LOOPBACK_IFINDEX {
            let known = socket.flags & flags::SOURCE_KNOWN != 0;
            return if known { Some(socket.src) } else { None };
        }
        Some(if address::is_v4(&call.dst) {
            [0, 0, address::V4_MAPPED, address::LOOPBACK4]
        } else {
            [0, 0, 0, address::ONE]
        })
    }

    /// Leaves the connection alone, but remembers who made it.
    #[inline(always)]
    fn observe<const V6: bool>(&self, call: &Call<V6>) -> i32 {
        if self.scope_id == 0 && self.config.observe_unscoped == 0 {
            if let Some(socket) = maps::socket(self.sk.cast()) {
                // What an earlier connection of this socket was is no longer true.
                socket.flags &= flags::CREATED;
            }
            return ALLOW;
        }
        // Without memory the connection goes on unrecorded: observing must not break anything.
        let Some(socket) = maps::socket_or_new(self.sk.cast()) else {
            maps::count(Counter::EventsLost);
            return ALLOW;
        };
        acting::record(&mut socket.owner, &self.config.offsets, self.netns);
        socket.opened_ns = socket.owner.seen_ns;
        socket.scope = self.scope_id;
        socket.flags = socket.flags & flags::CREATED | flags::OBSERVED;
        report::opening(socket, &call.ends());
        maps::count(Counter::Observed);
        ALLOW
    }

    /// EPERM from connect().
    #[inline(always)]
    fn deny<const V6: bool>(&self, call: &Call<V6>, reason: Counter) -> i32 {
        let mut process = Process::default();
        acting::record(&mut process, &self.config.offsets, self.netns);
        report::denied(reason, Some(&process), self.scope_id, &call.ends());
        DENY
    }
}

const AF_INET: u32 = 2;
