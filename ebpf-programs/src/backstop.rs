//! cgroup_skb, both ways: nothing of a strict scope passes but through the daemon.
//!
//! A redirected address does not redirect the route: a socket's own options can still carry a
//! packet elsewhere. So whatever a strict socket sends on an interface other than loopback is
//! dropped here, and whatever reaches a strict listener without being the daemon's own dial. On
//! loopback a packet must name no further hops: the host would send it on as nobody's.
//! Strictness is the socket's (its storage) or that of the cgroup in which it was made.

use core::ffi::c_void;

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::{
    bpf_get_socket_uid, bpf_sk_ancestor_cgroup_id, bpf_sk_fullsock, bpf_skb_load_bytes,
};
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use ebpf_abi::{ANY_USER, Config, Counter, Ip, Process, Tuple, flags, mode, other, slot};

use crate::report::{self, Ends};
use crate::{address, bypass, maps, scope};

const PASS: i32 = 1;
const DROP: i32 = 0;
const LOOPBACK_IFINDEX: u32 = 1;
const TCP_SYN_SENT: u32 = 2;
const TCP_LISTEN: u32 = 10;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const DNS: u16 = 53;
/// `ETH_P_IPV6` as the context has it.
const IPV6: u32 = 0x86dd_u16.to_be() as u32;
/// IPv6 extension headers that are a routing header or may stand before one (RFC 8200, 4.1):
/// hop-by-hop options, routing, destination options.
const ROUTING: [u8; 3] = [0, 43, 60];
/// Those that may stand before a transport and are none (IANA, "IPv6 Extension Header Types"): also
/// fragment, authentication, mobility, host identity and shim6.
const EXTENSIONS: [u32; 8] = [0, 43, 44, 51, 60, 135, 139, 140];
const AF_INET: u32 = 2;

#[cgroup_skb(egress)]
pub fn tacit_egress(ctx: SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: plain context field.
    if unsafe { (*skb).ifindex } == LOOPBACK_IFINDEX && !names_further_hops(skb) {
        return if is_held(skb) { DROP } else { PASS };
    }
    let Some(config) = maps::config() else {
        return PASS;
    };
    if config.scope_levels == 0 {
        return PASS;
    }
    let Some(sk) = full_socket(skb) else {
        return PASS;
    };
    let Some(scope_id) = strict_scope(config, skb, sk) else {
        return PASS;
    };
    let header = Header::of(skb);
    // By the socket too: extension headers hide from the packet that it is TCP.
    // SAFETY: plain field of a full socket.
    let of_tcp_socket = unsafe { (*sk).protocol } == IPPROTO_TCP;
    let tcp = header.protocol == IPPROTO_TCP || of_tcp_socket;
    if !tcp && allows(scope_id, &header) {
        return PASS;
    }
    let reason = if tcp { Counter::Backstop } else { Counter::Transport };
    let (ends, known) = if of_tcp_socket {
        (ends_of(sk), flags::OF_TCP_SOCKET)
    } else {
        (header.ends(true), 0)
    };
    let owner = maps::socket(sk.cast()).map(|socket| &socket.owner as &Process);
    report::denied_packet(reason, owner, scope_id, &ends, known);
    DROP
}

#[cgroup_skb(ingress)]
pub fn tacit_ingress(ctx: SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    let Some(config) = maps::config() else {
        return PASS;
    };
    if config.scope_levels == 0 {
        return PASS;
    }
    let Some(sk) = full_socket(skb) else {
        return PASS;
    };
    // SAFETY: plain field of a full socket.
    if unsafe { (*sk).state } != TCP_LISTEN {
        return PASS;
    }
    let Some(scope_id) = strict_scope(config, skb, sk) else {
        return PASS;
    };
    let header = Header::of(skb);
    // In another namespace the same addresses and ports are no dial of ours.
    let here = maps::socket(sk.cast()).is_some_and(|socket| socket.owner.netns == config.netns);
    if here
        && header.protocol == IPPROTO_TCP
        && maps::DIALS.get_ptr(&header.tuple(config.netns)).is_some()
    {
        return PASS;
    }
    let ends = header.ends(false);
    match maps::socket(sk.cast()) {
        Some(socket) => {
            report::denied(Counter::StrictListener, Some(&socket.owner), scope_id, &ends);
        }
        None => report::denied(Counter::StrictListener, None, scope_id, &ends),
    }
    DROP
}

