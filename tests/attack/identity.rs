//! A connection or an executable that pretends to be another program's.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use harness::{Finished, Group, Lab, Pod, Rules, client_id, probe, uid, value};
use sha2::{Digest as _, Sha256};

use crate::row::{Control, Row, Score, Who, compare, times};
use crate::tricks;

const LENT: &str = "4242";

fn to(lab: &Lab) -> String {
    format!("{}:7000", lab.b.ip)
}

fn stranger(lab: &Lab) -> Pod {
    lab.a.pod(Group::Strict, uid::STRANGER)
}

/// Whether the client's identity was given to anybody since `before` records were there.
fn was_client(lab: &Lab, before: usize) -> Result<bool> {
    let closed = || lab.a.audit().closed("outbound").get(before).cloned();
    let record = harness::eventually("a record", closed)?;
    Ok(record.field("local.spiffe_id") == client_id())
}

/// Acts, and looks whether that gave it the client's identity.
fn taken(lab: &Lab, act: impl FnOnce() -> Result<Finished>) -> Result<Score> {
    let before = lab.a.audit().closed("outbound").len();
    let said = act()?;
    was_client(lab, before).map(Score::once).with_context(|| format!("{said:?}"))
}

/// While the daemon is held still, so that it looks only afterwards.
fn unseen(lab: &Lab, script: &str, words: &[&str], pod: &Pod) -> Result<Finished> {
    lab.a.pause()?;
    let mut program = tricks::spawn(pod, script, words)?;
    lab.a.resume()?;
    let status = program.wait()?;
    Ok(Finished { status, stdout: program.said(), stderr: String::new() })
}

/// The client is who runs the probe, by its digest; the server runs it too, and says more.
fn by_digest() -> Result<Rules> {
    let digest = format!("{:x}", Sha256::digest(fs::read(probe()?)?));
    let server = [&*format!("unix:uid:{}", uid::SERVER), &*format!("unix:gid:{}", uid::SERVER)];
    let client = format!("unix:sha256:{digest}");
    Ok(Rules::client_calls_server().also("client", &[&client]).also("server", &server))
}

#[test]
fn another_program_after_the_connect() -> Result<()> {
    let tricks = [
        ("connect(), then execute the program whose identity is wanted", "exec"),
        ("connect() deferred by TCP_FASTOPEN_CONNECT, then the same", "deferred-exec"),
    ];
    Lab::check(&by_digest()?, |lab| {
        let _echo = lab.echo(7000)?;
        let program = probe()?.to_string_lossy().into_owned();
        let script = include_str!("tricks/becomes.py");
        let rows = tricks.map(|(trick, how)| (Row { who: Who::Strict, trick }, how));
        let round =
            |how: &str| taken(lab, || unseen(lab, script, &[how, &program], &stranger(lab)));
        let before = rows.map(|(_, how)| round(how));
        let control = Control::Off(&["executable"]);
        control.apply(&lab.a)?;
        for ((row, how), score) in rows.into_iter().zip(before) {
            row.stopped(score?, control, round(how)?)?;
        }
        Ok(())
    })
}

/// As above, with nobody holding the daemon still.
#[test]
fn another_program_at_any_moment() -> Result<()> {
    let trick = "connect() and at once execute the program whose identity is wanted";
    let row = Row { who: Who::Strict, trick };
    Lab::check(&by_digest()?, |lab| {
        let _echo = lab.echo(7000)?;
        let program = probe()?.to_string_lossy().into_owned();
        compare(row, (Control::Off(&["executable"]), &lab.a), |round| {
            let count = if round == "shipped" { times(100, 3000) } else { 3000 };
            let enough = if round == "shipped" { "0" } else { "1" };
            let words = [&*count.to_string(), enough, &program];
            let said =
                tricks::run(&stranger(lab), include_str!("tricks/becomes_often.py"), &words)?;
            let said = said.ok()?;
            let number = |name| value(said, name).and_then(|it| it.parse().ok());
            let (tries, hits) = (number("tries"), number("hits"));
            Ok(Score { tries: tries.context("no count")?, hits: hits.context("no count")? })
        })
    })
}

#[test]
fn a_pid_that_was_anothers() -> Result<()> {
    let trick =
        "pid of an opener that is gone, taken by a process with more groups (clone3 with set_tid)";
    let selectors =
        [format!("unix:uid:{}", uid::STRANGER), format!("unix:supplementary_gid:{LENT}")];
    let rules = Rules::client_calls_server().also("client", &[&selectors[0], &selectors[1]]);
    Lab::check(&rules, |lab| {
        let _echo = lab.echo(7000)?;
        let script = include_str!("tricks/pid_reused.py");
        let words = [&*uid::STRANGER.to_string(), LENT];
        // Choosing a pid takes root, whom no entry knows.
        let root = lab.a.pod(Group::Strict, 0);
        let row = Row { who: Who::Root, trick };
        compare(row, (Control::Off(&["start-time"]), &lab.a), |_| {
            taken(lab, || unseen(lab, script, &words, &root))
        })
    })
}

