#![expect(unsafe_code, reason = "pidfd_open and pidfd_getfd have no safe wrapper")]
//! Who holds a socket: for listeners that are older than the daemon, one pass over `/proc/*/fd` finds
//! every holder, and each becomes a claim marked [`ClaimSource::Scan`]. Descriptors in flight between
//! processes (`SCM_RIGHTS`) and those of threads with their own table are not seen.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use procfs::process::FDTarget;

use super::cgroup::Cgroups;
use super::task::Task;
use crate::workload::{ClaimSource, NetnsCookie, ProcessClaim, ProcessKey};

/// A descriptor of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Its number for the socket.
    pub fd: i32,
}

/// What one pass over all processes found.
#[derive(Debug, Default)]
pub struct Holders {
    /// Holders by inode; one for each process, even if it has several descriptors.
    pub by_inode: HashMap<u64, Vec<Holder>>,
    /// Processes that could not be looked at: any of them may hold anything.
    pub unseen: Vec<u32>,
}

/// Whose a socket is, by all who hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// Nobody that a scan can see.
    Nobody,
    /// All holders are of one user, cgroup and executable; this is the oldest.
    One(ProcessClaim),
    /// They are not; this is the oldest. None of them may speak for the socket.
    Disputed(ProcessClaim),
}

/// Finds the holders of these socket inodes. Blocks: reads the descriptors of every process.
pub fn holders(inodes: &BTreeSet<u64>) -> io::Result<Holders> {
    let pid = |entry: fs::DirEntry| entry.file_name().to_str().and_then(|name| name.parse().ok());
    Ok(holders_among(fs::read_dir("/proc")?.flatten().filter_map(pid), inodes))
}

/// As [`holders`], among these processes only.
pub fn holders_among(pids: impl IntoIterator<Item = u32>, inodes: &BTreeSet<u64>) -> Holders {
    let mut found = Holders::default();
    for pid in pids {
        match held_by(pid, inodes) {
            Ok(held) => {
                for (inode, fd) in held {
                    found.by_inode.entry(inode).or_default().push(Holder { pid, fd });
                }
            }
            // It has exited since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(_) => found.unseen.push(pid),
        }
    }
    found
}

/// The facts about a process as they are now; `None` if it has exited or is a kernel thread.
/// Its start time has the resolution of `/proc`, a hundredth of a second; `exec_id` is 0.
pub fn claim_of(
    pid: u32,
    cgroups: &Cgroups,
    netns: NetnsCookie,
    seen_ns: u64,
) -> io::Result<Option<ProcessClaim>> {
    let Some(task) = Task::open(pid)? else {
        return Ok(None);
    };
    facts_of(&task, ClaimSource::Scan, cgroups, netns, seen_ns)
}

/// The facts about a pinned process as they are now; as [`claim_of`].
pub(super) fn facts_of(
    task: &Task,
    source: ClaimSource,
    cgroups: &Cgroups,
    netns: NetnsCookie,
    seen_ns: u64,
) -> io::Result<Option<ProcessClaim>> {
    let Some(started) = task.started()? else {
        return Ok(None);
    };
    let (Some(ids), Some(executable)) = (task.credentials()?, task.executable()?) else {
        return Ok(None);
    };
    let Some(cgroup) = task.cgroup()? else {
        return Ok(None);
    };
    let claim = ProcessClaim {
        process: ProcessKey { pid: task.pid(), start_ns: started.floor_ns() },
        uid: ids.uid,
        gid: ids.gid,
        real_uid: ids.real_uid,
        real_gid: ids.real_gid,
        cgroup: cgroups.id_of(&cgroup)?,
        netns,
        exe: task.identify(&executable)?,
        exec_id: 0,
        seen_ns,
        source,
    };
    // Dead now means: parts of it may have been read after its end.
    Ok(task.started()?.map(|_| claim))
}

/// Whose a socket is, given a claim for each holder.
pub fn owner(mut claims: Vec<ProcessClaim>) -> Owner {
    claims.sort_by_key(|claim| (claim.process.start_ns, claim.process.pid));
    let same = |one: &ProcessClaim, other: &ProcessClaim| {
        (one.uid, one.gid, one.real_uid, one.real_gid, one.cgroup, one.exe)
            == (other.uid, other.gid, other.real_uid, other.real_gid, other.cgroup, other.exe)
    };
    let Some(oldest) = claims.first() else {
        return Owner::Nobody;
    };
    if claims.iter().all(|claim| same(oldest, claim)) {
        Owner::One(oldest.clone())
    } else {
        Owner::Disputed(oldest.clone())
    }
}

/// Duplicates a holder's socket into the daemon (`pidfd_getfd`, Linux 5.6).
///
/// # Errors
/// `NotFound` if the descriptor is another socket by now; the kernel's word otherwise.
pub fn duplicate(holder: Holder, inode: u64) -> io::Result<OwnedFd> {
    let pidfd = pidfd_open(holder.pid)?;
    // SAFETY: takes three integers and touches no memory.
    let socket =
        owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), holder.fd, 0) })?;
    let file = File::from(socket);
    if file.metadata()?.ino() != inode {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(file.into())
}

