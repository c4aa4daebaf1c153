//! `tacit run --replace`: one daemon takes the place of another, and nobody notices.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{Group, Lab, Node, Record, Rules, eventually, probe, uid};

use crate::load::{Clients, MARKER};

/// Each on both nodes.
const UPGRADES: usize = 10;

pub(crate) fn verified(node: &Node) -> Result<()> {
    let (log, state) = (node.audit().path().to_owned(), node.state());
    let (log, state) = (log.to_string_lossy(), state.to_string_lossy());
    node.tacit(&["audit", "verify", "--log", &log, "--state-dir", &state])?.ok()?;
    Ok(())
}

/// Records about the daemon itself with this reason.
fn told(node: &Node, reason: &str) -> Vec<Record> {
    let mut records = node.audit().records();
    records.retain(|it| it.field("event") == "daemon" && it.field("reason") == reason);
    records
}

#[test]
fn twenty_upgrades_under_load_and_no_connection_fails() -> Result<()> {
    Lab::check(&Rules::client_calls_server().log("info"), |lab| {
        let _echo = lab.echo(7000)?;
        let capture = lab.a.capture_bulk("wire")?;
        let clients = Clients::start(lab, 7000, &["--threads", "8", "--hold", "10"])?;
        for _ in 0..UPGRADES {
            for node in [&lab.a, &lab.b] {
                // Daemons that drain are as many as the programs know.
                eventually("room", || (node.draining() < 3).then_some(()))?;
                node.replace()?;
            }
        }
        let tally = clients.finish()?;
        ensure!(tally.failed() == 0, "{tally:?}");
        ensure!(tally.slowest_ms < 10_000, "{tally:?}");
        ensure!(capture.stop()?.count(MARKER.as_bytes()) == 0, "plaintext crossed the wire");
        for (node, direction) in [(&lab.a, "outbound"), (&lab.b, "inbound")] {
            eventually("all have drained", || (node.draining() == 0).then_some(()))?;
            ensure!(told(node, "predecessor_drained").len() == UPGRADES, "{}", node.logged());
            let completed = || {
                let mut closed = node.audit().closed(direction);
                closed.retain(|it| it.field("outcome") == "completed");
                (u64::try_from(closed.len()).ok()? >= tally.ok).then_some(())
            };
            eventually("a record of every connection", completed)?;
            node.stop();
            verified(node)?;
        }
        Ok(())
    })
}

#[test]
fn an_established_connection_finishes_in_the_old_process() -> Result<()> {
    let rules = Rules::client_calls_server().audit("open_after = \"1s\"");
    Lab::check(&rules, |lab| {
        let echo = lab.echo(7000)?;
        let to = format!("{}:7000", lab.b.ip);
        let mut held =
            lab.client().spawn(probe()?, &["talk", &to, "--text", MARKER, "--hold", "6000"])?;
        held.says("sent=")?;
        echo.says("accept=")?;
        for node in [&lab.a, &lab.b] {
            let before = node.daemon_pid()?;
            node.replace()?;
            ensure!(node.daemon_pid()? != before, "it is the same process");
            let said = node.ask(&["status"])?;
            ensure!(said.contains(&format!("pid {before} (tacit")), "{said}");
            ensure!(said.contains("ready"), "{said}");
            lab.client().run(probe()?, &["talk", &to, "--text", MARKER])?.ok()?;
        }
        ensure!(held.wait()?.success(), "it did not finish: {}", held.said());
        for (node, direction) in [(&lab.a, "outbound"), (&lab.b, "inbound")] {
            eventually("the old process to end", || (node.draining() == 0).then_some(()))?;
            let long = |it: &Record| it.field("duration").parse().is_ok_and(|ms: f64| ms > 5e3);
            let closed = node.audit().expect(direction, long)?;
            ensure!(closed.field("outcome") == "completed", "{}", closed.json());
            ensure!(!node.ask(&["status"])?.contains("Draining"), "it is still told of");
            node.stop();
            verified(node)?;
        }
        Ok(())
    })
}

