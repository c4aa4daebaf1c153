//! Listeners that are older than the daemon, in several hands, handed over, or gone; and the table
//! of them under many that come and go at once.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use harness::{Finished, Group, Lab, Pod, Rules, client_id, eventually, probe, server_id, uid};

const PYTHON: &str = "/usr/bin/python3";
const MARKER: &str = "c0ffee-of-the-listener";
const CORRECTED: &str = "tacit_listeners_corrected_total";

/// Listens as root; a child that has become another user holds the same socket and answers.
const TWO_HOLDERS: &str = r#"
import os, socket, sys
s = socket.create_server(("0.0.0.0", 7000))
if os.fork() == 0:
    os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
while True:
    c, _ = s.accept()
    print("accept=", flush=True)
    c.close()
"#;

/// Listens in no scope, as a service manager does for a service; the service, of another user and in
/// the strict scope, gets the socket and looks at it as `how` says: by a call that a program of the
/// kernel sees, or by none. The manager keeps its own descriptor only if told so.
const HANDED_OVER: &str = r#"
import ctypes, os, socket, sys, time
group, user, how, defer = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
s = socket.create_server(("0.0.0.0", 7000))
if defer: s.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, defer)
if os.fork():
    s.close()
    os.wait()
open(group + "/cgroup.procs", "w").write(str(os.getpid()))
os.setgroups([]); os.setgid(user); os.setuid(user)
if how == "getsockname": s.getsockname()
if how == "getsockopt": s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
print("serving=", flush=True)
libc = ctypes.CDLL(None)
data = ctypes.create_string_buffer(1000)
while True:
    c = libc.accept(s.fileno(), None, None)
    got = libc.read(c, data, 1000)
    print("got=%d" % got, flush=True)
    libc.write(c, data, max(got, 0)); libc.close(c)
"#;

fn to(lab: &Lab) -> String {
    format!("{}:7000", lab.b.ip)
}

fn talk(pod: &Pod, to: &str) -> Result<Finished> {
    pod.run(probe()?, &["talk", to, "--text", MARKER])
}

fn outsider(lab: &Lab) -> Pod {
    lab.a.pod(Group::Outside, uid::STRANGER)
}

#[test]
fn an_older_listener_in_two_hands_is_refused() -> Result<()> {
    let rules = Rules::client_calls_server().also("server", &["unix:uid:0"]);
    Lab::prepared(&rules, |lab| {
        let root = lab.b.pod(Group::Strict, 0);
        let words = ["-c", TWO_HOLDERS, &uid::SERVER.to_string()];
        let server = root.serve(PYTHON, &words, 7000)?;
        lab.a.start()?;
        lab.b.start()?;
        ensure!(talk(&lab.client(), &to(lab))?.failed());
        lab.b.audit().expect_denied("inbound", "listener_ambiguous")?;
        ensure!(!server.said().contains("accept="), "the server saw: {}", server.said());
        Ok(())
    })
}

#[test]
fn the_port_of_an_older_listener_that_has_closed_is_free_again() -> Result<()> {
    Lab::prepared(&Rules::client_calls_server(), |lab| {
        let permissive = lab.b.pod(Group::Permissive, uid::STRANGER);
        let mut old = permissive.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        lab.a.start()?;
        lab.b.start()?;
        talk(&outsider(lab), &to(lab))?.ok()?;
        let steered = || lab.b.metric("tacit_kernel_decisions_total{decision=\"steered\"}");
        let before = eventually("a steered connection", || steered().ok().filter(|it| *it > 0))?;
        old.kill();
        // Nobody sees its end; the look does.
        let outside = lab.b.pod(Group::Outside, uid::OTHER);
        let _new = outside.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        let untouched = || {
            let now = steered().ok()?;
            let said = talk(&outsider(lab), &to(lab)).ok()?;
            (!said.failed() && steered().ok()? == now).then_some(())
        };
        eventually("a connection that goes straight there", untouched)?;
        ensure!(steered()? >= before);
        Ok(())
    })
}

