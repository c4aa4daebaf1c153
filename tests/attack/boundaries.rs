//! What is known to get around, and is said to do so in SECURITY.md, in the same words. Each is
//! seen to work: a boundary that no longer is one is to be struck out there.

use anyhow::{Result, ensure};
use harness::{Group, Lab, Rules, uid};

use crate::row::{Row, Score, Who};
use crate::tricks::{self, Leak, tried};

/// A script that gets a marker of a strict program of this user onto the wire.
fn leaks(
    lab: &Lab,
    row: Row,
    words: &'static str,
    script: &'static str,
    how: &'static str,
    user: u32,
) -> Result<()> {
    let leak = Leak::new(row, move |lab, marker| {
        tricks::run(&lab.a.pod(Group::Strict, user), script, &[marker, how])
    });
    let seen = tried(lab, &[leak], how)?;
    let hit = seen.iter().any(|it| it.0);
    ensure!(hit, "{}: nothing on the wire: {seen:?}", row.trick);
    row.boundary(Score::once(hit), words)
}

#[test]
fn packets_below_ip() -> Result<()> {
    let row = Row { who: Who::Root, trick: "packet socket" };
    Lab::check(&Rules::client_calls_server(), |lab| {
        let script = include_str!("tricks/around.py");
        leaks(lab, row, "packets below IP (`AF_PACKET`)", script, "packet", 0)
    })
}

#[test]
fn injected_packets() -> Result<()> {
    let row = Row { who: Who::Root, trick: "packets written to a TUN device and forwarded" };
    Lab::check(&Rules::client_calls_server(), |lab| {
        lab.a.in_netns("sysctl", &["-qw", "net.ipv4.ip_forward=1"])?.ok()?;
        let script = include_str!("tricks/around.py");
        leaks(lab, row, "CAP_NET_ADMIN", script, "tun", 0)
    })
}

#[test]
fn questions_for_names() -> Result<()> {
    let row = Row { who: Who::Strict, trick: "any bytes as UDP to port 53" };
    Lab::check(&Rules::client_calls_server(), |lab| {
        let script = include_str!("tricks/datagram.py");
        leaks(lab, row, "**UDP to port 53**", script, "dns", uid::CLIENT)
    })
}

/// A helper in no scope that sends on what it is given.
#[test]
fn helpers_outside_the_scope() -> Result<()> {
    let rows = [
        ("helper in no scope over a Unix socket", "unix"),
        ("helper in no scope over loopback UDP", "udp"),
        ("connection opened by a helper in no scope and passed in", "passed"),
    ];
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _server = tricks::plain_server(lab)?;
        let strict = lab.a.group(Group::Strict).to_string_lossy().into_owned();
        for (trick, how) in rows {
            let row = Row { who: Who::Strict, trick };
            let strict = strict.clone();
            let leak = Leak::new(row, move |lab, marker| {
                let words = [marker, how, &strict, &uid::CLIENT.to_string()];
                tricks::run(&lab.a.pod(Group::Outside, 0), include_str!("tricks/helped.py"), &words)
            });
            let seen = tried(lab, &[leak], how)?;
            let hit = seen.iter().any(|it| it.0);
            ensure!(hit, "{trick}: {seen:?}");
            row.boundary(Score::once(hit), "a helper outside the scope")?;
        }
        Ok(())
    })
}

#[test]
fn virtual_sockets() -> Result<()> {
    let row = Row { who: Who::Strict, trick: "vsock to a program in no scope" };
    Lab::check(&Rules::client_calls_server(), |lab| {
        let script = include_str!("tricks/around.py");
        let outsider = lab.a.pod(Group::Outside, uid::STRANGER);
        let helper = tricks::spawn(&outsider, script, &["", "vsock-serve"])?;
        let said = tricks::run(&lab.client(), script, &["of-the-strict", "vsock"])?;
        if said.failed() {
            // Without vsock_loopback only a hypervisor is on the other side.
            let refused = ["ETIMEDOUT", "ENODEV", "ECONNRESET"].map(|it| said.stdout.contains(it));
            ensure!(refused.contains(&true), "{said:?}");
            return row.absent("this kernel has no loopback for vsock", "**vsock");
        }
        helper.says("got=of-the-strict")?;
        row.boundary(Score::once(true), "**vsock")
    })
}

