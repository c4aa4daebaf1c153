//! Routes: against the rules, and against the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::process::Command;

use netlink_packet_core::Parseable;
use netlink_packet_route::address::{AddressFlags, AddressMessage};
use netlink_packet_route::route::RouteMessage;
use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;

use super::routes::{
    Address, Route, SCOPE_LINK, TABLE_LOCAL, TABLE_MAIN, address_in, choose, route_in, source_for,
    source_routes,
};

fn route(to: &str, ifindex: u32) -> Route {
    Route {
        to: to.parse().unwrap(),
        table: TABLE_MAIN,
        metric: 0,
        scope: 0,
        is_local: false,
        source: None,
        gateway: None,
        ifindex,
    }
}

fn address(net: &str, ifindex: u32, scope: u8, flags: u32) -> Address {
    Address {
        net: net.parse().unwrap(),
        ifindex,
        scope,
        flags: AddressFlags::from_bits_retain(flags),
    }
}

fn source(routes: Vec<Route>, addresses: &[Address]) -> Option<String> {
    let [chosen] = choose(routes, addresses)[..] else { panic!("one prefix expected") };
    chosen.source.map(|source| source.to_string())
}

#[test]
fn ipv4_takes_the_address_beside_the_gateway() {
    let addresses = [
        address("127.0.0.1/8", 1, 254, 0),
        address("192.0.2.7/24", 2, 0, 0),
        address("198.51.100.7/24", 2, 0, 0),
        address("198.51.100.8/24", 2, 0, AddressFlags::Secondary.bits()),
    ];
    let default = route("0.0.0.0/0", 2);
    let through = |hop: &str| Route { gateway: hop.parse().ok(), ..default.clone() };
    assert_eq!(source(vec![through("198.51.100.1")], &addresses).unwrap(), "198.51.100.7");
    assert_eq!(source(vec![through("192.0.2.1")], &addresses).unwrap(), "192.0.2.7");
    assert_eq!(source(vec![through("203.0.113.1")], &addresses).unwrap(), "192.0.2.7");
    let preferred = Route { source: "198.51.100.8".parse().ok(), ..default.clone() };
    assert_eq!(source(vec![preferred], &addresses).unwrap(), "198.51.100.8");
    // An interface without addresses borrows one.
    let bare = Route { ifindex: 3, ..default };
    assert_eq!(source(vec![bare], &addresses).unwrap(), "192.0.2.7");
}

#[test]
fn ipv6_takes_a_fit_address_of_the_right_scope() {
    let addresses = [
        address("fe80::7/64", 2, SCOPE_LINK, 0),
        address("2001:db8:1::d/64", 2, 0, 0x20),
        address("2001:db8:1::7/64", 2, 0, 0),
        address("2001:db8:2::7/64", 2, 0, 0),
    ];
    assert_eq!(source(vec![route("::/0", 2)], &addresses).unwrap(), "2001:db8:1::7");
    assert_eq!(source(vec![route("2001:db8:2::/64", 2)], &addresses).unwrap(), "2001:db8:2::7");
    assert_eq!(source(vec![route("fe80::/64", 2)], &addresses).unwrap(), "fe80::7");
    let own = Route { is_local: true, ..route("2001:db8:2::7/128", 2) };
    assert_eq!(source(vec![own], &addresses), None);
}

#[test]
fn the_local_table_and_the_lower_metric_go_first() {
    let with = |source: &str, table, metric| Route {
        source: source.parse().ok(),
        table,
        metric,
        ..route("10.0.0.0/8", 2)
    };
    let (main, local) = (TABLE_MAIN, TABLE_LOCAL);
    assert_eq!(
        source(vec![with("10.0.0.2", main, 9), with("10.0.0.1", main, 3)], &[]).unwrap(),
        "10.0.0.1"
    );
    assert_eq!(
        source(vec![with("10.0.0.1", main, 3), with("10.0.0.3", local, 99)], &[]).unwrap(),
        "10.0.0.3"
    );
}

#[test]
fn the_own_table_has_loopback() {
    let table = source_routes().unwrap();
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    assert_eq!(source_for(&table, loopback), Some(loopback));
    assert!(table.is_sorted_by_key(|route| std::cmp::Reverse(route.to.prefix_len())));
}

/// What the kernel itself chooses: connecting UDP sends nothing.
fn kernel(destination: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match destination {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).unwrap();
    socket.connect((destination, 9)).ok()?;
    Some(socket.local_addr().unwrap().ip())
}

/// A network namespace belongs to a thread: one of its own, so that no other test sees it.
#[test]
fn privileged_the_table_agrees_with_the_kernel() {
    std::thread::spawn(agrees_with_the_kernel).join().unwrap();
}

fn agrees_with_the_kernel() {
    assert!(nix::unistd::geteuid().is_root(), "needs root: run it by `cargo xtask test`");
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    for line in [
        "link set lo up",
        "link add v0 type veth peer name v1",
        "link set v0 up",
        "link set v1 up",
        "addr add 10.1.0.1/24 dev v0",
        "addr add 10.1.0.9/24 dev v0",
        "addr add 10.2.0.1/16 dev v0",
        "addr add 10.3.0.1/24 dev v1",
        "route add default via 10.2.0.254",
        "route add 172.16.0.0/12 via 10.1.0.254",
        "route add 172.16.5.0/24 via 10.1.0.254 src 10.3.0.1",
        "route add 172.17.0.0/16 nexthop via 10.3.0.254 nexthop via 10.3.0.253",
        "route add unreachable 203.0.113.0/24",
        "addr add 2001:db8:1::1/64 dev v0 nodad",
        "addr add 2001:db8:2::1/64 dev v0 nodad",
        "addr add 2001:db8:3::1/64 dev v1 nodad",
        "-6 route add default via 2001:db8:1::fe",
        "-6 route add 2001:db8:77::/48 via 2001:db8:3::fe src 2001:db8:3::1",
    ] {
        let done = Command::new("ip").args(line.split(' ')).status().unwrap();
        assert!(done.success(), "ip {line}");
    }
    let table = source_routes().unwrap();
    for destination in [
        "127.0.0.1",
        "127.9.9.9",
        "10.1.0.1",
        "10.1.0.9",
        "10.1.0.77",
        "10.2.9.9",
        "10.3.0.1",
        "10.3.0.77",
        "172.16.0.1",
        "172.16.5.5",
        "172.17.1.1",
        "198.51.100.1",
        "::1",
        "2001:db8:1::1",
        "2001:db8:1::77",
        "2001:db8:2::1",
        "2001:db8:2::77",
        "2001:db8:3::1",
        "2001:db8:77::1",
    ] {
        let destination = destination.parse().unwrap();
        assert_eq!(source_for(&table, destination), kernel(destination), "{destination}");
    }
}

fn parse(bytes: &[u8]) {
    RouteMessage::parse(bytes).ok().as_ref().and_then(route_in);
    AddressMessage::parse(bytes).ok().as_ref().and_then(address_in);
}

proptest! {
    #[test]
    fn parsers_never_panic(bytes: Vec<u8>) {
        parse(&bytes);
    }

    #[test]
    fn parsers_never_panic_on_long_ones(bytes in prop::collection::vec(0_u8..20, 12..80)) {
        parse(&bytes);
    }
}
