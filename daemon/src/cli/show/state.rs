//! How things are: the daemon, the kernel, a configuration.

use std::path::Path;

use serde::Serialize;

use crate::admin::dump::{DoctorDump, DrainDump, ReloadDump, StatusDump, Verdict};
use crate::cli::output::{Columns, Tone, cell, clean, maybe, put, toned};
use crate::config::{Problem, Report, Summary};

pub(in crate::cli) fn status(status: &StatusDump) -> String {
    let mut facts = Columns::new(&["TACIT", &status.version]);
    let own_drain = status.draining.iter().find(|drain| drain.pid == status.pid);
    let (state, tone) = match own_drain {
        Some(_) => ("draining", Tone::Doubtful),
        None if status.ready => ("ready", Tone::Good),
        None => ("NOT ready", Tone::Bad),
    };
    facts.row([cell("State"), toned(state, tone)]);
    let mut fact = |name: &str, value: String| facts.row([cell(name), cell(value)]);
    fact("Node", format!("{} of {}", status.node, status.trust_domain));
    fact("Running", format!("pid {} since {}", status.pid, status.started));
    fact("Configuration", format!("{} read {}", status.config, status.config_loaded));
    for warning in &status.config_warnings {
        fact("Warning", warning.clone());
    }
    if let Some(problem) = &status.config_problem {
        fact("Problem", format!("the file as it is now is not in force: {problem}"));
    }
    fact(
        "In force",
        format!(
            "epoch {}: {} scopes, {} entries",
            status.policy_epoch, status.scopes, status.entries
        ),
    );
    let open = &status.connections;
    fact("Connections", format!("{} outbound, {} inbound", open.outbound, open.inbound));
    for drain in &status.draining {
        fact("Draining", draining(drain));
    }
    let expiry = status.svid_earliest_expiry.as_ref().map(|t| format!(", the first until {t}"));
    fact("SVIDs", format!("{}{}", status.svids, expiry.unwrap_or_default()));
    let audit = &status.audit;
    fact(
        "Audit log",
        format!("{}: {} of {} queued, {} lost", audit.path, audit.queued, audit.queue, audit.lost),
    );
    if let Some(problem) = &audit.problem {
        fact("Problem", format!("the audit log: {problem}"));
    }
    let more = [conditions(status), authorities(status), kernel(status)];
    let more = more.into_iter().filter(|table| !table.is_empty());
    std::iter::once(facts).chain(more).map(|table| table.render()).collect::<Vec<_>>().join("\n")
}

fn draining(drain: &DrainDump) -> String {
    let DrainDump { pid, version, connections, seconds_left } = drain;
    let (outbound, inbound) = (connections.outbound, connections.inbound);
    format!(
        "pid {pid} (tacit {version}): {outbound} outbound, {inbound} inbound left, \
         reset in {seconds_left} s"
    )
}

fn conditions(status: &StatusDump) -> Columns {
    let mut columns = Columns::new(&["CONDITION", "STATE"]);
    for standing in &status.conditions {
        let (state, tone) = match (&standing.failing, &standing.degraded) {
            (Some(failing), _) => (failing.as_str(), Tone::Bad),
            (None, Some(degraded)) => (degraded.as_str(), Tone::Doubtful),
            (None, None) => ("ok", Tone::Good),
        };
        columns.row([cell(&standing.condition), toned(state, tone)]);
    }
    columns
}

fn authorities(status: &StatusDump) -> Columns {
    let mut columns = Columns::new(&["AUTHORITY", "KEY ID", "NOT AFTER", "STAGE", "NOTE"]);
    for authority in &status.authorities {
        let note = authority.warning.as_deref().unwrap_or_default();
        let tone = if note.is_empty() { Tone::Plain } else { Tone::Doubtful };
        columns.row([
            cell(&authority.role),
            cell(&authority.key_id),
            cell(&authority.not_after),
            cell(&authority.stage),
            toned(note, tone),
        ]);
    }
    columns
}

