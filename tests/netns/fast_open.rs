//! TCP Fast Open where it could get around the daemon: data in a SYN to a captured server, and a
//! `connect()` that sends nothing until the first write, when the scope has become a strict one.
//!
//! Whoever has a cookie of a host may send data in a SYN to any of its ports; each test first shows
//! that it has one, by a server in no scope that does take the data.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{
    Finished, Group, Lab, Node, Pod, Rules, Seen, Server, eventually, probe, protected, uid,
};

const PYTHON: &str = "/usr/bin/python3";
const MARKER: &str = "c0ffee-in-a-syn";

/// `connect()` with `TCP_FASTOPEN_CONNECT` (30), which with a cookie sends nothing; writes when the
/// file is there.
const DEFERRED: &str = r#"
import os, socket, sys, time
host, flag, text = sys.argv[1:4]
s = socket.socket()
s.setsockopt(socket.IPPROTO_TCP, 30, 1)
s.connect((host, 7001))
print("connected=", flush=True)
while not os.path.exists(flag): time.sleep(0.05)
s.settimeout(10)
try:
    s.sendall(text.encode()); s.shutdown(socket.SHUT_WR)
    print("got=%d" % len(s.recv(100)))
except OSError as error:
    print("end=" + type(error).__name__)
"#;

/// Clients and servers of both nodes may use Fast Open (ip-sysctl: `tcp_fastopen`, bits 0 and 1).
fn allow(lab: &Lab) -> Result<()> {
    for node in [&lab.a, &lab.b] {
        node.in_netns("sh", &["-c", "echo 3 >/proc/sys/net/ipv4/tcp_fastopen"])?.ok()?;
    }
    Ok(())
}

/// A counter of the node's TCP.
fn counter(node: &Node, name: &str) -> Result<u64> {
    let said = node.in_netns("nstat", &["-asz", name])?;
    let value =
        said.ok()?.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next());
    value.and_then(|value| value.parse().ok()).with_context(|| format!("no {name}: {said:?}"))
}

fn serve(pod: &Pod, port: u16) -> Result<Server> {
    let address = format!("[::]:{port}");
    pod.serve(probe()?, &["serve", "echo", &address, "--fast-open"], port)
}

fn talk(pod: &Pod, lab: &Lab, port: u16) -> Result<Finished> {
    let to = format!("{}:{port}", lab.b.ip);
    pod.run(probe()?, &["talk", &to, "--how", "fast-open", "--text", MARKER])
}

/// Lets the pod have a cookie of node b and shows that it is worth something.
fn get_cookie(lab: &Lab, pod: &Pod) -> Result<()> {
    let before = counter(&lab.b, "TcpExtTCPFastOpenPassive")?;
    for _ in 0..2 {
        talk(pod, lab, 7001)?.ok().context("without Tacit")?;
    }
    let taken = counter(&lab.b, "TcpExtTCPFastOpenPassive")? - before;
    ensure!(taken > 0, "no data was taken from a SYN: the test proves nothing");
    Ok(())
}

#[test]
fn data_in_a_syn_does_not_reach_a_captured_server() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        allow(lab)?;
        let _open = serve(&lab.b.pod(Group::Outside, uid::SERVER), 7001)?;
        let strict = serve(&lab.server(), 7000)?;
        let permissive = serve(&lab.b.pod(Group::Permissive, uid::STRANGER), 7002)?;
        for _ in 0..2 {
            protected(lab, MARKER, || {
                Seen::by_probes(talk(&lab.client(), lab, 7000)?.ok()?, &strict)
            })?;
        }
        let served = strict.said().matches("accept=").count();
        let outsiders = [&lab.a, &lab.b].map(|node| node.pod(Group::Outside, uid::STRANGER));
        for outsider in &outsiders {
            get_cookie(lab, outsider)?;
            ensure!(talk(outsider, lab, 7000)?.failed(), "plaintext was answered");
            talk(outsider, lab, 7002)?.ok().context("permissive")?;
        }
        lab.b.audit().expect_denied("inbound", "plaintext_refused")?;
        let record = lab.b.audit().expect("inbound", |it| it.field("mode") == "permissive")?;
        ensure!(record.field("outcome") == "completed", "{}", record.json());
        ensure!(record.field("protection") == "plaintext", "{}", record.json());
        ensure!(permissive.said().contains(&format!("bytes={} end=eof", MARKER.len())));
        lab.b.crash()?;
        // Longer than it counts as alive.
        sleep(Duration::from_secs(6));
        for outsider in &outsiders {
            get_cookie(lab, outsider)?;
            let to = format!("{}:7000", lab.b.ip);
            let probe = probe()?.to_string_lossy().into_owned();
            let words = ["4", &probe, "talk", &to, "--how", "fast-open"];
            ensure!(outsider.run("timeout", &words)?.failed(), "a dead node's listener answered");
        }
        ensure!(strict.said().matches("accept=").count() == served, "it saw: {}", strict.said());
        Ok(())
    })
}

/// Starts a `connect()` in the observed scope; its write waits for the file that is given back.
fn defer(lab: &Lab, text: &str) -> Result<(Server, std::path::PathBuf)> {
    let flag = lab.dir().join(text);
    let words = ["-c", DEFERRED, lab.b.ip, &flag.to_string_lossy(), text];
    let client = lab.a.pod(Group::Observe, uid::CLIENT).spawn(PYTHON, &words)?;
    client.says("connected=")?;
    Ok((client, flag))
}

#[test]
fn what_a_scope_that_is_strict_by_now_writes_does_not_leave() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        allow(lab)?;
        let open = serve(&lab.b.pod(Group::Outside, uid::SERVER), 7001)?;
        let observed = lab.a.pod(Group::Observe, uid::CLIENT);
        get_cookie(lab, &observed)?;
        let capture = lab.a.capture("wire")?;
        let (mut client, flag) = defer(lab, "of-the-observed")?;
        std::fs::write(flag, b"")?;
        ensure!(client.wait()?.success() && client.said().contains("got=15"), "{}", client.said());
        ensure!(capture.stop()?.contain(b"of-the-observed"), "the capture misses what is there");

        let served = open.said().matches("accept=").count();
        let (mut client, flag) = defer(lab, MARKER)?;
        lab.a.configure(&Rules::client_calls_server().turned_strict(Group::Observe))?;
        let stranger = lab.a.pod(Group::Observe, uid::STRANGER);
        let closed = || talk(&stranger, lab, 7001).ok().filter(Finished::failed);
        let served_meanwhile = || open.said().matches("accept=").count();
        eventually("the strict scope", closed)?;
        let before = served_meanwhile();
        ensure!(before >= served, "{}", open.said());
        let capture = lab.a.capture("wire")?;
        std::fs::write(flag, b"")?;
        ensure!(client.wait()?.success(), "{}", client.said());
        ensure!(client.said().contains("end="), "it got through: {}", client.said());
        ensure!(!capture.stop()?.contain(MARKER.as_bytes()), "a strict byte crossed the wire");
        ensure!(served_meanwhile() == before, "the server saw: {}", open.said());
        let record = lab.a.audit().expect_denied("outbound", "backstop")?;
        ensure!(record.field("process.uid") == uid::CLIENT.to_string(), "{}", record.json());
        Ok(())
    })
}
