//! Everything about a client's identity that can be wrong. Each is refused with its own reason and
//! detail, and the server never sees the connection.

use std::thread::sleep;

use anyhow::{Result, ensure};
use harness::{Finished, Lab, Rules, server_id};

use crate::forger::{EXPIRED_AFTER, Wrong};
use crate::stock_peer::{MARKER, nginx, s_client};

/// Makes a client with these options call the captured server, which must refuse for this reason.
fn refused(
    (reason, detail): (&str, &str),
    options: impl FnOnce(&Lab) -> Result<String>,
) -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _nginx = nginx(lab)?;
        let said: Finished = s_client(lab, &options(lab)?)?;
        ensure!(!said.stdout.contains(MARKER), "it got an answer: {said:?}");
        let record = lab.b.audit().expect_denied("inbound", reason)?;
        ensure!(record.field("local.spiffe_id") == server_id(), "{}", record.json());
        ensure!(record.field("detail").starts_with(detail), "{}", record.json());
        let peer = if reason == "peer_not_allowed" { "spiffe://example.org/unlisted" } else { "" };
        ensure!(record.field("peer.spiffe_id") == peer, "{}", record.json());
        Ok(())
    })
}

fn wrong(what: Wrong) -> Result<()> {
    refused(what.said(), |lab| what.options(lab, "client"))
}

#[test]
fn no_certificate() -> Result<()> {
    refused(("peer_unverified", "the peer showed no certificate"), |_| Ok(String::new()))
}

#[test]
fn an_id_that_no_rule_lists() -> Result<()> {
    wrong(Wrong::Unlisted)
}

#[test]
fn another_trust_domain() -> Result<()> {
    wrong(Wrong::TrustDomain)
}

#[test]
fn the_right_id_under_another_root() -> Result<()> {
    wrong(Wrong::Root)
}

#[test]
fn an_expired_svid() -> Result<()> {
    refused(Wrong::Expired.said(), |lab| {
        let options = Wrong::Expired.options(lab, "client")?;
        sleep(EXPIRED_AFTER);
        Ok(options)
    })
}

#[test]
fn two_uri_sans() -> Result<()> {
    wrong(Wrong::TwoUris)
}

#[test]
fn no_uri_san() -> Result<()> {
    wrong(Wrong::NoUri)
}

#[test]
fn a_leaf_that_is_a_ca() -> Result<()> {
    wrong(Wrong::Authority)
}

#[test]
fn a_leaf_that_may_sign_certificates() -> Result<()> {
    wrong(Wrong::SignsCertificates)
}

/// The forger's own work is sound: with nothing wrong in it, its leaf is admitted.
#[test]
fn control_run_of_the_forger() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _nginx = nginx(lab)?;
        let options = Wrong::Nothing.options(lab, "client")?;
        ensure!(s_client(lab, &options)?.ok()?.contains(MARKER));
        Ok(())
    })
}
