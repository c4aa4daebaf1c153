//! System calls that the daemon has no use for once it stands, and an intruder has: they fail with
//! EPERM in every thread. A list of what is forbidden, not of what is allowed: libraries and the C
//! library may change what they call, and the daemon must not fall over that.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::PrivilegeError;

/// Whether the daemon runs programs of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Programs {
    /// None: it can execute nothing.
    None,
    /// Those that the configuration names, each without network.
    Configured,
}

/// Other processes' memory, other file systems, other kernels, other clocks.
const FORBIDDEN: &[libc::c_long] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_personality,
    libc::SYS_mknodat,
];

/// What only some machines have.
#[cfg(target_arch = "x86_64")]
const FORBIDDEN_HERE: &[libc::c_long] =
    &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_mknod, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const FORBIDDEN_HERE: &[libc::c_long] = &[];

/// Commands of `bpf(2)` that bring something new into the kernel. Source: include/uapi/linux/bpf.h,
/// `enum bpf_cmd`.
const FORBIDDEN_BPF: &[u64] = &[
    5,  // BPF_PROG_LOAD
    8,  // BPF_PROG_ATTACH
    17, // BPF_RAW_TRACEPOINT_OPEN
    18, // BPF_BTF_LOAD
    28, // BPF_LINK_CREATE
];

/// Forbids them in every thread of the daemon, for good.
///
/// # Errors
/// The kernel has no seccomp (`CONFIG_SECCOMP_FILTER`), or refuses the filter. The daemon should not
/// run on.
pub fn forbid_calls(programs: Programs) -> Result<(), PrivilegeError> {
    let failed = |error: String| PrivilegeError::Calls(error);
    let filter = filter(programs).map_err(|error| failed(error.to_string()))?;
    seccompiler::apply_filter_all_threads(&filter).map_err(|error| failed(error.to_string()))
}

fn filter(programs: Programs) -> Result<BpfProgram, seccompiler::BackendError> {
    let always = |call: &libc::c_long| (*call, Vec::new());
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        FORBIDDEN.iter().chain(FORBIDDEN_HERE).map(always).collect();
    if programs == Programs::None {
        rules.extend([libc::SYS_execve, libc::SYS_execveat, libc::SYS_unshare].iter().map(always));
    }
    let with_command = |command: &u64| {
        let is_it = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *command)?;
        SeccompRule::new(vec![is_it])
    };
    rules.insert(libc::SYS_bpf, FORBIDDEN_BPF.iter().map(with_command).collect::<Result<_, _>>()?);
    let denied = u32::try_from(libc::EPERM).unwrap_or(1);
    let here = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(denied), here)?.try_into()
}
