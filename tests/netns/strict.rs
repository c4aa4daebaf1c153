//! What strict means: no identity, no rule or no daemon is no connection, and never a plain one.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{Group, Lab, Rules, probe, stretched, uid};

const MARKER: &str = "c0ffee-secret-of-the-strict";

fn talk(pod: &harness::Pod, address: &str) -> Result<harness::Finished> {
    pod.run(probe()?, &["talk", address, "--text", MARKER])
}

#[test]
fn no_identity_is_no_connection() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let echo = lab.echo(7000)?;
        let stranger = lab.a.pod(Group::Strict, uid::STRANGER);
        let capture = lab.a.capture("wire")?;
        ensure!(talk(&stranger, &format!("{}:7000", lab.b.ip))?.failed());
        ensure!(!capture.stop()?.contain(MARKER.as_bytes()), "plaintext crossed the wire");
        ensure!(!echo.said().contains("accept="), "the server saw: {}", echo.said());
        let record = lab.a.audit().expect_denied("outbound", "no_identity")?;
        ensure!(record.field("process.uid") == uid::STRANGER.to_string(), "{}", record.json());
        Ok(())
    })
}

#[test]
fn a_listener_without_identity_is_closed() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let nameless = lab.b.pod(Group::Strict, uid::STRANGER);
        let echo = nameless.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        ensure!(talk(&lab.client(), &format!("{}:7000", lab.b.ip))?.failed());
        ensure!(!echo.said().contains("accept="), "the server saw: {}", echo.said());
        lab.b.audit().expect_denied("inbound", "no_identity")?;
        Ok(())
    })
}

#[test]
fn an_identity_that_no_rule_allows_is_refused() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let echo = lab.echo(7000)?;
        let other = lab.a.pod(Group::Strict, uid::OTHER);
        ensure!(talk(&other, &format!("{}:7000", lab.b.ip))?.failed());
        ensure!(!echo.said().contains("accept="), "the server saw: {}", echo.said());
        let record = lab.b.audit().expect_denied("inbound", "peer_not_allowed")?;
        ensure!(
            record.field("peer.spiffe_id") == "spiffe://example.org/other",
            "{}",
            record.json()
        );
        Ok(())
    })
}

#[test]
fn a_workload_that_no_rule_names_is_refused() -> Result<()> {
    let rules = Rules::client_calls_server().entry("unnamed", &["unix:uid:21009"]);
    Lab::check(&rules, |lab| {
        let _echo = lab.echo(7000)?;
        let unnamed = lab.a.pod(Group::Strict, 21_009);
        ensure!(talk(&unnamed, &format!("{}:7000", lab.b.ip))?.failed());
        lab.a.audit().expect_denied("outbound", "no_rule")?;
        Ok(())
    })
}

#[test]
fn plaintext_from_the_wire_is_refused() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let echo = lab.echo(7000)?;
        let outsider = lab.a.pod(Group::Outside, uid::STRANGER);
        ensure!(talk(&outsider, &format!("{}:7000", lab.b.ip))?.failed());
        ensure!(!echo.said().contains("accept="), "the server saw: {}", echo.said());
        lab.b.audit().expect_denied("inbound", "plaintext_refused")?;
        Ok(())
    })
}

#[test]
fn a_dead_daemon_leaves_strict_closed() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let echo = lab.echo(7000)?;
        let to = format!("{}:7000", lab.b.ip);
        talk(&lab.client(), &to)?.ok()?;
        let served = echo.said().matches("accept=").count();

        lab.a.crash()?;
        let capture = lab.a.capture("dead")?;
        let began = std::time::Instant::now();
        for how in ["plain", "nonblocking", "fast-open", "io-uring", "mapped", "mptcp"] {
            let words = ["talk", &to, "--how", how, "--text", MARKER];
            ensure!(lab.client().run(probe()?, &words)?.failed(), "{how} got through");
        }
        ensure!(
            began.elapsed() < stretched(Duration::from_secs(20)),
            "refused slowly: {:?}",
            began.elapsed()
        );
        ensure!(!capture.stop()?.contain(MARKER.as_bytes()), "plaintext crossed the wire");

        lab.b.crash()?;
        let outsider = lab.a.pod(Group::Outside, uid::STRANGER);
        let words = ["-sS", "-m", "3", &format!("telnet://{to}")];
        ensure!(outsider.run("curl", &words)?.failed(), "the dead node's listener answered");
        ensure!(
            echo.said().matches("accept=").count() == served,
            "the server saw: {}",
            echo.said()
        );

        lab.a.start()?;
        lab.b.start()?;
        talk(&lab.client(), &to)?.ok().context("after the restart")?;
        Ok(())
    })
}

