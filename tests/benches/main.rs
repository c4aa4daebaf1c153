//! The benchmarks: Tacit, plain TCP and other relays in one interleaved run, what a program that
//! has nothing to do with Tacit pays, and how the cost of a connection grows. It writes
//! `docs/benchmarks.md` and its charts itself.
//!
//! Run it with `cargo xtask bench`. Start at `run.rs`.
#![expect(clippy::print_stdout, reason = "a benchmark shows how far it is")]

mod chart;
mod cpu;
mod envoy;
mod ground;
mod identities;
mod memory;
mod peer;
mod report;
mod run;
mod samples;
mod scaling;
mod stock;
mod targets;
mod uninvolved;
mod wire;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use peer::Peer;

/// What can be measured on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Bytes a second and processor time per byte.
    Bulk,
    /// Round trips of 64 bytes.
    Trips,
    /// New connections with full handshakes.
    New,
    /// Memory of idle connections.
    Memory,
    /// What a program in no scope pays.
    Uninvolved,
    /// The cost of a connection beside many entries and many connections.
    Scaling,
    /// What programs that know SPIFFE wait for, and how soon a changed entry is in force.
    Identities,
}

/// Measures. With any choice of parts or peers the results are shown and not written.
#[derive(Debug, Parser)]
struct Arguments {
    /// Fewer and shorter rounds: a few minutes.
    #[arg(long)]
    quick: bool,
    /// Only these parts.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Only these peers; plain TCP is always measured.
    #[arg(long, value_enum)]
    peer: Vec<Peer>,
    /// How many rounds.
    #[arg(long)]
    rounds: Option<usize>,
    /// How long one load runs, milliseconds.
    #[arg(long)]
    milliseconds: Option<u32>,
    /// Leave out the run over all processors.
    #[arg(long)]
    pinned_only: bool,
    /// What was built, for the report.
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// Where the report is written.
    #[arg(long, default_value = "docs")]
    out: PathBuf,
}

impl Arguments {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// Whether all is measured, so that a report can be made of it.
    fn is_whole(&self) -> bool {
        self.only.is_empty() && self.peer.is_empty() && !self.pinned_only
    }

    fn peers(&self) -> Vec<Peer> {
        let wanted =
            |peer: &Peer| *peer == Peer::Plain || self.peer.is_empty() || self.peer.contains(peer);
        Peer::value_variants().iter().copied().filter(wanted).collect()
    }

    fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 3 } else { 5 })
    }

    fn milliseconds(&self) -> u32 {
        self.milliseconds.unwrap_or(if self.quick { 600 } else { 2000 })
    }
}

fn main() -> ExitCode {
    match run::all(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAIL: {error:#}");
            ExitCode::FAILURE
        }
    }
}
