//! cgroup getsockopt: answers SO_ORIGINAL_DST, which programs made for netfilter redirection ask.
//! All other options pass untouched.

use core::ptr;

use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::macros::cgroup_sockopt;
use aya_ebpf::programs::SockoptContext;
use ebpf_abi::{Ip, flags};

use crate::{address, maps, used};

const ALLOW: i32 = 1;
const SOL_IP: i32 = 0;
const SOL_IPV6: i32 = 41;
const SO_ORIGINAL_DST: i32 = 80;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const SOCKADDR_IN: usize = 16;
const SOCKADDR_IN6: usize = 28;

#[cgroup_sockopt(getsockopt)]
pub fn tacit_original_dst(ctx: SockoptContext) -> i32 {
    let opt = ctx.sockopt;
    // SAFETY: plain context fields.
    let (level, name) = unsafe { ((*opt).level, (*opt).optname) };
    // SAFETY: plain context field.
    let sk = unsafe { (*opt).__bindgen_anon_1.sk };
    if sk.is_null() {
        return ALLOW;
    }
    if let Some(config) = maps::config() {
        // SAFETY: the helper takes the context.
        used::adopt(config, sk, || unsafe { bpf_get_netns_cookie(opt.cast()) });
    }
    if name != SO_ORIGINAL_DST || level != SOL_IP && level != SOL_IPV6 {
        return ALLOW;
    }
    let Some(socket) = maps::socket(sk.cast()) else {
        return ALLOW;
    };
    let (ip, port) = if socket.flags & flags::REDIRECTED != 0 {
        (socket.dst, socket.dst_port)
    } else if socket.flags & flags::TRUE_PEER != 0 {
        // SAFETY: plain fields of the socket, word by word; src_port is in host order.
        unsafe {
            let ip = if (*sk).family == u32::from(AF_INET) {
                [0, 0, address::V4_MAPPED, (*sk).src_ip4]
            } else {
                address::words(ptr::addr_of!((*sk).src_ip6).cast())
            };
            (ip, (*sk).src_port as u16)
        }
    } else {
        return ALLOW;
    };
    answer(&ctx, level, &ip, port);
    ALLOW
}

/// Writes a sockaddr_in or sockaddr_in6 where the caller reads it.
#[inline(always)]
fn answer(ctx: &SockoptContext, level: i32, ip: &Ip, port: u16) {
    let opt = ctx.sockopt;
    // SAFETY: bounds are checked against optval_end, as the verifier demands.
    unsafe {
        let start = (*opt).__bindgen_anon_2.optval as usize;
        let end = (*opt).__bindgen_anon_3.optval_end as usize;
        if level == SOL_IP {
            if !address::is_v4(ip) || start + SOCKADDR_IN > end {
                return;
            }
            let to = start as *mut u16;
            *to = AF_INET;
            *to.add(1) = port.to_be();
            let to = start as *mut u32;
            *to.add(1) = ip[3];
            *to.add(2) = 0;
            *to.add(3) = 0;
            (*opt).optlen = SOCKADDR_IN as i32;
        } else {
            if start + SOCKADDR_IN6 > end {
                return;
            }
            let to = start as *mut u16;
            *to = AF_INET6;
            *to.add(1) = port.to_be();
            let to = start as *mut u32;
            *to.add(1) = 0;
            *to.add(2) = ip[0];
            *to.add(3) = ip[1];
            *to.add(4) = ip[2];
            *to.add(5) = ip[3];
            *to.add(6) = 0;
            (*opt).optlen = SOCKADDR_IN6 as i32;
        }
        (*opt).retval = 0;
    }
}