/// A SYN to a daemon that has just gone: dropped, so that it comes again. Otherwise it would be
/// answered by a reset. Once the daemon no longer counts as alive, that is the right answer.
#[inline(always)]
fn is_held(skb: *mut __sk_buff) -> bool {
    let Some(sk) = full_socket(skb) else {
        return false;
    };
    // SAFETY: plain field of a full socket.
    if unsafe { (*sk).state } != TCP_SYN_SENT {
        return false;
    }
    let (Some(socket), Some(config)) = (maps::socket(sk.cast()), maps::config()) else {
        return false;
    };
    if socket.flags & flags::REDIRECTED == 0 || !bypass::is_alive(config) {
        return false;
    }
    let slot = if address::is_v4(&socket.dst) { slot::OUTBOUND4 } else { slot::OUTBOUND6 };
    !maps::listens(slot)
}

#[inline(always)]
fn full_socket(skb: *mut __sk_buff) -> Option<*mut bpf_sock> {
    // SAFETY: plain context field; null is checked before the helper sees it.
    unsafe {
        let sk = (*skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return None;
        }
        let full = bpf_sk_fullsock(sk);
        if full.is_null() { None } else { Some(full) }
    }
}

/// The strict scope of the socket, by its own record or by the cgroup in which it was made.
/// None: not strict, or the daemon's own.
#[inline(always)]
fn strict_scope(config: &Config, skb: *mut __sk_buff, sk: *mut bpf_sock) -> Option<u32> {
    // What the record says may be older than the scopes: the cgroup is asked too, for its users.
    let mut users = (ANY_USER, ANY_USER);
    if let Some(socket) = maps::socket(sk.cast::<c_void>()) {
        if bypass::is_ours(socket) {
            return None;
        }
        if scope::mode_of(socket.scope) == mode::STRICT {
            return Some(socket.scope);
        }
        if socket.owner.seen_ns != 0 {
            users = (socket.owner.real_uid, socket.owner.uid);
        }
    }
    if users.0 == ANY_USER {
        // Older than the programs, or made in no scope: the kernel knows whose socket it is.
        // SAFETY: the helper takes the context.
        let uid = unsafe { bpf_get_socket_uid(skb) };
        users = (uid, uid);
    }
    // SAFETY: the helper takes a full socket and a plain number.
    let by_cgroup = scope::of_cgroups(config, users, |level| unsafe {
        bpf_sk_ancestor_cgroup_id(sk.cast::<c_void>(), level)
    });
    if scope::mode_of(by_cgroup) == mode::STRICT { Some(by_cgroup) } else { None }
}

/// Whether a packet on loopback may be meant for elsewhere: by a routing header, which any user can
/// ask for, or by IPv4 options, of which the source route is one.
#[inline(always)]
fn names_further_hops(skb: *mut __sk_buff) -> bool {
    // SAFETY: plain context field.
    if unsafe { (*skb).protocol } == IPV6 {
        let next = load::<u8>(skb, 6).unwrap_or(ROUTING[0]);
        return next == ROUTING[0] || next == ROUTING[1] || next == ROUTING[2];
    }
    load::<u8>(skb, 0).unwrap_or(0) != 0x45
}

#[inline(always)]
fn allows(scope_id: u32, header: &Header) -> bool {
    match maps::scope(scope_id) {
        Some(scope) if scope.other == other::ALLOW => !header.hides_its_transport(),
        Some(scope) if scope.other == other::DNS_ONLY => {
            header.protocol == IPPROTO_UDP && header.dst_port == DNS
        }
        _ => false,
    }
}

