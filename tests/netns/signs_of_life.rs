//! A daemon that gives no sign of life, stopped or dead: what is closed is closed at once, what is
//! open goes on in the clear, counted and recorded; when it is back, so is everything.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::{Finished, Group, Lab, Node, Pod, Record, Rules, eventually, probe, uid};

const MARKER: &str = "c0ffee-without-a-daemon";
/// Longer than a daemon counts as alive after its last sign of life.
const SILENT: Duration = Duration::from_secs(6);
const FAILED_OPEN: &str = "tacit_kernel_decisions_total{decision=\"failed_open\"}";

fn to(lab: &Lab) -> String {
    format!("{}:7000", lab.b.ip)
}

fn talk(pod: &Pod, to: &str) -> Result<Finished> {
    pod.run(probe()?, &["talk", to, "--text", MARKER])
}

fn outsider(lab: &Lab) -> Pod {
    lab.a.pod(Group::Outside, uid::STRANGER)
}

/// What is dialled while the daemon is stopped waits for it; what was open goes on; after five
/// seconds everything new is refused at once, and works again as soon as the daemon does.
#[test]
fn a_stopped_daemon_closes_strict_and_comes_back() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let echo = lab.echo(7000)?;
        let words = ["talk", &to(lab), "--text", MARKER];
        let mut open = lab.client().spawn(probe()?, &[&words[..], &["--hold", "9000"]].concat())?;
        open.says("sent=")?;
        echo.says("accept=")?;
        let capture = lab.a.capture("wire")?;
        for node in [&lab.a, &lab.b] {
            node.pause()?;
        }
        let mut waiting = lab.client().spawn(probe()?, &words)?;
        sleep(SILENT);
        ensure!(!waiting.said().contains("ok="), "somebody answered: {}", waiting.said());
        let served = echo.said().matches("accept=").count();

        let began = Instant::now();
        let said = talk(&lab.client(), &to(lab))?;
        ensure!(said.stdout.contains("not_permitted"), "{said:?}");
        ensure!(began.elapsed() < Duration::from_secs(2), "took {:?}", began.elapsed());
        let dial = ["-sS", "-m", "2", &format!("telnet://{}", to(lab))];
        ensure!(outsider(lab).run("curl", &dial)?.failed(), "a stopped node answered");
        ensure!(echo.said().matches("accept=").count() == served, "it saw: {}", echo.said());

        for node in [&lab.a, &lab.b] {
            node.resume()?;
        }
        let again = || talk(&lab.client(), &to(lab)).ok().filter(|said| !said.failed());
        eventually("a new connection", again)?;
        ensure!(waiting.wait()?.success(), "what waited failed: {}", waiting.said());
        ensure!(open.wait()?.success(), "what was open failed: {}", open.said());
        ensure!(!capture.stop()?.contain(MARKER.as_bytes()), "plaintext crossed the wire");
        let record = lab.a.audit().expect_denied("outbound", "daemon_absent")?;
        ensure!(record.field("process.uid") == uid::CLIENT.to_string(), "{}", record.json());
        lab.b.audit().expect_denied("inbound", "daemon_absent")?;
        Ok(())
    })
}

/// The record of what passed while nobody was there.
fn untouched(node: &Node, direction: &str, user: u32) -> Result<Record> {
    let record = node.audit().expect(direction, |it| it.field("protection") == "untouched")?;
    let json = record.json();
    ensure!(record.field("outcome") == "completed", "{json}");
    ensure!(record.field("scope").ends_with("/permissive"), "{json}");
    ensure!(record.field("process.uid") == user.to_string(), "{json}");
    ensure!(record.number("bytes_sent") == u64::try_from(MARKER.len())?, "{json}");
    ensure!(record.field("peer.spiffe_id").is_empty(), "{json}");
    Ok(record)
}

#[test]
fn an_open_scope_goes_on_in_the_clear_and_the_next_daemon_tells() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let server = lab.b.pod(Group::Permissive, uid::SERVER);
        let _echo = server.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        let client = lab.a.pod(Group::Permissive, uid::CLIENT);
        talk(&client, &to(lab))?.ok().context("with the daemons")?;
        for node in [&lab.a, &lab.b] {
            ensure!(node.metric(FAILED_OPEN)? == 0, "it failed open with its daemon there");
            node.crash()?;
        }
        sleep(SILENT);
        let capture = lab.a.capture("wire")?;
        talk(&client, &to(lab))?.ok().context("with none")?;
        let packets = capture.stop()?;
        ensure!(packets.contain(MARKER.as_bytes()) && !packets.hold_tls(), "not in the clear");
        for node in [&lab.a, &lab.b] {
            node.start()?;
        }
        let outbound = untouched(&lab.a, "outbound", uid::CLIENT)?;
        let inbound = untouched(&lab.b, "inbound", uid::SERVER)?;
        ensure!(outbound.field("peer.address") == to(lab), "{}", outbound.json());
        ensure!(inbound.field("local.address") == to(lab), "{}", inbound.json());
        for node in [&lab.a, &lab.b] {
            ensure!(node.metric(FAILED_OPEN)? == 1, "{}: not counted", node.cgroup());
        }
        talk(&client, &to(lab))?.ok().context("with the next daemons")?;
        let mtls = |it: &&Record| it.field("protection") == "mtls";
        let both =
            || (lab.a.audit().closed("outbound").iter().filter(mtls).count() == 2).then_some(());
        eventually("protection again", both)
    })
}

/// A permissive scope may be told to close.
#[test]
fn a_permissive_scope_that_is_told_to_fail_closed_is_closed() -> Result<()> {
    let rules = Rules::client_calls_server().permissive("fail = \"closed\"");
    Lab::check(&rules, |lab| {
        let server = lab.b.pod(Group::Permissive, uid::SERVER);
        let echo = server.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        for node in [&lab.a, &lab.b] {
            node.crash()?;
        }
        sleep(SILENT);
        let said = talk(&lab.a.pod(Group::Permissive, uid::CLIENT), &to(lab))?;
        ensure!(said.stdout.contains("not_permitted"), "{said:?}");
        let dial = ["-sS", "-m", "2", &format!("telnet://{}", to(lab))];
        ensure!(outsider(lab).run("curl", &dial)?.failed(), "the listener answered");
        ensure!(!echo.said().contains("accept="), "the server saw: {}", echo.said());
        for (node, direction) in [(&lab.a, "outbound"), (&lab.b, "inbound")] {
            node.start()?;
            node.audit().expect_denied(direction, "daemon_absent")?;
        }
        Ok(())
    })
}
