//! What callers may cost, counted before anything else is done for them: connections of the node
//! and of a cgroup, and requests of a cgroup in a second. A cgroup is one service, so that one that
//! asks without end cannot keep another from its identity.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::workload::CgroupId;

/// For how many seconds of its rate a cgroup that was silent may ask at once.
const BURST_SECONDS: f64 = 2.0;
/// How many cgroups are counted before those at rest are forgotten.
const COUNTED: usize = 4096;

/// How much callers may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApiLimits {
    /// Connections at one time.
    pub connections: usize,
    /// Of those, connections of one cgroup.
    pub connections_per_cgroup: usize,
    /// Requests of one cgroup in a second, each of which looks at a process.
    pub requests_per_second: u32,
}

/// Counts.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    most: ApiLimits,
    connections: Arc<Semaphore>,
    cgroups: Arc<Mutex<HashMap<CgroupId, Usage>>>,
}

#[derive(Debug)]
struct Usage {
    connections: usize,
    /// Requests that may be made at once, as of `since`.
    tokens: f64,
    since: Instant,
}

/// A connection that is counted until this is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    cgroup: CgroupId,
    limits: Limits,
    _node: OwnedSemaphorePermit,
}

impl Limits {
    pub(super) fn new(limits: ApiLimits) -> Self {
        let connections = Arc::new(Semaphore::new(limits.connections));
        Self { most: limits, connections, cgroups: Arc::default() }
    }

    /// Waits until the node has room for another connection.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn room(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.connections).acquire_owned().await.ok()
    }

    /// Counts a connection. `None` if its cgroup has as many as it may.
    pub(super) fn connect(&self, cgroup: CgroupId, node: OwnedSemaphorePermit) -> Option<Counted> {
        let mut cgroups = self.cgroups();
        if cgroups.len() >= COUNTED {
            let now = Instant::now();
            cgroups.retain(|_, usage| usage.connections > 0 || !usage.is_rested(&self.most, now));
        }
        let usage = cgroups.entry(cgroup).or_insert_with(|| Usage::rested(&self.most));
        if usage.connections >= self.most.connections_per_cgroup {
            return None;
        }
        usage.connections += 1;
        Some(Counted { cgroup, limits: self.clone(), _node: node })
    }

    fn cgroups(&self) -> MutexGuard<'_, HashMap<CgroupId, Usage>> {
        self.cgroups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Usage {
    fn rested(limits: &ApiLimits) -> Self {
        Self { connections: 0, tokens: burst(limits), since: Instant::now() }
    }

    fn refill(&mut self, limits: &ApiLimits, now: Instant) {
        self.tokens = self.tokens_at(limits, now);
        self.since = now;
    }

    fn tokens_at(&self, limits: &ApiLimits, now: Instant) -> f64 {
        let passed = now.duration_since(self.since).min(Duration::from_hours(1));
        let earned = passed.as_secs_f64() * f64::from(limits.requests_per_second);
        (self.tokens + earned).min(burst(limits))
    }

    fn is_rested(&self, limits: &ApiLimits, now: Instant) -> bool {
        self.tokens_at(limits, now) >= burst(limits)
    }
}

fn burst(limits: &ApiLimits) -> f64 {
    f64::from(limits.requests_per_second) * BURST_SECONDS
}

impl Counted {
    /// Whether its cgroup may make another request now; it is counted if so.
    pub(super) fn may_ask(&self) -> bool {
        let limits = &self.limits.most;
        let mut cgroups = self.limits.cgroups();
        let usage = cgroups.entry(self.cgroup).or_insert_with(|| Usage::rested(limits));
        usage.refill(limits, Instant::now());
        let may = usage.tokens >= 1.0;
        if may {
            usage.tokens -= 1.0;
        }
        may
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(usage) = self.limits.cgroups().get_mut(&self.cgroup) {
            usage.connections = usage.connections.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(connections: usize, per_cgroup: usize, rate: u32) -> Limits {
        Limits::new(ApiLimits {
            connections,
            connections_per_cgroup: per_cgroup,
            requests_per_second: rate,
        })
    }

    async fn connect(limits: &Limits, cgroup: u64) -> Option<Counted> {
        limits.connect(CgroupId(cgroup), limits.room().await?)
    }

    #[tokio::test(start_paused = true)]
    async fn one_cgroup_cannot_take_the_room_of_another() {
        let limits = limits(3, 2, 1);
        let first = connect(&limits, 1).await.unwrap();
        let _second = connect(&limits, 1).await.unwrap();
        assert!(connect(&limits, 1).await.is_none());
        let _other = connect(&limits, 2).await.unwrap();
        drop(first);
        assert!(connect(&limits, 1).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_node_has_a_bound_that_others_wait_for() {
        let limits = limits(1, 1, 1);
        let only = connect(&limits, 1).await.unwrap();
        let waiting = tokio::time::timeout(Duration::from_secs(1), connect(&limits, 2)).await;
        assert!(waiting.is_err());
        drop(only);
        assert!(connect(&limits, 2).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_earned_by_time_and_by_cgroup() {
        let limits = limits(10, 10, 5);
        let (one, other) = (connect(&limits, 1).await.unwrap(), connect(&limits, 2).await.unwrap());
        assert_eq!((0..100).filter(|_| one.may_ask()).count(), 10, "two seconds' worth at once");
        let again = connect(&limits, 1).await.unwrap();
        assert!(!again.may_ask(), "another connection of the cgroup does not help");
        assert!(other.may_ask());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((0..100).filter(|_| one.may_ask()).count(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn cgroups_at_rest_are_forgotten_and_those_in_debt_are_not() {
        let limits = limits(3, 1, 1);
        let debtor = connect(&limits, 0).await.unwrap();
        while debtor.may_ask() {}
        drop(debtor);
        for cgroup in 1..=u64::try_from(COUNTED).unwrap() {
            assert!(connect(&limits, cgroup).await.is_some());
        }
        assert!(limits.cgroups().len() <= COUNTED);
        assert!(!connect(&limits, 0).await.unwrap().may_ask());
    }
}
