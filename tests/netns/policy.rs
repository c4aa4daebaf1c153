//! Rules, entries and identities that change while connections are open.

use anyhow::{Context as _, Result, ensure};
use harness::{Lab, Rules, client_id, eventually, probe, server_id};

const BOTH_REFUSED: &str = "[[outbound]]\nname = \"closed\"\naction = \"refuse\"\n";

fn hold(lab: &Lab, milliseconds: &str) -> Result<harness::Server> {
    let to = format!("{}:7000", lab.b.ip);
    let client = lab.client().spawn(probe()?, &["talk", &to, "--hold", milliseconds])?;
    client.says("sent=5")?;
    // Sent is not yet arrived: the connection counts from when the server has it.
    Ok(client)
}

fn talk(lab: &Lab) -> Result<harness::Finished> {
    lab.client().run(probe()?, &["talk", &format!("{}:7000", lab.b.ip)])
}

#[test]
fn a_withdrawn_rule_cuts_what_it_had_allowed() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let echo = lab.echo(7000)?;
        let mut client = hold(lab, "60000")?;
        echo.says("accept=")?;
        lab.a.configure(&Rules::client_calls_server().rules(BOTH_REFUSED))?;
        let record = lab.a.audit().expect("outbound", |it| it.field("outcome") == "cut")?;
        ensure!(record.field("reason") == "policy_changed", "{}", record.json());
        client.kill();
        ensure!(talk(lab)?.failed(), "the refusing rule let a new connection through");
        let record = lab.a.audit().expect_denied("outbound", "rule_refuses")?;
        ensure!(record.field("rule") == "closed", "{}", record.json());
        Ok(())
    })
}

#[test]
fn a_withdrawn_inbound_rule_cuts_at_the_server() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let echo = lab.echo(7000)?;
        let mut client = hold(lab, "8000")?;
        echo.says("accept=")?;
        let other = Rules::client_calls_server().rules(&format!(
            "[[inbound]]\nname = \"nobody\"\nworkloads = [\"{}\"]\naction = \"deny\"\n",
            server_id()
        ));
        lab.b.configure(&other)?;
        let record = lab.b.audit().expect("inbound", |it| it.field("outcome") == "cut")?;
        ensure!(record.field("reason") == "policy_changed", "{}", record.json());
        ensure!(!client.wait()?.success(), "the client thinks that all was well");
        Ok(())
    })
}

#[test]
fn a_withdrawn_entry_cuts_and_closes() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let echo = lab.echo(7000)?;
        let mut client = hold(lab, "60000")?;
        echo.says("accept=")?;
        lab.a.configure(&Rules::client_calls_server().without("client"))?;
        let record = lab.a.audit().expect("outbound", |it| it.field("outcome") == "cut")?;
        ensure!(record.field("local.spiffe_id") == client_id(), "{}", record.json());
        ensure!(record.field("reason") == "entry_gone", "{}", record.json());
        client.kill();
        ensure!(talk(lab)?.failed());
        lab.a.audit().expect_denied("outbound", "no_identity")?;
        Ok(())
    })
}

#[test]
fn a_new_rule_is_taken_up_at_once() -> Result<()> {
    Lab::check(&Rules::client_calls_server().rules(BOTH_REFUSED), |lab| {
        let _echo = lab.echo(7000)?;
        ensure!(talk(lab)?.failed());
        for node in [&lab.a, &lab.b] {
            node.configure(&Rules::client_calls_server())?;
        }
        eventually("the new rules", || talk(lab).ok().filter(|said| !said.failed()))?;
        Ok(())
    })
}

#[test]
fn a_bad_file_changes_nothing() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _echo = lab.echo(7000)?;
        let status = || {
            lab.a.tacit(&[
                "status",
                "--socket",
                &lab.a.socket().to_string_lossy(),
                "--output",
                "json",
            ])
        };
        let told = |fault: &str| {
            eventually("the status", || status().ok().filter(|it| it.stdout.contains(fault)))
                .with_context(|| format!("{:?}", status()))
        };
        for (bad, fault) in [
            ("this is no TOML", "not TOML"),
            ("[[outbound]]\nname = \"x\"\naction = \"maybe\"\n", "maybe"),
        ] {
            lab.a.configure(&Rules::client_calls_server().rules(bad))?;
            told(fault)?;
            talk(lab)?.ok().context("the old rules do not hold any more")?;
        }
        lab.a.configure(&Rules::client_calls_server())?;
        told("\"config_problem\":null")?;
        Ok(())
    })
}

#[test]
fn a_connection_outlives_the_renewal_of_its_svid() -> Result<()> {
    Lab::check(&Rules::client_calls_server().issuer("svid_ttl = \"1m\""), |lab| {
        let echo = lab.echo(7000)?;
        let mut client = hold(lab, "45000")?;
        echo.says("accept=")?;
        ensure!(client.wait()?.success(), "the connection did not survive: {}", client.said());
        let first = lab.a.audit().expect_completed("outbound")?.field("tls.peer_serial");
        talk(lab)?.ok()?;
        let renewed = |it: &harness::Record| {
            it.field("outcome") == "completed" && it.field("tls.peer_serial") != first
        };
        lab.a.audit().expect("outbound", renewed)?;
        Ok(())
    })
}

#[test]
fn dry_run_decides_nothing_and_says_what_it_would() -> Result<()> {
    let rules = Rules::client_calls_server()
        .rule("[[outbound]]\nname = \"would-refuse\"\naction = \"refuse\"\ndry_run = true\n");
    Lab::check(&rules, |lab| {
        let _echo = lab.echo(7000)?;
        talk(lab)?.ok()?;
        let record = lab.a.audit().expect_completed("outbound")?;
        ensure!(record.field("dry_run") == "would-refuse", "{}", record.json());
        Ok(())
    })
}
