//! What the daemon does to itself before it holds keys: no core dumps, no tracing by others of its
//! user, nothing in swap, and room for as many sockets as the administrator allows.

use std::io;

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Makes the daemon's memory unreadable to others: not dumpable (which also forbids `ptrace` and
/// `/proc/PID/mem` to processes without `CAP_SYS_PTRACE`) and no core file.
///
/// # Errors
/// The daemon should not start: keys could end in a core file.
pub fn protect_memory() -> io::Result<()> {
    prctl::set_dumpable(false)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    Ok(())
}

/// Raises the limit of open files to the hard limit, and gives the number now allowed.
///
/// # Errors
/// The daemon can run, with as many sockets as it has.
pub fn raise_open_files() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Keeps the daemon's memory, and the keys in it, out of swap: each page from its first use on
/// (`MCL_ONFAULT`, Linux 4.4). Needs `CAP_IPC_LOCK`, also later on: without it the daemon would run
/// out of memory at `RLIMIT_MEMLOCK`.
///
/// # Errors
/// The daemon can run; its keys may be swapped out.
pub fn lock_memory() -> io::Result<()> {
    let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault)?;
    Ok(())
}

/// Lifts the limit of locked memory, which kernels before 5.11 count maps against, too. Where that is
/// not allowed the soft limit is raised to the hard one. Gives whether it is without limit now.
///
/// # Errors
/// Only if not even the soft limit can be raised; on newer kernels that does no harm.
pub fn lift_locked_memory() -> io::Result<bool> {
    let unlimited = libc::RLIM_INFINITY;
    if setrlimit(Resource::RLIMIT_MEMLOCK, unlimited, unlimited).is_ok() {
        return Ok(true);
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard)?;
    Ok(hard == unlimited)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_reach_the_hard_limit() {
        let allowed = raise_open_files().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (allowed, allowed));
    }

    #[test]
    fn locked_memory_never_shrinks() {
        let (before, _) = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap();
        lift_locked_memory().unwrap();
        assert!(getrlimit(Resource::RLIMIT_MEMLOCK).unwrap().0 >= before);
    }
}
