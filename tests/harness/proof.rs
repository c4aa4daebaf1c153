//! The whole claim about protected connections, checked from outside: what crossed the wire was TLS
//! and held nothing of the payload; both applications saw the true addresses; both audit logs name
//! both identities and the same connections. Only what happens during the check is judged.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

use crate::audit_log::{AuditLog, Record};
use crate::config::{client_id, server_id};
use crate::lab::Lab;
use crate::pod::Server;
use crate::wait::eventually;

/// What is claimed of what an exercise does.
#[derive(Debug, Clone)]
pub struct Claim {
    markers: Vec<String>,
    outcomes: [&'static str; 2],
    bulk: bool,
}

impl Claim {
    /// Connections whose payload holds this text complete.
    pub fn of(marker: &str) -> Self {
        Self { markers: vec![marker.to_owned()], outcomes: ["completed"; 2], bulk: false }
    }

    /// The payload holds this, too.
    #[must_use]
    pub fn and(mut self, marker: &str) -> Self {
        self.markers.push(marker.to_owned());
        self
    }

    /// The client's node and the server's node record these outcomes.
    #[must_use]
    pub fn outcomes(mut self, client: &'static str, server: &'static str) -> Self {
        self.outcomes = [client, server];
        self
    }

    /// So much crosses the wire that it must be captured in another way.
    #[must_use]
    pub fn bulk(mut self) -> Self {
        self.bulk = true;
        self
    }
}

impl From<&str> for Claim {
    fn from(marker: &str) -> Self {
        Self::of(marker)
    }
}

/// The addresses that the applications saw, one for each connection; empty where an application has
/// no way to say it. Only what the server saw of its clients is always needed: that many connections
/// are to be in both logs.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The client, of itself.
    pub client_own: Vec<String>,
    /// The client, of the server.
    pub client_peer: Vec<String>,
    /// The server, of its clients.
    pub server_peer: Vec<String>,
    /// The server, of itself.
    pub server_own: Vec<String>,
}

impl Seen {
    /// What probes on both sides said of the last connections: the client has said all of it.
    ///
    /// # Errors
    /// When the client said nothing, the server saw fewer, or its two ways to learn of its client
    /// disagree.
    pub fn by_probes(client: &str, server: &Server) -> Result<Self> {
        let mut seen = Self::default();
        for line in client.lines().filter(|line| line.starts_with("peer=")) {
            seen.client_peer.push(word(line, "peer")?);
            seen.client_own.push(word(line, "local")?);
        }
        let count = seen.client_own.len();
        ensure!(count > 0, "the client saw no address: {client}");
        let enough = || {
            let said = server.all_said();
            let lines: Vec<String> =
                said.lines().filter(|it| it.starts_with("accept=")).map(str::to_owned).collect();
            (lines.len() >= count).then_some(lines)
        };
        let lines = eventually("what the server saw", enough)?;
        for line in lines.iter().rev().take(count) {
            let (accepted, peer) = (word(line, "accept")?, word(line, "peer")?);
            ensure!(accepted == peer, "accept() and getpeername() disagree: {line}");
            seen.server_peer.push(peer);
            seen.server_own.push(word(line, "local")?);
        }
        Ok(seen)
    }

    /// Both applications name the ends alike.
    ///
    /// # Errors
    /// When they do not.
    pub fn agree(&self) -> Result<()> {
        let clients = [&self.client_own, &self.server_peer];
        let servers = [&self.client_peer, &self.server_own];
        for [client, server] in [clients, servers] {
            ensure!(
                client.is_empty() || server.is_empty() || counted(client) == counted(server),
                "the client saw {client:?}, the server {server:?}"
            );
        }
        Ok(())
    }

    fn check(&self, records: &[Record]) -> Result<()> {
        ensure!(!self.server_peer.is_empty(), "the server has not said whom it saw");
        let ends = |name: &str| -> Vec<String> {
            records.iter().map(|record| plain(&record.field(name))).collect()
        };
        let (clients, servers) = (counted(&ends("local.address")), counted(&ends("peer.address")));
        for (who, seen, true_ones) in [
            ("client of itself", &self.client_own, &clients),
            ("client of the server", &self.client_peer, &servers),
            ("server of its clients", &self.server_peer, &clients),
            ("server of itself", &self.server_own, &servers),
        ] {
            let seen = counted(seen);
            ensure!(
                seen.is_empty() || seen == *true_ones,
                "what the {who} saw is {seen:?}, recorded is {true_ones:?}"
            );
        }
        Ok(())
    }
}

