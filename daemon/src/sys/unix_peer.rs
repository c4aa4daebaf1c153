#![expect(unsafe_code, reason = "registering a descriptor with the runtime vouches for it")]
//! Who is at the other end of a Unix socket, pinned so that it cannot become another process.
//!
//! The kernel names the process that called `connect()`. With `SO_PEERPIDFD` (Linux 6.5) it hands
//! out a descriptor of that very process. Before, the pid that `SO_PEERCRED` tells is looked up: a
//! process of the same user and group that got the pid of one that has exited in between would be
//! taken for it. Facts are read anew each time they are asked for, never kept.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::cgroup::Cgroups;
use super::sockets::{facts_of, pidfd_open};
use super::sockopt::netns_cookie;
use super::task::Task;
use crate::workload::{CgroupId, ClaimSource, NetnsCookie, ProcessClaim};

/// The process that connected.
#[derive(Debug)]
pub struct UnixPeer {
    uid: u32,
    gid: u32,
    netns: NetnsCookie,
    task: Task,
    process: AsyncFd<OwnedFd>,
}

impl UnixPeer {
    /// The peer of an accepted socket. To be called on a runtime.
    ///
    /// # Errors
    /// `NotFound` if it has exited, or is in a pid namespace that the daemon does not see.
    pub fn of(socket: &impl AsFd) -> io::Result<Self> {
        let told = getsockopt(socket, sockopt::PeerCredentials)?;
        let (process, pid) = match getsockopt(socket, sockopt::PeerPidfd) {
            Ok(process) => {
                let pid = pid_of(&process)?;
                (process, pid)
            }
            Err(Errno::ENOPROTOOPT) => {
                let pid = u32::try_from(told.pid()).ok().filter(|pid| *pid > 0);
                let pid = pid.ok_or(io::ErrorKind::NotFound)?;
                (pidfd_open(pid)?, pid)
            }
            Err(error) => return Err(error.into()),
        };
        let task = Task::open(pid)?.ok_or(io::ErrorKind::NotFound)?;
        // Alive after its directory was opened: until then the pid was nobody else's.
        if has_exited(&process) {
            return Err(io::ErrorKind::NotFound.into());
        }
        // SAFETY: the descriptor is owned by what is registered, and stays the same and open with it.
        let process = unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) }?;
        let netns = netns_cookie(socket)?;
        Ok(Self { uid: told.uid(), gid: told.gid(), netns, task, process })
    }

    /// Its cgroup now: one small file of `/proc`.
    ///
    /// # Errors
    /// `NotFound` if it has exited.
    pub fn cgroup(&self, cgroups: &Cgroups) -> io::Result<CgroupId> {
        let path = self.task.cgroup()?.ok_or(io::ErrorKind::NotFound)?;
        cgroups.id_of(&path)
    }

    /// The facts about it now. Blocks for some microseconds: a few small files of `/proc`.
    ///
    /// # Errors
    /// `NotFound` if it has exited; `PermissionDenied` if its user or group is another than when it
    /// connected.
    pub fn facts(&self, cgroups: &Cgroups, seen_ns: u64) -> io::Result<ProcessClaim> {
        let claim = facts_of(&self.task, ClaimSource::Peer, cgroups, self.netns, seen_ns)?;
        let claim = claim.filter(|_| self.is_alive()).ok_or(io::ErrorKind::NotFound)?;
        if (claim.uid, claim.gid) != (self.uid, self.gid) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(claim)
    }

    /// Whether it has not exited.
    pub fn is_alive(&self) -> bool {
        !has_exited(self.process.get_ref())
    }

    /// Resolves when it has exited.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn exited(&self) {
        while self.is_alive() {
            // A descriptor that cannot be waited for ends the wait: closed is right.
            let Ok(mut ready) = self.process.readable().await else { return };
            if self.is_alive() {
                ready.clear_ready();
            }
        }
    }
}

/// A process descriptor becomes readable when its process exits. Source: `pidfd_open(2)`.
fn has_exited(process: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    // In doubt it has exited: nobody is then served.
    !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0))
}

/// The pid as the daemon's `/proc` has it. Source: `proc_pid_fdinfo(5)`: -1 once it has exited, 0
/// in a namespace that cannot be seen from here.
fn pid_of(process: &OwnedFd) -> io::Result<u32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd()))?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<u32>().ok());
    pid.filter(|pid| *pid > 0).ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use tokio::net::UnixListener;

    use super::*;

    async fn connected(script: &str) -> (UnixPeer, Child, UnixStream) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let child = Command::new("python3")
            .args(["-c", &format!("import socket,os,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\nos.set_inheritable(s.fileno(),True)\n{script}")])
            .arg(&path)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let peer = UnixPeer::of(&stream).unwrap();
        (peer, child, stream.into_std().unwrap())
    }

    fn cgroups() -> Cgroups {
        Cgroups::find().unwrap()
    }

    #[tokio::test]
    async fn the_facts_are_those_of_the_process_that_connected() {
        let (peer, mut child, _stream) = connected("import time\ntime.sleep(60)").await;
        let claim = peer.facts(&cgroups(), 7).unwrap();
        assert_eq!((claim.process.pid, claim.source), (child.id(), ClaimSource::Peer));
        assert_eq!(claim.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(claim.cgroup, peer.cgroup(&cgroups()).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        tokio::time::timeout(Duration::from_secs(5), peer.exited()).await.unwrap();
        assert_eq!(peer.facts(&cgroups(), 7).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_child_that_holds_the_socket_is_not_its_peer() {
        // The parent exits; the socket lives on in the child.
        let (peer, mut parent, _stream) =
            connected("import time\nif os.fork():\n  time.sleep(1)\n  os._exit(0)\ntime.sleep(5)")
                .await;
        parent.wait().unwrap();
        peer.exited().await;
        assert!(peer.facts(&cgroups(), 7).is_err());
    }

    #[tokio::test]
    async fn another_program_in_the_same_process_is_seen() {
        let (peer, mut child, _stream) =
            connected("import time\ntime.sleep(1)\nos.execlp('sleep','sleep','60')").await;
        let before = peer.facts(&cgroups(), 7).unwrap();
        let changed = async {
            while peer.facts(&cgroups(), 7).unwrap().exe == before.exe {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), changed).await.unwrap();
        assert_eq!(peer.facts(&cgroups(), 7).unwrap().process, before.process);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn privileged_another_user_than_at_the_connect_is_refused() {
        assert!(nix::unistd::geteuid().is_root(), "needs root: run it by `cargo xtask test`");
        let (peer, mut child, _stream) =
            connected("import time\ntime.sleep(1)\nos.setuid(12345)\ntime.sleep(60)").await;
        assert!(peer.facts(&cgroups(), 7).is_ok());
        let refused = async {
            loop {
                match peer.facts(&cgroups(), 7) {
                    Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                    Err(error) => return error.kind(),
                }
            }
        };
        let kind = tokio::time::timeout(Duration::from_secs(10), refused).await.unwrap();
        assert_eq!(kind, io::ErrorKind::PermissionDenied);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
