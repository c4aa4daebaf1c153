//! Puts another configuration into force as one: scopes, entries and rules. While one of them is the
//! new one's and another still the old one's, nothing is settled, and no connection is admitted.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::config::Config;
use crate::identity::Identities;
use crate::policy::{DenyList, Policy};
use crate::state::{ForeignBundles, LiveDenials, LiveEntries, StateError};
use crate::workload::FileSet;

use super::base::Base;
use super::extent::Extent;
use super::scopes::ScopeTable;

/// What a configuration changes while the daemon runs.
#[derive(Debug, Clone)]
pub(super) struct InForce {
    /// What was kept of privileges.
    pub(super) extent: Extent,
    pub(super) table: ScopeTable,
    pub(super) entries: LiveEntries,
    pub(super) bundles: ForeignBundles,
    pub(super) identities: Identities,
    pub(super) policy: watch::Sender<Arc<Policy>>,
    pub(super) denials: LiveDenials,
    pub(super) denied: watch::Sender<Arc<DenyList>>,
    /// Held over each change of what is denied.
    pub(super) denying: Arc<Mutex<()>>,
    /// SVIDs that are kept in files.
    pub(super) files: watch::Sender<Arc<Vec<FileSet>>>,
    pub(super) settled: watch::Sender<bool>,
}

impl InForce {
    /// What this configuration says, with what was changed while earlier daemons ran. The scopes are
    /// not given to the kernel yet. Blocks on files.
    ///
    /// # Errors
    /// What the daemon keeps cannot be used.
    pub(super) fn open(
        config: &Config,
        base: &Base,
        extent: Extent,
        table: ScopeTable,
    ) -> Result<Self, StateError> {
        let state_dir = &config.node.state_dir;
        let domain = config.node.trust_domain.clone();
        let entries = LiveEntries::open(state_dir, domain, Arc::clone(&config.registry))?;
        let denials = LiveDenials::open(state_dir, config.denied.clone())?;
        let list = Arc::new(denials.list());
        let policy = Policy { denied: Arc::clone(&list), ..config.policy() };
        let (policy, denied) = (watch::Sender::new(Arc::new(policy)), watch::Sender::new(list));
        let identities = base.identities(config, entries.registry(), denied.subscribe());
        let files = watch::Sender::new(Arc::new(config.files.clone()));
        let settled = watch::Sender::new(true);
        let bundles = base.bundles.clone();
        Ok(Self {
            extent,
            table,
            entries,
            bundles,
            identities,
            policy,
            denials,
            denied,
            denying: Arc::default(),
            files,
            settled,
        })
    }

    /// The one call that changes what holds.
    ///
    /// # Errors
    /// Why it cannot be in force. If the kernel does not take the scopes, entries and rules are as they were, and the scopes
    /// no less strict than they were until they are written again, which [`ScopeTable::run`] does.
    pub(super) fn take_up(&self, config: &Config) -> Result<(), String> {
        self.extent.allows(config)?;
        let _unsettled = Unsettled::begin(&self.settled);
        self.table.apply(&config.scopes).map_err(|error| error.to_string())?;
        self.denials.declare(&config.denied);
        self.bundles.declare(&config.relationships);
        self.entries.declare(Arc::clone(&config.registry));
        self.deny(|denied| {
            let denied = Arc::clone(denied);
            self.policy.send_replace(Arc::new(Policy { denied, ..config.policy() }));
        });
        self.files.send_replace(Arc::new(config.files.clone()));
        Ok(())
    }

    /// Puts the deny list into force as it is now: connections are cut by it before SVIDs are
    /// withdrawn, so that records say why. One at a time, so that no list takes the place of a newer
    /// one; `before` is shown it first.
    pub(super) fn deny<T>(&self, before: impl FnOnce(&Arc<DenyList>) -> T) -> T {
        let _turn = self.denying.lock().unwrap_or_else(PoisonError::into_inner);
        let denied = Arc::new(self.denials.list());
        let told = before(&denied);
        self.policy.send_modify(|policy| Arc::make_mut(policy).denied = Arc::clone(&denied));
        self.denied.send_replace(denied);
        self.identities.reconcile();
        told
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
