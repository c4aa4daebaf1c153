//! Tells a program that its files have changed: by a signal, or by a command that runs as the owner
//! of the files. Neither can do what that owner could not do.

use std::io;
use std::path::Path;

use thiserror::Error;

use crate::sys::command::{self, CommandCgroup, CommandError};
use crate::sys::pinned_dir::{DirError, PinnedDir};
use crate::sys::signal::{self, Sent};
use crate::workload::{FileSet, Owner, ReloadSignal, Told};

/// Longest pid file that is read, bytes.
const PID_FILE_BYTES: usize = 32;

/// Why a program was not told.
#[derive(Debug, Error)]
pub(super) enum TellError {
    /// The command did not do its work.
    #[error("`{program}` {source}")]
    Command {
        /// What was run.
        program: String,
        /// Why.
        source: CommandError,
    },
    /// The directory of the pid file is not to be trusted.
    #[error("pid_file: {0}")]
    PidDir(DirError),
    /// The pid file is not to be trusted, or cannot be read.
    #[error(
        "pid_file: {path}: cannot be read: {source}; it must be a file that only root or the owner can write"
    )]
    PidFile {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("pid_file: {0}: does not hold a pid")]
    NoPid(String),
    /// It names a process of somebody else.
    #[error(
        "pid_file: {path}: process {pid} belongs to user {uid} and not to {expected}, the owner of the files"
    )]
    Foreign {
        /// The file.
        path: String,
        /// What it says.
        pid: u32,
        /// Whose that process is.
        uid: u32,
        /// Whose it should be.
        expected: u32,
    },
    /// The signal could not be sent.
    #[error("cannot send {}: {source}", signal.as_str())]
    Signal {
        /// Which.
        signal: ReloadSignal,
        /// Why.
        source: io::Error,
    },
}

/// Tells the program of a set. A program that does not run need not be told.
///
/// # Cancel safety
/// A command that runs is killed with all that it has started.
pub(super) async fn tell(set: &FileSet, cgroup: &CommandCgroup) -> Result<(), TellError> {
    match &set.told {
        Told::Not => Ok(()),
        Told::Signal { pid_file, signal } => send(pid_file, *signal, set.owner),
        Told::Command { argv, timeout } => {
            let failed = |source| {
                let program = argv.first().cloned().unwrap_or_default();
                TellError::Command { program, source }
            };
            command::run(argv, set.owner, cgroup, *timeout).await.map_err(failed)
        }
    }
}

fn send(pid_file: &Path, signal: ReloadSignal, owner: Owner) -> Result<(), TellError> {
    let path = || pid_file.display().to_string();
    let (Some(folder), Some(name)) = (pid_file.parent(), pid_file.file_name()) else {
        return Err(TellError::NoPid(path()));
    };
    let folder = match PinnedDir::open_existing(folder, owner) {
        Ok(folder) => folder,
        Err(error) if error.is_missing() => return Ok(()),
        Err(error) => return Err(TellError::PidDir(error)),
    };
    let read = folder.read(name, owner, PID_FILE_BYTES);
    let read = read.map_err(|source| TellError::PidFile { path: path(), source })?;
    let Some(text) = read else { return Ok(()) };
    let first = text.lines().next().unwrap_or_default().trim();
    let pid: u32 = first.parse().map_err(|_none| TellError::NoPid(path()))?;
    match signal::send(pid, owner.uid, signal) {
        Ok(Sent::Yes | Sent::NoProcess) => Ok(()),
        Ok(Sent::Foreign(uid)) => {
            Err(TellError::Foreign { path: path(), pid, uid, expected: owner.uid })
        }
        Err(source) => Err(TellError::Signal { signal, source }),
    }
}
