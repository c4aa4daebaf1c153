//! What is to be reached, and whether it was.

use crate::cpu::Pinning;
use crate::peer::Peer;
use crate::run::Findings;
use crate::samples::Cell;
use crate::uninvolved::{Cost, Uninvolved};
use crate::workload::Workload;

/// One target.
struct Target {
    what: &'static str,
    wanted: f64,
    measured: Option<f64>,
    /// Whether more is better.
    at_least: bool,
}

/// Share of the throughput that an uninvolved program keeps.
const KEPT: f64 = 0.97;
/// How soon a changed entry is in force everywhere.
const IN_FORCE_MS: f64 = 100.0;

/// The table of targets.
pub(crate) fn table(findings: &Findings) -> String {
    let mut lines = vec![
        "## Targets\n\nFor Tacit, the whole path pinned to one core; entries on all cores.\n"
            .to_owned(),
        "| | to reach | measured | |".to_owned(),
        "|---|---|---|---|".to_owned(),
    ];
    for Target { what, wanted, measured, at_least } in targets(findings) {
        let Some(measured) = measured else { continue };
        let reached = if at_least { measured >= wanted } else { measured <= wanted };
        let (sign, verdict) =
            (if at_least { "≥" } else { "≤" }, if reached { "reached" } else { "missed" });
        lines.push(format!("| {what} | {sign} {wanted:.2} | {measured:.3} | {verdict} |"));
    }
    lines.join("\n") + "\n\n"
}

fn targets(findings: &Findings) -> Vec<Target> {
    let at_least = |what, wanted, measured| Target { what, wanted, measured, at_least: true };
    let at_most = |what, wanted, measured| Target { what, wanted, measured, at_least: false };
    let samples = &findings.samples;
    let cell = |workload, peer| Cell { pinning: Pinning::Pinned, workload, peer };
    let own = |workload| cell(workload, Peer::Tacit);
    let ratio = |workload| samples.ratio(own(workload));
    let cpu = |workload| samples.median(own(workload), |it| it.cpu);
    let against_envoy = |workload| samples.ratio_to(own(workload), Peer::Envoy);
    let p99 =
        |peer| samples.median(cell(Workload::Trips(1), peer), |it| it.times.map(|[_, p99]| p99));
    let memory = findings.memory.iter().find(|(peer, _)| *peer == Peer::Tacit);
    let memory = memory.map(|(_, it)| it.each().into_iter().fold(0.0, f64::max));
    let mut all = vec![
        at_least("bulk up, 1 stream, ratio to plain TCP", 0.20, ratio(Workload::Up(1))),
        at_least("bulk down, 1 stream, ratio to plain TCP", 0.20, ratio(Workload::Down(1))),
        at_most("processor time up, s a GB, both hops", 0.80, cpu(Workload::Up(1))),
        at_most("processor time down, s a GB, both hops", 0.80, cpu(Workload::Down(1))),
        at_least("round trips, 1 connection, ratio to plain TCP", 0.25, ratio(Workload::Trips(1))),
        at_least(
            "full handshakes, 1 at a time, ratio to Envoy",
            1.1,
            against_envoy(Workload::New(1)),
        ),
        at_least(
            "full handshakes, 8 at a time, ratio to Envoy",
            1.1,
            against_envoy(Workload::New(8)),
        ),
        at_most("an idle connection, KiB, the larger hop", 20.0, memory),
    ];
    if let Some((own, envoy)) = p99(Peer::Tacit).zip(p99(Peer::Envoy)) {
        all.push(at_most("p99 of a round trip, µs (to reach: Envoy's)", envoy, Some(own)));
    }
    if let Some(Uninvolved { loopback, veth, .. }) = &findings.uninvolved {
        let added = |cost: &Cost| Some((cost.connect.with - cost.connect.without) / 1000.0);
        all.extend([
            at_most("uninvolved `connect()` over loopback, µs added", 2.0, added(loopback)),
            at_most("uninvolved `connect()` over veth, µs added", 2.0, added(veth)),
            at_least("uninvolved bulk over loopback, ratio", KEPT, Some(loopback.bulk.ratio)),
            at_least("uninvolved bulk over veth, ratio", KEPT, Some(veth.bulk.ratio)),
        ]);
    }
    if let Some(found) = &findings.identities {
        let ([_, _, last], [cut, _]) = (found.push, found.cut);
        all.extend([
            at_most("entry changed until the last of 1000 streams, ms", IN_FORCE_MS, Some(last)),
            at_most("entry removed until its connection is cut, ms", IN_FORCE_MS, Some(cut)),
        ]);
    }
    all
}
