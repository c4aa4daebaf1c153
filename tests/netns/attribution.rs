//! Who is it? The rule for each way in which a connection or an executable can change hands.
//!
//! A connection belongs to the process that called `connect()`, as it was then: what forks, executes
//! or receives the socket later uses the opener's identity, because the opener gave it away. A pid
//! proves nothing by itself, and a path proves nothing about the file that runs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{Group, Lab, Pod, Rules, client_id, probe, uid};
use sha2::{Digest as _, Sha256};

fn to(lab: &Lab) -> String {
    format!("{}:7000", lab.b.ip)
}

/// Fork, exec and passing on do not change whose connection it is.
fn keeps_its_opener(way: &str) -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _echo = lab.echo(7000)?;
        lab.client().must(probe()?, &["hand-over", way, &to(lab)])?;
        let record = lab.a.audit().expect_completed("outbound")?;
        ensure!(record.field("local.spiffe_id") == client_id(), "{}", record.json());
        ensure!(record.field("process.uid") == uid::CLIENT.to_string(), "{}", record.json());
        Ok(())
    })
}

#[test]
fn fork_after_connect_keeps_the_opener() -> Result<()> {
    keeps_its_opener("fork")
}

#[test]
fn exec_after_connect_keeps_the_opener() -> Result<()> {
    keeps_its_opener("exec")
}

#[test]
fn a_passed_socket_keeps_the_opener() -> Result<()> {
    keeps_its_opener("pass")
}

/// The opener is gone before the daemon looks: the facts that the kernel recorded still hold.
#[test]
fn an_opener_that_is_gone_is_judged_by_the_recorded_facts() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _echo = lab.echo(7000)?;
        lab.a.pause()?;
        let mut client = lab.client().spawn(probe()?, &["hand-over", "gone", &to(lab)])?;
        let opener = client.value("opener")?;
        sleep(Duration::from_millis(200));
        lab.a.resume()?;
        ensure!(client.wait()?.success(), "{}", client.said());
        let record = lab.a.audit().expect_completed("outbound")?;
        ensure!(record.field("process.pid") == opener, "{}", record.json());
        ensure!(record.field("process.exited") == "true", "{}", record.json());
        ensure!(record.field("local.spiffe_id") == client_id(), "{}", record.json());
        Ok(())
    })
}

/// Had it been looked at in time, another entry might have been its own, by its groups: by ending early
/// nobody gets the entry that asks for less.
#[test]
fn an_opener_that_is_gone_sheds_no_identity() -> Result<()> {
    let finer = [format!("unix:uid:{}", uid::CLIENT), "unix:supplementary_gid:500".to_owned()];
    let rules = Rules::client_calls_server().entry("finer", &[&finer[0], &finer[1]]);
    Lab::check(&rules, |lab| {
        let echo = lab.echo(7000)?;
        lab.a.pause()?;
        let mut client = lab.client().spawn(probe()?, &["hand-over", "gone", &to(lab)])?;
        client.value("opener")?;
        sleep(Duration::from_millis(200));
        lab.a.resume()?;
        ensure!(!client.wait()?.success(), "{}", client.said());
        let record = lab.a.audit().expect_denied("outbound", "attest_failed")?;
        ensure!(record.field("detail").contains("unix:supplementary_gid:500"), "{}", record.json());
        ensure!(!echo.said().contains("accept="), "{}", echo.said());
        // Who can be looked at is the client, as before.
        lab.client().must(probe()?, &["talk", &to(lab)])?;
        Ok(())
    })
}

/// The opener is gone and its pid is another process's. The opener had no identity, the other one
/// has: it must not lend it to the connection.
#[test]
fn a_reused_pid_lends_nothing() -> Result<()> {
    // Choosing a pid takes root; root has the client's identity here.
    let rules = Rules::client_calls_server().also("client", &["unix:uid:0"]);
    Lab::check(&rules, |lab| {
        let echo = lab.echo(7000)?;
        let root = lab.a.pod(Group::Strict, 0);
        let (address, opener) = (to(lab), uid::STRANGER.to_string());
        root.must(probe()?, &["talk", &address])?;
        lab.a.pause()?;
        let words = ["hand-over", "reused-pid", &address, "--opener-uid", &opener];
        let mut client = root.spawn(probe()?, &words)?;
        let twin = client.value("reused")?;
        sleep(Duration::from_millis(200));
        lab.a.resume()?;
        ensure!(!client.wait()?.success(), "the connection went through: {}", client.said());
        let record = lab.a.audit().expect("outbound", |it| it.field("outcome") == "denied")?;
        ensure!(record.field("process.pid") == twin, "{}", record.json());
        ensure!(record.field("process.uid") == opener, "{}", record.json());
        let reason = record.field("reason");
        ensure!(["no_identity", "pid_reused"].contains(&&*reason), "{}", record.json());
        ensure!(echo.said().matches("accept=").count() == 1, "the server saw: {}", echo.said());
        Ok(())
    })
}

