//! Processors and what is used of them: pinning, processor time of a cgroup, memory of its
//! processes.

use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

/// Where everything runs: both daemons or relays, both applications, and the wire between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pinning {
    /// On one processor.
    Pinned,
    /// On all that there are.
    Unpinned,
}

impl Pinning {
    /// As tables show it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pinned => "pinned to one core",
            Self::Unpinned => "unpinned",
        }
    }
}

/// Pins this process and all that it will start; gives it back its processors when dropped.
#[derive(Debug)]
pub(crate) struct Pinned(CpuSet);

impl Pinned {
    /// Pins if that is wanted.
    pub(crate) fn new(pinning: Pinning) -> Result<Self> {
        let myself = Pid::from_raw(0);
        let before = sched_getaffinity(myself)?;
        if pinning == Pinning::Pinned {
            let mut one = CpuSet::new();
            let first = (0..CpuSet::count()).find(|cpu| before.is_set(*cpu) == Ok(true));
            one.set(first.context("no processor")?)?;
            sched_setaffinity(myself, &one)?;
        }
        Ok(Self(before))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // What follows would only be measured on fewer processors than it says; it says how many.
        let _restored = sched_setaffinity(Pid::from_raw(0), &self.0).is_ok();
    }
}

/// How many processors this process may use now.
pub(crate) fn width() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Lets this process and all that it starts open as many files as the host allows.
pub(crate) fn open_many_files() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

/// Processor time that a cgroup has used, seconds. Source: `cpu.stat` in the kernel's cgroup-v2.rst.
pub(crate) fn used(cgroup: &Path) -> Result<f64> {
    let stat = fs::read_to_string(cgroup.join("cpu.stat"))?;
    let usage = stat.lines().find_map(|line| line.strip_prefix("usage_usec "));
    let microseconds: f64 = usage.context("no usage_usec in cpu.stat")?.parse()?;
    Ok(microseconds / 1e6)
}

/// Resident memory of the processes of a cgroup, KiB. Source: `VmRSS` in `proc_pid_status(5)`.
pub(crate) fn resident_kib(cgroup: &Path) -> Result<f64> {
    let mut sum = 0.0;
    for pid in fs::read_to_string(cgroup.join("cgroup.procs"))?.split_whitespace() {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        let kib: f64 = number.context("no VmRSS in status")?.parse()?;
        sum += kib;
    }
    Ok(sum)
}
