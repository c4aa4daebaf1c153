//! SHA-256 of executables: of the file that runs, through a descriptor of it, read once per version
//! of the file however many ask. A version is device, inode, size, mtime and ctime; the last is set
//! by the kernel alone, so a file cannot be altered and keep it.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use tokio::sync::Semaphore;

use super::bounded::Bounded;
use crate::sys::clock;
use crate::sys::task::Executable;
use crate::workload::FileId;

/// How much is read at a time. Chosen.
const CHUNK_BYTES: usize = 256 << 10;

/// The digests of executables. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Digests(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit_bytes: u64,
    workers: Arc<Semaphore>,
    versions: Mutex<Bounded<Version, Arc<Slot>>>,
    known: Mutex<Bounded<FileId, Known>>,
}

/// One content of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Version {
    dev: u64,
    ino: u64,
    size: u64,
    mtime_ns: i128,
    ctime_ns: i128,
}

/// The digest of a version, once; `turn` is held by whoever computes it.
#[derive(Debug, Default)]
struct Slot {
    turn: Arc<tokio::sync::Mutex<()>>,
    hex: OnceLock<Arc<str>>,
}

/// What is remembered of an executable for processes that exit before they are looked at.
#[derive(Debug, Clone)]
struct Known {
    version: Version,
    path: PathBuf,
    hex: Option<Arc<str>>,
    since_ns: u64,
}

/// An executable that was seen running before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remembered {
    /// Its path on the host.
    pub(super) path: PathBuf,
    /// Its digest, if that is known.
    pub(super) hex: Option<Arc<str>>,
}

impl Digests {
    /// No digests yet.
    pub(super) fn new(limit_bytes: u64, workers: usize, entries: usize) -> Self {
        Self(Arc::new(Shared {
            limit_bytes,
            workers: Arc::new(Semaphore::new(workers.max(1))),
            versions: Mutex::new(Bounded::new(entries)),
            known: Mutex::new(Bounded::new(entries)),
        }))
    }

    /// The digest of a running file; `None` if it is larger than the limit.
    ///
    /// # Cancel safety
    /// Cancel safe; a computation that has begun ends and is kept.
    pub(super) async fn of(&self, executable: Executable) -> io::Result<Option<Arc<str>>> {
        let version = Version::of(&executable.metadata()?);
        if version.size > self.0.limit_bytes {
            return Ok(None);
        }
        let slot = self.slot(version);
        if let Some(hex) = slot.hex.get() {
            return Ok(Some(Arc::clone(hex)));
        }
        let turn = Arc::clone(&slot.turn).lock_owned().await;
        if let Some(hex) = slot.hex.get() {
            return Ok(Some(Arc::clone(hex)));
        }
        let permit = Arc::clone(&self.0.workers).acquire_owned().await.map_err(io::Error::other)?;
        let limit = self.0.limit_bytes;
        let work = move || {
            let hex: Arc<str> = read(&executable, version, limit)?.into();
            let hex = Arc::clone(slot.hex.get_or_init(|| hex));
            // Held until here, also when the caller has gone away.
            drop((turn, permit));
            Ok(Some(hex))
        };
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
    }

    /// The digest of a running file, if it is known already.
    pub(super) fn known(&self, executable: &Executable) -> Option<Arc<str>> {
        let version = Version::of(&executable.metadata().ok()?);
        let mut versions = self.0.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions.get(&version)?.hex.get().map(Arc::clone)
    }

    /// Remembers an executable whose path is known to be its own.
    pub(super) fn remember(&self, id: FileId, path: PathBuf, hex: Option<Arc<str>>) {
        let Ok(meta) = std::fs::symlink_metadata(&path) else {
            return;
        };
        let version = Version::of(&meta);
        // The file may have been written to since: a digest is remembered with its own version only.
        if hex.is_some() && self.slot(version).hex.get() != hex.as_ref() {
            return;
        }
        let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(&id).is_some_and(|known| known.version == version && known.hex == hex) {
            return;
        }
        let since_ns = u64::try_from(clock::since_boot().as_nanos()).unwrap_or(u64::MAX);
        known.insert(id, Known { version, path, hex, since_ns });
    }

    /// What is known of the executable of a process that is gone: only if it was known before
    /// `seen_ns`, and the file at its path is still in that same version. Then it was so in between.
    pub(super) fn recall(&self, id: FileId, seen_ns: u64) -> Option<Remembered> {
        let known = {
            let mut known = self.0.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.get(&id)?.clone()
        };
        let meta = std::fs::symlink_metadata(&known.path).ok()?;
        (known.since_ns <= seen_ns && Version::of(&meta) == known.version)
            .then_some(Remembered { path: known.path, hex: known.hex })
    }

    fn slot(&self, version: Version) -> Arc<Slot> {
        let mut versions = self.0.versions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = versions.get(&version) {
            return Arc::clone(slot);
        }
        let slot = Arc::new(Slot::default());
        versions.insert(version, Arc::clone(&slot));
        slot
    }
}

impl Version {
    fn of(meta: &std::fs::Metadata) -> Self {
        let ns = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        Self {
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.size(),
            mtime_ns: ns(meta.mtime(), meta.mtime_nsec()),
            ctime_ns: ns(meta.ctime(), meta.ctime_nsec()),
        }
    }
}

fn read(executable: &Executable, version: Version, limit_bytes: u64) -> io::Result<String> {
    let mut file = executable.reader()?.take(limit_bytes);
    let mut context = Context::new(&SHA256);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) => context.update(chunk.get(..len).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if Version::of(&executable.metadata()?) != version {
        return Err(io::Error::other("the executable was written to while it was read"));
    }
    let digest = context.finish();
    Ok(digest.as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        for digit in [byte >> 4, byte & 15] {
            hex.extend(char::from_digit(digit.into(), 16));
        }
        hex
    }))
}
