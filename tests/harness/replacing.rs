//! One daemon of a node takes the place of another.

use std::path::Path;
use std::process::Command;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use crate::node::{Node, READY};
use crate::process::{end, start, tacit, tail};
use crate::wait::soon;

impl Node {
    /// Starts a daemon that takes the place of the one that runs, and waits until it has.
    ///
    /// # Errors
    /// When it does not; the error shows what it said.
    pub fn replace(&self) -> Result<()> {
        self.replace_by(&tacit()?)
    }

    /// As [`Node::replace`], by this build of the daemon.
    ///
    /// # Errors
    /// As [`Node::replace`].
    pub fn replace_by(&self, daemon: &Path) -> Result<()> {
        let mut child = start(&mut self.run(daemon, &["--replace"]), &self.log())?;
        let own = child.id();
        let socket = self.socket();
        let words = ["status", "--output", "json", "--socket", &*socket.to_string_lossy()];
        let took_over = || {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return Some(false);
            }
            let said = self.tacit(&words).ok()?;
            let status: serde_json::Value = serde_json::from_str(&said.stdout).ok()?;
            (status.get("pid")?.as_u64()? == u64::from(own)).then_some(true)
        };
        if !matches!(soon(READY, "a daemon that takes over", took_over), Ok(true)) {
            end(&mut child, Signal::SIGKILL, Duration::from_secs(5));
            bail!("{} was not taken over; it said:\n{}", self.name, tail(&self.log(), 60));
        }
        let mut daemon = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        replaced.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        replaced.extend(daemon.replace(child));
        Ok(())
    }

    /// How many daemons that others have taken the place of have not ended.
    pub fn draining(&self) -> usize {
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        replaced.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        replaced.len()
    }

    /// Kills the daemons that drain.
    pub fn crash_draining(&self) {
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        replaced.iter_mut().for_each(|child| end(child, Signal::SIGKILL, Duration::from_secs(5)));
        replaced.clear();
    }

    /// The daemon's command line, to be run in its place.
    pub(crate) fn run(&self, daemon: &Path, more: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns));
        command.args(["--", "sh", "-c", "echo 0 >\"$1\" && shift && exec \"$@\"", "sh"]);
        command.arg(self.cgroup_dir.join("daemon/cgroup.procs"));
        command.arg(daemon).arg("run").arg("--config").arg(self.config()).args(more);
        command
    }
}
