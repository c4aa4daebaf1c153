//! OpenSSL on the other side, as a client and as a server.

use anyhow::{Result, ensure};
use harness::{Lab, Rules, client_id, server_id};

use crate::stock_peer::{MARKER, captured_curl, mint, nginx, s_client, server_pod, with_svid};

#[test]
fn openssl_client_calls_a_captured_server() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _nginx = nginx(lab)?;
        let svid = mint(lab, &client_id(), &[])?;
        let answer = s_client(lab, &format!("{} -verify 4", with_svid(&svid)?))?;
        ensure!(answer.ok()?.contains(MARKER), "{answer:?}");
        let record = lab.b.audit().expect_completed("inbound")?;
        ensure!(record.field("peer.spiffe_id") == client_id(), "{}", record.json());
        ensure!(record.field("protection") == "mtls", "{}", record.json());
        Ok(())
    })
}

#[test]
fn a_captured_client_calls_an_openssl_server() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let svid = mint(lab, &server_id(), &[])?;
        let options = with_svid(&svid)?;
        let mut words = vec!["s_server", "-accept", "8443", "-www", "-tls1_3", "-Verify", "4"];
        words.extend(options.split(' '));
        let _server = server_pod(lab).serve("openssl", &words, 8443)?;
        captured_curl(lab, 8443, &[], "TLSv1.3")?;
        let record = lab.a.audit().expect("outbound", |it| it.field("protection") == "mtls")?;
        ensure!(record.field("peer.spiffe_id") == server_id(), "{}", record.json());
        Ok(())
    })
}

/// The application speaks TLS itself, and a rule says so: its TLS is left alone.
#[test]
fn tls_of_the_applications_own_is_passed_through() -> Result<()> {
    let rules = Rules::client_calls_server().rule(&format!(
        "[[inbound]]\nname = \"own-tls\"\nworkloads = [\"{}\"]\nports = 8443\n\
         action = \"allow\"\nunmarked_tls = \"passthrough\"\n",
        server_id()
    ));
    Lab::check(&rules, |lab| {
        // Its certificate is of its own making; no matter which, the daemon has no say in it.
        let svid = mint(lab, "spiffe://example.org/own", &[])?;
        let words = [
            "s_server",
            "-accept",
            "8443",
            "-www",
            "-cert",
            &svid.chain.to_string_lossy(),
            "-key",
            &svid.key.to_string_lossy(),
        ];
        let _server = lab.server().serve("openssl", &words, 8443)?;
        let pod = crate::stock_peer::client_pod(lab);
        let url = format!("https://{}:8443/", lab.b.ip);
        let answer = pod.must("curl", &["-ksS", "-m", "20", &url])?;
        ensure!(answer.contains("s_server"), "curl got: {answer}");
        let record = lab.b.audit().expect_completed("inbound")?;
        ensure!(record.field("protection") == "passthrough", "{}", record.json());
        ensure!(record.field("peer.spiffe_id").is_empty(), "{}", record.json());
        Ok(())
    })
}
