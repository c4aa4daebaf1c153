//! The deny list: whoever is on it talks to nobody here and is given nothing, from the moment at which
//! the command returns.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use harness::{
    Finished, Group, Lab, Node, Record, Rules, Server, client_id, eventually, probe, uid,
};
use serde_json::Value;

fn talk(lab: &Lab) -> Result<Finished> {
    lab.client().run(probe()?, &["talk", &format!("{}:7000", lab.b.ip)])
}

/// A connection that is held open, and has been admitted at both ends.
fn held(lab: &Lab) -> Result<Server> {
    let to = format!("{}:7000", lab.b.ip);
    let client = lab.client().spawn(probe()?, &["talk", &to, "--hold", "120000"])?;
    client.says("sent=5")?;
    let admitted = || {
        let open = lab.b.ask(&["connections", "--output", "json"]).ok()?;
        let open: Value = serde_json::from_str(&open).ok()?;
        let id = |it: &Value| it.get("peer")?.get("spiffe_id")?.as_str().map(str::to_owned);
        open.as_array()?.iter().find(|it| id(it) == Some(client_id())).map(drop)
    };
    eventually("an admitted connection", admitted)?;
    Ok(client)
}

fn deny(node: &Node, words: &[&str]) -> Result<String> {
    node.ask(&[&["deny"], words].concat())
}

fn cut(node: &Node, direction: &str) -> Result<Record> {
    let record = node.audit().expect(direction, |it| it.field("outcome") == "cut")?;
    ensure!(record.field("reason") == "deny_listed", "{}", record.json());
    Ok(record)
}

fn has_svid(node: &Node, id: &str) -> Result<bool> {
    let svids: Value = serde_json::from_str(&node.ask(&["svid", "--output", "json"])?)?;
    let svids = svids.as_array().context("no list")?;
    Ok(svids.iter().any(|it| it.get("spiffe_id").and_then(Value::as_str) == Some(id)))
}

#[test]
fn a_denied_peer_is_cut_and_refused_until_it_is_denied_no_more() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _echo = lab.echo(7000)?;
        let mut open = held(lab)?;
        let words = ["add", "--spiffe-id", &client_id(), "--reason", "incident 4711"];
        let said = deny(&lab.b, &words)?;
        ensure!(said.contains("In force; ") && said.contains(&client_id()), "{said}");
        cut(&lab.b, "inbound")?;
        open.kill();
        ensure!(talk(lab)?.failed(), "a denied peer got through");
        let record = lab.b.audit().expect_denied("inbound", "deny_listed")?;
        ensure!(record.field("peer.spiffe_id") == client_id(), "{}", record.json());
        ensure!(record.field("detail").contains("incident 4711"), "{}", record.json());
        let order = |it: &Record| it.field("reason") == "deny_added";
        let order = || lab.b.audit().records().into_iter().find(order);
        let order = eventually("the record of the command", order)?;
        let detail = order.field("detail");
        ensure!(detail.contains(&client_id()) && detail.contains("by user 0 (pid "), "{detail}");

        lab.b.stop();
        lab.b.start()?;
        let _echo = lab.echo(7001)?;
        let again = lab.client().run(probe()?, &["talk", &format!("{}:7001", lab.b.ip)])?;
        ensure!(again.failed(), "the list did not outlive a restart");
        let said = deny(&lab.b, &["remove", "--spiffe-id", &client_id()])?;
        ensure!(!said.contains(&client_id()), "{said}");
        let words = ["talk", &*format!("{}:7001", lab.b.ip)];
        lab.client().run(probe()?, &words)?.ok().context("denied no more")?;
        Ok(())
    })
}

