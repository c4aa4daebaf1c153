//! SIGKILLs under load, at any moment, also while the next daemon starts: several pairs of nodes at
//! once, and on each strict clients, a strict server and an intruder. Not one plaintext byte of theirs
//! may be on the wire, nobody may hang, and what was lost is counted. The kernel ends a daemon by the
//! same signal when memory runs out.

use std::env;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use harness::{Group, Lab, Node, Rules, ServiceManager, eventually, probe, soon, uid};

use crate::load::{Clients, MARKER, Tally};
use crate::replaced::verified;

/// Of all tests together; `cargo xtask survive --kills` for more.
const KILLS: u64 = 200;
/// Pairs of nodes at one time: a daemon that starts waits for the disk and the kernel, too.
const LABS: usize = 3;
/// A daemon that serves lives on for less than this.
const LIFE_MS: u64 = 400;

#[expect(clippy::disallowed_methods, reason = "tests are told by their runner what to do")]
fn wanted() -> u64 {
    env::var("TACIT_SURVIVAL_KILLS").ok().and_then(|it| it.parse().ok()).unwrap_or(KILLS)
}

/// Numbers that no two runs have alike; a failure says with which it began.
struct Chance(u64);

impl Chance {
    fn next(&mut self, below: u64) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// Kills the daemon of one node again and again, as long as there are kills left to do.
fn kill_again_and_again(manager: &ServiceManager, left: &AtomicU64, seed: u64) -> Result<u64> {
    let (mut chance, mut kills, mut in_start) = (Chance(seed | 1), 0, false);
    let more = |left: u64| left.checked_sub(1);
    while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok() {
        // Never two in a row that did not get to serve: a daemon that never gives a sign of life is
        // refused connections, and that is not what is looked for here.
        in_start = !in_start && chance.next(4) == 0;
        if !in_start {
            let serves = || (manager.served_since_start()).then_some(());
            soon(Duration::from_mins(1), "a daemon that serves", serves)
                .with_context(|| manager.said())?;
        }
        sleep(Duration::from_millis(chance.next(LIFE_MS)));
        manager.kill_daemon()?;
        kills += 1;
    }
    Ok(kills)
}

/// One pair of nodes: what the clients noticed, and how many kills there were.
fn survive(lab: &Lab, left: &AtomicU64, seed: u64) -> Result<(Tally, u64)> {
    let a = ServiceManager::start(&lab.a, Duration::ZERO)?;
    let b = ServiceManager::start(&lab.b, Duration::ZERO)?;
    let _echo = lab.echo(7000)?;
    let capture = lab.a.capture_bulk("wire")?;
    let clients = Clients::start(lab, 7000, &["--threads", "3", "--hold", "5", "--pause", "40"])?;
    let to = format!("{}:7000", lab.b.ip);
    let words = ["load", &*to, "--text", "of-an-intruder", "--threads", "1", "--pause", "50"];
    let mut intruder = lab.a.pod(Group::Outside, uid::STRANGER).spawn(probe()?, &words)?;
    let kills = scope(|scope| {
        let one = scope.spawn(|| kill_again_and_again(&a, left, seed));
        let other = kill_again_and_again(&b, left, seed.rotate_left(32));
        match one.join() {
            Ok(one) => Ok::<u64, anyhow::Error>(one? + other?),
            Err(_panicked) => bail!("a killer came to grief"),
        }
    })?;
    for (node, manager) in [(&lab.a, &a), (&lab.b, &b)] {
        let serves = || manager.served_since_start().then_some(());
        soon(Duration::from_mins(1), "the last daemon", serves).with_context(|| manager.said())?;
        ensure!(is_ready(node), "{}", manager.said());
    }
    let tally = clients.finish()?;
    let said = intruder.finish()?;
    ensure!(said.contains("\nok=0 "), "a strict listener answered an intruder:\n{said}");
    let packets = capture.stop()?;
    ensure!(packets.hold_tls(), "the capture saw nothing");
    let plaintext = packets.count(MARKER.as_bytes()) * MARKER.len();
    ensure!(plaintext == 0, "{plaintext} plaintext bytes of strict programs on the wire");
    a.stop()?;
    b.stop()?;
    verified(&lab.a)?;
    verified(&lab.b)?;
    Ok((tally, kills))
}

fn is_ready(node: &Node) -> bool {
    eventually("a ready daemon", || node.ask(&["status"]).ok()).is_ok()
}

#[test]
fn sigkills_under_load_leave_nothing_in_the_clear_and_nobody_stuck() -> Result<()> {
    let (left, began) = (AtomicU64::new(wanted()), Instant::now());
    let seed = u64::from(tacit::sys::clock::now().duration_since(UNIX_EPOCH)?.subsec_nanos());
    let rules = Rules::client_calls_server().log("warn");
    let all = scope(|scope| {
        let labs: Vec<_> = (0..LABS)
            .map(|number| {
                let (left, rules) = (&left, &rules);
                let seed = Chance(seed + u64::try_from(number).unwrap_or(0) * 7919).next(u64::MAX);
                scope.spawn(move || {
                    let mut result = Ok(None);
                    let lab = Lab::prepared(rules, |lab| {
                        result = survive(lab, left, seed).map(Some);
                        Ok(())
                    });
                    lab.and(result)
                })
            })
            .collect();
        labs.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let (mut kills, mut total) = (0, Tally::default());
    for lab in all {
        let Ok(survived) = lab else { bail!("a lab came to grief") };
        let Some((tally, killed)) = survived.with_context(|| format!("seed {seed}"))? else {
            bail!("a lab did nothing");
        };
        kills += killed;
        total = total.and(tally);
    }
    println!("{kills} kills in {:?}: {total:?}", began.elapsed());
    ensure!(kills == wanted(), "{kills} kills");
    // What was open when a daemon died is lost; nobody waits in vain, and nobody is turned away.
    ensure!(total.stuck == 0 && total.refused == 0, "{total:?}");
    Ok(())
}
