//! Plaintext of a strict program on the wire: every way around the redirected address.

use anyhow::Result;
use harness::{Group, Lab, Rules, Server, probe, uid};

use crate::row::{Control, Row, Who};
use crate::tricks::{self, Leak, all_stopped, plain_server};

const DATAGRAM: &str = include_str!("tricks/datagram.py");
const FAST_OPEN: &str = include_str!("tricks/fast_open.py");
const LOOPBACK: &str = include_str!("tricks/loopback.py");
const BACKSTOP: Control = Control::Detached(&["tacit_egress"]);

/// A script that is told the marker and a word, by an unprivileged user of the strict scope.
fn anybody(trick: &'static str, script: &'static str, how: &'static str) -> Leak<'static> {
    Leak::new(Row { who: Who::Strict, trick }, move |lab, marker| {
        tricks::run(&lab.a.pod(Group::Strict, uid::CLIENT), script, &[marker, how])
    })
}

/// The same as root of the scope.
fn root(trick: &'static str, script: &'static str, how: &'static str) -> Leak<'static> {
    Leak::new(Row { who: Who::Root, trick }, move |lab, marker| {
        tricks::run(&lab.a.pod(Group::Strict, 0), script, &[marker, how])
    })
}

/// An accomplice on the wire that answers for 127.0.0.1.
fn accomplice(lab: &Lab) -> Result<Server> {
    let root = lab.b.pod(Group::Outside, 0);
    tricks::spawn(&root, include_str!("tricks/answers_arp.py"), &[])
}

fn set(lab: &Lab, values: &[&str]) -> Result<()> {
    for value in values {
        lab.a.in_netns("sysctl", &["-qw", value])?.ok()?;
    }
    Ok(())
}

#[test]
fn other_transports() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        set(lab, &["net.ipv4.ping_group_range=0 2147483647"])?;
        let leaks = [
            anybody("UDP", DATAGRAM, "udp"),
            anybody("UDP, connected", DATAGRAM, "udp-connected"),
            anybody("UDP-Lite", DATAGRAM, "udplite"),
            anybody("ICMP echo by a ping socket", DATAGRAM, "ping"),
            anybody("ICMPv6 echo by a ping socket", DATAGRAM, "ping6"),
            anybody("UDP to port 53 behind an IPv6 routing header", DATAGRAM, "dns-routed"),
            root("UDP to port 53 behind IPv6 options", DATAGRAM, "dns-options"),
            root("raw IP", DATAGRAM, "raw"),
            root("raw IP that calls itself TCP", DATAGRAM, "raw-tcp"),
        ];
        all_stopped(lab, &leaks, BACKSTOP)
    })
}

/// The ways of the probe; without the connect hooks and the backstop all of them leak.
const WAYS: [(&str, &str, &str); 8] = [
    ("plain", "connect()", "connect() while no daemon runs"),
    ("nonblocking", "non-blocking connect()", "non-blocking connect() while no daemon runs"),
    ("mapped", "IPv4 destination on an IPv6 socket", "the same while no daemon runs"),
    ("fast-open", "MSG_FASTOPEN", "MSG_FASTOPEN while no daemon runs"),
    ("fast-open-connect", "TCP_FASTOPEN_CONNECT", "TCP_FASTOPEN_CONNECT while no daemon runs"),
    ("io-uring", "connect() by io_uring", "connect() by io_uring while no daemon runs"),
    ("mptcp", "connect() by MPTCP", "connect() by MPTCP while no daemon runs"),
    ("unspec", "connect() again after AF_UNSPEC", "connect() again while no daemon runs"),
];

fn every_way(lab: &Lab, alive: bool) -> Result<()> {
    let _server = plain_server(lab)?;
    let address = format!("{}:7000", lab.b.ip);
    let way = |(how, with, without): (&'static str, &'static str, &'static str)| {
        let row = Row { who: Who::Strict, trick: if alive { with } else { without } };
        let address = address.clone();
        Leak::new(row, move |lab, marker| {
            let words = ["talk", &address, "--how", how, "--text", marker];
            lab.client().run(probe()?, &words)
        })
    };
    let mut leaks: Vec<_> = WAYS.into_iter().map(way).collect();
    if alive {
        leaks.push(root("TCP_REPAIR", FAST_OPEN, "repair"));
    }
    let hooks = &["tacit_connect4", "tacit_connect6", "tacit_egress"];
    all_stopped(lab, &leaks, Control::Detached(hooks))
}

