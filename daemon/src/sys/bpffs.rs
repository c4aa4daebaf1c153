//! The BPF file system, in which programs, links and maps outlive the daemon. Most hosts mount it at
//! boot; where nobody has, [`mounted`] does.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

/// Where every distribution mounts it, and the kernel has a directory for it.
pub const USUAL: &str = "/sys/fs/bpf";

/// Makes sure that a BPF file system is mounted at `at`. Gives whether it had to be mounted.
///
/// # Errors
/// When `at` is no directory, or the caller may not mount (needs root).
pub fn mounted(at: &Path) -> io::Result<bool> {
    if is_bpf(at)? {
        return Ok(false);
    }
    // Two that mount at once would hide each other's pins: each mount is a file system of its own.
    let below = Flock::lock(File::open(at)?, FlockArg::LockExclusive)
        .map_err(|(_, error)| io::Error::from(error))?;
    if is_bpf(at)? {
        return Ok(false);
    }
    let none: Option<&Path> = None;
    mount(Some("bpf"), at, Some("bpf"), MsFlags::empty(), none)?;
    drop(below);
    Ok(true)
}

fn is_bpf(at: &Path) -> io::Result<bool> {
    Ok(statfs(at)?.filesystem_type() == BPF_FS_MAGIC)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::mount::{MntFlags, umount2};

    use super::*;

    fn mounts_at(at: &Path) -> usize {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let at = at.to_str().unwrap();
        mounts.lines().filter(|line| line.split(' ').nth(1) == Some(at)).count()
    }

    #[test]
    fn privileged_many_at_once_mount_it_once() {
        assert!(nix::unistd::geteuid().is_root(), "needs root: run it by `cargo xtask test`");
        let at = std::env::temp_dir().join(format!("tacit-bpffs-{}", std::process::id()));
        std::fs::create_dir(&at).unwrap();
        let by: usize = thread::scope(|scope| {
            let all: Vec<_> = (0..16).map(|_| scope.spawn(|| mounted(&at).unwrap())).collect();
            all.into_iter().map(|one| usize::from(one.join().unwrap())).sum()
        });
        let there = mounts_at(&at);
        while umount2(&at, MntFlags::MNT_DETACH).is_ok() {}
        std::fs::remove_dir(&at).unwrap();
        assert_eq!((by, there), (1, 1));
    }

    #[test]
    fn what_is_no_directory_is_an_error() {
        assert!(mounted(Path::new("/nowhere/at/all")).is_err());
    }
}
