//! What goes past the scopes is found and told, and makes a node with strict scopes unready where it
//! makes them a lie.

use anyhow::{Result, ensure};
use harness::{Group, Lab, Node, Rules, eventually, probe, soon, uid};
use serde_json::Value;
use std::time::Duration;

const PYTHON: &str = "/usr/bin/python3";
/// Two of the daemon's looks, and more.
const LOOKS: Duration = Duration::from_secs(30);

/// The checks of `tacit doctor` about this scope: verdict and detail.
fn found(node: &Node, group: Group) -> Result<Vec<(String, String)>> {
    // It says by its exit code, too, that something is not well.
    let socket = node.socket().display().to_string();
    let said = node.tacit(&["doctor", "--socket", &socket, "--output", "json"])?.stdout;
    let said: Value = serde_json::from_str(&said)?;
    let folder = node.group(group).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = format!("scope {}/{folder}", node.cgroup());
    let field = |check: &Value, key: &str| -> String {
        check.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let checks = said.get("checks").and_then(Value::as_array).cloned().unwrap_or_default();
    let about = checks.iter().filter(|check| field(check, "name") == name);
    Ok(about.map(|check| (field(check, "verdict"), field(check, "detail"))).collect())
}

fn is_ready(node: &Node) -> bool {
    let socket = node.socket().display().to_string();
    node.tacit(&["status", "--socket", &socket])
        .is_ok_and(|said| !said.stdout.contains("NOT ready"))
}

#[test]
fn a_packet_socket_in_a_strict_scope_makes_the_node_unready() -> Result<()> {
    let script = "import socket, time\n\
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)\nprint('open=1', flush=True)\n\
        time.sleep(600)\n";
    Lab::check(&Rules::client_calls_server(), |lab| {
        ensure!(found(&lab.a, Group::Strict)?.is_empty());
        let mut holder = lab.a.pod(Group::Strict, 0).spawn(PYTHON, &["-c", script])?;
        holder.says("open=1")?;
        let checks = found(&lab.a, Group::Strict)?;
        let [(verdict, detail)] = checks.as_slice() else { anyhow::bail!("{checks:?}") };
        ensure!(verdict == "failed" && detail.contains("packet sockets"), "{detail}");
        ensure!(detail.contains(&format!("process {}", holder.pid())), "{detail}");
        soon(LOOKS, "a node that is not ready", || (!is_ready(&lab.a)).then_some(()))?;
        ensure!(lab.a.logged().contains("a strict scope is gone past"), "not in the log");
        // The same in no scope concerns nobody.
        let _other = lab.b.pod(Group::Outside, 0).spawn(PYTHON, &["-c", script])?;
        ensure!(is_ready(&lab.b), "{:?}", found(&lab.b, Group::Strict));
        holder.kill();
        ensure!(found(&lab.a, Group::Strict)?.is_empty());
        soon(LOOKS, "a ready node", || is_ready(&lab.a).then_some(()))
    })
}

#[test]
fn older_connections_of_a_permissive_scope_are_listed_and_go_on() -> Result<()> {
    Lab::prepared(&Rules::client_calls_server(), |lab| {
        let server = lab.b.pod(Group::Outside, uid::SERVER);
        let echo = server.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        let address = format!("{}:7000", lab.b.ip);
        let words = ["talk", &address, "--hold", "600000"];
        let mut older = lab.a.pod(Group::Permissive, uid::CLIENT).spawn(probe()?, &words)?;
        echo.says("accept=")?;
        lab.a.start()?;
        let listed = || {
            let checks = found(&lab.a, Group::Permissive).ok()?;
            checks.into_iter().find(|(_, detail)| detail.contains("older than the daemon"))
        };
        let (verdict, detail) = eventually("it in the list", listed)?;
        ensure!(verdict == "warning" && detail.contains(&address), "{verdict}: {detail}");
        ensure!(is_ready(&lab.a), "nothing was promised");
        ensure!(!echo.said().contains("end="), "it was cut: {}", echo.said());
        older.kill();
        eventually("an empty list", || listed().is_none().then_some(()))?;
        // One that is opened now is carried, and is none of them.
        lab.a.pod(Group::Permissive, uid::STRANGER).must(probe()?, &["talk", &address])?;
        ensure!(listed().is_none());
        Ok(())
    })
}

#[test]
fn a_process_of_another_namespace_is_listed() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let words = ["--net", "sleep", "600"];
        let mut elsewhere = lab.a.pod(Group::Strict, 0).spawn("unshare", &words)?;
        let listed = || {
            let checks = found(&lab.a, Group::Strict).ok()?;
            checks.into_iter().find(|(_, detail)| detail.contains("another network namespace"))
        };
        let (verdict, detail) = eventually("it in the list", listed)?;
        ensure!(verdict == "warning" && detail.contains("sleep"), "{verdict}: {detail}");
        elsewhere.kill();
        eventually("an empty list", || listed().is_none().then_some(()))
    })
}
