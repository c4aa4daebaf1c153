//! Reads the leaf of a chain and judges it by itself: the rules of X509-SVID that need no bundle.
//! What its signatures are worth is `path.rs`.

use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use x509_parser::asn1_rs::Tag;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::SpiffeId;
use super::certificate::{issuer_key_id, serial, system_time};
use super::id::parse_id;
use super::verify_error::{KeyUsageFault, VerifyError};

/// Context tag of a URI among general names. Source: RFC 5280 §4.2.1.6.
const URI_TAG: Tag = Tag(6);

/// What a leaf says, once it keeps the rules.
pub(super) struct Leaf {
    pub(super) id: SpiffeId,
    pub(super) serial: String,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    /// Key id, lower-case hex, of the authority that it says signed it.
    pub(super) authority: Option<String>,
}

impl Leaf {
    /// Reads a leaf and applies X509-SVID §2, §4 and §5.2 to it.
    pub(super) fn read(der: &CertificateDer<'_>) -> Result<Self, VerifyError> {
        let (rest, leaf) = X509Certificate::from_der(der).map_err(malformed)?;
        if !rest.is_empty() {
            return Err(VerifyError::Malformed);
        }
        check_not_authority(&leaf)?;
        check_key_usage(&leaf)?;
        check_extended_key_usage(&leaf)?;
        Ok(Self {
            id: spiffe_id(&leaf)?,
            serial: serial(&leaf),
            not_before: system_time(leaf.validity().not_before),
            not_after: system_time(leaf.validity().not_after),
            authority: issuer_key_id(&leaf),
        })
    }
}

fn check_not_authority(leaf: &X509Certificate<'_>) -> Result<(), VerifyError> {
    match leaf.basic_constraints().map_err(malformed)? {
        Some(constraints) if constraints.value.ca => Err(VerifyError::LeafIsAuthority),
        _ => Ok(()),
    }
}

fn check_key_usage(leaf: &X509Certificate<'_>) -> Result<(), VerifyError> {
    let fault = match leaf.key_usage().map_err(malformed)? {
        None => KeyUsageFault::Missing,
        Some(usage) if !usage.critical => KeyUsageFault::NotCritical,
        Some(usage) if usage.value.key_cert_sign() => KeyUsageFault::SignsCertificates,
        Some(usage) if usage.value.crl_sign() => KeyUsageFault::SignsCrls,
        Some(usage) if !usage.value.digital_signature() => KeyUsageFault::NoDigitalSignature,
        Some(_) => return Ok(()),
    };
    Err(VerifyError::KeyUsage(fault))
}

fn check_extended_key_usage(leaf: &X509Certificate<'_>) -> Result<(), VerifyError> {
    match leaf.extended_key_usage().map_err(malformed)? {
        Some(usage) if !(usage.value.server_auth && usage.value.client_auth) => {
            Err(VerifyError::ExtendedKeyUsage)
        }
        _ => Ok(()),
    }
}

fn spiffe_id(leaf: &X509Certificate<'_>) -> Result<SpiffeId, VerifyError> {
    // Twice the same extension is an error here, never "the first one counts".
    let extension = leaf.get_extension_unique(&OID_X509_EXT_SUBJECT_ALT_NAME).map_err(malformed)?;
    let names = leaf.subject_alternative_name().map_err(malformed)?;
    let (Some(extension), Some(names)) = (extension, names) else {
        return Err(VerifyError::NoSpiffeId);
    };
    // A URI that is not even text is one, too: it must not hide beside a good one.
    let uris: Vec<Option<&str>> = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(Some(*uri)),
            GeneralName::Invalid(tag, _) if *tag == URI_TAG => Some(None),
            _ => None,
        })
        .collect();
    let uri = match uris.as_slice() {
        [] => return Err(VerifyError::NoSpiffeId),
        [uri] => uri.ok_or(VerifyError::Malformed)?,
        many => return Err(VerifyError::ManyUris(many.len())),
    };
    let id = parse_id(uri).map_err(VerifyError::BadSpiffeId)?;
    if id.path().is_empty() {
        return Err(VerifyError::NoPath(id));
    }
    if leaf.subject().iter().next().is_none() && !extension.critical {
        return Err(VerifyError::SanNotCritical);
    }
    Ok(id)
}

/// How exactly it cannot be read is of use to nobody who may act on it.
fn malformed<E>(_unreadable: E) -> VerifyError {
    VerifyError::Malformed
}
