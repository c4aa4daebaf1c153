//! Capabilities that the daemon keeps after the programs are loaded, one by one with the reason, and
//! how it gives up all others.

use std::fmt;

use caps::{CapSet, Capability};
use nix::sys::prctl;
use thiserror::Error;

/// A capability, and what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    capability: Capability,
    /// What fails without it.
    pub reason: &'static str,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.capability, self.reason)
    }
}

const fn kept(capability: Capability, reason: &'static str) -> Kept {
    Kept { capability, reason }
}

/// All that the daemon keeps. SECURITY.md has the same list.
pub const KEPT: &[Kept] = &[
    kept(Capability::CAP_BPF, "reads and writes the maps of the programs"),
    kept(
        Capability::CAP_NET_ADMIN,
        "attaches the programs, and resets connections that go past a strict scope",
    ),
    kept(
        Capability::CAP_SYS_PTRACE,
        "looks at processes of other users: what they run, and as whom",
    ),
    kept(
        Capability::CAP_DAC_READ_SEARCH,
        "reads executables of other users for their digest, and finds a cgroup by its id",
    ),
    kept(Capability::CAP_IPC_LOCK, "grows although its memory is locked"),
    kept(
        Capability::CAP_NET_BIND_SERVICE,
        "dials from the port that the application had chosen, below 1024 too",
    ),
];

/// What it keeps beside, where the configuration has SVIDs written to files.
pub const KEPT_FOR_FILES: &[Kept] = &[
    kept(Capability::CAP_CHOWN, "gives files to their owner"),
    kept(Capability::CAP_DAC_OVERRIDE, "writes files in directories of other users"),
    kept(Capability::CAP_FOWNER, "removes files in directories of other users"),
    kept(Capability::CAP_KILL, "tells programs of other users that their files have changed"),
];

/// What it keeps beside these, where a command is to be run for that.
pub const KEPT_FOR_COMMANDS: &[Kept] = &[
    kept(Capability::CAP_SETUID, "becomes the owner of the files before the command runs"),
    kept(Capability::CAP_SETGID, "takes the group of the owner, and leaves all others"),
    kept(Capability::CAP_SYS_ADMIN, "has the command run without network"),
];

/// Why privileges are not as they should be.
#[derive(Debug, Error)]
pub enum PrivilegeError {
    /// The daemon was started without some.
    #[error("the daemon lacks {}; start it as root, or by the unit that comes with it", .0.join(", "))]
    Missing(Vec<String>),
    /// The kernel does not let go of them.
    #[error("capabilities cannot be given up")]
    Capabilities(#[from] caps::errors::CapsError),
    /// The kernel does not take a restriction.
    #[error("privileges cannot be given up")]
    Refused(#[from] nix::Error),
    /// The filter of system calls cannot be made or set.
    #[error("system calls cannot be forbidden: {0}")]
    Calls(String),
}

/// Gives up every capability but these, for this thread and all that it starts from now on, for good:
/// what it executes has none, nor gains any. Call it while there is one thread.
///
/// # Errors
/// [`PrivilegeError::Missing`] names all that are not there to be kept; nothing is given up then. The
/// daemon should not start on any.
pub fn keep_only(kept: &[Kept]) -> Result<(), PrivilegeError> {
    let held = caps::read(None, CapSet::Permitted)?;
    let missing: Vec<_> = kept
        .iter()
        .filter(|one| !held.contains(&one.capability))
        .map(ToString::to_string)
        .collect();
    if !missing.is_empty() {
        return Err(PrivilegeError::Missing(missing));
    }
    let kept: caps::CapsHashSet = kept.iter().map(|one| one.capability).collect();
    prctl::set_no_new_privs()?;
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for other in caps::read(None, CapSet::Bounding)?.difference(&kept) {
            caps::drop(None, CapSet::Bounding, *other)?;
        }
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    Ok(())
}
