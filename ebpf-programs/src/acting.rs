//! Who is acting? Read in the acting thread, by the hooks that run there.
//! The helper for uid and gid gives only the real ones; the effective ones, the start time and the
//! executable are read from the task by offsets that the daemon took from the kernel's BTF.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_task,
    bpf_ktime_get_boot_ns, bpf_probe_read_kernel,
};
use ebpf_abi::{Process, TaskOffsets};

/// Reads a `T` at `base + offset` in kernel memory; zero if it cannot be read.
#[inline(always)]
pub fn field<T: Copy + Default>(base: u64, offset: u32) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    let from = (base + u64::from(offset)) as *const c_void;
    // SAFETY: the helper checks the address; T is a plain integer of this size.
    unsafe {
        if bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, from) != 0 {
            return T::default();
        }
        value.assume_init()
    }
}

#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

#[inline(always)]
pub fn tgid() -> u32 {
    // SAFETY: no arguments.
    (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32
}

#[inline(always)]
pub fn cgroup() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_get_current_cgroup_id() }
}

/// Real and effective user of the current thread.
#[inline(always)]
pub fn users(offsets: &TaskOffsets) -> (u32, u32) {
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task() };
    let cred: u64 = field(task, offsets.cred);
    (field(cred, offsets.cred_uid), field(cred, offsets.cred_euid))
}

/// Whether the thread acts with other credentials than its own: a personality of `io_uring`, which
/// whoever holds the ring can use. Then its users say nothing about who acts.
#[inline(always)]
pub fn borrows(offsets: &TaskOffsets) -> bool {
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task() };
    let (cred, own): (u64, u64) = (field(task, offsets.cred), field(task, offsets.real_cred));
    cred != own
}

/// Writes all the facts about the current thread's process into `to`.
#[inline(always)]
pub fn record(to: &mut Process, offsets: &TaskOffsets, netns: u64) {
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task() };
    let leader: u64 = field(task, offsets.group_leader);
    let cred: u64 = field(task, offsets.cred);
    let mm: u64 = field(task, offsets.mm);
    let exe: u64 = field(mm, offsets.mm_exe_file);
    let inode: u64 = field(exe, offsets.file_inode);
    let sb: u64 = field(inode, offsets.inode_sb);
    to.start_ns = field(leader, offsets.start_boottime);
    to.seen_ns = now_ns();
    to.cgroup = cgroup();
    to.netns = netns;
    to.exe_ino = field(inode, offsets.inode_ino);
    to.exec_id = field(task, offsets.self_exec_id);
    to.exe_dev = field(sb, offsets.sb_dev);
    to.tgid = tgid();
    to.uid = field(cred, offsets.cred_euid);
    to.gid = field(cred, offsets.cred_egid);
    to.real_uid = field(cred, offsets.cred_uid);
    to.real_gid = field(cred, offsets.cred_gid);
}
