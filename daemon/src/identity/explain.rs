//! Why a process has the identity that it has, or none: what `tacit explain` shows.

use std::sync::Arc;

use super::resolve::Identities;
use crate::attest::{AttestError, Attestation};
use crate::policy::DenyItem;
use crate::registry::{NearMiss, RegistrationEntry};
use crate::workload::ProcessClaim;

/// How a claim is judged, step by step.
#[derive(Debug)]
pub struct Explanation {
    /// What is known about the process, or why nothing is.
    pub attestation: Result<Arc<Attestation>, AttestError>,
    /// The entry that names it.
    pub entry: Option<Arc<RegistrationEntry>>,
    /// Why the identity that it gives is denied, if it is.
    pub denied: Option<DenyItem>,
    /// Entries that match as well, and lose by their id.
    pub tied: Vec<Arc<RegistrationEntry>>,
    /// Entries that nearly match, each with the first selector that is missing.
    pub near_misses: Vec<NearMiss>,
}

impl Identities {
    /// What is known at little cost of a process in a record that grants nothing, and the entry that
    /// names it as far as that can be said: see [`crate::attest::Attestor::glance`].
    ///
    /// # Errors
    /// As for [`crate::attest::Attestor::glance`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn glance(
        &self,
        claim: &ProcessClaim,
    ) -> Result<(Arc<Attestation>, Option<Arc<RegistrationEntry>>), AttestError> {
        let found = self.inner.attestor.glance(claim).await?;
        let registry = Arc::clone(&self.inner.registry.borrow());
        let entry = registry.find(&found.selectors).entry;
        let rival = registry.rival(&found.selectors, found.doubts, entry.as_deref());
        let entry = entry.filter(|_| rival.is_none());
        Ok((found, entry))
    }

    /// Judges a claim as [`Identities::of`] does, and keeps what it saw. Issues nothing.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn explain(&self, claim: &ProcessClaim) -> Explanation {
        let attestation = self.inner.attestor.attest(claim).await;
        let Ok(found) = &attestation else {
            return Explanation {
                attestation,
                entry: None,
                denied: None,
                tied: Vec::new(),
                near_misses: Vec::new(),
            };
        };
        let registry = Arc::clone(&self.inner.registry.borrow());
        let lookup = registry.find(&found.selectors);
        let near_misses = registry.near_misses(&found.selectors);
        let denied = lookup.entry.as_ref().and_then(|entry| self.denied(&entry.spiffe_id));
        Explanation { attestation, denied, entry: lookup.entry, tied: lookup.tied, near_misses }
    }
}