#[test]
fn what_outlives_the_drain_time_is_reset_and_recorded_as_such() -> Result<()> {
    Lab::check(&Rules::client_calls_server().proxy("drain_timeout = \"2s\""), |lab| {
        let _echo = lab.echo(7000)?;
        let to = format!("{}:7000", lab.b.ip);
        let words = ["talk", &to, "--text", MARKER, "--hold", "60000"];
        let mut held = lab.client().spawn(probe()?, &words)?;
        held.says("sent=")?;
        lab.a.replace()?;
        eventually("the old process to end", || (lab.a.draining() == 0).then_some(()))?;
        let record = lab.a.audit().expect("outbound", |it| it.field("reason") == "drained")?;
        ensure!(record.field("outcome") == "cut", "{}", record.json());
        held.kill();
        Ok(())
    })
}

/// It had written its own scopes already, in which nothing is strict, when it came to nothing.
#[test]
fn a_successor_that_fails_late_leaves_the_scopes_as_they_were() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let plain = lab.b.pod(Group::Outside, uid::SERVER);
        let echo = plain.serve(probe()?, &["serve", "echo", "0.0.0.0:7000"], 7000)?;
        let whole = fs::read_to_string(lab.a.config())?;
        let other = lab.a.dir().join("other.toml");
        fs::write(&other, whole.replace("mode = \"strict\"", "mode = \"observe\""))?;
        // What it cannot use, and reads last.
        fs::write(lab.a.state().join("files"), "no line of it\n")?;
        let words = ["run", "--replace", "--config", &other.to_string_lossy()];
        let said = lab.a.daemon_pod().run(harness::tacit()?, &words)?;
        ensure!(said.failed() && said.stderr.contains("state/files"), "{said:?}");
        let again = || lab.a.ask(&["status"]).ok().filter(|it| it.contains("ready"));
        eventually("the daemon goes on", again)?;
        let stranger = lab.a.pod(Group::Strict, uid::STRANGER);
        let dial = ["talk", &format!("{}:7000", lab.b.ip)];
        for _ in 0..5 {
            ensure!(stranger.run(probe()?, &dial)?.failed());
        }
        ensure!(!echo.said().contains("accept="), "it got out: {}", echo.said());
        Ok(())
    })
}

#[test]
fn a_successor_that_comes_to_nothing_changes_nothing() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _echo = lab.echo(7000)?;
        let to = format!("{}:7000", lab.b.ip);
        let clients = Clients::start(lab, 7000, &[])?;
        let before = lab.a.daemon_pid()?;
        let whole = fs::read_to_string(lab.a.config())?;
        // Refused before the other lets go, and after it.
        for (wrong, why) in [
            (
                whole.replace("[capture]\n", "[capture]\nbpffs = \"/sys/fs/bpf/elsewhere\"\n"),
                "bpffs",
            ),
            (whole.replace("/state\"", "/audit.jsonl\""), "state"),
        ] {
            let other = lab.a.dir().join("other.toml");
            fs::write(&other, wrong)?;
            let config = other.to_string_lossy();
            let said = lab
                .a
                .daemon_pod()
                .run(harness::tacit()?, &["run", "--replace", "--config", &config])?;
            ensure!(said.failed(), "{why}: {said:?}");
            let again = || lab.a.ask(&["status"]).ok().filter(|it| it.contains("ready"));
            let status = eventually("the daemon goes on", again)?;
            ensure!(status.contains(&format!("pid {before}")), "{why}: {status}");
            lab.client().run(probe()?, &["talk", &to, "--text", MARKER])?.ok().context(why)?;
        }
        ensure!(clients.finish()?.failed() == 0, "somebody noticed");
        ensure!(told(&lab.a, "resumed").len() == 1, "{}", lab.a.audit().shown());
        lab.a.replace()?;
        lab.client().run(probe()?, &["talk", &to, "--text", MARKER])?.ok()?;
        lab.a.stop();
        verified(&lab.a)
    })
}

