//! Running the attackers' scripts, and searching the wire for what they tried to send.

use anyhow::{Context as _, Result};
use harness::{Finished, Group, Lab, Pod, Server};

use crate::row::{Control, Row, Score};

const PYTHON: &str = "/usr/bin/python3";

/// Runs a script to its end; what came of it is in the answer, or on the wire.
pub(crate) fn run(pod: &Pod, script: &str, words: &[&str]) -> Result<Finished> {
    pod.run(PYTHON, &[&["-c", script], words].concat())
}

/// Starts a script and waits until it says that it is ready.
pub(crate) fn spawn(pod: &Pod, script: &str, words: &[&str]) -> Result<Server> {
    let server = pod.spawn(PYTHON, &[&["-c", script], words].concat())?;
    server.says("ready")?;
    Ok(server)
}

/// Tries to send the marker that it is given.
type Send<'a> = Box<dyn Fn(&Lab, &str) -> Result<Finished> + 'a>;

/// A way in which a marker of a strict program might get onto the wire.
pub(crate) struct Leak<'a> {
    pub(crate) row: Row,
    pub(crate) send: Send<'a>,
}

impl<'a> Leak<'a> {
    pub(crate) fn new(row: Row, send: impl Fn(&Lab, &str) -> Result<Finished> + 'a) -> Self {
        Self { row, send: Box::new(send) }
    }
}

/// Tries them all on node a: first as shipped, where the wire must hold no marker, then without the
/// countermeasure, where it must hold each.
pub(crate) fn all_stopped(lab: &Lab, leaks: &[Leak<'_>], control: Control) -> Result<()> {
    let before = tried(lab, leaks, "shipped")?;
    control.apply(&lab.a)?;
    let after = tried(lab, leaks, "control")?;
    for ((leak, hit), seen) in leaks.iter().zip(before).zip(after) {
        let said = || format!("as shipped: {:?}\nin the control: {:?}", hit.1, seen.1);
        leak.row.stopped(Score::once(hit.0), control, Score::once(seen.0)).with_context(said)?;
    }
    Ok(())
}

/// Tries them all and says which marker was on the wire.
pub(crate) fn tried(lab: &Lab, leaks: &[Leak<'_>], round: &str) -> Result<Vec<(bool, Finished)>> {
    let marker = |at: usize| format!("leak-{round}-{at}-of-the-strict");
    let capture = lab.a.capture(round)?;
    let mut said = Vec::new();
    for (at, leak) in leaks.iter().enumerate() {
        said.push((leak.send)(lab, &marker(at)).with_context(|| leak.row.trick)?);
    }
    let packets = capture.stop()?;
    let found = (0..leaks.len()).map(|at| packets.contain(marker(at).as_bytes()));
    Ok(found.zip(said).collect())
}

/// A server in no scope on node b that takes plaintext gladly.
pub(crate) fn plain_server(lab: &Lab) -> Result<Server> {
    let pod = lab.b.pod(Group::Outside, harness::uid::STRANGER);
    pod.serve(harness::probe()?, &["serve", "echo", "[::]:7000"], 7000)
}
