//! Which identity has a process, and is it fresh? Asks `attest` and `registry`, and an issuer for
//! SVIDs; keeps these renewed. Hands out SVIDs, speaks no TLS. Start at [`Identities::of`].

mod ca_files;
mod embedded;
mod explain;
mod issuer;
mod local_ca;
mod private_files;
mod renewal;
mod resolve;
mod rotation;
mod slot;

#[cfg(test)]
mod tests;

pub use ca_files::{CaError, init_ca, issue_node, mint};
pub use embedded::{CaSettings, LocalCa};
pub use explain::Explanation;
pub use issuer::{AuthorityStatus, IssueError, IssueRequest, Issuer, Issuing};
pub use private_files::FileError;
pub use resolve::{Identities, IdentityError, IdentitySettings, WorkloadIdentity};
pub use rotation::{renew_at, retry_after};
pub use slot::SvidStatus;
