//! Orders about live entries, and what became of them, as serde sees them; field names are public.

use serde::{Deserialize, Serialize};

/// Entries to add.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddEntries {
    /// Where they come from, for people: a file, or the command line.
    pub source: String,
    /// Whether they take the place of live entries of the same ids.
    pub replace: bool,
    /// The entries.
    pub entries: Vec<NewEntry>,
}

/// An entry as `tacit entries add` gives it; what is wrong with it, the daemon says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewEntry {
    /// Unique id; made of the SPIFFE ID and the selectors if absent.
    pub id: Option<String>,
    /// The identity.
    pub spiffe_id: String,
    /// What a process must have, all of it.
    pub selectors: Vec<String>,
    /// Lifetime of its X.509-SVIDs, seconds.
    pub svid_ttl: Option<u64>,
    /// Lifetime of its JWT-SVIDs, seconds.
    pub jwt_svid_ttl: Option<u64>,
    /// What the identity is for.
    pub hint: Option<String>,
    /// DNS names in its X.509-SVIDs.
    pub dns_names: Vec<String>,
    /// Trust domains whose bundles its workloads get.
    pub federates_with: Vec<String>,
}

/// What became of live entries. By the time of the answer it is on the disk and in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntriesChanged {
    /// Ids of those that were added.
    pub added: Vec<String>,
    /// Ids of those that were there already, and the same.
    pub unchanged: Vec<String>,
    /// Ids of those that were removed.
    pub removed: Vec<String>,
    /// What is worth telling and stopped nothing.
    pub warnings: Vec<String>,
}
