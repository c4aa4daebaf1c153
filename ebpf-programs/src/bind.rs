//! cgroup sock_create and post_bind4/6: whose socket is this, before anything happens on it.
//!
//! A socket made in a scope carries the scope from its birth, so it stays marked wherever it is
//! passed. Who binds takes over as owner: that is who will listen.

use core::ffi::c_void;

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;
use ebpf_abi::{Config, Counter, flags, mode};

use crate::{acting, bypass, maps, scope};

const ALLOW: i32 = 1;
const DENY: i32 = 0;
const SOCK_STREAM: u32 = 1;

#[cgroup_sock(sock_create)]
pub fn tacit_sock_create(ctx: SockContext) -> i32 {
    let Some(config) = maps::config() else {
        return ALLOW;
    };
    if bypass::is_daemon(config) {
        bypass::claim(ctx.sock.cast());
        return ALLOW;
    }
    let scope_id = scope::of_current(config);
    if scope_id != 0 {
        own(config, ctx.sock, scope_id);
    }
    ALLOW
}

#[cgroup_sock(post_bind4)]
pub fn tacit_post_bind4(ctx: SockContext) -> i32 {
    bound(ctx.sock)
}

#[cgroup_sock(post_bind6)]
pub fn tacit_post_bind6(ctx: SockContext) -> i32 {
    bound(ctx.sock)
}

#[inline(always)]
fn bound(sk: *mut bpf_sock) -> i32 {
    let Some(config) = maps::config() else {
        return ALLOW;
    };
    // SAFETY: plain context field.
    if unsafe { (*sk).type_ } != SOCK_STREAM || bypass::is_daemon(config) {
        return ALLOW;
    }
    let scope_id = scope::of_current(config);
    if scope_id != 0 && scope::mode_of(scope_id) != mode::OBSERVE && acting::borrows(&config.offsets)
    {
        // EPERM from bind(): a listener is who bound it.
        maps::count(Counter::BorrowedCredentials);
        return DENY;
    }
    own(config, sk, scope_id);
    ALLOW
}

/// Writes the current thread down as the owner of the socket.
#[inline(always)]
fn own(config: &Config, sk: *mut bpf_sock, scope_id: u32) {
    let Some(socket) = maps::socket_or_new(sk.cast::<c_void>()) else {
        // A strict socket without a record is still known by its cgroup, and reached by nobody.
        maps::count(Counter::MapFull);
        return;
    };
    // SAFETY: the helper takes the context.
    let netns = unsafe { bpf_get_netns_cookie(sk.cast()) };
    acting::record(&mut socket.owner, &config.offsets, netns);
    // A strict socket that was passed out and is bound elsewhere stays strict.
    if scope::mode_of(socket.scope) != mode::STRICT || scope::mode_of(scope_id) == mode::STRICT {
        socket.scope = scope_id;
    }
    socket.flags |= flags::CREATED;
}