/// Socket activation: whose call on it is seen by a program, is who listens from then on.
#[test]
fn a_listener_that_is_handed_to_a_strict_program_is_its_own_from_the_first_call() -> Result<()> {
    for how in ["getsockname", "getsockopt"] {
        Lab::check(&Rules::client_calls_server(), |lab| {
            let strict = lab.b.group(Group::Strict);
            let user = uid::SERVER.to_string();
            let words = ["-c", HANDED_OVER, &strict.to_string_lossy(), &user, how, "0"];
            let server = lab.b.pod(Group::Outside, 0).spawn(PYTHON, &words)?;
            server.says("serving=")?;
            let capture = lab.a.capture("wire")?;
            ensure!(talk(&outsider(lab), &to(lab))?.failed(), "plaintext was answered");
            lab.client().must(probe()?, &["talk", &to(lab), "--text", MARKER])?;
            let packets = capture.stop()?;
            ensure!(packets.hold_tls(), "nothing was protected");
            ensure!(!server.said().contains(&format!("got={}\ngot=", MARKER.len())));
            lab.b.audit().expect_denied("inbound", "plaintext_refused")?;
            let record = lab.b.audit().expect_completed("inbound")?;
            ensure!(record.field("local.spiffe_id") == server_id(), "{}", record.json());
            ensure!(record.field("peer.spiffe_id") == client_id(), "{}", record.json());
            Ok(())
        })
        .with_context(|| how.to_owned())?;
    }
    Ok(())
}

/// No program sees the program use it: the daemon looks at what the processes of scopes hold.
#[test]
fn a_listener_that_is_handed_over_unseen_is_found() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let strict = lab.b.group(Group::Strict);
        let user = uid::SERVER.to_string();
        let words = ["-c", HANDED_OVER, &strict.to_string_lossy(), &user, "nothing", "0"];
        let server = lab.b.pod(Group::Outside, 0).spawn(PYTHON, &words)?;
        server.says("serving=")?;
        let closed = || talk(&outsider(lab), &to(lab)).ok().filter(Finished::failed);
        eventually("the scope's own listener", closed)?;
        lab.client().must(probe()?, &["talk", &to(lab), "--text", MARKER])?;
        lab.b.audit().expect("inbound", |it| it.field("local.spiffe_id") == server_id())?;
        Ok(())
    })
}

/// The same, older than the daemon; and with an option under which the kernel accepts late.
#[test]
fn an_older_listener_made_outside_belongs_to_the_strict_holder() -> Result<()> {
    Lab::prepared(&Rules::client_calls_server(), |lab| {
        let strict = lab.b.group(Group::Strict);
        let user = uid::SERVER.to_string();
        let words = ["-c", HANDED_OVER, &strict.to_string_lossy(), &user, "nothing", "5"];
        let server = lab.b.pod(Group::Outside, 0).spawn(PYTHON, &words)?;
        server.says("serving=")?;
        lab.a.start()?;
        lab.b.start()?;
        ensure!(talk(&outsider(lab), &to(lab))?.failed(), "plaintext was answered");
        lab.client().must(probe()?, &["talk", &to(lab), "--text", MARKER])?;
        let record = lab.b.audit().expect_completed("inbound")?;
        ensure!(record.field("local.spiffe_id") == server_id(), "{}", record.json());
        Ok(())
    })
}

#[test]
fn a_server_that_defers_accepting_is_reached() -> Result<()> {
    let script = "import socket\ns = socket.create_server(('0.0.0.0', 7000))\n\
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)\n\
        while True:\n    c, _ = s.accept(); c.sendall(c.recv(1000)); c.close()\n";
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _server = lab.server().serve(PYTHON, &["-c", script], 7000)?;
        lab.client().must(probe()?, &["talk", &to(lab), "--text", MARKER])?;
        lab.b.audit().expect_completed("inbound")?;
        Ok(())
    })
}

/// Sockets of one address come and go at once on two processors: nothing is lost, nothing is left.
#[test]
fn listeners_that_come_and_go_at_once_are_counted_right() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let words = ["churn", "0.0.0.0:7000", "--processes", "6", "--rounds", "3000"];
        lab.server().must(probe()?, &words)?;
        let _echo = lab.echo(7000)?;
        lab.client().must(probe()?, &["talk", &to(lab), "--text", MARKER])?;
        let long = std::time::Duration::from_secs(5);
        std::thread::sleep(long);
        lab.client().must(probe()?, &["talk", &to(lab), "--text", MARKER])?;
        ensure!(lab.b.metric(CORRECTED)? == 0, "the table was wrong: {}", lab.b.logged());
        Ok(())
    })
}

