//! Reads what the programs tell unasked, and writes down denials that no daemon had a part in.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use crate::audit::{Audit, Causer, Direction, Outcome, RecordBuilder};
use crate::bpf::{Cause, Denied, EventStream, Kernel, KernelCounters, KernelEvent};
use crate::identity::Identities;
use crate::policy::DenyReason;
use crate::shutdown::Stop;
use crate::sys::diag;
use crate::workload::{NetnsCookie, ProcessClaim};

use super::observed::OpenObserved;

/// A refused connection sends its packets again; within this time it is one denial.
const SAME: Duration = Duration::from_secs(10);
/// How many denials are remembered for that. Beyond it, the oldest are forgotten and may repeat.
const REMEMBERED: usize = 4096;
/// How often it is asked whether events were lost.
const LOOK: Duration = Duration::from_secs(10);
/// Events that are still read when the daemon stops: as many as the ring holds, so that whoever goes
/// on making some does not keep it.
const LAST_EVENTS: usize = 8192;

/// Everything that an event needs to become a record.
#[derive(Debug)]
pub(in crate::app) struct Recorder {
    pub(in crate::app) audit: Audit,
    pub(in crate::app) identities: Identities,
    pub(in crate::app) kernel: Arc<Kernel>,
    pub(in crate::app) counters: Arc<KernelCounters>,
    pub(in crate::app) netns: NetnsCookie,
    pub(in crate::app) observe: bool,
}

type Same = (Cause, u32, IpAddr, u16, SocketAddr);

/// Writes events down until the daemon stops.
pub(in crate::app) async fn record(mut events: EventStream, recorder: Recorder, mut stop: Stop) {
    let mut told = Told::default();
    let mut open = OpenObserved::default();
    let mut lost = recorder.counters.events_lost();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            biased;
            () = stop.draining() => break,
            _ = look.tick() => {
                let now = recorder.counters.events_lost();
                if std::mem::replace(&mut lost, now) != now || open.misses_some() {
                    open.look(recorder.netns).await;
                }
                continue;
            }
            event = events.next() => event,
        };
        match event {
            Ok(event) => recorder.take(event, &mut told, &mut open).await,
            Err(error) => {
                tracing::error!(%error, "the programs' events cannot be read; denials by them go unrecorded");
                return;
            }
        }
    }
    // What has ended by now has an end of its own.
    for _ in 0..LAST_EVENTS {
        let Some(event) = events.waiting() else { break };
        recorder.take(event, &mut told, &mut open).await;
    }
    open.leave();
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
    async fn take(&self, event: KernelEvent, told: &mut Told, open: &mut OpenObserved) {
        match event {
            KernelEvent::Denied(denied) => {
                if told.is_new(&denied) {
                    reset(&denied);
                    if !self.sums_up_denial(&denied) {
                        self.denied(&denied).await;
                    }
                }
            }
            _ if !self.observe => {}
            KernelEvent::Opening(claim) => open.opening(&self.identities, claim),
            KernelEvent::Established(observed) => open.established(self, &observed).await,
            KernelEvent::Closed(observed) => open.closed(self, &observed).await,
        }
    }

    /// Whether it is one too many of its cause. Asked before anything is found out about it.
    fn sums_up_denial(&self, denied: &Denied) -> bool {
        let uid = denied.claim.as_ref().map(|claim| claim.uid);
        let causer = Causer::of(direction(denied.outbound), uid, Some(denied.remote));
        self.audit.sums_up_denial(reason(denied.cause), causer)
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

    /// Who it was, as far as that can be found out at little cost; and who it would have been.
    pub(super) async fn describe(&self, record: &RecordBuilder, claim: &ProcessClaim) {
        record.claim(claim);
        let Ok((attestation, entry)) = self.identities.glance(claim).await else { return };
        record.evidence(&attestation.evidence);
        if let Some(entry) = entry {
            record.local_id(&entry.spiffe_id);
        }
    }
}

pub(super) fn direction(outbound: bool) -> Direction {
    if outbound { Direction::Outbound } else { Direction::Inbound }
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
