//! Tables of the programs that are full: what needs an entry is refused, said and counted, nobody
//! else loses his, and with room again all goes on.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{Finished, Group, Lab, Node, Rules, eventually, probe, uid};

const PYTHON: &str = "/usr/bin/python3";

/// Fills a pinned hash map with entries of nobody, or takes them out again (Linux 5.6:
/// `BPF_MAP_UPDATE_BATCH`, `BPF_MAP_DELETE_BATCH`; `BPF_OBJ_GET` opens it).
const FILL: &str = r#"
import ctypes, os, struct, sys
path, key, value, count, fill = sys.argv[1].encode(), *map(int, sys.argv[2:5]), sys.argv[5] == "fill"
libc = ctypes.CDLL(None, use_errno=True)
def bpf(command, attributes):
    room = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    done = libc.syscall(321, command, room, 128)
    return done, os.strerror(ctypes.get_errno()), room
name = ctypes.create_string_buffer(path)
fd, error, _ = bpf(7, struct.pack("QII", ctypes.addressof(name), 0, 0))
if fd < 0: sys.exit(f"{path}: {error}")
keys = ctypes.create_string_buffer(b"".join(struct.pack("Q", n + 1).ljust(key, b"\xee") for n in range(count)), key * count)
values = ctypes.create_string_buffer(value * count)
batch = struct.pack("QQQQIIQQ", 0, 0, ctypes.addressof(keys), ctypes.addressof(values), count, fd, 0, 0)
done, error, room = bpf(26 if fill else 27, batch)
print("entries=%d" % struct.unpack_from("I", room.raw, 32)[0], error if done else "")
"#;

/// A map, the sizes of its keys and values in bytes, and how many entries it has room for.
struct Table(&'static str, usize, usize, usize);

const FLOWS: Table = Table("FLOWS", 48, 144, 65_536);
const TRUTHS: Table = Table("TRUTHS", 48, 144, 65_536);
const DIALS: Table = Table("DIALS", 48, 96, 262_144);
const SCOPE_PATHS: Table = Table("SCOPE_PATHS", 256, 72, 2048);

impl Table {
    fn change(&self, node: &Node, what: &str) -> Result<()> {
        let Self(name, key, value, count) = self;
        let version = fs::read_dir(node.pins())?.next().context("nothing is pinned")??.path();
        let map: PathBuf = version.join("maps").join(name);
        let mut command = Command::new(PYTHON);
        command.args(["-c", FILL]).arg(map);
        command.args([key, value, count].map(usize::to_string)).arg(what);
        let done = command.output()?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    }
}

fn talk(lab: &Lab, how: &str) -> Result<Finished> {
    lab.client().run(probe()?, &["talk", &format!("{}:7000", lab.b.ip), "--how", how])
}

/// With the table of this node full, the client's connection is refused and recorded by it.
fn refused(table: &Table, direction: &str, how: &str) -> Result<()> {
    let rules = Rules::client_calls_server().proxy("connect_timeout = \"2s\"");
    Lab::check(&rules, |lab| {
        let echo = lab.echo(7000)?;
        talk(lab, how)?.ok()?;
        let served = echo.said().matches("accept=").count();
        let node = if direction == "outbound" { &lab.a } else { &lab.b };
        table.change(node, "fill")?;
        let capture = lab.a.capture("wire")?;
        ensure!(talk(lab, how)?.failed(), "there was room");
        ensure!(!capture.stop()?.contain(b"hello"), "plaintext crossed the wire");
        let record = node.audit().expect_denied(direction, "map_full")?;
        let address = if direction == "outbound" { "peer.address" } else { "local.address" };
        ensure!(record.field(address) == format!("{}:7000", lab.b.ip), "{}", record.json());
        let full = "tacit_kernel_decisions_total{decision=\"map_full\"}";
        eventually("the count", || node.metric(full).ok().filter(|count| *count > 0))?;
        ensure!(echo.said().matches("accept=").count() == served, "{}", echo.said());
        table.change(node, "empty")?;
        talk(lab, how)?.ok().context("with room again")?;
        Ok(())
    })
}

#[test]
fn flows() -> Result<()> {
    refused(&FLOWS, "outbound", "plain")
}

#[test]
fn truths() -> Result<()> {
    refused(&TRUTHS, "outbound", "mptcp")
}

#[test]
fn dials() -> Result<()> {
    refused(&DIALS, "inbound", "plain")
}

/// A daemon that cannot keep up with the denials: the ring is full, what found no room is counted,
/// what found some is summed up, and others are still told of.
#[test]
fn events() -> Result<()> {
    let script = "import socket\nrefused = 0\n\
        for _ in range(9000):\n    \
            s = socket.socket()\n    \
            try: s.connect(('203.0.113.9', 9))\n    \
            except PermissionError: refused += 1\n    \
            s.close()\n\
        print('refused=%d' % refused)\n";
    Lab::check(&Rules::client_calls_server(), |lab| {
        let open = lab.b.pod(Group::Observe, uid::SERVER);
        let _served = open.serve(probe()?, &["serve", "echo", "0.0.0.0:7070"], 7070)?;
        let address = format!("{}:7070", lab.b.ip);
        let held = ["talk", &address, "--hold", "600000"];
        let mut held = lab.a.pod(Group::Observe, uid::CLIENT).spawn(probe()?, &held)?;
        let listed = || lab.a.ask(&["connections"]).ok().filter(|said| said.contains(&address));
        eventually("the held connection in the list", listed)?;
        lab.a.pause()?;
        // Longer than it counts as alive.
        sleep(Duration::from_secs(6));
        let stranger = lab.a.pod(Group::Strict, uid::STRANGER);
        ensure!(stranger.must(PYTHON, &["-c", script])?.contains("refused=9000"));
        // The ring is full: nobody is told that this one ends.
        held.kill();
        lab.a.resume()?;
        let daemon = |reason: &'static str| {
            let of = move |it: &harness::Record| it.field("reason") == reason;
            harness::soon(Duration::from_secs(40), reason, || {
                lab.a.audit().records().into_iter().find(of)
            })
        };
        let lost = daemon("events_lost")?.field("detail");
        ensure!(lost.split(' ').next().and_then(|n| n.parse::<u32>().ok()) > Some(1000), "{lost}");
        let more = daemon("denials_summed_up")?.field("detail");
        ensure!(more.contains("daemon_absent"), "{more}");
        let unseen = |it: &harness::Record| it.field("peer.address") == address;
        let unseen = lab.a.audit().expect("outbound", unseen)?;
        ensure!(unseen.field("outcome") == "interrupted", "{}", unseen.json());
        ensure!(unseen.field("detail").contains("events of the programs were lost"));
        ensure!(!lab.a.ask(&["connections"])?.contains(&address), "it is still listed");
        let each = lab.a.audit().closed("outbound");
        let each = each.iter().filter(|it| it.field("reason") == "daemon_absent").count();
        ensure!((1..=200).contains(&each), "{each} records of one cause");
        let _echo = lab.echo(7000)?;
        talk(lab, "plain")?.ok()?;
        Ok(())
    })
}

