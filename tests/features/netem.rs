//! A bad link: packets are lost, late and out of order, and every byte arrives as it was sent.

use anyhow::{Result, ensure};
use harness::{Lab, Node, Rules, probe, value};

/// Worse than any link that a program is used to.
const BAD: [&str; 8] = ["delay", "10ms", "5ms", "loss", "3%", "reorder", "10%", "50%"];
const BYTES: &str = "2000000";

fn spoil(node: &Node) -> Result<()> {
    let words = [&["qdisc", "add", "dev", "veth0", "root", "netem"], BAD.as_slice()].concat();
    node.in_netns("tc", &words)?.ok()?;
    Ok(())
}

/// How many packets the link has lost.
fn lost(node: &Node) -> Result<u64> {
    let said = node.in_netns("tc", &["-s", "qdisc", "show", "dev", "veth0"])?;
    let said = said.ok()?.to_owned();
    let word = said.split("dropped ").nth(1).and_then(|rest| rest.split(',').next());
    Ok(word.and_then(|word| word.trim().parse().ok()).unwrap_or(0))
}

#[test]
fn payload_crosses_a_bad_link_intact_both_ways() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        for node in [&lab.a, &lab.b] {
            spoil(node)?;
        }
        let serve = |what: &str, port: u16| {
            lab.server().serve(probe()?, &["serve", what, &format!("[::]:{port}")], port)
        };
        let (_digest, _echo) = (serve("digest", 7001)?, serve("echo", 7000)?);
        lab.client().must(probe()?, &["upload", &format!("{}:7001", lab.b.ip), BYTES])?;
        let words = ["talk", &format!("{}:7000", lab.b.ip), "--text", "there-and-back", "--times"];
        let said = lab.client().must(probe()?, &[&words[..], &["20000"]].concat())?;
        ensure!(value(&said, "ok").as_deref() == Some("280000"), "{said}");
        ensure!(lost(&lab.a)? > 0 && lost(&lab.b)? > 0, "the link lost nothing");
        let sent = |it: &harness::Record| it.field("bytes_received") == BYTES;
        let record = lab.b.audit().expect("inbound", sent)?;
        ensure!(record.field("protection") == "mtls", "{}", record.json());
        Ok(())
    })
}
