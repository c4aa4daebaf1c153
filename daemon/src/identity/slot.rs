//! The SVID of one registration entry: issued once however many ask, renewed in place, dropped
//! when it expires or its entry goes. Those who hold it watch it; a closed watch means: no longer.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};

use super::issuer::{IssueError, IssueRequest, Issuer};
use super::rotation::{LONGEST_RETRY, draw, renew_at, retry_after};
use crate::registry::RegistrationEntry;
use crate::spiffe::{SpiffeId, TrustDomain, X509Svid};
use crate::workload::Selectors;

/// How an SVID is come by: the issuer, our patience, the clock, and whom to tell.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) issuer: Arc<dyn Issuer>,
    pub(super) timeout: Duration,
    pub(super) clock: fn() -> SystemTime,
    /// Told after each answer of the issuer, so that the next renewal can be planned.
    pub(super) woken: Arc<Notify>,
    pub(super) asked: Arc<Asked>,
}

/// How often the issuer was asked, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) issued: AtomicU64,
    pub(super) failed: AtomicU64,
}

/// What makes two entries the same to those who hold its SVID. Selectors belong to it: a process
/// that matched an entry before it was edited need not match it now.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SlotKey {
    id: String,
    spiffe_id: SpiffeId,
    selectors: Selectors,
}

/// What an entry wants of its SVID. It may change while the SVID is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Profile {
    pub(super) ttl: Duration,
    pub(super) dns_names: Vec<String>,
}

/// The SVID of one entry.
#[derive(Debug)]
pub(super) struct Slot {
    key: SlotKey,
    /// Held by whoever asks the issuer.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    /// Whom else its workload trusts. It may change while the SVID is held.
    federates_with: watch::Sender<Arc<BTreeSet<TrustDomain>>>,
}

#[derive(Debug)]
struct State {
    profile: Profile,
    svid: Option<watch::Sender<Arc<X509Svid>>>,
    /// When the issuer is to be asked next, whether for renewal or again.
    ask_at: SystemTime,
    failures: u32,
    last_error: Option<Arc<IssueError>>,
    /// Its entry is gone: nothing is published any more.
    retired: bool,
    /// A task is on its way to renew it.
    renewing: bool,
}

/// How the SVID of an entry stands, for `tacit svid`.
#[derive(Debug, Clone)]
pub struct SvidStatus {
    /// Id of the entry.
    pub entry: String,
    /// The identity.
    pub spiffe_id: SpiffeId,
    /// The SVID that is handed out now.
    pub svid: Option<Arc<X509Svid>>,
    /// When the issuer is asked next.
    pub renew_at: SystemTime,
    /// How often it has failed in a row.
    pub failures: u32,
    /// Why it failed last.
    pub last_error: Option<Arc<IssueError>>,
}

/// Gives the claim on a renewal back, also when the issuer panics.
struct RenewalClaim<'a> {
    slot: &'a Slot,
    woken: &'a Notify,
}

impl Drop for RenewalClaim<'_> {
    fn drop(&mut self) {
        self.slot.state().renewing = false;
        self.woken.notify_one();
    }
}

impl From<&RegistrationEntry> for SlotKey {
    fn from(entry: &RegistrationEntry) -> Self {
        Self {
            id: entry.id.clone(),
            spiffe_id: entry.spiffe_id.clone(),
            selectors: entry.selectors.clone(),
        }
    }
}

impl State {
    /// Whether the issuer is to be asked. A clock that was ahead and went back leaves plans too far
    /// ahead, and an SVID that is not valid yet: neither is waited for.
    fn is_due(&self, now: SystemTime) -> bool {
        let is_early = |svid: &watch::Sender<Arc<X509Svid>>| svid.borrow().not_before > now;
        let went_back = if self.failures > 0 {
            self.ask_at > now + LONGEST_RETRY
        } else {
            self.svid.as_ref().is_some_and(is_early)
        };
        self.ask_at <= now || went_back
    }
}

