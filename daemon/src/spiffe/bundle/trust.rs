//! The authorities that may sign for a trust domain. An authority is read once, when the bundle is
//! made, so that verification works on what is already understood.

use std::collections::BTreeSet;
use std::fmt;
use std::time::SystemTime;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use thiserror::Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::spiffe::certificate::{issuer_key_id, key_id, system_time};
use crate::spiffe::pem::pem_block;
use crate::spiffe::{JwtAuthority, TrustDomain, parse_id};

/// A certificate of an authority, read.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// Subject key id, lower-case hex.
    pub key_id: String,
    /// Key id of the authority that it says signed it.
    pub issuer_key_id: Option<String>,
    /// Start of validity.
    pub not_before: SystemTime,
    /// End of validity.
    pub not_after: SystemTime,
    /// The public key: the content of the bit string in its `SubjectPublicKeyInfo`.
    pub public_key: Vec<u8>,
    /// How many intermediates may stand below it; none if it does not say.
    pub(in crate::spiffe) path_len: Option<u32>,
}

/// The authorities of one trust domain. Without any, nothing of that trust domain is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustBundle {
    trust_domain: TrustDomain,
    authorities: Vec<Authority>,
    jwt_authorities: Vec<JwtAuthority>,
    distrusted: BTreeSet<String>,
    /// One for each authority, in the same order; in the form that path validation wants.
    anchors: Vec<TrustAnchor<'static>>,
}

/// Why certificates do not make a bundle. `index` counts from 0.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BundleError {
    /// The text is no PEM.
    #[error("not readable as PEM")]
    Pem,
    /// A certificate cannot be read.
    #[error("certificate {index} cannot be read")]
    Malformed {
        /// Which.
        index: usize,
    },
    /// A certificate that may not sign others.
    #[error("certificate {index} is not that of an authority (CA: true, keyCertSign)")]
    NotAuthority {
        /// Which.
        index: usize,
    },
}

impl TrustBundle {
    /// A bundle of these authorities; no authority at all is allowed.
    ///
    /// # Errors
    /// A certificate that cannot be read or that is no authority's.
    pub fn new(
        trust_domain: TrustDomain,
        certificates: Vec<CertificateDer<'static>>,
    ) -> Result<Self, BundleError> {
        let mut bundle = Self {
            trust_domain,
            authorities: Vec::new(),
            jwt_authorities: Vec::new(),
            distrusted: BTreeSet::new(),
            anchors: Vec::new(),
        };
        for (index, certificate) in certificates.into_iter().enumerate() {
            let anchor = webpki::anchor_from_trusted_cert(&certificate)
                .map_err(|_unreadable| BundleError::Malformed { index })?
                .to_owned();
            bundle.anchors.push(anchor);
            bundle.authorities.push(Authority::read(index, &certificate)?);
        }
        Ok(bundle)
    }

    /// Reads concatenated PEM certificates.
    ///
    /// # Errors
    /// As for [`TrustBundle::new`], or no PEM.
    pub fn from_pem(trust_domain: TrustDomain, pem: &[u8]) -> Result<Self, BundleError> {
        let certificates = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|_bad_pem| BundleError::Pem)?;
        Self::new(trust_domain, certificates)
    }

    /// The trust domain whose ID an authority's certificate bears (X509-SVID §3.2), if it does.
    pub fn trust_domain_of(certificate: &CertificateDer<'_>) -> Option<TrustDomain> {
        let (_rest, x509) = X509Certificate::from_der(certificate).ok()?;
        let names = x509.subject_alternative_name().ok()??;
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
        let id = parse_id(uris.next()?).ok()?;
        (id.path().is_empty() && uris.next().is_none()).then(|| id.trust_domain().clone())
    }

    /// The same bundle with these authorities for JWT-SVIDs.
    #[must_use]
    pub fn with_jwt_authorities(mut self, authorities: Vec<JwtAuthority>) -> Self {
        self.jwt_authorities = authorities;
        self
    }

    /// The same bundle in which no path through an authority with one of these key ids (lower-case
    /// hex) is valid, wherever in the path it stands: what a bundle of roots alone cannot say of an
    /// intermediate whose key was stolen.
    #[must_use]
    pub fn with_distrusted(mut self, key_ids: BTreeSet<String>) -> Self {
        self.distrusted = key_ids;
        self
    }

    /// Key ids of the authorities through which no path is valid.
    pub fn distrusted(&self) -> &BTreeSet<String> {
        &self.distrusted
    }

    /// Whether a path that was verified before, given by the key ids of its authorities, the root's
    /// last, would be valid by this bundle as it is.
    pub fn vouches_for(&self, path: &[String]) -> bool {
        // The last is the bundle's own; what an intermediate is called, its signer chose.
        let anchor = path.last();
        self.authorities.iter().any(|authority| Some(&authority.key_id) == anchor)
            && !path.iter().any(|key_id| self.distrusted.contains(key_id))
    }

    /// Concatenated PEM certificates.
    pub fn to_pem(&self) -> String {
        self.certificates().map(|der| pem_block("CERTIFICATE", der).to_string()).collect()
    }

    /// Whose authorities these are.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Whether nothing at all is vouched for: every SVID of the trust domain is invalid.
    /// Source: SPIFFE Trust Domain and Bundle §4.1.3.
    pub fn is_empty(&self) -> bool {
        self.authorities.is_empty() && self.jwt_authorities.is_empty()
    }

    /// The authorities for JWT-SVIDs.
    pub fn jwt_authorities(&self) -> &[JwtAuthority] {
        &self.jwt_authorities
    }

    /// The authorities for X.509-SVIDs.
    pub fn authorities(&self) -> &[Authority] {
        &self.authorities
    }

    /// The authorities as anchors of paths, in the order of [`TrustBundle::authorities`].
    pub(in crate::spiffe) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// The certificates of the authorities.
    pub fn certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.authorities.iter().map(|authority| &authority.certificate)
    }
}

impl Authority {
    fn read(index: usize, certificate: &CertificateDer<'static>) -> Result<Self, BundleError> {
        let malformed = || BundleError::Malformed { index };
        let (rest, x509) =
            X509Certificate::from_der(certificate).map_err(|_unreadable| malformed())?;
        if !rest.is_empty() {
            return Err(malformed());
        }
        let constraints = x509.basic_constraints().map_err(|_duplicate| malformed())?;
        let usage = x509.key_usage().map_err(|_unreadable| malformed())?;
        // An upstream root that is no SVID itself may lack key usage (X509-SVID §3.2 is a SHOULD).
        let may_sign = usage.is_none_or(|usage| usage.value.key_cert_sign());
        let Some(constraints) = constraints.filter(|found| found.value.ca && may_sign) else {
            return Err(BundleError::NotAuthority { index });
        };
        Ok(Self {
            key_id: key_id(&x509),
            issuer_key_id: issuer_key_id(&x509),
            not_before: system_time(x509.validity().not_before),
            not_after: system_time(x509.validity().not_after),
            public_key: x509.public_key().subject_public_key.data.to_vec(),
            path_len: constraints.value.path_len_constraint,
            certificate: certificate.clone(),
        })
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("key_id", &self.key_id)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}