/// Two users run the same file: one has the identity, the other has none.
#[test]
fn two_users_of_one_binary_are_two_workloads() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _echo = lab.echo(7000)?;
        lab.client().must(probe()?, &["talk", &to(lab)])?;
        let stranger = lab.a.pod(Group::Strict, uid::STRANGER);
        ensure!(stranger.run(probe()?, &["talk", &to(lab)])?.failed());
        let record = lab.a.audit().expect_completed("outbound")?;
        ensure!(record.field("process.uid") == uid::CLIENT.to_string(), "{}", record.json());
        let record = lab.a.audit().expect_denied("outbound", "no_identity")?;
        ensure!(record.field("process.uid") == uid::STRANGER.to_string(), "{}", record.json());
        Ok(())
    })
}

/// A copy of the probe that everybody may execute; `more` is appended, which makes it another
/// file with the same behaviour.
fn copy(folder: &Path, name: &str, more: &[u8]) -> Result<PathBuf> {
    let path = folder.join(name);
    let mut bytes = fs::read(probe()?)?;
    bytes.extend_from_slice(more);
    fs::write(&path, bytes)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn digest() -> Result<String> {
    Ok(format!("{:x}", Sha256::digest(fs::read(probe()?)?)))
}

/// The client is whoever runs the probe, by its digest.
fn by_digest() -> Result<Rules> {
    let selector = format!("unix:sha256:{}", digest()?);
    // The server runs the probe, too: what is said of it with more selectors wins.
    let server = [&*format!("unix:uid:{}", uid::SERVER), &*format!("unix:gid:{}", uid::SERVER)];
    Ok(Rules::client_calls_server().also("client", &[&selector]).also("server", &server))
}

/// A user whom no other entry knows.
fn nameless(lab: &Lab) -> Pod {
    lab.a.pod(Group::Strict, uid::STRANGER)
}

#[test]
fn the_digest_is_of_the_file_that_runs() -> Result<()> {
    Lab::check(&by_digest()?, |lab| {
        let _echo = lab.echo(7000)?;
        let genuine = copy(lab.dir(), "genuine", b"")?;
        let forged = copy(lab.dir(), "forged", b"forged")?;
        nameless(lab).must(&genuine, &["talk", &to(lab)]).context("the genuine file")?;
        ensure!(nameless(lab).run(&forged, &["talk", &to(lab)])?.failed(), "a forged file got in");
        lab.a.audit().expect_denied("outbound", "no_identity")?;
        let record = lab.a.audit().expect_completed("outbound")?;
        ensure!(record.field("process.exe_sha256") == digest()?, "{}", record.json());
        Ok(())
    })
}

/// The genuine program runs on while its path is given to another file, and the other way round.
#[test]
fn a_replaced_executable_is_judged_by_what_runs() -> Result<()> {
    Lab::check(&by_digest()?, |lab| {
        let _echo = lab.echo(7000)?;
        let address = to(lab);
        let path = copy(lab.dir(), "replaced", b"")?;
        // It waits before it connects: the connect happens after the replacement.
        let mut running = nameless(lab).spawn(&path, &["talk", &address, "--delay", "1500"])?;
        sleep(Duration::from_millis(500));
        let other = copy(lab.dir(), "other", b"other")?;
        fs::rename(&other, &path)?;
        ensure!(running.wait()?.success(), "the genuine program was refused: {}", running.said());
        ensure!(nameless(lab).run(&path, &["talk", &address])?.failed(), "the replacement got in");
        lab.a.audit().expect_denied("outbound", "no_identity")?;
        Ok(())
    })
}

/// A forged file mounted over the genuine path, in a mount namespace of its own.
#[test]
fn a_bind_mount_over_the_path_fools_nobody() -> Result<()> {
    Lab::check(&by_digest()?, |lab| {
        let _echo = lab.echo(7000)?;
        let genuine = copy(lab.dir(), "mounted", b"")?;
        let forged = copy(lab.dir(), "overlay", b"forged")?;
        let script = format!(
            "mount --bind {forged} {genuine} && exec {genuine} talk {address}",
            forged = forged.display(),
            genuine = genuine.display(),
            address = to(lab),
        );
        // Mounting takes root, whom no entry knows.
        let root = lab.a.pod(Group::Strict, 0);
        let words = ["--mount", "--propagation", "private", "sh", "-c", &script];
        ensure!(root.run("unshare", &words)?.failed(), "the mounted file got in");
        let record = lab.a.audit().expect_denied("outbound", "no_identity")?;
        ensure!(record.field("process.exe_sha256") != digest()?, "{}", record.json());
        nameless(lab).must(&genuine, &["talk", &to(lab)]).context("the genuine file")?;
        Ok(())
    })
}

/// A listener older than the daemon's programs is found by a scan of its holders, and the record
/// says so.
#[test]
fn a_listener_older_than_the_daemon_is_attributed_by_scan() -> Result<()> {
    Lab::prepared(&Rules::client_calls_server(), |lab| {
        let echo = lab.echo(7000)?;
        lab.a.start()?;
        lab.b.start()?;
        lab.client().must(probe()?, &["talk", &to(lab)])?;
        echo.says("accept=")?;
        let record = lab.b.audit().expect_completed("inbound")?;
        ensure!(record.field("process.source") == "scan", "{}", record.json());
        Ok(())
    })
}
