//! Listeners in several hands, and in other hands than before: who shares a port and is not the same
//! owner gets no identity; who takes a port over is who is asked about from then on.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use harness::{Finished, Group, Lab, Record, Rules, Server, eventually, probe, server_id, uid};

const PYTHON: &str = "/usr/bin/python3";
const MARKER: &str = "c0ffee-of-the-shared-listener";

/// Listens in no scope. Two children hold the same socket, each in a cgroup of its own, under the
/// same user; only they stay.
const TWO_SCOPES: &str = r#"
import os, socket, sys
user, groups = int(sys.argv[1]), sys.argv[2:]
s = socket.create_server(("0.0.0.0", 7000))
for group in groups:
    if os.fork() == 0:
        open(group + "/cgroup.procs", "w").write(str(os.getpid()))
        os.setgroups([]); os.setgid(user); os.setuid(user)
        print("serving=", flush=True)
        while True:
            c, _ = s.accept()
            print("accept=", flush=True)
            c.close()
s.close()
os.wait()
"#;

fn to(lab: &Lab) -> String {
    format!("{}:7000", lab.b.ip)
}

fn talk(lab: &Lab) -> Result<Finished> {
    lab.client().run(probe()?, &["talk", &to(lab), "--text", MARKER])
}

/// An echo server that shares its port, of the server's user and this group, from this file.
fn sharing(lab: &Lab, gid: u32, program: &str) -> Result<Server> {
    let (uid, gid) = (format!("--reuid={}", uid::SERVER), format!("--regid={gid}"));
    let words = ["--clear-groups", &uid, &gid, "--", program];
    let words = [&words[..], &["serve", "echo", "0.0.0.0:7000", "--reuse-port"]].concat();
    let server = lab.b.pod(Group::Strict, 0).spawn("setpriv", &words)?;
    server.says("listening=")?;
    Ok(server)
}

/// While one shares its port with this other, nobody is served; without the other, the one is.
fn two_owners(gid: u32, program: impl FnOnce(&Lab) -> Result<String>) -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let probe = probe()?.to_string_lossy().into_owned();
        let mut one = sharing(lab, uid::SERVER, &probe)?;
        talk(lab)?.ok().context("alone")?;
        let served = one.said().matches("accept=").count();
        let mut other = sharing(lab, gid, &program(lab)?)?;
        // Which of them the kernel would take is chance.
        for _ in 0..6 {
            ensure!(talk(lab)?.failed(), "one of two owners was believed");
        }
        let record = lab.b.audit().expect_denied("inbound", "listener_ambiguous")?;
        ensure!(record.field("local.spiffe_id").is_empty(), "{}", record.json());
        ensure!(one.said().matches("accept=").count() == served, "one got: {}", one.said());
        ensure!(!other.said().contains("accept="), "the other got: {}", other.said());
        one.kill();
        other.kill();
        let _again = sharing(lab, uid::SERVER, &probe)?;
        talk(lab)?.ok().context("alone again")?;
        Ok(())
    })
}

#[test]
fn two_groups_on_one_port_get_no_identity() -> Result<()> {
    two_owners(uid::OTHER, |_| Ok(probe()?.to_string_lossy().into_owned()))
}

#[test]
fn two_programs_on_one_port_get_no_identity() -> Result<()> {
    two_owners(uid::SERVER, |lab| {
        let copy = lab.dir().join("another-program");
        fs::copy(probe()?, &copy)?;
        Ok(copy.to_string_lossy().into_owned())
    })
}

/// Workers of one program are one owner.
#[test]
fn two_workers_of_one_program_are_served() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let probe = probe()?.to_string_lossy().into_owned();
        let _one = sharing(lab, uid::SERVER, &probe)?;
        let _other = sharing(lab, uid::SERVER, &probe)?;
        for _ in 0..6 {
            talk(lab)?.ok()?;
        }
        Ok(())
    })
}

#[test]
fn who_listens_again_is_who_is_asked_about() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let mut first = lab.echo(7000)?;
        talk(lab)?.ok().context("the first")?;
        first.kill();
        ensure!(talk(lab)?.failed(), "nobody listens");
        let other = lab.b.pod(Group::Strict, uid::OTHER);
        let mut second = other.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        ensure!(talk(lab)?.failed(), "the second is not who the client wants");
        let id = "spiffe://example.org/other";
        let of_the_second = |it: &Record| it.field("local.spiffe_id") == id;
        let record = lab.b.audit().expect("inbound", of_the_second)?;
        ensure!(record.field("outcome") == "peer_failed", "{}", record.json());
        let record = lab.a.audit().expect_denied("outbound", "peer_not_allowed")?;
        ensure!(record.field("peer.spiffe_id") == id, "{}", record.json());
        ensure!(!second.said().contains("accept="), "the second got: {}", second.said());
        second.kill();
        let _third = lab.echo(7000)?;
        talk(lab)?.ok().context("the first, again")?;
        let records = lab.b.audit().closed("inbound");
        let last = records.last().context("no record")?;
        ensure!(last.field("local.spiffe_id") == server_id(), "{}", last.json());
        Ok(())
    })
}

/// Older than the daemon, and its holders are in different scopes: the strictest of them counts, and
/// since they are not the same owner, nobody is served.
#[test]
fn an_older_listener_in_two_scopes_is_the_strictest_ones_and_refused() -> Result<()> {
    Lab::prepared(&Rules::client_calls_server(), |lab| {
        let groups = [Group::Permissive, Group::Strict].map(|group| lab.b.group(group));
        let groups = groups.map(|path| path.to_string_lossy().into_owned());
        let words = ["-c", TWO_SCOPES, &uid::SERVER.to_string(), &groups[0], &groups[1]];
        let server = lab.b.pod(Group::Outside, 0).spawn(PYTHON, &words)?;
        eventually("both", || (server.said().matches("serving=").count() == 2).then_some(()))?;
        lab.a.start()?;
        lab.b.start()?;
        let outsider = lab.a.pod(Group::Outside, uid::STRANGER);
        let plain = outsider.run(probe()?, &["talk", &to(lab), "--text", MARKER])?;
        ensure!(plain.failed(), "plaintext was answered");
        ensure!(talk(lab)?.failed(), "one of two owners was believed");
        let ambiguous = || {
            let all = lab.b.audit().closed("inbound");
            let of = |it: &&Record| it.field("reason") == "listener_ambiguous";
            let found: Vec<Record> = all.iter().filter(of).cloned().collect();
            (found.len() >= 2).then_some(found)
        };
        for record in eventually("a record of each", ambiguous)? {
            ensure!(record.field("mode") == "strict", "{}", record.json());
            ensure!(record.field("scope").ends_with("/strict"), "{}", record.json());
        }
        ensure!(!server.said().contains("accept="), "the server saw: {}", server.said());
        Ok(())
    })
}
