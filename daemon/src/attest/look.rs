//! One look at a process: what can be added to the facts that the kernel recorded?
//!
//! The facts recorded at the act count, always. What `/proc` says now is added only while the
//! process that has the pid started when the recorded one did *and* runs the recorded executable,
//! both checked before and after reading. Otherwise:
//! - *Exited*, or its pid used again: nothing of the new process is looked at. The recorded facts
//!   hold, with the path and digest that were known of that executable before; no groups.
//! - *Another program since* (`execve`): the same. The new file is never read.
//! - *Other credentials since* (`setuid`): user and group as recorded; no groups.
//! - Facts found by a *scan*, or read from the *peer* of a Unix socket, were not taken in the act.
//!   If the process no longer bears them out (another start: `PidReused`; executable or
//!   credentials: `ProcessChanged`), it is refused.
//!
//! Boundary: `/proc` shows start times in hundredths of a second. A pid that is used again within the
//! same one is not told apart by its start; it still must run the recorded executable, or nothing is
//! added, and have the recorded credentials, or no groups are.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::attestor::AttestError;
use crate::sys::task::{Credentials, Executable, StartTicks, Task};
use crate::workload::{ClaimSource, ProcessClaim};

/// What was seen.
#[derive(Debug)]
pub(super) enum Seen {
    /// The recorded process, running the recorded program.
    Live(Box<Live>),
    /// The recorded process, running something else, or unseen by another mishap.
    Changed,
    /// The recorded process is no more.
    Exited,
}

/// What can be added to the facts of a live process.
#[derive(Debug)]
pub(super) struct Live {
    /// The running file.
    pub(super) executable: Executable,
    /// Its path, if the host's file of that path is the one that runs: a private mount can lend any
    /// file any name, and a deleted file has none.
    pub(super) path: Option<PathBuf>,
    /// Supplementary groups, if the credentials are still those recorded.
    pub(super) groups: Option<Vec<u32>>,
}

/// Whether the recorded process lives. Cheap: one small file of `/proc`.
pub(super) fn is_alive(claim: &ProcessClaim) -> io::Result<bool> {
    let started = StartTicks::of_ns(claim.process.start_ns);
    match Task::open(claim.process.pid)? {
        Some(task) => Ok(task.started()? == Some(started)),
        None => Ok(false),
    }
}

/// Looks at the process of a claim. Blocks.
pub(super) fn look(claim: &ProcessClaim) -> Result<Seen, AttestError> {
    let failed = |source| AttestError::Inspect { process: claim.process, source };
    let Some(task) = Task::open(claim.process.pid).map_err(failed)? else {
        return Ok(Seen::Exited);
    };
    let expected = StartTicks::of_ns(claim.process.start_ns);
    match task.started().map_err(failed)? {
        Some(started) if started == expected => {}
        Some(_) if !claim.source.is_of_the_act() => {
            return Err(AttestError::PidReused(claim.process));
        }
        _ => return Ok(Seen::Exited),
    }
    let Some(live) = read(&task, claim)? else {
        return changed(&task, claim, "executable");
    };
    // From here on the descriptor pins the file; the rest was read in between.
    if task.started().map_err(failed)?.is_none() {
        return Ok(Seen::Exited);
    }
    if !runs_recorded(&task, claim).map_err(failed)? {
        return changed(&task, claim, "executable");
    }
    if live.groups.is_none() && !claim.source.is_of_the_act() {
        return changed(&task, claim, "credentials");
    }
    Ok(Seen::Live(Box::new(live)))
}

fn changed(task: &Task, claim: &ProcessClaim, what: &'static str) -> Result<Seen, AttestError> {
    let process = claim.process;
    let started = task.started().map_err(|source| AttestError::Inspect { process, source })?;
    match (started, claim.source) {
        (None, _) => Ok(Seen::Exited),
        (Some(_), ClaimSource::Kernel) => Ok(Seen::Changed),
        (Some(_), ClaimSource::Scan | ClaimSource::Peer) => {
            Err(AttestError::ProcessChanged { process, what })
        }
    }
}

fn runs_recorded(task: &Task, claim: &ProcessClaim) -> io::Result<bool> {
    match task.executable()? {
        Some(executable) => task.runs(&executable, claim.exe),
        None => Ok(false),
    }
}

/// `None` if the process does not run the recorded executable.
fn read(task: &Task, claim: &ProcessClaim) -> Result<Option<Live>, AttestError> {
    let failed = |source| AttestError::Inspect { process: claim.process, source };
    let Some(executable) = task.executable().map_err(failed)? else {
        return Ok(None);
    };
    if !task.runs(&executable, claim.exe).map_err(failed)? {
        return Ok(None);
    }
    let path = task.executable_name().map_err(failed)?;
    let path = path.filter(|path| is_file_of(path, &executable));
    let credentials = task.credentials().map_err(failed)?;
    let groups = credentials.filter(|now| bears_out(now, claim)).map(|now| now.groups);
    Ok(Some(Live { executable, path, groups }))
}

fn is_file_of(path: &PathBuf, executable: &Executable) -> bool {
    let Ok(running) = executable.metadata() else {
        return false;
    };
    let named = std::fs::symlink_metadata(path);
    named.is_ok_and(|named| (named.dev(), named.ino()) == (running.dev(), running.ino()))
}

fn bears_out(now: &Credentials, claim: &ProcessClaim) -> bool {
    (now.uid, now.gid) == (claim.uid, claim.gid)
        && (now.real_uid, now.real_gid) == (claim.real_uid, claim.real_gid)
}
