//! What programs that know SPIFFE wait for, and how soon a changed entry is in force: for the
//! streams of many of them, and for a connection that the proxy carries.

use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::{Group, Lab, Pod, Rules, Server, client_id, load, soon, uid};
use tacit::sys::clock::since_boot;

use crate::cpu::resident_kib;
use crate::ground::{PORT, rules, serve};
use crate::memory::{Hops, settled};
use crate::samples::median;
use crate::scaling::crowded;
use crate::workload::number;

/// Streams that a change is pushed to.
pub(crate) const STREAMS: u32 = 1000;
/// Entries of a large node.
pub(crate) const ENTRIES: u32 = 10_000;
/// Calls in one round.
const CALLS: u32 = 400;
/// No push takes longer on a machine that works.
const PATIENCE: Duration = Duration::from_secs(30);
/// The entry that is added and removed.
const EXTRA: &str = "extra";

/// Median and 99th percentile of a call, microseconds.
pub(crate) type Call = [f64; 2];

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Identities {
    /// `FetchX509SVID`.
    pub(crate) svid: Call,
    /// A bare health check on the same socket.
    pub(crate) health: Call,
    /// The median of the ratios of both medians in the same round.
    pub(crate) ratio: f64,
    /// Until a change has reached the first, the median and the last stream, milliseconds from the
    /// start of the command; medians over changes.
    pub(crate) push: [f64; 3],
    /// The largest of the last.
    pub(crate) slowest_push: f64,
    /// Until a connection whose entry is removed is cut, as its program sees it: median and
    /// largest, milliseconds from the start of the command.
    pub(crate) cut: [f64; 2],
    /// What a stream costs in memory, KiB.
    pub(crate) stream_kib: f64,
    /// Resident memory of a daemon with few entries and with many, MiB.
    pub(crate) memory: [f64; 2],
}

impl Identities {
    /// KiB for each of the many entries.
    pub(crate) fn entry_kib(&self) -> f64 {
        let [few, many] = self.memory;
        (many - few) * 1024.0 / f64::from(ENTRIES)
    }
}

/// Measures, in labs of its own.
pub(crate) fn measure(rounds: usize) -> Result<Identities> {
    // As many questions as the load wants: what is measured is not the limit.
    let rules = rules().rule("[workload_api]\nrequests_per_second = 100000\n");
    let lab = Lab::start(&rules)?;
    let (svid, health, ratio) = calls(&lab, rounds)?;
    let (push, slowest_push, stream_kib) = pushes(&lab, rounds)?;
    drop(lab);
    let cut = cuts(rounds)?;
    let memory = [resident(&crowded(10))?, resident(&crowded(ENTRIES))?];
    Ok(Identities { svid, health, ratio, push, slowest_push, cut, stream_kib, memory })
}

/// A program on node a that has an identity, in no scope.
fn asker(lab: &Lab) -> Pod {
    lab.a.pod(Group::Outside, uid::CLIENT)
}

fn calls(lab: &Lab, rounds: usize) -> Result<(Call, Call, f64)> {
    let socket = lab.a.workload_api().to_string_lossy().into_owned();
    let count = format!("--count={CALLS}");
    let call = |method: &str| -> Result<Call> {
        let said = asker(lab).must(load()?, &["call", &socket, method, &count])?;
        Ok([number(&said, "p50")?, number(&said, "p99")?])
    };
    let (mut svids, mut healths, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (health, svid) = (call("health")?, call("svid")?);
        let ([bare, _], [own, _]) = (health, svid);
        ratios.push(own / bare);
        svids.push(svid);
        healths.push(health);
    }
    let of = |calls: &[Call]| {
        let medians = calls.iter().map(|[p50, _]| *p50).collect();
        [middle(medians), middle(calls.iter().map(|[_, p99]| *p99).collect())]
    };
    Ok((of(&svids), of(&healths), middle(ratios)))
}

