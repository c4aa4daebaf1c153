//! One row of the published table: a trick, who can try it, what came of it against the daemon as
//! shipped, and what came of it in the control run without the countermeasure.

use std::env;
use std::fs::File;
use std::io::Write as _;

use anyhow::{Context as _, Result, ensure};
use harness::Node;

use crate::switches::SWITCHES;

/// Who tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// A program of any user in a strict scope.
    Strict,
    /// A program of any user in no scope.
    Outside,
    /// Root in the network namespace, or in the scope.
    Root,
    /// Whoever reads and writes the wire.
    Wire,
}

impl Who {
    fn shown(self) -> &'static str {
        match self {
            Self::Strict => "unprivileged, in a strict scope",
            Self::Outside => "unprivileged, in no scope",
            Self::Root => "root in the namespace",
            Self::Wire => "on the wire",
        }
    }
}

/// What is tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) who: Who,
    pub(crate) trick: &'static str,
}

/// How often something was tried, and how often it worked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Score {
    pub(crate) tries: u64,
    pub(crate) hits: u64,
}

impl Score {
    pub(crate) const fn once(hit: bool) -> Self {
        Self { tries: 1, hits: if hit { 1 } else { 0 } }
    }
}

/// What takes the countermeasure away for the control run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Control {
    /// The test build of the daemon with these [`SWITCHES`] off.
    Off(&'static [&'static str]),
    /// The daemon as shipped, with these programs detached.
    Detached(&'static [&'static str]),
    /// Something else about the attack's surroundings, in words.
    Instead(&'static str),
}

impl Control {
    /// Takes the countermeasure away on one node.
    pub(crate) fn apply(self, node: &Node) -> Result<()> {
        match self {
            Self::Off(names) => {
                let mask = names
                    .iter()
                    .try_fold(0, |mask, name| Ok::<_, anyhow::Error>(mask | bit(name)?))?;
                node.crash()?;
                node.start_switched(mask)
            }
            Self::Detached(programs) => {
                programs.iter().try_for_each(|program| node.detach(program))
            }
            Self::Instead(_) => Ok(()),
        }
    }

    fn shown(self) -> String {
        match self {
            Self::Off(names) => {
                let without = SWITCHES.iter().filter(|switch| names.contains(&switch.name));
                without.map(|switch| switch.without).collect::<Vec<_>>().join("; ")
            }
            Self::Detached(programs) => {
                let names: Vec<_> = programs.iter().map(|it| format!("`{it}`")).collect();
                format!("{} detached", names.join(", "))
            }
            Self::Instead(words) => words.to_owned(),
        }
    }
}

fn bit(name: &str) -> Result<u64> {
    let at = SWITCHES.iter().position(|switch| switch.name == name);
    let at = at.with_context(|| format!("no switch `{name}`"))?;
    Ok(1 << at)
}

impl Row {
    /// Judges and publishes: it never worked, and without the countermeasure it did.
    pub(crate) fn stopped(self, score: Score, control: Control, seen: Score) -> Result<()> {
        let trick = self.trick;
        ensure!(score.tries > 0, "{trick}: never tried");
        ensure!(score.hits == 0, "{trick}: WORKED {} of {} times", score.hits, score.tries);
        ensure!(seen.hits > 0, "{trick}: the control run ({}) shows nothing", control.shown());
        self.publish(
            &format!("stopped ({} of {})", score.tries, score.tries),
            &format!("worked ({} of {}): {}", seen.hits, seen.tries, control.shown()),
            "",
        )
    }

    /// Publishes a known boundary: it works, and SECURITY.md says so in these words.
    pub(crate) fn boundary(self, score: Score, words: &'static str) -> Result<()> {
        let security = include_str!("../../SECURITY.md");
        ensure!(security.contains(words), "SECURITY.md does not say: {words}");
        ensure!(score.hits > 0, "{}: did not work, so it is no boundary", self.trick);
        self.publish(&format!("works ({} of {})", score.hits, score.tries), "", words)
    }

    /// Publishes that it cannot be tried here, and why: no result is better than a guess.
    pub(crate) fn absent(self, why: &str, words: &'static str) -> Result<()> {
        self.publish(&format!("not tried: {why}"), "", words)
    }

    fn publish(self, result: &str, control: &str, boundary: &str) -> Result<()> {
        let cells = [self.who.shown(), self.trick, result, control, boundary];
        let line = cells.map(|cell| cell.replace(['\t', '\n', '|'], " ")).join("\t");
        #[expect(clippy::print_stdout, reason = "the count is part of the proof")]
        {
            println!("{line}");
        }
        let Some(path) = told("TACIT_ATTACK_RESULTS") else { return Ok(()) };
        let mut file = File::options().create(true).append(true).open(path)?;
        file.write_all(format!("{line}\n").as_bytes()).context("cannot write the result")
    }
}

/// How often a race is run: the first number in `cargo xtask test`, the second in
/// `cargo xtask attack`.
pub(crate) fn times(fast: u64, full: u64) -> u64 {
    if told("TACIT_ATTACK_FULL").is_some() { full } else { fast }
}

#[expect(clippy::disallowed_methods, reason = "tests are told by their runner what to do")]
fn told(variable: &str) -> Option<String> {
    env::var(variable).ok()
}

/// Tries something against the daemons as shipped (`shipped`) and then, in the same lab, without the
/// countermeasure on this node (`control`).
pub(crate) fn compare(
    row: Row,
    (control, on): (Control, &Node),
    attack: impl Fn(&str) -> Result<Score>,
) -> Result<()> {
    let score = attack("shipped").context("the attack")?;
    control.apply(on)?;
    let seen = attack("control").context("the control")?;
    row.stopped(score, control, seen)
}

/// A switch that changes nothing, or cannot be thrown, would make its control run a lie.
#[test]
fn every_switch_can_be_thrown() -> Result<()> {
    ensure!(SWITCHES.len() <= 64, "more switches than bits");
    for (at, switch) in SWITCHES.iter().enumerate() {
        ensure!(bit(switch.name)? == 1 << at, "`{}` is there twice", switch.name);
        let thrown = switch.edits.iter().filter(|edit| edit.replace.contains("{off}"));
        ensure!(thrown.count() > 0, "`{}` is asked nowhere", switch.name);
        for edit in switch.edits {
            ensure!(edit.find != edit.replace, "`{}` edits nothing in {}", switch.name, edit.file);
        }
    }
    Ok(())
}
