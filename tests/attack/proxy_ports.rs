//! The daemon's own ports, and the records that cross to it: dialled, bound, replayed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{Group, Lab, Node, Rules, Server, probe, soon, uid, value};

use crate::row::{Control, Row, Score, Who, compare};
use crate::tricks;

const DIAL: &str = include_str!("tricks/dial.py");
const SERVER: &str = include_str!("tricks/server.py");

fn to(lab: &Lab) -> String {
    format!("{}:7000", lab.b.ip)
}

/// Thieves in no scope on these addresses.
fn thieves(node: &Node, addresses: &[(&str, u16)]) -> Result<Vec<Server>> {
    let pod = node.pod(Group::Outside, uid::STRANGER);
    let thief = |(host, port): &(&str, u16)| {
        tricks::spawn(&pod, include_str!("tricks/thief.py"), &[host, &port.to_string()])
    };
    addresses.iter().map(thief).collect()
}

/// Whether one of them has got the marker, now or soon.
fn stolen(thieves: &[Server], marker: &str) -> bool {
    let got = || thieves.iter().any(|it| it.said().contains(marker)).then_some(());
    soon(Duration::from_millis(500), "a theft", got).is_ok()
}

#[test]
fn a_dead_daemons_ports() -> Result<()> {
    let row = Row { who: Who::Outside, trick: "listeners on the ports of a dead daemon" };
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _echo = lab.echo(7000)?;
        compare(
            row,
            (Control::Instead("`tacit_lookup`, `tacit_egress` detached"), &lab.a),
            |round| {
                if round == "control" {
                    lab.a.start()?;
                    lab.a.detach("tacit_lookup")?;
                    // Holds the SYN while nobody of ours listens.
                    lab.a.detach("tacit_egress")?;
                }
                let ports = lab.a.proxy_ports()?;
                lab.a.crash()?;
                let port = *ports.first().context("no port")?;
                let thieves = thieves(&lab.a, &[("127.0.0.1", port), ("::1", port)])?;
                let marker = format!("for-the-server-{round}");
                let words = ["talk", &to(lab), "--text", &marker];
                ensure!(round == "control" || lab.client().run(probe()?, &words)?.failed());
                let mut client = lab.client().spawn(probe()?, &words)?;
                let score = Score::once(stolen(&thieves, &marker));
                client.kill();
                Ok(score)
            },
        )
    })
}

/// A socket that is bound to a device is pointed at the host's own address, where anybody may
/// listen on the proxy's port.
#[test]
fn the_proxys_port_on_another_address() -> Result<()> {
    let trick =
        "listener on the host's address with the proxy's port, for sockets bound to a device";
    let row = Row { who: Who::Outside, trick };
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _echo = lab.echo(7000)?;
        let port = *lab.a.proxy_ports()?.first().context("no port")?;
        let thieves = thieves(&lab.a, &[(lab.a.ip, port)])?;
        compare(row, (Control::Detached(&["tacit_lookup"]), &lab.a), |round| {
            let marker = format!("for-the-server-{round}");
            let words = ["talk", &to(lab), "--text", &marker, "--device", "veth0"];
            let mut client = lab.client().spawn(probe()?, &words)?;
            let score = Score::once(stolen(&thieves, &marker));
            client.kill();
            Ok(score)
        })
    })
}

/// Whoever comes from the port of a connection that is over must not get its record.
#[test]
fn the_record_of_a_connection_that_is_over() -> Result<()> {
    let trick = "proxy dialled from the port of a captured connection that is over";
    let row = Row { who: Who::Outside, trick };
    Lab::check(&Rules::client_calls_server(), |lab| {
        let server = tricks::spawn(&lab.server(), SERVER, &["7000"])?;
        let proxy = lab.a.proxy_ports()?.first().context("no port")?.to_string();
        compare(row, (Control::Off(&["proxy-ports", "record-moves"]), &lab.a), |round| {
            let script = include_str!("tricks/over.py");
            let said = tricks::run(&lab.client(), script, &["of-the-client"])?;
            let port = value(said.ok()?, "port").context("no port")?;
            let marker = format!("as-the-client-{round}");
            let words = [&marker, "plain", "127.0.0.1", &proxy, &port];
            let outsider = lab.a.pod(Group::Outside, uid::STRANGER);
            let said = tricks::run(&outsider, DIAL, &words)?;
            let hit = said.stdout.contains(&marker) || server.said().contains(&marker);
            Ok(Score::once(hit))
        })
    })
}

/// Two destinations in turn from one port, before the daemon has accepted either.
#[test]
fn two_destinations_from_one_port() -> Result<()> {
    let trick = "AF_UNSPEC and another connect() before the daemon accepts";
    let row = Row { who: Who::Strict, trick };
    Lab::check(&Rules::client_calls_server(), |lab| {
        let first = tricks::spawn(&lab.server(), SERVER, &["7000"])?;
        let second = tricks::spawn(&lab.server(), SERVER, &["7001"])?;
        compare(row, (Control::Off(&["record-by-ports", "abandoned"]), &lab.a), |round| {
            let markers = [format!("for-the-first-{round}"), format!("for-the-second-{round}")];
            lab.a.pause()?;
            let script = include_str!("tricks/two_destinations.py");
            let [one, other] = &markers;
            let mut client = tricks::spawn(&lab.client(), script, &[one, other])?;
            lab.a.resume()?;
            let _ended = client.wait()?;
            let wrong =
                || (second.said().contains(one) || first.said().contains(other)).then_some(());
            let wrong = soon(Duration::from_millis(500), "a wrong delivery", wrong).is_ok();
            ensure!(wrong || second.said().contains(other), "not delivered: {}", client.said());
            Ok(Score::once(wrong))
        })
    })
}
