//! Every address family and every way to connect: all of them work, protected.

use anyhow::{Context as _, Result, ensure};
use harness::{Lab, Rules, probe, value};

const MARKER: &str = "c0ffee-secret-of-the-families";

/// How the client is told to connect, behind the address.
type Case = (&'static str, fn(&Lab) -> Vec<String>);

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn v4(lab: &Lab) -> String {
    format!("{}:7000", lab.b.ip)
}

fn v6(lab: &Lab) -> String {
    format!("[{}]:7000", lab.b.ip6)
}

fn how(way: &str, lab: &Lab) -> Vec<String> {
    words(&[&v4(lab), "--how", way])
}

fn how6(way: &str, lab: &Lab) -> Vec<String> {
    words(&[&v6(lab), "--how", way])
}

/// Runs every case in one lab and tells of all that failed.
fn check(cases: &[Case], server: &[&str]) -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let probe = probe()?;
        let arguments = [&["serve", "echo", "[::]:7000"], server].concat();
        let echo = lab.server().serve(&probe, &arguments, 7000)?;
        let mut failed = Vec::new();
        for (name, case) in cases {
            if let Err(error) = run(lab, &echo, &case(lab)) {
                failed.push(format!("{name}: {error:#}"));
            }
        }
        ensure!(failed.is_empty(), "{}", failed.join("\n"));
        Ok(())
    })
}

fn run(lab: &Lab, echo: &harness::Server, case: &[String]) -> Result<()> {
    let before = lab.b.audit().closed("inbound").len();
    let capture = lab.a.capture("wire")?;
    let mut arguments = vec!["talk"];
    arguments.extend(case.iter().map(String::as_str));
    arguments.extend(["--text", MARKER]);
    let talked = lab.client().run(probe()?, &arguments);
    let packets = capture.stop()?;
    ensure!(!packets.contain(MARKER.as_bytes()), "plaintext crossed the wire");
    let said = talked?.ok()?.to_owned();
    ensure!(packets.hold_tls(), "no TLS crossed the wire");
    // What the client calls its own address is what the server calls the client's.
    let local = value(&said, "local").context("no local address")?.replace("::ffff:", "");
    let seen = echo.value("accept")?.replace("::ffff:", "");
    let plain = |address: String| address.replace(['[', ']'], "");
    ensure!(plain(local.clone()) == plain(seen.clone()), "client {local}, server saw {seen}");
    harness::eventually("the record", || {
        (lab.b.audit().closed("inbound").len() > before).then_some(())
    })?;
    let record = lab.b.audit().closed("inbound").pop().context("no record")?;
    ensure!(record.field("peer.spiffe_id") == harness::client_id(), "{}", record.json());
    Ok(())
}

#[test]
fn blocking_and_nonblocking_on_both_families() -> Result<()> {
    check(
        &[
            ("IPv4", |lab| how("plain", lab)),
            ("IPv6", |lab| how6("plain", lab)),
            ("IPv4-mapped", |lab| how("mapped", lab)),
            ("IPv4, non-blocking", |lab| how("nonblocking", lab)),
            ("IPv6, non-blocking", |lab| how6("nonblocking", lab)),
            ("AF_UNSPEC, then again", |lab| how("unspec", lab)),
        ],
        &[],
    )
}

#[test]
fn io_uring() -> Result<()> {
    check(&[("IPv4", |lab| how("io-uring", lab)), ("IPv6", |lab| how6("io-uring", lab))], &[])
}

#[test]
fn tcp_fast_open() -> Result<()> {
    check(
        &[
            ("MSG_FASTOPEN", |lab| how("fast-open", lab)),
            ("TCP_FASTOPEN_CONNECT", |lab| how("fast-open-connect", lab)),
            ("MSG_FASTOPEN, IPv6", |lab| how6("fast-open", lab)),
        ],
        &[],
    )
}

#[test]
fn bound_sources_and_devices() -> Result<()> {
    check(
        &[
            ("source", |lab| words(&[&v4(lab), "--source", &format!("{}:0", lab.a.ip)])),
            ("source and port", |lab| {
                words(&[&v4(lab), "--source", &format!("{}:4321", lab.a.ip)])
            }),
            ("IPv6 source", |lab| words(&[&v6(lab), "--source", &format!("[{}]:0", lab.a.ip6)])),
            ("device", |lab| words(&[&v4(lab), "--device", "veth0"])),
            ("device, IPv6", |lab| words(&[&v6(lab), "--device", "veth0"])),
        ],
        &[],
    )
}

#[test]
fn mptcp_client() -> Result<()> {
    check(&[("IPv4", |lab| how("mptcp", lab)), ("IPv6", |lab| how6("mptcp", lab))], &[])
}

#[test]
fn mptcp_server() -> Result<()> {
    check(
        &[("plain client", |lab| how("plain", lab)), ("MPTCP client", |lab| how("mptcp", lab))],
        &["--mptcp"],
    )
}
