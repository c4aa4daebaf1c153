//! The rules of the leaf itself: X509-SVID §2, §4, §5.2 and SPIFFE-ID §2.

use ::spiffe::SpiffeIdError;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType,
};

use super::pki::{Ca, HOUR, ID, KEY_USAGE, SAN, judge, now, raw, raw_uris, uri};
use crate::spiffe::{IdError, KeyUsageFault, MAX_ID_BYTES, VerifyError, parse_id};

#[track_caller]
fn check(change: impl FnOnce(&mut CertificateParams), want: Result<&str, VerifyError>) {
    let root = Ca::root("root");
    let leaf = root.leaf_with(ID, change);
    let found = judge(&root, &[&leaf]).map(|peer| peer.id().to_string());
    assert_eq!(found, want.map(str::to_owned));
}

fn malformed(error: SpiffeIdError) -> VerifyError {
    VerifyError::BadSpiffeId(IdError::Malformed(error))
}

/// Replaces the SAN extension by these URIs, byte for byte.
fn with_uris(uris: &'static [&'static [u8]]) -> impl FnOnce(&mut CertificateParams) {
    move |params| {
        params.subject_alt_names.clear();
        params.custom_extensions.push(raw(SAN, false, raw_uris(uris)));
    }
}

fn with_uri(text: &str) -> impl FnOnce(&mut CertificateParams) {
    let name = uri(text);
    move |params| params.subject_alt_names = vec![name]
}

#[test]
fn sound_leaves() {
    check(|_| {}, Ok(ID));
    let dns = SanType::DnsName("web.test".try_into().unwrap());
    check(|params| params.subject_alt_names.push(dns), Ok(ID));
    check(|params| params.distinguished_name = DistinguishedName::new(), Ok(ID));
    check(|params| params.extended_key_usages.clear(), Ok(ID));
    check(|params| params.key_usages.push(KeyUsagePurpose::KeyEncipherment), Ok(ID));
    check(|params| params.is_ca = IsCa::NoCa, Ok(ID));
    let longest = format!("spiffe://td.test/{}", "a".repeat(MAX_ID_BYTES - 17));
    check(with_uri(&longest), Ok(&longest));
}

#[test]
fn how_many_uris() {
    let https = SanType::URI("https://td.test/web".try_into().unwrap());
    check(|params| params.subject_alt_names.push(https), Err(VerifyError::ManyUris(2)));
    check(with_uris(&[b"spiffe://td.test/web", b"\xff"]), Err(VerifyError::ManyUris(2)));
    check(|params| params.subject_alt_names.clear(), Err(VerifyError::NoSpiffeId));
    let dns = SanType::DnsName("web.test".try_into().unwrap());
    check(|params| params.subject_alt_names = vec![dns], Err(VerifyError::NoSpiffeId));
    check(
        |params| {
            with_uris(&[b"spiffe://td.test/db"])(params);
            params.custom_extensions.push(raw(SAN, false, raw_uris(&[ID.as_bytes()])));
        },
        Err(VerifyError::Malformed),
    );
}

#[test]
fn spelling_of_the_id() {
    check(with_uri("https://td.test/web"), Err(malformed(SpiffeIdError::WrongScheme)));
    for other in ["spiffe://TD.test/web", "SPIFFE://td.test/web"] {
        let canonical = IdError::NotCanonical(ID.to_owned());
        check(with_uri(other), Err(VerifyError::BadSpiffeId(canonical)));
    }
    check(with_uri("spiffe://td.test/web/"), Err(malformed(SpiffeIdError::TrailingSlash)));
    check(with_uri("spiffe://td.test/"), Err(malformed(SpiffeIdError::TrailingSlash)));
    check(with_uri("spiffe://td.test/a//b"), Err(malformed(SpiffeIdError::EmptySegment)));
    check(with_uri("spiffe://td.test/../web"), Err(malformed(SpiffeIdError::DotSegment)));
    let bad_char = || Err(malformed(SpiffeIdError::BadPathSegmentChar));
    check(with_uri("spiffe://td.test/%77eb"), bad_char());
    check(with_uri("spiffe://td.test/web?x"), bad_char());
    check(with_uris(&[b"spiffe://td.test/web\0"]), bad_char());
    check(with_uris(&[b"spiffe://td.test/w\xc3\xa9b"]), bad_char());
    check(with_uris(&[b"spiffe://td.test/w\xff"]), Err(VerifyError::Malformed));
    let domain_char = Err(malformed(SpiffeIdError::BadTrustDomainChar));
    check(with_uri("spiffe://td.test:1/web"), domain_char);
    let no_path = parse_id("spiffe://td.test").unwrap();
    check(with_uri("spiffe://td.test"), Err(VerifyError::NoPath(no_path)));
    let too_long = format!("spiffe://td.test/{}", "a".repeat(MAX_ID_BYTES - 16));
    let error = IdError::TooLong(MAX_ID_BYTES + 1);
    check(with_uri(&too_long), Err(VerifyError::BadSpiffeId(error)));
}

#[test]
fn uses_of_the_key() {
    let usage = |fault| Err(VerifyError::KeyUsage(fault));
    check(|params| params.key_usages.clear(), usage(KeyUsageFault::Missing));
    check(
        |params| params.key_usages.push(KeyUsagePurpose::KeyCertSign),
        usage(KeyUsageFault::SignsCertificates),
    );
    check(
        |params| params.key_usages.push(KeyUsagePurpose::CrlSign),
        usage(KeyUsageFault::SignsCrls),
    );
    check(
        |params| params.key_usages = vec![KeyUsagePurpose::KeyEncipherment],
        usage(KeyUsageFault::NoDigitalSignature),
    );
    check(
        |params| {
            params.key_usages.clear();
            // BIT STRING with the first bit set: digitalSignature.
            params.custom_extensions.push(raw(KEY_USAGE, false, vec![3, 2, 7, 0x80]));
        },
        usage(KeyUsageFault::NotCritical),
    );
    for one in [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth] {
        check(|params| params.extended_key_usages = vec![one], Err(VerifyError::ExtendedKeyUsage));
    }
    check(
        |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
        Err(VerifyError::LeafIsAuthority),
    );
}

#[test]
fn what_rfc_5280_adds() {
    check(
        |params| {
            params.distinguished_name = DistinguishedName::new();
            with_uris(&[b"spiffe://td.test/web"])(params);
        },
        Err(VerifyError::SanNotCritical),
    );
    check(
        |params| {
            params.custom_extensions.push(raw(&[1, 2, 3, 4], true, vec![5, 0]));
        },
        Err(VerifyError::UnknownCriticalExtension),
    );
    check(
        |params| {
            params.custom_extensions.push(raw(&[1, 2, 3, 4], false, vec![5, 0]));
        },
        Ok(ID),
    );
    let (past, future) = (now() - HOUR / 2, now() + HOUR / 2);
    check(|params| params.not_after = past.into(), Err(VerifyError::Expired { not_after: past }));
    check(
        |params| params.not_before = future.into(),
        Err(VerifyError::NotYetValid { not_before: future }),
    );
}
