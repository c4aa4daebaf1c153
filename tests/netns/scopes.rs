//! Where a scope begins and ends: cgroups that are made anew, sockets of other namespaces.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use harness::{Group, Lab, Pod, Rules, eventually, probe, uid};

const MARKER: &str = "c0ffee-of-the-new-cgroup";

/// Removes the cgroup of the strict scope, makes it again and connects at once, in one process:
/// nobody has had the time to tell the kernel anything.
fn connect_in_new_cgroup(lab: &Lab) -> Result<harness::Finished> {
    let group = lab.a.group(Group::Strict);
    eventually("an empty cgroup", || fs::remove_dir(&group).ok())?;
    let script = format!(
        "mkdir {group} && echo 0 >{group}/cgroup.procs && \
         exec setpriv --clear-groups --reuid={user} --regid={user} {probe} talk {ip}:7000 \
         --text {MARKER}",
        group = group.display(),
        user = uid::CLIENT,
        probe = probe()?.display(),
        ip = lab.b.ip,
    );
    lab.a.in_netns("sh", &["-c", &script])
}

#[test]
fn a_cgroup_made_again_is_strict_from_its_first_connect() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        // A server that would take plaintext gladly.
        let plain = lab.b.pod(Group::Outside, uid::SERVER);
        let echo = plain.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        for round in 0..3 {
            let capture = lab.a.capture("wire")?;
            if round == 2 {
                lab.a.crash()?;
            }
            let said = connect_in_new_cgroup(lab)?;
            let packets = capture.stop()?;
            ensure!(said.failed(), "round {round}: it got through: {said:?}");
            ensure!(!packets.contain(MARKER.as_bytes()), "round {round}: plaintext leaked");
        }
        ensure!(!echo.said().contains("bytes=24"), "the server saw: {}", echo.said());
        drop(echo);
        lab.a.start()?;
        let _echo = lab.echo(7000)?;
        connect_in_new_cgroup(lab)?.ok().context("protected, in a new cgroup")?;
        Ok(())
    })
}

#[test]
fn a_cgroup_made_again_and_again_keeps_no_other_scope_out() -> Result<()> {
    // More often than the programs can hold scopes, with the daemon there and without.
    Lab::check(&Rules::client_calls_server(), |lab| {
        let plain = lab.b.pod(Group::Outside, uid::SERVER);
        let _echo = plain.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        let churned = lab.a.group(Group::Permissive);
        for daemon in [true, false] {
            if !daemon {
                lab.a.crash()?;
            }
            for _ in 0..3000 {
                fs::remove_dir(&churned)?;
                fs::create_dir(&churned)?;
            }
            let said = lab.a.logged();
            ensure!(!said.contains("scopes stay as they were"), "{said}");
            let capture = lab.a.capture("wire")?;
            let said = connect_in_new_cgroup(lab)?;
            let packets = capture.stop()?;
            ensure!(said.failed(), "daemon {daemon}: it got through: {said:?}");
            ensure!(!packets.contain(MARKER.as_bytes()), "daemon {daemon}: plaintext leaked");
        }
        lab.a.start()?;
        ensure!(lab.a.ask(&["scopes"])?.contains("strict"));
        Ok(())
    })
}

/// Client and server in a network namespace of their own, to which no daemon listens.
fn in_another_namespace(pod: &Pod) -> Result<harness::Finished> {
    let script = format!(
        "ip link set lo up; {probe} serve echo 127.0.0.1:7000 & server=$!; \
         for i in 1 2 3 4 5 6 7 8 9 10; do ss -Hltn | grep -q :7000 && break; sleep 0.1; done; \
         {probe} talk 127.0.0.1:7000; ended=$?; kill $server; exit $ended",
        probe = probe()?.display()
    );
    pod.run("unshare", &["--net", "sh", "-c", &script])
}

#[test]
fn a_socket_of_another_namespace_is_refused_where_strict() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let said = in_another_namespace(&lab.a.pod(Group::Strict, 0))?;
        ensure!(said.failed(), "it got through: {said:?}");
        let record = lab.a.audit().expect_denied("outbound", "foreign_netns")?;
        ensure!(record.field("peer.address") == "127.0.0.1:7000", "{}", record.json());
        in_another_namespace(&lab.a.pod(Group::Permissive, 0))?.ok()?;
        Ok(())
    })
}

