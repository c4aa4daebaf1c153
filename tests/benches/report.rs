//! The report: what was found as tables, printed always, and written to `docs/benchmarks.md` with
//! its charts when everything was measured.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};
use harness::text;

use crate::chart;
use crate::cpu::Pinning;
use crate::identities::{ENTRIES, Identities, STREAMS};
use crate::peer::Peer;
use crate::run::Findings;
use crate::samples::Cell;
use crate::targets;
use crate::uninvolved::{Cost, Pair};
use crate::workload::Workload;
use crate::{Arguments, Part};

/// Name of the report, and of the charts beside it.
const REPORT: &str = "benchmarks.md";
const RATIOS: &str = "benchmarks.svg";
const SCALING: &str = "benchmarks-scaling.svg";

/// Shows the report, and writes it if it is whole.
pub(crate) fn publish(arguments: &Arguments, findings: &Findings) -> Result<()> {
    let peers = arguments.peers();
    let mut report = head(arguments)?;
    report.push_str(&targets::table(findings));
    for pinning in [Pinning::Pinned, Pinning::Unpinned] {
        report.push_str(&rates(arguments, findings, pinning, &peers));
    }
    report.push_str(&memory(findings));
    report.push_str(&uninvolved(findings));
    report.push_str(&scaling(findings));
    report.push_str(&identities(findings));
    report.push_str(&wires(findings)?);
    println!("{report}");
    if !arguments.is_whole() {
        println!("not written: not everything was measured");
        return Ok(());
    }
    let folder = &arguments.out;
    fs::create_dir_all(folder)?;
    fs::write(folder.join(REPORT), report)?;
    chart::ratios(&folder.join(RATIOS), &findings.samples, &peers)?;
    if let Some(scaling) = &findings.scaling {
        chart::scaling(&folder.join(SCALING), scaling)?;
    }
    println!("written to {}", folder.join(REPORT).display());
    Ok(())
}

