//! Finds what was done to a log behind the daemon's back: lines edited, moved, removed; its end or
//! its beginning cut off; the whole of it rewritten. Start at [`verify`].
//!
//! What cannot be found: anything done by somebody who can read the signing key (root), and lines
//! written since the last sync, which neither a checkpoint nor the head covers yet.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::append::CHECKPOINT_EVERY;
use super::files::{self, Line, Lines, LogFile};
use super::head::Head;
use super::key::{PublicKey, public_key_name};
use super::line::{self, NO_LINE};
use crate::audit::Checkpoint;

/// A batch is appended before its checkpoint: so many lines at most lie between two.
const LONGEST_UNSIGNED: u64 = 2 * CHECKPOINT_EVERY;

/// So many faults are told of one by one.
const MOST_FAULTS: usize = 100;

/// What a log is held against.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// How far the log is known to reach. Without it, an end cut off at a checkpoint goes unseen.
    pub head: Option<Head>,
    /// The key of the node. Without it, a log rewritten as a whole goes unseen.
    pub key: Option<PublicKey>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Files read.
    pub files: usize,
    /// Lines read.
    pub lines: u64,
    /// Number of the first line.
    pub first_seq: Option<u64>,
    /// Number of the last line.
    pub last_seq: Option<u64>,
    /// Checkpoints whose signature holds.
    pub checkpoints: u64,
    /// The last line under a signature that holds.
    pub signed_to: Option<u64>,
    /// The last line that the head covers.
    pub anchored_to: Option<u64>,
    /// The last line has no end yet: the daemon is writing it, or died doing so.
    pub torn: bool,
    /// What is wrong; empty for a log that is whole. At most 100.
    pub faults: Vec<Fault>,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// Line number in it, from 1.
    pub line: u64,
}

/// One thing that is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// Not a record at all.
    NotARecord {
        /// Where.
        at: Place,
    },
    /// The line does not carry the hash of the one before: one of the two was changed.
    Edited {
        /// Where.
        at: Place,
        /// Which record.
        seq: u64,
    },
    /// Lines are not there.
    Missing {
        /// Where.
        at: Place,
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
    },
    /// A line is where it does not belong: moved or repeated.
    OutOfOrder {
        /// Where.
        at: Place,
        /// Which record.
        seq: u64,
    },
    /// A checkpoint's signature does not hold.
    BadSignature {
        /// Where.
        at: Place,
        /// Which record.
        seq: u64,
    },
    /// A checkpoint was signed by a key that is not this node's.
    ForeignKey {
        /// Where.
        at: Place,
        /// Which record.
        seq: u64,
    },
    /// More lines without a checkpoint than the daemon ever writes.
    Unsigned {
        /// Where.
        at: Place,
        /// The first of them.
        from: u64,
        /// The last of them.
        to: u64,
    },
    /// The log ends before the line that it is known to have reached.
    CutShort {
        /// The record it should be.
        expected: u64,
        /// The record it is.
        found: u64,
    },
    /// The log begins after the line that it is known to begin with.
    BeginningMissing {
        /// The record it should be.
        expected: u64,
        /// The record it is.
        found: u64,
    },
    /// The line that the head names is not the one that was written.
    Rewritten {
        /// Which record.
        seq: u64,
    },
}

impl Evidence {
    /// What the state directory and the file beside the log say. Take it before reading the log:
    /// a running daemon moves the head on.
    ///
    /// # Errors
    /// With the path that cannot be read. What is not there is no error, but no evidence either.
    pub fn gather(log: &Path, state_dir: Option<&Path>) -> io::Result<Self> {
        let head = state_dir.map(|dir| named(&Head::name(dir), Head::read(dir))).transpose()?;
        // The key that signs counts for more than what anybody may have put beside the log.
        let own = state_dir.map(PublicKey::of_state_dir).transpose()?.flatten();
        let key = match own {
            Some(key) => Some(key),
            None => read_if_there(&public_key_name(log))?,
        };
        Ok(Self { head: head.flatten(), key })
    }
}

