//! Plaintext into a strict listener, from the wire, from the host, and from other namespaces.

use anyhow::{Context as _, Result, ensure};
use harness::{Group, Lab, Node, Pod, Rules, Server, eventually, probe, uid, value};

use crate::row::{Control, Row, Score, Who, compare, times};
use crate::tricks;

const SERVER: &str = include_str!("tricks/server.py");
const DIAL: &str = include_str!("tricks/dial.py");

/// A strict server that says what it gets.
fn strict_server(lab: &Lab, port: u16) -> Result<Server> {
    tricks::spawn(&lab.server(), SERVER, &[&port.to_string()])
}

fn outsider(node: &Node) -> Pod {
    node.pod(Group::Outside, uid::STRANGER)
}

fn set(node: &Node, values: &[&str]) -> Result<()> {
    values.iter().try_for_each(|value| node.in_netns("sysctl", &["-qw", value])?.ok().map(drop))
}

/// A way in which plaintext might reach the server: who, what, from which node, how, to where.
struct Intrusion {
    row: Row,
    from_wire: bool,
    how: &'static str,
    host: &'static str,
}

const fn intrusion(
    trick: &'static str,
    from_wire: bool,
    how: &'static str,
    host: &'static str,
) -> Intrusion {
    let who = if from_wire { Who::Wire } else { Who::Outside };
    Intrusion { row: Row { who, trick }, from_wire, how, host }
}

/// Tries them all as shipped and then with the control on node b; judged by what the server got.
fn all_stopped(lab: &Lab, intrusions: &[Intrusion], control: Control) -> Result<()> {
    let server = strict_server(lab, 7000)?;
    let round = |round: &str| -> Result<Vec<Score>> {
        let mut scores = Vec::new();
        for (at, it) in intrusions.iter().enumerate() {
            let marker = format!("plain-{round}-{at}");
            let node = if it.from_wire { &lab.a } else { &lab.b };
            let words = [&marker, it.how, it.host, "7000", "0"];
            let said = tricks::run(&outsider(node), DIAL, &words)?;
            // What was delivered was echoed, or is said by the server.
            scores.push(Score::once(
                said.stdout.contains(&marker) || server.said().contains(&marker),
            ));
        }
        Ok(scores)
    };
    let before = round("shipped")?;
    control.apply(&lab.b)?;
    let after = round("control")?;
    for ((it, score), seen) in intrusions.iter().zip(before).zip(after) {
        it.row.stopped(score, control, seen)?;
    }
    Ok(())
}

const GUARDS: Control = Control::Detached(&["tacit_lookup", "tacit_ingress", "tacit_egress"]);

#[test]
fn plaintext() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        set(&lab.b, &["net.ipv4.tcp_fastopen=1539"])?;
        let intrusions = [
            intrusion("plaintext to a strict listener", true, "plain", "10.77.0.2"),
            intrusion("plaintext to a strict listener over IPv6", true, "plain", "fd00:77::2"),
            intrusion("plaintext with the SYN (Fast Open)", true, "fast-open", "10.77.0.2"),
            intrusion("plaintext over loopback", false, "plain", "127.0.0.1"),
            intrusion("plaintext over IPv6 loopback", false, "plain", "::1"),
            intrusion("plaintext to the host's own address", false, "plain", "10.77.0.2"),
        ];
        all_stopped(lab, &intrusions, GUARDS)
    })
}

#[test]
fn plaintext_with_syn_cookies() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        set(&lab.b, &["net.ipv4.tcp_syncookies=2"])?;
        let intrusions = [
            intrusion(
                "plaintext where every SYN is answered by a cookie",
                true,
                "plain",
                "10.77.0.2",
            ),
            intrusion("plaintext over loopback, with cookies", false, "plain", "127.0.0.1"),
        ];
        all_stopped(lab, &intrusions, GUARDS)?;
        Ok(())
    })
}

