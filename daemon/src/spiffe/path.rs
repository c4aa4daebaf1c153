//! From a leaf to an authority: RFC 5280 path validation by webpki, bounded before it starts, and
//! what X509-SVID asks beyond it: intermediates that carry keyCertSign, authorities that are valid.
//!
//! The certificates come from whoever dialled. With many of them bearing one name, a search can be
//! made to try every order, so only few of a name and few in all are given to it.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter, KeyUsage};
use webpki::{RequiredEkuNotFoundContext, VerifiedPath};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::bundle::{Authority, TrustBundle};
use super::certificate::key_id;
use super::signatures::algorithms;
use super::verify_error::VerifyError;

/// Most intermediates that can be part of a path. webpki goes no deeper either.
const MAX_INTERMEDIATES: usize = 6;
/// Most intermediates that bear one subject: old SPIRE servers named all of theirs alike.
const MAX_NAMESAKES: usize = 3;

/// Finds a path from `leaf` to an authority of `bundle` at the time `now`, and gives the key ids
/// of the authorities on it, the leaf's issuer first.
pub(super) fn check_path(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    now: SystemTime,
) -> Result<Vec<String>, VerifyError> {
    let end_entity = EndEntityCert::try_from(leaf).map_err(|error| fault(&error))?;
    let (candidates, unreadable) = candidates(&end_entity, intermediates)?;
    // What was found on paths that are sound by RFC 5280: webpki's errors cannot carry it.
    let found = RefCell::new(Err(VerifyError::UnknownAuthority));
    let judge = |path: &VerifiedPath<'_>| {
        let judged = judge(path, bundle, now);
        let admitted = judged.is_ok();
        *found.borrow_mut() = judged;
        if admitted { Ok(()) } else { Err(webpki::Error::UnknownIssuer) }
    };
    let result = end_entity.verify_for_usage(
        &algorithms(),
        bundle.anchors(),
        &candidates,
        unix_time(now),
        BothPurposes,
        None,
        Some(&judge),
    );
    match result.map(|_path| ()) {
        Ok(()) => found.into_inner(),
        Err(webpki::Error::UnknownIssuer) => {
            let judged = found.into_inner().err().unwrap_or(VerifyError::UnknownAuthority);
            Err(match (judged, unreadable) {
                // An intermediate that was left out may be why there is no path.
                (VerifyError::UnknownAuthority, Some(unreadable)) => unreadable,
                (judged, _) => judged,
            })
        }
        Err(error) => Err(fault(&error)),
    }
}

/// The intermediates that can have signed the leaf or each other, and what is wrong with one that
/// could not be read. A chain may come in any order and with extra certificates (RFC 8446 §4.4.2).
fn candidates<'a>(
    leaf: &EndEntityCert<'_>,
    intermediates: &'a [CertificateDer<'_>],
) -> Result<(Vec<CertificateDer<'a>>, Option<VerifyError>), VerifyError> {
    let mut unreadable = None;
    let mut unused = Vec::new();
    for der in intermediates {
        match EndEntityCert::try_from(der) {
            Ok(certificate) => unused.push((der, certificate)),
            Err(error) => unreadable = Some(fault(&error)),
        }
    }
    let mut wanted = vec![leaf.issuer().to_vec()];
    let mut used = Vec::new();
    let mut at = 0;
    while let Some(issuer) = wanted.get(at).cloned() {
        at += 1;
        let (namesakes, rest): (Vec<_>, Vec<_>) =
            unused.into_iter().partition(|(_, certificate)| certificate.subject() == issuer);
        unused = rest;
        if namesakes.len() > MAX_NAMESAKES {
            return Err(VerifyError::PathTooComplex);
        }
        for (der, certificate) in namesakes {
            wanted.push(certificate.issuer().to_vec());
            used.push(CertificateDer::from(der.as_ref()));
        }
    }
    if used.len() > MAX_INTERMEDIATES {
        return Err(VerifyError::PathTooComplex);
    }
    Ok((used, unreadable))
}

