//! What the control surface may ask to be changed. Implemented where everything is known, as
//! [`super::Snapshots`] is; each change says who asked for it, by what the kernel says of the
//! caller. The orders and what became of them are here as serde sees them; field names are public.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Answer;

/// Who asks for a change: the process at the other end of the control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// Its effective user when it connected.
    pub uid: u32,
    /// Its pid, where the kernel says so.
    pub pid: Option<u32>,
}

/// The daemon as the control surface changes it. What is refused changes nothing.
pub trait Changes: Send + Sync + 'static {
    /// Adds live entries: all of them or none.
    fn add_entries(&self, order: AddEntries, asker: Asker) -> Answer<'_, EntriesChanged>;

    /// Removes live entries by their ids: all of them or none.
    fn remove_entries(&self, ids: Vec<String>, asker: Asker) -> Answer<'_, EntriesChanged>;

    /// Puts a bundle in place of what is known of another trust domain.
    fn set_bundle(&self, order: SetBundle, asker: Asker) -> Answer<'_, BundleChanged>;

    /// Forgets the bundle of another trust domain.
    fn delete_bundle(&self, order: DeleteBundle, asker: Asker) -> Answer<'_, BundleChanged>;
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "user {} (pid {pid})", self.uid),
            None => write!(f, "user {}", self.uid),
        }
    }
}

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

/// A bundle to trust.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetBundle {
    /// Whose it is.
    pub trust_domain: String,
    /// PEM, or SPIFFE's JSON.
    pub text: String,
}

/// A bundle to forget.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteBundle {
    /// Whose it is.
    pub trust_domain: String,
}

/// What became of a bundle. By the time of the answer it is on the disk and in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleChanged {
    /// Whose it is.
    pub trust_domain: String,
    /// How many authorities for X.509-SVIDs are known now; none without a bundle.
    pub authorities: Option<usize>,
    /// How many for JWT-SVIDs.
    pub jwt_authorities: usize,
    /// How many entries are federated with the trust domain.
    pub entries: usize,
}
