//! Why a process has no identity, and what the entries said of one.

use std::sync::Arc;

use thiserror::Error;

use super::issuer::IssueError;
use crate::attest::{AttestError, Attestation};
use crate::policy::{DenyItem, DenyReason};
use crate::registry::RegistrationEntry;

/// What the entries said of a process.
#[derive(Debug, Clone)]
pub struct Naming {
    pub(super) attestation: Arc<Attestation>,
    /// The entry that names it, if one does.
    pub(super) entry: Option<Arc<RegistrationEntry>>,
}

/// Why a process has no identity.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// It could not be attested.
    #[error(transparent)]
    Attest(#[from] AttestError),
    /// It was attested, and no entry matches.
    #[error("no registration entry matches the process")]
    NoEntry {
        /// What is known about it.
        attestation: Arc<Attestation>,
    },
    /// An entry that matches better than any other asks for what could not be found out in time.
    #[error(
        "entry `{}` asks for what could not be found out about the process now ({}): it may be of it or not",
        rival.id,
        doubtful(rival, attestation)
    )]
    Doubtful {
        /// What is known about it.
        attestation: Arc<Attestation>,
        /// The entry.
        rival: Arc<RegistrationEntry>,
    },
    /// An entry matches, and the identity that it gives is denied.
    #[error("entry `{}` gives an identity that is denied: {item}", entry.id)]
    Denied {
        /// What is known about it.
        attestation: Arc<Attestation>,
        /// The entry.
        entry: Arc<RegistrationEntry>,
        /// Why.
        item: DenyItem,
    },
    /// An entry matches, but there is no valid SVID.
    #[error("entry `{}` has no valid SVID: {error}", entry.id)]
    NoSvid {
        /// What is known about it.
        attestation: Arc<Attestation>,
        /// The entry.
        entry: Arc<RegistrationEntry>,
        /// Why.
        error: IssueError,
    },
}

impl IdentityError {
    /// The reason as records and metrics carry it.
    pub fn reason(&self) -> DenyReason {
        match self {
            Self::Attest(AttestError::PidReused(_)) => DenyReason::PidReused,
            Self::Attest(AttestError::ProcessChanged { .. }) => DenyReason::ProcessChanged,
            Self::Attest(_) | Self::Doubtful { .. } => DenyReason::AttestFailed,
            Self::NoEntry { .. } => DenyReason::NoIdentity,
            Self::Denied { .. } => DenyReason::DenyListed,
            Self::NoSvid { .. } => DenyReason::NoSvid,
        }
    }

    /// What the entries said of the process, where it was attested.
    pub fn naming(&self) -> Option<Naming> {
        let entry = match self {
            Self::NoSvid { entry, .. } | Self::Denied { entry, .. } => Some(Arc::clone(entry)),
            _ => None,
        };
        self.attestation().map(|attestation| Naming { attestation: Arc::clone(attestation), entry })
    }

    /// What is known about the process, where that much succeeded.
    pub fn attestation(&self) -> Option<&Arc<Attestation>> {
        match self {
            Self::Attest(_) => None,
            Self::NoEntry { attestation }
            | Self::Doubtful { attestation, .. }
            | Self::Denied { attestation, .. }
            | Self::NoSvid { attestation, .. } => Some(attestation),
        }
    }
}

/// The selectors of an entry that are in doubt.
fn doubtful(rival: &RegistrationEntry, attestation: &Attestation) -> String {
    let in_doubt = rival.selectors.iter().filter(|one| attestation.doubts.cover(one));
    in_doubt.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
