//! What is measured between two applications, and one measurement of it.

use anyhow::{Context as _, Result};
use harness::value;

use crate::Part;
use crate::cpu::used;
use crate::ground::Ground;
use crate::peer::Peer;

/// One kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    /// Bulk towards the server, with so many streams.
    Up(u8),
    /// Bulk towards the client, with so many streams.
    Down(u8),
    /// Round trips of 64 bytes on so many connections.
    Trips(u8),
    /// New connections, so many at a time.
    New(u8),
}

/// What one load found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    /// MB, round trips or connections a second.
    pub(crate) rate: f64,
    /// Processor time of both hops, seconds for each GB (bulk) or connection (new).
    pub(crate) cpu: Option<f64>,
    /// Median and 99th percentile of one round trip, microseconds.
    pub(crate) times: Option<[f64; 2]>,
}

impl Workload {
    pub(crate) const ALL: [Self; 8] = [
        Self::Up(1),
        Self::Down(1),
        Self::Up(8),
        Self::Down(8),
        Self::Trips(1),
        Self::Trips(16),
        Self::New(1),
        Self::New(8),
    ];

    /// As tables show it.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Up(streams) => format!("bulk up, {streams}"),
            Self::Down(streams) => format!("bulk down, {streams}"),
            Self::Trips(connections) => format!("round trips, {connections}"),
            Self::New(at_once) => format!("new connections, {at_once}"),
        }
    }

    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Up(_) | Self::Down(_) => "MB/s",
            Self::Trips(_) | Self::New(_) => "/s",
        }
    }

    pub(crate) fn part(self) -> Part {
        match self {
            Self::Up(_) | Self::Down(_) => Part::Bulk,
            Self::Trips(_) => Part::Trips,
            Self::New(_) => Part::New,
        }
    }

    /// Loads a peer once.
    pub(crate) fn run(self, ground: &Ground, peer: Peer, milliseconds: u32) -> Result<Sample> {
        let time = format!("--milliseconds={milliseconds}");
        let before = cpu(ground, peer)?;
        let said = match self {
            Self::Up(n) => ground.load(peer, "bulk", &["up", &format!("--streams={n}"), &time]),
            Self::Down(n) => ground.load(peer, "bulk", &["down", &format!("--streams={n}"), &time]),
            Self::Trips(n) => ground.load(peer, "trips", &[&format!("--connections={n}"), &time]),
            Self::New(n) => ground.load(peer, "new", &[&format!("--at-once={n}"), &time]),
        }?;
        let after = cpu(ground, peer)?;
        let seconds = number(&said, "seconds")?;
        let (rate, amount, times) = match self {
            Self::Up(_) | Self::Down(_) => {
                let bytes = number(&said, "bytes")?;
                (bytes / 1e6 / seconds, bytes / 1e9, None)
            }
            Self::Trips(_) => {
                let trips = number(&said, "trips")?;
                let times = [number(&said, "p50_ns")? / 1e3, number(&said, "p99_ns")? / 1e3];
                (trips / seconds, trips, Some(times))
            }
            Self::New(_) => {
                let connections = number(&said, "connections")?;
                (connections / seconds, connections, None)
            }
        };
        let cpu = before.zip(after).map(|(before, after)| (after - before) / amount);
        Ok(Sample { rate, cpu, times })
    }
}

/// Processor time that both hops of a peer have used so far, seconds.
fn cpu(ground: &Ground, peer: Peer) -> Result<Option<f64>> {
    match ground.hops(peer) {
        Some([near, far]) => Ok(Some(used(&near)? + used(&far)?)),
        None => Ok(None),
    }
}

/// The number behind `name=`.
pub(crate) fn number(said: &str, name: &str) -> Result<f64> {
    let text = value(said, name).with_context(|| format!("no {name}= in `{said}`"))?;
    text.parse().with_context(|| format!("{name}={text} is no number"))
}
