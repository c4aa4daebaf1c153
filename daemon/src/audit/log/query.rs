//! Reads a log: which records match, oldest first over all its files, and what comes after.
//! Holds one line at a time. Start at [`lines`]; [`Follow`] goes on from there.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use thiserror::Error;

use super::files::{self, Line, Lines};
use crate::audit::{Endpoint, Event, Record};

/// What a record must be to be shown; what is `None` does not matter.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Written at or after.
    pub since: Option<Timestamp>,
    /// Written before.
    pub until: Option<Timestamp>,
    /// SPIFFE ID of either end.
    pub spiffe_id: Option<String>,
    /// `outbound` or `inbound`.
    pub direction: Option<String>,
    /// Label of the outcome.
    pub outcome: Option<String>,
    /// Label of the reason.
    pub reason: Option<String>,
    /// Process id of the local process.
    pub pid: Option<u32>,
    /// The node's id of the connection or the one that both ends share.
    pub connection: Option<String>,
    /// Address of either end.
    pub address: Option<AddressQuery>,
    /// Only these events; empty is all.
    pub events: Vec<Event>,
}

/// An address, with or without a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressQuery {
    /// On any port.
    Ip(IpAddr),
    /// On this port.
    Socket(SocketAddr),
}

/// Why a filter cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QueryError {
    /// Neither.
    #[error("`{0}` is neither an IP address nor an address and port such as 10.0.0.1:443")]
    Address(String),
}

impl std::str::FromStr for AddressQuery {
    type Err = QueryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ip = text.parse().map(Self::Ip);
        ip.or_else(|_| text.parse().map(Self::Socket))
            .map_err(|_malformed| QueryError::Address(text.to_owned()))
    }
}

impl AddressQuery {
    fn matches(self, address: &str) -> bool {
        match (self, address.parse::<SocketAddr>()) {
            (Self::Ip(ip), Ok(address)) => address.ip() == ip,
            (Self::Socket(wanted), Ok(address)) => address == wanted,
            (_, Err(_)) => false,
        }
    }
}

impl Query {
    /// Whether a record is one of those asked for.
    pub fn matches(&self, record: &Record) -> bool {
        let ends = [record.local.as_ref(), record.peer.as_ref()];
        let either = |end: &dyn Fn(&Endpoint) -> bool| ends.iter().flatten().any(|e| end(e));
        (self.events.is_empty() || self.events.contains(&record.event))
            && self.in_time(record)
            && same(self.direction.as_deref(), record.direction.as_deref())
            && same(self.outcome.as_deref(), record.outcome.as_deref())
            && same(self.reason.as_deref(), record.reason.as_deref())
            && self.pid.is_none_or(|pid| record.process.as_ref().is_some_and(|p| p.pid == pid))
            && self
                .spiffe_id
                .as_ref()
                .is_none_or(|id| either(&|e| e.spiffe_id.as_ref() == Some(id)))
            && self.connection.as_ref().is_none_or(|id| {
                record.id.as_ref() == Some(id) || record.connection_id.as_ref() == Some(id)
            })
            && self.address.is_none_or(|wanted| {
                either(&|e| e.address.as_deref().is_some_and(|address| wanted.matches(address)))
            })
    }

    fn in_time(&self, record: &Record) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        let Ok(time) = record.time.parse::<Timestamp>() else {
            return false;
        };
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time < until)
    }
}

fn same(wanted: Option<&str>, found: Option<&str>) -> bool {
    wanted.is_none() || wanted == found
}

/// Hands every whole line that matches to `each`, oldest first, until it breaks. Gives the number
/// of lines that are no records, and from where to follow.
pub fn lines<F>(log: &Path, query: &Query, mut each: F) -> io::Result<(u64, Follow)>
where
    F: FnMut(&str, &Record) -> ControlFlow<()>,
{
    let mut alien = 0;
    let mut follow = Follow { log: log.to_owned(), open: None, rest: Vec::new() };
    for file in files::open_all(log)? {
        let again = file.file.try_clone()?;
        let mut read = 0;
        let mut lines = Lines::new(file.file);
        while let Some(Line::Whole(bytes)) = lines.next()? {
            read += u64::try_from(bytes.len()).unwrap_or(u64::MAX) + 1;
            match show(bytes, query, &mut each) {
                Shown::Stop => return Ok((alien, follow)),
                Shown::Alien => alien += 1,
                Shown::Done => {}
            }
        }
        follow.open = Some((again, read));
    }
    Ok((alien, follow))
}

enum Shown {
    Done,
    Alien,
    Stop,
}

fn show<F>(bytes: &[u8], query: &Query, each: &mut F) -> Shown
where
    F: FnMut(&str, &Record) -> ControlFlow<()>,
{
    let record = std::str::from_utf8(bytes).ok();
    let Some((text, record)) = record.and_then(|t| Some((t, serde_json::from_str(t).ok()?))) else {
        return Shown::Alien;
    };
    if query.matches(&record) && each(text, &record).is_break() {
        return Shown::Stop;
    }
    Shown::Done
}

