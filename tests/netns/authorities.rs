//! Authorities that follow one another under running daemons: a root of the node's own, an
//! intermediate under a root that is kept elsewhere, a root that two nodes share. Traffic goes on
//! throughout; what hangs on an authority that is gone is cut.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use harness::{
    Finished, Group, Lab, Node, Record, Rules, Server, client_id, eventually, probe, uid,
};
use serde_json::Value;

/// Of one authority, as `tacit status` has it.
fn authorities(node: &Node, role: &str) -> Result<Vec<(String, String)>> {
    let status: Value = serde_json::from_str(&node.ask(&["status", "--output", "json"])?)?;
    let all = status.get("authorities").and_then(Value::as_array).context("no authorities")?;
    let text = |it: &Value, key: &str| it.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    let of_role = all.iter().filter(|it| text(it, "role") == role);
    Ok(of_role.map(|it| (text(it, "key_id"), text(it, "stage"))).collect())
}

/// The key id of the authority of this role on which the node's SVIDs hang.
fn signing(node: &Node, role: &str) -> Result<String> {
    let all = authorities(node, role)?;
    all.into_iter().find(|(_, stage)| stage == "signs").map(|it| it.0).context("none signs")
}

/// Asks until every SVID of the node hangs on the authority that signs.
fn all_replaced(node: &Node) -> Result<()> {
    let signing = signing(node, "node")?;
    eventually("SVIDs of the new authority", || {
        let svids: Value =
            serde_json::from_str(&node.ask(&["svid", "--output", "json"]).ok()?).ok()?;
        let mut by = svids.as_array()?.iter().map(|svid| svid.get("authority"));
        by.all(|by| by.and_then(Value::as_str) == Some(&signing)).then_some(())
    })
}

fn talk(lab: &Lab) -> Result<Finished> {
    lab.client().run(probe()?, &["talk", &format!("{}:7000", lab.b.ip)])
}

/// A connection that is held open.
fn held(lab: &Lab, to: &str) -> Result<Server> {
    let client = lab.client().spawn(probe()?, &["talk", to, "--hold", "120000"])?;
    client.says("sent=5")?;
    Ok(client)
}

fn cut(node: &Node, direction: &str) -> Result<Record> {
    let record = node.audit().expect(direction, |it| it.field("outcome") == "cut")?;
    ensure!(record.field("reason") == "authority_gone", "{}", record.json());
    Ok(record)
}

fn recorded(node: &Node, reason: &str) -> Result<Record> {
    let find = || node.audit().records().into_iter().find(|it| it.field("reason") == reason);
    eventually("the record of the change", find)
}

/// One host: client and server are both on node a.
fn on_one_host(test: impl FnOnce(&Lab, &str) -> Result<()>) -> Result<()> {
    Lab::alone(&Rules::client_calls_server(), |lab| {
        let server = lab.a.pod(Group::Strict, uid::SERVER);
        let _echo = server.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        test(lab, &format!("{}:7000", lab.a.ip))
    })
}

#[test]
fn a_root_of_ones_own_is_prepared_activated_and_retired() -> Result<()> {
    on_one_host(|lab, to| {
        let client = lab.client();
        let call = || client.run(probe()?, &["talk", to])?.ok().map(str::to_owned);
        let mut open = held(lab, to)?;
        let old = signing(&lab.a, "root")?;
        let prepared = lab.a.ask(&["ca", "rotate", "--activate-after", "1h"])?;
        ensure!(prepared.contains("signs from"), "{prepared}");
        call()?;
        ensure!(signing(&lab.a, "root")? == old, "it signs already");
        ensure!(authorities(&lab.a, "root")?.iter().any(|it| it.1 == "prepared"));
        // Another call changes the times: now it comes soon, and is watched.
        let words = ["ca", "rotate", "--activate-after", "1s", "--retire-after", "5s", "--follow"];
        let said = lab.a.ask(&words)?;
        for part in ["signs from", "SVIDs replaced", "connections hang on it", "retired", "Done in"]
        {
            ensure!(said.contains(part), "no {part:?} in:\n{said}");
        }
        ensure!(said.contains(&format!("root {old}: retired")), "{said}");
        cut(&lab.a, "outbound")?;
        open.kill();
        call().context("after the rotation")?;
        all_replaced(&lab.a)?;
        ensure!(signing(&lab.a, "root")? != old);
        let record = recorded(&lab.a, "ca_rotate")?;
        ensure!(record.field("detail").contains("by user 0 (pid "), "{}", record.json());
        recorded(&lab.a, "authorities_changed")?;
        lab.a.stop();
        lab.a.start()?;
        call().context("after a restart")?;
        Ok(())
    })
}

#[test]
fn a_compromised_root_is_replaced_within_seconds_and_what_hung_on_it_cut() -> Result<()> {
    on_one_host(|lab, to| {
        let stolen = lab.mint(&client_id(), &[])?;
        let mut open = held(lab, to)?;
        let (old_root, old_node) = (signing(&lab.a, "root")?, signing(&lab.a, "node")?);
        let said = lab.a.ask(&["ca", "rotate", "--compromised"])?;
        println!("{said}");
        ensure!(said.contains(&format!("root {old_root}: distrusted")), "{said}");
        let took = said.split("Done in ").nth(1).and_then(|rest| rest.split(' ').next());
        let took: f64 = took.context("no time")?.parse()?;
        ensure!(took < 5.0, "it took {took} s");
        cut(&lab.a, "outbound")?;
        cut(&lab.a, "inbound")?;
        open.kill();
        lab.client().run(probe()?, &["talk", to])?.ok().context("after the rotation")?;
        ensure!(signing(&lab.a, "root")? != old_root && signing(&lab.a, "node")? != old_node);
        all_replaced(&lab.a)?;
        recorded(&lab.a, "ca_rotate_compromised")?;
        refused_with(lab, &lab.a, &stolen)?;
        lab.a.stop();
        lab.a.start()?;
        refused_with(lab, &lab.a, &stolen)?;
        lab.client().run(probe()?, &["talk", to])?.ok().context("after a restart")?;
        Ok(())
    })
}