fn pushes(lab: &Lab, rounds: usize) -> Result<([f64; 3], f64, f64)> {
    let daemon = lab.a.daemon_pod().cgroup().to_owned();
    let look = || -> Result<Hops> { Ok([resident_kib(&daemon)?, 1.0]) };
    let [before, _] = settled(look)?;
    let socket = lab.a.workload_api().to_string_lossy().into_owned();
    let streams = format!("--streams={STREAMS}");
    let watching = asker(lab).spawn(load()?, &["watch", &socket, &streams])?;
    said(&watching, "watching=", 1)?;
    let [with, _] = settled(look)?;
    let mut found: [Vec<f64>; 3] = Default::default();
    for change in 0..2 * rounds {
        let began = since_boot();
        if change % 2 == 0 {
            add(lab, EXTRA)?;
        } else {
            remove(lab, EXTRA)?;
        }
        let text = said(&watching, "last=", change + 1)?;
        for (times, name) in found.iter_mut().zip(["first", "median", "last"]) {
            times.push(since(began, number(&text, name)?));
        }
    }
    let [_, _, last] = &found;
    let slowest = last.iter().copied().fold(0.0, f64::max);
    Ok((found.map(middle), slowest, (with - before) / f64::from(STREAMS)))
}

fn cuts(rounds: usize) -> Result<[f64; 2]> {
    let lab = Lab::start(&Rules::client_calls_server().without("client").log("info"))?;
    let _server = serve(&lab.server())?;
    let to = format!("{}:{PORT}", lab.b.ip);
    let mut times = Vec::new();
    for _ in 0..rounds {
        add(&lab, "client")?;
        // In force when the command has returned: the very next connection has the identity.
        let held = lab.client().spawn(load()?, &["until-cut", &to])?;
        said(&held, "open", 1)?;
        let began = since_boot();
        remove(&lab, "client")?;
        times.push(since(began, number(&said(&held, "cut=", 1)?, "cut")?));
    }
    let slowest = times.iter().copied().fold(0.0, f64::max);
    Ok([middle(times), slowest])
}

/// Resident memory of a daemon with these entries, once it has made the SVIDs that it makes ahead;
/// MiB.
fn resident(rules: &Rules) -> Result<f64> {
    let lab = Lab::start(rules)?;
    let [near, far] = [&lab.a, &lab.b].map(|node| node.daemon_pod().cgroup().to_owned());
    let [near, far] = settled(|| Ok([resident_kib(&near)?, resident_kib(&far)?]))?;
    Ok(f64::midpoint(near, far) / 1024.0)
}

fn add(lab: &Lab, id: &str) -> Result<()> {
    let name = if id == "client" { client_id() } else { format!("{}-{id}", client_id()) };
    let selector = format!("unix:uid:{}", uid::CLIENT);
    let order = ["entries", "add", "--id", id, "--spiffe-id", &name, "--selector", &selector];
    lab.a.ask(&order).map(drop)
}

fn remove(lab: &Lab, id: &str) -> Result<()> {
    lab.a.ask(&["entries", "remove", id]).map(drop)
}

/// Waits until a program has said something so often, and gives all that it said.
fn said(server: &Server, what: &str, often: usize) -> Result<String> {
    let has = || {
        let said = server.all_said();
        let done = said.matches(what).count() >= often || said.contains("FAIL");
        done.then_some(said)
    };
    let said = soon(PATIENCE, what, has).with_context(|| format!("it said:\n{}", server.said()))?;
    anyhow::ensure!(!said.contains("FAIL"), "{said}");
    Ok(said)
}

/// Milliseconds from a moment until another, which is in nanoseconds since boot.
fn since(began: Duration, moment_ns: f64) -> f64 {
    moment_ns / 1e6 - began.as_secs_f64() * 1e3
}

fn middle(values: Vec<f64>) -> f64 {
    median(values).unwrap_or(f64::NAN)
}
