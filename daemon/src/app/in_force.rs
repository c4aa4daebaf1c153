//! Puts another configuration into force as one: scopes, entries and rules. While one of them is the
//! new one's and another still the old one's, nothing is settled, and no connection is admitted.

use std::sync::Arc;

use tokio::sync::watch;

use crate::config::Config;
use crate::identity::Identities;
use crate::policy::Policy;
use crate::state::LiveEntries;
use crate::workload::FileSet;

use super::extent::Extent;
use super::scopes::ScopeTable;

/// What a configuration changes while the daemon runs.
#[derive(Debug, Clone)]
pub(super) struct InForce {
    /// What was kept of privileges.
    pub(super) extent: Extent,
    pub(super) table: ScopeTable,
    pub(super) entries: LiveEntries,
    pub(super) identities: Identities,
    pub(super) policy: watch::Sender<Arc<Policy>>,
    /// SVIDs that are kept in files.
    pub(super) files: watch::Sender<Arc<Vec<FileSet>>>,
    pub(super) settled: watch::Sender<bool>,
}

impl InForce {
    /// The one call that changes what holds.
    ///
    /// # Errors
    /// Why it cannot be in force. If the kernel does not take the scopes, entries and rules are as they were, and the scopes
    /// no less strict than they were until they are written again, which [`ScopeTable::run`] does.
    pub(super) fn take_up(&self, config: &Config) -> Result<(), String> {
        self.extent.allows(config)?;
        let policy = Arc::new(config.policy());
        let _unsettled = Unsettled::begin(&self.settled);
        self.table.apply(&config.scopes).map_err(|error| error.to_string())?;
        self.entries.declare(Arc::clone(&config.registry));
        self.identities.reconcile();
        self.policy.send_replace(policy);
        self.files.send_replace(Arc::new(config.files.clone()));
        Ok(())
    }
}

/// Nothing is settled while this lives: not for ever, whatever happens.
struct Unsettled<'a>(&'a watch::Sender<bool>);

impl<'a> Unsettled<'a> {
    fn begin(settled: &'a watch::Sender<bool>) -> Self {
        settled.send_replace(false);
        Self(settled)
    }
}

impl Drop for Unsettled<'_> {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_panics_is_over_too() {
        let (settled, mut seen) = watch::channel(true);
        let taken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _unsettled = Unsettled::begin(&settled);
            assert!(!*seen.borrow_and_update());
            panic!("on purpose");
        }));
        assert!(taken.is_err() && *seen.borrow());
    }
}
