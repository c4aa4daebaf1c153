//! The CA inside the daemon: its files, what it signs, how its authorities follow one another, and the
//! issuer that it is to the rest. Knows no process and no entry. Start at [`LocalCa`].

mod change;
mod embedded;
mod error;
mod files;
mod follow;
mod jwt_keys;
mod request;
mod rotation;
mod signing;
mod trust;

pub use change::{Held, PATIENCE, Terms};
pub use embedded::{CaSettings, LocalCa};
pub use error::CaError;
pub use files::{SignedRequest, init_ca, issue_node, mint, sign_request};
pub use rotation::{ACTIVATE_AFTER, RETIRE_AFTER, Retirement, Rotation};
#[cfg(test)]
pub(in crate::identity) use signing::SigningAuthority;
pub use signing::void_bundle;
pub use trust::Trusted;
