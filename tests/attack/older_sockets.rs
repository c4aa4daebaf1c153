//! Sockets that are older than what holds for them: a scope turns strict while they are open.

use std::fs;

use anyhow::{Context as _, Result};
use harness::{Finished, Group, Lab, Node, Rules, eventually, uid};

use crate::row::{Control, Row, Who};
use crate::tricks::{self, Leak, all_stopped, plain_server};

/// Opens something, says `ready`, waits for a file, and sends a marker.
const WAITING: &str = include_str!("tricks/waiting.py");

/// Changes the node's configuration and waits until its scopes say `shown` of `group`.
fn change(node: &Node, to: &str, group: &str, shown: &str) -> Result<()> {
    let new = node.config().with_extension("new");
    fs::write(&new, to)?;
    fs::rename(new, node.config())?;
    let there = || {
        let scopes = node.ask(&["scopes"]).ok()?;
        let of_group = |line: &&str| line.contains(group) && line.contains(shown);
        scopes.lines().find(of_group).map(drop)
    };
    eventually("the scopes to change", there).context("the configuration")
}

/// While `before` holds, a program of the client's user in `group` opens something; once `after`
/// holds, which makes its scope strict, it sends.
fn outlived(trick: &'static str, how: &'static str, group: Group, user: bool) -> Leak<'static> {
    Leak::new(Row { who: Who::Strict, trick }, move |lab, marker| {
        let before = fs::read_to_string(lab.a.config())?;
        let (folder, was, is) = match group {
            Group::Observe => ("/observe", "mode = \"observe\"", "mode = \"strict\""),
            _ => ("/outside", "\n[[entry]]", ""),
        };
        let after = if user {
            let scope = format!(
                "[[scope]]\ncgroup = \"{}{folder}\"\nmode = \"strict\"\nuser = {}\n",
                lab.a.cgroup(),
                uid::CLIENT
            );
            before.replacen(was, &format!("\n{scope}\n[[entry]]"), 1)
        } else {
            before.replacen(was, is, 1)
        };
        let pod = lab.a.pod(group, uid::CLIENT);
        let go = pod.folder("go")?.join(marker);
        let mut program = tricks::spawn(&pod, WAITING, &[marker, how, &go.to_string_lossy()])?;
        change(&lab.a, &after, folder, "strict")?;
        fs::write(&go, "")?;
        let status = program.wait()?;
        change(&lab.a, &before, if user { "/observe" } else { folder }, "observe")?;
        Ok(Finished { status, stdout: program.said(), stderr: String::new() })
    })
}

const BACKSTOP: Control = Control::Detached(&["tacit_egress"]);

#[test]
fn opened_before_its_scope_was_strict() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _server = plain_server(lab)?;
        let leaks = [
            outlived(
                "connect() deferred by TCP_FASTOPEN_CONNECT while observed, written once strict",
                "deferred",
                Group::Observe,
                false,
            ),
            outlived(
                "UDP connected while observed, sent once strict",
                "udp",
                Group::Observe,
                false,
            ),
        ];
        all_stopped(lab, &leaks, BACKSTOP)
    })
}

#[test]
fn opened_before_its_users_scope() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _server = plain_server(lab)?;
        let leaks = [outlived(
            "UDP connected before its user's scope was there",
            "udp",
            Group::Outside,
            true,
        )];
        all_stopped(lab, &leaks, BACKSTOP)
    })
}