/// A descriptor of the process that has this pid now (`pidfd_open`, Linux 5.3).
pub(super) fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers and touches no memory.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads the links itself: `procfs` opens each descriptor to read it, and leaves those out that it
/// cannot open. A daemon that is out of descriptors would then overlook a holder.
fn held_by(pid: u32, inodes: &BTreeSet<u64>) -> io::Result<HashMap<u64, i32>> {
    let mut held = HashMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        // A descriptor closed meanwhile is no longer held.
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        let inode = target.to_str().and_then(socket_inode).filter(|inode| inodes.contains(inode));
        let fd = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let (Some(inode), Some(fd)) = (inode, fd) {
            held.entry(inode).or_insert(fd);
        }
    }
    Ok(held)
}

fn socket_inode(target: &str) -> Option<u64> {
    match target.parse() {
        Ok(FDTarget::Socket(inode)) => Some(inode),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::sys::clock;

    fn listener() -> (TcpListener, u64) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let inode = File::from(OwnedFd::from(listener.try_clone().unwrap()));
        (listener, inode.metadata().unwrap().ino())
    }

    /// A child that holds a socket as its standard input.
    fn child_with(listener: &TcpListener) -> Child {
        let socket = OwnedFd::from(listener.try_clone().unwrap());
        Command::new("sleep").arg("60").stdin(Stdio::from(socket)).spawn().unwrap()
    }

    fn claim(pid: u32) -> ProcessClaim {
        let cgroups = Cgroups::find().unwrap();
        let seen_ns = clock::since_boot().as_nanos().try_into().unwrap();
        claim_of(pid, &cgroups, NetnsCookie(1), seen_ns).unwrap().unwrap()
    }

    #[test]
    fn all_holders_are_found_in_one_pass() {
        let ((one, first), (other, second)) = (listener(), listener());
        let mut child = child_with(&one);
        let found = holders(&BTreeSet::from([first, second])).unwrap();
        let pids = |inode| {
            let mut pids: Vec<u32> =
                found.by_inode[&inode].iter().map(|holder| holder.pid).collect();
            pids.sort_unstable();
            pids
        };
        let mut both = [std::process::id(), child.id()];
        both.sort_unstable();
        assert_eq!(pids(first), both);
        assert_eq!(pids(second), [std::process::id()]);
        child.kill().unwrap();
        child.wait().unwrap();
        drop(other);
    }

    #[test]
    fn a_claim_has_the_facts_of_the_process() {
        let own = claim(std::process::id());
        assert_eq!(own.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(own.source, ClaimSource::Scan);
        assert!(own.process.start_ns <= own.seen_ns);
        let cgroups = Cgroups::find().unwrap();
        assert!(claim_of(1 << 23, &cgroups, NetnsCookie(1), 0).unwrap().is_none());
    }

    #[test]
    fn holders_that_differ_own_nothing() {
        let own = claim(std::process::id());
        let younger = ProcessClaim {
            process: ProcessKey { pid: 9, start_ns: own.process.start_ns + 1 },
            ..own.clone()
        };
        assert_eq!(owner(vec![]), Owner::Nobody);
        assert_eq!(owner(vec![younger.clone(), own.clone()]), Owner::One(own.clone()));
        for other in [
            ProcessClaim { uid: own.uid + 1, ..younger.clone() },
            ProcessClaim { real_gid: own.real_gid + 1, ..younger.clone() },
            ProcessClaim { cgroup: crate::workload::CgroupId(0), ..younger.clone() },
            ProcessClaim { exe: crate::workload::FileId { dev: 0, ino: 0 }, ..younger.clone() },
        ] {
            assert_eq!(owner(vec![other, own.clone()]), Owner::Disputed(own.clone()));
        }
    }

    #[test]
    fn only_links_to_sockets_are_read() {
        for (link, inode) in [
            ("socket:[77]", Some(77)),
            ("pipe:[77]", None),
            ("socket:[]", None),
            ("/tmp/socket:[77]", None),
            ("anon_inode:socket:[77]", None),
        ] {
            assert_eq!(socket_inode(link), inode, "{link}");
        }
    }

    #[test]
    fn privileged_a_held_socket_is_duplicated() {
        assert!(nix::unistd::geteuid().is_root(), "needs root: run it by `cargo xtask test`");
        let (listener, inode) = listener();
        let mut child = child_with(&listener);
        let holder = Holder { pid: child.id(), fd: 0 };
        let copy = duplicate(holder, inode).unwrap();
        let addr = socket2::SockRef::from(&copy).local_addr().unwrap().as_socket();
        assert_eq!(addr, listener.local_addr().ok());
        let wrong = duplicate(holder, inode + 1).unwrap_err();
        assert_eq!(wrong.kind(), io::ErrorKind::NotFound);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
