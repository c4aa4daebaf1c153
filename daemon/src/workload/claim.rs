//! What the kernel recorded about the process that opened a socket, in the thread that acted.
//! It is a claim until `attest` has confirmed it. Nothing here is looked up.

use std::fmt;

/// The id of a cgroup: the inode number of its directory in the cgroup2 hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CgroupId(pub u64);

/// The cookie of a network namespace (`SO_NETNS_COOKIE`, Linux 5.14).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsCookie(pub u64);

/// An executable file by device and inode. `dev` is in user-space (`stat`) encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// Device number as `stat(2)` gives it.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

/// A process that cannot be mistaken for another: its pid and when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessKey {
    /// Process id (thread group id) in the initial pid namespace.
    pub pid: u32,
    /// Start of the thread group leader, nanoseconds since boot (`start_boottime`).
    pub start_ns: u64,
}

/// How the facts of a claim were come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClaimSource {
    /// Recorded by a program in the acting thread, at the moment of the act.
    Kernel,
    /// Found by a scan of all holders of a socket that is older than the daemon.
    Scan,
    /// Read from the process that the kernel names as the peer of a Unix socket.
    Peer,
}

impl ClaimSource {
    /// Whether the facts were recorded in the act. Others are read afterwards, and hold only as
    /// long as the process bears them out.
    pub fn is_of_the_act(self) -> bool {
        self == Self::Kernel
    }

    /// Stable label, used in evidence.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Scan => "scan",
            Self::Peer => "peer",
        }
    }
}

/// The facts about a process as they were when it opened, bound or connected a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessClaim {
    /// Which process.
    pub process: ProcessKey,
    /// Effective user id in the initial user namespace. SPIRE's `unix:uid`.
    pub uid: u32,
    /// Effective group id in the initial user namespace.
    pub gid: u32,
    /// Real user id.
    pub real_uid: u32,
    /// Real group id.
    pub real_gid: u32,
    /// Cgroup (v2) of the acting thread.
    pub cgroup: CgroupId,
    /// Network namespace of the socket.
    pub netns: NetnsCookie,
    /// The executable that was running.
    pub exe: FileId,
    /// `task_struct.self_exec_id`: changes with each `execve`.
    pub exec_id: u64,
    /// When the facts were taken, nanoseconds since boot (`CLOCK_BOOTTIME`).
    pub seen_ns: u64,
    /// How the facts were come by.
    pub source: ClaimSource,
}

impl fmt::Display for ProcessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} (started {} ns after boot)", self.pid, self.start_ns)
    }
}
