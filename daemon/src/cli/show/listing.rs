//! Tables of things that are in force: scopes, entries, SVIDs.

use comfy_table::Cell;

use crate::admin::dump::{EntriesChanged, EntryDump, ScopeDump, SvidDump};
use crate::cli::output::{Columns, Tone, cell, clean, maybe, put, toned};

pub(in crate::cli) fn scopes(scopes: &[ScopeDump]) -> String {
    let mut columns = Columns::new(&[
        "ID",
        "CGROUP",
        "USER",
        "MODE",
        "FAIL",
        "OTHER",
        "IN PORTS",
        "OUT PORTS",
        "NOTE",
    ]);
    for scope in scopes {
        let note = if scope.present == Some(false) { "no such cgroup now" } else { "" };
        columns.row([
            cell(scope.id.to_string()),
            cell(&scope.cgroup),
            scope.uid.map_or_else(|| cell("all"), |uid| cell(uid.to_string())),
            cell(&scope.mode),
            cell(&scope.fail),
            cell(&scope.other_transports),
            cell(&scope.inbound_ports),
            cell(&scope.outbound_ports),
            toned(note, if note.is_empty() { Tone::Plain } else { Tone::Doubtful }),
        ]);
    }
    columns.render()
}

pub(in crate::cli) fn entries(entries: &[EntryDump]) -> String {
    let mut columns =
        Columns::new(&["ID", "SPIFFE ID", "SELECTORS", "TTL", "SOURCE", "FROM", "NOTE"]);
    for entry in entries {
        let ttl = entry
            .svid_ttl
            .map(|ttl| humantime::format_duration(std::time::Duration::from_secs(ttl)).to_string());
        columns.row([
            cell(&entry.id),
            cell(&entry.spiffe_id),
            cell(entry.selectors.join(" ")),
            maybe(ttl),
            source(entry),
            cell(&entry.origin),
            toned(tie(entry), Tone::Doubtful),
        ]);
    }
    columns.render()
}

fn tie(entry: &EntryDump) -> String {
    if entry.tied_with.is_empty() {
        return String::new();
    }
    format!("ties with {}", entry.tied_with.join(", "))
}

fn source(entry: &EntryDump) -> Cell {
    if entry.shadowed {
        return toned("live, shadowed by the declared one", Tone::Doubtful);
    }
    cell(&entry.source)
}

pub(in crate::cli) fn entries_changed(done: &EntriesChanged) -> String {
    let mut text = String::new();
    for warning in &done.warnings {
        put(&mut text, format_args!("warning: {}", clean(warning)));
    }
    let told = [("Added", &done.added), ("Unchanged", &done.unchanged), ("Removed", &done.removed)];
    for (what, ids) in told.into_iter().filter(|(_, ids)| !ids.is_empty()) {
        put(&mut text, format_args!("{what}: {}", clean(&ids.join(", "))));
    }
    text
}

pub(in crate::cli) fn svids(svids: &[SvidDump]) -> String {
    let mut columns =
        Columns::new(&["ENTRY", "SPIFFE ID", "SERIAL", "NOT AFTER", "RENEWED AT", "STATE"]);
    for svid in svids {
        let (state, tone) = match (&svid.serial, &svid.last_error) {
            (Some(_), None) => ("ok".to_owned(), Tone::Good),
            (Some(_), Some(error)) => (failing(svid.failures, error), Tone::Doubtful),
            (None, Some(error)) => (failing(svid.failures, error), Tone::Bad),
            (None, None) => ("not issued yet".to_owned(), Tone::Doubtful),
        };
        columns.row([
            cell(&svid.entry),
            cell(&svid.spiffe_id),
            maybe(svid.serial.as_ref()),
            maybe(svid.not_after.as_ref()),
            cell(&svid.renew_at),
            toned(state, tone),
        ]);
    }
    columns.render()
}

fn failing(times: u32, error: &str) -> String {
    format!("failed {times} times: {error}")
}