/// What X509-SVID asks of a path that is sound by RFC 5280.
fn judge(
    path: &VerifiedPath<'_>,
    bundle: &TrustBundle,
    now: SystemTime,
) -> Result<Vec<String>, VerifyError> {
    let mut key_ids = Vec::new();
    for intermediate in path.intermediate_certificates() {
        let der = intermediate.der();
        let (_rest, x509) =
            X509Certificate::from_der(&der).map_err(|_unreadable| VerifyError::Malformed)?;
        // webpki trusts basic constraints alone; X509-SVID §4.3 and RFC 5280 §6.1.4 (n) do not.
        let usage = x509.key_usage().map_err(|_unreadable| VerifyError::Malformed)?;
        if !usage.is_some_and(|usage| usage.value.key_cert_sign()) {
            return Err(VerifyError::IntermediateNotAuthority);
        }
        key_ids.push(key_id(&x509));
    }
    let anchor = bundle
        .anchors()
        .iter()
        .zip(bundle.authorities())
        .find(|(anchor, _)| std::ptr::eq(*anchor, path.anchor()));
    let (_, authority) = anchor.ok_or(VerifyError::UnknownAuthority)?;
    check_authority(authority, key_ids.len(), now)?;
    key_ids.push(authority.key_id.clone());
    Ok(key_ids)
}

/// webpki takes an anchor's own dates and path length for the operator's business.
fn check_authority(
    authority: &Authority,
    intermediates: usize,
    now: SystemTime,
) -> Result<(), VerifyError> {
    if now > authority.not_after {
        return Err(VerifyError::Expired { not_after: authority.not_after });
    }
    if now < authority.not_before {
        return Err(VerifyError::NotYetValid { not_before: authority.not_before });
    }
    let allowed = authority.path_len.map(|most| usize::try_from(most).unwrap_or(usize::MAX));
    if allowed.is_some_and(|most| intermediates > most) {
        return Err(VerifyError::PathTooLong);
    }
    Ok(())
}

/// Both server and client authentication, wherever a certificate of the path restricts its use:
/// one SVID serves both directions.
struct BothPurposes;

impl ExtendedKeyUsageValidator for BothPurposes {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        /// DER of the object identifiers of RFC 5280 §4.2.1.12.
        const SERVER_AUTH: KeyPurposeId<'_> = KeyPurposeId::new(&[43, 6, 1, 5, 5, 7, 3, 1]);
        const CLIENT_AUTH: KeyPurposeId<'_> = KeyPurposeId::new(&[43, 6, 1, 5, 5, 7, 3, 2]);
        const ANY: KeyPurposeId<'_> = KeyPurposeId::new(&[85, 29, 37, 0]);
        let (mut server, mut client, mut restricted) = (false, false, false);
        for purpose in purposes {
            let purpose = purpose?;
            restricted = true;
            server |= purpose == SERVER_AUTH || purpose == ANY;
            client |= purpose == CLIENT_AUTH || purpose == ANY;
        }
        if !restricted || (server && client) {
            return Ok(());
        }
        Err(webpki::Error::RequiredEkuNotFoundContext(RequiredEkuNotFoundContext {
            required: KeyUsage::client_auth(),
            present: Vec::new(),
        }))
    }
}

fn unix_time(time: SystemTime) -> UnixTime {
    // Before 1970 nothing is valid, and nothing becomes so by being taken for 1970.
    UnixTime::since_unix_epoch(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

fn system_time(time: UnixTime) -> SystemTime {
    let since = Duration::from_secs(time.as_secs());
    SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// webpki's error in our words.
fn fault(error: &webpki::Error) -> VerifyError {
    use webpki::Error as E;
    match error {
        E::CertExpired { not_after, .. } => {
            VerifyError::Expired { not_after: system_time(*not_after) }
        }
        E::CertNotValidYet { not_before, .. } => {
            VerifyError::NotYetValid { not_before: system_time(*not_before) }
        }
        E::CaUsedAsEndEntity => VerifyError::LeafIsAuthority,
        E::EndEntityUsedAsCa => VerifyError::IntermediateNotAuthority,
        E::UnknownIssuer | E::CertDistrusted => VerifyError::UnknownAuthority,
        E::InvalidSignatureForPublicKey | E::SignatureAlgorithmMismatch => {
            VerifyError::BadSignature
        }
        E::UnsupportedSignatureAlgorithmContext(_)
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            VerifyError::UnsupportedAlgorithm
        }
        E::UnsupportedCriticalExtension => VerifyError::UnknownCriticalExtension,
        E::PathLenConstraintViolated => VerifyError::PathTooLong,
        E::MaximumPathDepthExceeded
        | E::MaximumPathBuildCallsExceeded
        | E::MaximumSignatureChecksExceeded
        | E::MaximumNameConstraintComparisonsExceeded => VerifyError::PathTooComplex,
        E::NameConstraintViolation
        | E::MalformedNameConstraint
        | E::InvalidNetworkMaskConstraint => VerifyError::NameConstraint,
        E::EmptyEkuExtension | E::RequiredEkuNotFoundContext(_) => VerifyError::ExtendedKeyUsage,
        _ => VerifyError::Malformed,
    }
}
