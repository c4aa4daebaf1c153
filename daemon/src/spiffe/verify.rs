//! The one place where it is decided that a peer is who its certificate says.
//!
//! [`verify`] applies every MUST that X509-SVID §2-§5 puts on a verifier, and validates the path
//! against the bundle of the ID's own trust domain only. It does not ask whether the peer is the
//! one that was expected: that is `policy`. DNS names and addresses in the certificate play no part.

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;

use super::SpiffeId;
use super::bundle::BundleSet;
use super::leaf::Leaf;
use super::path::check_path;
use super::verify_error::VerifyError;

/// Most certificates of a chain that are read at all. Chosen; go-spiffe and SPIRE send 1 to 4.
pub const MAX_CHAIN: usize = 16;
/// Largest certificate that is read. Room for post-quantum keys and an ID of 2048 bytes.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
/// Largest chain that is read: what a TLS handshake message of rustls may hold.
pub const MAX_CHAIN_BYTES: usize = 64 * 1024;

/// Who a peer has proved to be. Only [`verify`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    id: SpiffeId,
    serial: String,
    not_after: SystemTime,
    authorities: Vec<String>,
}

impl PeerIdentity {
    /// The SPIFFE ID.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Serial number of the leaf, lower-case hex.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// When the leaf expires.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Subject key ids, lower-case hex, of every authority of the verified path: the leaf's issuer
    /// first, the root last.
    pub fn authorities(&self) -> &[String] {
        &self.authorities
    }

    /// An identity that nobody proved, for tests of what is done with one.
    #[cfg(test)]
    pub(crate) fn unproved(id: &str) -> Self {
        Self {
            id: super::parse_id(id).unwrap(),
            serial: "01".to_owned(),
            not_after: SystemTime::UNIX_EPOCH,
            authorities: Vec::new(),
        }
    }
}

/// Verifies the chain that a peer showed: leaf first, then intermediates in any order.
///
/// # Errors
/// The first rule that is broken. The rules of the leaf itself come first, then its trust domain,
/// then the path; that certificates have expired is only said of a chain that is otherwise sound.
pub fn verify(
    chain: &[CertificateDer<'_>],
    bundles: &BundleSet,
    now: SystemTime,
) -> Result<PeerIdentity, VerifyError> {
    let Some((leaf_der, intermediates)) = chain.split_first() else {
        return Err(VerifyError::NoCertificate);
    };
    check_sizes(chain)?;
    let leaf = Leaf::read(leaf_der)?;
    let Some(bundle) = bundles.for_id(&leaf.id) else {
        return Err(VerifyError::UntrustedDomain(leaf.id.trust_domain().clone()));
    };
    let authorities = check_path(leaf_der, intermediates, bundle, now).map_err(|fault| {
        if !fault.is_expired() {
            return fault;
        }
        // webpki looks at dates before signatures. A stranger's old certificate is a stranger's:
        // look again at a time when the leaf was valid, so that the record names what matters.
        let then = now.clamp(leaf.not_before, leaf.not_after.max(leaf.not_before));
        match check_path(leaf_der, intermediates, bundle, then) {
            Err(other) if !other.is_expired() => other,
            _ => fault,
        }
    })?;
    if let Some(key_id) = authorities.iter().find(|key_id| bundle.distrusted().contains(*key_id)) {
        return Err(VerifyError::DistrustedAuthority(key_id.clone()));
    }
    Ok(PeerIdentity { id: leaf.id, serial: leaf.serial, not_after: leaf.not_after, authorities })
}

/// Reading costs time even if nothing comes of it, and whoever dials can make us read.
fn check_sizes(chain: &[CertificateDer<'_>]) -> Result<(), VerifyError> {
    if chain.len() > MAX_CHAIN {
        return Err(VerifyError::ChainTooLong(chain.len()));
    }
    let total: usize = chain.iter().map(|certificate| certificate.len()).sum();
    if total > MAX_CHAIN_BYTES {
        return Err(VerifyError::TooLarge(total));
    }
    match chain.iter().find(|certificate| certificate.len() > MAX_CERTIFICATE_BYTES) {
        Some(certificate) => Err(VerifyError::TooLarge(certificate.len())),
        None => Ok(()),
    }
}