#[test]
fn every_way_to_connect() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| every_way(lab, true))
}

/// From the first moment on, and after the daemon counts as dead.
#[test]
fn every_way_without_a_daemon() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        lab.a.crash()?;
        every_way(lab, false)
    })
}

#[test]
fn around_the_redirected_address() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _accomplice = accomplice(lab)?;
        let leaks = [
            anybody(
                "connect() deferred by TCP_FASTOPEN_CONNECT, then SO_BINDTODEVICE, then write()",
                FAST_OPEN,
                "deferred-device",
            ),
            anybody(
                "SO_BINDTODEVICE and an accomplice's address as the source (IPV6_FREEBIND)",
                FAST_OPEN,
                "device-freebind",
            ),
            anybody("IPv6 routing header (SRH), redirected to loopback", FAST_OPEN, "srh"),
            anybody(
                "IPv6 routing header (SRH) with SO_BINDTODEVICE, redirected to the host's address",
                FAST_OPEN,
                "srh-device",
            ),
            root("IPv4 source route with Fast Open", FAST_OPEN, "source-route"),
        ];
        all_stopped(lab, &leaks, BACKSTOP)
    })
}

#[test]
fn bound_to_a_device_with_fast_open() -> Result<()> {
    let trick = "SO_BINDTODEVICE with TCP_FASTOPEN_NO_COOKIE and MSG_FASTOPEN";
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _accomplice = accomplice(lab)?;
        let leaks = [anybody(trick, FAST_OPEN, "device")];
        all_stopped(lab, &leaks, Control::Off(&["egress", "device"]))
    })
}

/// A host that routes by segments forwards what loopback brings, as nobody's packet.
#[test]
fn forwarded_from_loopback() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        set(
            lab,
            &[
                "net.ipv6.conf.all.seg6_enabled=1",
                "net.ipv6.conf.lo.seg6_enabled=1",
                "net.ipv6.conf.all.forwarding=1",
            ],
        )?;
        let leaks = [
            anybody(
                "UDP over loopback with an onward route (SRH), on a host that routes by segments",
                LOOPBACK,
                "udp",
            ),
            anybody(
                "Fast Open over loopback with an onward route (SRH), on a host that routes by segments",
                LOOPBACK,
                "tcp",
            ),
        ];
        all_stopped(lab, &leaks, BACKSTOP)
    })
}

/// What other transports may do, TCP may not: also where its header hides behind another.
#[test]
fn tcp_in_the_guise_of_another_transport() -> Result<()> {
    let rules = Rules::client_calls_server().strict("other_transports = \"allow\"");
    Lab::check(&rules, |lab| {
        let leaks = [anybody(
            "TCP behind an IPv6 routing header where other transports are allowed",
            FAST_OPEN,
            "srh",
        )];
        all_stopped(lab, &leaks, BACKSTOP)
    })
}

#[test]
fn loopback_rerouted() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _accomplice = accomplice(lab)?;
        let ip = |words: &[&str]| lab.a.in_netns("ip", words)?.ok().map(drop);
        // Another rule before the table of local addresses, and a route for 127/8 off the host.
        ip(&["rule", "add", "pref", "1", "lookup", "local"])?;
        ip(&["rule", "del", "pref", "0"])?;
        ip(&["route", "add", "127.0.0.1/32", "dev", "veth0", "table", "77"])?;
        set(lab, &["net.ipv4.conf.all.route_localnet=1", "net.ipv4.conf.veth0.route_localnet=1"])?;
        let row = Row { who: Who::Root, trick: "127.0.0.1 routed to the wire" };
        let leaks = [Leak::new(row, |lab, marker| {
            // Only now, and for this user alone: the daemon is to start as ever.
            let user = format!("{0}-{0}", uid::CLIENT);
            let rule = ["rule", "add", "pref", "0", "uidrange", &user, "lookup", "77"];
            lab.a.in_netns("ip", &rule)?.ok()?;
            let client = lab.a.pod(Group::Strict, uid::CLIENT);
            let said = tricks::run(&client, FAST_OPEN, &[marker, "plain"]);
            lab.a.in_netns("ip", &["rule", "del", "pref", "0"])?.ok()?;
            said
        })];
        all_stopped(lab, &leaks, BACKSTOP)
    })
}
