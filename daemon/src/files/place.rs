//! Where the files of a set are: in a directory per version, which one symbolic link chooses. The
//! names that a program reads are links through that one, and so all of them change in one step:
//!
//! ```text
//! svid.pem -> ..data/svid.pem      ..data -> ..tacit-18a2f0c3
//! svid.key -> ..data/svid.key      ..tacit-18a2f0c3/{svid.pem, svid.key, bundle.pem}
//! ```
//! A program that opens two of them by their names just then may still get one of each version. One
//! that opens `..data` once and both in it, or one file that holds both, never does.
//!
//! The directory may be the program's own. So versions are root's, in whom the program cannot
//! put anything, and what is there is looked at through descriptors only.

use std::io;
use std::path::Path;

use thiserror::Error;

use super::content::Content;
use crate::sys::pinned_dir::{DirError, PinnedDir};
use crate::workload::{FileSet, Owner};

/// The link that chooses the version.
const CHOICE: &str = "..data";
/// How the names of versions begin.
const VERSION: &str = "..tacit-";

/// Why files could not be written or removed.
#[derive(Debug, Error)]
pub(super) enum PlaceError {
    /// The directory is not to be used.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// The system refused.
    #[error("{path}: cannot {act} it: {source}")]
    Io {
        /// Which file.
        path: String,
        /// What was tried.
        act: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Something of another origin bears the name of a file to be.
    #[error("{0}: is there and was not put there by tacit; remove it, or choose another name")]
    Taken(String),
}

/// A version that is written and that nobody can see yet.
#[derive(Debug)]
pub(super) struct Staged {
    place: Place,
    dir: PinnedDir,
    version: String,
    names: Vec<String>,
}

/// The directory of a set.
#[derive(Debug)]
pub(super) struct Place {
    dir: PinnedDir,
    owner: Owner,
    shown: String,
}

impl Place {
    /// Opens the directory of a set, and makes it if only itself is missing.
    pub(super) fn open(set: &FileSet) -> Result<Self, PlaceError> {
        let dir = PinnedDir::open(&set.directory, set.owner)?;
        Ok(Self { dir, owner: set.owner, shown: set.directory.display().to_string() })
    }

    /// Writes a version. `number` must be new: it names it.
    pub(super) fn stage(self, files: &[Content], number: u128) -> Result<Staged, PlaceError> {
        let names: Vec<String> = files.iter().map(|file| file.name.clone()).collect();
        for name in &names {
            self.check_free(name)?;
        }
        let version = format!("{VERSION}{number:x}");
        let dir = self.dir.make(&version).map_err(self.failed(&version, "make"))?;
        let written = files.iter().try_for_each(|file| {
            dir.create(&file.name, &file.text, self.owner).map_err(self.failed(&file.name, "write"))
        });
        if let Err(error) = written {
            // The first error is the one to tell; what is left is removed with the next version.
            let _gone = self.dir.wipe(&version, self.owner).is_ok();
            return Err(error);
        }
        Ok(Staged { place: self, dir, version, names })
    }

    /// A name is free if nothing bears it, or a link through ours does.
    fn check_free(&self, name: &str) -> Result<(), PlaceError> {
        match self.dir.link(name) {
            Ok(Some(target)) if is_through_choice(&target.to_string_lossy()) => Ok(()),
            Ok(None) => Ok(()),
            Ok(Some(_)) | Err(_) => Err(PlaceError::Taken(format!("{}/{name}", self.shown))),
        }
    }

    /// Whether this version is still what programs see under these names.
    pub(super) fn shows(&self, version: &str, names: &[String]) -> bool {
        self.points(CHOICE, version)
            && names.iter().all(|name| self.points(name, &format!("{CHOICE}/{name}")))
            && matches!(self.dir.enter(version), Ok(Some(_)))
    }

    /// Removes every version but this one, and links to what there is no longer.
    pub(super) fn tidy(&self, version: &str, names: &[String]) -> Result<(), PlaceError> {
        for name in self.all_names()? {
            if name.starts_with(VERSION) && name != version {
                self.dir.wipe(&name, self.owner).map_err(self.failed(&name, "remove"))?;
            } else if !names.contains(&name) && self.is_our_link(&name) {
                self.dir.remove(&name).map_err(self.failed(&name, "remove"))?;
            }
        }
        Ok(())
    }

    /// Removes all that was ever written here; the names first, then what they lead to. Says whether
    /// there was anything.
    pub(super) fn clear(&self) -> Result<bool, PlaceError> {
        let remove = |name: &str| self.dir.remove(name).map_err(self.failed(name, "remove"));
        let names = self.all_names()?;
        for name in names.iter().filter(|name| self.is_our_link(name)) {
            remove(name)?;
        }
        remove(CHOICE)?;
        let is_version = |name: &&String| name.starts_with(VERSION);
        for name in names.iter().filter(is_version) {
            self.dir.wipe(name, self.owner).map_err(self.failed(name, "remove"))?;
        }
        self.dir.sync().map_err(self.failed("", "sync"))?;
        Ok(names.iter().any(|name| name == CHOICE || is_version(&name)))
    }

    /// Opens a directory to remove what was once written there. `None` if it is gone.
    pub(super) fn once(known: &Path, owner: Owner) -> Result<Option<Self>, PlaceError> {
        match PinnedDir::open_existing(known, owner) {
            Ok(dir) => Ok(Some(Self { dir, owner, shown: known.display().to_string() })),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn points(&self, name: &str, to: &str) -> bool {
        self.dir.link(name).is_ok_and(|target| target.is_some_and(|target| target == to))
    }

    fn is_our_link(&self, name: &str) -> bool {
        let target = self.dir.link(name);
        matches!(target, Ok(Some(target)) if is_through_choice(&target.to_string_lossy()))
    }

    /// Names that are no text are not ours.
    fn all_names(&self) -> Result<Vec<String>, PlaceError> {
        let names = self.dir.names().map_err(self.failed("", "list"))?;
        Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }

    fn failed<'a>(
        &'a self,
        name: &'a str,
        act: &'static str,
    ) -> impl Fn(io::Error) -> PlaceError + use<'a> {
        move |source| PlaceError::Io { path: format!("{}/{name}", self.shown), act, source }
    }
}

impl Staged {
    /// Lets programs see the version, in one step.
    pub(super) fn publish(self) -> Result<(Place, String), PlaceError> {
        let Self { place, dir, version, names } = self;
        dir.show().map_err(place.failed(&version, "open"))?;
        place.dir.point(CHOICE, &version).map_err(place.failed(CHOICE, "change"))?;
        for name in &names {
            let target = format!("{CHOICE}/{name}");
            if !place.points(name, &target) {
                place.dir.point(name, &target).map_err(place.failed(name, "make"))?;
            }
        }
        place.dir.sync().map_err(place.failed("", "sync"))?;
        Ok((place, version))
    }
}

fn is_through_choice(target: &str) -> bool {
    target.strip_prefix(CHOICE).is_some_and(|rest| rest.starts_with('/'))
}
