//! Slow, silent and hostile peers, and too many of them: they are refused or wait, it is recorded,
//! and nobody else notices.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::{Finished, Group, Lab, Rules, Server, client_id, eventually, probe, stretched, uid};

const PYTHON: &str = "/usr/bin/python3";
/// A second address of node a, from which hostile clients come.
const HOSTILE: &str = "10.77.0.3";
/// What nobody else may be held up for.
const PROMPT: Duration = Duration::from_secs(3);

/// Opens so many connections from this address, says so much of a `ClientHello` in each, and keeps
/// them. `hello`: all of it; `nothing`; `slowly`: a byte a second.
const FLOOD: &str = r"
import socket, ssl, sys, time
source, to, count, what = sys.argv[1], (sys.argv[2], int(sys.argv[3])), int(sys.argv[4]), sys.argv[5]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
def hello():
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(into, out)
    try: tls.do_handshake()
    except ssl.SSLWantReadError: pass
    return out.read()
held = []
for n in range(count):
    s = socket.socket()
    if source != '-': s.bind((source, 0))
    s.connect(to)
    if what == 'hello': s.sendall(hello())
    held.append((s, iter(hello())))
print('open=%d' % count, flush=True)
while True:
    time.sleep(1)
    for s, rest in held if what == 'slowly' else ():
        try: s.send(bytes([next(rest)]))
        except (OSError, StopIteration): pass
";

/// Accepts everything and never says a word.
const SILENT: &str = r"
import socket, sys, time
s = socket.create_server(('0.0.0.0', int(sys.argv[1])), backlog=1000)
held = []
while True: held.append(s.accept())
";

fn hostile_address(lab: &Lab) -> Result<()> {
    lab.a.in_netns("ip", &["addr", "add", &format!("{HOSTILE}/24"), "dev", "veth0"])?.ok()?;
    Ok(())
}

/// So many connections of a stranger to this port of node b.
fn flood(lab: &Lab, port: u16, count: u32, what: &str) -> Result<Server> {
    let outside = lab.a.pod(Group::Outside, uid::STRANGER);
    let (port, count) = (port.to_string(), count.to_string());
    let flood = outside.spawn(PYTHON, &["-c", FLOOD, HOSTILE, lab.b.ip, &port, &count, what])?;
    flood.says("open=").context("the flood is not there")?;
    Ok(flood)
}

fn talk(lab: &Lab) -> Result<Finished> {
    lab.client().run(probe()?, &["talk", &format!("{}:7000", lab.b.ip)])
}

/// The client talks to the server as if nothing were wrong.
fn promptly(lab: &Lab) -> Result<()> {
    for _ in 0..3 {
        let began = Instant::now();
        talk(lab)?.ok()?;
        let took = began.elapsed();
        ensure!(took < stretched(PROMPT), "held up for {took:?}");
    }
    Ok(())
}

/// Records of node b that speak of clients at the hostile address.
fn of_hostile(lab: &Lab, reason: &str) -> usize {
    let closed = lab.b.audit().closed("inbound");
    let theirs = |it: &&harness::Record| {
        it.field("reason") == reason && it.field("peer.address").starts_with(HOSTILE)
    };
    closed.iter().filter(theirs).count()
}

#[test]
fn clients_that_begin_a_handshake_and_fall_silent_hold_up_nobody_else() -> Result<()> {
    let rules = Rules::client_calls_server().proxy("max_handshakes = 16");
    Lab::check(&rules, |lab| {
        let _echo = lab.echo(7000)?;
        hostile_address(lab)?;
        let _flood = flood(lab, 7000, 200, "hello")?;
        promptly(lab)?;
        eventually("refusals", || (of_hostile(lab, "handshake_timeout") > 0).then_some(()))
    })
}

#[test]
fn servers_that_never_answer_hold_up_nobody_else() -> Result<()> {
    let rules = Rules::client_calls_server().proxy("max_handshakes = 16");
    Lab::check(&rules, |lab| {
        let _echo = lab.echo(7000)?;
        let outside = lab.b.pod(Group::Outside, uid::STRANGER);
        let _silent = outside.serve(PYTHON, &["-c", SILENT, "7001"], 7001)?;
        let other = lab.a.pod(Group::Strict, uid::OTHER);
        let dial = ["-c", FLOOD, "-", lab.b.ip, "7001", "200", "nothing"];
        let flood = other.spawn(PYTHON, &dial)?;
        flood.says("open=").context("the flood is not there")?;
        promptly(lab)
    })
}

