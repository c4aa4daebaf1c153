//! What steers Tacit: its maps and programs, its sockets, its connections, tried by those who have
//! no business there.

use anyhow::{Context as _, Result};
use harness::{Group, Lab, Pod, Rules, uid, value};

use crate::row::{Control, Row, Score, Who};
use crate::tricks;

const ROOT: Control = Control::Instead("root of the host");

/// A script that says `worked` once it has done what it should not be able to.
fn worked(pod: &Pod, script: &str, words: &[&str]) -> Result<Score> {
    Ok(Score::once(tricks::run(pod, script, words)?.stdout.contains("worked")))
}

#[test]
fn maps_and_programs() -> Result<()> {
    let script = include_str!("tricks/bpf.py");
    Lab::check(&Rules::client_calls_server(), |lab| {
        let pins = lab.a.pins().to_string_lossy().into_owned();
        let root = lab.a.pod(Group::Outside, 0);
        let newest = |what: &str| -> Result<String> {
            let said = tricks::run(&root, script, &[what, &pins])?;
            value(said.ok()?, "newest").context("no number")
        };
        let (maps, links) = (newest("newest-maps")?, newest("newest-links")?);
        let rows = [
            ("pinned maps and links opened by their path", ["path", &pins, ""]),
            ("maps opened by their number", ["maps", &pins, &maps]),
            ("links opened by their number", ["links", &pins, &links]),
        ];
        for (trick, words) in rows {
            let row = Row { who: Who::Strict, trick };
            let score = worked(&lab.client(), script, &words)?;
            row.stopped(score, ROOT, worked(&root, script, &words)?)?;
        }
        // In a user namespace one is root.
        let trick = "maps opened by their number, as root of an own user namespace";
        let words = ["-rm", "/usr/bin/python3", "-c", script, "maps", &pins, &maps];
        let said = lab.client().run("unshare", &words)?;
        let seen = worked(&root, script, &["maps", &pins, &maps])?;
        let score = Score::once(said.stdout.contains("worked"));
        Row { who: Who::Strict, trick }.stopped(score, ROOT, seen)
    })
}

#[test]
fn the_control_socket() -> Result<()> {
    let row = Row { who: Who::Outside, trick: "asking the daemon over its control socket" };
    Lab::check(&Rules::client_calls_server(), |lab| {
        let socket = lab.a.socket().to_string_lossy().into_owned();
        let script = include_str!("tricks/asks.py");
        let outsider = lab.a.pod(Group::Outside, uid::STRANGER);
        let score = worked(&outsider, script, &[&socket])?;
        row.stopped(score, ROOT, worked(&lab.a.pod(Group::Outside, 0), script, &[&socket])?)
    })
}

#[test]
fn the_daemons_memory() -> Result<()> {
    let row = Row { who: Who::Outside, trick: "reading the daemon's memory and descriptors" };
    Lab::check(&Rules::client_calls_server(), |lab| {
        let daemon = lab.a.daemon_pid()?.to_string();
        let script = include_str!("tricks/reads_process.py");
        let outsider = lab.a.pod(Group::Outside, uid::STRANGER);
        let score = worked(&outsider, script, &[&daemon])?;
        row.stopped(score, ROOT, worked(&lab.a.pod(Group::Outside, 0), script, &[&daemon])?)
    })
}

/// Whoever may steal a descriptor has the connection: another user may not.
#[test]
fn a_connection_of_another_user() -> Result<()> {
    let trick = "live connection of another user stolen by pidfd_getfd";
    let row = Row { who: Who::Strict, trick };
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _echo = lab.echo(7000)?;
        let script = include_str!("tricks/steals.py");
        let round = |thief: u32| {
            let victim = tricks::spawn(&lab.client(), include_str!("tricks/holds.py"), &[])?;
            let number = victim.value("fd")?;
            let words = [&*victim.pid().to_string(), &number];
            worked(&lab.a.pod(Group::Strict, thief), script, &words)
        };
        let control = Control::Instead("the same user (a boundary)");
        row.stopped(round(uid::STRANGER)?, control, round(uid::CLIENT)?)
    })
}
