//! The cgroup subtree of a test: found, made, emptied and removed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::wait::soon;

/// Where the cgroup2 hierarchy is mounted: `/sys/fs/cgroup` on most hosts, below it on hybrid ones.
pub(crate) fn mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    find_mount(&mounts).context("no cgroup2 file system is mounted")
}

/// Field 5 is the mount point; the type stands behind the lone dash (`proc_pid_mountinfo(5)`).
fn find_mount(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        (back.split(' ').next()? == "cgroup2")
            .then(|| front.split(' ').nth(4).map(PathBuf::from))?
    })
}

/// Makes a cgroup and those above it.
pub(crate) fn make(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make cgroup {}", path.display()))
}

/// Kills what is left in a subtree and removes it. Best effort: it runs while things fail.
pub(crate) fn remove(path: &Path) {
    if !path.exists() {
        return;
    }
    // Linux 5.14 on; it reaches every process below.
    let _killed = fs::write(path.join("cgroup.kill"), "1").is_ok();
    let removed = || {
        remove_empty(path);
        (!path.exists()).then_some(())
    };
    if soon(std::time::Duration::from_secs(5), "an empty cgroup", removed).is_err() {
        eprint_left(path);
    }
}

#[expect(clippy::print_stderr, reason = "residue of a test must be seen")]
fn eprint_left(path: &Path) {
    eprintln!("left behind: cgroup {}", path.display());
}

fn remove_empty(path: &Path) {
    if let Ok(entries) = fs::read_dir(path) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_empty(&entry.path());
            }
        }
    }
    // Fails while a process is still leaving; the caller tries again.
    let _removed = fs::remove_dir(path).is_ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_mount() {
        let hybrid = "30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      31 30 0:27 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(find_mount(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(find_mount("30 25 0:26 / / rw - ext4 /dev/vda rw\n"), None);
    }
}
