//! What the tests share: programs that run until they are no longer needed, claims of them, and a
//! look at selectors.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::attest::{AttestSettings, Attestation, Attestor};
use crate::sys::cgroup::Cgroups;
use crate::sys::{clock, sockets};
use crate::workload::{ClaimSource, NetnsCookie, ProcessClaim, Selector};

/// A child that is ended with the test.
pub(super) struct Running(pub(super) Child);

impl Running {
    pub(super) fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::piped()).spawn().unwrap())
    }

    /// Starts a program and waits until it has taken the place of whatever started it.
    pub(super) fn program(command: &mut Command, runs: &str) -> Self {
        let running = Self::start(command);
        running.runs(runs);
        running
    }

    pub(super) fn runs(&self, name: &str) {
        let comm = format!("/proc/{}/comm", self.0.id());
        eventually(|| fs::read_to_string(&comm).unwrap().trim_end() == name);
    }

    pub(super) fn end(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    pub(super) fn claim(&self) -> ProcessClaim {
        claim(self.0.id())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

pub(super) fn eventually(mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("not within ten seconds");
}

pub(super) fn claim(pid: u32) -> ProcessClaim {
    let seen_ns = u64::try_from(clock::since_boot().as_nanos()).unwrap();
    let cgroups = Cgroups::find().unwrap();
    let claim = sockets::claim_of(pid, &cgroups, NetnsCookie(1), seen_ns).unwrap().unwrap();
    ProcessClaim { source: ClaimSource::Kernel, exec_id: 1, ..claim }
}

pub(super) fn attestor() -> Attestor {
    Attestor::new(AttestSettings::default())
}

pub(super) fn sleep() -> Command {
    let mut command = Command::new("sleep");
    command.arg("60");
    command
}

/// A copy of `sleep` of its own, made by another process so that no other test's child inherits a
/// descriptor that is open for writing.
pub(super) fn copy_of_sleep() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let copy = directory.path().join("tacit-sleeper");
    let sleep = fs::canonicalize("/bin/sleep").unwrap();
    assert!(Command::new("cp").arg(&sleep).arg(&copy).status().unwrap().success());
    (directory, copy)
}

pub(super) fn digest_of(file: &Path) -> String {
    let output = Command::new("sha256sum").arg(file).output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..64].to_owned()
}

/// The values of all selectors that begin like this.
pub(super) fn values(attestation: &Attestation, prefix: &str) -> BTreeSet<String> {
    let all = attestation.selectors.iter().map(Selector::to_string);
    all.filter_map(|selector| selector.strip_prefix(prefix).map(str::to_owned)).collect()
}

pub(super) fn only(attestation: &Attestation, prefix: &str) -> Option<String> {
    let mut values = values(attestation, prefix);
    assert!(values.len() <= 1, "{values:?}");
    values.pop_first()
}

pub(super) fn as_root() {
    assert!(nix::unistd::geteuid().is_root(), "needs root: run it by `cargo xtask test`");
}
