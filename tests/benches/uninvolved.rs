//! What a program pays that is in no scope: with every hook attached to its cgroup and namespace,
//! against none, in turns. The program and its peer are on one processor; the daemons, which write
//! down what they observe, run where there is room, and what they use is told apart.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use harness::{Lab, Node, Server, load};

use crate::cpu::{Pinned, Pinning, used};
use crate::ground::{Ground, outside};
use crate::samples::median;
use crate::workload::number;

/// Where the servers of these programs listen, in no scope either.
const PORT: u16 = 7001;
/// Dials of one measurement.
const DIALS: u32 = 2000;

/// Medians without and with hooks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pair {
    pub(crate) without: f64,
    pub(crate) with: f64,
    /// The median of the ratios within a round, with to without.
    pub(crate) ratio: f64,
}

/// What was found on one path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cost {
    /// `loopback` or `veth`.
    pub(crate) path: &'static str,
    /// One `connect()`, nanoseconds.
    pub(crate) connect: Pair,
    /// One packet of 64 bytes from a program to a program: half of a round trip, nanoseconds.
    pub(crate) packet: Pair,
    /// Bytes of one stream, MB/s.
    pub(crate) bulk: Pair,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Uninvolved {
    pub(crate) loopback: Cost,
    pub(crate) veth: Cost,
    /// Processor time of the daemon to record an observed connection, microseconds.
    pub(crate) recording: f64,
}

/// Measures both paths.
pub(crate) fn measure(ground: &Ground, rounds: usize, milliseconds: u32) -> Result<Uninvolved> {
    let _pinned = Pinned::new(Pinning::Pinned)?;
    let labs = [&ground.bare, &ground.meshed];
    let mut servers: Vec<Server> = Vec::new();
    for node in labs.iter().flat_map(|lab| [&lab.a, &lab.b]) {
        let address = format!("0.0.0.0:{PORT}");
        servers.push(outside(node).serve(load()?, &["serve", &address], PORT)?);
    }
    let time = format!("--milliseconds={milliseconds}");
    let cost = |path: &'static str, host: &str| -> Result<Cost> {
        let to = format!("{host}:{PORT}");
        let dial = || ["dial".to_owned(), to.clone(), format!("--count={DIALS}")];
        let trips = || ["trips".to_owned(), to.clone(), time.clone()];
        let bulk = || ["bulk".to_owned(), to.clone(), "up".to_owned(), time.clone()];
        Ok(Cost {
            path,
            connect: pair(labs, rounds, |node| number(&said(node, &dial())?, "p50_ns"))?,
            packet: pair(labs, rounds, |node| Ok(number(&said(node, &trips())?, "p50_ns")? / 2.0))?,
            bulk: pair(labs, rounds, |node| {
                let said = said(node, &bulk())?;
                Ok(number(&said, "bytes")? / 1e6 / number(&said, "seconds")?)
            })?,
        })
    };
    let loopback = cost("loopback", "127.0.0.1")?;
    let recording = recording(&ground.meshed.a)?;
    Ok(Uninvolved { loopback, veth: cost("veth", ground.bare.b.ip)?, recording })
}

/// What the daemon uses while connections are opened and closed over loopback, for each.
fn recording(node: &Node) -> Result<f64> {
    let daemon = node.daemon_pod();
    let before = used(daemon.cgroup())?;
    let words = ["dial".to_owned(), format!("127.0.0.1:{PORT}"), format!("--count={DIALS}")];
    said(node, &words)?;
    // The daemon writes behind.
    sleep(Duration::from_secs(1));
    Ok((used(daemon.cgroup())? - before) * 1e6 / f64::from(DIALS))
}

fn said(node: &Node, words: &[String]) -> Result<String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    outside(node).must(load()?, &words)
}

/// Measures without and with hooks in turns; who begins changes with each round.
fn pair(
    [bare, meshed]: [&Lab; 2],
    rounds: usize,
    measure: impl Fn(&Node) -> Result<f64>,
) -> Result<Pair> {
    let (mut without, mut with, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let (first, second) = if round % 2 == 0 { (bare, meshed) } else { (meshed, bare) };
        let (one, other) = (measure(&first.a)?, measure(&second.a)?);
        let (plain, hooked) = if round % 2 == 0 { (one, other) } else { (other, one) };
        without.push(plain);
        with.push(hooked);
        ratios.push(hooked / plain);
    }
    let middle = |values| median(values).unwrap_or(f64::NAN);
    Ok(Pair { without: middle(without), with: middle(with), ratio: middle(ratios) })
}
