//! Notices that files of the configuration may have changed. Directories are watched, not files,
//! since editors and package managers replace files by renaming; and what a notice means is found
//! out by looking at the files, so that other files in the same directory cause no reload.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use super::load::list;

/// What the files of a configuration look like from outside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Fingerprint(Vec<(PathBuf, Option<Look>)>);

/// Whatever a write or a replacement changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    dev: u64,
    ino: u64,
    len: u64,
    modified_ns: (i64, i64),
    changed_ns: (i64, i64),
}

impl Fingerprint {
    /// Looks at the main file and at the files of the directory.
    pub(super) fn of(main: &Path, dir: Option<&Path>) -> Self {
        let included = dir.map(|dir| list(dir).unwrap_or_default());
        let files = std::iter::once(main.to_owned()).chain(included.into_iter().flatten());
        // The directory itself too: its absence is an error that its return ends.
        let all = files.chain(dir.filter(|dir| !dir.exists()).map(Path::to_owned));
        Self(all.map(|file| (Look::at(&file), file)).map(|(look, file)| (file, look)).collect())
    }
}

impl Look {
    fn at(file: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(file).ok()?;
        Some(Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            len: metadata.len(),
            modified_ns: (metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Watches on the directories of a configuration.
#[derive(Debug)]
pub(super) struct Watches {
    watcher: Option<RecommendedWatcher>,
    wanted: Vec<PathBuf>,
    missing: Vec<PathBuf>,
}

impl Watches {
    /// Watches the directories of the main file, of the file that it is a link to, and of the
    /// included files. Notices go to `notices`, which needs room for one.
    pub(super) fn new(main: &Path, dir: Option<&Path>, notices: mpsc::Sender<()>) -> Self {
        let inotify = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| only_reads(event.kind)) {
                return;
            }
            // Full means that a notice is waiting already.
            let _waiting = notices.try_send(()).is_err();
        });
        let inotify = inotify
            .inspect_err(|error| {
                tracing::warn!(%error, "cannot watch the configuration; looking every 5 seconds");
            })
            .ok();
        let target = main.canonicalize().ok();
        let parents =
            [Some(main), target.as_deref()].into_iter().flatten().map(|file| match file.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
                _ => PathBuf::from("."),
            });
        let mut wanted: Vec<_> = parents.chain(dir.map(Path::to_owned)).collect();
        wanted.dedup();
        let mut watches = Self { watcher: inotify, missing: wanted.clone(), wanted };
        watches.renew();
        watches
    }

    /// Watches what could not be watched before, or is another directory now.
    pub(super) fn renew(&mut self) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        self.missing.extend(self.wanted.iter().filter(|dir| !dir.exists()).cloned());
        self.missing.sort();
        self.missing.dedup();
        self.missing.retain(|dir| watcher.watch(dir, RecursiveMode::NonRecursive).is_err());
    }
}

/// Whether something was only looked at: looking is what a notice leads to, and must not be the
/// next notice.
fn only_reads(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(kind) => kind != AccessKind::Close(AccessMode::Write),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn looking_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("tacit.toml");
        std::fs::write(&main, "a").unwrap();
        let (notices, mut waiting) = mpsc::channel(1);
        let _watches = Watches::new(&main, Some(dir.path()), notices);
        let before = Fingerprint::of(&main, Some(dir.path()));
        std::fs::read(&main).unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(300), waiting.recv()).await;
        assert!(quiet.is_err(), "a look was taken for a change");
        assert_eq!(Fingerprint::of(&main, Some(dir.path())), before);
        std::fs::write(&main, "b").unwrap();
        tokio::time::timeout(Duration::from_secs(5), waiting.recv()).await.unwrap().unwrap();
        assert_ne!(Fingerprint::of(&main, Some(dir.path())), before);
    }
}
