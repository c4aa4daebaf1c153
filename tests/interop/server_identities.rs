//! Everything about a server's identity that can be wrong: a captured client calls a stock server
//! that is not who it ought to be. The client's node refuses it inside the handshake, with its own
//! reason and detail; the server gets no byte of what the client had to say.

use std::thread::sleep;

use anyhow::{Context as _, Result, ensure};
use harness::{Finished, Lab, Record, Rules, Server, client_id, server_id};

use crate::forger::{EXPIRED_AFTER, Wrong};
use crate::stock_peer::server_pod;

/// What the client asks for.
const PATH: &str = "c0ffee-of-the-misled-client";
/// How `openssl s_server -msg` begins what it says of a message from the client that breaks off.
const FATAL: &str = "<<< TLS 1.3, Alert [length 0002], fatal";

/// Whether the client has agreed to the handshake, and whether data came (RFC 8446 section 5.2: a
/// record whose true type is 23, hexadecimal 17), by what `openssl s_server -msg` says.
fn heard(said: &str) -> (bool, bool) {
    let of_client = |line: &&str| line.starts_with("<<< TLS 1.3");
    let agreed = said.lines().filter(of_client).any(|line| line.contains("Finished"));
    let mut lines = said.lines();
    let mut data = false;
    while let Some(line) = lines.next() {
        let typed = of_client(&line) && line.contains("InnerContent");
        data |= typed && lines.next().is_some_and(|content| content.trim() == "17");
    }
    (agreed, data)
}

/// A stock server on this port that shows this identity and says what comes in.
fn serve(lab: &Lab, options: &str, port: u16) -> Result<Server> {
    let port_text = port.to_string();
    let mut words = vec!["s_server", "-accept", &port_text, "-www", "-tls1_3", "-msg"];
    words.extend(options.split_whitespace());
    server_pod(lab).serve("openssl", &words, port)
}

fn call(lab: &Lab, port: u16) -> Result<Finished> {
    let url = format!("http://{}:{port}/{PATH}", lab.b.ip);
    lab.client().run("curl", &["-sS", "-m", "20", &url])
}

fn refused(lab: &Lab, what: Wrong, (options, port): (&str, u16)) -> Result<()> {
    let server = serve(lab, options, port)?;
    let answer = call(lab, port)?;
    ensure!(answer.failed(), "it was believed: {answer:?}");
    let (reason, detail) = what.said();
    let to = format!("{}:{port}", lab.b.ip);
    let of_this_call = |it: &Record| it.field("peer.address") == to;
    let record = lab.a.audit().expect("outbound", of_this_call)?;
    let json = record.json();
    ensure!(record.field("outcome") == "denied" && record.field("reason") == reason, "{json}");
    ensure!(record.field("detail").starts_with(detail), "not `{detail}`: {json}");
    ensure!(record.field("local.spiffe_id") == client_id(), "{json}");
    let peer = if what == Wrong::Unlisted { "spiffe://example.org/unlisted" } else { "" };
    ensure!(record.field("peer.spiffe_id") == peer, "{json}");
    ensure!(record.number("bytes_sent") == 0, "{json}");
    server.says(FATAL).context("the server was not told")?;
    let said = server.all_said();
    ensure!(heard(&said) == (false, false), "the client went on: {said}");
    Ok(())
}

#[test]
fn a_server_with_a_wrong_identity_gets_no_byte() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let expired = Wrong::Expired.options(lab, "server")?;
        let capture = lab.a.capture("wire")?;
        for (port, what) in (8443_u16..).zip([
            Wrong::Unlisted,
            Wrong::TwoUris,
            Wrong::NoUri,
            Wrong::Authority,
            Wrong::SignsCertificates,
        ]) {
            let options = what.options(lab, "server")?;
            refused(lab, what, (&options, port)).with_context(|| format!("{what:?}"))?;
        }
        sleep(EXPIRED_AFTER);
        refused(lab, Wrong::Expired, (&expired, 8500)).context("expired")?;
        ensure!(!capture.stop()?.contain(PATH.as_bytes()), "the request crossed the wire");
        Ok(())
    })
}

#[test]
fn a_server_under_another_root_gets_no_byte() -> Result<()> {
    for what in [Wrong::TrustDomain, Wrong::Root] {
        Lab::check(&Rules::client_calls_server(), |lab| {
            let options = what.options(lab, "server")?;
            refused(lab, what, (&options, 8443))
        })
        .with_context(|| format!("{what:?}"))?;
    }
    Ok(())
}

/// A server of the forger's with nothing wrong is believed, and it is seen what it gets.
#[test]
fn control_run_of_the_forged_server() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let server = serve(lab, &Wrong::Nothing.options(lab, "server")?, 8443)?;
        let answer = call(lab, 8443)?;
        ensure!(answer.ok()?.contains("TLSv1.3"), "{answer:?}");
        let said = server.all_said();
        ensure!(heard(&said) == (true, true), "the search misses what is there: {said}");
        ensure!(!said.contains(FATAL), "{said}");
        let record = lab.a.audit().expect("outbound", |it| it.field("protection") == "mtls")?;
        ensure!(record.field("peer.spiffe_id") == server_id(), "{}", record.json());
        Ok(())
    })
}
