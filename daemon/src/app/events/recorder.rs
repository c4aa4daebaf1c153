//! What the programs tell unasked, written down: denials that no daemon had a part in, and
//! connections that were only observed.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::attest::Attestation;
use crate::audit::{Audit, Causer, Direction, Outcome, PeerFailure, Protection, RecordBuilder};
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
/// How many processes are looked at early at one time.
const EARLY_LOOKS: usize = 16;

/// Everything that an event needs to become a record.
#[derive(Debug)]
pub(in crate::app) struct Recorder {
    pub(in crate::app) audit: Audit,
    pub(in crate::app) identities: Identities,
    pub(in crate::app) kernel: Arc<Kernel>,
    pub(in crate::app) observe: bool,
}

type Same = (Cause, u32, IpAddr, u16, SocketAddr);

/// Writes events down until the daemon stops.
pub(in crate::app) async fn record(mut events: EventStream, recorder: Recorder, mut stop: Stop) {
    let mut told = Told::default();
    let mut early = EarlyLooks::default();
    loop {
        let event = tokio::select! {
            biased;
            () = stop.draining() => return,
            event = events.next() => event,
        };
        match event {
            Ok(KernelEvent::Denied(denied)) => {
                if told.is_new(&denied) {
                    reset(&denied);
                    if !recorder.sums_up_denial(&denied) {
                        recorder.denied(&denied).await;
                    }
                }
            }
            Ok(KernelEvent::Observed(observed)) if recorder.observe => {
                if !recorder.sums_up_observed(&observed) {
                    let seen = early.of(&observed.claim);
                    recorder.observed(&observed, seen.as_deref()).await;
                }
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

/// Denials that were told lately. A refused connection sends its packets again.
#[derive(Debug, Default)]
struct Told(HashMap<Same, Instant>);

impl Told {
    /// Whether this denial is another one than those before.
    fn is_new(&mut self, denied: &Denied) -> bool {
        // A refused call is repeated by nobody but its caller.
        if denied.outbound && denied.local.port() == 0 {
            return true;
        }
        let now = Instant::now();
        let pid = denied.claim.as_ref().map_or(0, |claim| claim.process.pid);
        let port = if denied.outbound { denied.local.port() } else { denied.remote.port() };
        let key = (denied.cause, pid, denied.local.ip(), port, denied.remote);
        if self.0.len() >= REMEMBERED {
            self.0.retain(|_, at| now.duration_since(*at) < SAME);
            if self.0.len() >= REMEMBERED {
                self.0.clear();
            }
        }
        let before = self.0.insert(key, now);
        before.is_none_or(|at| now.duration_since(at) >= SAME)
    }
}

impl Recorder {
    /// Whether it is one too many of its cause. Asked before anything is found out about it.
    fn sums_up_denial(&self, denied: &Denied) -> bool {
        let uid = denied.claim.as_ref().map(|claim| claim.uid);
        let causer = Causer::of(direction(denied.outbound), uid, Some(denied.remote));
        self.audit.sums_up_denial(reason(denied.cause), causer)
    }

    fn sums_up_observed(&self, observed: &Observed) -> bool {
        let uid = Some(observed.claim.uid);
        let causer = Causer::of(direction(observed.outbound), uid, Some(observed.remote));
        self.audit.sums_up_observed(causer)
    }

    async fn denied(&self, denied: &Denied) {
        let direction = direction(denied.outbound);
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
        let direction = direction(observed.outbound);
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

fn direction(outbound: bool) -> Direction {
    if outbound { Direction::Outbound } else { Direction::Inbound }
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
