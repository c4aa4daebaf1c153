//! What users in no scope can do to others: make the daemon work for them, and fill its log.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::{Group, Lab, Rules, probe, uid};

/// Just below what gets a digest; it takes the daemon a good part of a second to read.
const BIG: u64 = 500 << 20;
const PROGRAMS: usize = 40;

/// Programs of their own, each as large as may be, of which next to nothing is on the disk.
fn big_programs(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut programs = Vec::new();
    for n in 0..PROGRAMS {
        let path = folder.join(format!("big-{n}"));
        fs::copy(probe()?, &path)?;
        fs::OpenOptions::new().write(true).open(&path)?.set_len(BIG)?;
        programs.push(path);
    }
    Ok(programs)
}

#[test]
fn big_programs_in_no_scope_delay_no_identity() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _echo = lab.echo(7000)?;
        let plain = lab.b.pod(Group::Outside, uid::SERVER);
        let _plain = plain.serve(probe()?, &["serve", "echo", "[::]:7001"], 7001)?;
        let outside = lab.a.pod(Group::Outside, uid::STRANGER);
        let programs = big_programs(&outside.folder("big")?)?;
        let to = format!("{}:7001", lab.b.ip);
        let mut flood = Vec::new();
        for program in &programs {
            flood.push(outside.spawn(program, &["talk", &to, "--hold", "20000"])?);
        }
        for one in &flood {
            one.says("peer=").context("the flood is not there")?;
        }
        // Nobody has run this file before: the daemon has to read it.
        let cold = lab.client().folder("cold")?.join("cold");
        fs::copy(probe()?, &cold)?;
        let began = Instant::now();
        lab.client().run(&cold, &["talk", &format!("{}:7000", lab.b.ip)])?.ok()?;
        let took = began.elapsed();
        ensure!(took < Duration::from_secs(3), "it took {took:?}");
        Ok(())
    })
}