/// `listen()` without `bind()` runs no `post_bind`.
#[test]
fn a_listener_that_was_never_bound() -> Result<()> {
    let row = Row { who: Who::Outside, trick: "plaintext to a strict listener without bind()" };
    Lab::check(&Rules::client_calls_server(), |lab| {
        set(&lab.b, &["net.ipv4.ip_local_port_range=7100 7100"])?;
        let server = tricks::spawn(&lab.server(), include_str!("tricks/unbound.py"), &[])?;
        compare(row, (GUARDS, &lab.b), |round| {
            let marker = format!("plain-{round}");
            let words = [&marker, "plain", "127.0.0.1", "7100", "7099"];
            let _said = tricks::run(&outsider(&lab.b), DIAL, &words)?;
            Ok(Score::once(server.said().contains(&marker)))
        })
    })
}

/// Between the moment at which a socket listens and that at which the programs are told.
#[test]
fn the_moment_before_a_listener_is_known() -> Result<()> {
    let row = Row { who: Who::Outside, trick: "plaintext in the moment after listen()" };
    Lab::check(&Rules::client_calls_server(), |lab| {
        compare(row, (Control::Detached(&["tacit_ingress"]), &lab.b), |round| {
            let mut hammer =
                tricks::spawn(&outsider(&lab.b), include_str!("tricks/hammer.py"), &[])?;
            // The control may stop at its first hit.
            let (count, enough) =
                if round == "shipped" { (times(500, 20_000), "0") } else { (20_000, "1") };
            let words = [&count.to_string(), enough];
            let said = tricks::run(&lab.server(), include_str!("tricks/listens.py"), &words)?;
            let said = said.ok()?;
            hammer.kill();
            let number = |name| value(said, name).and_then(|it| it.parse().ok());
            let (tries, hits) = (number("listens"), number("hits"));
            Ok(Score { tries: tries.context("no count")?, hits: hits.context("no count")? })
        })
    })
}

/// A live connection of the client, and the source port of the daemon's dial that carries it.
fn live_dial(lab: &Lab) -> Result<(Server, u16)> {
    let words = ["talk", &format!("{}:7000", lab.b.ip), "--hold", "60000"];
    let client = lab.client().spawn(probe()?, &words)?;
    let dial = || {
        let said = lab.b.in_netns("ss", &["-Htn", "state", "established", "dport = :7000"]).ok()?;
        let own = said.stdout.lines().find(|line| line.matches(lab.b.ip).count() == 2)?;
        own.split_whitespace().nth(2)?.rsplit(':').next()?.parse().ok()
    };
    let port = eventually("the daemon's dial", dial)?;
    client.says("sent=")?;
    Ok((client, port))
}

#[test]
fn the_source_port_of_a_live_dial() -> Result<()> {
    let trick = "source port shared with a live last-mile dial (IP_LOCAL_PORT_RANGE)";
    let row = Row { who: Who::Outside, trick };
    Lab::check(&Rules::client_calls_server(), |lab| {
        let server = strict_server(lab, 7000)?;
        compare(row, (Control::Off(&["dial-tuple"]), &lab.b), |round| {
            let (_client, port) = live_dial(lab)?;
            let marker = format!("plain-{round}");
            let words = [&marker, "port-range", "127.0.0.1", "7000", &port.to_string()];
            let _said = tricks::run(&outsider(&lab.b), DIAL, &words)?;
            Ok(Score::once(server.said().contains(&marker)))
        })
    })
}

#[test]
fn the_same_dial_in_another_namespace() -> Result<()> {
    let trick = "addresses and ports of a live last-mile dial, in another network namespace";
    let row = Row { who: Who::Root, trick };
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _server = strict_server(lab, 7000)?;
        let (strict, outside) = (lab.b.group(Group::Strict), lab.b.group(Group::Outside));
        compare(row, (Control::Off(&["ingress-netns"]), &lab.b), |round| {
            let (_client, port) = live_dial(lab)?;
            let (marker, port) = (format!("plain-{round}"), port.to_string());
            let words = [&marker, &port, &*strict.to_string_lossy(), &outside.to_string_lossy()];
            let script = include_str!("tricks/other_namespace.py");
            let said = tricks::run(&lab.b.pod(Group::Outside, 0), script, &words)?;
            ensure!(said.stdout.contains("tried"), "{said:?}");
            Ok(Score::once(said.stdout.contains(&format!("got={marker}"))))
        })
    })
}