impl Slot {
    /// Nothing issued yet; due at once.
    pub(super) fn new(key: SlotKey, profile: Profile) -> Self {
        let state = State {
            profile,
            svid: None,
            ask_at: SystemTime::UNIX_EPOCH,
            failures: 0,
            last_error: None,
            retired: false,
            renewing: false,
        };
        let (turn, state) = (tokio::sync::Mutex::default(), Mutex::new(state));
        Self { key, turn, state, federates_with: watch::Sender::default() }
    }

    /// Whom else its workload trusts from now on.
    pub(super) fn set_federation(&self, federates_with: &BTreeSet<TrustDomain>) {
        self.federates_with.send_if_modified(|now| {
            let differs = **now != *federates_with;
            if differs {
                *now = Arc::new(federates_with.clone());
            }
            differs
        });
    }

    /// Whom else its workload trusts, as it changes.
    pub(super) fn federation(&self) -> watch::Receiver<Arc<BTreeSet<TrustDomain>>> {
        self.federates_with.subscribe()
    }

    /// The SVID, issued now if there is none.
    ///
    /// # Errors
    /// The issuer's; without asking it while it is known to fail.
    ///
    /// # Cancel safety
    /// Cancel safe: what was asked for is lost, the next in line asks again.
    pub(super) async fn obtain(
        &self,
        source: &Source,
    ) -> Result<watch::Receiver<Arc<X509Svid>>, IssueError> {
        if let Some(svid) = self.current((source.clock)())? {
            return Ok(svid);
        }
        let _turn = self.turn.lock().await;
        let now = (source.clock)();
        if let Some(svid) = self.current(now)? {
            return Ok(svid);
        }
        if let Some((last, retry_in)) = self.known_failure(now) {
            return Err(IssueError::NotYetRetried { last, retry_in });
        }
        let asked = self.ask(source).await;
        source.woken.notify_one();
        asked?;
        self.current((source.clock)())?.ok_or(IssueError::Unusable("expired at once"))
    }