/// At the root of the hierarchy, as by default: the scope is captured, and nobody else on the host is
/// touched, not even on the ports that the daemon has in its own namespace.
#[test]
fn attached_at_the_root_it_touches_its_scopes_alone() -> Result<()> {
    let rules = Rules::client_calls_server().at_the_root();
    Lab::check(&rules, |lab| {
        let _echo = lab.echo(7000)?;
        let to = format!("{}:7000", lab.b.ip);
        lab.client().must(probe()?, &["talk", &to, "--text", MARKER])?;
        lab.a.audit().expect_completed("outbound")?;
        lab.b.audit().expect_completed("inbound")?;
        // In a namespace of its own, in no scope.
        let script = format!(
            "ip link set lo up; {probe} serve echo 127.0.0.1:15001 & server=$!; \
             for i in 1 2 3 4 5 6 7 8 9 10; do ss -Hltn | grep -q :15001 && break; sleep 0.1; done; \
             {probe} talk 127.0.0.1:15001; ended=$?; kill $server; exit $ended",
            probe = probe()?.display()
        );
        lab.a.pod(Group::Outside, 0).must("unshare", &["--net", "sh", "-c", &script])?;
        Ok(())
    })
}

/// The programs follow the configuration to another cgroup; at the old one nothing is left.
#[test]
fn another_cgroup_to_attach_at_is_taken_up_at_the_restart() -> Result<()> {
    Lab::check(&Rules::client_calls_server().attached_below("permissive"), |lab| {
        let plain = lab.b.pod(Group::Outside, uid::SERVER);
        let _echo = plain.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        let to = format!("{}:7000", lab.b.ip);
        let talk = || lab.client().run(probe()?, &["talk", &to, "--text", MARKER]);
        talk()?.ok().context("the strict scope lies elsewhere")?;
        lab.a.stop();
        lab.a.configure(&Rules::client_calls_server())?;
        lab.a.start()?;
        let capture = lab.a.capture("wire")?;
        ensure!(talk()?.failed(), "the programs stayed where they were");
        ensure!(!capture.stop()?.contain(MARKER.as_bytes()), "plaintext leaked");
        let said = lab.a.ask(&["doctor"])?;
        ensure!(!said.contains("not attached"), "{said}");
        Ok(())
    })
}

/// Inbound over a link-local address cannot be carried: closed where strict, untouched else.
#[test]
fn a_link_local_address_is_dialled() -> Result<()> {
    let script = "import socket, sys\ns = socket.socket(socket.AF_INET6)\ns.settimeout(3)\n\
        s.connect((sys.argv[1], int(sys.argv[2]), 0, socket.if_nametoindex('veth0')))\n\
        s.sendall(b'hello'); s.shutdown(socket.SHUT_WR); print('got=%d' % len(s.recv(100)))\n";
    Lab::check(&Rules::client_calls_server(), |lab| {
        let strict = lab.b.pod(Group::Strict, uid::SERVER);
        let _strict = strict.serve(probe()?, &["serve", "echo", "[::]:7000"], 7000)?;
        let permissive = lab.b.pod(Group::Permissive, uid::SERVER);
        let _permissive = permissive.serve(probe()?, &["serve", "echo", "[::]:7001"], 7001)?;
        let shown =
            lab.b.in_netns("ip", &["-6", "-o", "addr", "show", "dev", "veth0", "scope", "link"])?;
        let address = shown.stdout.split_whitespace().nth(3).context("no link-local address")?;
        let address = address.split('/').next().unwrap_or_default().to_owned();
        let outsider = lab.a.pod(Group::Outside, uid::STRANGER);
        let dial = |port| outsider.run("/usr/bin/python3", &["-c", script, &address, port]);
        ensure!(dial("7000")?.failed(), "the strict one answered");
        lab.b.audit().expect_denied("inbound", "link_local")?;
        ensure!(dial("7001")?.ok()?.contains("got=5"));
        Ok(())
    })
}
