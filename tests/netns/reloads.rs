//! What a daemon says of its configuration: what was taken over or refused, what is doubtful in it,
//! and what it cannot know yet.

use anyhow::{Result, ensure};
use harness::{Group, Lab, Record, Rules, eventually, probe, uid};

fn told(lab: &Lab, reason: &str) -> Result<Record> {
    let is_told = |it: &Record| it.field("event") == "daemon" && it.field("reason") == reason;
    eventually(reason, || lab.a.audit().records().into_iter().find(is_told))
}

fn metric(lab: &Lab, line: &str) -> Result<()> {
    let ask = || lab.a.in_netns("curl", &["-s", "http://127.0.0.1:9464/metrics"]);
    let has = |said: &str| said.lines().any(|it| it == line);
    eventually(line, || ask().is_ok_and(|said| has(&said.stdout)).then_some(()))
}

#[test]
fn a_reload_is_recorded_counted_and_shown() -> Result<()> {
    let rules = Rules::client_calls_server();
    Lab::check(&rules, |lab| {
        metric(lab, "tacit_policy_epoch 1")?;
        let loaded = || -> Result<String> {
            let said = lab.a.ask(&["status", "--output", "json"])?;
            let value = said.split("\"config_loaded\"").nth(1).unwrap_or_default();
            Ok(value.split('"').nth(1).unwrap_or_default().to_owned())
        };
        let before = loaded()?;
        ensure!(before.starts_with("20"), "{before}");
        let refuse = "[[outbound]]\nname = \"no\"\naction = \"refuse\"\nports = 25\n";
        lab.a.configure(&rules.clone().rule(refuse))?;
        ensure!(told(lab, "config_reloaded")?.field("detail") == "epoch 2");
        metric(lab, "tacit_policy_epoch 2")?;
        metric(lab, "tacit_config_reloads_total{result=\"ok\"} 1")?;
        let after = loaded()?;
        ensure!(before < after, "{before} < {after}");
        lab.a.configure(&rules.clone().rule("[[outbound]]\naction = \"nonsense\"\n"))?;
        let refused = told(lab, "config_refused")?.field("detail");
        ensure!(refused.contains("nonsense"), "{refused}");
        metric(lab, "tacit_config_reloads_total{result=\"failed\"} 1")?;
        metric(lab, "tacit_policy_epoch 2")
    })
}

#[test]
fn entries_that_tie_are_told() -> Result<()> {
    let uid = format!("unix:uid:{}", uid::CLIENT);
    let gid = format!("unix:gid:{}", uid::CLIENT);
    let rules = Rules::client_calls_server().entry("zz-same", &[&uid]).entry("zz-other", &[&gid]);
    Lab::check(&rules, |lab| {
        let same = "zz-same: entry at";
        eventually("a warning in the log", || lab.a.logged().contains(same).then_some(()))?;
        ensure!(lab.a.ask(&["status"])?.contains("has the same selectors"));
        let said = lab.a.ask(&["entries", "--output", "json"])?;
        ensure!(said.contains("zz-same") && !said.contains("[\"zz-other\""), "{said}");
        // The other tie comes to light with a process that both match.
        let _echo = lab.echo(7000)?;
        let to = format!("{}:7000", lab.b.ip);
        lab.client().run(probe()?, &["talk", &to])?.ok()?;
        let seen = lab.a.ask(&["status"])?;
        ensure!(seen.contains("client and zz-other match"), "{seen}");
        ensure!(lab.a.logged().contains("two entries match a process equally well"));
        ensure!(lab.a.ask(&["entries"])?.contains("ties with zz-other, zz-same"));
        Ok(())
    })
}

#[test]
fn a_daemon_starts_without_a_resolver_and_strict_refuses() -> Result<()> {
    let named = "[[outbound]]\nname = \"named\"\naction = \"mtls\"\n\
                 hosts = [\"db.invalid\"]\npeers = [\"spiffe://example.org/server\"]\n";
    let rules = Rules::client_calls_server().rules(named);
    Lab::prepared(&rules, |lab| {
        lab.a.start_unready()?;
        let to = format!("{}:7000", lab.b.ip);
        ensure!(lab.client().run(probe()?, &["talk", &to])?.failed());
        lab.a.audit().expect_denied("outbound", "no_rule")?;
        let ready = lab.a.in_netns("curl", &["-s", "http://127.0.0.1:9464/ready"])?;
        ensure!(ready.stdout.contains("not looked up yet: db.invalid"), "{ready:?}");
        let socket = lab.a.socket();
        let said = lab.a.tacit(&["status", "--socket", &socket.to_string_lossy()])?;
        ensure!(said.stdout.contains("db.invalid"), "{said:?}");
        let warned = || lab.a.logged().contains("cannot be looked up yet").then_some(());
        eventually("a warning in the log", warned)?;
        // For who asks before anything runs, it is an error.
        let said = lab.a.tacit(&["check", "--config", &lab.a.config().to_string_lossy()])?;
        ensure!(said.status.code() == Some(3), "{said:?}");
        Ok(())
    })
}

#[test]
fn what_is_not_captured_is_explained_as_such() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let sleeper = lab.client().spawn("/bin/sleep", &["60"])?;
        let explain = |pid: u32, to: &str| lab.a.ask(&["explain", &format!("{pid} -> {to}")]);
        let refused = |pid: u32, to: &'static str, why: &'static str| {
            let said = move || explain(pid, to).is_ok_and(|said| said.contains(why)).then_some(());
            eventually(why, said)
        };
        refused(sleeper.pid(), "[fe80::1]:7000", "refuse it (link_local)")?;
        let said = explain(sleeper.pid(), "10.77.0.2:7000")?;
        ensure!(said.contains("client-to-server") && !said.contains("link"), "{said}");
        let strict = lab.a.pod(Group::Strict, 0);
        let elsewhere = strict.spawn("/usr/bin/unshare", &["--net", "/bin/sleep", "60"])?;
        refused(elsewhere.pid(), "10.77.0.2:7000", "refuse it (foreign_netns)")
    })
}
