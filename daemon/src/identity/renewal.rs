//! The task that keeps SVIDs fresh: fetches ahead, renews what is due, drops what has expired,
//! closes what has lost its entry. When that is due is `rotation.rs`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::resolve::Identities;
use crate::shutdown::{Stop, Tasks};

/// How many SVIDs are asked for at once.
const CONCURRENT: usize = 16;
/// The wall clock can jump and a host can sleep, so plans are looked at anew at least this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);
/// So that a plan that cannot be met does not spin.
const SHORTEST_SLEEP: Duration = Duration::from_millis(20);
/// How long renewals under way may take once the daemon stops.
const DRAIN: Duration = Duration::from_millis(200);

impl Identities {
    /// Keeps SVIDs fresh until the daemon drains. Connections that live on hold theirs.
    ///
    /// # Cancel safety
    /// Not to be used in a `select!`: renewals under way would be lost.
    pub async fn run(self, mut stop: Stop) {
        let mut registry = self.inner.registry.clone();
        let mut denied = self.inner.denied.clone();
        let mut authority = self.inner.source.issuer.signs_with();
        let mut tasks = Tasks::new();
        let permits = Arc::new(Semaphore::new(CONCURRENT));
        let mut registry_lives = true;
        self.inner.reconcile();
        loop {
            let sleep = self.renew_due(&mut tasks, &permits);
            tokio::select! {
                biased;
                () = stop.draining() => break,
                changed = registry.changed(), if registry_lives => {
                    registry_lives = changed.is_ok();
                    self.inner.reconcile();
                }
                () = self.inner.source.woken.notified() => {}
                Ok(()) = authority.changed() => {}
                Ok(()) = denied.changed() => self.inner.reconcile(),
                () = tokio::time::sleep(sleep) => {}
            }
        }
        let _left = tasks.drain(DRAIN).await;
    }

    /// Sends tasks for what is due, and says how long nothing else will be.
    fn renew_due(&self, tasks: &mut Tasks, permits: &Arc<Semaphore>) -> Duration {
        tasks.reap();
        let issuer = &self.inner.source.issuer;
        let authority = issuer.signs_with().borrow().clone();
        let denied = Arc::clone(&self.inner.denied.borrow());
        let mut replaced = true;
        let now = (self.inner.settings.clock)();
        let mut sleep = LONGEST_SLEEP;
        for slot in self.inner.all_slots() {
            slot.drop_expired(now);
            slot.replace_unless(|svid| denied.serial(&svid.serial).is_none());
            if let Some(authority) = &authority {
                replaced &= slot.replace_unless(|svid| *svid.authority == **authority);
            }
            if slot.claim_renewal(now) {
                let (inner, permits) = (Arc::clone(&self.inner), Arc::clone(permits));
                let slot = Arc::clone(&slot);
                tasks.spawn("renew an SVID", async move {
                    // Never closed while this runs: the permit is only a place in the queue.
                    let _permit = permits.acquire().await.ok();
                    slot.renew(&inner.source).await;
                });
            }
            if let Some(next) = slot.next_event() {
                sleep = sleep.min(next.duration_since(now).unwrap_or_default());
            }
        }
        // Last: what is due then is seen in the next turn, which a change begins at once.
        let all_by = authority.as_deref().filter(|_| replaced);
        if let Some(next) = issuer.upkeep(all_by) {
            sleep = sleep.min(next.duration_since(now).unwrap_or_default());
        }
        sleep.max(SHORTEST_SLEEP)
    }
}