#[test]
fn an_open_connection_of_a_killed_daemon_is_recorded_as_interrupted() -> Result<()> {
    let rules = Rules::client_calls_server().audit("open_after = \"1s\"");
    Lab::check(&rules, |lab| {
        let _echo = lab.echo(7000)?;
        let to = format!("{}:7000", lab.b.ip);
        let mut client = lab.client().spawn(probe()?, &["talk", &to, "--hold", "60000"])?;
        let opened = || lab.a.audit().records().into_iter().find(|it| it.field("event") == "open");
        harness::eventually("an opening record", opened)?;
        lab.a.crash()?;
        client.kill();
        lab.a.start()?;
        lab.a.audit().expect("outbound", |it| it.field("outcome") == "interrupted")?;
        Ok(())
    })
}

#[test]
fn whoever_dials_the_proxy_is_refused_and_recorded() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let ports = lab.b.proxy_ports()?;
        for pod in [
            lab.b.pod(Group::Outside, uid::STRANGER),
            lab.b.pod(Group::Strict, uid::CLIENT),
            lab.a.pod(Group::Outside, 0),
        ] {
            for port in &ports {
                for host in ["127.0.0.1", "[::1]", lab.b.ip] {
                    let said = talk(&pod, &format!("{host}:{port}"))?;
                    ensure!(said.failed(), "{host}:{port} answered: {said:?}");
                }
            }
        }
        let refused = |it: &harness::Record| {
            it.field("outcome") == "denied" && it.field("reason") == "proxy_dialled"
        };
        let any = || lab.b.audit().records().into_iter().find(refused);
        harness::eventually("a record of the dialling", any)?;
        Ok(())
    })
}

#[test]
fn whoever_binds_the_proxys_ports_gets_nothing() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _echo = lab.echo(7000)?;
        let to = format!("{}:7000", lab.b.ip);
        let ports = lab.a.proxy_ports()?;
        lab.a.crash()?;
        let thief = lab.a.pod(Group::Outside, uid::STRANGER);
        let mut thieves = Vec::new();
        for port in &ports {
            // A refused bind is as good as a listener that nobody reaches.
            for address in [format!("127.0.0.1:{port}"), format!("[::]:{port}")] {
                thieves.push(thief.spawn(probe()?, &["serve", "echo", &address])?);
            }
        }
        sleep(Duration::from_millis(500));
        ensure!(talk(&lab.client(), &to)?.failed(), "a thief's listener answered");
        for thief in &thieves {
            ensure!(!thief.said().contains("accept="), "a thief got: {}", thief.said());
        }
        Ok(())
    })
}

#[test]
fn datagrams_of_a_strict_scope_stay_at_home() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let capture = lab.a.capture("wire")?;
        let words = ["datagram", &format!("{}:9999", lab.b.ip), MARKER];
        // It may fail at the socket or vanish on its way: what counts is the wire.
        let _finished = lab.client().run(probe()?, &words)?;
        // A program in no scope is left alone, which also shows that the capture works.
        let outsider = lab.a.pod(Group::Outside, uid::STRANGER);
        outsider.must(probe()?, &["datagram", &format!("{}:9999", lab.b.ip), "of-an-outsider"])?;
        let packets = capture.stop()?;
        ensure!(packets.contain(b"of-an-outsider"), "the capture missed a datagram");
        ensure!(!packets.contain(MARKER.as_bytes()), "a strict datagram crossed the wire");
        Ok(())
    })
}

#[test]
fn a_link_local_destination_is_refused() -> Result<()> {
    // Its interface is in the address that connect() is given, which no program is shown.
    let script = "import socket\ns = socket.socket(socket.AF_INET6)\n\
        s.connect(('fe80::1', 7000, 0, socket.if_nametoindex('veth0')))\n";
    Lab::check(&Rules::client_calls_server(), |lab| {
        let said = lab.client().run("/usr/bin/python3", &["-c", script])?;
        ensure!(said.failed() && said.stderr.contains("PermissionError"), "{said:?}");
        lab.a.audit().expect_denied("outbound", "link_local")?;
        Ok(())
    })
}

#[test]
fn a_datagram_socket_that_is_passed_in_is_strict_too() -> Result<()> {
    // Made by a process in no scope, which then moves into the strict one.
    let script = "import os, socket, sys\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
        open(sys.argv[1] + '/cgroup.procs', 'w').write(str(os.getpid()))\n\
        s.sendto(b'passed-in', (sys.argv[2], 9))\n";
    Lab::check(&Rules::client_calls_server(), |lab| {
        let strict = lab.a.group(Group::Strict);
        let capture = lab.a.capture("wire")?;
        let outside = lab.a.pod(Group::Outside, 0);
        let said = outside
            .run("/usr/bin/python3", &["-c", script, &strict.to_string_lossy(), lab.b.ip])?;
        let packets = capture.stop()?;
        ensure!(!packets.contain(b"passed-in"), "a datagram left the strict scope");
        ensure!(said.failed() && said.stderr.contains("PermissionError"), "{said:?}");
        lab.a.audit().expect_denied("outbound", "transport_refused")?;
        Ok(())
    })
}
