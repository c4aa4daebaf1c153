//! What the control surface may ask to be changed. Implemented where everything is known, as
//! [`super::Snapshots`] is; each change says who asked for it, by what the kernel says of the
//! caller.

mod authorities;
mod bundles;
mod denials;
mod entries;
mod succession;

use std::fmt;

pub use authorities::{CaChanged, CaDump, CaOrder};
pub use bundles::{BundleChanged, DeleteBundle, SetBundle};
pub use denials::{DenyChanged, DenyDump, DenyOrder};
pub use entries::{AddEntries, EntriesChanged, NewEntry};
pub use succession::{Replace, Replacing};

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

    /// Denies an identity or a certificate.
    fn deny(&self, order: DenyOrder, asker: Asker) -> Answer<'_, DenyChanged>;

    /// Denies it no more.
    fn undo_deny(&self, order: DenyOrder, asker: Asker) -> Answer<'_, DenyChanged>;

    /// Changes the authorities of this node, or what is due to them.
    fn change_authorities(&self, order: CaOrder, asker: Asker) -> Answer<'_, CaChanged>;

    /// Lets another process take this one's place: it waits at its own socket for what it needs.
    fn replace(&self, order: Replace, asker: Asker) -> Answer<'_, Replacing>;
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "user {} (pid {pid})", self.uid),
            None => write!(f, "user {}", self.uid),
        }
    }
}
