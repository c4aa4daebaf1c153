//! From a claim to an identity: attest, find the entry, have its SVID at hand.
//! [`Identities::of`] is the one question that the data plane asks.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, watch};

use super::issuer::{AuthorityStatus, IssueError, Issuer};
use super::jwt::JwtCache;
use super::naming::{IdentityError, Naming};
use super::slot::{Profile, Slot, SlotKey, Source, SvidStatus};
use crate::attest::{Attestation, Attestor};
use crate::policy::{DenyItem, DenyList};
use crate::registry::{RegistrationEntry, Registry, SeenTies, Ties};
use crate::spiffe::{BundleSet, SpiffeId, TrustDomain, X509Svid};
use crate::sys::clock;
use crate::workload::ProcessClaim;

/// How identities are kept.
#[derive(Debug, Clone)]
pub struct IdentitySettings {
    /// Lifetime of an SVID whose entry names none.
    pub svid_ttl: Duration,
    /// Lifetime of a JWT-SVID whose entry names none.
    pub jwt_svid_ttl: Duration,
    /// What JWT-SVIDs name as their issuer (`iss`), if anything.
    pub jwt_issuer: Option<Arc<str>>,
    /// How many entries get their SVID before anybody asks for it, in the order of their ids.
    pub prefetch: usize,
    /// The longest that an issuer may take.
    pub issue_timeout: Duration,
    /// Wall-clock time.
    pub clock: fn() -> SystemTime,
}

impl Default for IdentitySettings {
    fn default() -> Self {
        Self {
            svid_ttl: Duration::from_hours(1),
            jwt_svid_ttl: Duration::from_mins(5),
            jwt_issuer: None,
            prefetch: 1000,
            issue_timeout: Duration::from_secs(10),
            clock: clock::now,
        }
    }
}

/// Who a process is, and with what it proves it.
#[derive(Debug, Clone)]
pub struct WorkloadIdentity {
    /// The entry that names it.
    pub entry: Arc<RegistrationEntry>,
    /// What is known about the process.
    pub attestation: Arc<Attestation>,
    /// Its SVID now and after each renewal. It closes when the entry is removed or changed, or
    /// when the SVID has expired (then the last one seen is past its `not_after`).
    pub svid: watch::Receiver<Arc<X509Svid>>,
    /// The trust domains that the entry is federated with, as they change: beside its own it trusts
    /// these and no others.
    pub federates_with: watch::Receiver<Arc<BTreeSet<TrustDomain>>>,
}

/// Everything about identities on this node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Identities {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) attestor: Attestor,
    pub(super) registry: watch::Receiver<Arc<Registry>>,
    pub(super) denied: watch::Receiver<Arc<DenyList>>,
    pub(super) source: Source,
    pub(super) settings: IdentitySettings,
    pub(super) jwts: JwtCache,
    slots: Mutex<HashMap<SlotKey, Arc<Slot>>>,
    ties: SeenTies,
}

impl WorkloadIdentity {
    /// What the entries said of the process.
    pub fn naming(&self) -> Naming {
        Naming { attestation: Arc::clone(&self.attestation), entry: Some(Arc::clone(&self.entry)) }
    }
}

impl Identities {
    /// Nothing is issued before [`Identities::run`] or the first question.
    pub fn new(
        attestor: Attestor,
        registry: watch::Receiver<Arc<Registry>>,
        denied: watch::Receiver<Arc<DenyList>>,
        issuer: Arc<dyn Issuer>,
        settings: IdentitySettings,
    ) -> Self {
        let source = Source {
            issuer,
            timeout: settings.issue_timeout,
            clock: settings.clock,
            woken: Arc::new(Notify::new()),
            asked: Arc::default(),
        };
        let (slots, ties, jwts) = (Mutex::default(), SeenTies::default(), JwtCache::default());
        let inner = Inner { attestor, registry, denied, source, settings, jwts, slots, ties };
        Self { inner: Arc::new(inner) }
    }

