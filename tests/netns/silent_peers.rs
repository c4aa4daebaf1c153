//! Peers that do not answer.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::{Lab, Rules, probe};

/// An address of the wire's network that nobody has; what is sent there arrives at node b, which is
/// silent about it.
const NOBODY: &str = "10.77.0.99";

#[test]
fn a_peer_that_is_silent_is_given_up_in_time_and_told_of() -> Result<()> {
    let rules = Rules::client_calls_server().proxy("connect_timeout = \"1s\"");
    Lab::check(&rules, |lab| {
        let shown = lab.b.in_netns("ip", &["-o", "link", "show", "dev", "veth0"])?;
        let words = shown.ok()?.split_whitespace().skip_while(|word| *word != "link/ether");
        let link = words.clone().nth(1).context("no link address")?.to_owned();
        let neighbour = ["neigh", "replace", NOBODY, "lladdr", &link, "dev", "veth0"];
        lab.a.in_netns("ip", &neighbour)?.ok()?;
        let begin = Instant::now();
        let said = lab.client().run(probe()?, &["talk", &format!("{NOBODY}:7000")])?;
        ensure!(said.failed(), "somebody answered: {said:?}");
        // Without the timeout the kernel tries for two minutes.
        ensure!(begin.elapsed() < harness::stretched(Duration::from_secs(30)));
        let record = lab.a.audit().expect("outbound", |it| {
            it.field("outcome") == "peer_failed" && it.field("reason") == "connect: timed out"
        })?;
        ensure!(record.field("peer.address") == format!("{NOBODY}:7000"), "{}", record.json());
        Ok(())
    })
}
