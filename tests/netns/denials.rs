//! Every reason for a denial that no other file provokes: what was done, and the one record of it.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{Finished, Group, Lab, Pod, Rules, Server, client_id, eventually, probe, uid};

const PYTHON: &str = "/usr/bin/python3";
const MARKER: &str = "c0ffee-of-the-denied";

fn to(lab: &Lab) -> String {
    format!("{}:7000", lab.b.ip)
}

fn outsider(lab: &Lab) -> Pod {
    lab.a.pod(Group::Outside, uid::STRANGER)
}

fn talk(pod: &Pod, to: &str) -> Result<Finished> {
    pod.run(probe()?, &["talk", to, "--text", MARKER])
}

#[test]
fn no_listener() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let mut echo = lab.echo(7000)?;
        lab.b.pause()?;
        let mut client = outsider(lab).spawn(probe()?, &["talk", &to(lab)])?;
        client.says("peer=")?;
        echo.kill();
        lab.b.resume()?;
        ensure!(!client.wait()?.success(), "somebody answered");
        lab.b.audit().expect_denied("inbound", "no_listener")?;
        Ok(())
    })
}

/// Between the look at the listener and the dial, another program takes the address over.
#[test]
fn listener_changed() -> Result<()> {
    let rules = Rules::client_calls_server().rule(&format!(
        "[[inbound]]\nname = \"plain\"\nworkloads = [\"{}\"]\naction = \"allow\"\n\
         plaintext = \"admit\"\n",
        harness::server_id()
    ));
    Lab::check(&rules, |lab| {
        let mut old = lab.b.pod(Group::Permissive, uid::SERVER).serve(
            probe()?,
            &["serve", "echo", "[::]:7000"],
            7000,
        )?;
        let client = outsider(lab).spawn(probe()?, &["talk", &to(lab), "--wait", "2500"])?;
        client.says("peer=")?;
        sleep(Duration::from_millis(500));
        old.kill();
        let thief = lab.b.pod(Group::Permissive, uid::OTHER);
        let thief = thief.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        lab.b.audit().expect_denied("inbound", "listener_changed")?;
        // The kernel has accepted for it; of the client it has seen nothing.
        ensure!(!thief.said().contains("end=eof"), "the other one got: {}", thief.said());
        Ok(())
    })
}

#[test]
fn attest_failed() -> Result<()> {
    // Longer to hash than attestation may take: the file is as large as the limit allows.
    let rules = Rules::client_calls_server()
        .also(
            "client",
            &["unix:sha256:0000000000000000000000000000000000000000000000000000000000000000"],
        )
        .attest("deadline = \"100ms\"");
    Lab::check(&rules, |lab| {
        let _echo = lab.echo(7000)?;
        let large = lab.dir().join("large");
        std::fs::copy(probe()?, &large)?;
        std::fs::OpenOptions::new().append(true).open(&large)?.set_len(500 << 20)?;
        ensure!(lab.client().run(&large, &["talk", &to(lab)])?.failed(), "it got through");
        lab.a.audit().expect_denied("outbound", "attest_failed")?;
        Ok(())
    })
}

/// The listener is older than the daemon; since it was looked at, its holder runs another program.
#[test]
fn process_changed() -> Result<()> {
    let script = "import os, socket, sys, time\n\
        s = socket.create_server(('0.0.0.0', 7000)); s.set_inheritable(True)\n\
        print('listening=', flush=True)\n\
        while not os.path.exists(sys.argv[1]): time.sleep(0.05)\n\
        os.execv('/usr/bin/sleep', ['sleep', '60'])\n";
    Lab::prepared(&Rules::client_calls_server(), |lab| {
        let flag = lab.dir().join("change");
        let words = ["-c", script, &flag.to_string_lossy()];
        let server = lab.server().serve(PYTHON, &words, 7000)?;
        lab.a.start()?;
        lab.b.start()?;
        std::fs::write(&flag, b"")?;
        let exe = format!("/proc/{}/exe", server.pid());
        let became = || std::fs::read_link(&exe).ok().filter(|exe| exe.ends_with("sleep"));
        eventually("another program", became)?;
        ensure!(talk(&lab.client(), &to(lab))?.failed());
        lab.b.audit().expect_denied("inbound", "process_changed")?;
        Ok(())
    })
}

