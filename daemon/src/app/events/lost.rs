//! Events of the programs that found no room in the ring, each told once: also those that were lost
//! while no daemon ran. The counter outlives daemons in the kernel; how much of it has been told is
//! kept in the state directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::audit::Audit;

/// The file in the state directory: one number.
const FILE: &str = "events-lost";

/// How many lost events have been told.
#[derive(Debug)]
pub(in crate::app) struct LostEvents {
    path: PathBuf,
    told: u64,
    /// Whether this daemon has looked at the counter before.
    looked: bool,
}

impl LostEvents {
    /// As an earlier daemon has left it.
    pub(in crate::app) fn open(state_dir: &Path) -> Self {
        let path = state_dir.join(FILE);
        // Without the file nothing was told; to tell something twice is better than never.
        let told = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        Self { path, told: told.unwrap_or(0), looked: false }
    }

    /// Records what the counter, now at `total`, says more than was told.
    pub(in crate::app) fn tell(&mut self, total: u64, audit: &Audit) {
        let when = if self.looked { "" } else { ", before this daemon read them" };
        self.looked = true;
        let Some(more) = self.more(total) else { return };
        let detail = format!("{more} events of the programs found no room{when}");
        audit.daemon("events_lost", Some(detail));
        if let Err(error) = self.keep() {
            let path = self.path.display();
            tracing::warn!(%error, %path, "what was told of lost events cannot be kept; the next daemon tells it again");
        }
    }

    fn more(&mut self, total: u64) -> Option<u64> {
        // The counter begins anew after `tacit uninstall` and with the kernel.
        let before = if total < self.told { 0 } else { self.told };
        self.told = total;
        (total > before).then(|| total - before)
    }

    fn keep(&self) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        let mut file: File =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        writeln!(file, "{}", self.told)?;
        file.sync_all()?;
        fs::rename(fresh, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_between_two_daemons_is_told_by_the_second() {
        let dir = tempfile::tempdir().unwrap();
        let mut first = LostEvents::open(dir.path());
        assert_eq!((first.more(0), first.more(7), first.more(7)), (None, Some(7), None));
        first.keep().unwrap();
        let mut second = LostEvents::open(dir.path());
        assert_eq!((second.more(7), second.more(9)), (None, Some(2)));
        second.keep().unwrap();
        let mut third = LostEvents::open(dir.path());
        assert_eq!(third.more(12), Some(3), "lost while nobody looked");
    }

    #[test]
    fn a_counter_that_begins_anew_is_told_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let mut lost = LostEvents::open(dir.path());
        assert_eq!((lost.more(100), lost.more(0), lost.more(5)), (Some(100), None, Some(5)));
        assert_eq!(lost.more(3), Some(3));
        fs::write(dir.path().join(FILE), "nonsense").unwrap();
        assert_eq!(LostEvents::open(dir.path()).more(3), Some(3));
    }
}