#[test]
fn a_predecessor_or_successor_that_is_killed_is_told_of() -> Result<()> {
    let rules = Rules::client_calls_server().audit("open_after = \"1s\"");
    Lab::check(&rules, |lab| {
        let _echo = lab.echo(7000)?;
        let to = format!("{}:7000", lab.b.ip);
        let words = ["talk", &to, "--text", MARKER, "--hold", "60000"];
        let opened = |node: &Node, count: usize| {
            let records = node.audit().records();
            (records.iter().filter(|it| it.field("event") == "open").count() >= count).then_some(())
        };
        let mut held = lab.client().spawn(probe()?, &words)?;
        held.says("sent=")?;
        eventually("an opening record", || opened(&lab.a, 1))?;
        lab.a.replace()?;
        lab.a.crash_draining();
        eventually("word of it", || told(&lab.a, "predecessor_lost").pop())?;
        lab.a.audit().expect("outbound", |it| it.field("outcome") == "interrupted")?;
        held.kill();

        let mut held = lab.client().spawn(probe()?, &words)?;
        held.says("sent=")?;
        eventually("an opening record", || opened(&lab.a, 2))?;
        lab.a.replace()?;
        lab.a.crash()?;
        // Nobody records what it does any more, so it does nothing any more.
        eventually("the old process to end", || (lab.a.draining() == 0).then_some(()))?;
        held.kill();
        lab.a.start()?;
        lab.client().run(probe()?, &["talk", &to, "--text", MARKER])?.ok()?;
        lab.a.stop();
        verified(&lab.a)
    })
}

#[test]
fn the_workload_api_goes_on() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let api = lab.a.workload_api();
        let pod = lab.a.pod(Group::Strict, uid::CLIENT);
        let path = api.to_string_lossy();
        let words = ["--socket", &*path];
        let before = fs::metadata(&api)?;
        pod.run(harness::conformance()?, &words)?.ok()?;
        lab.a.replace()?;
        eventually("the old process to end", || (lab.a.draining() == 0).then_some(()))?;
        pod.run(harness::conformance()?, &words)?.ok().context("after the upgrade")?;
        let after = fs::metadata(&api)?;
        let inode = |file: &fs::Metadata| std::os::unix::fs::MetadataExt::ino(file);
        ensure!(inode(&before) == inode(&after), "the socket is another");
        lab.a.stop();
        ensure!(!api.exists(), "the socket stays behind");
        Ok(())
    })
}

/// Longer than a daemon takes to hear a signal.
const HEARD: Duration = Duration::from_secs(5);

#[test]
fn a_first_sigterm_drains_and_shows_it_and_a_second_stops() -> Result<()> {
    Lab::check(&Rules::client_calls_server().proxy("drain_timeout = \"60s\""), |lab| {
        let _echo = lab.echo(7000)?;
        let to = format!("{}:7000", lab.b.ip);
        let words = ["talk", &to, "--text", MARKER, "--hold", "60000"];
        let mut held = lab.client().spawn(probe()?, &words)?;
        held.says("sent=")?;
        lab.a.terminate()?;
        let shown = || {
            let socket = lab.a.socket();
            let said = lab.a.tacit(&["status", "--socket", &socket.to_string_lossy()]).ok()?;
            Some(said.stdout).filter(|said| said.contains("1 outbound, 0 inbound left"))
        };
        let said = eventually("progress", shown)?;
        ensure!(said.contains("draining") && !lab.a.has_ended(), "{said}");
        lab.a.terminate()?;
        harness::soon(HEARD, "its end", || lab.a.has_ended().then_some(()))?;
        let record = lab.a.audit().expect("outbound", |it| it.field("reason") == "drained")?;
        ensure!(record.field("outcome") == "cut", "{}", record.json());
        held.kill();
        Ok(())
    })
}
