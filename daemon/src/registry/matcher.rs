//! Which entry fits a process: all its selectors must be among the process's, the entry with the
//! most selectors wins, and of several such the one with the lowest id (compared as text), the
//! others being reported as tied. Entries are filed under their rarest selector, so that a lookup
//! looks only at those filed under a selector of the process. Start at [`Registry::find`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{RegistrationEntry, RegistryError};
use crate::spiffe::TrustDomain;
use crate::workload::{Doubts, Selector, Selectors};

/// How many near misses are told.
const NEAR_MISSES: usize = 5;

/// A snapshot of all entries.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Registry {
    /// In the order of their ids.
    entries: Vec<Arc<RegistrationEntry>>,
    by_rarest: HashMap<Selector, Vec<Arc<RegistrationEntry>>>,
}

/// What fits a process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lookup {
    /// The entry that wins.
    pub entry: Option<Arc<RegistrationEntry>>,
    /// Others that match with as many selectors, in the order of their ids.
    pub tied: Vec<Arc<RegistrationEntry>>,
}

/// An entry that a process has some, but not all, selectors of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearMiss {
    /// The entry.
    pub entry: Arc<RegistrationEntry>,
    /// How many of its selectors the process has.
    pub matched: usize,
    /// The first, in sorted order, that it has not.
    pub missing: Selector,
}

impl Registry {
    /// Files the entries.
    ///
    /// # Errors
    /// Everything that is wrong with them, at once.
    pub fn new<E>(entries: Vec<E>) -> Result<Self, Vec<RegistryError>>
    where
        E: Into<Arc<RegistrationEntry>>,
    {
        let mut errors = Vec::new();
        let mut by_id: BTreeMap<String, Arc<RegistrationEntry>> = BTreeMap::new();
        for entry in entries {
            let entry: Arc<RegistrationEntry> = entry.into();
            let (id, origin) = (entry.id.clone(), entry.origin.clone());
            if entry.selectors.is_empty() {
                errors.push(RegistryError::NoSelectors { id, origin });
            } else if let Some(first) = by_id.get(&id) {
                let first = first.origin.clone();
                errors.push(RegistryError::DuplicateId { id, first, second: origin });
            } else {
                by_id.insert(id, entry);
            }
        }
        if errors.is_empty() { Ok(Self::file(by_id.into_values().collect())) } else { Err(errors) }
    }

    /// How many entries are federated with this trust domain.
    pub fn federated_with(&self, domain: &TrustDomain) -> usize {
        self.entries.iter().filter(|entry| entry.federates_with.contains(domain)).count()
    }

    fn file(entries: Vec<Arc<RegistrationEntry>>) -> Self {
        let mut uses: HashMap<&Selector, usize> = HashMap::new();
        for selector in entries.iter().flat_map(|entry| &entry.selectors) {
            *uses.entry(selector).or_default() += 1;
        }
        let mut by_rarest: HashMap<Selector, Vec<_>> = HashMap::new();
        for entry in &entries {
            // Never absent: `new` refuses entries without selectors.
            if let Some(rarest) = entry.selectors.iter().min_by_key(|it| uses.get(*it)) {
                by_rarest.entry(rarest.clone()).or_default().push(Arc::clone(entry));
            }
        }
        Self { entries, by_rarest }
    }

    /// The entry for a process with these selectors.
    pub fn find(&self, selectors: &Selectors) -> Lookup {
        let mut best: Vec<&Arc<RegistrationEntry>> = Vec::new();
        for entry in self.matching(selectors) {
            let most = best.first().map_or(0, |best| best.selectors.len());
            if entry.selectors.len() > most {
                best.clear();
            }
            if entry.selectors.len() >= most {
                best.push(entry);
            }
        }
        best.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let mut best = best.into_iter().map(Arc::clone);
        Lookup { entry: best.next(), tied: best.collect() }
    }

    /// An entry that [`Registry::find`] would have given instead of `found`, if what is in doubt
    /// about the process holds of it. Then nobody can say whose it is. Looks at every entry, if
    /// anything is in doubt.
    pub fn rival(
        &self,
        selectors: &Selectors,
        doubts: Doubts,
        found: Option<&RegistrationEntry>,
    ) -> Option<Arc<RegistrationEntry>> {
        if !doubts.any() {
            return None;
        }
        let rank = |entry: &RegistrationEntry| (entry.selectors.len(), Reverse(entry.id.clone()));
        let found = found.map(rank);
        let may_fit = |entry: &RegistrationEntry| {
            entry.selectors.iter().all(|one| selectors.contains(one) || doubts.cover(one))
        };
        self.entries
            .iter()
            .find(|entry| may_fit(entry) && Some(rank(entry)) > found)
            .map(Arc::clone)
    }

    /// Every entry that fits a process with these selectors, the one of [`Registry::find`] first:
    /// by the number of their selectors, most first, then by their ids.
    pub fn find_all(&self, selectors: &Selectors) -> Vec<Arc<RegistrationEntry>> {
        let mut found: Vec<_> = self.matching(selectors).map(Arc::clone).collect();
        found.sort_unstable_by(|a, b| {
            b.selectors.len().cmp(&a.selectors.len()).then_with(|| a.id.cmp(&b.id))
        });
        found
    }

    fn matching<'a>(
        &'a self,
        selectors: &'a Selectors,
    ) -> impl Iterator<Item = &'a Arc<RegistrationEntry>> {
        let filed = selectors.iter().filter_map(|selector| self.by_rarest.get(selector)).flatten();
        filed.filter(|entry| entry.selectors.is_subset(selectors))
    }

    /// The entries that come closest without matching, most matched first: what `tacit explain`
    /// shows. Looks at every entry.
    pub fn near_misses(&self, selectors: &Selectors) -> Vec<NearMiss> {
        let mut misses: Vec<NearMiss> = self
            .entries
            .iter()
            .filter_map(|entry| {
                let missing = entry.selectors.difference(selectors).next()?.clone();
                let matched = entry.selectors.intersection(selectors).count();
                (matched > 0).then(|| NearMiss { entry: Arc::clone(entry), matched, missing })
            })
            .collect();
        // Stable: equals stay in the order of their ids.
        misses.sort_by_key(|miss| {
            (Reverse(miss.matched), miss.entry.selectors.len().saturating_sub(miss.matched))
        });
        misses.truncate(NEAR_MISSES);
        misses
    }

    /// Every entry, in the order of their ids.
    pub fn entries(&self) -> &[Arc<RegistrationEntry>] {
        &self.entries
    }

    /// Groups of entries with the very same selectors: whatever process matches one of a group
    /// matches all of it, and only the first can ever win.
    pub fn twins(&self) -> Vec<Vec<Arc<RegistrationEntry>>> {
        let mut groups: BTreeMap<&Selectors, Vec<_>> = BTreeMap::new();
        for entry in &self.entries {
            groups.entry(&entry.selectors).or_default().push(Arc::clone(entry));
        }
        groups.into_values().filter(|group| group.len() > 1).collect()
    }

    /// How many entries a lookup looks at for one selector, at most.
    #[cfg(test)]
    pub(super) fn longest_bucket(&self) -> usize {
        self.by_rarest.values().map(Vec::len).max().unwrap_or(0)
    }
}
