//! The log as it is written: appends whole batches, signs, syncs, rotates. A write that fails
//! leaves the file as it was, and the caller keeps its records to try again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::head::Head;
use super::key::{SigningKey, public_key_name};
use super::line::{self, LineHash, NO_LINE};
use super::{files, recover};
use crate::audit::{AuditSettings, Event, Record};

/// A checkpoint follows after this many lines at the latest; chosen: about one megabyte of log.
/// `verify` relies on it: a longer unsigned run is a fault.
pub(super) const CHECKPOINT_EVERY: u64 = 1000;

/// Why the log cannot be opened.
#[derive(Debug, Error)]
pub enum LogError {
    /// The log itself.
    #[error("the audit log {0} cannot be opened")]
    Open(PathBuf, #[source] io::Error),
    /// The key or the head in the state directory.
    #[error("the audit log's key or head in {0} cannot be opened")]
    State(PathBuf, #[source] io::Error),
    /// The task that writes it has ended.
    #[error("nothing writes the audit log any more")]
    NoWriter,
    /// Another process has the key.
    #[error("another daemon writes this audit log: it holds {0}")]
    InUse(PathBuf),
}

/// Who wrote the log before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Nobody who still lives.
    Gone,
    /// The process of this pid, which has released the log and drains.
    Draining(u32),
    /// This process itself: a successor took the log over and came to nothing.
    Myself,
}

/// The log, open for writing by this process alone.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    state_dir: PathBuf,
    node: String,
    rotate_bytes: u64,
    keep: u32,
    key: SigningKey,
    file: File,
    /// How much of the file is whole lines.
    length: u64,
    /// Whether something lies behind that.
    torn: bool,
    /// The last line written, and its hash.
    seq: u64,
    hash: LineHash,
    /// The oldest line kept.
    first_seq: u64,
    /// The last line that the head knows of.
    anchored: u64,
    /// Lines since the last checkpoint.
    unsigned: u64,
}

impl Log {
    /// Opens the log, repairs its end, and writes what became of the run before.
    ///
    /// # Errors
    /// Start-up errors: the operator has to mend the path or stop the other daemon.
    pub fn open(settings: &AuditSettings, time: &str) -> Result<Self, LogError> {
        Self::open_after(settings, Before::Gone, time).map(|(log, _)| log)
    }