/// A scope can fill its own part of the table, not that of others.
#[test]
fn a_scope_that_listens_everywhere_keeps_no_other_out() -> Result<()> {
    let script = "import socket, resource, time\n\
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n\
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 12000), hard))\n\
        held = []\n\
        for port in range(10000, 18200):\n    \
            s = socket.socket(); s.bind(('127.0.0.2', port)); s.listen(1); held.append(s)\n\
        print('full=', flush=True)\ntime.sleep(60)\n";
    Lab::check(&Rules::client_calls_server(), |lab| {
        let greedy = lab.b.pod(Group::Permissive, uid::STRANGER);
        let greedy = greedy.spawn(PYTHON, &["-c", script])?;
        greedy.says("full=")?;
        let record = lab.b.audit().expect_denied("inbound", "map_full")?;
        ensure!(record.field("process.uid") == uid::STRANGER.to_string(), "{}", record.json());
        let full = "tacit_kernel_decisions_total{decision=\"map_full\"}";
        eventually("the count", || lab.b.metric(full).ok().filter(|count| *count >= 8))?;
        let _echo = lab.echo(7000)?;
        lab.client().must(probe()?, &["talk", &to(lab), "--text", MARKER])?;
        Ok(())
    })
}

/// Open before its scope was strict: it goes on nowhere.
#[test]
fn a_connection_that_is_older_than_its_strict_scope_is_reset() -> Result<()> {
    let observed = "[[outbound]]\nname = \"none\"\naction = \"refuse\"\n";
    Lab::prepared(&Rules::client_calls_server().rules(observed), |lab| {
        let plain = lab.b.pod(Group::Outside, uid::SERVER);
        let _echo = plain.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        let words = ["talk", &to(lab), "--hold", "8000"];
        let mut old = lab.a.pod(Group::Strict, uid::CLIENT).spawn(probe()?, &words)?;
        let mut other = lab.a.pod(Group::Permissive, uid::CLIENT).spawn(probe()?, &words)?;
        old.says("sent=")?;
        other.says("sent=")?;
        lab.a.start()?;
        ensure!(!old.wait()?.success(), "it went on: {}", old.said());
        let told = || {
            let records = lab.a.audit().records();
            records.into_iter().find(|it| it.field("reason") == "connections_reset")
        };
        let record = eventually("a record of the reset", told)?;
        ensure!(record.field("detail").contains(&to(lab)), "{}", record.json());
        ensure!(!other.said().contains("error="), "the permissive one was cut: {}", other.said());
        other.kill();
        Ok(())
    })
}

#[test]
fn the_listener_of_a_scope_that_comes_later_is_captured() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let late = lab.b.group(Group::Outside).join("late");
        fs::create_dir(&late)?;
        let script = format!(
            "echo 0 >{group}/cgroup.procs && exec setpriv --clear-groups --reuid={user} \
             --regid={user} {probe} serve echo 0.0.0.0:7000",
            group = late.display(),
            user = uid::SERVER,
            probe = probe()?.display()
        );
        let server = lab.b.pod(Group::Outside, 0).serve("sh", &["-c", &script], 7000)?;
        talk(&outsider(lab), &to(lab))?.ok()?;
        let scope =
            format!("[[scope]]\ncgroup = \"{}/outside/late\"\nmode = \"strict\"\n", lab.b.cgroup());
        lab.b.configure(&Rules::client_calls_server().rule(&scope))?;
        let closed = || talk(&outsider(lab), &to(lab)).ok().filter(Finished::failed);
        eventually("the strict scope", closed)?;
        let reached = || talk(&lab.client(), &to(lab)).ok().filter(|said| !said.failed());
        eventually("mutual TLS to it", reached)?;
        let record = lab.b.audit().expect_completed("inbound")?;
        ensure!(record.field("process.source") == "kernel", "{}", record.json());
        drop(server);
        Ok(())
    })
}
