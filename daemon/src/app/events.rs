//! What the programs tell unasked, written down: denials that no daemon had a part in, and
//! connections that were only observed.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::attest::Attestation;
use crate::audit::{Audit, Direction, Outcome, PeerFailure, Protection, RecordBuilder};
use crate::bpf::{Cause, Denied, EventStream, Kernel, KernelEvent, Observed};
use crate::identity::Identities;
use crate::policy::DenyReason;
use crate::shutdown::Stop;
use crate::sys::diag;
use crate::workload::{FileId, ProcessClaim, ProcessKey};

use std::sync::Arc;

/// A refused connection sends its packets again; within this time it is one denial.
const SAME: Duration = Duration::from_secs(10);
/// How many denials are remembered for that. Beyond it, the oldest are forgotten and may repeat.
const REMEMBERED: usize = 4096;
/// Records that one user gets for one cause within that time; further ones are summed up.
const TOLD_EACH: u32 = 100;
/// How many processes are looked at early at one time.
const EARLY_LOOKS: usize = 16;

/// Everything that an event needs to become a record.
#[derive(Debug)]
pub(super) struct Recorder {
    pub(super) audit: Audit,
    pub(super) identities: Identities,
    pub(super) kernel: Arc<Kernel>,
    pub(super) observe: bool,
}

type Same = (Cause, u32, IpAddr, u16, SocketAddr);

/// Writes events down until the daemon stops.
pub(super) async fn record(mut events: EventStream, recorder: Recorder, mut stop: Stop) {
    let mut told = Told::default();
    let mut sums = interval(SAME);
    let mut early = EarlyLooks::default();
    loop {
        let event = tokio::select! {
            biased;
            () = stop.draining() => return,
            _ = sums.tick() => {
                told.sum_up(&recorder.audit);
                continue;
            }
            event = events.next() => event,
        };
        match event {
            Ok(KernelEvent::Denied(denied)) => {
                if told.is_new(&denied) {
                    reset(&denied);
                    recorder.denied(&denied).await;
                }
            }
            Ok(KernelEvent::Observed(observed)) if recorder.observe => {
                let seen = early.of(&observed.claim);
                recorder.observed(&observed, seen.as_deref()).await;
            }
            Ok(KernelEvent::Opening(claim)) if recorder.observe => {
                early.look(&recorder.identities, claim);
            }
            Ok(KernelEvent::Observed(_) | KernelEvent::Opening(_)) => {}
            Err(error) => {
                tracing::error!(%error, "the programs' events cannot be read; denials by them go unrecorded");
                return;
            }
        }
    }
}

/// A connection whose packets are dropped would hang in silence; both ends are to see its end.
fn reset(denied: &Denied) {
    if !denied.of_tcp_socket {
        return;
    }
    match diag::reset_between(denied.local, denied.remote) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(local = %denied.local, remote = %denied.remote, %error, "not reset");
        }
        _ => {}
    }
}

/// Denials that were told lately. A refused connection sends its packets again, and whoever likes
/// can be refused without end: neither may push others' records out of the log.
#[derive(Debug, Default)]
struct Told {
    same: HashMap<Same, Instant>,
    windows: HashMap<(Cause, u32), Window>,
}

/// What one user was told of for one cause since then.
#[derive(Debug)]
struct Window {
    since: Instant,
    told: u32,
    more: u64,
}

impl Told {
    /// Whether this denial gets a record of its own; if it is one too many, it is counted.
    fn is_new(&mut self, denied: &Denied) -> bool {
        let now = Instant::now();
        let claim = denied.claim.as_ref();
        let (pid, uid) = claim.map_or((0, u32::MAX), |claim| (claim.process.pid, claim.uid));
        let refused_call = denied.outbound && denied.local.port() == 0;
        if !refused_call {
            let port = if denied.outbound { denied.local.port() } else { denied.remote.port() };
            let key = (denied.cause, pid, denied.local.ip(), port, denied.remote);
            if self.same.len() >= REMEMBERED {
                self.same.retain(|_, at| now.duration_since(*at) < SAME);
                if self.same.len() >= REMEMBERED {
                    self.same.clear();
                }
            }
            let before = self.same.insert(key, now);
            if before.is_some_and(|at| now.duration_since(at) < SAME) {
                return false;
            }
        }
        let window = self.windows.entry((denied.cause, uid)).or_insert(Window {
            since: now,
            told: 0,
            more: 0,
        });
        if window.told < TOLD_EACH {
            window.told += 1;
            return true;
        }
        window.more += 1;
        false
    }

    /// Says how many were not told, and begins anew.
    fn sum_up(&mut self, audit: &Audit) {
        let now = Instant::now();
        self.windows.retain(|(cause, uid), window| {
            let over = now.duration_since(window.since) >= SAME;
            if over && window.more > 0 {
                let (more, reason) = (window.more, reason(*cause).as_str());
                let detail = format!("{more} more of {reason} by user {uid} in {SAME:?}");
                audit.daemon("denials_summed_up", Some(detail));
            }
            !over
        });
    }
}