/// The listener is older than the daemon; the holder that was looked at has gone, its pid is
/// another's, and its child still listens.
#[test]
fn pid_reused() -> Result<()> {
    let script = "import os, socket, sys, time\n\
        s = socket.create_server(('0.0.0.0', 7000))\n\
        if os.fork() == 0: time.sleep(60)\n\
        print('listening=', flush=True)\n\
        while not os.path.exists(sys.argv[1]): time.sleep(0.05)\n\
        os._exit(0)\n";
    Lab::prepared(&Rules::client_calls_server(), |lab| {
        let flag = lab.dir().join("leave");
        let words = ["-c", script, &flag.to_string_lossy()];
        let mut server = lab.server().serve(PYTHON, &words, 7000)?;
        let pid = server.pid().to_string();
        lab.a.start()?;
        lab.b.start()?;
        std::fs::write(&flag, b"")?;
        ensure!(server.wait()?.success());
        let twin = lab.b.pod(Group::Outside, 0).spawn(probe()?, &["take-pid", &pid])?;
        ensure!(twin.value("reused")? == pid);
        ensure!(talk(&lab.client(), &to(lab))?.failed());
        lab.b.audit().expect_denied("inbound", "pid_reused")?;
        Ok(())
    })
}

#[test]
fn unmarked_tls_refused() -> Result<()> {
    let rules = Rules::client_calls_server().rules(&format!(
        "[[inbound]]\nname = \"mesh\"\nworkloads = [\"{}\"]\naction = \"allow\"\n\
         peers = [\"{}\"]\nunmarked_tls = \"refuse\"\n",
        harness::server_id(),
        client_id()
    ));
    Lab::check(&rules, |lab| {
        let echo = lab.echo(7000)?;
        let words = ["s_client", "-connect", &to(lab), "-brief"];
        ensure!(outsider(lab).run("openssl", &words)?.failed());
        lab.b.audit().expect_denied("inbound", "unmarked_tls_refused")?;
        ensure!(!echo.said().contains("accept="), "the server saw: {}", echo.said());
        Ok(())
    })
}

/// A client that sends what `script` says and then nothing more.
fn silent_after(lab: &Lab, script: &str) -> Result<Server> {
    let script = format!(
        "import socket, ssl, sys, time\n\
         s = socket.create_connection((sys.argv[1], 7000))\n{script}\n\
         s.settimeout(15)\n\
         try:\n    while s.recv(1000): print('got=', flush=True)\n\
         except OSError as error:\n    print('end=' + type(error).__name__)\n"
    );
    outsider(lab).spawn(PYTHON, &["-c", &script, lab.b.ip])
}

/// A `ClientHello` as OpenSSL writes it.
const HELLO: &str = "i, o = ssl.MemoryBIO(), ssl.MemoryBIO()\n\
    c = ssl.create_default_context().wrap_bio(i, o, server_hostname='x')\n\
    try:\n    c.do_handshake()\n\
    except ssl.SSLWantReadError:\n    s.sendall(o.read())\n";

#[test]
fn silence_and_half_handshakes_end_in_time() -> Result<()> {
    let rules = Rules::client_calls_server()
        .proxy("first_byte_timeout = \"1s\"\nhandshake_timeout = \"2s\"");
    Lab::check(&rules, |lab| {
        let echo = lab.echo(7000)?;
        let silent = silent_after(lab, "")?;
        lab.b.audit().expect_denied("inbound", "first_byte_timeout")?;
        drop(silent);
        let half = silent_after(lab, HELLO)?;
        lab.b.audit().expect_denied("inbound", "handshake_timeout")?;
        drop(half);
        ensure!(!echo.said().contains("accept="), "the server saw: {}", echo.said());
        Ok(())
    })
}

