//! Bytes arrive as they were sent, in whatever way they were sent, and ends arrive as ends.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{Lab, Rules, probe, protected, stretched, value};

const MARKER: &str = "c0ffee-secret-of-the-payload";

/// Runs the probe as the client.
fn talk(lab: &Lab, words: &[&str]) -> Result<String> {
    lab.client().must(probe()?, words)
}

/// A server of this kind on node b.
fn serve(lab: &Lab, what: &str, port: u16) -> Result<harness::Server> {
    lab.server().serve(probe()?, &["serve", what, &format!("[::]:{port}")], port)
}

/// The check that no plaintext crosses the wire is worth something: without daemons it finds it.
#[test]
fn control_run_without_daemons_shows_the_plaintext() -> Result<()> {
    let lab = Lab::without_daemons()?;
    let _echo = lab.echo(7000)?;
    let capture = lab.a.capture("control")?;
    talk(&lab, &["talk", &format!("{}:7000", lab.b.ip), "--text", MARKER])?;
    let packets = capture.stop()?;
    ensure!(packets.contain(MARKER.as_bytes()), "the search does not find what is there");
    ensure!(!packets.hold_tls(), "the search finds TLS where there is none");
    Ok(())
}

#[test]
fn addresses_are_true_at_both_ends() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let echo = lab.echo(7000)?;
        let to = format!("{}:7000", lab.b.ip);
        protected(lab, MARKER, || {
            let said = talk(lab, &["talk", &to, "--text", MARKER])?;
            let local = value(&said, "local").unwrap_or_default();
            ensure!(value(&said, "peer") == Some(to.clone()), "the client saw: {said}");
            ensure!(local.starts_with(lab.a.ip), "the client saw: {said}");
            // A socket of both families shows IPv4 addresses in their mapped form.
            let mapped = |address: &str| {
                let (ip, port) = address.rsplit_once(':').unwrap_or_default();
                format!("[::ffff:{ip}]:{port}")
            };
            for name in ["accept", "peer"] {
                let seen = echo.value(name)?;
                ensure!(seen == mapped(&local), "{name} gave {seen}, the client is {local}");
            }
            ensure!(echo.value("local")? == mapped(&to), "the server saw {}", echo.said());
            Ok(())
        })?;
        Ok(())
    })
}

#[test]
fn large_transfers_by_digest_both_ways() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _digest = serve(lab, "digest", 7001)?;
        let source = serve(lab, "source", 7002)?;
        // The answer comes after the client has closed its half: half-close is carried through.
        talk(lab, &["upload", &format!("{}:7001", lab.b.ip), "100000000"])?;
        let said = talk(lab, &["download", &format!("{}:7002", lab.b.ip)])?;
        ensure!(value(&said, "sha256") == Some(source.value("sha256")?), "not what was sent");
        let record =
            lab.a.audit().expect("outbound", |it| it.number("bytes_received") == 64 << 20)?;
        ensure!(record.field("outcome") == "completed", "{}", record.json());
        let record =
            lab.b.audit().expect("inbound", |it| it.number("bytes_received") == 100_000_000)?;
        ensure!(record.field("outcome") == "completed", "{}", record.json());
        Ok(())
    })
}

#[test]
fn a_slow_reader_gets_everything() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let source = serve(lab, "source", 7002)?;
        let to = format!("{}:7002", lab.b.ip);
        let said = talk(lab, &["download", &to, "--pause", "40"])?;
        ensure!(value(&said, "sha256") == Some(source.value("sha256")?), "not what was sent");
        Ok(())
    })
}

#[test]
fn tiny_writes() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _echo = lab.echo(7000)?;
        let to = format!("{}:7000", lab.b.ip);
        protected(lab, MARKER, || {
            talk(lab, &["talk", &to, "--text", MARKER, "--times", "50", "--tiny"])?;
            Ok(())
        })?;
        Ok(())
    })
}

#[test]
fn a_thousand_connections_at_once() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _echo = lab.echo(7000)?;
        talk(lab, &["many", &format!("{}:7000", lab.b.ip), "1000"])?;
        for (node, direction) in [(&lab.a, "outbound"), (&lab.b, "inbound")] {
            let all = || {
                let closed = node.audit().closed(direction);
                let done = closed.iter().filter(|it| it.field("outcome") == "completed").count();
                (done == 1000).then_some(())
            };
            harness::eventually("a record for each connection", all)?;
        }
        Ok(())
    })
}

#[test]
fn a_server_that_speaks_first() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let greet = serve(lab, "greet", 7025)?;
        // The probe expects an echo alone; what matters here is what came first.
        let said = lab
            .client()
            .run("curl", &["-sS", "-m", "5", &format!("telnet://{}:7025", lab.b.ip)])?;
        ensure!(said.stdout.starts_with("220 welcome"), "{said:?}");
        drop(greet);
        Ok(())
    })
}

#[test]
fn an_abortive_close_arrives_as_one() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let echo = lab.echo(7000)?;
        talk(lab, &["abort", &format!("{}:7000", lab.b.ip)])?;
        ensure!(echo.value("end")? == "ConnectionReset", "the server saw: {}", echo.said());
        let record =
            lab.a.audit().expect("outbound", |it| it.field("outcome") == "local_failed")?;
        ensure!(record.field("reason") == "reset", "{}", record.json());
        lab.b.audit().expect("inbound", |it| it.field("outcome") == "peer_failed")?;
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