fn head(arguments: &Arguments) -> Result<String> {
    let date = output(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.unwrap_or("unknown").trim_start_matches([':', '\t', ' ']);
    Ok(format!(
        "# Benchmarks\n\nWritten by `cargo xtask bench{quick}` on {date}: commit {commit}, Linux \
         {kernel}, {width} × {model}.\n\n\
         Two network namespaces joined by a veth, an application in each, and a relay in each that \
         speaks mutual TLS 1.3 to the other: P-256, client certificates required, no session \
         resumed. Plain TCP goes over the same veth without relays; congestion control is Reno. All take turns within a \
         round; {rounds} rounds of {milliseconds} ms for each load. A number is the median of the \
         rounds, the number in brackets the median of the ratios to plain TCP of the same round. \
         How: [tests/benches](../tests/benches/main.rs).\n\n\
         ![Ratios to plain TCP]({RATIOS})\n\n",
        quick = if arguments.quick { " --quick" } else { "" },
        date = date.trim(),
        commit = arguments.commit,
        kernel = kernel.trim(),
        width = crate::cpu::width(),
        rounds = arguments.rounds(),
        milliseconds = arguments.milliseconds(),
    ))
}

fn rates(arguments: &Arguments, findings: &Findings, pinning: Pinning, peers: &[Peer]) -> String {
    let samples = &findings.samples;
    let mut rows = Vec::new();
    for workload in Workload::ALL.into_iter().filter(|it| arguments.wants(it.part())) {
        let cell = |peer| Cell { pinning, workload, peer };
        rows.push(row(&format!("{}, {}", workload.name(), workload.unit()), peers, |peer| {
            let rate = samples.rate(cell(peer))?;
            Some(match samples.ratio(cell(peer)).filter(|_| peer != Peer::Plain) {
                Some(ratio) => format!("{} ({ratio:.3})", rounded(rate)),
                None => rounded(rate),
            })
        }));
        let per = match workload.part() {
            Part::Bulk => Some((1.0, "processor time, s a GB, both hops")),
            Part::New => Some((1e6, "processor time, µs a connection, both hops")),
            _ => None,
        };
        rows.extend(per.map(|(scale, what)| {
            row(what, peers, |peer| Some(rounded(samples.median(cell(peer), |it| it.cpu)? * scale)))
        }));
        if let Workload::Trips(_) = workload {
            for (which, name) in [(0, "p50"), (1, "p99")] {
                rows.push(row(&format!("{name} of one trip, µs (added)"), peers, |peer| {
                    let pick = |times: [f64; 2]| times.get(which).copied();
                    let own = samples.median(cell(peer), |it| it.times.and_then(pick))?;
                    let added = samples.added(cell(peer), which)?;
                    Some(format!("{own:.1} ({added:+.1})"))
                }));
            }
        }
    }
    let name = pinning.name();
    if rows.iter().all(Option::is_none) {
        return String::new();
    }
    let rows: Vec<String> = rows.into_iter().flatten().collect();
    section(&format!("Everything {name}"), peers, &rows)
}

fn memory(findings: &Findings) -> String {
    let peers: Vec<Peer> = findings.memory.iter().map(|(peer, _)| *peer).collect();
    if peers.is_empty() {
        return String::new();
    }
    let of = |peer| findings.memory.iter().find(|(it, _)| *it == peer).map(|(_, memory)| *memory);
    let rows = [
        row("5000 connections, KiB each: client's hop, server's", &peers, |peer| {
            let [near, far] = of(peer)?.each();
            Some(format!("{near:.1}, {far:.1}"))
        }),
        row("1000 connections, KiB each: client's hop, server's", &peers, |peer| {
            let [near, far] = of(peer)?.each_of_few();
            Some(format!("{near:.1}, {far:.1}"))
        }),
        row("none, MiB: client's hop, server's", &peers, |peer| {
            let [near, far] = of(peer)?.empty;
            Some(format!("{:.1}, {:.1}", near / 1024.0, far / 1024.0))
        }),
    ];
    section(
        "Memory of idle connections (resident; each has carried data once)",
        &peers,
        &rows.into_iter().flatten().collect::<Vec<_>>(),
    )
}

fn uninvolved(findings: &Findings) -> String {
    let Some(found) = &findings.uninvolved else {
        return String::new();
    };
    let mut lines = vec![
        "## What a program in no scope pays\n\nEvery hook attached against none, in turns; the program and its peer on one core, the \
             daemon where there is room.\n"
            .to_owned(),
        "| | without | with | difference | ratio |".to_owned(),
        "|---|---|---|---|---|".to_owned(),
    ];
    for Cost { path, connect, packet, bulk } in [&found.loopback, &found.veth] {
        let line = |what: &str, unit: &str, pair: &Pair| {
            let Pair { without, with, ratio } = pair;
            let difference = with - without;
            format!(
                "| {what} over {path} | {without:.0} {unit} | {with:.0} {unit} | {difference:+.0} {unit} | {ratio:.3} |"
            )
        };
        lines.push(line("`connect()`", "ns", connect));
        lines.push(line("a packet of 64 bytes", "ns", packet));
        lines.push(line("bulk, 1 stream,", "MB/s", bulk));
    }
    lines.push(format!(
        "\nThe daemon uses {:.1} µs of processor time to record an observed connection \
         (`audit.observe`).",
        found.recording
    ));
    lines.join("\n") + "\n\n"
}

fn scaling(findings: &Findings) -> String {
    let Some(found) = &findings.scaling else {
        return String::new();
    };
    let mut lines = vec![
        format!(
            "## How the cost of a connection grows\n\nProcessor time of both daemons for one new \
             connection.\n\n![Cost of a connection]({SCALING})\n"
        ),
        "| registration entries | µs | | open connections | µs |".to_owned(),
        "|---|---|---|---|---|".to_owned(),
    ];
    for ((entries, with_entries), (open, with_open)) in found.entries.iter().zip(&found.open) {
        lines.push(format!("| {entries} | {with_entries:.0} | | {open} | {with_open:.0} |"));
    }
    lines.join("\n") + "\n\n"
}

fn identities(findings: &Findings) -> String {
    let Some(found) = &findings.identities else {
        return String::new();
    };
    let Identities { push: [first, median, last], memory: [few, many], .. } = found;
    let ([svid50, svid99], [health50, health99]) = (found.svid, found.health);
    let ([cut, slowest_cut], slowest) = (found.cut, found.slowest_push);
    let (ratio, stream, entry) = (found.ratio, found.stream_kib, found.entry_kib());
    format!(
        "## Programs that know SPIFFE, and entries that change\n\nCalls one after the other on one \
         connection of a process with one identity. Changes by `tacit entries add | remove`, from \
         the start of the command, until {STREAMS} streams of as many connections have the message. \
         Memory is resident, with the SVIDs that are made ahead (1000 at most).\n\n\
         | | | |\n|---|---|---|\n\
         | `FetchX509SVID` to its first message | p50 {svid50:.0} µs | p99 {svid99:.0} µs |\n\
         | a bare health check on the same socket | p50 {health50:.0} µs | p99 {health99:.0} µs |\n\
         | ratio of the medians | {ratio:.2} | |\n\
         | a change reaches {STREAMS} streams | first {first:.1} ms, median {median:.1} ms | last \
         {last:.1} ms, {slowest:.1} ms at most |\n\
         | an entry is removed, and its connection cut | median {cut:.1} ms | {slowest_cut:.1} ms at most |\n\
         | a stream | {stream:.1} KiB | |\n\
         | a daemon with 10 entries, with {ENTRIES} | {few:.1} MiB | {many:.1} MiB ({entry:.1} KiB an \
         entry) |\n\n",
    )
}

fn wires(findings: &Findings) -> Result<String> {
    let mut lines = vec![
        "## What the wire carried\n\nA text was sent over each and searched for in a capture of \
         the veth.\n"
            .to_owned(),
        "| | the text | chosen by the server | version |".to_owned(),
        "|---|---|---|---|".to_owned(),
    ];
    for (peer, wire) in &findings.wires {
        let seen = if wire.encrypted { "not found" } else { "found" };
        let chosen = wire.choice.as_ref();
        let chosen = chosen.map_or("—".to_owned(), |it| format!("{}, {}", it.cipher, it.group));
        let version = version(*peer)?.unwrap_or_else(|| "—".to_owned());
        lines.push(format!("| {} | {seen} | {chosen} | {version} |", peer.name()));
    }
    Ok(lines.join("\n") + "\n")
}

/// A row; none if no peer has anything to show in it.
fn row(name: &str, peers: &[Peer], show: impl Fn(Peer) -> Option<String>) -> Option<String> {
    let cells: Vec<Option<String>> = peers.iter().map(|peer| show(*peer)).collect();
    cells.iter().any(Option::is_some).then(|| {
        let cells: Vec<String> =
            cells.into_iter().map(|cell| cell.unwrap_or_else(|| "—".to_owned())).collect();
        format!("| {name} | {} |", cells.join(" | "))
    })
}

fn section(title: &str, peers: &[Peer], rows: &[String]) -> String {
    let names: Vec<&str> = peers.iter().map(|peer| peer.name()).collect();
    let head = format!("| | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    format!("## {title}\n\n{head}\n{}\n\n", rows.join("\n"))
}

/// As many digits as mean something.
pub(crate) fn rounded(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// What a peer says of its version.
fn version(peer: Peer) -> Result<Option<String>> {
    let Some((program, option, word)) = peer.version_question()? else {
        return Ok(None);
    };
    let said = output(Command::new(program).arg(option))?;
    let answer = said.lines().find_map(|line| line.find(word).and_then(|at| line.get(at..)));
    Ok(answer.map(|answer| answer.chars().take(90).collect()))
}

/// What a program prints, to whichever of its outputs.
fn output(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("cannot start {command:?}"))?;
    Ok(text(&done.stdout) + &text(&done.stderr))
}