    /// Who is this process?
    ///
    /// # Errors
    /// See [`IdentityError`]. Never an SVID that has expired: a peer would refuse it, and a record
    /// would name an identity that was not proved.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn of(&self, claim: &ProcessClaim) -> Result<WorkloadIdentity, IdentityError> {
        let attestation = self.inner.attestor.attest(claim).await?;
        loop {
            let (entry, slot) = self.inner.slot_of(&attestation)?;
            match slot.obtain(&self.inner.source).await {
                Ok(svid) => {
                    let federates_with = slot.federation();
                    return Ok(WorkloadIdentity { entry, attestation, svid, federates_with });
                }
                // Each further round needs yet another change of the registry meanwhile.
                Err(IssueError::EntryGone) => {}
                Err(error) => {
                    return Err(IdentityError::NoSvid { attestation, entry, error });
                }
            }
        }
    }

    /// Whether the entries in force now say of a process what they said then.
    pub fn still_say(&self, naming: &Naming) -> bool {
        let registry = Arc::clone(&self.inner.registry.borrow());
        let found = registry.find(&naming.attestation.selectors).entry;
        let is_certain = certain(&registry, &naming.attestation, found.as_deref()).is_ok();
        // In doubt it is nobody.
        let found = found.filter(|_| is_certain);
        found.as_deref().map(SlotKey::from) == naming.entry.as_deref().map(SlotKey::from)
    }

    /// Brings SVIDs in line with the entries: those of entries that are gone are withdrawn. Done by
    /// itself soon after a change of entries, and at once by this.
    pub fn reconcile(&self) {
        self.inner.reconcile();
    }

    /// Why this identity is denied, if it is.
    pub fn denied(&self, id: &SpiffeId) -> Option<DenyItem> {
        self.inner.denied.borrow().id(id).cloned()
    }

    /// Whom to trust.
    pub fn bundles(&self) -> watch::Receiver<Arc<BundleSet>> {
        self.inner.source.issuer.bundles()
    }

    /// The authorities that this node signs with or under.
    pub fn authorities(&self) -> Vec<AuthorityStatus> {
        self.inner.source.issuer.authorities()
    }

    /// Entries that match a process equally well.
    pub fn ties(&self) -> Ties {
        let registry = Arc::clone(&self.inner.registry.borrow());
        self.inner.ties.among(&registry)
    }

    /// How often the issuer has been asked for an SVID: with success, and in vain.
    pub fn asked(&self) -> (u64, u64) {
        let asked = &self.inner.source.asked;
        (asked.issued.load(Ordering::Relaxed), asked.failed.load(Ordering::Relaxed))
    }

    /// Every SVID, in the order of the entries' ids.
    pub fn svids(&self) -> Vec<SvidStatus> {
        let mut svids: Vec<_> = self.inner.all_slots().iter().map(|slot| slot.status()).collect();
        svids.sort_by(|a, b| a.entry.cmp(&b.entry));
        svids
    }
}

/// An entry, and the place of its SVID.
type Filed = (Arc<RegistrationEntry>, Arc<Slot>);

/// Whether nothing that is in doubt could make the process another entry's.
fn certain(
    registry: &Registry,
    attestation: &Arc<Attestation>,
    found: Option<&RegistrationEntry>,
) -> Result<(), IdentityError> {
    match registry.rival(&attestation.selectors, attestation.doubts, found) {
        Some(rival) => Err(IdentityError::Doubtful { attestation: Arc::clone(attestation), rival }),
        None => Ok(()),
    }
}

impl Inner {
    /// The entry of a process and the place of its SVID. The registry is read while the slots are
    /// locked: a slot is thus never made for an entry that [`Inner::reconcile`] has just retired.
    pub(super) fn slot_of(&self, attestation: &Arc<Attestation>) -> Result<Filed, IdentityError> {
        let mut slots = self.slots();
        let registry = Arc::clone(&self.registry.borrow());
        let found = registry.find(&attestation.selectors);
        certain(&registry, attestation, found.entry.as_deref())?;
        let Some(entry) = found.entry else {
            return Err(IdentityError::NoEntry { attestation: Arc::clone(attestation) });
        };
        if let Some(item) = self.denied.borrow().id(&entry.spiffe_id).cloned() {
            let attestation = Arc::clone(attestation);
            return Err(IdentityError::Denied { attestation, entry, item });
        }
        self.ties.note(&entry, &found.tied);
        let slot = self.slot(&mut slots, &entry);
        Ok((entry, slot))
    }