/// Somebody with this SVID, which was good once, dials the server on a node.
fn refused_with(lab: &Lab, node: &Node, svid: &harness::Minted) -> Result<Record> {
    let before = node.audit().closed("inbound").len();
    let line = format!(
        "printf 'x' | timeout 20 openssl s_client -connect {}:7000 -quiet -ign_eof -cert {} \
         -cert_chain {} -key {}",
        node.ip,
        svid.chain.display(),
        svid.chain.display(),
        svid.key.display()
    );
    let told = lab.a.pod(Group::Outside, 0).run("sh", &["-c", &line])?;
    let refused = || {
        let closed = node.audit().closed("inbound");
        closed.into_iter().skip(before).find(|it| it.field("reason") == "peer_unverified")
    };
    eventually("a refusal", refused).with_context(|| format!("{told:?}"))
}

#[test]
fn a_request_is_signed_offline_and_brought_back() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _echo = lab.echo(7000)?;
        let stolen = lab.mint(&client_id(), &[])?;
        let to = format!("{}:7000", lab.b.ip);
        let mut open = held(lab, &to)?;
        let first = signing(&lab.a, "node")?;
        let elsewhere =
            lab.a.tacit(&["ca", "rotate", "--socket", &lab.a.socket().to_string_lossy()])?;
        ensure!(
            elsewhere.failed() && elsewhere.stderr.contains("tacit ca request"),
            "{elsewhere:?}"
        );
        // Between the two, the old one signs on.
        let csr = lab.a.ask(&["ca", "request"])?;
        ensure!(csr.contains("BEGIN CERTIFICATE REQUEST") && !csr.contains("PRIVATE"), "{csr}");
        talk(lab)?.ok()?;
        lab.carry_request(&lab.a, &lab.root(), &[])?;
        let second = signing(&lab.a, "node")?;
        ensure!(first != second);
        all_replaced(&lab.a)?;
        talk(lab)?.ok().context("under the new authority")?;
        ensure!(lab.a.audit().closed("outbound").len() == 2, "the open one was cut");
        let record = recorded(&lab.a, "ca_accept")?;
        ensure!(record.field("detail").contains(&second), "{}", record.json());

        // Its key is in wrong hands: it is told here and there.
        lab.carry_request(&lab.a, &lab.root(), &["--compromised"])?;
        all_replaced(&lab.a)?;
        talk(lab)?.ok().context("under the third authority")?;
        lab.b.ask(&["ca", "distrust", &first])?;
        cut(&lab.b, "inbound")?;
        open.kill();
        let record = refused_with(lab, &lab.b, &stolen)?;
        ensure!(record.field("detail").contains("distrusted"), "{}", record.json());
        talk(lab)?.ok().context("after the distrust")?;
        lab.b.stop();
        lab.b.start()?;
        refused_with(lab, &lab.b, &stolen)?;
        Ok(())
    })
}

#[test]
fn a_root_that_two_nodes_share_is_replaced_while_they_talk() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _echo = lab.echo(7000)?;
        let to = format!("{}:7000", lab.b.ip);
        let mut open = held(lab, &to)?;
        let old = signing(&lab.a, "root")?;
        let new = lab.another_root("new-root")?;
        let pem = new.join("root.pem");
        // An authority under a root that is not trusted yet is refused: the order is kept.
        let early = lab.carry_request(&lab.a, &new, &[]);
        ensure!(early.is_err_and(|it| format!("{it:#}").contains("tacit ca trust")));
        for node in [&lab.a, &lab.b] {
            node.ask(&["ca", "trust", &pem.to_string_lossy()])?;
            talk(lab)?.ok().context("with both roots trusted")?;
        }
        for node in [&lab.a, &lab.b] {
            let retired =
                node.tacit(&["ca", "retire", &old, "--socket", &node.socket().to_string_lossy()])?;
            ensure!(retired.failed() && retired.stderr.contains("hangs on"), "{retired:?}");
            lab.carry_request(node, &new, &[])?;
            all_replaced(node)?;
            talk(lab)?.ok().context("with one node under the new root")?;
        }
        ensure!(lab.a.audit().closed("outbound").iter().all(|it| it.field("outcome") != "cut"));
        lab.b.ask(&["ca", "retire", &old])?;
        cut(&lab.b, "inbound")?;
        open.kill();
        talk(lab)?.ok().context("with the old root retired on one node")?;
        lab.a.ask(&["ca", "retire", &old])?;
        talk(lab)?.ok().context("with the old root retired")?;
        for node in [&lab.a, &lab.b] {
            ensure!(authorities(node, "root")?.len() == 1 && signing(node, "root")? != old);
        }
        Ok(())
    })
}

/// The bundle of each node is distributed as a file, as configuration management does it.
#[test]
fn a_bundle_that_is_put_in_place_is_followed() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let new = lab.another_root("new-root")?;
        let bundle = lab.a.state().join("ca/bundle.pem");
        let both = [fs::read(&bundle)?, fs::read(new.join("root.pem"))?].concat();
        let fresh = bundle.with_extension("new");
        fs::write(&fresh, both)?;
        fs::rename(fresh, &bundle)?;
        // It is looked at every half minute: one wait may end before.
        let trusted = || (authorities(&lab.a, "root").ok()?.len() == 2).then_some(());
        let once = || eventually("the second root", trusted);
        once().or_else(|_| once()).or_else(|_| once())?;
        Ok(())
    })
}
