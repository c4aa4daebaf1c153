//! Everything that can be wrong with the certificates of a peer: one variant for each fault that
//! X509-SVID and RFC 5280 name, so that a record says exactly which rule was broken.
//! Nothing a peer wrote is printed, but IDs that have passed the character set of SPIFFE-ID §2.

use std::time::SystemTime;

use thiserror::Error;

use super::id::IdError;
use super::{SpiffeId, TrustDomain};

/// Why a chain is no valid X.509-SVID of a trusted domain.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum VerifyError {
    /// No certificate at all.
    #[error("the peer showed no certificate")]
    NoCertificate,
    /// More certificates than a chain may have.
    #[error("the chain has {0} certificates, more than are read")]
    ChainTooLong(usize),
    /// A certificate, or all of them together, larger than is read.
    #[error("{0} bytes of certificate, more than are read")]
    TooLarge(usize),
    /// A certificate that cannot be read.
    #[error("a certificate cannot be read")]
    Malformed,
    /// X509-SVID §5.2: the leaf is the certificate of an authority.
    #[error("the leaf is the certificate of an authority (CA: true)")]
    LeafIsAuthority,
    /// X509-SVID §4.3.
    #[error("key usage of the leaf: {0}")]
    KeyUsage(KeyUsageFault),
    /// X509-SVID §4.4: not for both server and client.
    #[error("extended key usage is present, but not for both server and client authentication")]
    ExtendedKeyUsage,
    /// X509-SVID §2: no URI SAN.
    #[error("the leaf has no URI SAN, so no SPIFFE ID")]
    NoSpiffeId,
    /// X509-SVID §2: more than one URI SAN.
    #[error("the leaf has {0} URI SANs; an SVID has exactly one")]
    ManyUris(usize),
    /// SPIFFE-ID §2: the URI is no SPIFFE ID.
    #[error("the URI SAN of the leaf is no SPIFFE ID: {0}")]
    BadSpiffeId(IdError),
    /// X509-SVID §3.1: the ID of a whole trust domain.
    #[error("the ID of the leaf, {0}, has no path")]
    NoPath(SpiffeId),
    /// RFC 5280 §4.1.2.6: an empty subject needs a critical SAN.
    #[error("the subject is empty, but the SAN extension is not critical")]
    SanNotCritical,
    /// No bundle for the trust domain of the ID.
    #[error("no trust bundle is known for trust domain {0}, or the entry is not federated with it")]
    UntrustedDomain(TrustDomain),
    /// No path to an authority of the ID's own trust domain.
    #[error("no authority of the ID's trust domain signed this chain")]
    UnknownAuthority,
    /// An authority of the path is one that this node was told to distrust.
    #[error("authority {0} of this chain is distrusted (tacit ca distrust)")]
    DistrustedAuthority(String),
    /// A signature does not fit.
    #[error("a signature in the chain is wrong")]
    BadSignature,
    /// Signed in a way that is not accepted.
    #[error("a signature in the chain uses an algorithm that is not accepted")]
    UnsupportedAlgorithm,
    /// RFC 5280 §4.2: a critical extension that is not understood.
    #[error("a certificate has a critical extension that is not understood")]
    UnknownCriticalExtension,
    /// RFC 5280 §6.1.4: an intermediate without CA: true or keyCertSign.
    #[error("an intermediate may not sign certificates (CA: true and keyCertSign)")]
    IntermediateNotAuthority,
    /// RFC 5280 §4.2.1.9.
    #[error("more intermediates than an authority above them allows")]
    PathTooLong,
    /// So many certificates could have signed each other that the search was ended.
    #[error("the chain is too tangled to be searched")]
    PathTooComplex,
    /// RFC 5280 §4.2.1.10; constraints on URIs are never satisfied, since they are not evaluated.
    #[error("a name constraint of an authority is violated")]
    NameConstraint,
    /// A certificate of the path has expired.
    #[error("expired at {}", humantime::format_rfc3339_seconds(*.not_after))]
    Expired {
        /// When.
        not_after: SystemTime,
    },
    /// A certificate of the path is not valid yet.
    #[error("not valid before {}", humantime::format_rfc3339_seconds(*.not_before))]
    NotYetValid {
        /// From when on it is.
        not_before: SystemTime,
    },
}

/// What is wrong with the key usage of a leaf. Source: X509-SVID §4.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyUsageFault {
    /// No such extension.
    #[error("missing")]
    Missing,
    /// Present, but not critical.
    #[error("not critical")]
    NotCritical,
    /// `digitalSignature` is not set.
    #[error("digitalSignature is not set")]
    NoDigitalSignature,
    /// `keyCertSign` is set.
    #[error("keyCertSign is set")]
    SignsCertificates,
    /// `cRLSign` is set.
    #[error("cRLSign is set")]
    SignsCrls,
}

impl VerifyError {
    /// Whether time alone is at fault: expired, or not valid yet.
    pub fn is_expired(&self) -> bool {
        matches!(self, Self::Expired { .. } | Self::NotYetValid { .. })
    }

    /// Stable label.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::ChainTooLong(_) => "chain_too_long",
            Self::TooLarge(_) => "too_large",
            Self::Malformed => "malformed",
            Self::LeafIsAuthority => "leaf_is_authority",
            Self::KeyUsage(_) => "key_usage",
            Self::ExtendedKeyUsage => "extended_key_usage",
            Self::NoSpiffeId => "no_spiffe_id",
            Self::ManyUris(_) => "many_uris",
            Self::BadSpiffeId(_) => "bad_spiffe_id",
            Self::NoPath(_) => "no_path",
            Self::SanNotCritical => "san_not_critical",
            Self::UntrustedDomain(_) => "untrusted_domain",
            Self::UnknownAuthority => "unknown_authority",
            Self::DistrustedAuthority(_) => "distrusted_authority",
            Self::BadSignature => "bad_signature",
            Self::UnsupportedAlgorithm => "unsupported_algorithm",
            Self::UnknownCriticalExtension => "unknown_critical_extension",
            Self::IntermediateNotAuthority => "intermediate_not_authority",
            Self::PathTooLong => "path_too_long",
            Self::PathTooComplex => "path_too_complex",
            Self::NameConstraint => "name_constraint",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
        }
    }
}
