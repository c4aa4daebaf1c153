//! The recorder in the daemon's place on node b.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use harness::{Finished, Group, Lab, Pod, Server, probe, recorder, uid};

/// Node b with the programs attached.
pub(crate) struct StandIn {
    pub(crate) lab: Lab,
    pub(crate) recorder: Server,
}

impl StandIn {
    /// Starts the recorder with these extra options and waits until the programs are attached.
    pub(crate) fn start(more: &[&str]) -> Result<Self> {
        let lab = Lab::without_daemons()?;
        let recorder = spawn(&lab, more)?;
        Ok(Self { lab, recorder })
    }

    /// Another recorder after the first has gone.
    pub(crate) fn restart(&mut self, more: &[&str]) -> Result<()> {
        self.recorder.kill();
        self.recorder = spawn(&self.lab, more)?;
        Ok(())
    }

    /// A strict program of the server's user.
    pub(crate) fn strict(&self) -> Pod {
        self.lab.b.pod(Group::Strict, uid::SERVER)
    }

    /// A permissive one.
    pub(crate) fn permissive(&self) -> Pod {
        self.lab.b.pod(Group::Permissive, uid::SERVER)
    }

    /// One in no scope.
    pub(crate) fn outside(&self) -> Pod {
        self.lab.b.pod(Group::Outside, uid::STRANGER)
    }

    /// A program on the other host.
    pub(crate) fn remote(&self) -> Pod {
        self.lab.a.pod(Group::Outside, uid::STRANGER)
    }

    /// The value behind `name=` in what the recorder said last.
    pub(crate) fn recorded(&self, name: &str) -> Result<String> {
        self.recorder.value(name)
    }

    /// Removes everything from the kernel.
    pub(crate) fn uninstall(&mut self) -> Result<()> {
        self.recorder.kill();
        let (pins, cgroup) = places(&self.lab);
        let words = ["--uninstall", "--pins", &pins, "--cgroup", &cgroup];
        self.lab.b.daemon_pod().must(recorder()?, &words)?;
        Ok(())
    }
}

/// Runs the probe's `talk` with these words, the address first.
pub(crate) fn talk(pod: &Pod, words: &[&str]) -> Result<Finished> {
    pod.run(probe()?, &[&["talk"], words].concat())
}

fn spawn(lab: &Lab, more: &[&str]) -> Result<Server> {
    let (pins, cgroup) = places(lab);
    let words = [&["--pins", &pins, "--cgroup", &cgroup], more].concat();
    let recorder = lab.b.daemon_pod().spawn(recorder()?, &words)?;
    recorder.says("ready=1").context("the programs are not attached")?;
    Ok(recorder)
}

fn places(lab: &Lab) -> (String, String) {
    (lab.b.pins().to_string_lossy().into_owned(), lab.b.cgroup().to_owned())
}

/// Whether nothing is left under the pins.
pub(crate) fn nothing_pinned(lab: &Lab) -> Result<()> {
    let pins = lab.b.pins();
    let left = fs::read_dir(&pins).map_or(0, Iterator::count);
    ensure!(left == 0, "{left} left in {}", pins.display());
    Ok(())
}
