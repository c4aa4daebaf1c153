//! What is told of reloads: metrics, one audit record for each configuration that was taken over or
//! refused, and when the one in force was loaded.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;

use crate::audit::Audit;
use crate::config::ReloadStatus;
use crate::metrics::Metrics;
use crate::shutdown::Stop;

/// When the configuration in force was loaded. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::app) struct Loaded(Arc<Mutex<SystemTime>>);

impl Loaded {
    pub(in crate::app) fn new(at: SystemTime) -> Self {
        Self(Arc::new(Mutex::new(at)))
    }

    pub(in crate::app) fn at(&self) -> SystemTime {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, at: SystemTime) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }
}

/// Tells of each reload until the daemon drains.
pub(in crate::app) struct Reloads {
    pub(in crate::app) status: watch::Receiver<ReloadStatus>,
    pub(in crate::app) metrics: Arc<Metrics>,
    pub(in crate::app) audit: Audit,
    pub(in crate::app) loaded: Loaded,
    pub(in crate::app) clock: fn() -> SystemTime,
}

impl Reloads {
    pub(in crate::app) async fn tell(mut self, mut stop: Stop) {
        let mut before = ReloadStatus::default();
        loop {
            let now = self.status.borrow_and_update().clone();
            self.differ(&before, &now);
            before = now;
            tokio::select! {
                biased;
                () = stop.draining() => return,
                changed = self.status.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Several reloads in quick succession are one record, and counted as many.
    fn differ(&self, before: &ReloadStatus, now: &ReloadStatus) {
        self.metrics.policy_epoch(now.epoch);
        for _ in before.taken_over..now.taken_over {
            self.metrics.reloaded(true);
        }
        for _ in before.refused..now.refused {
            self.metrics.reloaded(false);
        }
        if now.taken_over > before.taken_over {
            self.loaded.set((self.clock)());
            self.audit.daemon("config_reloaded", Some(format!("epoch {}", now.epoch)));
        }
        if let Some(error) = now.error.as_ref().filter(|_| now.refused > before.refused) {
            self.audit.daemon("config_refused", Some(error.to_string()));
        }
    }
}
