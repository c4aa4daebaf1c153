//! Without anybody who keeps the daemon's sockets: strict connects are held for a stated time and
//! then refused, and open scopes are not cut off.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::{Group, Lab, Rules, eventually, probe, uid};

use crate::load::MARKER;

/// Longer than a daemon counts as alive after its last sign of life.
const SILENT: Duration = Duration::from_secs(6);
/// How long a connect is held at most: to the first SYN after that, which comes 7 s after the first
/// of all.
const HELD: Duration = Duration::from_secs(10);

#[test]
fn a_held_connect_works_with_the_next_daemon() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _echo = lab.echo(7000)?;
        let to = format!("{}:7000", lab.b.ip);
        let words = ["talk", &to, "--text", MARKER];
        let capture = lab.a.capture("wire")?;
        lab.a.crash()?;
        let mut held = lab.client().spawn(probe()?, &words)?;
        sleep(Duration::from_millis(1500));
        ensure!(!held.said().contains("ok=") && !held.said().contains("error="), "not held");
        lab.a.start()?;
        ensure!(held.wait()?.success(), "{}", held.said());
        ensure!(!capture.stop()?.contain(MARKER.as_bytes()), "plaintext crossed the wire");
        Ok(())
    })
}

#[test]
fn a_held_connect_is_refused_in_the_end_and_recorded() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _echo = lab.echo(7000)?;
        let to = format!("{}:7000", lab.b.ip);
        let words = ["talk", &to, "--text", MARKER];
        let capture = lab.a.capture("wire")?;
        lab.a.crash()?;
        let began = Instant::now();
        let mut held = lab.client().spawn(probe()?, &words)?;
        // An open scope goes on at once, however lately the daemon was there.
        let open = lab.a.pod(Group::Permissive, uid::CLIENT);
        let plain = lab.b.pod(Group::Outside, uid::SERVER);
        let _other = plain.serve(probe()?, &["serve", "echo", "[::]:7001"], 7001)?;
        let at = format!("{}:7001", lab.b.ip);
        open.run(probe()?, &["talk", &at, "--text", "of-the-permissive"])?.ok()?;
        ensure!(began.elapsed() < Duration::from_secs(4), "the open scope was cut off");

        sleep(SILENT.saturating_sub(began.elapsed()));
        let new = Instant::now();
        let said = lab.client().run(probe()?, &words)?;
        ensure!(said.stdout.contains("not_permitted"), "{said:?}");
        ensure!(new.elapsed() < Duration::from_secs(2), "took {:?}", new.elapsed());

        ensure!(!held.wait()?.success(), "it got through: {}", held.said());
        ensure!(began.elapsed() < HELD, "held for {:?}", began.elapsed());
        let packets = capture.stop()?;
        ensure!(packets.contain(b"of-the-permissive"), "the capture misses what is there");
        ensure!(!packets.contain(MARKER.as_bytes()), "plaintext crossed the wire");
        lab.a.start()?;
        let denied = || {
            let mut records = lab.a.audit().records();
            records.retain(|it| it.field("reason") == "daemon_absent");
            (records.len() >= 2).then_some(records)
        };
        // The one that was held, and the one that was refused at once.
        for record in eventually("a record of both", denied)? {
            ensure!(record.field("process.uid") == uid::CLIENT.to_string(), "{}", record.json());
        }
        Ok(())
    })
}