/// One connection is open; the next one is one too many.
fn one_too_many(limit: &str, reason: &str) -> Result<()> {
    let rules = Rules::client_calls_server().proxy(limit);
    Lab::check(&rules, |lab| {
        let echo = lab.echo(7000)?;
        let held = lab.client().spawn(probe()?, &["talk", &to(lab), "--hold", "60000"])?;
        // What was sent may still wait in the proxy; whom the server sees has his place.
        echo.says("accept=")?;
        ensure!(talk(&lab.client(), &to(lab))?.failed(), "there was room");
        let record = lab.a.audit().expect_denied("outbound", reason)?;
        ensure!(record.field("process.uid") == uid::CLIENT.to_string(), "{}", record.json());
        drop(held);
        let again = || talk(&lab.client(), &to(lab)).ok().filter(|said| !said.failed());
        eventually("room again", again)?;
        Ok(())
    })
}

#[test]
fn workload_limit() -> Result<()> {
    one_too_many("max_connections_per_workload = 1", "workload_limit")
}

#[test]
fn node_limit() -> Result<()> {
    one_too_many("max_connections = 1\nmax_connections_per_workload = 1", "node_limit")
}

#[test]
fn daemon_absent() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let echo = lab.echo(7000)?;
        lab.a.crash()?;
        lab.b.crash()?;
        // Longer than a dead daemon counts as alive.
        sleep(Duration::from_secs(6));
        let said = talk(&lab.client(), &to(lab))?;
        ensure!(said.stdout.contains("not_permitted"), "{said:?}");
        let dial = ["-sS", "-m", "2", &format!("telnet://{}", to(lab))];
        ensure!(outsider(lab).run("curl", &dial)?.failed());
        ensure!(!echo.said().contains("accept="), "the server saw: {}", echo.said());
        lab.a.start()?;
        lab.b.start()?;
        let record = lab.a.audit().expect_denied("outbound", "daemon_absent")?;
        ensure!(record.field("process.uid") == uid::CLIENT.to_string(), "{}", record.json());
        lab.b.audit().expect_denied("inbound", "daemon_absent")?;
        Ok(())
    })
}

/// A connection that was opened in no scope is carried into a strict one.
#[test]
fn backstop() -> Result<()> {
    let script = format!(
        "import os, socket, sys\n\
         s = socket.create_connection((sys.argv[1], 7000))\n\
         s.sendall(b'before-it-moved')\n\
         open(sys.argv[2] + '/cgroup.procs', 'w').write(str(os.getpid()))\n\
         s.getpeername()\n\
         s.sendall(b'{MARKER}')\n\
         s.settimeout(3)\n\
         try:\n    while s.recv(100): pass\n\
         except ConnectionError: print('reset=')\n"
    );
    Lab::check(&Rules::client_calls_server(), |lab| {
        let plain = lab.b.pod(Group::Outside, uid::SERVER);
        let _echo = plain.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        let strict = lab.a.group(Group::Strict);
        let capture = lab.a.capture("wire")?;
        let words = ["-c", &script, lab.b.ip, &strict.to_string_lossy()];
        let said = lab.a.pod(Group::Outside, 0).must(PYTHON, &words)?;
        ensure!(said.contains("reset="), "it hung: {said}");
        let packets = capture.stop()?;
        ensure!(packets.contain(b"before-it-moved"), "the capture misses what is there");
        ensure!(!packets.contain(MARKER.as_bytes()), "a strict byte crossed the wire");
        lab.a.audit().expect_denied("outbound", "backstop")?;
        Ok(())
    })
}

/// In a namespace that the daemon does not serve, nobody is steered and nobody gets in.
#[test]
fn strict_listener() -> Result<()> {
    let script = "import os, socket, subprocess, sys\n\
        subprocess.check_call(['ip', 'link', 'set', 'lo', 'up'])\n\
        server = socket.create_server(('127.0.0.1', 7000))\n\
        open(sys.argv[1] + '/cgroup.procs', 'w').write(str(os.getpid()))\n\
        client = socket.socket(); client.settimeout(2)\n\
        try:\n    client.connect(('127.0.0.1', 7000)); print('connected=')\n\
        except OSError as error: print('end=' + type(error).__name__)\n";
    Lab::check(&Rules::client_calls_server(), |lab| {
        let outside = lab.b.group(Group::Outside);
        let words = ["--net", PYTHON, "-c", script, &outside.to_string_lossy()];
        let said = lab.b.pod(Group::Strict, 0).must("unshare", &words)?;
        ensure!(!said.contains("connected="), "{said}");
        lab.b.audit().expect_denied("inbound", "strict_listener")?;
        Ok(())
    })
}

