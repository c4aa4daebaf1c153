//! The sequence number of the bundle that this node publishes: it grows with every change of the
//! contents, and never goes back. Kept in `published.json` of the state directory.
//!
//! It starts from the seconds since 1970, so that it does not go back either when the file is lost.
//! Source: SPIFFE Trust Domain and Bundle §4.1.1.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::StateError;
use crate::sys::private_files::{PRIVATE, create_private_dir, read_private, write_atomic};

/// The file, below the state directory.
const FILE: &str = "published.json";

/// The number, and what it stands for.
#[derive(Debug)]
pub struct Sequence {
    path: PathBuf,
    last: Option<Text>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    sequence: u64,
    bundle: Value,
}

impl Sequence {
    /// Reads the file, if there is one. Blocks: call it at start.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn open(state_dir: &Path) -> Result<Self, StateError> {
        let path = state_dir.join(FILE);
        let last = match read_private(&path) {
            Ok(bytes) => Some(serde_json::from_slice(&bytes).map_err(|error| {
                let what = format!("not readable: {error}");
                StateError::Published { path: path.clone(), what }
            })?),
            Err(error) if error.is_missing() => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { path, last })
    }

    /// The number of these contents, on the disk by the time that it is told. Blocks where they have
    /// changed.
    ///
    /// # Errors
    /// It could not be kept: then nothing is to be published under it.
    pub fn of(&mut self, bundle: &str, now: SystemTime) -> Result<u64, StateError> {
        let bundle: Value = serde_json::from_str(bundle).unwrap_or_default();
        let last = self.last.as_ref();
        if let Some(same) = last.filter(|last| last.bundle == bundle) {
            return Ok(same.sequence);
        }
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let next = last.map_or(0, |last| last.sequence.saturating_add(1));
        let text = Text { sequence: seconds.max(next), bundle };
        if let Some(state_dir) = self.path.parent() {
            create_private_dir(state_dir)?;
        }
        // Of a number and what was JSON before: there is nothing that JSON could not say.
        let json = serde_json::to_vec(&text).unwrap_or_default();
        write_atomic(&self.path, &json, PRIVATE)?;
        let sequence = text.sequence;
        self.last = Some(text);
        Ok(sequence)
    }
}
