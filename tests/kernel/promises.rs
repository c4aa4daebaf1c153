//! What the programs promise without any daemon's help.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::probe;

use crate::stand_in::{StandIn, nothing_pinned, talk};

/// Longer than a daemon counts as alive after its last sign of life.
const DEAD: Duration = Duration::from_secs(7);

#[test]
fn without_signs_of_life_strict_is_closed_and_permissive_open() -> Result<()> {
    let stand = StandIn::start(&["--silent"])?;
    let _echo = stand.remote().serve(probe()?, &["serve", "echo", "10.77.0.1:7000"], 7000)?;
    sleep(DEAD);
    let capture = stand.lab.b.capture("wire")?;
    for how in ["plain", "nonblocking", "mapped", "fast-open", "io-uring", "mptcp"] {
        let words = ["10.77.0.1:7000", "--how", how, "--text", "of-the-strict"];
        ensure!(talk(&stand.strict(), &words)?.failed(), "{how} got through");
    }
    talk(&stand.permissive(), &["10.77.0.1:7000", "--text", "of-the-permissive"])?.ok()?;
    let packets = capture.stop()?;
    ensure!(packets.contain(b"of-the-permissive"), "the capture misses what is there");
    ensure!(!packets.contain(b"of-the-strict"), "a strict byte left the host");
    Ok(())
}

#[test]
fn a_killed_daemon_leaves_everything_attached_and_strict_closed() -> Result<()> {
    let mut stand = StandIn::start(&[])?;
    let echo = stand.strict().serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
    stand.recorder.kill();
    sleep(DEAD);
    ensure!(talk(&stand.strict(), &["10.77.0.1:9"])?.failed(), "outbound is open");
    let dial = ["-sS", "-m", "3", "telnet://10.77.0.2:7000"];
    ensure!(stand.remote().run("curl", &dial)?.failed(), "inbound is open");
    ensure!(stand.outside().run("curl", &dial)?.failed(), "inbound is open on the host");
    ensure!(!echo.said().contains("accept="), "the server saw: {}", echo.said());
    // The next one adopts what is pinned, and everything works again.
    stand.restart(&[])?;
    talk(&stand.strict(), &["10.77.0.1:9"])?.ok()?;
    talk(&stand.remote(), &["10.77.0.2:7000"])?.ok()?;
    Ok(())
}

#[test]
fn a_strict_listener_is_reached_by_nobody_but_the_daemon() -> Result<()> {
    let stand = StandIn::start(&[])?;
    let echo = stand.strict().serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
    // All of these land at the recorder, which says so; none at the application directly.
    for to in ["127.0.0.1:7000", "[::1]:7000", "10.77.0.2:7000"] {
        let before = stand.recorder.said().matches("inbound local=").count();
        talk(&stand.outside(), &[to])?.ok()?;
        let steered = stand.recorder.said().matches("inbound local=").count() - before;
        ensure!(steered == 1, "{to}: {}\n{}", stand.recorder.said(), echo.said());
    }
    Ok(())
}

#[test]
fn the_proxys_ports_are_no_relay() -> Result<()> {
    let stand = StandIn::start(&[])?;
    for pod in [stand.outside(), stand.strict(), stand.permissive()] {
        for to in ["127.0.0.1:15001", "127.0.0.1:15006", "[::1]:15001", "[::1]:15006"] {
            ensure!(talk(&pod, &[to])?.failed(), "{to} answered");
        }
    }
    ensure!(talk(&stand.remote(), &["10.77.0.2:15001"])?.failed(), "open to the wire");
    let said = stand.recorder.said();
    ensure!(!said.contains("inbound local=127.0.0.1:150"), "{said}");
    Ok(())
}

#[test]
fn datagrams_of_a_strict_scope_stay_on_the_host() -> Result<()> {
    let stand = StandIn::start(&[])?;
    let capture = stand.lab.b.capture("wire")?;
    let send =
        |pod: harness::Pod, text: &str| pod.run(probe()?, &["datagram", "10.77.0.1:9999", text]);
    // Refused at the socket or dropped on the way: the wire decides.
    let _refused = send(stand.strict(), "of-the-strict")?;
    send(stand.permissive(), "of-the-permissive")?.ok()?;
    let packets = capture.stop()?;
    ensure!(packets.contain(b"of-the-permissive"), "the capture misses what is there");
    ensure!(!packets.contain(b"of-the-strict"), "a strict datagram left the host");
    Ok(())
}

#[test]
fn outside_every_scope_nothing_is_touched() -> Result<()> {
    let stand = StandIn::start(&[])?;
    let _echo = stand.remote().serve(probe()?, &["serve", "echo", "10.77.0.1:7000"], 7000)?;
    let capture = stand.lab.b.capture("wire")?;
    talk(&stand.outside(), &["10.77.0.1:7000", "--text", "of-an-outsider"])?.ok()?;
    ensure!(capture.stop()?.contain(b"of-an-outsider"), "it did not cross the wire as it was");
    ensure!(!stand.recorder.said().contains("outbound"), "{}", stand.recorder.said());
    Ok(())
}

#[test]
fn uninstalled_means_gone() -> Result<()> {
    let mut stand = StandIn::start(&[])?;
    ensure!(nothing_pinned(&stand.lab).is_err(), "nothing was pinned in the first place");
    stand.uninstall()?;
    nothing_pinned(&stand.lab)?;
    let _echo = stand.remote().serve(probe()?, &["serve", "echo", "10.77.0.1:7000"], 7000)?;
    talk(&stand.strict(), &["10.77.0.1:7000"])?.ok()?;
    Ok(())
}