fn read_if_there(path: &Path) -> io::Result<Option<PublicKey>> {
    match PublicKey::read(path) {
        Ok(key) => Ok(Some(key)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => named(path, Err(error)),
    }
}

/// An error that says which file it is about.
fn named<T>(path: &Path, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Reads all files of a log, oldest first, and says what is wrong with it.
///
/// # Errors
/// If a file cannot be read; that says nothing about the log.
pub fn verify(log: &Path, evidence: &Evidence) -> io::Result<Verified> {
    let mut check = Check { evidence, last: None, unsigned_from: None, seen: Verified::default() };
    for file in files::open_all(log)? {
        check.file(file)?;
    }
    check.end();
    Ok(check.seen)
}

/// What of a line the chain is made of.
#[derive(Deserialize)]
struct Link {
    seq: u64,
    time: String,
    prev_hash: String,
    checkpoint: Option<Checkpoint>,
}

struct Check<'a> {
    evidence: &'a Evidence,
    /// Number and hash of the line before, unless that was no record.
    last: Option<(u64, String)>,
    /// First line since the last checkpoint.
    unsigned_from: Option<u64>,
    seen: Verified,
}

impl Check<'_> {
    fn file(&mut self, file: LogFile) -> io::Result<()> {
        self.seen.files += 1;
        let mut at = Place { file: file.path, line: 0 };
        let mut lines = Lines::new(file.file);
        while let Some(next) = lines.next()? {
            at.line += 1;
            match next {
                Line::Whole(bytes) => self.line(bytes, &at),
                Line::Partial(_) => self.seen.torn = true,
            }
        }
        Ok(())
    }

    fn line(&mut self, bytes: &[u8], at: &Place) {
        self.seen.lines += 1;
        let Ok(link) = serde_json::from_slice::<Link>(bytes) else {
            self.last = None;
            return self.fault(Fault::NotARecord { at: at.clone() });
        };
        self.order(&link, at);
        let hash = line::hex(&line::hash(bytes));
        self.against_head(link.seq, &hash);
        self.signature(&link, at);
        self.seen.first_seq.get_or_insert(link.seq);
        self.seen.last_seq = self.seen.last_seq.max(Some(link.seq));
        self.last = Some((link.seq, hash));
    }

    fn order(&mut self, link: &Link, at: &Place) {
        let (at, seq) = (at.clone(), link.seq);
        match &self.last {
            None if seq == 1 && link.prev_hash != line::hex(&NO_LINE) => {
                self.fault(Fault::Edited { at, seq });
            }
            Some((before, _)) if seq <= *before => self.fault(Fault::OutOfOrder { at, seq }),
            Some((before, _)) if seq > before + 1 => {
                let from = before + 1;
                self.fault(Fault::Missing { at, from, to: seq - 1 });
            }
            Some((_, hash)) if link.prev_hash != *hash => self.fault(Fault::Edited { at, seq }),
            None | Some(_) => {}
        }
    }

    fn against_head(&mut self, seq: u64, hash: &str) {
        let Some(head) = self.evidence.head.as_ref().filter(|head| head.seq == seq) else {
            return;
        };
        if head.hash == hash {
            self.seen.anchored_to = Some(seq);
        } else {
            self.fault(Fault::Rewritten { seq });
        }
    }

    fn signature(&mut self, link: &Link, at: &Place) {
        let seq = link.seq;
        let Some(mark) = &link.checkpoint else {
            let from = *self.unsigned_from.get_or_insert(seq);
            // Once per run, at the line that makes it too long.
            if seq.checked_sub(from) == Some(LONGEST_UNSIGNED) {
                self.fault(Fault::Unsigned { at: at.clone(), from, to: seq });
            }
            return;
        };
        self.unsigned_from = None;
        let Some(key) = &self.evidence.key else {
            return;
        };
        if mark.key != key.id() {
            self.fault(Fault::ForeignKey { at: at.clone(), seq });
        } else if key.confirms(seq, &link.prev_hash, &link.time, mark) {
            self.seen.checkpoints += 1;
            self.seen.signed_to = Some(seq);
        } else {
            self.fault(Fault::BadSignature { at: at.clone(), seq });
        }
    }

    fn end(&mut self) {
        let Some(head) = self.evidence.head.clone() else {
            return;
        };
        let found = self.seen.last_seq.unwrap_or(0);
        if found < head.seq {
            self.fault(Fault::CutShort { expected: head.seq, found });
        }
        let found = self.seen.first_seq.unwrap_or(head.first_seq);
        if found > head.first_seq {
            self.fault(Fault::BeginningMissing { expected: head.first_seq, found });
        }
    }

    fn fault(&mut self, fault: Fault) {
        if self.seen.faults.len() < MOST_FAULTS {
            self.seen.faults.push(fault);
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotARecord { at } => write!(f, "{at}: not an audit record"),
            Self::Edited { at, seq } => {
                write!(f, "{at}: record {seq} does not follow from the one before: one was changed")
            }
            Self::Missing { at, from, to } => write!(f, "{at}: records {from} to {to} are missing"),
            Self::OutOfOrder { at, seq } => {
                write!(f, "{at}: record {seq} is out of order: moved or repeated")
            }
            Self::BadSignature { at, seq } => {
                write!(f, "{at}: the signature of checkpoint {seq} does not hold")
            }
            Self::ForeignKey { at, seq } => {
                write!(f, "{at}: checkpoint {seq} was signed by another key than this node's")
            }
            Self::Unsigned { at, from, to } => {
                write!(f, "{at}: no checkpoint from record {from} to {to}: they were removed")
            }
            Self::CutShort { expected, found } => {
                write!(f, "the log ends at record {found}, but had reached {expected}")
            }
            Self::BeginningMissing { expected, found } => {
                write!(f, "the log begins with record {found}, but should with {expected}")
            }
            Self::Rewritten { seq } => {
                write!(f, "record {seq} is not the one that was written: the log was rewritten")
            }
        }
    }
}
