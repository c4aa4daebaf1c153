//! The record of one connection while it is being made: told fact by fact by the proxy in the
//! crate's own types, written exactly once, when closed or dropped. It looks nothing up.
//! Start at [`super::Audit::connection`].

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::live::Connection;
use super::record::{Endpoint, Label, Process, Record, Tls, source_label};
use super::{Audit, ByteCounters, Outcome, time};
use crate::attest::ProcessEvidence;
use crate::policy::{Denial, Permit};
use crate::spiffe::SpiffeId;
use crate::workload::{ClientAddr, Flow, ListenAddr, Listener, Mode, ProcessClaim, ScopeId};

/// How the bytes of a connection travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// The daemon's mutual TLS.
    Mtls,
    /// TLS that the application itself speaks.
    Passthrough,
    /// As the application wrote them.
    Plaintext,
    /// Without the daemon: the connection is only observed.
    Untouched,
}

impl Protection {
    /// Stable label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mtls => "mtls",
            Self::Passthrough => "passthrough",
            Self::Plaintext => "plaintext",
            Self::Untouched => "untouched",
        }
    }
}

/// What a finished handshake says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFacts {
    /// Such as `TLSv1.3`.
    pub version: String,
    /// Such as `TLS13_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// Such as `X25519MLKEM768`.
    pub group: String,
    /// Serial number of the peer's certificate, lower-case hex.
    pub peer_serial: Option<String>,
    /// When the peer's certificate ends.
    pub peer_not_after: Option<SystemTime>,
    /// What both ends derive alike from the handshake (a TLS exporter); names the connection.
    pub connection_id: Option<Vec<u8>>,
}

/// The record of one connection, until it is closed. Dropping it writes the record with the
/// outcome set last, [`Outcome::Interrupted`] if none was: a task that panics leaves a record too.
#[derive(Debug)]
pub struct RecordBuilder {
    audit: Audit,
    connection: Arc<Connection>,
    outcome: Outcome,
    is_left: bool,
}

impl RecordBuilder {
    pub(super) fn new(audit: Audit, connection: Arc<Connection>) -> Self {
        Self { audit, connection, outcome: Outcome::Interrupted, is_left: false }
    }

    /// Names the connection on this node, in records and listings.
    pub fn id(&self) -> &str {
        self.connection.id()
    }

    /// The counters of bytes, for the relay to add to while it runs.
    pub fn counters(&self) -> Arc<ByteCounters> {
        Arc::clone(self.connection.bytes())
    }

    /// What the kernel recorded of an outbound connection: process, addresses, scope.
    pub fn flow(&self, flow: &Flow) {
        self.claim(&flow.claim);
        self.addresses(Some(flow.source), Some(flow.original_dst.get()));
        self.scope(flow.scope, flow.mode);
    }

    /// What is known of the listener of an inbound connection, and who dials it.
    pub fn listener(&self, listener: &Listener, at: ListenAddr, client: ClientAddr) {
        self.claim(&listener.claim);
        self.addresses(Some(at.get()), Some(client.get()));
        self.scope(listener.scope, listener.mode);
    }

    /// The local process as the kernel recorded it. [`Self::evidence`] overrides it.
    pub fn claim(&self, claim: &ProcessClaim) {
        let started = self.audit.time_of_day(claim.process.start_ns);
        self.set(|record| record.process = Some(Process::of_claim(claim, started)));
    }

    /// The local process as attested.
    pub fn evidence(&self, evidence: &ProcessEvidence) {
        let process = Process {
            pid: evidence.process.pid,
            start_time: self.audit.time_of_day(evidence.process.start_ns),
            start_ns: evidence.process.start_ns,
            exe: evidence.exe.clone(),
            exe_sha256: evidence.exe_sha256.clone(),
            uid: evidence.uid,
            gid: evidence.gid,
            real_uid: evidence.real_uid,
            cgroup: evidence.cgroup.clone(),
            unit: evidence.unit.clone(),
            netns: evidence.netns.0,
            source: source_label(evidence.source),
            exited: evidence.exited,
        };
        self.set(|record| record.process = Some(process));
    }

    /// Addresses of both ends, as the local application sees them.
    pub fn addresses(&self, local: Option<SocketAddr>, peer: Option<SocketAddr>) {
        self.set(|record| {
            if let Some(addr) = local {
                end(&mut record.local).address = Some(addr.to_string());
            }
            if let Some(addr) = peer {
                end(&mut record.peer).address = Some(addr.to_string());
            }
        });
    }

