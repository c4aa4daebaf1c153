//! The audit log as files: lines chained by hash, checkpoints signed, rotated by size.
//! [`Log`] appends, [`verify()`] finds what was tampered with, [`Query`] reads.
//! Blocking throughout; knows nothing of connections that are still open.

mod append;
mod files;
mod head;
mod key;
mod line;
mod query;
mod recover;
mod verify;

#[cfg(test)]
mod tests;

pub use append::{Before, Log, LogError};
pub use files::rotated_name;
pub use head::Head;
pub use key::{PublicKey, public_key_name};
pub use line::{deceives, hex, plain_json};
pub use query::{AddressQuery, Follow, Query, QueryError, lines};
pub use verify::{Evidence, Fault, Place, Verified, verify};
