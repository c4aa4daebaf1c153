//! The whole claim about one connection, checked from outside: what crossed the wire was TLS and
//! did not hold the payload, and both audit logs name both identities and the same connection.

use anyhow::{Result, ensure};

use crate::audit_log::Record;
use crate::config::{client_id, server_id};
use crate::lab::Lab;

/// What the two logs say of a protected connection.
#[derive(Debug)]
pub struct Protected {
    /// The client's node.
    pub outbound: Record,
    /// The server's node.
    pub inbound: Record,
}

/// Does something that makes the client of node a call the server on node b, and checks the claim.
/// The payload must hold `marker`.
///
/// # Errors
/// Says which part of the claim does not hold.
pub fn protected(
    lab: &Lab,
    marker: &str,
    exercise: impl FnOnce() -> Result<()>,
) -> Result<Protected> {
    let capture = lab.a.capture("wire")?;
    exercise()?;
    let packets = capture.stop()?;
    ensure!(packets.hold_tls(), "no TLS handshake crossed the wire");
    ensure!(!packets.contain(marker.as_bytes()), "`{marker}` crossed the wire in the clear");
    let outbound = lab.a.audit().expect_completed("outbound")?;
    let inbound = lab.b.audit().expect_completed("inbound")?;
    let claim = Protected { outbound, inbound };
    claim.check_identities(&client_id(), &server_id())?;
    Ok(claim)
}

impl Protected {
    /// Both logs name these two, saw the same connection, and agree about the addresses.
    ///
    /// # Errors
    /// When a record says something else.
    pub fn check_identities(&self, client: &str, server: &str) -> Result<()> {
        let Self { outbound, inbound } = self;
        for (record, local, peer) in [(outbound, client, server), (inbound, server, client)] {
            let json = record.json();
            ensure!(record.field("local.spiffe_id") == local, "local is not {local}: {json}");
            ensure!(record.field("peer.spiffe_id") == peer, "peer is not {peer}: {json}");
            ensure!(record.field("protection") == "mtls", "not mTLS: {json}");
            ensure!(record.field("tls.version").contains("1.3"), "not TLS 1.3: {json}");
            ensure!(record.field("tls.group") == "X25519MLKEM768", "no hybrid group: {json}");
            ensure!(!record.field("rule").is_empty(), "no rule: {json}");
            ensure!(!record.field("process.exe").is_empty(), "no executable: {json}");
        }
        let ids = [outbound, inbound].map(|record| record.field("connection_id"));
        ensure!(!ids[0].is_empty() && ids[0] == ids[1], "two names for one connection: {ids:?}");
        let there = (outbound.field("local.address"), outbound.field("peer.address"));
        let here = (inbound.field("peer.address"), inbound.field("local.address"));
        ensure!(there == here, "the ends disagree about addresses: {there:?} and {here:?}");
        Ok(())
    }
}
