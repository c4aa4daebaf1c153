//! Connections that are only observed: listed while they are open, announced when they live long,
//! and recorded with the kernel's own figures when they close.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::attest::Attestation;
use crate::audit::{Causer, Outcome, PeerFailure, Protection, RecordBuilder};
use crate::bpf::Observed;
use crate::identity::Identities;
use crate::sys::diag;
use crate::workload::{FileId, NetnsCookie, ProcessClaim, ProcessKey};

use super::recorder::{Recorder, direction};

/// Observed connections that are followed at one time. Further ones get a closing record only.
const FOLLOWED: usize = 16_384;
/// Of them, those of one user or peer: else one could fill the log by keeping many open.
const FOLLOWED_EACH: usize = 256;
/// How many processes are looked at early at one time.
const EARLY_LOOKS: usize = 16;
/// Processes whose early look is remembered.
const REMEMBERED: usize = 4096;
/// Said where a close is not known to have come.
const UNKNOWN: &str = "events of the programs were lost: whether it is still open is not known";

/// Which connection, and which end of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Which {
    netns: NetnsCookie,
    local: SocketAddr,
    remote: SocketAddr,
    outbound: bool,
}

impl Which {
    fn of(observed: &Observed) -> Self {
        Self {
            netns: observed.claim.netns,
            local: observed.local,
            remote: observed.remote,
            outbound: observed.outbound,
        }
    }
}

#[derive(Debug)]
struct Followed {
    record: RecordBuilder,
    causer: Causer,
    /// The last look at the kernel's list did not find it.
    is_missing: bool,
}

/// The observed connections that are open.
#[derive(Debug, Default)]
pub(super) struct OpenObserved {
    open: HashMap<Which, Followed>,
    of_each: HashMap<Causer, usize>,
    early: EarlyLooks,
}

impl OpenObserved {
    /// Its process is looked at while it surely lives.
    pub(super) fn opening(&mut self, identities: &Identities, claim: ProcessClaim) {
        self.early.look(identities, claim);
    }

    /// From now on it is listed.
    pub(super) async fn established(&mut self, recorder: &Recorder, observed: &Observed) {
        let which = Which::of(observed);
        if let Some(mut before) = self.take(&which) {
            // Its close was lost: the same ends are in use again.
            before.record.outcome(Outcome::Interrupted);
            before.record.detail(&UNKNOWN);
        }
        let causer = causer(observed);
        let of_it = self.of_each.get(&causer).copied().unwrap_or(0);
        // Asked before anything is found out about it.
        let is_flood = recorder.audit.would_sum_up_observed(causer);
        if is_flood || self.open.len() >= FOLLOWED || of_it >= FOLLOWED_EACH {
            return;
        }
        let record = self.begin(recorder, observed).await;
        *self.of_each.entry(causer).or_insert(0) += 1;
        self.open.insert(which, Followed { record, causer, is_missing: false });
    }

    /// It is over.
    pub(super) async fn closed(&mut self, recorder: &Recorder, observed: &Observed) {
        let record = match self.take(&Which::of(observed)) {
            Some(followed) => followed.record,
            None if recorder.audit.sums_up_observed(causer(observed)) => return,
            None => self.begin(recorder, observed).await,
        };
        record.ended_at(observed.at_ns);
        let bytes = record.counters();
        bytes.add_sent(observed.bytes_sent);
        bytes.add_received(observed.bytes_received);
        record.lived(Duration::from_nanos(observed.at_ns.saturating_sub(observed.opened_ns)));
        record.close(outcome(observed)).await;
    }

    /// Events were lost, perhaps those of closes: what the kernel's own list does not have in two
    /// looks is over, and what another namespace's list would have to tell may be.
    ///
    /// # Cancel safety
    /// Not cancel safe: a look that is broken off marks nothing, but may have taken its time.
    pub(super) async fn look(&mut self, own: NetnsCookie) {
        let listed = match tokio::task::spawn_blocking(diag::connections).await {
            Ok(Ok(listed)) => listed,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the kernel's list of connections cannot be read");
                return;
            }
            Err(error) => {
                tracing::error!(%error, "a look at the connections ended early");
                return;
            }
        };
        let listed: HashSet<_> = listed.into_iter().map(|one| (one.local, one.remote)).collect();
        let mut over = Vec::new();
        for (which, followed) in &mut self.open {
            let is_there = which.netns == own && listed.contains(&(which.local, which.remote));
            if !is_there && followed.is_missing {
                over.push(*which);
            }
            followed.is_missing = !is_there;
        }
        for which in over {
            let Some(followed) = self.take(&which) else { continue };
            followed.record.detail(&UNKNOWN);
            followed.record.close(Outcome::Interrupted).await;
        }
    }

    /// Whether the last look missed some: the next one decides.
    pub(super) fn misses_some(&self) -> bool {
        self.open.values().any(|followed| followed.is_missing)
    }

    /// The daemon stops; they do not.
    pub(super) fn leave(self) {
        for followed in self.open.into_values() {
            followed.record.leave_open();
        }
    }

    /// The record with all but what the close tells.
    async fn begin(&mut self, recorder: &Recorder, observed: &Observed) -> RecordBuilder {
        let record = recorder.audit.connection(direction(observed.outbound));
        record.addresses(Some(observed.local), Some(observed.remote));
        record.scope(observed.scope, recorder.kernel.mode_of(observed.scope));
        record.protection(Protection::Untouched);
        recorder.describe(&record, &observed.claim).await;
        if let Some(seen) = self.early.of(&observed.claim) {
            record.evidence(&seen.evidence);
        }
        record
    }

    fn take(&mut self, which: &Which) -> Option<Followed> {
        let followed = self.open.remove(which)?;
        if let Some(count) = self.of_each.get_mut(&followed.causer) {
            *count -= 1;
            if *count == 0 {
                self.of_each.remove(&followed.causer);
            }
        }
        Some(followed)
    }
}

fn causer(observed: &Observed) -> Causer {
    Causer::of(direction(observed.outbound), Some(observed.claim.uid), Some(observed.remote))
}

fn outcome(observed: &Observed) -> Outcome {
    if observed.established {
        Outcome::Completed
    } else {
        Outcome::PeerFailed(PeerFailure::ConnectFailed)
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
