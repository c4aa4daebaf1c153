//! The CA inside the daemon: its files, what it signs, and the issuer that it is to the rest.
//! Knows no process and no entry. Start at [`LocalCa`].

mod embedded;
mod files;
mod jwt_keys;
mod signing;

pub use embedded::{CaSettings, LocalCa};
pub use files::{CaError, init_ca, issue_node, mint};
#[cfg(test)]
pub(in crate::identity) use signing::SigningAuthority;
pub use signing::void_bundle;
