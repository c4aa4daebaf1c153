//! What happens while no daemon runs is told by the next one: with the time at which it happened, and
//! with how much of it was lost.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{Lab, Record, Rules, eventually, probe};

/// Longer than a daemon counts as alive after its last sign of life.
const DEAD: Duration = Duration::from_secs(6);

/// Denied again and again, more often than the ring of events has room for.
const FLOOD: &str = "
import socket, sys
for n in range(40000):
    s = socket.socket()
    try: s.connect((sys.argv[1], 7000))
    except PermissionError: pass
    s.close()
";

/// The records of this reason about the daemon itself.
fn told(lab: &Lab, reason: &str) -> Vec<Record> {
    let mut records = lab.a.audit().records();
    records.retain(|it| it.field("event") == "daemon" && it.field("reason") == reason);
    records
}

#[test]
fn a_denial_without_a_daemon_has_the_time_at_which_it_happened() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        lab.a.crash()?;
        sleep(DEAD);
        let now = || tacit::audit::format_time(tacit::sys::clock::now());
        let before = now();
        let to = format!("{}:7000", lab.b.ip);
        ensure!(lab.client().run(probe()?, &["talk", &to])?.failed());
        let after = now();
        sleep(Duration::from_secs(2));
        lab.a.start()?;
        let record = lab.a.audit().expect_denied("outbound", "daemon_absent")?;
        let time = record.field("time");
        ensure!(before <= time && time <= after, "{before} <= {time} <= {after}");
        Ok(())
    })
}

#[test]
fn what_the_ring_lost_without_a_daemon_is_told_once() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        lab.a.crash()?;
        sleep(DEAD);
        lab.client().must("/usr/bin/python3", &["-c", FLOOD, lab.b.ip])?;
        lab.a.start()?;
        let lost = eventually("a record of what was lost", || told(lab, "events_lost").pop())?;
        ensure!(lost.field("detail").contains("before this daemon"), "{}", lost.json());
        lab.a.crash()?;
        lab.a.start()?;
        eventually("a third start", || (told(lab, "started").len() == 3).then_some(()))?;
        sleep(Duration::from_secs(2));
        ensure!(told(lab, "events_lost").len() == 1, "{}", lab.a.audit().shown());
        Ok(())
    })
}
