//! How the cost of a new connection grows with the number of registration entries, and with the
//! number of connections that are open beside it.

use anyhow::Result;
use harness::{Lab, Rules, load};

use crate::cpu::used;
use crate::ground::{Ground, PORT, never_pace, rules, serve};
use crate::memory::hold;
use crate::peer::Peer;
use crate::samples::median;
use crate::workload::number;

/// How many entries each node has, in turn.
const ENTRIES: [u32; 4] = [10, 100, 1000, 10_000];
/// How many connections are open, in turn.
const OPEN: [u32; 4] = [100, 500, 1000, 4000];

/// Processor time of both daemons for one new connection, microseconds, beside so many.
pub(crate) type Curve = Vec<(u32, f64)>;

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scaling {
    pub(crate) entries: Curve,
    pub(crate) open: Curve,
}

/// Measures both. The daemons are started anew for each number of entries.
pub(crate) fn measure(ground: &Ground, rounds: usize, milliseconds: u32) -> Result<Scaling> {
    let mut entries = Curve::new();
    for count in ENTRIES {
        let lab = Lab::start(&crowded(count))?;
        never_pace(&lab.a)?;
        never_pace(&lab.b)?;
        let _server = serve(&lab.server())?;
        entries.push((count, each(&lab, rounds, milliseconds)?));
    }
    let mut open = Curve::new();
    let (mut held, mut so_far) = (Vec::new(), 0);
    for count in OPEN {
        held.push(hold(ground, Peer::Tacit, count - so_far)?);
        so_far = count;
        open.push((count, each(&ground.meshed, rounds, milliseconds)?));
    }
    Ok(Scaling { entries, open })
}

/// The rules with this many entries in all; none of the others matches anybody here.
pub(crate) fn crowded(count: u32) -> Rules {
    (3..count).fold(rules(), |rules, number| {
        let name = format!("filler-{number}");
        rules.entry(&name, &[&format!("unix:uid:{}", 100_000 + number)])
    })
}

/// Processor time of both daemons for each of many new connections, microseconds.
fn each(lab: &Lab, rounds: usize, milliseconds: u32) -> Result<f64> {
    let daemons = || -> Result<f64> {
        Ok(used(lab.a.daemon_pod().cgroup())? + used(lab.b.daemon_pod().cgroup())?)
    };
    let (to, time) = (format!("{}:{PORT}", lab.b.ip), format!("--milliseconds={milliseconds}"));
    let mut costs = Vec::new();
    for _ in 0..rounds {
        let before = daemons()?;
        let said = lab.client().must(load()?, &["new", &to, &time])?;
        costs.push((daemons()? - before) * 1e6 / number(&said, "connections")?);
    }
    Ok(median(costs).unwrap_or(f64::NAN))
}