/// Reads what is appended to a log, over rotations.
#[derive(Debug)]
pub struct Follow {
    log: PathBuf,
    /// The file being read, and how far.
    open: Option<(File, u64)>,
    /// The beginning of a line whose end is not written yet.
    rest: Vec<u8>,
}

impl Follow {
    /// Hands everything that has been appended since the last call and matches to `each`.
    /// Does not wait.
    pub fn poll<F>(&mut self, query: &Query, mut each: F) -> io::Result<()>
    where
        F: FnMut(&str, &Record) -> ControlFlow<()>,
    {
        loop {
            self.drain(query, &mut each)?;
            let Some(next) = self.younger()? else {
                return Ok(());
            };
            // What was appended between the two looks.
            self.drain(query, &mut each)?;
            self.rest.clear();
            self.open = Some((next, 0));
        }
    }

    fn drain<F>(&mut self, query: &Query, each: &mut F) -> io::Result<()>
    where
        F: FnMut(&str, &Record) -> ControlFlow<()>,
    {
        let Some((file, position)) = &mut self.open else {
            return Ok(());
        };
        file.seek(SeekFrom::Start(*position))?;
        let mut chunk = vec![0; 1 << 16];
        loop {
            let read = file.read(&mut chunk)?;
            let Some(fresh) = chunk.get(..read).filter(|fresh| !fresh.is_empty()) else {
                return Ok(());
            };
            *position += u64::try_from(read).unwrap_or(u64::MAX);
            self.rest.extend_from_slice(fresh);
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                if matches!(show(line, query, each), Shown::Stop) {
                    return Ok(());
                }
            }
        }
    }

    /// The file after the one being read, if there is one.
    fn younger(&self) -> io::Result<Option<File>> {
        let mut files = files::open_all(&self.log)?.into_iter();
        if let Some((open, _)) = &self.open {
            let open = open.metadata()?;
            let mine = (open.dev(), open.ino());
            let before = files.len();
            let mut rest = files.by_ref().skip_while(|file| file.inode().ok() != Some(mine));
            if rest.next().is_none() && before > 0 {
                // Ours has been removed: go on with the oldest there is.
                files = files::open_all(&self.log)?.into_iter();
            }
        }
        Ok(files.next().map(|file| file.file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Process;

    fn record() -> Record {
        let end = |id: &str, address: &str| {
            let (spiffe_id, address) = (Some(id.to_owned()), Some(address.to_owned()));
            Some(Endpoint { spiffe_id, address })
        };
        Record {
            time: "2025-01-31T12:00:00.000Z".to_owned(),
            id: Some("r-1".to_owned()),
            connection_id: Some("abcd".to_owned()),
            direction: Some("outbound".into()),
            outcome: Some("denied".into()),
            reason: Some("no_rule".into()),
            local: end("spiffe://example.org/a", "10.0.0.1:4000"),
            peer: end("spiffe://example.org/b", "[::1]:443"),
            process: Some(Process { pid: 7, ..Process::default() }),
            ..Record::new(Event::Close)
        }
    }

    #[test]
    fn every_filter_admits_and_refuses() {
        let none = Query::default;
        let time = |text: &str| Some(text.parse().unwrap());
        let text = |text: &str| Some(text.to_owned());
        let address = |text: &str| Some(text.parse().unwrap());
        for (query, matches) in [
            (none(), true),
            (Query { since: time("2025-01-31T12:00:00Z"), ..none() }, true),
            (Query { since: time("2025-01-31T12:00:01Z"), ..none() }, false),
            (Query { until: time("2025-01-31T12:00:01Z"), ..none() }, true),
            (Query { until: time("2025-01-31T12:00:00Z"), ..none() }, false),
            (Query { spiffe_id: text("spiffe://example.org/b"), ..none() }, true),
            (Query { spiffe_id: text("spiffe://example.org/c"), ..none() }, false),
            (Query { direction: text("outbound"), ..none() }, true),
            (Query { direction: text("inbound"), ..none() }, false),
            (Query { outcome: text("denied"), reason: text("no_rule"), ..none() }, true),
            (Query { outcome: text("denied"), reason: text("no_svid"), ..none() }, false),
            (Query { pid: Some(7), ..none() }, true),
            (Query { pid: Some(8), ..none() }, false),
            (Query { connection: text("r-1"), ..none() }, true),
            (Query { connection: text("abcd"), ..none() }, true),
            (Query { connection: text("abc"), ..none() }, false),
            (Query { address: address("10.0.0.1"), ..none() }, true),
            (Query { address: address("[::1]:443"), ..none() }, true),
            (Query { address: address("[::1]:80"), ..none() }, false),
            (Query { events: vec![Event::Close], ..none() }, true),
            (Query { events: vec![Event::Open], ..none() }, false),
        ] {
            assert_eq!(query.matches(&record()), matches, "{query:?}");
        }
    }

    #[test]
    fn refuses_what_is_no_address() {
        assert_eq!("db1".parse::<AddressQuery>(), Err(QueryError::Address("db1".to_owned())));
    }
}
