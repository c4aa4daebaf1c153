#![expect(unsafe_code, reason = "membarrier has no safe wrapper")]
//! Waits until nobody in the kernel still acts on what was there before.

use std::io;

/// Source: include/uapi/linux/membarrier.h (Linux 4.3).
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

/// Returns when every eBPF program that ran when it was called has ended: they run within RCU read
/// sections, and this waits for a grace period (kernel/sched/membarrier.c). Takes milliseconds.
///
/// # Errors
/// The kernel has no such call, or runs with `nohz_full`.
pub fn wait_for_programs() -> io::Result<()> {
    // SAFETY: takes three integers and touches no memory.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_kernel_can_wait() {
        super::wait_for_programs().unwrap();
    }
}
