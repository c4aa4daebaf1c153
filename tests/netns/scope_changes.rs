//! Scopes that change under running programs: no moment is less strict than both the old and the new
//! configuration.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use harness::{Group, Lab, Node, Rules, eventually, probe, uid};

const PYTHON: &str = "/usr/bin/python3";
const TOGGLES: usize = 8;
/// Scopes beside, so that a change takes its time.
const OTHERS: usize = 300;

/// Dials and speaks in the clear until it is ended.
const INSIST: &str = "import socket, sys, time\nn = 0\n\
    while True:\n    \
        s = socket.socket(); s.settimeout(0.3); n += 1\n    \
        try: s.connect((sys.argv[1], 7000)); s.sendall(b'c0ffee-of-the-window')\n    \
        except OSError: pass\n    \
        s.close(); time.sleep(0.002)\n    \
        if n % 50 == 0: print('tried=%d' % n, flush=True)\n";

/// Puts another text in place of the configuration, in one step, and has it taken up.
fn take_up(node: &Node, text: &str) -> Result<()> {
    let new = node.dir().join("config.toml.new");
    fs::write(&new, text)?;
    fs::rename(new, node.config())?;
    node.ask(&["reload"])?;
    Ok(())
}

/// The same with the strict scope observed, and a strict one below it.
fn turned_inside_out(text: &str, cgroup: &str) -> Result<String> {
    let strict = format!("cgroup = \"{cgroup}/strict\"\nmode = \"strict\"");
    ensure!(text.contains(&strict), "{text}");
    let observed = format!("cgroup = \"{cgroup}/strict\"\nmode = \"observe\"");
    let mut text = text.replace(&strict, &observed);
    write!(text, "\n[[scope]]\ncgroup = \"{cgroup}/strict/inner\"\nmode = \"strict\"\n")?;
    for n in 0..OTHERS {
        write!(text, "\n[[scope]]\ncgroup = \"{cgroup}/none/{n}\"\nmode = \"strict\"\n")?;
    }
    Ok(text)
}

#[test]
fn what_is_strict_before_and_after_is_strict_meanwhile() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let plain = lab.b.pod(Group::Outside, uid::SERVER);
        let echo = plain.serve(probe()?, &["serve", "echo", "0.0.0.0:7000"], 7000)?;
        let inner = lab.a.corner("strict/inner", uid::STRANGER)?;
        let before = fs::read_to_string(lab.a.config())?;
        let after = turned_inside_out(&before, lab.a.cgroup())?;
        let mut insists = inner.spawn(PYTHON, &["-c", INSIST, lab.b.ip])?;
        let tried = |insists: &harness::Server| insists.value("tried");
        tried(&insists)?;
        for _ in 0..TOGGLES {
            take_up(&lab.a, &after)?;
            take_up(&lab.a, &before)?;
        }
        let done = tried(&insists)?;
        eventually("more attempts", || (tried(&insists).ok()? != done).then_some(()))?;
        insists.kill();
        ensure!(!echo.said().contains("accept="), "it got out: {}", echo.said());
        // What is observed in the second one goes out: the server can be seen to be reached.
        take_up(&lab.a, &after)?;
        lab.a
            .pod(Group::Strict, uid::STRANGER)
            .must(probe()?, &["talk", &format!("{}:7000", lab.b.ip)])?;
        echo.says("accept=")?;
        drop(insists);
        fs::remove_dir(inner.cgroup()).context("the inner cgroup")?;
        Ok(())
    })
}

/// Two configurations that have no scope in common, each with as many as there may be.
#[test]
fn all_scopes_can_be_others_at_once() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let text = fs::read_to_string(lab.a.config())?;
        let (head, _) = text.split_once("[[scope]]").context("no scope")?;
        let cgroup = lab.a.cgroup();
        let many = |kind: &str| {
            let strict = format!("\n[[scope]]\ncgroup = \"{cgroup}/strict\"\nmode = \"strict\"\n");
            (1..1023).fold(format!("{head}{strict}"), |mut text, n| {
                let scope =
                    format!("[[scope]]\ncgroup = \"{cgroup}/{kind}/{n}\"\nmode = \"strict\"\n");
                text.push_str(&scope);
                text
            })
        };
        let plain = lab.b.pod(Group::Outside, uid::SERVER);
        let echo = plain.serve(probe()?, &["serve", "echo", "0.0.0.0:7000"], 7000)?;
        for kind in ["one", "other", "one"] {
            take_up(&lab.a, &many(kind))?;
            ensure!(lab.a.ask(&["scopes"])?.contains(&format!("{cgroup}/{kind}/1022")));
            let stranger = lab.a.pod(Group::Strict, uid::STRANGER);
            let dial = ["talk", &format!("{}:7000", lab.b.ip)];
            ensure!(stranger.run(probe()?, &dial)?.failed());
        }
        ensure!(!echo.said().contains("accept="), "it got out: {}", echo.said());
        Ok(())
    })
}

/// A scope of its own for a part of another one: what runs there is judged by it from now on.
#[test]
fn a_connection_is_cut_where_a_deeper_scope_turns_strict() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let plain = lab.b.pod(Group::Outside, uid::SERVER);
        let echo = plain.serve(probe()?, &["serve", "echo", "0.0.0.0:7001"], 7001)?;
        let inner = lab.a.corner("permissive/inner", uid::STRANGER)?;
        let address = format!("{}:7001", lab.b.ip);
        let words = ["talk", &address, "--hold", "600000"];
        let held = inner.spawn(probe()?, &words)?;
        let beside = lab.a.pod(Group::Permissive, uid::STRANGER).spawn(probe()?, &words)?;
        eventually("both", || (echo.said().matches("accept=").count() == 2).then_some(()))?;
        let before = fs::read_to_string(lab.a.config())?;
        let cgroup = lab.a.cgroup();
        let scope =
            format!("\n[[scope]]\ncgroup = \"{cgroup}/permissive/inner\"\nmode = \"strict\"\n");
        take_up(&lab.a, &format!("{before}{scope}"))?;
        let cut = |it: &harness::Record| it.field("reason") == "scope_changed";
        let record = lab.a.audit().expect("outbound", cut)?;
        ensure!(record.field("process.pid") == held.pid().to_string(), "{}", record.json());
        echo.says("end=")?;
        ensure!(echo.said().matches("end=").count() == 1, "another one was cut: {}", echo.said());
        drop((beside, held));
        fs::remove_dir(inner.cgroup()).context("the inner cgroup")?;
        Ok(())
    })
}
