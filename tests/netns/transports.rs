//! What is not TCP, from a strict scope.

use anyhow::{Result, ensure};
use harness::{Group, Lab, Pod, Record, Rules, probe, uid};

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
        let _sent = root.run("/usr/bin/python3", &["-c", RAW, lab.b.ip])?;
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
        lab.a.pod(Group::Outside, 0).must("/usr/bin/python3", &["-c", RAW, lab.b.ip])?;
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