/// Scopes that the kernel does not take are not in force in part, and are taken up once they can be.
#[test]
fn scopes() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let plain = lab.b.pod(Group::Outside, uid::SERVER);
        let echo = plain.serve(probe()?, &["serve", "echo", "0.0.0.0:7000"], 7000)?;
        let cgroup = lab.a.cgroup();
        let before = fs::read_to_string(lab.a.config())?;
        let strict = format!("cgroup = \"{cgroup}/strict\"\nmode = \"strict\"");
        let observed = format!("cgroup = \"{cgroup}/strict\"\nmode = \"observe\"");
        let mut after = before.replace(&strict, &observed);
        ensure!(after != before, "{before}");
        write!(after, "\n[[scope]]\ncgroup = \"{cgroup}/new\"\nmode = \"strict\"\n")?;
        SCOPE_PATHS.change(&lab.a, "fill")?;
        fs::write(lab.a.config(), &after)?;
        let socket = lab.a.socket().display().to_string();
        let refused = lab.a.tacit(&["reload", "--socket", &socket])?;
        ensure!(refused.failed(), "there was room: {refused:?}");
        let told = format!("{}{}", refused.stdout, refused.stderr);
        ensure!(told.contains("does not take the scopes"), "{told}");
        let stranger = lab.a.pod(Group::Strict, uid::STRANGER);
        let dial = || stranger.run(probe()?, &["talk", &format!("{}:7000", lab.b.ip)]);
        ensure!(dial()?.failed() && !echo.said().contains("accept="), "half of it is in force");
        // What was in force is written again by itself, which makes room.
        let taken = || lab.a.tacit(&["reload", "--socket", &socket]).ok().filter(|it| !it.failed());
        eventually("a configuration that is taken up", taken)?;
        dial()?.ok().context("observed now")?;
        echo.says("accept=")?;
        Ok(())
    })
}
