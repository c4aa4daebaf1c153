//! What is due to the authorities of a node, and when; kept beside them in `rotation.json`, so that a
//! rotation goes on after a restart. Says nothing of how it is done: that is `change.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::error::CaError;
use crate::sys::private_files::{PRIVATE, read_private, write_atomic};

/// The file, in the CA directory.
pub(super) const FILE: &str = "rotation.json";

/// How long a new root is published before it signs, unless an operator says otherwise. Source:
/// SPIFFE Federation §4.1: three to five times the refresh hint, which is five minutes where none
/// is given (§6.1).
pub const ACTIVATE_AFTER: Duration = Duration::from_mins(15);
/// How long an old root stays trusted once another signs, unless an operator says otherwise or SVIDs
/// live longer. Chosen: a day, so that what happens does so while people are awake.
pub const RETIRE_AFTER: Duration = Duration::from_hours(24);
/// The longest that a compromised authority stays trusted while SVIDs are replaced.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// What is due.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rotation {
    /// When the prepared root begins to sign; none where no root is prepared.
    pub activate_at: Option<SystemTime>,
    /// How long after that the old root stays trusted, seconds.
    pub retire_after: u64,
    /// Roots that sign no more, by key id, and when they are trusted no more.
    pub retiring: BTreeMap<String, Retirement>,
    /// Authorities through which nothing is trusted, by key id.
    pub distrusted: BTreeSet<String>,
}

/// The end of an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retirement {
    /// When it is trusted no more; with `compromised`, at the latest.
    pub at: SystemTime,
    /// Whether it is distrusted as soon as no SVID of this node hangs on it.
    pub compromised: bool,
}

impl Rotation {
    /// Reads the file; nothing is due where there is none.
    ///
    /// # Errors
    /// See [`CaError`].
    pub fn read(directory: &Path) -> Result<Self, CaError> {
        let path = directory.join(FILE);
        match read_private(&path) {
            Err(error) if error.is_missing() => Ok(Self::default()),
            Err(error) => Err(error.into()),
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|_malformed| CaError::Unreadable { path, what: "what tacit wrote there" }),
        }
    }

    pub(super) fn write(&self, directory: &Path) -> Result<(), CaError> {
        // Cannot fail: keys are text, and times lie after 1970.
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        Ok(write_atomic(&directory.join(FILE), &text, PRIVATE)?)
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Option<SystemTime> {
        self.activate_at.into_iter().chain(self.retiring.values().map(|it| it.at)).min()
    }

    /// The retirements that are due; those of compromised authorities as soon as every SVID has been
    /// replaced.
    pub(super) fn due(&self, now: SystemTime, replaced: bool) -> Vec<(String, bool)> {
        let is_due = |it: &Retirement| it.at <= now || (it.compromised && replaced);
        let due = self.retiring.iter().filter(|(_, it)| is_due(it));
        due.map(|(key_id, it)| (key_id.clone(), it.compromised)).collect()
    }
}