    /// Renews the SVID if that is due; a failure is kept, and the last good SVID with it.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn renew(&self, source: &Source) {
        let _claim = RenewalClaim { slot: self, woken: &source.woken };
        let _turn = self.turn.lock().await;
        if self.is_due((source.clock)()) {
            // Kept in the state, logged there.
            let _kept = self.ask(source).await.is_ok();
        }
    }

    /// Whether a task should be sent to renew it; says so once until that task is done.
    pub(super) fn claim_renewal(&self, now: SystemTime) -> bool {
        let mut state = self.state();
        let claimed = !state.retired && !state.renewing && state.is_due(now);
        state.renewing |= claimed;
        claimed
    }

    /// Drops an SVID that has expired: nothing expired is handed out or held in use.
    pub(super) fn drop_expired(&self, now: SystemTime) {
        let mut state = self.state();
        let expired = state.svid.as_ref().is_some_and(|svid| svid.borrow().not_after < now);
        if expired {
            state.svid = None;
            tracing::warn!(entry = self.key.id, "its SVID has expired and could not be renewed");
        }
    }

    /// When it next needs attention.
    pub(super) fn next_event(&self) -> Option<SystemTime> {
        let state = self.state();
        let expiry = state.svid.as_ref().map(|svid| svid.borrow().not_after);
        match (state.renewing, expiry) {
            (true, expiry) => expiry,
            (false, None) => Some(state.ask_at),
            (false, Some(expiry)) => Some(expiry.min(state.ask_at)),
        }
    }

    /// Another profile counts from the next SVID on, which is made at once.
    pub(super) fn set_profile(&self, profile: Profile) {
        let mut state = self.state();
        if state.profile != profile {
            state.profile = profile;
            state.ask_at = SystemTime::UNIX_EPOCH;
        }
    }

    /// An SVID that is not good any more is due at once; one whose issuer fails, when that is asked
    /// again. Says whether there is none.
    pub(super) fn replace_unless(&self, is_good: impl Fn(&X509Svid) -> bool) -> bool {
        let mut state = self.state();
        let good = state.svid.as_ref().is_none_or(|svid| is_good(&svid.borrow()));
        if !good && state.failures == 0 {
            state.ask_at = SystemTime::UNIX_EPOCH;
        }
        good
    }

    /// The entry is gone: closes every watch.
    pub(super) fn retire(&self) {
        let mut state = self.state();
        state.retired = true;
        state.svid = None;
    }

    /// How it stands.
    pub(super) fn status(&self) -> SvidStatus {
        let state = self.state();
        SvidStatus {
            entry: self.key.id.clone(),
            spiffe_id: self.key.spiffe_id.clone(),
            svid: state.svid.as_ref().map(|svid| Arc::clone(&svid.borrow())),
            renew_at: state.ask_at,
            failures: state.failures,
            last_error: state.last_error.clone(),
        }
    }

    fn current(
        &self,
        now: SystemTime,
    ) -> Result<Option<watch::Receiver<Arc<X509Svid>>>, IssueError> {
        let state = self.state();
        if state.retired {
            return Err(IssueError::EntryGone);
        }
        let valid = state.svid.as_ref().filter(|svid| svid.borrow().is_valid_at(now));
        Ok(valid.map(watch::Sender::subscribe))
    }

    fn known_failure(&self, now: SystemTime) -> Option<(Arc<IssueError>, Duration)> {
        let state = self.state();
        let planned = (!state.is_due(now)).then_some(state.ask_at)?;
        let retry_in = planned.duration_since(now).unwrap_or_default();
        state.last_error.clone().map(|last| (last, retry_in))
    }

    fn is_due(&self, now: SystemTime) -> bool {
        let state = self.state();
        !state.retired && state.is_due(now)
    }

    /// Asks the issuer and keeps what it says. The caller holds the turn.
    async fn ask(&self, source: &Source) -> Result<(), IssueError> {
        let Profile { ttl, dns_names } = self.state().profile.clone();
        let request = IssueRequest { spiffe_id: self.key.spiffe_id.clone(), ttl, dns_names };
        let issued = tokio::time::timeout(source.timeout, source.issuer.issue(request)).await;
        let issued = issued.unwrap_or(Err(IssueError::TimedOut(source.timeout)));
        let now = (source.clock)();
        match issued.and_then(|svid| self.check(svid, now)) {
            Ok(svid) => {
                source.asked.issued.fetch_add(1, Ordering::Relaxed);
                self.publish(svid, now)
            }
            Err(error) => {
                source.asked.failed.fetch_add(1, Ordering::Relaxed);
                Err(self.note_failure(error, now))
            }
        }
    }

    /// An issuer is trusted with keys, not with being right.
    fn check(&self, svid: X509Svid, now: SystemTime) -> Result<X509Svid, IssueError> {
        if svid.id != self.key.spiffe_id {
            return Err(IssueError::Unusable("bears another SPIFFE ID"));
        }
        if !svid.is_valid_at(now) {
            return Err(IssueError::Unusable("is not valid now; check the clocks"));
        }
        Ok(svid)
    }

    fn publish(&self, svid: X509Svid, now: SystemTime) -> Result<(), IssueError> {
        let mut state = self.state();
        if state.retired {
            return Err(IssueError::EntryGone);
        }
        // Its life counts from now: an SVID that is shorter than it is backdated would be due at once.
        state.ask_at = renew_at(svid.not_before.max(now), svid.not_after, draw());
        state.failures = 0;
        state.last_error = None;
        tracing::debug!(entry = self.key.id, serial = svid.serial, "SVID issued");
        match &state.svid {
            Some(sender) => drop(sender.send_replace(Arc::new(svid))),
            None => state.svid = Some(watch::Sender::new(Arc::new(svid))),
        }
        Ok(())
    }

    fn note_failure(&self, error: IssueError, now: SystemTime) -> IssueError {
        let mut state = self.state();
        let left =
            state.svid.as_ref().and_then(|it| it.borrow().not_after.duration_since(now).ok());
        state.failures = state.failures.saturating_add(1);
        state.ask_at = now + retry_after(state.failures, left.unwrap_or_default(), draw());
        state.last_error = Some(Arc::new(error.clone()));
        if state.failures == 1 {
            tracing::warn!(entry = self.key.id, %error, "no SVID could be issued; it is tried again");
        } else {
            tracing::debug!(entry = self.key.id, %error, failures = state.failures, "still no SVID");
        }
        error
    }

    /// A panic while it is held leaves nothing half done: every change is one assignment.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