/// The port changes hands between the moment at which the daemon looked whose it is and its dial.
#[test]
fn a_listener_that_changes_hands() -> Result<()> {
    let trick = "port that changes hands while a client is being admitted";
    let row = Row { who: Who::Outside, trick };
    Lab::check(&Rules::client_calls_server(), |lab| {
        let (strict, outside) = (lab.b.group(Group::Strict), lab.b.group(Group::Outside));
        let users = [uid::SERVER.to_string(), uid::STRANGER.to_string()];
        let words = [&*strict.to_string_lossy(), &users[0], &outside.to_string_lossy(), &users[1]];
        let script = include_str!("tricks/changing_hands.py");
        compare(row, (Control::Off(&["acceptor"]), &lab.b), |round| {
            let mut hands = tricks::spawn(&lab.b.pod(Group::Outside, 0), script, &words)?;
            let marker = format!("of-the-client-{round}");
            let script = include_str!("tricks/calls.py");
            let mut score = Score::default();
            let rounds = if round == "shipped" { times(1, 12) } else { 20 };
            for _ in 0..rounds {
                let said = tricks::run(&lab.client(), script, &[&marker, "300"])?;
                said.ok()?;
                score.tries += 300;
                let hits = hands.said().matches(&format!("thief={marker}")).count();
                score.hits = u64::try_from(hits)?;
                ensure!(hands.said().contains(&format!("server={marker}")), "{}", hands.said());
                // The control has shown what it is for.
                if score.hits > 0 && round != "shipped" {
                    break;
                }
            }
            hands.kill();
            Ok(score)
        })
    })
}

/// A server that is not the one that is meant, where the client goes: it sees a `ClientHello`.
#[test]
fn another_server_in_its_place() -> Result<()> {
    let rows = [
        (Who::Wire, "host of another's in the place of the server", "[::]:7000"),
        (
            Who::Outside,
            "another user's listener on another address with the same port",
            "10.77.0.2:7000",
        ),
    ];
    Lab::check(&Rules::client_calls_server(), |lab| {
        for (who, trick, address) in rows {
            let _real = match who {
                Who::Wire => None,
                _ => Some(lab.server().serve(
                    probe()?,
                    &["serve", "echo", "127.0.0.1:7000"],
                    7000,
                )?),
            };
            let thief = outsider(&lab.b).spawn(probe()?, &["serve", "echo", address])?;
            thief.says("listening=")?;
            let act = |group, user, marker: &str| {
                let words = ["talk", &format!("{}:7000", lab.b.ip), "--text", marker];
                lab.a.pod(group, user).run(probe()?, &words)
            };
            let capture = lab.a.capture("place")?;
            let said = act(Group::Strict, uid::CLIENT, "of-the-strict")?;
            let seen = act(Group::Permissive, uid::STRANGER, "of-the-permissive")?;
            let packets = capture.stop()?;
            ensure!(said.failed(), "{said:?}");
            ensure!(seen.ok().is_ok(), "{seen:?}");
            let score = |marker: &[u8]| Score::once(packets.contain(marker));
            let control = Control::Instead("a client of a permissive scope, for whom no rule is");
            Row { who, trick }.stopped(
                score(b"of-the-strict"),
                control,
                score(b"of-the-permissive"),
            )?;
        }
        Ok(())
    })
}

/// The same user outside the scope may share the port; half of the connections are then his.
#[test]
fn a_port_shared_with_the_same_user() -> Result<()> {
    let trick = "port of a strict listener shared by its own user in no scope (SO_REUSEPORT)";
    let row = Row { who: Who::Outside, trick };
    Lab::check(&Rules::client_calls_server(), |lab| {
        let script = include_str!("tricks/shares.py");
        let _server = tricks::spawn(&lab.server(), script, &[])?;
        let outside = lab.b.pod(Group::Outside, uid::SERVER);
        let thief = tricks::spawn(&outside, script, &[])?;
        compare(row, (Control::Off(&["ambiguous", "acceptor"]), &lab.b), |round| {
            let marker = format!("of-the-client-{round}");
            let calls = include_str!("tricks/calls.py");
            tricks::run(&lab.client(), calls, &[&marker, "40"])?.ok()?;
            let hits = u64::try_from(thief.said().matches(&format!("got={marker}")).count())?;
            Ok(Score { tries: 40, hits })
        })
    })
}
