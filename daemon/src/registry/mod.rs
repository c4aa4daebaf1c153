//! Registration entries: which selectors make a process which SPIFFE ID. Snapshots, found by an
//! index; no I/O. Where entries come from is the configuration's affair. Start at [`Registry`].

mod entry;
mod matcher;
mod ties;

#[cfg(test)]
mod tests;

pub use entry::{RegistrationEntry, RegistryError};
pub use matcher::{Lookup, NearMiss, Registry};
pub use ties::{SeenTies, Ties};
