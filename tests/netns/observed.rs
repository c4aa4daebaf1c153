//! Where nothing is to be touched: a scope that is observed, and programs in no scope. Bytes cross
//! the wire as they are, and both ends are recorded to the byte.

use anyhow::{Result, ensure};
use harness::{Group, Lab, Node, Record, Rules, Server, eventually, probe, uid};
use serde_json::Value;

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

/// A client of node a that holds its connection open to a server of node b, both observed.
fn held(lab: &Lab) -> Result<(Server, Server, String)> {
    let server = lab.b.pod(Group::Observe, uid::SERVER);
    let echo = server.serve(probe()?, &["serve", "echo", "0.0.0.0:7000"], 7000)?;
    let address = format!("{}:7000", lab.b.ip);
    let words = ["talk", &address, "--text", MARKER, "--hold", "600000"];
    let client = lab.a.pod(Group::Observe, uid::CLIENT).spawn(probe()?, &words)?;
    Ok((echo, client, address))
}

fn text(of: &Value, path: &str) -> String {
    of.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The one connection of a node in its own list.
fn listed(node: &Node) -> Option<Value> {
    let said = node.ask(&["connections", "--output", "json"]).ok()?;
    let listed: Vec<Value> = serde_json::from_str(&said).ok()?;
    match <[Value; 1]>::try_from(listed) {
        Ok([one]) => Some(one),
        Err(_) => None,
    }
}

#[test]
fn one_that_lives_long_is_listed_and_announced() -> Result<()> {
    let rules = Rules::client_calls_server().audit("open_after = \"1s\"");
    Lab::check(&rules, |lab| {
        let (_echo, mut client, address) = held(lab)?;
        let sides = [(&lab.a, "outbound", "peer"), (&lab.b, "inbound", "local")];
        let mut ids = Vec::new();
        for (node, direction, side) in sides {
            let described = |one: &Value| text(one, "/process/exe").ends_with("/probe");
            let one = eventually("it in the list", || listed(node).filter(described))?;
            ensure!(
                text(&one, "/protection") == "untouched" && text(&one, "/direction") == direction,
                "{one}"
            );
            ensure!(text(&one, &format!("/{side}/address")) == address, "{one}");
            ensure!(one.get("bytes_sent").is_none(), "the kernel has not told them yet: {one}");
            let opening =
                || node.audit().records().into_iter().find(|it| it.field("event") == "open");
            let opening = eventually("its opening record", opening)?;
            ensure!(text(&one, "/id") == opening.field("id"), "{one}\n{}", opening.json());
            ids.push(opening.field("id"));
        }
        client.kill();
        for ((node, direction, _), id) in sides.into_iter().zip(ids) {
            let closing = node.audit().expect(direction, |it| it.field("id") == id)?;
            ensure!(closing.field("outcome") == "completed", "{}", closing.json());
            ensure!(closing.field("bytes_sent") == MARKER.len().to_string(), "{}", closing.json());
            ensure!(listed(node).is_none(), "it is listed for ever");
        }
        Ok(())
    })
}

#[test]
fn one_that_outlives_the_daemon_goes_on_and_its_record_says_so() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let (echo, mut client, address) = held(lab)?;
        eventually("it in the list", || listed(&lab.a))?;
        lab.a.stop();
        let to_it = |it: &Record| it.field("peer.address") == address;
        let unseen = lab.a.audit().expect("outbound", to_it)?;
        ensure!(unseen.field("outcome") == "interrupted", "{}", unseen.json());
        ensure!(unseen.field("detail").contains("goes on without it"), "{}", unseen.json());
        ensure!(unseen.field("bytes_sent").is_empty(), "{}", unseen.json());
        lab.a.start()?;
        ensure!(!echo.said().contains("end="), "{}", echo.said());
        client.kill();
        let done = |it: &Record| to_it(it) && it.field("outcome") == "completed";
        let done = lab.a.audit().expect("outbound", done)?;
        ensure!(done.field("bytes_sent") == MARKER.len().to_string(), "{}", done.json());
        Ok(())
    })
}

/// One user's many open connections take neither the list nor the log from others.
#[test]
fn of_one_user_so_many_are_listed_and_no_more() -> Result<()> {
    let script = "import socket, sys, time\n\
        held = [socket.create_connection((sys.argv[1], 7000)) for _ in range(300)]\n\
        print('held=%d' % len(held), flush=True); time.sleep(600)\n";
    Lab::check(&Rules::client_calls_server(), |lab| {
        let server = lab.b.pod(Group::Observe, uid::SERVER);
        let _echo = server.serve(probe()?, &["serve", "echo", "0.0.0.0:7000"], 7000)?;
        let many = lab.a.pod(Group::Observe, uid::OTHER);
        let many = many.spawn("/usr/bin/python3", &["-c", script, lab.b.ip])?;
        ensure!(many.value("held")? == "300");
        let of = |user: u32| -> Option<usize> {
            let said = lab.a.ask(&["connections", "--output", "json"]).ok()?;
            let all: Vec<Value> = serde_json::from_str(&said).ok()?;
            Some(all.iter().filter(|one| one.pointer("/process/uid") == Some(&user.into())).count())
        };
        eventually("256 in the list", || (of(uid::OTHER)? == 256).then_some(()))?;
        let address = format!("{}:7000", lab.b.ip);
        let words = ["talk", &address, "--hold", "600000"];
        let _one = lab.a.pod(Group::Observe, uid::CLIENT).spawn(probe()?, &words)?;
        eventually("another user's", || (of(uid::CLIENT)? == 1).then_some(()))?;
        ensure!(of(uid::OTHER) == Some(256));
        Ok(())
    })
}
