//! Addresses as the programs hold them: four words in network order, IPv4 as `::ffff:a.b.c.d`.

use core::ptr;

use aya_ebpf::bindings::bpf_sock_addr;
use ebpf_abi::Ip;

/// `::ffff:a.b.c.d`, its second to last word, in memory order.
pub const V4_MAPPED: u32 = 0x0000_ffff_u32.to_be();
/// 127.0.0.1 in memory order.
pub const LOOPBACK4: u32 = 0x7f00_0001_u32.to_be();
/// The last word of ::1 in memory order.
pub const ONE: u32 = 1_u32.to_be();

/// Whether this is an IPv4 address in its mapped form.
#[inline(always)]
pub fn is_v4(ip: &Ip) -> bool {
    ip[0] == 0 && ip[1] == 0 && ip[2] == V4_MAPPED
}

/// Whether this is 127.0.0.0/8 or ::1.
#[inline(always)]
pub fn is_loopback(ip: &Ip) -> bool {
    if is_v4(ip) {
        return u32::from_be(ip[3]) >> 24 == 127;
    }
    ip[0] == 0 && ip[1] == 0 && ip[2] == 0 && ip[3] == ONE
}

/// Whether this is 0.0.0.0 or ::, which connect() takes as loopback.
#[inline(always)]
pub fn is_unspecified(ip: &Ip) -> bool {
    ip[3] == 0 && ip[0] == 0 && ip[1] == 0 && (ip[2] == 0 || ip[2] == V4_MAPPED)
}

/// fe80::/10
#[inline(always)]
pub fn is_link_local(ip: &Ip) -> bool {
    u32::from_be(ip[0]) >> 22 == 0xfe80 >> 6
}

/// Four words of a context, one load each: the verifier takes no wider ones.
///
/// # Safety
/// `from` points at four words of a context or of a socket that the verifier knows.
#[inline(always)]
pub unsafe fn words(from: *const u32) -> Ip {
    // SAFETY: the caller's promise.
    unsafe {
        [
            ptr::read_volatile(from),
            ptr::read_volatile(from.add(1)),
            ptr::read_volatile(from.add(2)),
            ptr::read_volatile(from.add(3)),
        ]
    }
}

/// Writes the IPv6 address of a call, one store a word.
///
/// # Safety
/// `ctx` is the context of a hook for IPv6 that may write it.
#[inline(always)]
pub unsafe fn write6(ctx: *mut bpf_sock_addr, ip: &Ip) {
    // SAFETY: the caller's promise.
    unsafe {
        let to = ptr::addr_of_mut!((*ctx).user_ip6).cast::<u32>();
        ptr::write_volatile(to, ip[0]);
        ptr::write_volatile(to.add(1), ip[1]);
        ptr::write_volatile(to.add(2), ip[2]);
        ptr::write_volatile(to.add(3), ip[3]);
    }
}
