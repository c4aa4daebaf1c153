//! `tacit audit`: verifies and reads the log. Needs no daemon.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use super::args::{Audit, Output, Query, When};
use super::dispatch::present;
use super::fault::{Exit, Fault};
use super::output::{self, clean, put};
use super::show;
use crate::audit::log::{self, Evidence, PublicKey, Verified};
use crate::audit::{Event, Record, STATE_FOLDER};
use crate::sys::clock;

/// How often `--follow` looks.
const FOLLOW: Duration = Duration::from_millis(250);

pub(super) fn obey(order: Audit) -> Result<Exit, Fault> {
    match order {
        Audit::Verify { place, state_dir, no_head, public_key, format } => {
            let unread = |error| unread(&place.log, error);
            let kept = (!no_head).then(|| state_dir.join(STATE_FOLDER));
            let mut evidence = Evidence::gather(&place.log, kept.as_deref()).map_err(unread)?;
            if let Some(path) = public_key {
                let key = PublicKey::read(&path).map_err(|error| Fault::Key(path, error))?;
                evidence.key = Some(key);
            }
            let seen = log::verify(&place.log, &evidence).map_err(unread)?;
            if seen.files == 0 && seen.faults.is_empty() {
                return Err(unread(io::ErrorKind::NotFound.into()));
            }
            present(format.output, &seen, |seen| verdict(seen, &evidence))?;
            Ok(if seen.faults.is_empty() { Exit::Success } else { Exit::VerificationFailed })
        }
        Audit::Query(asked) => query(&asked),
    }
}

fn unread(log: &Path, error: io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::NotFound => Fault::NoLog(log.to_owned()),
        _ => Fault::Log(log.to_owned(), error),
    }
}

fn verdict(seen: &Verified, evidence: &Evidence) -> String {
    let mut text = String::new();
    for fault in &seen.faults {
        put(&mut text, format_args!("{}", clean(&fault.to_string())));
    }
    let range = match (seen.first_seq, seen.last_seq) {
        (Some(first), Some(last)) => format!("records {first} to {last}"),
        _ => "no records".to_owned(),
    };
    let state = if seen.faults.is_empty() { "whole" } else { "NOT whole" };
    let (files, marks) = (seen.files, seen.checkpoints);
    put(
        &mut text,
        format_args!("The log is {state}: {range} in {files} files, {marks} checkpoints."),
    );
    let notes = [
        (
            evidence.head.is_none(),
            "Nothing says how far it had reached: an end cut off goes unseen.",
        ),
        (evidence.key.is_none(), "There is no public key: a log rewritten as a whole goes unseen."),
        (
            seen.torn,
            "Its last line is not finished: it is being written, or the daemon was killed.",
        ),
    ];
    for (_, note) in notes.iter().filter(|(applies, _)| *applies) {
        put(&mut text, format_args!("{note}"));
    }
    text
}

fn query(asked: &Query) -> Result<Exit, Fault> {
    let query = filters(asked)?;
    let unread = |error| unread(&asked.place.log, error);
    if !asked.follow && !asked.place.log.exists() {
        return Err(unread(io::ErrorKind::NotFound.into()));
    }
    let mut failed = None;
    if asked.format.output == Output::Table {
        output::text(&show::record_headings())?;
    }
    let how = asked.format.output;
    let (alien, mut follow) =
        log::lines(&asked.place.log, &query, |_, record| show_record(how, record, &mut failed))
            .map_err(unread)?;
    if alien > 0 {
        output::complain(&format!("tacit: {alien} lines are no records; see `tacit audit verify`"));
    }
    while asked.follow && failed.is_none() {
        std::thread::sleep(FOLLOW);
        follow.poll(&query, |_, record| show_record(how, record, &mut failed)).map_err(unread)?;
    }
    failed.map_or(Ok(Exit::Success), Err)
}

fn show_record(how: Output, record: &Record, failed: &mut Option<Fault>) -> ControlFlow<()> {
    match present(how, record, show::record) {
        Ok(()) => ControlFlow::Continue(()),
        Err(fault) => {
            *failed = Some(fault);
            ControlFlow::Break(())
        }
    }
}

fn filters(asked: &Query) -> Result<log::Query, Fault> {
    Ok(log::Query {
        since: asked.since.map(time).transpose()?,
        until: asked.until.map(time).transpose()?,
        spiffe_id: asked.spiffe_id.as_ref().map(ToString::to_string),
        direction: asked.direction.clone(),
        outcome: asked.outcome.clone(),
        reason: asked.reason.clone(),
        pid: asked.pid,
        connection: asked.connection.clone(),
        address: asked.address,
        events: if asked.all { Vec::new() } else { vec![Event::Open, Event::Close] },
    })
}

fn time(when: When) -> Result<jiff::Timestamp, Fault> {
    let before = match when {
        When::At(time) => return Ok(time),
        When::Ago(age) => clock::now().checked_sub(age),
    };
    let time = before.map(jiff::Timestamp::try_from);
    time.and_then(Result::ok).ok_or_else(|| Fault::Io(io::ErrorKind::InvalidInput.into()))
}
