//! Which scope is it? Programs and sockets that change places, to be taken for somebody else's.

use std::fs;

use anyhow::Result;
use harness::{Finished, Group, Lab, Rules, eventually, probe, uid};

use crate::row::{Control, Row, Score, Who};
use crate::tricks::{self, Leak, all_stopped, plain_server};

const PLACES: &str = include_str!("tricks/places.py");

fn path(lab: &Lab, group: Group) -> String {
    lab.a.group(group).to_string_lossy().into_owned()
}

/// A script of places that begins in `from`; it is told where the strict scope and no scope are.
fn places(trick: &'static str, from: Group, how: &'static str) -> Leak<'static> {
    Leak::new(Row { who: Who::Strict, trick }, move |lab, marker| {
        let (strict, outside) = (path(lab, Group::Strict), path(lab, Group::Outside));
        let user = uid::CLIENT.to_string();
        // Root, to be able to move; it becomes the user before it connects.
        let words = [marker, how, &strict, &outside, &user];
        tricks::run(&lab.a.pod(from, 0), PLACES, &words)
    })
}

fn stopped(leaks: &[Leak<'_>], control: Control) -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _server = plain_server(lab)?;
        all_stopped(lab, leaks, control)
    })
}

#[test]
fn sockets_made_elsewhere() -> Result<()> {
    let leaks = [
        places("socket made in no scope, passed in by SCM_RIGHTS", Group::Outside, "passed-in"),
        places("socket made in no scope, moved in with its process", Group::Outside, "moved-in"),
    ];
    stopped(&leaks, Control::Off(&["current"]))
}

#[test]
fn datagram_sockets_made_elsewhere() -> Result<()> {
    let leaks = [places(
        "datagram socket made in no scope, moved in with its process",
        Group::Outside,
        "datagram",
    )];
    stopped(&leaks, Control::Detached(&["tacit_sendmsg4"]))
}

#[test]
fn sockets_taken_elsewhere() -> Result<()> {
    let leaks = [
        places("strict socket passed out to a program in no scope", Group::Strict, "passed-out"),
        places("strict socket moved out with its process", Group::Strict, "moved-out"),
    ];
    stopped(&leaks, Control::Off(&["foreign-socket", "egress"]))
}

#[test]
fn cgroups_below() -> Result<()> {
    let leaks = [
        places("cgroup made below the scope", Group::Strict, "below"),
        places("cgroup below the scope with the name of one in no scope", Group::Strict, "forged"),
    ];
    stopped(&leaks, Control::Off(&["ancestors", "egress"]))
}

/// The socket's namespace counts, not the thread's.
#[test]
fn a_socket_kept_across_namespaces() -> Result<()> {
    let row = Row { who: Who::Strict, trick: "socket kept across unshare() of user and network" };
    let control = Control::Instead("the same in no scope");
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _server = plain_server(lab)?;
        let in_group = |group| {
            Leak::new(row, move |lab: &Lab, marker: &str| {
                let script = include_str!("tricks/unshared.py");
                tricks::run(&lab.a.pod(group, uid::CLIENT), script, &[marker, "kept"])
            })
        };
        let hit = tricks::tried(lab, &[in_group(Group::Strict)], "shipped")?;
        let seen = tricks::tried(lab, &[in_group(Group::Outside)], "control")?;
        let score = |tried: &[(bool, Finished)]| Score::once(tried.iter().any(|it| it.0));
        row.stopped(score(&hit), control, score(&seen))
    })
}

/// In a namespace of one's own, whoever listens where the daemon would gets what is redirected.
#[test]
fn a_namespace_of_ones_own() -> Result<()> {
    let trick = "own network namespace (user namespace), own listener on the proxy's port";
    let row = Row { who: Who::Strict, trick };
    let control = Control::Off(&["connect-netns", "ingress"]);
    Lab::check(&Rules::client_calls_server(), |lab| {
        let harvest = || {
            let script = include_str!("tricks/unshared.py");
            let client = lab.a.pod(Group::Strict, uid::CLIENT);
            let said = tricks::run(&client, script, &["of-the-strict", "harvest"])?;
            Ok::<_, anyhow::Error>(Score::once(said.stdout.contains("harvested=of-the-strict")))
        };
        let score = harvest()?;
        control.apply(&lab.a)?;
        row.stopped(score, control, harvest()?)
    })
}

#[test]
fn the_pid_of_a_dead_daemon() -> Result<()> {
    let row = Row { who: Who::Root, trick: "the pid of the dead daemon (clone3 with set_tid)" };
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _server = plain_server(lab)?;
        let leaks = [Leak::new(row, |lab, marker| {
            let daemon = lab.a.daemon_pid()?.to_string();
            lab.a.crash()?;
            let script = include_str!("tricks/with_pid.py");
            let said = tricks::run(&lab.a.pod(Group::Strict, 0), script, &[marker, &daemon])?;
            lab.a.start()?;
            Ok(said)
        })];
        all_stopped(lab, &leaks, Control::Off(&["daemon-cgroup"]))
    })
}

/// The programs have room for a path of 255 bytes: one that is longer is another one.
#[test]
fn below_the_longest_path() -> Result<()> {
    let trick = "cgroup made below one whose path is as long as a path can be";
    let row = Row { who: Who::Strict, trick };
    Lab::prepared(&Rules::none(), |lab| {
        for node in [&lab.a, &lab.b] {
            node.configure(&Rules::client_calls_server())?;
        }
        let short = format!("{}/outside/", lab.a.cgroup());
        let path = format!("{short}{}", "x".repeat(255 - short.len()));
        let folder = lab.a.group(Group::Outside).join(path.trim_start_matches(&short));
        fs::create_dir(&folder)?;
        lab.a.amend(&format!("\n[[scope]]\ncgroup = \"{path}\"\nmode = \"strict\"\n"))?;
        lab.a.start()?;
        lab.b.start()?;
        let _server = plain_server(lab)?;
        let leaks = [Leak::new(row, |lab, marker| {
            let below = folder.join("below");
            fs::create_dir(&below)?;
            let words = [marker, "moved-out", "", &folder.to_string_lossy()];
            let user = uid::CLIENT.to_string();
            let words = [&words[..], &[&user]].concat();
            let said = tricks::run(&lab.a.pod(Group::Outside, 0), PLACES, &words);
            fs::remove_dir(&below)?;
            said
        })];
        all_stopped(lab, &leaks, Control::Off(&["whole-path"]))
    })
}

/// What a service manager does at each restart, and somebody else may do in a delegated cgroup.
#[test]
fn a_cgroup_that_is_made_again() -> Result<()> {
    let trick = "cgroup of the scope removed and made again while no daemon runs";
    let row = Row { who: Who::Root, trick };
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _server = plain_server(lab)?;
        lab.a.crash()?;
        let strict = lab.a.group(Group::Strict);
        let leaks = [Leak::new(row, |lab, marker| {
            eventually("an empty cgroup", || fs::remove_dir(&strict).ok())?;
            fs::create_dir(&strict)?;
            let address = format!("{}:7000", lab.b.ip);
            lab.client().run(probe()?, &["talk", &address, "--text", marker])
        })];
        all_stopped(lab, &leaks, Control::Detached(&["tacit_cgroup_made"]))
    })
}
