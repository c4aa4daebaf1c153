//! A disk that takes no more: what that holds up, and that it never holds up the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::{Lab, Rules, eventually, probe};

/// A file system of 256 KiB at this place, for as long as this lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(place: &Path) -> Result<Self> {
        fs::create_dir(place)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k", "tacit-test"]).arg(place);
        ensure!(mount.status()?.success(), "cannot mount a file system at {}", place.display());
        Ok(Self(place.to_owned()))
    }

    fn fill(&self) -> Result<()> {
        let filled = fs::write(self.0.join("ballast"), vec![0; 1 << 20]);
        ensure!(filled.is_err(), "the disk takes more than it has");
        Ok(())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a daemon that is still there has the log open.
        let _unmounted = Command::new("umount").arg("-l").arg(&self.0).status().is_ok();
    }
}

#[test]
fn a_daemon_on_a_full_disk_is_not_ready_says_why_and_still_stops() -> Result<()> {
    let rules = Rules::client_calls_server().log_in("small").proxy("drain_timeout = \"1s\"");
    Lab::prepared(&rules, |lab| {
        let disk = SmallDisk::at(&lab.a.dir().join("small"))?;
        fs::create_dir(lab.b.dir().join("small"))?;
        lab.a.start()?;
        lab.b.start()?;
        let _echo = lab.echo(7000)?;
        let to = format!("{}:7000", lab.b.ip);
        let talk = || lab.client().run(probe()?, &["talk", &to]);
        talk()?.ok()?;
        disk.fill()?;
        // What is left of the log's last page takes a few more.
        eventually("a daemon that is not ready", || {
            let _served = talk().is_ok();
            let said = lab.a.in_netns("curl", &["-s", "http://127.0.0.1:9464/ready"]).ok()?;
            said.stdout.contains("it cannot be written").then_some(())
        })?;
        let id = "00ff-1";
        let said = lab.a.tacit(&["explain", id, "--socket", &lab.a.socket().to_string_lossy()])?;
        ensure!(said.failed() && said.stderr.contains("takes no records now"), "{said:?}");
        let began = Instant::now();
        lab.a.terminate()?;
        eventually("the end of the daemon", || lab.a.has_ended().then_some(()))?;
        ensure!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
        let said = lab.a.logged();
        ensure!(said.contains("these audit records are lost"), "not a word of what is lost");
        Ok(())
    })
}
