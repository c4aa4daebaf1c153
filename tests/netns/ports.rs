//! Scopes that capture some ports only: those are carried, the others are left alone and recorded.

use anyhow::{Result, ensure};
use harness::{Group, Lab, Record, Rules, client_id, probe, server_id, uid};

const MARKER: &str = "c0ffee-of-the-ports";

/// What crossed the wire, and both records.
fn talk(lab: &Lab, port: u16) -> Result<(bool, Record, Record)> {
    let to = format!("{}:{port}", lab.b.ip);
    let capture = lab.a.capture("wire")?;
    let client = lab.a.pod(Group::Permissive, uid::CLIENT);
    client.must(probe()?, &["talk", &to, "--text", MARKER])?;
    let packets = capture.stop()?;
    let plain = packets.contain(MARKER.as_bytes());
    ensure!(plain != packets.hold_tls(), "port {port}: neither plain nor protected");
    let outbound = lab.a.audit().expect("outbound", |it| it.field("peer.address") == to)?;
    let inbound = lab.b.audit().expect("inbound", |it| it.field("local.address") == to)?;
    for record in [&outbound, &inbound] {
        ensure!(record.field("outcome") == "completed", "{}", record.json());
        ensure!(record.field("scope").ends_with("/permissive"), "{}", record.json());
    }
    Ok((plain, outbound, inbound))
}

/// 7000 and 7002 to 7003 are captured on both nodes; 7001 and 7004 are not.
#[test]
fn listed_ports_are_carried_and_others_left_alone() -> Result<()> {
    let listed = "[7000, \"7002-7003\"]";
    let rules = Rules::client_calls_server()
        .permissive(&format!("inbound_ports = {listed}\noutbound_ports = {listed}"));
    Lab::check(&rules, |lab| {
        let server = lab.b.pod(Group::Permissive, uid::SERVER);
        let mut servers = Vec::new();
        for port in 7000..7005 {
            let address = format!("[::]:{port}");
            servers.push(server.serve(probe()?, &["serve", "echo", &address], port)?);
        }
        for (port, carried) in
            [(7000, true), (7001, false), (7002, true), (7003, true), (7004, false)]
        {
            let (plain, outbound, inbound) = talk(lab, port)?;
            ensure!(plain != carried, "port {port}: plain is {plain}");
            let protection = if carried { "mtls" } else { "untouched" };
            let peers = if carried { (server_id(), client_id()) } else { Default::default() };
            for (record, peer) in [(outbound, peers.0), (inbound, peers.1)] {
                ensure!(record.field("protection") == protection, "{port}: {}", record.json());
                ensure!(record.field("peer.spiffe_id") == peer, "{port}: {}", record.json());
            }
        }
        Ok(())
    })
}

/// A list of one direction says nothing of the other: what is carried on one side alone is recorded
/// as what it was on each.
#[test]
fn each_direction_has_its_own_list() -> Result<()> {
    let admits = format!(
        "[[inbound]]\nname = \"plain\"\nworkloads = [\"{}\"]\naction = \"allow\"\n\
         plaintext = \"admit\"\n",
        server_id()
    );
    let rules = Rules::client_calls_server().permissive("outbound_ports = [9]").rule(&admits);
    Lab::check(&rules, |lab| {
        let server = lab.b.pod(Group::Permissive, uid::SERVER);
        let _echo = server.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        let (plain, outbound, inbound) = talk(lab, 7000)?;
        ensure!(plain, "it was protected");
        ensure!(outbound.field("protection") == "untouched", "{}", outbound.json());
        ensure!(inbound.field("protection") == "plaintext", "{}", inbound.json());
        Ok(())
    })
}
