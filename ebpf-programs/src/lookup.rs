//! sk_lookup: steers an incoming connection for a captured listener to the daemon, and guards the
//! daemon's own ports. Runs for SYNs and for what matches no established socket.

use core::ptr;

use aya_ebpf::bindings::bpf_sk_lookup;
use aya_ebpf::macros::sk_lookup;
use aya_ebpf::programs::SkLookupContext;
use ebpf_abi::{Config, Counter, ListenKey, Listener, Tuple, fail, listener_flags, mode, slot};

use crate::report::{self, Ends};
use crate::{address, bypass, maps, scope};

const PASS: u32 = 1;
/// Answered by a reset, as if nobody listened (net/ipv4/inet_hashtables.c).
const DROP: u32 = 0;
const AF_INET: u32 = 2;
const IPPROTO_TCP: u32 = 6;

#[sk_lookup]
pub fn tacit_lookup(ctx: SkLookupContext) -> u32 {
    let Some(config) = maps::config() else {
        return PASS;
    };
    let lookup = ctx.lookup;
    // SAFETY: plain context field.
    if unsafe { (*lookup).protocol } != IPPROTO_TCP {
        return PASS;
    }
    let tuple = tuple_of(lookup, config);
    if bypass::is_outbound_port(config, &tuple.server, tuple.server_port) {
        if maps::FLOWS.get_ptr(&tuple).is_some() {
            return to_daemon(&ctx, &tuple);
        }
        if address::is_loopback(&tuple.server) {
            return trespass(&tuple);
        }
    }
    if bypass::is_inbound(config, &tuple.server, tuple.server_port) {
        // Nobody has business there: what belongs to it is steered, not dialled.
        return trespass(&tuple);
    }
    if maps::DIALS.get_ptr(&tuple).is_some() {
        return PASS;
    }
    match listener(&tuple) {
        Some(listener) => steer(&ctx, config, &tuple, listener),
        None => PASS,
    }
}

#[inline(always)]
fn tuple_of(lookup: *mut bpf_sk_lookup, config: &Config) -> Tuple {
    // SAFETY: plain context fields, word by word; remote_port is in network order, local_port in
    // host order.
    unsafe {
        let (client, server) = if (*lookup).family == AF_INET {
            let client = [0, 0, address::V4_MAPPED, (*lookup).remote_ip4];
            (client, [0, 0, address::V4_MAPPED, (*lookup).local_ip4])
        } else {
            (
                address::words(ptr::addr_of!((*lookup).remote_ip6).cast()),
                address::words(ptr::addr_of!((*lookup).local_ip6).cast()),
            )
        };
        Tuple {
            netns: config.netns,
            client,
            server,
            client_port: u16::from_be(ptr::read_volatile(ptr::addr_of!((*lookup).remote_port))),
            server_port: (*lookup).local_port as u16,
            padding: 0,
        }
    }
}

/// A SYN to the outbound listener, with its record: only to the daemon.
#[inline(always)]
fn to_daemon(ctx: &SkLookupContext, tuple: &Tuple) -> u32 {
    let slot = if address::is_v4(&tuple.server) { slot::OUTBOUND4 } else { slot::OUTBOUND6 };
    // An empty slot means that the daemon is gone: whoever listens there now gets nothing.
    if maps::PROXY.redirect_sk_lookup(ctx, slot, 0).is_ok() { PASS } else { DROP }
}

#[inline(always)]
fn trespass(tuple: &Tuple) -> u32 {
    report::denied(Counter::ProxyDialled, None, 0, &ends(tuple));
    DROP
}

/// Who listens on this address, else on the wildcard of its family, else on the IPv6 wildcard.
#[inline(always)]
fn listener<'a>(tuple: &Tuple) -> Option<&'a Listener> {
    let mut key = ListenKey {
        netns: tuple.netns,
        ip: tuple.server,
        port: tuple.server_port,
        padding16: 0,
        padding: 0,
    };
    if let Some(found) = listening(&key) {
        return Some(found);
    }
    if address::is_v4(&tuple.server) {
        key.ip = [0, 0, address::V4_MAPPED, 0];
        if let Some(found) = listening(&key) {
            return Some(found);
        }
    }
    key.ip = [0; 4];
    listening(&key)
}

/// The entry of this address, if somebody listens there.
#[inline(always)]
fn listening<'a>(key: &ListenKey) -> Option<&'a Listener> {
    maps::listener(key).filter(|entry| entry.sockets != 0).map(|entry| &*entry)
}

#[inline(always)]
fn steer(ctx: &SkLookupContext, config: &Config, tuple: &Tuple, listener: &Listener) -> u32 {
    let mode = scope::mode_of(listener.scope);
    let Some(scope) = maps::scope(listener.scope) else {
        return PASS;
    };
    if mode == mode::OBSERVE
        || mode != mode::STRICT && !scope::captures_inbound(scope, tuple.server_port)
    {
        return PASS;
    }
    // The daemon could not dial the application there: another way than loopback is needed.
    let out_of_reach = if address::is_link_local(&tuple.server) {
        Some(Counter::LinkLocal)
    } else if listener.flags & listener_flags::DEVICE_BOUND != 0 {
        Some(Counter::BoundDevice)
    } else {
        None
    };
    if let Some(reason) = out_of_reach {
        if mode != mode::STRICT {
            return PASS;
        }
        report::denied(reason, Some(&listener.owner), listener.scope, &ends(tuple));
        return DROP;
    }
    let slot = if address::is_v4(&tuple.server) { slot::INBOUND4 } else { slot::INBOUND6 };
    if bypass::is_alive(config) && maps::PROXY.redirect_sk_lookup(ctx, slot, 0).is_ok() {
        maps::count(Counter::Steered);
        return PASS;
    }
    if scope.fail == fail::OPEN {
        maps::count(Counter::FailedOpen);
        return PASS;
    }
    report::denied(Counter::DaemonAbsent, Some(&listener.owner), listener.scope, &ends(tuple));
    DROP
}

#[inline(always)]
fn ends(tuple: &Tuple) -> Ends {
    Ends {
        local: tuple.server,
        remote: tuple.client,
        local_port: tuple.server_port,
        remote_port: tuple.client_port,
        protocol: IPPROTO_TCP,
    }
}
