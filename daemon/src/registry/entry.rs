//! One registration entry, and what can be wrong with a set of them.

use std::collections::BTreeSet;
use std::time::Duration;

use thiserror::Error;

use crate::spiffe::{SpiffeId, TrustDomain};
use crate::workload::Selectors;

/// Gives a SPIFFE ID to every process that has all of these selectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationEntry {
    /// Unique id; decides between entries that match equally well.
    pub id: String,
    /// The identity.
    pub spiffe_id: SpiffeId,
    /// What a process must have, all of it; at least one.
    pub selectors: Selectors,
    /// Lifetime of its X.509-SVIDs; the issuer's own if absent.
    pub svid_ttl: Option<Duration>,
    /// Lifetime of its JWT-SVIDs; the issuer's own if absent.
    pub jwt_svid_ttl: Option<Duration>,
    /// What the identity is for, told to workloads that have several; empty if it says nothing.
    pub hint: String,
    /// DNS names in its X.509-SVIDs, the first of them also the common name.
    pub dns_names: Vec<String>,
    /// Trust domains whose bundles its workloads get beside their own.
    pub federates_with: BTreeSet<TrustDomain>,
    /// Where the entry was read from, for people.
    pub origin: String,
}

impl RegistrationEntry {
    /// An entry that says no more than it must.
    pub fn new(id: &str, spiffe_id: SpiffeId, selectors: Selectors, origin: &str) -> Self {
        Self {
            id: id.to_owned(),
            spiffe_id,
            selectors,
            svid_ttl: None,
            jwt_svid_ttl: None,
            hint: String::new(),
            dns_names: Vec::new(),
            federates_with: BTreeSet::new(),
            origin: origin.to_owned(),
        }
    }
}

/// Why entries cannot stand together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RegistryError {
    /// Two entries share an id.
    #[error("entry id `{id}` of {second} is already used by {first}; give one of them another id")]
    DuplicateId {
        /// The id.
        id: String,
        /// Origin of the entry that came first.
        first: String,
        /// Origin of the other.
        second: String,
    },
    /// An entry would match every process.
    #[error("entry `{id}` of {origin} has no selectors; give it at least one")]
    NoSelectors {
        /// The entry's id.
        id: String,
        /// Its origin.
        origin: String,
    },
}