#[test]
fn one_address_has_its_part_of_the_places_and_no_more() -> Result<()> {
    let limits = "max_unproved_per_client = 50\nfirst_byte_timeout = \"1m\"";
    Lab::check(&Rules::client_calls_server().proxy(limits), |lab| {
        let _echo = lab.echo(7000)?;
        hostile_address(lab)?;
        let _flood = flood(lab, 7000, 400, "nothing")?;
        // Summed up beyond a hundred.
        eventually("refusals", || (of_hostile(lab, "unproved_limit") >= 100).then_some(()))?;
        promptly(lab)
    })
}

#[test]
fn whoever_has_most_makes_room_for_others() -> Result<()> {
    let limits = "max_unproved = 60\nmax_unproved_per_client = 60\nfirst_byte_timeout = \"1m\"";
    Lab::check(&Rules::client_calls_server().proxy(limits), |lab| {
        let _echo = lab.echo(7000)?;
        hostile_address(lab)?;
        let _flood = flood(lab, 7000, 60, "nothing")?;
        ensure!(of_hostile(lab, "unproved_limit") == 0, "{}", lab.b.audit().shown());
        promptly(lab)?;
        eventually("who made room", || (of_hostile(lab, "unproved_limit") > 0).then_some(()))
    })
}

#[test]
fn a_hello_that_comes_a_byte_a_second_is_not_waited_for() -> Result<()> {
    let rules = Rules::client_calls_server().proxy("handshake_timeout = \"2s\"");
    Lab::check(&rules, |lab| {
        let _echo = lab.echo(7000)?;
        hostile_address(lab)?;
        let _flood = flood(lab, 7000, 50, "slowly")?;
        promptly(lab)?;
        eventually("all refused", || (of_hostile(lab, "handshake_timeout") == 50).then_some(()))
    })
}

#[test]
fn a_huge_certificate_chain_is_refused_at_once() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let echo = lab.echo(7000)?;
        let client = lab.mint(&client_id(), &[])?;
        let chain = std::fs::read_to_string(&client.chain)?;
        let to = format!("{}:7000", lab.b.ip);
        // Some that fit into a handshake message, and more than fit.
        for (copies, name) in [(50, "long"), (400, "longer")] {
            let file = lab.dir().join(name);
            std::fs::write(&file, chain.repeat(copies))?;
            let began = Instant::now();
            let said = lab.a.in_netns(
                "timeout",
                &[
                    "20",
                    "openssl",
                    "s_client",
                    "-connect",
                    &to,
                    "-cert",
                    &client.chain.to_string_lossy(),
                    "-key",
                    &client.key.to_string_lossy(),
                    "-cert_chain",
                    &file.to_string_lossy(),
                ],
            )?;
            let took = began.elapsed();
            ensure!(took < stretched(PROMPT), "{name}: {took:?}, {said:?}");
        }
        promptly(lab)?;
        let accepted = echo.said().matches("accept=").count();
        ensure!(accepted == 3, "{accepted} connections reached the server:\n{}", echo.said());
        let closed = lab.b.audit().closed("inbound");
        let refused = closed.iter().filter(|it| it.field("outcome") != "completed").count();
        ensure!(refused == 2, "{}", lab.b.audit().shown());
        Ok(())
    })
}

#[test]
fn handshakes_beyond_the_rate_wait_and_then_go_on() -> Result<()> {
    let rules = Rules::client_calls_server().proxy("max_handshake_rate_per_workload = 4");
    Lab::check(&rules, |lab| {
        let _echo = lab.echo(7000)?;
        let began = Instant::now();
        // A second's worth is there at once; both nodes count.
        for _ in 0..16 {
            talk(lab)?.ok()?;
        }
        let took = began.elapsed();
        ensure!(took > Duration::from_millis(2500), "16 handshakes within {took:?}");
        Ok(())
    })
}