/// A copy of the probe that everybody may execute.
fn copy(lab: &Lab, name: &str, more: &[u8]) -> Result<PathBuf> {
    let path = lab.dir().join(name);
    let mut bytes = fs::read(probe()?)?;
    bytes.extend_from_slice(more);
    fs::write(&path, bytes)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

#[test]
fn another_file_under_the_path() -> Result<()> {
    let trick = "own file mounted over the path of a trusted one (user and mount namespace)";
    Lab::prepared(&Rules::none(), |lab| {
        let genuine = copy(lab, "genuine", b"")?;
        let forged = copy(lab, "forged", b"forged")?;
        let path = format!("unix:path:{}", genuine.display());
        let rules = Rules::client_calls_server().also("client", &[&path]);
        for node in [&lab.a, &lab.b] {
            node.configure(&rules)?;
            node.start()?;
        }
        let _echo = lab.echo(7000)?;
        let (genuine, forged) = (genuine.to_string_lossy(), forged.to_string_lossy());
        let address = to(lab);
        stranger(lab).must(&*genuine, &["talk", &address]).context("the genuine file")?;
        let script = "mount --bind \"$1\" \"$2\" && exec \"$2\" talk \"$3\"";
        let words = ["-rm", "sh", "-c", script, "sh", &forged, &genuine, &address];
        let row = Row { who: Who::Strict, trick };
        compare(row, (Control::Off(&["host-path"]), &lab.a), |_| {
            taken(lab, || stranger(lab).run("unshare", &words))
        })
    })
}

#[test]
fn root_of_a_user_namespace() -> Result<()> {
    let row = Row { who: Who::Strict, trick: "uid 0 of an own user namespace" };
    let rules = Rules::client_calls_server().also("client", &["unix:uid:0"]);
    Lab::check(&rules, |lab| {
        let _echo = lab.echo(7000)?;
        let (program, address) = (probe()?.to_string_lossy().into_owned(), to(lab));
        let words = ["-r", &program, "talk", &address];
        let score = taken(lab, || stranger(lab).run("unshare", &words))?;
        let root = lab.a.pod(Group::Strict, 0);
        let seen = taken(lab, || root.run("unshare", &words))?;
        row.stopped(score, Control::Instead("uid 0 of the host, who has the identity"), seen)
    })
}

/// Names below a cgroup are chosen by whoever it is delegated to.
#[test]
fn a_cgroup_with_a_forged_name() -> Result<()> {
    let trick = "delegated cgroup with the path of another as its name, in a cgroup namespace";
    let row = Row { who: Who::Strict, trick };
    Lab::prepared(&Rules::none(), |lab| {
        let path = format!("{}/strict/service", lab.a.cgroup());
        let selector = format!("cgroup:path:{path}");
        let rules = Rules::client_calls_server().also("client", &[&selector]);
        for node in [&lab.a, &lab.b] {
            node.configure(&rules)?;
            node.start()?;
        }
        let _echo = lab.echo(7000)?;
        let strict = lab.a.group(Group::Strict);
        let act = |folder: PathBuf| {
            fs::create_dir_all(&folder)?;
            let script = format!(
                "echo 0 >{folder}/cgroup.procs && exec unshare -C setpriv --clear-groups \
                 --reuid={user} --regid={user} {probe} talk {to}",
                folder = folder.display(),
                user = uid::STRANGER,
                probe = probe()?.display(),
                to = to(lab),
            );
            taken(lab, || lab.a.in_netns("sh", &["-c", &script]))
        };
        let score = act(strict.join("user").join(path.trim_start_matches('/')))?;
        let seen = act(strict.join("service"))?;
        row.stopped(score, Control::Instead("the cgroup that is meant"), seen)
    })
}

/// A set-user-id program acts as its owner, and says so; who started it has no part in that.
#[test]
fn real_and_effective_user() -> Result<()> {
    let trick = "real user id of the client under another effective one";
    let row = Row { who: Who::Root, trick };
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _echo = lab.echo(7000)?;
        let script = include_str!("tricks/two_users.py");
        let (client, stranger) = (uid::CLIENT.to_string(), uid::STRANGER.to_string());
        let root = lab.a.pod(Group::Strict, 0);
        let score = taken(lab, || tricks::run(&root, script, &[&client, &stranger]))?;
        let seen = taken(lab, || tricks::run(&root, script, &[&stranger, &client]))?;
        let control = Control::Instead("the client's as the effective one");
        row.stopped(score, control, seen)
    })
}

#[test]
fn a_trusted_program_run_by_its_loader() -> Result<()> {
    let trick = "trusted program started through the dynamic loader, to shed its name";
    let row = Row { who: Who::Strict, trick };
    Lab::check(&by_digest()?, |lab| {
        let server = tricks::plain_server(lab)?;
        let loader = fs::read_dir("/lib64")?.flatten().map(|entry| entry.path());
        let is_loader = |path: &PathBuf| path.to_string_lossy().contains("ld-linux");
        let loader = loader.into_iter().find(is_loader).context("no dynamic loader")?;
        let (program, address) = (probe()?.to_string_lossy().into_owned(), to(lab));
        let act = |group, marker: &str| {
            let words = [&*program, "talk", &address, "--text", marker];
            lab.a.pod(group, uid::STRANGER).run(&loader, &words)
        };
        let capture = lab.a.capture("loader")?;
        let shed = act(Group::Strict, "of-the-strict")?;
        let seen = act(Group::Permissive, "of-the-permissive")?;
        let packets = capture.stop()?;
        ensure!(shed.failed() && seen.ok().is_ok(), "{shed:?} {seen:?}");
        drop(server);
        let control = Control::Instead("the same in a permissive scope");
        let score = |marker: &[u8]| Score::once(packets.contain(marker));
        row.stopped(score(b"of-the-strict"), control, score(b"of-the-permissive"))
    })
}
