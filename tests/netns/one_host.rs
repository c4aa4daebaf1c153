//! Client and server on one host: over loopback and over the host's own address they get the same
//! authentication, policy and record as across the wire.

use anyhow::{Result, ensure};
use harness::{Group, Lab, Pod, Rules, client_id, probe, server_id, uid, value};

/// The addresses under which a host reaches itself.
fn own_addresses(lab: &Lab) -> [String; 4] {
    [
        "127.0.0.1:7000".to_owned(),
        "[::1]:7000".to_owned(),
        format!("{}:7000", lab.b.ip),
        format!("[{}]:7000", lab.b.ip6),
    ]
}

fn call(pod: &Pod, address: &str) -> Result<harness::Finished> {
    pod.run(probe()?, &["talk", address])
}

#[test]
fn both_captured() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let echo = lab.echo(7000)?;
        let client = lab.b.pod(Group::Strict, uid::CLIENT);
        for (number, address) in own_addresses(lab).iter().enumerate() {
            let said = call(&client, address)?;
            let said = said.ok()?;
            ensure!(value(said, "peer").as_ref() == Some(address), "{address}: {said}");
            let local = value(said, "local").unwrap_or_default().replace(['[', ']'], "");
            let seen = echo.value("accept")?.replace("::ffff:", "").replace(['[', ']'], "");
            ensure!(local == seen, "{address}: client {local}, server saw {seen}");
            for (direction, own, peer) in
                [("outbound", client_id(), server_id()), ("inbound", server_id(), client_id())]
            {
                let done = || (lab.b.audit().closed(direction).len() > number).then_some(());
                harness::eventually("one record per end", done)?;
                let records = lab.b.audit().closed(direction);
                let fits = records.iter().all(|it| {
                    it.field("local.spiffe_id") == own && it.field("peer.spiffe_id") == peer
                });
                ensure!(
                    fits && records.len() == number + 1,
                    "{address}: {}",
                    lab.b.audit().shown()
                );
            }
        }
        Ok(())
    })
}

#[test]
fn a_strict_listener_is_closed_to_programs_in_no_scope() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let echo = lab.echo(7000)?;
        for user in [uid::STRANGER, 0] {
            let outsider = lab.b.pod(Group::Outside, user);
            for address in own_addresses(lab) {
                let said = call(&outsider, &address)?;
                ensure!(said.failed(), "{address}: an outsider got through: {said:?}");
            }
        }
        ensure!(!echo.said().contains("accept="), "the server saw: {}", echo.said());
        lab.b.audit().expect_denied("inbound", "plaintext_refused")?;
        Ok(())
    })
}

#[test]
fn a_strict_client_gives_nothing_to_a_server_in_no_scope() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let plain = lab.b.pod(Group::Outside, uid::SERVER);
        let echo = plain.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        let client = lab.b.pod(Group::Strict, uid::CLIENT);
        for address in own_addresses(lab) {
            ensure!(call(&client, &address)?.failed(), "{address}: talked to a plain server");
        }
        // The server sees a ClientHello at most, never the payload.
        ensure!(!echo.said().contains("bytes=5"), "the server saw: {}", echo.said());
        lab.b.audit().expect("outbound", |it| it.field("outcome") == "peer_failed")?;
        Ok(())
    })
}

#[test]
fn permissive_server_admits_plaintext_and_says_so() -> Result<()> {
    let rules = Rules::client_calls_server().rule(&format!(
        "[[inbound]]\nname = \"plain-clients\"\nworkloads = [\"{}\"]\naction = \"allow\"\n\
         plaintext = \"admit\"\n",
        server_id()
    ));
    Lab::check(&rules, |lab| {
        let pod = lab.b.pod(Group::Permissive, uid::SERVER);
        let _echo = pod.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        // A program on a host with no rule for it: node a, in no scope.
        let outsider = lab.a.pod(Group::Outside, uid::STRANGER);
        call(&outsider, &format!("{}:7000", lab.b.ip))?.ok()?;
        let record = lab.b.audit().expect_completed("inbound")?;
        ensure!(record.field("protection") == "plaintext", "{}", record.json());
        ensure!(record.field("peer.spiffe_id").is_empty(), "{}", record.json());
        // And the mesh's client as mTLS, on the same port.
        call(&lab.client(), &format!("{}:7000", lab.b.ip))?.ok()?;
        let mtls = |it: &harness::Record| it.field("protection") == "mtls";
        let record = lab.b.audit().expect("inbound", mtls)?;
        ensure!(record.field("peer.spiffe_id") == client_id(), "{}", record.json());
        Ok(())
    })
}
