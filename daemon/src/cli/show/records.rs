//! Connections as tables: those that are open, and records of the audit log.

use std::time::Duration;

use crate::audit::{Endpoint, Event, Record};
use crate::cli::output::{Columns, Tone, bytes, cell, clean, maybe, toned};

pub(in crate::cli) fn connections(open: &[Record]) -> String {
    let mut columns = Columns::new(&[
        "ID",
        "DIRECTION",
        "AGE",
        "LOCAL",
        "PEER",
        "ADDRESS",
        "PROTECTION",
        "RULE",
        "SENT",
        "RECEIVED",
    ]);
    for record in open {
        let protection = record.protection.as_deref();
        let tone = if protection == Some("mtls") { Tone::Good } else { Tone::Doubtful };
        columns.row([
            maybe(record.id.as_ref()),
            maybe(record.direction.as_ref()),
            maybe(record.duration.map(age)),
            cell(local(record)),
            maybe(peer(record)),
            maybe(record.peer.as_ref().and_then(|peer| peer.address.as_ref())),
            protection.map_or_else(|| maybe(None::<&str>), |protection| toned(protection, tone)),
            maybe(record.rule.as_ref()),
            maybe(record.bytes_sent.map(bytes)),
            maybe(record.bytes_received.map(bytes)),
        ]);
    }
    columns.render()
}

/// The headings of [`record`]: widths are fixed, since records come one by one.
pub(in crate::cli) fn record_headings() -> String {
    line(["TIME", "EVENT", "DIRECTION", "OUTCOME", "LOCAL", "PEER", "WHY"])
}

/// One record of the audit log.
pub(in crate::cli) fn record(record: &Record) -> String {
    let address = record.peer.as_ref().and_then(|peer| peer.address.as_deref());
    let peer = match (peer(record), address) {
        (Some(id), Some(address)) => format!("{id} at {address}"),
        (Some(only), None) | (None, Some(only)) => only.to_owned(),
        (None, None) => "-".to_owned(),
    };
    let event = match record.event {
        Event::Open => "open",
        Event::Close => "close",
        Event::Daemon => "daemon",
        Event::Lost => "lost",
        Event::Checkpoint => "checkpoint",
    };
    let outcome = match (record.outcome.as_deref(), record.protection.as_deref()) {
        (Some(outcome @ "completed"), Some(protection)) => format!("{outcome} {protection}"),
        (Some(outcome), _) => outcome.to_owned(),
        (None, protection) => protection.unwrap_or("-").to_owned(),
    };
    line([
        &record.time,
        event,
        record.direction.as_deref().unwrap_or("-"),
        &outcome,
        &local(record),
        &peer,
        &why(record),
    ])
}

fn line(cells: [&str; 7]) -> String {
    let [time, event, direction, outcome, local, peer, why] = cells.map(clean);
    let text = format!(
        "{time:<24}  {event:<10}  {direction:<9}  {outcome:<21}  {local:<32}  {peer:<44}  {why}"
    );
    format!("{}\n", text.trim_end())
}

/// Reason, detail, rule: whatever there is of them.
fn why(record: &Record) -> String {
    let rule = record.rule.as_ref().map(|rule| format!("rule {rule}"));
    let lost = record.lost.map(|lost| format!("{lost} records"));
    let parts =
        [record.reason.as_deref(), record.detail.as_deref(), rule.as_deref(), lost.as_deref()];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// The identity, else the program, else the address.
fn local(record: &Record) -> String {
    let end = record.local.as_ref();
    if let Some(id) = end.and_then(|end| end.spiffe_id.clone()) {
        return id;
    }
    if let Some(process) = &record.process {
        let exe = process.exe.as_deref().unwrap_or("?");
        return format!("{exe} (pid {})", process.pid);
    }
    end.and_then(|end| end.address.clone()).unwrap_or_else(|| "-".to_owned())
}

fn peer(record: &Record) -> Option<&str> {
    record.peer.as_ref().and_then(|Endpoint { spiffe_id, .. }| spiffe_id.as_deref())
}

/// Milliseconds as whole seconds.
fn age(milliseconds: f64) -> String {
    let lived = Duration::try_from_secs_f64(milliseconds / 1e3).unwrap_or_default();
    humantime::format_duration(Duration::from_secs(lived.as_secs())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Process;

    #[test]
    fn shows_who_and_why() {
        let mut shown = Record::new(Event::Close);
        shown.time = "2023-11-14T22:13:20.000Z".to_owned();
        shown.direction = Some("outbound".into());
        shown.outcome = Some("denied".into());
        shown.reason = Some("no_rule".into());
        shown.process =
            Some(Process { pid: 7, exe: Some("/bin/a\nb".to_owned()), ..Process::default() });
        shown.peer = Some(Endpoint { spiffe_id: None, address: Some("10.0.0.2:80".to_owned()) });
        let text = record(&shown);
        assert_eq!(text.lines().count(), 1, "{text}");
        for part in ["denied", "/bin/a\\u{a}b (pid 7)", "10.0.0.2:80", "no_rule"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn open_connections_are_a_table() {
        let mut open = Record::new(Event::Open);
        open.id = Some("19-1".to_owned());
        open.duration = Some(61_500.0);
        open.protection = Some("mtls".into());
        open.bytes_sent = Some(2048);
        let text = connections(&[open]);
        assert!(text.starts_with("ID    DIRECTION"), "{text}");
        assert!(text.contains("1m 1s") && text.contains("2.0 KiB"), "{text}");
    }
}