#[test]
fn a_denied_identity_of_the_node_loses_everything() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _echo = lab.echo(7000)?;
        let mut open = held(lab)?;
        ensure!(has_svid(&lab.a, &client_id())?);
        deny(&lab.a, &["add", "--spiffe-id", &client_id()])?;
        cut(&lab.a, "outbound")?;
        open.kill();
        ensure!(!has_svid(&lab.a, &client_id())?, "its SVID is still held");
        ensure!(talk(lab)?.failed());
        let record = lab.a.audit().expect_denied("outbound", "deny_listed")?;
        ensure!(record.field("local.spiffe_id") == client_id(), "{}", record.json());
        // In a permissive scope it is not taken for somebody without identity.
        let permissive = lab.a.pod(Group::Permissive, uid::CLIENT);
        let _plain = lab.b.pod(Group::Outside, uid::SERVER).serve(
            probe()?,
            &["serve", "echo", "[::]:7005"],
            7005,
        )?;
        let said = permissive.run(probe()?, &["talk", &format!("{}:7005", lab.b.ip)])?;
        ensure!(said.failed(), "it went out in the clear: {said:?}");

        let script = "import time; print('up=', flush=True); time.sleep(60)";
        let sleeper = lab.client().spawn("/usr/bin/python3", &["-c", script])?;
        sleeper.says("up=")?;
        let why = lab.a.ask(&["explain", &format!("{} -> {}:7000", sleeper.pid(), lab.b.ip)])?;
        ensure!(why.contains("deny list") && why.contains("deny_listed"), "{why}");
        deny(&lab.a, &["remove", "--spiffe-id", &client_id()])?;
        talk(lab)?.ok().context("denied no more")?;
        Ok(())
    })
}

/// The serial number as openssl prints it.
fn serial(chain: &Path) -> Result<String> {
    let output = std::process::Command::new("openssl")
        .args(["x509", "-noout", "-serial", "-in"])
        .arg(chain)
        .output()?;
    let said = String::from_utf8(output.stdout)?;
    Ok(said.trim().strip_prefix("serial=").context("no serial number")?.to_owned())
}

#[test]
fn a_certificate_is_denied_by_its_serial_number_and_its_owner_goes_on() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _echo = lab.echo(7000)?;
        let stolen = lab.mint(&client_id(), &[])?;
        let dial = || {
            let line = format!(
                "printf 'x' | timeout 3 openssl s_client -connect {}:7000 -quiet -ign_eof \
                 -cert {} -cert_chain {} -key {}",
                lab.b.ip,
                stolen.chain.display(),
                stolen.chain.display(),
                stolen.key.display()
            );
            lab.a.pod(Group::Outside, 0).run("sh", &["-c", &line])
        };
        dial()?;
        let used = |it: &Record| it.field("peer.spiffe_id") == client_id();
        lab.b.audit().expect("inbound", used).context("it is good before")?;
        deny(&lab.b, &["add", "--serial", &serial(&stolen.chain)?, "--reason", "stolen"])?;
        dial()?;
        let record = lab.b.audit().expect_denied("inbound", "deny_listed")?;
        ensure!(record.field("detail").contains("stolen"), "{}", record.json());
        talk(lab)?.ok().context("another certificate of the same identity")?;

        // The one in use: cut, and another takes its place at once.
        let mut open = held(lab)?;
        let shown = || {
            let svids = lab.a.ask(&["svid", "--output", "json"]).ok()?;
            let svids: Value = serde_json::from_str(&svids).ok()?;
            let own =
                |it: &&Value| it.get("spiffe_id").and_then(Value::as_str) == Some(&client_id());
            Some(svids.as_array()?.iter().find(own)?.get("serial")?.as_str()?.to_owned())
        };
        let in_use = shown().context("no SVID")?;
        deny(&lab.a, &["add", "--serial", &in_use])?;
        cut(&lab.a, "outbound")?;
        open.kill();
        eventually("another SVID", || shown().filter(|it| *it != in_use))?;
        talk(lab)?.ok().context("with another SVID")?;
        Ok(())
    })
}

#[test]
fn a_declared_denial_is_in_force_at_once_and_only_changed_where_it_stands() -> Result<()> {
    let rules = Rules::client_calls_server();
    Lab::check(&rules, |lab| {
        let _echo = lab.echo(7000)?;
        let mut open = held(lab)?;
        let denying = rules
            .clone()
            .rule(&format!("[[deny]]\nspiffe_id = \"{}\"\nreason = \"declared\"\n", client_id()));
        lab.b.configure(&denying)?;
        cut(&lab.b, "inbound")?;
        open.kill();
        ensure!(talk(lab)?.failed(), "a denied peer got through");
        let socket = lab.b.socket();
        let words = ["deny", "remove", "--spiffe-id", &client_id(), "--socket"];
        let said = lab.b.tacit(&[&words, &[&*socket.to_string_lossy()][..]].concat())?;
        ensure!(said.failed() && said.stderr.contains("config.toml:"), "{said:?}");
        lab.b.configure(&rules)?;
        eventually("denied no more", || talk(lab).ok().filter(|it| !it.failed()))?;
        Ok(())
    })
}
