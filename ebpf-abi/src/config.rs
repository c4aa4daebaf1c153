//! What the daemon tells the programs: who it is, where it listens, that it is alive.

/// A daemon, and as many before it as may drain at one time.
pub const MAX_DAEMONS: usize = 4;

/// Offsets of the fields of kernel structures that the programs read, in bytes, from the running
/// kernel's BTF.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskOffsets {
    /// `task_struct.group_leader`
    pub group_leader: u32,
    /// `task_struct.start_boottime`
    pub start_boottime: u32,
    /// `task_struct.cred`
    pub cred: u32,
    /// `task_struct.real_cred`
    pub real_cred: u32,
    /// `task_struct.mm`
    pub mm: u32,
    /// `task_struct.self_exec_id`
    pub self_exec_id: u32,
    /// `cred.uid`
    pub cred_uid: u32,
    /// `cred.gid`
    pub cred_gid: u32,
    /// `cred.euid`
    pub cred_euid: u32,
    /// `cred.egid`
    pub cred_egid: u32,
    /// `mm_struct.exe_file`
    pub mm_exe_file: u32,
    /// `file.f_inode`
    pub file_inode: u32,
    /// `inode.i_ino`
    pub inode_ino: u32,
    /// `inode.i_sb`
    pub inode_sb: u32,
    /// `super_block.s_dev`
    pub sb_dev: u32,
    /// `cgroup.kn`
    pub cgroup_kn: u32,
    /// `kernfs_node.id`
    pub kn_id: u32,
    /// `cgroup.root`
    pub cgroup_root: u32,
    /// `cgroup_root.hierarchy_id`
    pub root_hierarchy: u32,
}

/// The one entry of the `CONFIG` array.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Config {
    /// [`crate::ABI_VERSION`] of the daemon that wrote this.
    pub abi_version: u32,
    /// 1: connections outside every scope are recorded too.
    pub observe_unscoped: u32,
    /// Thread group ids of the daemon and of those before it that still drain; 0 for none.
    pub daemons: [u32; MAX_DAEMONS],
    /// Cgroup that holds the daemon and nothing else.
    pub daemon_cgroup: u64,
    /// Cookie of the network namespace that the daemon serves.
    pub netns: u64,
    /// `CLOCK_BOOTTIME` in ns until which the daemon counts as alive.
    pub alive_until_ns: u64,
    /// Bit n set: some scope is a cgroup at depth n (the root is 0).
    pub scope_levels: u64,
    /// Port of the outbound listener on 127.0.0.1.
    pub outbound4: u16,
    /// Port of the outbound listener on `[::1]`.
    pub outbound6: u16,
    /// Port of the inbound listener on 127.0.0.1.
    pub inbound4: u16,
    /// Port of the inbound listener on `[::1]`.
    pub inbound6: u16,
    /// Where to find who is acting.
    pub offsets: TaskOffsets,
    /// Zero.
    pub padding: u32,
}

const _: () = assert!(size_of::<Config>() == 24 + 32 + 8 + 76 + 4);
