//! What users in no scope can do to others: make the daemon work for them, and fill its log.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::{Group, Lab, Node, Record, Rules, eventually, probe, uid};

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

/// Connects without saying anything, so often.
const CONNECTS: &str = "
import socket, sys
for n in range(int(sys.argv[3])):
    s = socket.socket()
    try: s.connect((sys.argv[1], int(sys.argv[2]))); s.sendall(b'GET /'); s.recv(1)
    except OSError: pass
    s.close()
";

/// How many closing records fit, and the detail of the one that says how many more there were.
fn told(node: &Node, sum: &str, fits: impl Fn(&Record) -> bool) -> Result<(usize, String)> {
    let records = || node.audit().records();
    let summed = || records().into_iter().find(|it| it.field("reason") == sum);
    let summed = eventually("a record that sums up", summed)?;
    let closing = records().into_iter().filter(|it| it.is_closing() && fits(it)).count();
    Ok((closing, summed.field("detail")))
}

#[test]
fn a_loop_of_observed_connections_is_summed_up() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let plain = lab.b.pod(Group::Outside, uid::SERVER);
        let _plain = plain.serve(probe()?, &["serve", "echo", "[::]:7001"], 7001)?;
        let outside = lab.a.pod(Group::Outside, uid::STRANGER);
        outside.must("/usr/bin/python3", &["-c", CONNECTS, lab.b.ip, "7001", "400"])?;
        let ours = |it: &Record| it.field("peer.address") == format!("{}:7001", lab.b.ip);
        let (closing, detail) = told(&lab.a, "observed_summed_up", ours)?;
        ensure!((100..300).contains(&closing), "{closing} records");
        ensure!(detail.contains(&format!("user {}", uid::STRANGER)), "{detail}");
        let theirs = |it: &Record| it.field("local.address").ends_with(":7001");
        let (closing, detail) = told(&lab.b, "observed_summed_up", theirs)?;
        ensure!((100..300).contains(&closing), "{closing} records");
        ensure!(detail.contains(&format!("peer {}", lab.a.ip)), "{detail}");
        Ok(())
    })
}

#[test]
fn what_strangers_are_refused_is_summed_up_and_what_is_proved_is_not() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _echo = lab.echo(7000)?;
        let outside = lab.a.pod(Group::Outside, uid::STRANGER);
        outside.must("/usr/bin/python3", &["-c", CONNECTS, lab.b.ip, "7000", "300"])?;
        for _ in 0..120 {
            lab.client().run(probe()?, &["talk", &format!("{}:7000", lab.b.ip)])?.ok()?;
        }
        let refused = |it: &Record| it.field("reason") == "plaintext_refused";
        let (closing, detail) = told(&lab.b, "denials_summed_up", refused)?;
        ensure!((100..300).contains(&closing), "{closing} records");
        ensure!(detail.contains("plaintext_refused"), "{detail}");
        let proved = || {
            let closed = lab.b.audit().closed("inbound");
            closed.iter().filter(|it| it.field("outcome") == "completed").count()
        };
        eventually("120 records of what was proved", || (proved() == 120).then_some(()))
    })
}