    /// Every entry of a process and the place of its SVID, at least one, in the order of
    /// [`Registry::find_all`]; as [`Inner::slot_of`].
    pub(super) fn slots_of(
        &self,
        attestation: &Arc<Attestation>,
    ) -> Result<Vec<Filed>, IdentityError> {
        let mut slots = self.slots();
        let registry = Arc::clone(&self.registry.borrow());
        let entries = registry.find_all(&attestation.selectors);
        certain(&registry, attestation, entries.first().map(AsRef::as_ref))?;
        if entries.is_empty() {
            return Err(IdentityError::NoEntry { attestation: Arc::clone(attestation) });
        }
        let denied = Arc::clone(&self.denied.borrow());
        let refused = entries.iter().find(|entry| denied.id(&entry.spiffe_id).is_some()).cloned();
        let entries: Vec<_> =
            entries.into_iter().filter(|entry| denied.id(&entry.spiffe_id).is_none()).collect();
        if let Some((entry, item)) = refused
            .filter(|_| entries.is_empty())
            .and_then(|entry| denied.id(&entry.spiffe_id).cloned().map(|item| (entry, item)))
        {
            let attestation = Arc::clone(attestation);
            return Err(IdentityError::Denied { attestation, entry, item });
        }
        let place = |entry: Arc<RegistrationEntry>| {
            let slot = self.slot(&mut slots, &entry);
            (entry, slot)
        };
        Ok(entries.into_iter().map(place).collect())
    }

    /// The entry with this id and the place of its SVID; as [`Inner::slot_of`].
    pub(super) fn slot_by_id(&self, id: &str) -> Result<Filed, IssueError> {
        let mut slots = self.slots();
        let registry = Arc::clone(&self.registry.borrow());
        let entries = registry.entries();
        let at = entries.binary_search_by(|entry| entry.id.as_str().cmp(id));
        let entry = at.ok().and_then(|at| entries.get(at)).ok_or(IssueError::EntryGone)?;
        if let Some(item) = self.denied.borrow().id(&entry.spiffe_id) {
            return Err(IssueError::Denied(item.to_string()));
        }
        let slot = self.slot(&mut slots, entry);
        Ok((Arc::clone(entry), slot))
    }

    fn slot(
        &self,
        slots: &mut HashMap<SlotKey, Arc<Slot>>,
        entry: &RegistrationEntry,
    ) -> Arc<Slot> {
        let ttl = entry.svid_ttl.unwrap_or(self.settings.svid_ttl);
        let profile = Profile { ttl, dns_names: entry.dns_names.clone() };
        let key = SlotKey::from(entry);
        let slot =
            slots.entry(key.clone()).or_insert_with(|| Arc::new(Slot::new(key, profile.clone())));
        slot.set_profile(profile);
        slot.set_federation(&entry.federates_with);
        Arc::clone(slot)
    }

    /// Brings the slots in line with the registry: those of entries that are gone, or whose identity is
    /// denied, are closed,
    /// those to be fetched ahead are made.
    pub(super) fn reconcile(&self) {
        let mut slots = self.slots();
        let registry = Arc::clone(&self.registry.borrow());
        let denied = Arc::clone(&self.denied.borrow());
        self.ties.retain(&registry);
        let is_denied = |entry: &RegistrationEntry| denied.id(&entry.spiffe_id).is_some();
        let known: HashSet<SlotKey> = registry
            .entries()
            .iter()
            .filter(|entry| !is_denied(entry))
            .map(|entry| SlotKey::from(entry.as_ref()))
            .collect();
        slots.retain(|key, slot| {
            let kept = known.contains(key);
            if !kept {
                slot.retire();
            }
            kept
        });
        for (at, entry) in registry.entries().iter().enumerate() {
            if is_denied(entry) {
                continue;
            }
            // Beyond the limit, only what somebody has asked for is kept fresh.
            if at < self.settings.prefetch || slots.contains_key(&SlotKey::from(entry.as_ref())) {
                self.slot(&mut slots, entry);
            }
        }
    }

    /// All of them, as they are now.
    pub(super) fn all_slots(&self) -> Vec<Arc<Slot>> {
        self.slots().values().map(Arc::clone).collect()
    }

    /// A panic while it is held leaves at most one slot too few.
    fn slots(&self) -> MutexGuard<'_, HashMap<SlotKey, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
