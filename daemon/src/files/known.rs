//! Which directories hold files of ours: kept in the state directory, so that a daemon finds what a
//! rule asked for that went while no daemon ran.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::sys::private_files::{
    FileError, PRIVATE, create_private_dir, read_private, write_atomic,
};
use crate::workload::Owner;

/// The file, below the state directory.
const FILE: &str = "files";
const HEADER: &str =
    "# Written by tacit: the directories in which it keeps SVIDs, and whose they are.\n";

/// Why the list cannot be used at start. The operator mends or removes it.
#[derive(Debug, Error)]
pub enum KnownError {
    /// The file could not be read or relied upon.
    #[error(transparent)]
    File(#[from] FileError),
    /// A line of it.
    #[error("{}:{line}: is no line of `uid:gid directory`; remove what it names by hand, then the line", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
}

/// Whether the list names anything, as far as can be seen: what is wrong with it is told by
/// [`super::keep()`].
pub fn are_left(state_dir: &Path) -> bool {
    Known::open(state_dir).is_ok_and(|known| !known.directories.is_empty())
}

/// The list. A change is on the disk before it is in force.
#[derive(Debug)]
pub(super) struct Known {
    path: PathBuf,
    directories: BTreeMap<PathBuf, Owner>,
}

impl Known {
    /// Reads the list, if there is one.
    pub(super) fn open(state_dir: &Path) -> Result<Self, KnownError> {
        let path = state_dir.join(FILE);
        let text = match read_private(&path) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) if error.is_missing() => String::new(),
            Err(error) => return Err(error.into()),
        };
        let mut directories = BTreeMap::new();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#')) {
            let read = parse(line);
            let read = read.ok_or_else(|| KnownError::Line { path: path.clone(), line: at + 1 });
            directories.extend([read?]);
        }
        Ok(Self { path, directories })
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<(PathBuf, Owner)> {
        self.directories.iter().map(|(path, owner)| (path.clone(), *owner)).collect()
    }

    /// Keeps a directory that is going to be written to.
    pub(super) fn add(&mut self, directory: &Path, owner: Owner) -> Result<(), FileError> {
        if self.directories.get(directory) == Some(&owner) {
            return Ok(());
        }
        let mut directories = self.directories.clone();
        directories.insert(directory.to_owned(), owner);
        self.keep(directories)
    }

    /// Forgets a directory in which nothing is left.
    pub(super) fn remove(&mut self, directory: &Path) -> Result<(), FileError> {
        let mut directories = self.directories.clone();
        directories.remove(directory);
        self.keep(directories)
    }

    fn keep(&mut self, directories: BTreeMap<PathBuf, Owner>) -> Result<(), FileError> {
        let lines = directories.iter().map(|(path, owner)| format!("{owner} {}\n", path.display()));
        let text = std::iter::once(HEADER.to_owned()).chain(lines).collect::<String>();
        if let Some(state_dir) = self.path.parent() {
            create_private_dir(state_dir)?;
        }
        write_atomic(&self.path, text.as_bytes(), PRIVATE)?;
        self.directories = directories;
        Ok(())
    }
}

fn parse(line: &str) -> Option<(PathBuf, Owner)> {
    let (owner, path) = line.split_once(' ')?;
    let (uid, gid) = owner.split_once(':')?;
    let owner = Owner { uid: uid.parse().ok()?, gid: gid.parse().ok()? };
    path.starts_with('/').then(|| (PathBuf::from(path), owner))
}