    /// The scope that decided.
    pub fn scope(&self, scope: ScopeId, mode: Mode) {
        let name = self.audit.scope_name(scope);
        self.set(|record| {
            record.scope = name;
            record.mode = Some(Label::Borrowed(mode.as_str()));
        });
    }

    /// Identity of the local workload.
    pub fn local_id(&self, id: &SpiffeId) {
        self.set(|record| end(&mut record.local).spiffe_id = Some(id.to_string()));
    }

    /// Identity that the peer has proven (also when it is then denied).
    pub fn peer_id(&self, id: &SpiffeId) {
        self.set(|record| end(&mut record.peer).spiffe_id = Some(id.to_string()));
    }

    /// What the handshake came to. Sets [`Protection::Mtls`].
    pub fn tls(&self, facts: TlsFacts) {
        self.set(|record| {
            record.protection = Some(Label::Borrowed(Protection::Mtls.as_str()));
            record.connection_id = facts.connection_id.as_deref().map(super::log::hex);
            record.tls = Some(Tls {
                version: facts.version,
                cipher: facts.cipher,
                group: facts.group,
                peer_serial: facts.peer_serial,
                peer_not_after: facts.peer_not_after.map(time::format),
            });
        });
    }

    /// How the bytes travel.
    pub fn protection(&self, protection: Protection) {
        self.set(|record| record.protection = Some(Label::Borrowed(protection.as_str())));
    }

    /// The decision that let it through.
    pub fn permit(&self, permit: &Permit) {
        self.rule(Some(permit.rule()), permit.epoch(), permit.dry_run().map(AsRef::as_ref));
    }

    /// The decision that refused it. Also sets the outcome that a drop would write.
    pub fn denial(&mut self, denial: &Denial) {
        self.rule(
            denial.rule().map(AsRef::as_ref),
            denial.epoch(),
            denial.dry_run().map(AsRef::as_ref),
        );
        if let Some(detail) = denial.detail() {
            self.detail(detail);
        }
        self.outcome(Outcome::Denied(denial.reason()));
    }

    /// The rule that decided, the generation of the rules, and the dry-run rule that would have
    /// decided otherwise.
    pub fn rule(&self, rule: Option<&str>, epoch: u64, dry_run: Option<&str>) {
        self.set(|record| {
            record.rule = rule.map(str::to_owned);
            record.policy_epoch = Some(epoch);
            record.dry_run = dry_run.map(str::to_owned);
        });
    }

    /// More about the reason, for people: the verifier's fault, the selector that failed.
    pub fn detail(&self, detail: &dyn Display) {
        self.set(|record| record.detail = Some(detail.to_string()));
    }

    /// How long it lived, where the kernel and not this object measured it.
    pub fn lived(&self, duration: Duration) {
        self.set(|record| record.duration = Some(time::milliseconds(duration)));
    }

    /// When it ended, nanoseconds since boot, where the kernel said so: this object may be told
    /// much later.
    pub fn ended_at(&self, since_boot_ns: u64) {
        let time = self.audit.time_of_day(since_boot_ns);
        self.set(|record| record.time = time);
    }

    /// The outcome that a drop writes.
    pub fn outcome(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// Writes the closing record. With `overflow = block` this waits while the queue is full.
    ///
    /// # Cancel safety
    /// If dropped before it is done, the record is handed over without waiting, or counted as lost.
    pub async fn close(mut self, outcome: Outcome) {
        self.outcome = outcome;
        let ended = Instant::now();
        let room = self.audit.room().await;
        self.audit.closed_into(room, &self.connection, outcome, ended);
    }

    /// Leaves the connection open: as the daemon stops, the writer closes its record as interrupted,
    /// after everything else.
    pub fn leave_open(mut self) {
        self.is_left = true;
    }

    fn set(&self, change: impl FnOnce(&mut Record)) {
        self.connection.change(change);
    }
}

impl Drop for RecordBuilder {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        self.audit.closed(&self.connection, self.outcome, Instant::now());
    }
}

fn end(side: &mut Option<Endpoint>) -> &mut Endpoint {
    side.get_or_insert_default()
}
