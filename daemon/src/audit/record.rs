//! The shape of one line of the audit log. These structs exist for serde alone: the rest of the
//! crate speaks its own types, and `builder.rs` translates. Field names are public and versioned.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Outcome, Protection};
use crate::workload::{ClaimSource, ProcessClaim};

/// Text that is one of ours (borrowed) or was read back from a log (owned).
pub type Label = Cow<'static, str>;

/// What a line tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// A connection has lived long enough to be told of before it ends.
    Open,
    /// A connection ended.
    Close,
    /// The daemon itself: started, stopped, reloaded its configuration, repaired this log.
    Daemon,
    /// Records that could not be written; `lost` says how many.
    Lost,
    /// A signature over everything before it.
    Checkpoint,
}

/// One line. `seq`, `time`, `node` and `prev_hash` are filled in by the writer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Counts lines from 1, over restarts and rotated files.
    pub seq: u64,
    /// UTC, RFC 3339, milliseconds: when the connection ended (close), or when it was written. What
    /// the kernel programs told of has the time at which it happened, also if no daemon ran then:
    /// lines are in the order in which they were written.
    pub time: String,
    /// What the line tells of.
    pub event: Event,
    /// Name of the node.
    pub node: String,
    /// Names the connection on this node: the same in its opening and closing record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Names the connection at both ends: lower-case hex of a TLS exporter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_id: Option<String>,
    /// `outbound` or `inbound`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Label>,
    /// See [`super::Outcome::as_str`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Label>,
    /// See [`super::Outcome::reason`]; for daemon records, what happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Label>,
    /// More about the reason, for people. Not a closed set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// How long the connection lived, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<f64>,
    /// `mtls`, `passthrough`, `plaintext` or `untouched` (without the daemon): how the bytes
    /// travelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<Label>,
    /// Mode of the scope that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Label>,
    /// The scope that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The rule that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Which generation of the rules decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_epoch: Option<u64>,
    /// The dry-run rule that would have decided otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<String>,
    /// The local workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<Endpoint>,
    /// The remote side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Endpoint>,
    /// The local process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// The TLS connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Bytes that the local application sent. Of an observed connection they are known at its end,
    /// so there are none in its opening record, nor if its end was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_sent: Option<u64>,
    /// Bytes that the local application received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_received: Option<u64>,
    /// How many records could not be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    /// The signature of a checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
    /// SHA-256 of the line before, lower-case hex; zeros before the first line of all.
    pub prev_hash: String,
}

/// One end of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its SPIFFE ID, if it has one and (for the peer) has proven it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<String>,
    /// Its address and port, as the local application sees them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// The evidence about the local process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// When it started, UTC, RFC 3339.
    pub start_time: String,
    /// When it started, nanoseconds since boot: with the pid, this names the process exactly.
    pub start_ns: u64,
    /// Path of the executable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// SHA-256 of the executable, lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe_sha256: Option<String>,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Real user id.
    pub real_uid: u32,
    /// Path of the cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// The systemd unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Cookie of the network namespace.
    pub netns: u64,
    /// `kernel` (taken in the acting thread) or `scan` (found among the holders of the socket).
    pub source: Label,
    /// Whether the process had exited before it could be looked at.
    pub exited: bool,
}

/// The TLS connection.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// Such as `TLSv1.3`.
    pub version: String,
    /// Such as `TLS13_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// Such as `X25519MLKEM768`.
    pub group: String,
    /// Serial number of the peer's certificate, lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_serial: Option<String>,
    /// When the peer's certificate ends, UTC, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_not_after: Option<String>,
}

/// A signature over the chain up to the line before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// SHA-256 of the Ed25519 public key, lower-case hex.
    pub key: String,
    /// The signature, lower-case hex.
    pub signature: String,
}

impl Record {
    /// A line with nothing in it yet.
    pub fn new(event: Event) -> Self {
        Self {
            seq: 0,
            time: String::new(),
            event,
            node: String::new(),
            id: None,
            connection_id: None,
            direction: None,
            outcome: None,
            reason: None,
            detail: None,
            duration: None,
            protection: None,
            mode: None,
            scope: None,
            rule: None,
            policy_epoch: None,
            dry_run: None,
            local: None,
            peer: None,
            process: None,
            tls: None,
            bytes_sent: None,
            bytes_received: None,
            lost: None,
            checkpoint: None,
            prev_hash: String::new(),
        }
    }

    /// A line about the daemon itself.
    pub fn daemon(reason: &'static str, detail: Option<String>) -> Self {
        Self { reason: Some(Label::Borrowed(reason)), detail, ..Self::new(Event::Daemon) }
    }
}

impl Record {
    /// The closing record of a connection whose daemon was killed, made of its opening one.
    pub(super) fn interrupted(mut self, time: &str) -> Self {
        self.event = Event::Close;
        time.clone_into(&mut self.time);
        self.outcome = Some(Label::Borrowed(Outcome::Interrupted.as_str()));
        let is_observed = self.protection.as_deref() == Some(Protection::Untouched.as_str());
        let detail = if is_observed {
            "the daemon was killed; the connection went on without it"
        } else {
            "the daemon was killed; bytes and duration are of the opening record"
        };
        self.detail = Some(detail.to_owned());
        self
    }
}

impl Process {
    /// What the kernel alone knows of a process; `start_time` is the wall-clock form of its start.
    pub(super) fn of_claim(claim: &ProcessClaim, start_time: String) -> Self {
        Self {
            pid: claim.process.pid,
            start_time,
            start_ns: claim.process.start_ns,
            uid: claim.uid,
            gid: claim.gid,
            real_uid: claim.real_uid,
            netns: claim.netns.0,
            source: source_label(claim.source),
            ..Self::default()
        }
    }
}

/// The label of a claim's source.
pub(super) fn source_label(source: ClaimSource) -> Label {
    Label::Borrowed(source.as_str())
}
