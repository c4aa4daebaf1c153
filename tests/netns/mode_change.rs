//! A scope that turns from permissive to strict while connections are open: what strict would not
//! have let through is cut, what it allows goes on.

use anyhow::{Context as _, Result, ensure};
use harness::{Finished, Group, Lab, Node, Pod, Record, Rules, Server, eventually, probe, uid};

const HELD: &str = "c0ffee-before-the-change";
const AFTER: &str = "c0ffee-after-the-change";

fn to(lab: &Lab) -> String {
    format!("{}:7000", lab.b.ip)
}

fn hold(lab: &Lab, pod: &Pod, milliseconds: &str) -> Result<Server> {
    let words = ["talk", &to(lab), "--text", HELD, "--hold", milliseconds];
    let client = pod.spawn(probe()?, &words)?;
    client.says("sent=")?;
    Ok(client)
}

fn talk(lab: &Lab, pod: &Pod) -> Result<Finished> {
    pod.run(probe()?, &["talk", &to(lab), "--text", AFTER])
}

fn turn_strict(node: &Node) -> Result<()> {
    node.configure(&Rules::client_calls_server().turned_strict(Group::Permissive))
}

/// The connection was carried in the clear, and cut.
fn cut(node: &Node, direction: &str) -> Result<()> {
    let record = node.audit().expect(direction, |it| it.field("outcome") == "cut")?;
    let json = record.json();
    ensure!(record.field("reason") == "scope_changed", "{json}");
    ensure!(record.field("protection") == "plaintext", "{json}");
    ensure!(record.field("scope").ends_with("/permissive"), "{json}");
    Ok(())
}

#[test]
fn plaintext_that_a_scope_let_out_is_cut_when_it_turns_strict() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let plain = lab.b.pod(Group::Outside, uid::SERVER);
        let echo = plain.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        let ruleless = lab.a.pod(Group::Permissive, uid::STRANGER);
        let mut client = hold(lab, &ruleless, "60000")?;
        echo.says("accept=")?;
        let capture = lab.a.capture("wire")?;
        turn_strict(&lab.a)?;
        cut(&lab.a, "outbound")?;
        echo.says("end=ConnectionReset").context("the server was not told")?;
        client.kill();
        ensure!(talk(lab, &ruleless)?.failed(), "strict let plaintext out");
        ensure!(!capture.stop()?.contain(AFTER.as_bytes()), "plaintext crossed the wire");
        lab.a.audit().expect_denied("outbound", "no_identity")?;
        Ok(())
    })
}

#[test]
fn plaintext_that_a_scope_let_in_is_cut_when_it_turns_strict() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let server = lab.b.pod(Group::Permissive, uid::STRANGER);
        let echo = server.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        let outsider = lab.a.pod(Group::Outside, uid::STRANGER);
        let mut client = hold(lab, &outsider, "8000")?;
        echo.says("accept=")?;
        turn_strict(&lab.b)?;
        cut(&lab.b, "inbound")?;
        ensure!(!client.wait()?.success(), "the client was not told: {}", client.said());
        let accepted = echo.said().matches("accept=").count();
        ensure!(talk(lab, &outsider)?.failed(), "strict let plaintext in");
        lab.b.audit().expect_denied("inbound", "no_identity")?;
        ensure!(echo.said().matches("accept=").count() == accepted, "it saw: {}", echo.said());
        Ok(())
    })
}

#[test]
fn what_strict_allows_goes_on_when_a_scope_turns_strict() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let server = lab.b.pod(Group::Permissive, uid::SERVER);
        let echo = server.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        let protected = lab.a.pod(Group::Permissive, uid::CLIENT);
        let mut client = hold(lab, &protected, "6000")?;
        echo.says("accept=")?;
        for node in [&lab.a, &lab.b] {
            turn_strict(node)?;
        }
        // In force: who has no identity is refused from now on.
        let stranger = lab.a.pod(Group::Permissive, uid::STRANGER);
        let refused = || lab.a.audit().closed("outbound").into_iter().find(is_refused);
        let in_force = || {
            let _attempt = talk(lab, &stranger);
            refused()
        };
        eventually("the strict scope", in_force)?;
        ensure!(client.wait()?.success(), "it was cut: {}", client.said());
        for (node, direction) in [(&lab.a, "outbound"), (&lab.b, "inbound")] {
            let mtls = |it: &Record| it.field("protection") == "mtls";
            let record = node.audit().expect(direction, mtls)?;
            ensure!(record.field("outcome") == "completed", "{}", record.json());
        }
        Ok(())
    })
}

fn is_refused(record: &Record) -> bool {
    record.field("reason") == "no_identity" && record.field("mode") == "strict"
}
