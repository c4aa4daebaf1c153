//! The run: which part comes when. All peers take turns within a round, and who begins changes
//! with each, so that a machine that becomes faster or slower does so for all of them.

use anyhow::{Context as _, Result};

use crate::cpu::{Pinned, Pinning, open_many_files};
use crate::ground::Ground;
use crate::identities::{self, Identities};
use crate::memory::{self, Memory};
use crate::peer::Peer;
use crate::samples::{Cell, Samples};
use crate::scaling::{self, Scaling};
use crate::uninvolved::{self, Uninvolved};
use crate::wire::{self, Wire};
use crate::workload::Workload;
use crate::{Arguments, Part, report};

/// All that a run has found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) samples: Samples,
    pub(crate) memory: Vec<(Peer, Memory)>,
    pub(crate) wires: Vec<(Peer, Wire)>,
    pub(crate) uninvolved: Option<Uninvolved>,
    pub(crate) scaling: Option<Scaling>,
    pub(crate) identities: Option<Identities>,
}

/// Measures what is wanted, shows it, and writes the report if it was all.
pub(crate) fn all(arguments: &Arguments) -> Result<()> {
    open_many_files().context("cannot open many files")?;
    harness::sweep();
    let mut findings = Findings::default();
    pinned(arguments, &mut findings)?;
    if !arguments.pinned_only {
        unpinned(arguments, &mut findings)?;
    }
    report::publish(arguments, &findings)
}

fn pinned(arguments: &Arguments, findings: &mut Findings) -> Result<()> {
    let _pinned = Pinned::new(Pinning::Pinned)?;
    say("labs, daemons and relays, all on one core");
    let ground = Ground::start(&arguments.peers())?;
    for peer in arguments.peers() {
        let wire = wire::check(&ground, peer)?;
        say(&format!("wire of {}: {wire:?}", peer.name()));
        findings.wires.push((peer, wire));
    }
    if arguments.wants(Part::Memory) {
        for peer in arguments.peers() {
            if let Some(memory) = memory::measure(&ground, peer)? {
                say(&format!("{}: {:.1?} KiB a connection", peer.name(), memory.each()));
                findings.memory.push((peer, memory));
            }
        }
    }
    rounds(arguments, Pinning::Pinned, &ground, &mut findings.samples)
}

fn unpinned(arguments: &Arguments, findings: &mut Findings) -> Result<()> {
    say("labs, daemons and relays, on all cores");
    let ground = Ground::start(&arguments.peers())?;
    rounds(arguments, Pinning::Unpinned, &ground, &mut findings.samples)?;
    let (count, time) = (arguments.rounds(), arguments.milliseconds() / 2);
    if arguments.wants(Part::Uninvolved) {
        say("what a program in no scope pays");
        findings.uninvolved = Some(uninvolved::measure(&ground, 2 * count + 1, time)?);
    }
    if arguments.wants(Part::Scaling) {
        say("a connection beside many entries and many connections");
        findings.scaling = Some(scaling::measure(&ground, count, time)?);
    }
    if arguments.wants(Part::Identities) {
        drop(ground);
        say("calls of the Workload API, and entries that change");
        findings.identities = Some(identities::measure(count)?);
    }
    Ok(())
}

fn rounds(
    arguments: &Arguments,
    pinning: Pinning,
    ground: &Ground,
    samples: &mut Samples,
) -> Result<()> {
    let mut peers = arguments.peers();
    for round in 0..arguments.rounds() {
        say(&format!("round {} of {}, {}", round + 1, arguments.rounds(), pinning.name()));
        for workload in Workload::ALL.into_iter().filter(|it| arguments.wants(it.part())) {
            for peer in peers.iter().copied() {
                let sample = workload.run(ground, peer, arguments.milliseconds())?;
                samples.push(Cell { pinning, workload, peer }, round, sample);
            }
        }
        peers.rotate_left(1);
    }
    Ok(())
}

fn say(what: &str) {
    println!("== {what}");
}
