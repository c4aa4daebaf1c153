//! Is this ours? The loop guard, asked first by every hook.
//!
//! The daemon is known by a cgroup that holds it alone and by its thread group; its sockets carry a
//! flag that only the programs and the daemon can set. Never by uid, name, port or packet mark:
//! what an attacker can choose is no exemption.

use core::ffi::c_void;

use ebpf_abi::{Config, Ip, Socket, flags};

use crate::{acting, address, maps};

/// Whether the current thread is the daemon's, or one's that drains.
#[inline(always)]
pub fn is_daemon(config: &Config) -> bool {
    let tgid = acting::tgid();
    config.daemons.iter().any(|daemon| tgid == *daemon) && acting::cgroup() == config.daemon_cgroup
}

/// Whether the socket carries the daemon's flag.
#[inline(always)]
pub fn is_ours(socket: &Socket) -> bool {
    socket.flags & flags::OURS != 0
}

/// Flags a socket that the daemon has just made.
#[inline(always)]
pub fn claim(sk: *mut c_void) {
    if let Some(socket) = maps::socket_or_new(sk) {
        socket.flags = flags::OURS;
    }
}

/// Whether the daemon has said lately that it is alive.
#[inline(always)]
pub fn is_alive(config: &Config) -> bool {
    acting::now_ns() < config.alive_until_ns
}

/// Whether this is the port of the outbound listener of that family, on whatever address.
#[inline(always)]
pub fn is_outbound_port(config: &Config, ip: &Ip, port: u16) -> bool {
    let own = if address::is_v4(ip) { config.outbound4 } else { config.outbound6 };
    port == own && port != 0
}

/// Whether this is where the outbound listener of that family is.
#[inline(always)]
pub fn is_outbound(config: &Config, ip: &Ip, port: u16) -> bool {
    if address::is_v4(ip) {
        return ip[3] == address::LOOPBACK4 && port == config.outbound4 && port != 0;
    }
    address::is_loopback(ip) && port == config.outbound6 && port != 0
}

/// Whether this is where the inbound listener of that family is.
#[inline(always)]
pub fn is_inbound(config: &Config, ip: &Ip, port: u16) -> bool {
    if address::is_v4(ip) {
        return ip[3] == address::LOOPBACK4 && port == config.inbound4 && port != 0;
    }
    address::is_loopback(ip) && port == config.inbound6 && port != 0
}