/// No hook runs when a listener changes hands: the first call on it tells.
#[test]
fn a_listener_that_is_handed_over() -> Result<()> {
    let trick = "plaintext to a listener that was just handed over (socket activation)";
    let row = Row { who: Who::Wire, trick };
    Lab::check(&Rules::client_calls_server(), |lab| {
        let strict = lab.b.group(Group::Strict).to_string_lossy().into_owned();
        let script = include_str!("tricks/activated.py");
        let words = [&*strict, &*uid::SERVER.to_string()];
        let server = tricks::spawn(&lab.b.pod(Group::Outside, 0), script, &words)?;
        let words = ["plain-passed-in", "plain", lab.b.ip, "7000", "0"];
        let outsider = lab.a.pod(Group::Outside, uid::STRANGER);
        let _said = tricks::run(&outsider, include_str!("tricks/dial.py"), &words)?;
        ensure!(server.says("got=plain-passed-in").is_ok(), "{}", server.said());
        row.boundary(Score::once(true), "**A listener that is handed to a strict scope**")
    })
}

/// Whoever may write to two cgroups moves between them.
#[test]
fn leaving_the_scope() -> Result<()> {
    let row = Row { who: Who::Strict, trick: "owner of both cgroups leaves the scope" };
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _server = tricks::plain_server(lab)?;
        let leak = Leak::new(row, |lab, marker| {
            let outside = lab.a.group(Group::Outside).to_string_lossy().into_owned();
            let words = [marker, "leave", &outside, &uid::CLIENT.to_string()];
            tricks::run(&lab.a.pod(Group::Strict, 0), include_str!("tricks/helped.py"), &words)
        });
        let seen = tried(lab, &[leak], "leave")?;
        let hit = seen.iter().any(|it| it.0);
        ensure!(hit, "{seen:?}");
        row.boundary(Score::once(hit), "**Leaving the scope**")
    })
}

/// One user's processes are one to each other.
#[test]
fn programs_of_one_user() -> Result<()> {
    let trick = "live connection of the same user stolen by pidfd_getfd";
    let row = Row { who: Who::Strict, trick };
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _echo = lab.echo(7000)?;
        let victim = tricks::spawn(&lab.client(), include_str!("tricks/holds.py"), &[])?;
        let words = [&*victim.pid().to_string(), &victim.value("fd")?];
        let said = tricks::run(&lab.client(), include_str!("tricks/steals.py"), &words)?;
        let hit = said.stdout.contains("worked");
        row.boundary(Score::once(hit), "Programs of one user")
    })
}

/// A program that is trusted by its digest does what its user makes it do.
#[test]
fn a_trusted_program_that_is_traced() -> Result<()> {
    let trick = "trusted program (by digest) that runs its user's script";
    let row = Row { who: Who::Strict, trick };
    Lab::prepared(&Rules::none(), |lab| {
        let sum = lab.a.in_netns("sha256sum", &["/usr/bin/python3"])?;
        let digest = sum.ok()?.split(' ').next().unwrap_or_default().to_owned();
        let rules = Rules::client_calls_server();
        let rules = rules.also("client", &[&format!("unix:sha256:{digest}")]);
        for node in [&lab.a, &lab.b] {
            node.configure(&rules)?;
            node.start()?;
        }
        let _echo = lab.echo(7000)?;
        let stranger = lab.a.pod(Group::Strict, uid::STRANGER);
        let said = tricks::run(&stranger, include_str!("tricks/calls.py"), &["x", "1"])?;
        said.ok()?;
        let record = lab.a.audit().expect_completed("outbound")?;
        let hit = record.field("local.spiffe_id") == harness::client_id();
        row.boundary(Score::once(hit), "the scripts it runs")
    })
}

/// A user with subordinate ids is other users to the kernel: a scope for one user does not hold
/// them.
#[test]
fn subordinate_users() -> Result<()> {
    let trick = "subordinate user id, where the scope is for one user";
    let row = Row { who: Who::Strict, trick };
    Lab::prepared(&Rules::none(), |lab| {
        for node in [&lab.a, &lab.b] {
            node.configure(&Rules::client_calls_server())?;
        }
        let scope = format!(
            "\n[[scope]]\ncgroup = \"{}/outside\"\nmode = \"strict\"\nuser = {}\n",
            lab.a.cgroup(),
            uid::CLIENT
        );
        lab.a.amend(&scope)?;
        lab.a.start()?;
        lab.b.start()?;
        let _server = tricks::plain_server(lab)?;
        let outside = lab.a.pod(Group::Outside, 0);
        let send = |how: &'static str| {
            let outside = outside.clone();
            Leak::new(row, move |_lab: &Lab, marker: &str| {
                let words = [marker, how, &uid::CLIENT.to_string()];
                tricks::run(&outside, include_str!("tricks/subordinate.py"), &words)
            })
        };
        let own = tried(lab, &[send("own")], "own")?;
        ensure!(!own.iter().any(|it| it.0), "the user's own id got out: {own:?}");
        let seen = tried(lab, &[send("subordinate")], "subordinate")?;
        let hit = seen.iter().any(|it| it.0);
        ensure!(hit, "{seen:?}");
        row.boundary(Score::once(hit), "**Subordinate user ids**")
    })
}
