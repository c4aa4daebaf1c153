//! How a program stays where it hangs: links pinned by instance and ABI version.
//!
//! Stopping the daemon never detaches: strict scopes stay closed. A starting daemon replaces the
//! program of each pinned link atomically; only [`remove`] detaches.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use aya::Ebpf;

use crate::sys::bpf_link::{self, TargetKind};

use super::LoadError;
use super::hooks::{HOOKS, Hook, Lack, Target};

/// Whether a program is attached and pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinStatus {
    /// Name of the program.
    pub program: &'static str,
    /// Whether its link is there.
    pub attached: bool,
}

/// Attaches every program, or replaces what is pinned, atomically one by one.
pub(super) fn attach(
    ebpf: &Ebpf,
    lacks: &[Lack],
    cgroup: &Path,
    folder: &Path,
) -> Result<(), LoadError> {
    let open = |path: &Path| {
        File::open(path).map_err(|source| LoadError::Pin { path: path.to_owned(), source })
    };
    let (cgroup, netns) = (open(cgroup)?, open(Path::new("/proc/self/ns/net"))?);
    let there = |hook: &&Hook| lacks.iter().all(|lack| lack.program != hook.name);
    for &Hook { name, attach_type, target, .. } in HOOKS.iter().filter(there) {
        let program = ebpf.program(name).ok_or(LoadError::Missing(name))?;
        let fd = program.fd().map_err(|_not_loaded| LoadError::Missing(name))?;
        let pin = folder.join(name);
        let attached = match target {
            Target::Cgroup => {
                attach_one(fd.as_fd(), (&cgroup, TargetKind::Cgroup), attach_type, &pin)
            }
            Target::Netns => attach_one(fd.as_fd(), (&netns, TargetKind::Netns), attach_type, &pin),
            Target::CgroupMade => attach_tracepoint(fd.as_fd(), "cgroup_mkdir", &pin),
        };
        attached.map_err(|source| LoadError::Attach { name, source })?;
    }
    Ok(())
}

fn attach_one(
    program: BorrowedFd<'_>,
    (target, kind): (&File, TargetKind),
    attach_type: u32,
    pin: &Path,
) -> io::Result<()> {
    let inode = target.metadata()?.ino();
    match bpf_link::open(pin) {
        // A link whose cgroup or namespace is gone, or is not the one wanted now, is made anew.
        Ok(link)
            if bpf_link::target(link.as_fd(), kind).is_ok_and(|there| there == inode)
                && bpf_link::update(link.as_fd(), program).is_ok() =>
        {
            return Ok(());
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    replace_pin(&bpf_link::create(program, target.as_fd(), attach_type)?, pin)
}

/// The kernel cannot replace the program of such a link.
fn attach_tracepoint(program: BorrowedFd<'_>, name: &str, pin: &Path) -> io::Result<()> {
    match bpf_link::create_tracepoint(program, name) {
        // Given up by now: what another daemon of this version has put there serves as well.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && pin.exists() => Ok(()),
        link => replace_pin(&link?, pin),
    }
}

/// The new link holds before the old one goes.
fn replace_pin(link: &OwnedFd, pin: &Path) -> io::Result<()> {
    // bpffs reserves names with a dot.
    let mut beside = pin.as_os_str().to_owned();
    beside.push("_new");
    let beside = PathBuf::from(beside);
    gone(fs::remove_file(&beside))?;
    bpf_link::pin(link.as_fd(), &beside)?;
    fs::rename(&beside, pin)
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What is attached.
pub(super) fn status(folder: &Path) -> Vec<PinStatus> {
    let status = |hook: &Hook| PinStatus {
        program: hook.name,
        attached: bpf_link::open(&folder.join(hook.name)).is_ok(),
    };
    HOOKS.iter().map(status).collect()
}

/// Makes a folder under bpffs that only root may look into.
pub(super) fn folder(path: &Path) -> Result<PathBuf, LoadError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| LoadError::Pin { path: path.to_owned(), source })?;
    Ok(path.to_owned())
}

/// Detaches and forgets everything of an instance, of whatever ABI version. What is already gone
/// is no error.
pub(super) fn remove(instance: &Path) -> Result<(), LoadError> {
    match fs::remove_dir_all(instance) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(LoadError::Pin { path: instance.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}