impl Recorder {
    async fn denied(&self, denied: &Denied) {
        let direction = if denied.outbound { Direction::Outbound } else { Direction::Inbound };
        let record = self.audit.connection(direction);
        let local = (denied.local.port() != 0).then_some(denied.local);
        record.ended_at(denied.at_ns);
        record.addresses(local, Some(denied.remote));
        record.scope(denied.scope, self.kernel.mode_of(denied.scope));
        if denied.protocol != 6 {
            record.detail(&format_args!("IP protocol {}", denied.protocol));
        }
        if let Some(claim) = &denied.claim {
            self.describe(&record, claim).await;
        }
        record.close(Outcome::Denied(reason(denied.cause))).await;
    }

    /// `seen` is what an early look at the process found.
    async fn observed(&self, observed: &Observed, seen: Option<&Attestation>) {
        let direction = if observed.outbound { Direction::Outbound } else { Direction::Inbound };
        let record = self.audit.connection(direction);
        record.ended_at(observed.closed_ns);
        record.addresses(Some(observed.local), Some(observed.remote));
        record.scope(observed.scope, self.kernel.mode_of(observed.scope));
        record.protection(Protection::Untouched);
        let bytes = record.counters();
        bytes.add_sent(observed.bytes_sent);
        bytes.add_received(observed.bytes_received);
        let lived = observed.closed_ns.saturating_sub(observed.opened_ns);
        record.lived(Duration::from_nanos(lived));
        self.describe(&record, &observed.claim).await;
        if let Some(seen) = seen {
            record.evidence(&seen.evidence);
        }
        record.close(outcome(observed)).await;
    }

    /// Who it was, as far as that can be found out at little cost; and who it would have been.
    async fn describe(&self, record: &RecordBuilder, claim: &ProcessClaim) {
        record.claim(claim);
        let Ok((attestation, entry)) = self.identities.glance(claim).await else { return };
        record.evidence(&attestation.evidence);
        if let Some(entry) = entry {
            record.local_id(&entry.spiffe_id);
        }
    }
}

fn outcome(observed: &Observed) -> Outcome {
    if observed.established {
        Outcome::Completed
    } else {
        Outcome::PeerFailed(PeerFailure::ConnectFailed)
    }
}

fn reason(cause: Cause) -> DenyReason {
    match cause {
        Cause::ProxyDialled => DenyReason::ProxyDialled,
        Cause::ForeignNetns => DenyReason::ForeignNetns,
        Cause::DaemonAbsent => DenyReason::DaemonAbsent,
        Cause::MapFull => DenyReason::MapFull,
        Cause::Backstop => DenyReason::Backstop,
        Cause::StrictListener => DenyReason::StrictListener,
        Cause::Transport => DenyReason::TransportRefused,
        Cause::ForeignSocket => DenyReason::ForeignSocket,
        Cause::LinkLocal => DenyReason::LinkLocal,
        Cause::BoundDevice => DenyReason::BoundDevice,
        Cause::BorrowedCredentials => DenyReason::BorrowedCredentials,
    }
}

/// Attestations of processes that opened an observed connection, made while they lived: by the time
/// the connection closes they may be gone. For records only; an identity is never derived from it.
/// Best effort: when many come at once, some are not looked at.
#[derive(Debug, Default)]
struct EarlyLooks {
    running: JoinSet<Option<(Opener, Arc<Attestation>)>>,
    seen: HashMap<Opener, Arc<Attestation>>,
}

/// A process, and the program that it ran.
type Opener = (ProcessKey, FileId, u64);

impl EarlyLooks {
    fn look(&mut self, identities: &Identities, claim: ProcessClaim) {
        self.reap();
        let opener = opener(&claim);
        if self.running.len() < EARLY_LOOKS && !self.seen.contains_key(&opener) {
            let identities = identities.clone();
            self.running.spawn(async move {
                let (attestation, _entry) = identities.glance(&claim).await.ok()?;
                (!attestation.evidence.exited).then_some((opener, attestation))
            });
        }
    }

    fn of(&mut self, claim: &ProcessClaim) -> Option<Arc<Attestation>> {
        self.reap();
        self.seen.get(&opener(claim)).map(Arc::clone)
    }

    fn reap(&mut self) {
        while let Some(done) = self.running.try_join_next() {
            if self.seen.len() >= REMEMBERED {
                self.seen.clear();
            }
            self.seen.extend(done.ok().flatten());
        }
    }
}

fn opener(claim: &ProcessClaim) -> Opener {
    (claim.process, claim.exe, claim.exec_id)
}
