//! A stand-in for systemd in front of a node's daemon, where systemd is absent: it keeps the
//! daemon's descriptors and starts the next one as soon as one has ended.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::node::Node;
use crate::process::{end, pid, start, tacit};
use crate::wait::{eventually, soon};

const PROGRAM: &str = include_str!("service_manager.py");

/// A daemon that is started again whenever it ends. It ends when this is dropped.
#[derive(Debug)]
pub struct ServiceManager {
    child: Child,
    log: PathBuf,
}

impl ServiceManager {
    /// Starts the node's daemon as a service and waits until it is ready. So long passes between the
    /// end of one daemon and the start of the next.
    ///
    /// # Errors
    /// When it is not ready in time.
    pub fn start(node: &Node, pause: Duration) -> Result<Self> {
        let (script, notify) = (node.dir().join("service_manager.py"), node.dir().join("notify"));
        let log = node.dir().join("service_manager.log");
        fs::write(&script, PROGRAM)?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", node.netns));
        command.args(["--", "/usr/bin/python3"]).arg(script);
        command.arg(pause.as_millis().to_string());
        command.arg(node.daemon_pod().cgroup().join("cgroup.procs")).arg(notify);
        command.arg(tacit()?).arg("run").arg("--config").arg(node.config());
        let manager = Self { child: start(&mut command, &log)?, log };
        soon(Duration::from_secs(30), "a ready daemon", || node.is_ready().then_some(()))
            .with_context(|| manager.said())?;
        Ok(manager)
    }

    /// What it and the daemons have said.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How many daemons it has started.
    pub fn started(&self) -> usize {
        self.said().lines().filter(|line| line.starts_with("main=")).count()
    }

    /// How many of them said that they serve.
    pub fn served(&self) -> usize {
        self.said().lines().filter(|line| *line == "ready=1").count()
    }

    /// Whether the daemon that it started last said that it serves.
    pub fn served_since_start(&self) -> bool {
        let said = self.said();
        let mut lines = said.lines().rev();
        lines.find(|line| *line == "ready=1" || line.starts_with("main=")) == Some("ready=1")
    }

    /// Pid of the daemon that it started last.
    ///
    /// # Errors
    /// When it has started none.
    pub fn main_pid(&self) -> Result<Pid> {
        let said = self.said();
        let last = said.lines().rev().find_map(|line| line.strip_prefix("main="));
        Ok(Pid::from_raw(last.context("no daemon was started")?.parse()?))
    }

    /// Kills the daemon as the kernel does when memory runs out, and waits until it is dead.
    ///
    /// # Errors
    /// When it does not die.
    pub fn kill_daemon(&self) -> Result<()> {
        let (before, daemon) = (self.ended(), self.main_pid()?);
        kill(daemon, Signal::SIGKILL).context("cannot kill the daemon")?;
        eventually("its death", || (self.ended() > before).then_some(()))
    }

    fn ended(&self) -> usize {
        self.said().lines().filter(|line| line.starts_with("ended=")).count()
    }

    /// Restarts the daemon as an operator would, and waits until the next one serves.
    ///
    /// # Errors
    /// When it does not.
    pub fn restart(&self) -> Result<()> {
        let before = self.served();
        kill(pid(&self.child), Signal::SIGHUP).context("cannot signal the stand-in")?;
        let served = || (self.served() > before).then_some(());
        soon(Duration::from_mins(1), "the next daemon", served).with_context(|| self.said())
    }

    /// Stops the service; what is kept is let go.
    ///
    /// # Errors
    /// When it does not end well.
    pub fn stop(mut self) -> Result<()> {
        end(&mut self.child, Signal::SIGTERM, Duration::from_secs(40));
        ensure!(self.said().trim_end().ends_with("ended=0"), "{}", self.said());
        Ok(())
    }
}

impl Drop for ServiceManager {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            end(&mut self.child, Signal::SIGTERM, Duration::from_secs(20));
        }
    }
}
