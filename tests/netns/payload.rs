//! Bytes arrive as they were sent, in whatever way they were sent, and ends arrive as ends. Each way
//! is one function, which also tells what both ends saw of each other; it runs once with no daemon
//! (the control run, in which its payload does cross the wire) and once protected.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{Claim, Lab, Rules, Seen, Server, probe, protected, stretched, value};

const MARKER: &str = "c0ffee-secret-of-the-payload";
/// What the probe's server says first.
const GREETING: &str = "220 welcome\r\n";
const UPLOADED: &str = "100000000";
const MANY: usize = 1000;

/// Runs the probe as the client.
fn talk(lab: &Lab, words: &[&str]) -> Result<String> {
    lab.client().must(probe()?, words)
}

/// A server of this kind on node b; what it sends by itself bears the marker.
fn serve(lab: &Lab, what: &str, port: u16) -> Result<Server> {
    let words = ["serve", what, &format!("[::]:{port}"), "--mark", MARKER];
    lab.server().serve(probe()?, &words, port)
}

fn to(lab: &Lab, port: u16) -> String {
    format!("{}:{port}", lab.b.ip)
}

fn talks(lab: &Lab) -> Result<Seen> {
    let echo = serve(lab, "echo", 7000)?;
    Seen::by_probes(&talk(lab, &["talk", &to(lab, 7000), "--text", MARKER])?, &echo)
}

/// The answer comes after the client has closed its half: half-close is carried through.
fn uploads(lab: &Lab) -> Result<Seen> {
    let digest = serve(lab, "digest", 7001)?;
    let said = talk(lab, &["upload", &to(lab, 7001), UPLOADED, "--mark", MARKER])?;
    Seen::by_probes(&said, &digest)
}

fn downloads(lab: &Lab, pause: &str) -> Result<Seen> {
    let source = serve(lab, "source", 7002)?;
    let said = talk(lab, &["download", &to(lab, 7002), "--pause", pause])?;
    ensure!(value(&said, "sha256") == Some(source.value("sha256")?), "not what was sent");
    Seen::by_probes(&said, &source)
}

fn writes_tinily(lab: &Lab) -> Result<Seen> {
    let echo = serve(lab, "echo", 7003)?;
    let words = ["talk", &to(lab, 7003), "--text", MARKER, "--times", "50", "--tiny"];
    Seen::by_probes(&talk(lab, &words)?, &echo)
}

fn opens_many(lab: &Lab) -> Result<Seen> {
    let echo = serve(lab, "echo", 7004)?;
    let words = ["many", &to(lab, 7004), &MANY.to_string(), "--text", MARKER];
    let seen = Seen::by_probes(&talk(lab, &words)?, &echo)?;
    ensure!(seen.client_own.len() == MANY, "{} connections", seen.client_own.len());
    Ok(seen)
}

/// The client is silent until it has been greeted.
fn waits_for_a_greeting(lab: &Lab) -> Result<Seen> {
    let greeter = serve(lab, "greet", 7025)?;
    let words = ["talk", &to(lab, 7025), "--text", MARKER, "--greeting", GREETING];
    Seen::by_probes(&talk(lab, &words)?, &greeter)
}

fn aborts(lab: &Lab) -> Result<Seen> {
    let echo = serve(lab, "echo", 7005)?;
    let said = talk(lab, &["abort", &to(lab, 7005), "--text", MARKER])?;
    ensure!(echo.value("end")? == "ConnectionReset", "the server saw: {}", echo.said());
    Seen::by_probes(&said, &echo)
}

/// The check that no plaintext crosses the wire is worth something: without daemons it finds it, and
/// what both ends see is the same.
#[test]
fn control_run_without_daemons_shows_the_plaintext() -> Result<()> {
    let lab = Lab::without_daemons()?;
    let exercises: [(&str, &dyn Fn() -> Result<Seen>); 7] = [
        ("talk", &|| talks(&lab)),
        ("upload", &|| uploads(&lab)),
        ("download", &|| downloads(&lab, "0")),
        ("many", &|| opens_many(&lab)),
        ("greeting", &|| waits_for_a_greeting(&lab)),
        ("abort", &|| aborts(&lab)),
        ("tiny writes", &|| writes_tinily(&lab)),
    ];
    for (name, exercise) in exercises {
        let capture = lab.a.capture_bulk("control")?;
        exercise().and_then(|seen| seen.agree()).context(name)?;
        let packets = capture.stop()?;
        ensure!(packets.contain(MARKER.as_bytes()), "{name}: the search misses what is there");
        ensure!(!packets.hold_tls(), "{name}: the search finds TLS where there is none");
        if name == "greeting" {
            ensure!(packets.contain(GREETING.as_bytes()), "the search misses the greeting");
        }
    }
    Ok(())
}

#[test]
fn addresses_are_true_at_both_ends() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        protected(lab, MARKER, || {
            let seen = talks(lab)?;
            ensure!(seen.client_peer == [to(lab, 7000)], "the client saw {seen:?}");
            let own = seen.client_own.first().context("no address")?;
            ensure!(own.starts_with(&format!("{}:", lab.a.ip)), "the client saw {seen:?}");
            Ok(seen)
        })?;
        Ok(())
    })
}

#[test]
fn large_transfers_by_digest_both_ways() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let claim = Claim::of(MARKER).bulk();
        for pair in protected(lab, claim.clone(), || uploads(lab))? {
            for (record, field) in [(pair.outbound, "bytes_sent"), (pair.inbound, "bytes_received")]
            {
                ensure!(record.field(field) == UPLOADED, "not all of it: {}", record.json());
            }
        }
        for pair in protected(lab, claim, || downloads(lab, "0"))? {
            let received = pair.outbound.number("bytes_received");
            ensure!(received == 64 << 20, "not all of it: {}", pair.outbound.json());
        }
        Ok(())
    })
}

#[test]
fn a_slow_reader_gets_everything() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        protected(lab, Claim::of(MARKER).bulk(), || downloads(lab, "40"))?;
        Ok(())
    })
}

#[test]
fn tiny_writes() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        protected(lab, MARKER, || writes_tinily(lab))?;
        Ok(())
    })
}

#[test]
fn a_thousand_connections_at_once() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        protected(lab, Claim::of(MARKER).bulk(), || opens_many(lab))?;
        Ok(())
    })
}

#[test]
fn a_server_that_speaks_first() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        protected(lab, Claim::of(MARKER).and(GREETING), || waits_for_a_greeting(lab))?;
        Ok(())
    })
}

#[test]
fn an_abortive_close_arrives_as_one() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let claim = Claim::of(MARKER).outcomes("local_failed", "peer_failed");
        for pair in protected(lab, claim, || aborts(lab))? {
            ensure!(pair.outbound.field("reason") == "reset", "{}", pair.outbound.json());
        }
        Ok(())
    })
}

#[test]
fn a_connection_to_nobody_is_refused_promptly() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let began = std::time::Instant::now();
        let said = lab.client().run(probe()?, &["talk", &format!("{}:7999", lab.b.ip)])?;
        ensure!(said.failed(), "{said:?}");
        ensure!(began.elapsed() < stretched(Duration::from_secs(5)), "took {:?}", began.elapsed());
        let record = lab.a.audit().expect("outbound", |it| it.field("outcome") == "peer_failed")?;
        ensure!(record.field("reason").contains("refused"), "{}", record.json());
        Ok(())
    })
}
