//! Who acted: taken in the acting thread, by the connect, bind and create hooks.

/// The facts about a process at the moment it acted on a socket.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Process {
    /// `start_boottime` of the thread group leader, ns.
    pub start_ns: u64,
    /// When these facts were taken (`CLOCK_BOOTTIME`), ns. 0: never taken.
    pub seen_ns: u64,
    /// Cgroup (v2) id.
    pub cgroup: u64,
    /// Cookie of the socket's network namespace.
    pub netns: u64,
    /// Inode of the running executable.
    pub exe_ino: u64,
    /// `self_exec_id`: changes with each execve.
    pub exec_id: u64,
    /// Device of the executable in the kernel's own encoding (major << 20 | minor).
    pub exe_dev: u32,
    /// Thread group id in the initial pid namespace.
    pub tgid: u32,
    /// Effective user id, initial user namespace.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Real user id.
    pub real_uid: u32,
    /// Real group id.
    pub real_gid: u32,
}

const _: () = assert!(size_of::<Process>() == 72);
