//! An X.509-SVID with its private key. The key is wiped on drop and never printed.

use std::fmt;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use super::leaf::Leaf;
use super::{SpiffeId, VerifyError};

/// An X.509-SVID that this node holds for a workload, with its key.
pub struct X509Svid {
    /// The identity.
    pub id: SpiffeId,
    /// Leaf first, then intermediates; never the root (SPIFFE Workload API §5).
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS#8 DER of the private key.
    pub key: Zeroizing<Vec<u8>>,
    /// Serial number of the leaf, lower-case hex.
    pub serial: String,
    /// Start of validity.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
    /// Subject key id, lower-case hex, of the authority that signed the leaf.
    pub authority: String,
}

impl X509Svid {
    /// Reads what an issuer made, by the rules that peers will apply to the leaf.
    ///
    /// # Errors
    /// The rule that the leaf breaks: peers would refuse it too.
    pub fn read(
        chain: Vec<CertificateDer<'static>>,
        key: Zeroizing<Vec<u8>>,
    ) -> Result<Self, VerifyError> {
        let leaf = Leaf::read(chain.first().ok_or(VerifyError::NoCertificate)?)?;
        Ok(Self {
            id: leaf.id,
            chain,
            key,
            serial: leaf.serial,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            authority: leaf.authority.unwrap_or_default(),
        })
    }

    /// Whether it is valid at this time.
    pub fn is_valid_at(&self, time: SystemTime) -> bool {
        self.not_before <= time && time <= self.not_after
    }
}

impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Svid")
            .field("id", &self.id)
            .field("serial", &self.serial)
            .field("not_after", &self.not_after)
            .field("key", &"<redacted>")
            .finish_non_exhaustive()
    }
}