fn kernel(status: &StatusDump) -> Columns {
    let mut columns = Columns::new(&["KERNEL DECISION", "COUNT"]);
    for counter in status.kernel.iter().filter(|counter| counter.count > 0) {
        columns.row([cell(&counter.decision), cell(counter.count.to_string())]);
    }
    columns
}

pub(in crate::cli) fn examination(found: &DoctorDump) -> String {
    let mut columns = Columns::new(&["CHECK", "VERDICT", "FOUND", "REMEDY"]);
    for check in &found.checks {
        let verdict = match check.verdict {
            Verdict::Ok => toned("ok", Tone::Good),
            Verdict::Warning => toned("warning", Tone::Doubtful),
            Verdict::Failed => toned("failed", Tone::Bad),
        };
        columns.row([
            cell(&check.name),
            verdict,
            cell(&check.detail),
            maybe(check.remedy.as_ref()),
        ]);
    }
    columns.render()
}

pub(in crate::cli) fn reload(done: &ReloadDump) -> String {
    let mut text = String::new();
    for problem in &done.problems {
        put(&mut text, format_args!("{}", clean(problem)));
    }
    let what = match (done.problems.is_empty(), done.changed) {
        (true, true) => "is in force now",
        (true, false) => "was in force already",
        (false, _) => "stays: nothing was changed",
    };
    put(&mut text, format_args!("Epoch {} {what}.", done.policy_epoch));
    text
}

/// What `tacit check` found.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct CheckDump {
    file: String,
    valid: bool,
    problems: Vec<ProblemDump>,
    warnings: Vec<ProblemDump>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<SummaryDump>,
}

#[derive(Debug, Serialize)]
struct ProblemDump {
    file: String,
    line: Option<usize>,
    key: String,
    value: Option<String>,
    what: String,
    remedy: String,
    #[serde(skip)]
    text: String,
}

#[derive(Debug, Serialize)]
struct SummaryDump {
    trust_domain: String,
    node: String,
    scopes: usize,
    entries: usize,
    outbound_rules: usize,
    inbound_rules: usize,
}

impl CheckDump {
    pub(in crate::cli) fn new(file: &Path, report: &Report) -> Self {
        Self {
            file: file.display().to_string(),
            valid: report.problems.is_empty(),
            problems: report.problems.iter().map(ProblemDump::from).collect(),
            warnings: report.warnings.iter().map(ProblemDump::from).collect(),
            summary: report.summary.as_ref().map(SummaryDump::from),
        }
    }
}

impl From<&Problem> for ProblemDump {
    fn from(problem: &Problem) -> Self {
        Self {
            file: problem.file.display().to_string(),
            line: problem.line,
            key: problem.key.clone(),
            value: problem.value.clone(),
            what: problem.what.clone(),
            remedy: problem.remedy.clone(),
            text: problem.to_string(),
        }
    }
}

impl From<&Summary> for SummaryDump {
    fn from(summary: &Summary) -> Self {
        Self {
            trust_domain: summary.trust_domain.clone(),
            node: summary.node.clone(),
            scopes: summary.scopes,
            entries: summary.entries,
            outbound_rules: summary.outbound,
            inbound_rules: summary.inbound,
        }
    }
}

pub(in crate::cli) fn check(found: &CheckDump) -> String {
    let mut text = String::new();
    for problem in &found.problems {
        put(&mut text, format_args!("{}", clean(&problem.text)));
    }
    for warning in &found.warnings {
        put(&mut text, format_args!("warning: {}", clean(&warning.text)));
    }
    let file = clean(&found.file);
    let Some(it) = &found.summary else {
        let count = found.problems.len();
        put(&mut text, format_args!("{file} is not valid; problems: {count}."));
        return text;
    };
    let (node, domain) = (clean(&it.node), clean(&it.trust_domain));
    put(&mut text, format_args!("{file} is valid: node {node} of {domain}, {} scopes,", it.scopes));
    let (out, inbound) = (it.outbound_rules, it.inbound_rules);
    put(
        &mut text,
        format_args!("{} entries, {out} outbound and {inbound} inbound rules.", it.entries),
    );
    text
}
