//! Puts another configuration into force as one: scopes, entries and rules. While one of them is the
//! new one's and another still the old one's, nothing is settled, and no connection is admitted.

use std::sync::Arc;

use tokio::sync::watch;

use crate::bpf::LoadError;
use crate::config::Config;
use crate::identity::Identities;
use crate::policy::Policy;
use crate::state::LiveEntries;
use crate::workload::FileSet;

use super::scopes::ScopeTable;

/// What a configuration changes while the daemon runs.
#[derive(Debug, Clone)]
pub(super) struct InForce {
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
    /// Why the kernel does not take the scopes; then all is as it was.
    pub(super) fn take_up(&self, config: &Config) -> Result<(), LoadError> {
        let policy = Arc::new(config.policy());
        self.settled.send_replace(false);
        let scopes = self.table.apply(&config.scopes);
        if scopes.is_ok() {
            self.entries.declare(Arc::clone(&config.registry));
            self.identities.reconcile();
            self.policy.send_replace(policy);
            self.files.send_replace(Arc::new(config.files.clone()));
        }
        self.settled.send_replace(true);
        scopes
    }
}
