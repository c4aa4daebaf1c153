//! An SVID that ends while a connection is open, and nobody to renew it.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{Lab, Rules, probe, stretched};

/// Long enough to start two daemons and connect, short enough to wait for.
const LEFT: Duration = Duration::from_secs(20);

#[test]
fn an_svid_that_ends_and_cannot_be_renewed_cuts() -> Result<()> {
    Lab::prepared(&Rules::client_calls_server(), |lab| {
        lab.end_authority_in(&lab.a, stretched(LEFT))?;
        lab.a.start()?;
        lab.b.start()?;
        let echo = lab.echo(7000)?;
        let to = format!("{}:7000", lab.b.ip);
        let hold = stretched(3 * LEFT).as_millis().to_string();
        let mut client = lab.client().spawn(probe()?, &["talk", &to, "--hold", &hold])?;
        echo.says("accept=")?;
        ensure!(lab.a.audit().closed("outbound").is_empty(), "{}", lab.a.audit().shown());
        let cut = |it: &harness::Record| it.field("outcome") == "cut";
        // One wait may end before the SVID does.
        let record = match lab.a.audit().expect("outbound", cut) {
            Ok(record) => record,
            Err(_) => lab.a.audit().expect("outbound", cut)?,
        };
        ensure!(record.field("reason") == "svid_expired", "{}", record.json());
        client.kill();
        ensure!(lab.client().run(probe()?, &["talk", &to])?.failed(), "an ended SVID was used");
        lab.a.audit().expect_denied("outbound", "no_svid")?;
        Ok(())
    })
}
