//! cgroup getpeername4/6 and getsockname4/6: the application sees the truth. A client sees the
//! address that it asked for and its own; a server (in accept() too) sees the true client.

use core::ptr;

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use ebpf_abi::{Ip, Socket, Tuple, flags};

use crate::{address, bypass, maps, used};

const ALLOW: i32 = 1;
const AF_INET: u32 = 2;

#[cgroup_sock_addr(getpeername4)]
pub fn tacit_getpeername4(ctx: SockAddrContext) -> i32 {
    peer::<false>(ctx.sock_addr)
}

#[cgroup_sock_addr(getpeername6)]
pub fn tacit_getpeername6(ctx: SockAddrContext) -> i32 {
    peer::<true>(ctx.sock_addr)
}

#[cgroup_sock_addr(getsockname4)]
pub fn tacit_getsockname4(ctx: SockAddrContext) -> i32 {
    local::<false>(ctx.sock_addr)
}

#[cgroup_sock_addr(getsockname6)]
pub fn tacit_getsockname6(ctx: SockAddrContext) -> i32 {
    local::<true>(ctx.sock_addr)
}

#[inline(always)]
fn peer<const V6: bool>(ctx: *mut bpf_sock_addr) -> i32 {
    // SAFETY: plain context field.
    let sk = unsafe { (*ctx).__bindgen_anon_1.sk };
    if let Some(config) = maps::config() {
        // SAFETY: the helper takes the context.
        used::adopt(config, sk, || unsafe { bpf_get_netns_cookie(ctx.cast()) });
    }
    let own = maps::socket(sk.cast());
    if let Some(socket) = own {
        if is_redirected_client(socket) {
            show::<V6>(ctx, &socket.dst, Some(socket.dst_port));
            return ALLOW;
        }
        if socket.flags & flags::TRUE_PEER != 0 {
            show::<V6>(ctx, &socket.peer, Some(socket.peer_port));
            return ALLOW;
        }
    }
    if let Some(truth) = carried(ctx, sk) {
        show::<V6>(ctx, &truth.dst, Some(truth.dst_port));
    }
    ALLOW
}

#[inline(always)]
fn local<const V6: bool>(ctx: *mut bpf_sock_addr) -> i32 {
    // SAFETY: plain context field.
    let sk = unsafe { (*ctx).__bindgen_anon_1.sk };
    if let Some(config) = maps::config() {
        // SAFETY: the helper takes the context.
        used::adopt(config, sk, || unsafe { bpf_get_netns_cookie(ctx.cast()) });
    }
    let own = maps::socket(sk.cast());
    if let Some(socket) = own {
        if is_redirected_client(socket) {
            if socket.flags & flags::SOURCE_KNOWN != 0 {
                show::<V6>(ctx, &socket.src, None);
            }
            return ALLOW;
        }
    }
    if let Some(truth) = carried(ctx, sk) {
        if truth.flags & flags::SOURCE_KNOWN != 0 {
            show::<V6>(ctx, &truth.src, None);
        }
    }
    ALLOW
}

/// Whether this is the application's end of a redirected connection, not the daemon's.
#[inline(always)]
fn is_redirected_client(socket: &Socket) -> bool {
    socket.flags & (flags::REDIRECTED | flags::INBOUND) == flags::REDIRECTED
}

/// The record of the subflow under an MPTCP socket whose other end is the daemon.
#[inline(always)]
fn carried<'a>(ctx: *mut bpf_sock_addr, sk: *mut bpf_sock) -> Option<&'a Socket> {
    let config = maps::config()?;
    let tuple = tuple_of(ctx, sk);
    if !bypass::is_outbound_port(config, &tuple.server, tuple.server_port) {
        return None;
    }
    // SAFETY: a value of the map, valid while the program runs.
    maps::TRUTHS.get_ptr(&tuple).map(|truth| unsafe { &*truth })
}

#[inline(always)]
fn tuple_of(ctx: *mut bpf_sock_addr, sk: *mut bpf_sock) -> Tuple {
    // SAFETY: plain fields, word by word; src_port is in host order, dst_port in network order.
    unsafe {
        let (client, server) = if (*sk).family == AF_INET {
            let client = [0, 0, address::V4_MAPPED, (*sk).src_ip4];
            (client, [0, 0, address::V4_MAPPED, (*sk).dst_ip4])
        } else {
            (
                address::words(ptr::addr_of!((*sk).src_ip6).cast()),
                address::words(ptr::addr_of!((*sk).dst_ip6).cast()),
            )
        };
        Tuple {
            netns: bpf_get_netns_cookie(ctx.cast()),
            client,
            server,
            client_port: (*sk).src_port as u16,
            server_port: u16::from_be(ptr::read_volatile(ptr::addr_of!((*sk).dst_port))),
            padding: 0,
        }
    }
}

/// Puts an address where the caller of the system call will read it.
#[inline(always)]
fn show<const V6: bool>(ctx: *mut bpf_sock_addr, ip: &Ip, port: Option<u16>) {
    // SAFETY: plain context fields that these hooks may write.
    unsafe {
        if V6 {
            address::write6(ctx, ip);
        } else {
            (*ctx).user_ip4 = ip[3];
        }
        if let Some(port) = port {
            (*ctx).user_port = u32::from(port.to_be());
        }
    }
}
