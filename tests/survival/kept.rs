//! With a service manager that keeps the daemon's sockets (a stand-in for systemd): what is dialled
//! while there is no daemon waits for the next, and a planned restart is not noticed.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::{Lab, Rules, ServiceManager, probe};

use crate::load::{Clients, MARKER};

/// Between two daemons, where the test wants to see what happens meanwhile.
const PAUSE: Duration = Duration::from_secs(2);

#[test]
fn what_is_dialled_without_a_daemon_waits_and_then_works() -> Result<()> {
    Lab::prepared(&Rules::client_calls_server(), |lab| {
        let a = ServiceManager::start(&lab.a, PAUSE)?;
        let b = ServiceManager::start(&lab.b, PAUSE)?;
        let _echo = lab.echo(7000)?;
        let to = format!("{}:7000", lab.b.ip);
        let words = ["talk", &to, "--text", MARKER];
        lab.client().run(probe()?, &words)?.ok()?;
        let capture = lab.a.capture("wire")?;
        for (name, manager) in [("outbound", &a), ("inbound", &b)] {
            manager.kill_daemon()?;
            let began = Instant::now();
            lab.client().run(probe()?, &words)?.ok().context(name)?;
            ensure!(began.elapsed() > PAUSE / 2, "{name}: somebody else answered");
        }
        ensure!(!capture.stop()?.contain(MARKER.as_bytes()), "plaintext crossed the wire");
        for manager in [&a, &b] {
            ensure!(manager.started() == 2 && manager.served() == 2, "{}", manager.said());
            let said = manager.said();
            ensure!(said.contains("a listening socket was passed on"), "{said}");
        }
        a.stop()?;
        b.stop()
    })
}

#[test]
fn a_planned_restart_is_not_noticed() -> Result<()> {
    Lab::prepared(&Rules::client_calls_server().log("info"), |lab| {
        let a = ServiceManager::start(&lab.a, Duration::ZERO)?;
        let b = ServiceManager::start(&lab.b, Duration::ZERO)?;
        let _echo = lab.echo(7000)?;
        let capture = lab.a.capture("wire")?;
        let clients = Clients::start(lab, 7000, &["--hold", "20"])?;
        for _ in 0..3 {
            a.restart()?;
            b.restart()?;
        }
        let tally = clients.finish()?;
        ensure!(tally.failed() == 0, "{tally:?}");
        ensure!(capture.stop()?.count(MARKER.as_bytes()) == 0, "plaintext crossed the wire");
        a.stop()?;
        b.stop()
    })
}
