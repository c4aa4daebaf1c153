//! Where nothing is to be touched: a scope that is observed, and programs in no scope. Bytes cross
//! the wire as they are, and both ends are recorded to the byte.

use anyhow::{Result, ensure};
use harness::{Group, Lab, Record, Rules, probe, uid};

const MARKER: &str = "c0ffee-open-to-all";
const TIMES: &str = "1000";

fn stays_untouched(group: Group) -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let server = lab.b.pod(group, uid::SERVER);
        let _echo = server.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        let client = lab.a.pod(group, uid::CLIENT);
        let bytes = u64::try_from(MARKER.len() * 1000)?;
        for host in [lab.b.ip.to_owned(), format!("[{}]", lab.b.ip6)] {
            let address = format!("{host}:7000");
            let words = ["talk", &address, "--text", MARKER, "--times", TIMES, "--hold", "300"];
            let capture = lab.a.capture("wire")?;
            client.must(probe()?, &words)?;
            let packets = capture.stop()?;
            ensure!(packets.contain(MARKER.as_bytes()), "it did not cross the wire as it was");
            ensure!(!packets.hold_tls(), "there is TLS where nothing is to be touched");
            let end = |it: &Record| {
                it.field("peer.address") == address || it.field("local.address") == address
            };
            let outbound = lab.a.audit().expect("outbound", end)?;
            let inbound = lab.b.audit().expect("inbound", end)?;
            for (record, user) in [(&outbound, uid::CLIENT), (&inbound, uid::SERVER)] {
                let json = record.json();
                ensure!(record.field("outcome") == "completed", "{json}");
                ensure!(record.field("protection") == "untouched", "{json}");
                ensure!(record.number("bytes_sent") == bytes, "not {bytes} sent: {json}");
                ensure!(record.number("bytes_received") == bytes, "not {bytes} received: {json}");
                let lived: f64 = record.field("duration").parse()?;
                ensure!((250.0..10_000.0).contains(&lived), "lived {lived} ms: {json}");
                ensure!(record.field("process.uid") == user.to_string(), "{json}");
                ensure!(record.field("process.exe").ends_with("/probe"), "{json}");
                let scope = if group == Group::Observe { "/observe" } else { "" };
                ensure!(record.field("scope").ends_with(scope), "{json}");
                ensure!(record.field("scope").is_empty() == scope.is_empty(), "{json}");
            }
            let ends =
                |record: &Record| [record.field("local.address"), record.field("peer.address")];
            let (mut there, here) = (ends(&outbound), ends(&inbound));
            there.reverse();
            ensure!(there == here, "the ends disagree: {there:?} {here:?}");
        }
        Ok(())
    })
}

#[test]
fn an_observed_scope_is_untouched_and_recorded() -> Result<()> {
    stays_untouched(Group::Observe)
}

#[test]
fn programs_in_no_scope_are_untouched_and_recorded() -> Result<()> {
    stays_untouched(Group::Outside)
}
