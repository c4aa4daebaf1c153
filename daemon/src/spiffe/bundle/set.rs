//! Every bundle that a node knows.
//!
//! Bundles of different trust domains are never merged (SPIFFE Federation §4.2): a [`BundleSet`]
//! is asked for one trust domain and answers with that one's authorities only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::TrustBundle;
use crate::spiffe::{SpiffeId, TrustDomain};

/// Bundles, by trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BundleSet(BTreeMap<TrustDomain, Arc<TrustBundle>>);

impl BundleSet {
    /// The bundle of this trust domain, and of no other.
    pub fn get(&self, trust_domain: &TrustDomain) -> Option<&Arc<TrustBundle>> {
        self.0.get(trust_domain)
    }

    /// The bundle that may vouch for this ID.
    pub fn for_id(&self, id: &SpiffeId) -> Option<&Arc<TrustBundle>> {
        self.get(id.trust_domain())
    }

    /// The same set with these bundles in place of those of their trust domains.
    #[must_use]
    pub fn with(&self, bundles: impl IntoIterator<Item = TrustBundle>) -> Self {
        let mut all = self.0.clone();
        let fresh = bundles.into_iter();
        all.extend(fresh.map(|bundle| (bundle.trust_domain().clone(), Arc::new(bundle))));
        Self(all)
    }

    /// The bundle of `own`, with those of `others` in place of all other bundles. What `others`
    /// says of `own` does not count: nobody else says who vouches for a trust domain.
    #[must_use]
    pub fn beside(&self, own: &TrustDomain, others: &Self) -> Self {
        let mut all = others.0.clone();
        all.remove(own);
        all.extend(self.0.get(own).map(|bundle| (own.clone(), Arc::clone(bundle))));
        Self(all)
    }

    /// The bundles of `own` and of those that it is federated with: whom one workload trusts.
    #[must_use]
    pub fn within(&self, own: &TrustDomain, federates_with: &BTreeSet<TrustDomain>) -> Self {
        let domains = std::iter::once(own).chain(federates_with);
        let known = domains.filter_map(|domain| self.0.get_key_value(domain));
        Self(known.map(|(domain, bundle)| (domain.clone(), Arc::clone(bundle))).collect())
    }

    /// All bundles, by trust domain.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TrustBundle>> {
        self.0.values()
    }
}

impl FromIterator<TrustBundle> for BundleSet {
    fn from_iter<I: IntoIterator<Item = TrustBundle>>(bundles: I) -> Self {
        Self::default().with(bundles)
    }
}

impl FromIterator<Arc<TrustBundle>> for BundleSet {
    fn from_iter<I: IntoIterator<Item = Arc<TrustBundle>>>(bundles: I) -> Self {
        let bundles = bundles.into_iter();
        Self(bundles.map(|bundle| (bundle.trust_domain().clone(), bundle)).collect())
    }
}
