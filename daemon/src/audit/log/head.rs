//! The head: how far the log is known to reach, kept apart from it, so that a log cut short or
//! rewritten at its end is found out.
//!
//! The head is written after the log has been forced to the disk, so it never runs ahead of it. It
//! lags behind by what was written since the last sync (`sync_every`): lines beyond it are
//! accepted, and counted as not anchored.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// How far the log is known to reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The oldest line that is kept.
    pub first_seq: u64,
    /// The last line known to be on the disk.
    pub seq: u64,
    /// SHA-256 of that line, lower-case hex.
    pub hash: String,
}

impl Head {
    /// The head's file.
    pub fn name(state_dir: &Path) -> PathBuf {
        state_dir.join("audit.head")
    }

    /// Reads the head; none if there has been none yet.
    pub fn read(state_dir: &Path) -> io::Result<Option<Self>> {
        match fs::read(Self::name(state_dir)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the head: whole, or not at all.
    pub(super) fn write(&self, state_dir: &Path) -> io::Result<()> {
        let path = Self::name(state_dir);
        let fresh = path.with_extension("head.new");
        let mut file: File =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(fresh, path)
    }
}
