//! What is not TCP, from a strict scope.

use anyhow::{Result, ensure};
use harness::{Group, Lab, Pod, Record, Rules, probe, uid};

const PYTHON: &str = "/usr/bin/python3";
/// A raw socket with a header and a protocol of its own (253 is for experiments, RFC 3692).
const RAW: &str = "import socket, sys\n\
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253)\n\
    s.sendto(b'raw-of-the-strict', (sys.argv[1], 0))\n";

/// It may fail at the socket or vanish on its way: the wire and the record decide.
fn send(pod: &Pod, to: &str, text: &str) -> Result<()> {
    let _sent = pod.run(probe()?, &["datagram", to, text])?;
    Ok(())
}

fn refused(lab: &Lab, port: u16) -> Result<()> {
    lab.a.audit().expect("outbound", |it: &Record| {
        it.field("reason") == "transport_refused"
            && it.field("peer.address").ends_with(&format!(":{port}"))
    })?;
    Ok(())
}

#[test]
fn only_names_are_asked_for_by_default() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let capture = lab.a.capture("wire")?;
        for host in [lab.b.ip.to_owned(), format!("[{}]", lab.b.ip6)] {
            send(&lab.client(), &format!("{host}:53"), "dns-of-the-strict")?;
            send(&lab.client(), &format!("{host}:9999"), "udp-of-the-strict")?;
        }
        // Raw sockets take root.
        let root = lab.a.pod(Group::Strict, 0);
        let _sent = root.run(PYTHON, &["-c", RAW, lab.b.ip])?;
        let packets = capture.stop()?;
        ensure!(packets.contain(b"dns-of-the-strict"), "a question for a name did not go out");
        ensure!(!packets.contain(b"udp-of-the-strict"), "a datagram crossed the wire");
        ensure!(!packets.contain(b"raw-of-the-strict"), "a raw packet crossed the wire");
        refused(lab, 9999)?;
        let raw = |it: &Record| {
            it.field("reason") == "transport_refused" && it.field("detail").contains("253")
        };
        lab.a.audit().expect("outbound", raw)?;
        // The same raw socket in no scope: the search can find it.
        let capture = lab.a.capture("control")?;
        lab.a.pod(Group::Outside, 0).must(PYTHON, &["-c", RAW, lab.b.ip])?;
        ensure!(capture.stop()?.contain(b"raw-of-the-strict"), "the capture misses a raw packet");
        Ok(())
    })
}

#[test]
fn names_neither_where_the_scope_says_so() -> Result<()> {
    let rules = Rules::client_calls_server().strict("other_transports = \"refuse\"");
    Lab::check(&rules, |lab| {
        let capture = lab.a.capture("wire")?;
        send(&lab.client(), &format!("{}:53", lab.b.ip), "dns-of-the-strict")?;
        send(&lab.a.pod(Group::Outside, uid::STRANGER), &format!("{}:53", lab.b.ip), "control")?;
        let packets = capture.stop()?;
        ensure!(packets.contain(b"control"), "the capture missed a datagram");
        ensure!(!packets.contain(b"dns-of-the-strict"), "a question for a name went out");
        refused(lab, 53)
    })
}

/// A connection with an IPv6 extension header (`IPV6_DSTOPTS`, 59: a destination option of padding)
/// that began in no scope and is carried into the strict one.
const BEHIND_A_HEADER: &str = "import os, socket, sys\n\
    s = socket.socket(socket.AF_INET6)\n\
    s.setsockopt(socket.IPPROTO_IPV6, 59, bytes([0, 0, 1, 4, 0, 0, 0, 0]))\n\
    s.connect((sys.argv[1], 7000)); s.sendall(b'before-it-moved'); s.recv(100)\n\
    open(sys.argv[2] + '/cgroup.procs', 'w').write(str(os.getpid()))\n\
    s.getpeername()\n\
    s.sendall(b'tcp-behind-a-header')\n\
    s.settimeout(3)\n\
    try:\n    while s.recv(100): pass\n\
    except OSError as error: print('end=' + type(error).__name__)\n";

/// The same segment made by hand: a raw socket gives the destination options (60) and TCP (6) itself.
const BY_HAND: &str = "import socket, sys\n\
    s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 60)\n\
    tcp = bytes([0x30, 0x39, 0x1b, 0x58]) + bytes(8) + bytes([0x50, 0x02]) + bytes(6)\n\
    s.sendto(bytes([6, 0, 1, 4, 0, 0, 0, 0]) + tcp + sys.argv[2].encode(), (sys.argv[1], 0))\n";

#[test]
fn allowed_transports_leave_and_tcp_behind_a_header_does_not() -> Result<()> {
    let rules = Rules::client_calls_server().strict("other_transports = \"allow\"");
    Lab::check(&rules, |lab| {
        let plain = lab.b.pod(Group::Outside, uid::SERVER);
        let echo = plain.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        let capture = lab.a.capture("wire")?;
        for host in [lab.b.ip.to_owned(), format!("[{}]", lab.b.ip6)] {
            lab.client().must(probe()?, &["datagram", &format!("{host}:9999"), "allowed-udp"])?;
        }
        lab.a.pod(Group::Strict, 0).must(PYTHON, &["-c", RAW, lab.b.ip])?;
        let strict = lab.a.group(Group::Strict);
        let words = ["-c", BEHIND_A_HEADER, lab.b.ip6, &strict.to_string_lossy()];
        let said = lab.a.pod(Group::Outside, 0).must(PYTHON, &words)?;
        ensure!(said.contains("end=Connection"), "it hung: {said}");
        let of_the_header = format!("[{}]:7000", lab.b.ip6);
        let backstop = |it: &Record| {
            it.field("reason") == "backstop" && it.field("peer.address") == of_the_header
        };
        lab.a.audit().expect("outbound", backstop)?;
        let (outside, inside) = (Group::Outside, Group::Strict);
        for (group, text) in [(outside, "by-hand-of-nobody"), (inside, "by-hand-of-the-strict")] {
            let words = ["-c", BY_HAND, lab.b.ip6, text];
            let _sent = lab.a.pod(group, 0).run(PYTHON, &words)?;
        }
        let packets = capture.stop()?;
        for there in ["allowed-udp", "raw-of-the-strict", "before-it-moved", "by-hand-of-nobody"] {
            ensure!(packets.contain(there.as_bytes()), "`{there}` did not leave");
        }
        for kept in ["tcp-behind-a-header", "by-hand-of-the-strict"] {
            ensure!(!packets.contain(kept.as_bytes()), "`{kept}` left");
        }
        ensure!(!echo.said().contains("bytes=34"), "the server saw: {}", echo.said());
        Ok(())
    })
}