/// A strict socket is carried out of its scope and used there.
#[test]
fn foreign_socket() -> Result<()> {
    let script = "import os, socket, sys\n\
        s = socket.socket()\n\
        open(sys.argv[2] + '/cgroup.procs', 'w').write(str(os.getpid()))\n\
        if sys.argv[3] == 'bound': s.bind(('0.0.0.0', 0))\n\
        s.connect((sys.argv[1], 7000))\n";
    Lab::check(&Rules::client_calls_server(), |lab| {
        let plain = lab.b.pod(Group::Outside, uid::SERVER);
        let _echo = plain.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        // A bind on the way does not make it another scope's.
        for (group, how) in [(Group::Outside, "new"), (Group::Permissive, "bound")] {
            let elsewhere = lab.a.group(group);
            let words = ["-c", script, lab.b.ip, &elsewhere.to_string_lossy(), how];
            let said = lab.a.pod(Group::Strict, 0).run(PYTHON, &words)?;
            ensure!(said.stderr.contains("PermissionError"), "{how}: {said:?}");
        }
        let refused = || {
            let records = lab.a.audit().closed("outbound");
            let count = records.iter().filter(|it| it.field("reason") == "foreign_socket").count();
            (count == 2).then_some(())
        };
        eventually("two records", refused)
    })
}

/// No route leads there, and so none through the device.
#[test]
fn bound_device() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let words = ["talk", "203.0.113.7:7000", "--device", "veth0"];
        ensure!(lab.client().run(probe()?, &words)?.failed());
        lab.a.audit().expect_denied("outbound", "bound_device")?;
        Ok(())
    })
}

/// A listener on a device cannot be dialled over loopback: closed where strict, untouched else.
#[test]
fn a_listener_on_a_device() -> Result<()> {
    let script = "import socket\ns = socket.socket()\n\
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'veth0')\n\
        s.bind(('0.0.0.0', 7000)); s.listen()\nprint('listening=', flush=True)\n\
        while True:\n    c, _ = s.accept(); c.sendall(c.recv(100)); c.close()\n";
    Lab::check(&Rules::client_calls_server(), |lab| {
        let mut strict = lab.b.pod(Group::Strict, 0).serve(PYTHON, &["-c", script], 7000)?;
        let dial = ["-sS", "-m", "2", &format!("telnet://{}", to(lab))];
        ensure!(outsider(lab).run("curl", &dial)?.failed());
        lab.b.audit().expect_denied("inbound", "bound_device")?;
        strict.kill();
        let permissive = lab.b.pod(Group::Permissive, 0);
        let _permissive = permissive.serve(PYTHON, &["-c", script], 7000)?;
        talk(&outsider(lab), &to(lab))?.ok().context("permissive")?;
        Ok(())
    })
}

/// With nothing else to say (a connection without a record is dropped before the daemon sees it).
#[test]
fn proxy_dialled() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let port = lab.a.proxy_ports()?.first().copied().context("no port")?;
        ensure!(talk(&outsider(lab), &format!("127.0.0.1:{port}"))?.failed());
        let record = lab.a.audit().expect_denied("outbound", "proxy_dialled")?;
        ensure!(record.field("process.uid") == uid::STRANGER.to_string(), "{}", record.json());
        Ok(())
    })
}

/// Root's credentials, kept in a ring, in the hands of a process that is root no more.
#[test]
fn borrowed_credentials() -> Result<()> {
    let rules = Rules::client_calls_server().also("client", &["unix:uid:0"]);
    Lab::check(&rules, |lab| {
        let echo = lab.echo(7000)?;
        let root = lab.a.pod(Group::Strict, 0);
        root.must(probe()?, &["talk", &to(lab), "--how", "io-uring"])?;
        let said = root.run(probe()?, &["talk", &to(lab), "--how", "personality"])?;
        ensure!(said.stdout.contains("not_permitted"), "{said:?}");
        lab.a.audit().expect_denied("outbound", "borrowed_credentials")?;
        ensure!(echo.said().matches("accept=").count() == 1, "the server saw: {}", echo.said());
        Ok(())
    })
}
