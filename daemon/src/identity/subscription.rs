//! All that a process is entitled to, as it changes: what programs that know SPIFFE are served.
//!
//! Where the data plane asks for the one identity that a process acts under, a program that knows
//! SPIFFE gets every one that matches, that of the data plane first. Nothing is remembered between
//! two answers but what would make the next one differ.

use std::sync::Arc;

use futures_util::future::select_all;
use tokio::sync::watch;

use super::issuer::IssueError;
use super::naming::IdentityError;
use super::resolve::{Identities, WorkloadIdentity};
use crate::attest::Attestation;
use crate::policy::DenyList;
use crate::registry::{RegistrationEntry, Registry};
use crate::spiffe::{BundleSet, X509Svid};
use crate::workload::ProcessClaim;

/// One identity of a process, as it is at one moment.
#[derive(Debug, Clone)]
pub struct HeldSvid {
    /// The entry that names it.
    pub entry: Arc<RegistrationEntry>,
    /// Its SVID.
    pub svid: Arc<X509Svid>,
}

/// What a process is entitled to at one moment.
#[derive(Debug, Clone)]
pub struct Entitlement {
    /// What is known about the process.
    pub attestation: Arc<Attestation>,
    /// Its identities, at least one; the default one first: that of the entry with the most
    /// selectors, and of several such the one with the lowest id.
    pub identities: Vec<HeldSvid>,
    /// Every bundle that this node knows. Never older than the SVIDs.
    pub bundles: Arc<BundleSet>,
}

/// Follows what a process is entitled to.
#[derive(Debug)]
pub struct Subscription {
    identities: Identities,
    registry: watch::Receiver<Arc<Registry>>,
    denied: watch::Receiver<Arc<DenyList>>,
    bundles: watch::Receiver<Arc<BundleSet>>,
    svids: Vec<watch::Receiver<Arc<X509Svid>>>,
}

/// Follows the SVID of one entry, whoever it is for.
#[derive(Debug)]
pub struct EntryWatch {
    identities: Identities,
    entry: String,
    registry: watch::Receiver<Arc<Registry>>,
    denied: watch::Receiver<Arc<DenyList>>,
    bundles: watch::Receiver<Arc<BundleSet>>,
    svid: Option<watch::Receiver<Arc<X509Svid>>>,
}

impl Identities {
    async fn obtain_all(
        &self,
        attestation: &Arc<Attestation>,
    ) -> Result<Vec<WorkloadIdentity>, IdentityError> {
        let slots = self.inner.slots_of(attestation)?;
        let mut found = Vec::with_capacity(slots.len());
        for (entry, slot) in slots {
            let attestation = Arc::clone(attestation);
            match slot.obtain(&self.inner.source).await {
                Ok(svid) => {
                    let federates_with = slot.federation();
                    found.push(WorkloadIdentity { entry, attestation, svid, federates_with });
                }
                Err(error) => return Err(IdentityError::NoSvid { attestation, entry, error }),
            }
        }
        Ok(found)
    }

    /// Follows what processes are entitled to.
    pub fn subscribe(&self) -> Subscription {
        Subscription {
            identities: self.clone(),
            registry: self.inner.registry.clone(),
            denied: self.inner.denied.clone(),
            bundles: self.bundles(),
            svids: Vec::new(),
        }
    }

    /// Follows the SVID of the entry with this id, whether there is one or not yet.
    pub fn watch_entry(&self, id: &str) -> EntryWatch {
        EntryWatch {
            identities: self.clone(),
            entry: id.to_owned(),
            registry: self.inner.registry.clone(),
            denied: self.inner.denied.clone(),
            bundles: self.bundles(),
            svid: None,
        }
    }
}

impl Subscription {
    /// What the process of this claim is entitled to now. The claim must be fresh: it is attested
    /// as it is.
    ///
    /// # Errors
    /// As for [`Identities::of`]; then the process is entitled to nothing.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn current(&mut self, claim: &ProcessClaim) -> Result<Entitlement, IdentityError> {
        self.svids.clear();
        // Seen before it is read: what changes in between is told by `changed`.
        self.registry.mark_unchanged();
        self.denied.mark_unchanged();
        let attestation = self.identities.inner.attestor.attest(claim).await?;
        let mut found = self.all_of(&attestation).await?;
        let held = |identity: &mut WorkloadIdentity| HeldSvid {
            entry: Arc::clone(&identity.entry),
            svid: Arc::clone(&identity.svid.borrow_and_update()),
        };
        let identities: Vec<_> = found.iter_mut().map(held).collect();
        // After the SVIDs: whoever signed them is in it already, since authorities are published
        // before they sign.
        let bundles = Arc::clone(&self.bundles.borrow_and_update());
        self.svids = found.into_iter().map(|identity| identity.svid).collect();
        Ok(Entitlement { attestation, identities, bundles })
    }

    async fn all_of(
        &self,
        attestation: &Arc<Attestation>,
    ) -> Result<Vec<WorkloadIdentity>, IdentityError> {
        loop {
            match self.identities.obtain_all(attestation).await {
                // Each further round needs yet another change of the registry meanwhile.
                Err(IdentityError::NoSvid { error: IssueError::EntryGone, .. }) => {}
                found => return found,
            }
        }
    }

    /// Resolves when [`Subscription::current`] may say something else than it did: entries,
    /// authorities or one of the SVIDs have changed.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn changed(&mut self) {
        let svids: Vec<_> = self.svids.iter_mut().map(|svid| Box::pin(svid.changed())).collect();
        let any_svid = async {
            // Closed is a change, too: the entry is gone.
            if svids.is_empty() {
                std::future::pending::<()>().await;
            } else {
                drop(select_all(svids).await);
            }
        };
        tokio::select! {
            () = change(&mut self.registry) => {}
            () = change(&mut self.denied) => {}
            () = change(&mut self.bundles) => {}
            () = any_svid => {}
        }
    }
}

impl EntryWatch {
    /// The SVID of the entry now, and every bundle that this node knows, which is never older.
    ///
    /// # Errors
    /// `EntryGone` if there is no such entry, `Denied` if its identity is denied, else the issuer's.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn current(&mut self) -> Result<(HeldSvid, Arc<BundleSet>), IssueError> {
        self.svid = None;
        // Seen before it is read: what changes in between is told by `changed`.
        self.registry.mark_unchanged();
        self.denied.mark_unchanged();
        let inner = &self.identities.inner;
        let (entry, slot) = inner.slot_by_id(&self.entry)?;
        let mut svid = slot.obtain(&inner.source).await?;
        let held = HeldSvid { entry, svid: Arc::clone(&svid.borrow_and_update()) };
        // After the SVID, as for a process.
        let bundles = Arc::clone(&self.bundles.borrow_and_update());
        self.svid = Some(svid);
        Ok((held, bundles))
    }

    /// Resolves when [`EntryWatch::current`] may say something else than it did.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn changed(&mut self) {
        let svid = async {
            match &mut self.svid {
                // Closed is a change, too: the entry is gone, or the SVID has expired.
                Some(svid) => drop(svid.changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = change(&mut self.registry) => {}
            () = change(&mut self.denied) => {}
            () = change(&mut self.bundles) => {}
            () = svid => {}
        }
    }
}

/// A source that is gone, as at the end of the daemon, never changes again.
async fn change<T>(source: &mut watch::Receiver<T>) {
    if source.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