    /// The same after a daemon whose connections are not over: gives their opening records.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_after(
        settings: &AuditSettings,
        before: Before,
        time: &str,
    ) -> Result<(Self, Vec<Record>), LogError> {
        let state = |error| LogError::State(settings.state_dir.clone(), error);
        let open = |error| LogError::Open(settings.path.clone(), error);
        create_private_dir(&settings.state_dir).map_err(state)?;
        create_private_dir(settings.path.parent().unwrap_or(Path::new("/"))).map_err(open)?;
        let key = SigningKey::open(&settings.state_dir)
            .map_err(state)?
            .ok_or_else(|| LogError::InUse(super::key::private_key_name(&settings.state_dir)))?;
        let head = Head::read(&settings.state_dir);
        let found = recover::scan(&settings.path).map_err(open)?;
        let known = head.as_ref().ok().and_then(Option::as_ref);
        let (seq, hash) = found.continue_from(known);
        // What was kept once must be there until this process removes it.
        let first_seq = known.map(|head| head.first_seq).or(found.first_seq);
        let file = open_file(&settings.path).map_err(open)?;
        let mut log = Self {
            path: settings.path.clone(),
            state_dir: settings.state_dir.clone(),
            node: settings.node.clone(),
            rotate_bytes: settings.rotate_bytes,
            keep: settings.keep.max(1),
            length: file.metadata().map_err(open)?.len(),
            torn: false,
            file,
            key,
            seq,
            hash,
            first_seq: first_seq.unwrap_or(seq + 1),
            anchored: 0,
            unsigned: CHECKPOINT_EVERY,
        };
        log.key.public().write(&public_key_name(&log.path)).map_err(open)?;
        let (mut records, open_still) = found.into_records(head.as_ref(), before, time);
        log.append(&mut records, time).map_err(open)?;
        log.sync().map_err(open)?;
        Ok((log, open_still))
    }

    /// Signs, syncs and closes, so that another process can go on where this one ends.
    ///
    /// # Errors
    /// Gives the log back: it is still this process's.
    pub fn release(mut self, time: &str) -> Result<(), (Box<Self>, io::Error)> {
        match self.sign(time).and_then(|()| self.sync()) {
            Ok(()) => Ok(()),
            Err(error) => Err((Box::new(self), error)),
        }
    }

    /// Appends the records in one write and empties the vector; a checkpoint follows when one is
    /// due. `time` is given to records that have none.
    ///
    /// # Errors
    /// The log and the records are as before, bar the times: call again later.
    pub fn append(&mut self, records: &mut Vec<Record>, time: &str) -> io::Result<()> {
        let mut batch = Batch { seq: self.seq, hash: self.hash, bytes: Vec::new() };
        for record in records.iter_mut() {
            batch.add(record, &self.node, time)?;
        }
        let count = u64::try_from(records.len()).unwrap_or(u64::MAX);
        let signed = self.unsigned.saturating_add(count) >= CHECKPOINT_EVERY;
        if signed {
            batch.add(&mut checkpoint(&self.key, &batch, time), &self.node, time)?;
        }
        self.write(&batch)?;
        self.unsigned = if signed { 0 } else { self.unsigned + count };
        records.clear();
        Ok(())
    }

    /// Signs everything up to here, unless that has been done.
    pub fn sign(&mut self, time: &str) -> io::Result<()> {
        if self.unsigned == 0 {
            return Ok(());
        }
        let mut batch = Batch { seq: self.seq, hash: self.hash, bytes: Vec::new() };
        batch.add(&mut checkpoint(&self.key, &batch, time), &self.node, time)?;
        self.write(&batch)?;
        self.unsigned = 0;
        Ok(())
    }

    /// Lines since the last checkpoint.
    pub fn unsigned(&self) -> u64 {
        self.unsigned
    }

    /// The number of the last line.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Forces everything to the disk, then moves the head.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.anchored == self.seq {
            return Ok(());
        }
        self.file.sync_data()?;
        self.head().write(&self.state_dir)?;
        self.anchored = self.seq;
        Ok(())
    }

    /// Begins a new file if this one is long enough. Says whether it did.
    pub fn rotate_if_due(&mut self, time: &str) -> io::Result<bool> {
        if self.length < self.rotate_bytes {
            return Ok(false);
        }
        self.sign(time)?;
        let rotated = files::rotated(&self.path)?;
        let surplus: Vec<_> = rotated.iter().filter(|n| **n >= self.keep).collect();
        if !surplus.is_empty() {
            let oldest = rotated.iter().find(|n| **n < self.keep);
            let oldest = oldest.map(|n| files::rotated_name(&self.path, *n));
            let first = first_seq(oldest.as_deref().unwrap_or(&self.path))?;
            self.first_seq = first.unwrap_or(self.first_seq);
        }
        // Before anything is removed, the head must say that the log begins later.
        self.anchored = 0;
        self.sync()?;
        for n in surplus {
            fs::remove_file(files::rotated_name(&self.path, *n))?;
        }
        for n in (1..self.keep).rev() {
            rename_if_there(
                &files::rotated_name(&self.path, n),
                &files::rotated_name(&self.path, n + 1),
            )?;
        }
        fs::rename(&self.path, files::rotated_name(&self.path, 1))?;
        self.file = open_file(&self.path)?;
        (self.length, self.torn) = (0, false);
        sync_directory(&self.path)?;
        Ok(true)
    }

    /// Opens the log anew if its name no longer leads to the open file: somebody moved or removed
    /// it. Says whether it did.
    pub fn reopen_if_moved(&mut self) -> io::Result<bool> {
        let open = self.file.metadata()?;
        let named = fs::metadata(&self.path);
        if named.is_ok_and(|named| (named.dev(), named.ino()) == (open.dev(), open.ino())) {
            return Ok(false);
        }
        self.file = open_file(&self.path)?;
        (self.length, self.torn) = (self.file.metadata()?.len(), false);
        Ok(true)
    }

    fn head(&self) -> Head {
        Head { first_seq: self.first_seq, seq: self.seq, hash: line::hex(&self.hash) }
    }

    fn write(&mut self, batch: &Batch) -> io::Result<()> {
        if self.torn {
            self.file.set_len(self.length)?;
        }
        // Should the write fail, part of it may be in the file: it is cut off before the next.
        self.torn = true;
        self.file.write_all(&batch.bytes)?;
        self.torn = false;
        self.length += u64::try_from(batch.bytes.len()).unwrap_or(u64::MAX);
        (self.seq, self.hash) = (batch.seq, batch.hash);
        Ok(())
    }
}

/// Lines on their way to the file.
struct Batch {
    seq: u64,
    hash: LineHash,
    bytes: Vec<u8>,
}

impl Batch {
    fn add(&mut self, record: &mut Record, node: &str, time: &str) -> io::Result<()> {
        record.seq = self.seq + 1;
        node.clone_into(&mut record.node);
        record.prev_hash = line::hex(&self.hash);
        if record.time.is_empty() {
            time.clone_into(&mut record.time);
        }
        let line = line::encode(record)?;
        (self.seq, self.hash) = (record.seq, line::hash(&line));
        self.bytes.extend_from_slice(&line);
        self.bytes.push(b'\n');
        Ok(())
    }
}

fn checkpoint(key: &SigningKey, batch: &Batch, time: &str) -> Record {
    let mut record = Record::new(Event::Checkpoint);
    time.clone_into(&mut record.time);
    record.checkpoint = Some(key.sign(batch.seq + 1, &batch.hash, time));
    record
}

/// A directory that is there already keeps its mode: who may read the log is the operator's choice.
fn create_private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// The number of a file's first line.
fn first_seq(path: &Path) -> io::Result<Option<u64>> {
    recover::first_seq(&mut files::Lines::new(File::open(path)?))
}

/// The hash before the first line, and the number before it.
pub(super) const BEGINNING: (u64, LineHash) = (0, NO_LINE);
