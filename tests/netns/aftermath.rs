//! After a crash, and after Tacit: what is adopted, what the log proves, what is left behind.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use harness::{Finished, Group, Lab, Node, Rules, eventually, probe, tacit, uid};

fn talk(lab: &Lab) -> Result<Finished> {
    lab.client().run(probe()?, &["talk", &format!("{}:7000", lab.b.ip), "--text", "aftermath"])
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn verify(node: &Node) -> Result<Finished> {
    let (log, state) = (text(node.audit().path()), text(&node.state()));
    node.tacit(&["audit", "verify", "--log", &log, "--state-dir", &state])
}

#[test]
fn a_killed_daemon_is_succeeded_and_its_log_still_proves_itself() -> Result<()> {
    let rules = Rules::client_calls_server().audit("open_after = \"1s\"");
    Lab::check(&rules, |lab| {
        let _echo = lab.echo(7000)?;
        talk(lab)?.ok()?;
        let to = format!("{}:7000", lab.b.ip);
        let mut held = lab.client().spawn(probe()?, &["talk", &to, "--hold", "60000"])?;
        let opened =
            |node: &Node| node.audit().records().into_iter().find(|it| it.field("event") == "open");
        for node in [&lab.a, &lab.b] {
            eventually("an opening record", || opened(node))?;
        }
        // Neither is to see the other's end.
        for node in [&lab.a, &lab.b] {
            node.pause()?;
        }
        for node in [&lab.a, &lab.b] {
            node.crash()?;
        }
        held.kill();
        for (node, direction) in [(&lab.a, "outbound"), (&lab.b, "inbound")] {
            node.start()?;
            let interrupted =
                node.audit().expect(direction, |it| it.field("outcome") == "interrupted")?;
            let open = opened(node).context("no opening record")?;
            ensure!(interrupted.field("id") == open.field("id"), "{}", interrupted.json());
        }
        talk(lab)?.ok().context("after the restart")?;
        for node in [&lab.a, &lab.b] {
            node.stop();
            let said = verify(node)?;
            ensure!(said.status.code() == Some(0), "verify: {said:?}");
            let mut log = fs::read(node.audit().path())?;
            let needle = b"completed";
            let at = log.windows(needle.len()).position(|it| it == needle).context("no record")?;
            *log.get_mut(at).context("no byte")? = b'C';
            fs::write(node.audit().path(), log)?;
            let said = verify(node)?;
            ensure!(said.status.code() == Some(5), "an edited log passes: {said:?}");
        }
        Ok(())
    })
}

#[test]
fn uninstalled_means_gone() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let (config, socket) = (text(&lab.a.config()), text(&lab.a.socket()));
        let plain = lab.b.pod(Group::Outside, uid::SERVER);
        let _echo = plain.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        let uninstall = || lab.a.tacit(&["uninstall", "--config", &config]);
        let doctor = || lab.a.tacit(&["doctor", "--socket", &socket, "--config", &config]);

        let said = uninstall()?;
        ensure!(said.failed() && said.stderr.contains("stop it first"), "{said:?}");
        let said = doctor()?;
        ensure!(said.ok()?.contains("attached, pinned"), "{said:?}");
        ensure!(talk(lab)?.failed(), "a strict scope is open");

        lab.a.stop();
        ensure!(lab.a.pins().exists(), "the programs went with the daemon");
        let said = doctor()?;
        ensure!(said.ok()?.contains("hold strict scopes closed"), "{said:?}");
        ensure!(talk(lab)?.failed(), "a strict scope without a daemon is open");

        // What looks without being allowed to does not say that there is nothing.
        let nobody = lab.a.pod(Group::Outside, uid::STRANGER);
        let words =
            ["doctor", "--socket", "/nowhere/tacit.sock", "--config", "/nowhere/tacit.toml"];
        let said = nobody.run(tacit()?, &words)?;
        ensure!(said.failed() && said.stdout.contains("look as root"), "{said:?}");

        // A configuration that nobody could run does not stand in the way.
        let whole = fs::read_to_string(&config)?;
        let named = "[[outbound]]\naction = \"refuse\"\nhosts = [\"db.invalid\"]\n";
        fs::write(&config, format!("{whole}{named}[proxy.nonsense]\n"))?;
        let own = lab.a.group(Group::Strict).with_file_name(format!("tacit-{}", lab.a.instance()));
        fs::create_dir(&own)?;
        let said = uninstall()?;
        ensure!(said.ok()?.contains("Removed instance"), "{said:?}");
        ensure!(!lab.a.pins().exists(), "left behind: {}", lab.a.pins().display());
        ensure!(!own.exists(), "left behind: {}", own.display());
        let said = uninstall()?;
        ensure!(said.ok()?.contains("There was nothing of instance"), "{said:?}");
        fs::write(&config, whole)?;
        let name = lab.a.pins().file_name().map(|it| it.to_string_lossy().into_owned());
        let said = doctor()?;
        ensure!(!said.stdout.contains(&name.context("no name")?), "{said:?}");
        let capture = lab.a.capture("plain")?;
        talk(lab)?.ok()?;
        ensure!(capture.stop()?.contain(b"aftermath"), "it did not cross the wire as it was");
        Ok(())
    })
}

#[test]
fn a_denied_connection_can_be_explained() -> Result<()> {
    let closed = "[[outbound]]\nname = \"closed\"\naction = \"refuse\"\n";
    Lab::check(&Rules::client_calls_server().rules(closed), |lab| {
        ensure!(talk(lab)?.failed());
        let record = lab.a.audit().expect_denied("outbound", "rule_refuses")?;
        let said = lab.a.ask(&["explain", &record.field("id")])?;
        ensure!(said.contains("rule_refuses") && said.contains("closed"), "{said}");
        let what = format!("spiffe://example.org/client -> {}:7000", lab.b.ip);
        let said = lab.a.ask(&["explain", &what])?;
        ensure!(said.contains("rule_refuses") && said.contains("closed"), "{said}");
        Ok(())
    })
}