/// What the two logs say of a protected connection.
#[derive(Debug, Clone)]
pub struct Protected {
    /// The client's node.
    pub outbound: Record,
    /// The server's node.
    pub inbound: Record,
}

/// Does something that makes the client of node a call the server on node b, and checks the claim.
/// Gives what was recorded of each connection.
///
/// # Errors
/// Says which part of the claim does not hold.
pub fn protected(
    lab: &Lab,
    claim: impl Into<Claim>,
    exercise: impl FnOnce() -> Result<Seen>,
) -> Result<Vec<Protected>> {
    let claim = claim.into();
    let nodes = [(lab.a.audit(), "outbound"), (lab.b.audit(), "inbound")];
    let before = nodes.each_ref().map(|(log, direction)| log.closed(direction).len());
    let capture = if claim.bulk { lab.a.capture_bulk("wire")? } else { lab.a.capture("wire")? };
    let seen = exercise()?;
    let packets = capture.stop()?;
    ensure!(packets.hold_tls(), "no TLS handshake crossed the wire");
    for marker in &claim.markers {
        ensure!(!packets.contain(marker.as_bytes()), "`{marker}` crossed the wire in the clear");
    }
    let [(a, outbound), (b, inbound)] = &nodes;
    let count = seen.server_peer.len();
    let outbound = new_records(a, outbound, (before[0], count), claim.outcomes[0])?;
    let inbound = new_records(b, inbound, (before[1], count), claim.outcomes[1])?;
    seen.agree()?;
    seen.check(&outbound)?;
    let pairs = paired(outbound, inbound)?;
    for pair in &pairs {
        pair.check_identities(&client_id(), &server_id())?;
    }
    Ok(pairs)
}

/// One closing record for each connection, all with this outcome.
fn new_records(
    log: &AuditLog,
    direction: &str,
    (before, connections): (usize, usize),
    outcome: &str,
) -> Result<Vec<Record>> {
    let all = || {
        let records: Vec<Record> = log.closed(direction).into_iter().skip(before).collect();
        (records.len() >= connections).then_some(records)
    };
    let records = eventually("a record of each connection", all)
        .with_context(|| format!("{direction}; the log holds:\n{}", log.shown()))?;
    let count = records.len();
    ensure!(count == connections, "{count} {direction} records, not {connections}");
    for record in &records {
        ensure!(record.field("outcome") == outcome, "not {outcome}: {}", record.json());
    }
    Ok(records)
}

/// Both ends of each connection, by its name.
fn paired(outbound: Vec<Record>, inbound: Vec<Record>) -> Result<Vec<Protected>> {
    let name = |record: &Record| record.field("connection_id");
    let mut inbound: BTreeMap<String, Record> =
        inbound.into_iter().map(|record| (name(&record), record)).collect();
    let other_end = |outbound: Record| {
        let inbound = inbound
            .remove(&name(&outbound))
            .with_context(|| format!("no other end of {}", outbound.json()))?;
        Ok(Protected { outbound, inbound })
    };
    outbound.into_iter().map(other_end).collect()
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

/// The value behind `name=` in a line.
fn word(line: &str, name: &str) -> Result<String> {
    let value = crate::pod::value(line, name);
    value.map(|value| plain(&value)).with_context(|| format!("no {name}= in: {line}"))
}

/// An address as IPv4 where it is one: a socket of both families shows it in its mapped form.
fn plain(address: &str) -> String {
    match address.strip_prefix("[::ffff:").and_then(|rest| rest.split_once(']')) {
        Some((ip, port)) if ip.contains('.') => format!("{ip}{port}"),
        _ => address.to_owned(),
    }
}

fn counted(addresses: &[String]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for address in addresses {
        *counts.entry(plain(address)).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_ipv4() {
        assert_eq!(plain("[::ffff:10.0.0.1]:80"), "10.0.0.1:80");
        assert_eq!(plain("[fd00::1]:80"), "[fd00::1]:80");
        assert_eq!(plain("10.0.0.1:80"), "10.0.0.1:80");
    }

    #[test]
    fn ends_that_disagree_are_found() {
        let of = |address: &str| vec![address.to_owned()];
        let mut seen = Seen { client_own: of("10.0.0.1:5"), ..Seen::default() };
        assert!(seen.agree().is_ok(), "what is not said disagrees with nothing");
        seen.server_peer = of("[::ffff:10.0.0.1]:5");
        assert!(seen.agree().is_ok());
        seen.server_peer = of("127.0.0.1:5");
        assert!(seen.agree().is_err());
    }
}
