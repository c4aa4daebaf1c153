//! go-spiffe on the other side, as a client and as a server.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use harness::{Lab, Minted, Rules, client_id, server_id};

use crate::stock_peer::{MARKER, captured_curl, client_pod, mint, nginx, server_pod};

/// The peer with SVIDs from files; gives the path of the binary.
fn peer() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    built(&BUILT, "go-spiffe-peer", ".")
}

/// The program that asks a Workload API; gives the path of the binary.
pub(crate) fn workload() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    built(&BUILT, "go-spiffe-workload", "./workload")
}

/// Builds a Go program once.
#[expect(clippy::disallowed_methods, reason = "the task runner names the Go to use")]
fn built(once: &OnceLock<Result<PathBuf, String>>, name: &str, package: &str) -> Result<PathBuf> {
    let build = || -> Result<PathBuf> {
        let binary = std::env::current_exe()?.with_file_name(name);
        let go = std::env::var("TACIT_TEST_GO").unwrap_or_else(|_| "go".to_owned());
        let output = Command::new(go)
            .args(["build", "-o"])
            .arg(&binary)
            .arg(package)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/interop/go"))
            .output()
            .context("cannot start go")?;
        ensure!(output.status.success(), "{}", harness::text(&output.stderr));
        Ok(binary)
    };
    once.get_or_init(|| build().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}

/// The arguments of the peer.
fn words(verb: &str, address: &str, svid: &Minted, other: &str) -> Vec<String> {
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    vec![
        verb.to_owned(),
        address.to_owned(),
        path(&svid.chain),
        path(&svid.key),
        path(&svid.bundle),
        other.to_owned(),
    ]
}

fn borrowed(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

#[test]
fn go_spiffe_client_calls_a_captured_server() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _nginx = nginx(lab)?;
        let svid = mint(lab, &client_id(), &[])?;
        let words = words("client", &format!("{}:8080", lab.b.ip), &svid, &server_id());
        let answer = client_pod(lab).must(peer()?, &borrowed(&words))?;
        ensure!(answer.contains("200 OK") && answer.contains(MARKER), "it got: {answer}");
        // It ends without a goodbye (close_notify), which the record says, too.
        let record = lab.b.audit().expect("inbound", |it| it.field("protection") == "mtls")?;
        ensure!(record.field("peer.spiffe_id") == client_id(), "{}", record.json());
        Ok(())
    })
}

fn captured_client_calls(verb: &str, rules: &Rules, curl: &[&str], protocol: &str) -> Result<()> {
    Lab::check(rules, |lab| {
        let svid = mint(lab, &server_id(), &[])?;
        let words = words(verb, &format!("{}:8443", lab.b.ip), &svid, &client_id());
        let _server = server_pod(lab).serve(peer()?, &borrowed(&words), 8443)?;
        let expected = format!("{protocol} from [{}] at {}:", client_id(), lab.a.ip);
        captured_curl(lab, 8443, curl, &expected)?;
        let record = lab.a.audit().expect("outbound", |it| it.field("protection") == "mtls")?;
        ensure!(record.field("peer.spiffe_id") == server_id(), "{}", record.json());
        Ok(())
    })
}

#[test]
fn a_captured_client_calls_a_go_spiffe_server() -> Result<()> {
    captured_client_calls("server", &Rules::client_calls_server(), &[], "HTTP/1.1")
}

/// Without ALPN a Go HTTP/2 server speaks HTTP/1.1, as it does to any client that offers none.
#[test]
fn a_go_http2_server_does_not_stumble_over_the_marker() -> Result<()> {
    captured_client_calls("h2server", &Rules::client_calls_server(), &[], "HTTP/1.1")
}

/// A rule offers `h2` for a client that speaks HTTP/2 in the clear.
#[test]
fn a_rule_offers_the_alpn_that_the_server_wants() -> Result<()> {
    let rules = Rules::client_calls_server().rules(&format!(
        "[[outbound]]\nname = \"h2\"\nworkloads = [\"{}\"]\naction = \"mtls\"\npeers = [\"{}\"]\n\
         alpn = [\"h2\"]\n",
        client_id(),
        server_id()
    ));
    captured_client_calls("h2server", &rules, &["--http2-prior-knowledge"], "HTTP/2.0")
}