/// The ends of a TCP socket. A packet of it may name others: the next hop of a routing header, or
/// bytes of an extension header where ports would be.
#[inline(always)]
fn ends_of(sk: *mut bpf_sock) -> Ends {
    // SAFETY: plain fields of a full socket, word by word; src_port is in host order, dst_port in
    // network order.
    unsafe {
        let (local, remote) = if (*sk).family == AF_INET {
            let local = [0, 0, address::V4_MAPPED, (*sk).src_ip4];
            (local, [0, 0, address::V4_MAPPED, (*sk).dst_ip4])
        } else {
            (
                address::words(core::ptr::addr_of!((*sk).src_ip6).cast()),
                address::words(core::ptr::addr_of!((*sk).dst_ip6).cast()),
            )
        };
        let (local_port, remote_port) = ((*sk).src_port as u16, u16::from_be((*sk).dst_port));
        Ends { local, remote, local_port, remote_port, protocol: IPPROTO_TCP }
    }
}

/// What of a packet decides. A packet that cannot be read has protocol 0 and matches nothing.
struct Header {
    src: Ip,
    dst: Ip,
    protocol: u32,
    src_port: u16,
    dst_port: u16,
}

impl Header {
    #[inline(always)]
    fn of(skb: *mut __sk_buff) -> Self {
        let mut header = Self { src: [0; 4], dst: [0; 4], protocol: 0, src_port: 0, dst_port: 0 };
        let Some(first) = load::<u8>(skb, 0) else {
            return header;
        };
        let transport = if first >> 4 == 4 {
            header.protocol = u32::from(load::<u8>(skb, 9).unwrap_or(0));
            header.src = [0, 0, address::V4_MAPPED, load(skb, 12).unwrap_or(0)];
            header.dst = [0, 0, address::V4_MAPPED, load(skb, 16).unwrap_or(0)];
            u32::from(first & 15) * 4
        } else {
            // Extension headers are not followed: such a packet matches no exemption.
            header.protocol = u32::from(load::<u8>(skb, 6).unwrap_or(0));
            header.src = load(skb, 8).unwrap_or([0; 4]);
            header.dst = load(skb, 24).unwrap_or([0; 4]);
            40
        };
        header.src_port = u16::from_be(load(skb, transport).unwrap_or(0));
        header.dst_port = u16::from_be(load(skb, transport + 2).unwrap_or(0));
        header
    }

    /// Whether another header than a transport's comes first: behind it may be TCP.
    #[inline(always)]
    fn hides_its_transport(&self) -> bool {
        EXTENSIONS.iter().any(|extension| self.protocol == *extension)
    }

    /// The connection of an incoming packet, seen from its client.
    #[inline(always)]
    fn tuple(&self, netns: u64) -> Tuple {
        Tuple {
            netns,
            client: self.src,
            server: self.dst,
            client_port: self.src_port,
            server_port: self.dst_port,
            padding: 0,
        }
    }

    #[inline(always)]
    fn ends(&self, outgoing: bool) -> Ends {
        let (local, remote, local_port, remote_port) = if outgoing {
            (self.src, self.dst, self.src_port, self.dst_port)
        } else {
            (self.dst, self.src, self.dst_port, self.src_port)
        };
        Ends { local, remote, local_port, remote_port, protocol: self.protocol }
    }
}

/// A value at `offset` from the start of the IP header.
#[inline(always)]
fn load<T: Copy + Default>(skb: *mut __sk_buff, offset: u32) -> Option<T> {
    let mut value = T::default();
    let to = core::ptr::from_mut(&mut value).cast();
    // SAFETY: the helper checks the bounds of the packet; T is of the size given.
    let failed = unsafe { bpf_skb_load_bytes(skb.cast(), offset, to, size_of::<T>() as u32) };
    if failed == 0 { Some(value) } else { None }
}
