//! What a predecessor left behind: where its chain ended, a last line cut off by a crash, and the
//! connections that it had told of and never closed. Reads the two youngest files only: each file
//! begins with the opening records of what was open then, and a crash may fall between the two.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use serde::Deserialize;

use super::append::{BEGINNING, Before};
use super::files::{self, Line, Lines, LogFile};
use super::head::Head;
use super::line::{self, LineHash};
use crate::audit::Record;

/// What the end of a log says.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Whether there was a log at all.
    existed: bool,
    /// The last whole line.
    last: Option<(u64, LineHash)>,
    /// The oldest line kept.
    pub(super) first_seq: Option<u64>,
    /// Bytes of a last line without its end, cut off.
    torn: usize,
    /// Opening records without a closing one, by connection.
    open: BTreeMap<String, Record>,
    /// Whether the last run said that it stopped.
    stopped: bool,
}

/// What of a line is needed to follow the chain.
#[derive(Debug, Deserialize)]
struct Link {
    seq: u64,
    id: Option<String>,
    reason: Option<String>,
}

/// Reads the end of a log and cuts off a torn last line.
pub(super) fn scan(log: &Path) -> io::Result<Found> {
    let mut files = files::open_all(log)?;
    let mut found = Found { existed: !files.is_empty(), ..Found::default() };
    if let Some(oldest) = files.first() {
        found.first_seq = first_seq(&mut Lines::new(oldest.file.try_clone()?))?;
        io::Seek::rewind(&mut &oldest.file)?;
    }
    let older = files.len().saturating_sub(2);
    for file in files.drain(..).skip(older) {
        found.read(log, file)?;
    }
    Ok(found)
}

/// The number of the first line that has one.
pub(super) fn first_seq(lines: &mut Lines) -> io::Result<Option<u64>> {
    while let Some(next) = lines.next()? {
        let Line::Whole(bytes) = next else { continue };
        if let Ok(link) = serde_json::from_slice::<Link>(bytes) {
            return Ok(Some(link.seq));
        }
    }
    Ok(None)
}

impl Found {
    fn read(&mut self, log: &Path, file: LogFile) -> io::Result<()> {
        let length = file.file.metadata()?.len();
        let mut lines = Lines::new(file.file);
        let mut last_line = Vec::new();
        while let Some(next) = lines.next()? {
            match next {
                Line::Whole(bytes) => {
                    self.follow(bytes);
                    last_line.clear();
                    last_line.extend_from_slice(bytes);
                }
                // A rotated file is never written again: a torn one is for `verify` to find.
                Line::Partial(_) if file.path != log => {}
                Line::Partial(bytes) => {
                    self.torn = bytes.len();
                    let whole =
                        length.saturating_sub(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
                    OpenOptions::new().write(true).open(&file.path)?.set_len(whole)?;
                }
            }
        }
        if let Ok(link) = serde_json::from_slice::<Link>(&last_line) {
            self.last = Some((link.seq, line::hash(&last_line)));
        }
        Ok(())
    }

    fn follow(&mut self, bytes: &[u8]) {
        // `event` is the third field: look for the two rare ones before parsing anything.
        let start = bytes.get(..bytes.len().min(128)).unwrap_or(bytes);
        let is = |what: &[u8]| start.windows(what.len()).any(|window| window == what);
        if is(br#""event":"open""#) {
            if let Ok(record) = serde_json::from_slice::<Record>(bytes) {
                self.open.extend(record.id.clone().map(|id| (id, record)));
            }
            self.stopped = false;
        } else if is(br#""event":"daemon""#) {
            let link = serde_json::from_slice::<Link>(bytes);
            self.stopped = link.is_ok_and(|link| link.reason.as_deref() == Some("stopped"));
        } else if !self.open.is_empty() && is(br#""event":"close""#) {
            let closed = serde_json::from_slice::<Link>(bytes).ok();
            closed.and_then(|link| link.id).map(|id| self.open.remove(&id));
        }
    }

    /// The line that the next one continues: the last one found, or the head's if the log ends
    /// before it. Then the gap stays visible to whoever verifies.
    pub(super) fn continue_from(&self, head: Option<&Head>) -> (u64, LineHash) {
        let last = self.last.unwrap_or(BEGINNING);
        let Some(head) = head.filter(|head| head.seq > last.0) else {
            return last;
        };
        let hash = line::unhex(&head.hash).and_then(|hash| LineHash::try_from(hash).ok());
        (head.seq, hash.unwrap_or(BEGINNING.1))
    }

    /// The records with which a new run begins, and the opening ones of connections that go on.
    pub(super) fn into_records(
        self,
        head: Result<&Option<Head>, &io::Error>,
        before: Before,
        time: &str,
    ) -> (Vec<Record>, Vec<Record>) {
        let told = match (before, self.existed, self.stopped) {
            (Before::Draining(pid), ..) => format!("it took over from process {pid}, which drains"),
            (Before::Myself, ..) => "a successor came to nothing, and it goes on".to_owned(),
            (Before::Gone, false, _) => "first run".to_owned(),
            (Before::Gone, true, true) => "the run before stopped by itself".to_owned(),
            (Before::Gone, true, false) => {
                "the run before was killed; connections younger than its `open_after` left no record"
                    .to_owned()
            }
        };
        let reason = if before == Before::Myself { "resumed" } else { "started" };
        let detail = format!("tacit {}; {told}", env!("CARGO_PKG_VERSION"));
        let mut records = vec![Record::daemon(reason, Some(detail))];
        if self.torn > 0 {
            let detail = format!("{} bytes of an unfinished last line were cut off", self.torn);
            records.push(Record::daemon("log_repaired", Some(detail)));
        }
        let reached = self.last.unwrap_or(BEGINNING).0;
        match head {
            Ok(Some(head)) if head.seq > reached => {
                let detail =
                    format!("the log ended at line {reached}; it had reached {}", head.seq);
                records.push(Record::daemon("log_cut_short", Some(detail)));
            }
            Ok(_) => {}
            Err(error) => {
                records.push(Record::daemon("log_head_unreadable", Some(error.to_string())));
            }
        }
        let open = self.open.into_values();
        if before == Before::Gone {
            records.extend(open.map(|open| open.interrupted(time)));
            return (records, Vec::new());
        }
        (records, open.collect())
    }
}
