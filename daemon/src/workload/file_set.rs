//! The files by which a program that cannot ask for its SVID is given it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Owner, ReloadSignal};

/// An SVID, its key and the bundle in files of one directory, and whom to tell of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSet {
    /// Its name, for people.
    pub name: Arc<str>,
    /// Id of the entry whose SVID it is.
    pub entry: String,
    /// Where the files are.
    pub directory: PathBuf,
    /// Name of the file with the SVID and its intermediates.
    pub certificate: String,
    /// Name of the file with the key; the same as `certificate` means one file with both.
    pub key: String,
    /// Name of the file with the bundle.
    pub bundle: String,
    /// Whose the files are.
    pub owner: Owner,
    /// How the program learns of a change.
    pub told: Told,
}

/// How a program learns that its files have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It looks by itself.
    Not,
    /// By a signal to the process that this file names.
    Signal {
        /// The file.
        pid_file: PathBuf,
        /// The signal.
        signal: ReloadSignal,
    },
    /// By a command.
    Command {
        /// Program and arguments; never empty.
        argv: Vec<String>,
        /// How long it may run.
        timeout: Duration,
    },
}
