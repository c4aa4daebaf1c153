//! Trust bundles: whose signatures count for which trust domain, and bundles as they travel
//! between trust domains. Source: SPIFFE Trust Domain and Bundle.

mod document;
mod jwk;
mod set;
mod trust;

#[cfg(test)]
mod tests;

pub use document::{BundleDocument, DocumentError};
pub use set::BundleSet;
pub use trust::{Authority, BundleError, TrustBundle};
