//! Orders about bundles of other trust domains, and what became of them, as serde sees them; field
//! names are public.

use serde::{Deserialize, Serialize};

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
