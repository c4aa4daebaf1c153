//! Bundles of several trust domains side by side, and as documents.

use std::collections::BTreeSet;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};

use super::*;
use crate::spiffe::{Curve, JwtAuthority, JwtKey, TrustDomain, parse_trust_domain};

fn domain(name: &str) -> TrustDomain {
    parse_trust_domain(name).unwrap()
}

fn certificate(
    algorithm: &'static rcgen::SignatureAlgorithm,
    is_ca: bool,
) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    // The trailing slash is that of the standard's own example, and no SPIFFE ID.
    params.subject_alt_names = vec![SanType::URI("spiffe://one.test/".try_into().unwrap())];
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    }
    let key = KeyPair::generate_for(algorithm).unwrap();
    params.self_signed(&key).unwrap().der().clone()
}

fn authority() -> CertificateDer<'static> {
    certificate(&rcgen::PKCS_ECDSA_P256_SHA256, true)
}

fn bundle(name: &str) -> TrustBundle {
    TrustBundle::new(domain(name), vec![authority()]).unwrap()
}

fn jwt_key(id: &str) -> JwtAuthority {
    let key = JwtKey::Ec { curve: Curve::P256, x: vec![7; 32], y: vec![9; 32] };
    JwtAuthority { key_id: id.to_owned(), key }
}

fn read(document: &Value) -> Result<BundleDocument, DocumentError> {
    BundleDocument::parse(&domain("one.test"), document.to_string().as_bytes())
}

/// Whoever holds an authority that is gone may call an intermediate what he likes.
#[test]
fn only_the_end_of_a_path_is_looked_up() {
    let bundle = bundle("one.test");
    let own = bundle.authorities()[0].key_id.clone();
    assert!(bundle.vouches_for(&["leaf's".to_owned(), own.clone()]));
    assert!(!bundle.vouches_for(&[own, "gone".to_owned()]));
    assert!(!bundle.vouches_for(&[]));
}

#[test]
fn nobody_else_says_who_vouches_for_a_trust_domain() {
    let (own, other) = (bundle("one.test"), bundle("two.test"));
    let set = BundleSet::from_iter([own.clone(), bundle("old.test")]);
    let beside = BundleSet::from_iter([bundle("one.test"), other.clone()]);
    let both = set.beside(&domain("one.test"), &beside);
    assert_eq!(**both.get(&domain("one.test")).unwrap(), own);
    assert_eq!(**both.get(&domain("two.test")).unwrap(), other);
    assert!(both.get(&domain("old.test")).is_none());
}

#[test]
fn a_workload_trusts_its_own_trust_domain_and_those_of_its_entry() {
    let set = BundleSet::from_iter(["one.test", "two.test", "three.test"].map(bundle));
    let names = |federates_with: &[&str]| -> Vec<String> {
        let federates_with: BTreeSet<_> = federates_with.iter().map(|it| domain(it)).collect();
        let within = set.within(&domain("one.test"), &federates_with);
        within.iter().map(|bundle| bundle.trust_domain().to_string()).collect()
    };
    assert_eq!(names(&[]), ["one.test"]);
    assert_eq!(names(&["two.test", "unknown.test"]), ["one.test", "two.test"]);
}

#[test]
fn a_document_is_read_as_it_was_written() {
    let kinds =
        [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519];
    let certificates = kinds.map(|kind| certificate(kind, true));
    let bundle = TrustBundle::new(domain("one.test"), certificates.to_vec()).unwrap();
    let document = BundleDocument {
        bundle: bundle.with_jwt_authorities(vec![jwt_key("a"), jwt_key("b")]),
        sequence: Some(u64::MAX),
        refresh_hint: Some(Duration::from_mins(5)),
        ignored: Vec::new(),
    };
    let text = document.to_json();
    assert_eq!(BundleDocument::parse(&domain("one.test"), text.as_bytes()), Ok(document));
    let json: Value = serde_json::from_str(&text).unwrap();
    let keys = json["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 5);
    for x509 in &keys[..3] {
        assert_eq!(x509["use"], "x509-svid");
        assert!(x509.get("kid").is_none(), "X509-SVID §6.1 forbids it: {x509}");
        assert_eq!(x509["x5c"].as_array().unwrap().len(), 1);
    }
    assert_eq!((&keys[0]["kty"], &keys[0]["crv"]), (&json!("EC"), &json!("P-256")));
    assert_eq!((&keys[3]["use"], &keys[3]["kid"]), (&json!("jwt-svid"), &json!("a")));
}

/// SPIFFE Trust Domain and Bundle §4.2; X509-SVID §6.2; JWT-SVID §6.
#[test]
fn a_key_that_is_not_understood_is_ignored_alone() {
    let good = BundleDocument::plain(bundle("one.test").with_jwt_authorities(vec![jwt_key("j")]));
    let good: Value = serde_json::from_str(&good.to_json()).unwrap();
    let (x509, jwt) = (&good["keys"][0], &good["keys"][1]);
    let changed = |key: &Value, member: &str, value: Option<Value>| {
        let mut key = key.clone();
        let members = key.as_object_mut().unwrap();
        match value {
            Some(value) => drop(members.insert(member.to_owned(), value)),
            None => drop(members.remove(member)),
        }
        key
    };
    let leaf = base64_of(&certificate(&rcgen::PKCS_ECDSA_P256_SHA256, false));
    for (spoilt, is_told) in [
        (changed(x509, "use", None), false),
        (changed(x509, "use", Some(json!("X509-SVID"))), false),
        (changed(x509, "use", Some(json!("wit-svid"))), false),
        (changed(x509, "use", Some(json!(1))), false),
        (changed(x509, "kty", None), false),
        (changed(x509, "kty", Some(json!("ec"))), false),
        (changed(x509, "x5c", None), true),
        (changed(x509, "x5c", Some(json!([]))), true),
        (changed(x509, "x5c", Some(json!("text"))), true),
        (changed(x509, "x5c", Some(json!(["!"]))), true),
        (changed(x509, "x5c", Some(json!(["AAAA"]))), true),
        (changed(x509, "x5c", Some(json!([leaf]))), true),
        (changed(jwt, "kid", None), true),
        (changed(jwt, "kid", Some(json!(""))), true),
        (changed(jwt, "kid", Some(json!("k".repeat(513)))), true),
        (changed(jwt, "crv", Some(json!("secp256k1"))), true),
        (changed(jwt, "x", Some(json!("AAAA"))), true),
        (changed(jwt, "kty", Some(json!("oct"))), false),
    ] {
        let document = read(&json!({ "keys": [spoilt, x509, jwt] })).unwrap();
        assert_eq!(document.bundle.authorities().len(), 1, "{spoilt}");
        assert_eq!(document.bundle.jwt_authorities().len(), 1, "{spoilt}");
        assert_eq!(document.ignored.len(), usize::from(is_told), "{spoilt}");
    }
    let (first, second) = (base64_of(&authority()), base64_of(&authority()));
    let two = changed(x509, "x5c", Some(json!([first, second])));
    let document = read(&json!({ "keys": [two, two] })).unwrap();
    let known: Vec<_> = document.bundle.certificates().map(base64_of).collect();
    assert_eq!(known, [first], "the first of several, and once");
}

fn base64_of(der: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(der)
}

/// SPIFFE Trust Domain and Bundle §4.1.
#[test]
fn an_empty_bundle_is_one_and_a_broken_one_is_none() {
    let empty = read(&json!({ "keys": [], "other": 1, "spiffe_refresh_hint": -5 })).unwrap();
    assert!(empty.bundle.is_empty() && empty.ignored.is_empty());
    assert_eq!((empty.sequence, empty.refresh_hint), (None, Some(Duration::ZERO)));
    for broken in [
        json!({}),
        json!([]),
        json!({ "keys": null }),
        json!({ "keys": {} }),
        json!({ "keys": ["text"] }),
        json!({ "keys": [], "spiffe_sequence": -1 }),
        json!({ "keys": [], "spiffe_sequence": 1.5 }),
        json!({ "keys": [], "spiffe_sequence": "1" }),
        json!({ "keys": [], "spiffe_refresh_hint": "5m" }),
    ] {
        assert!(matches!(read(&broken), Err(DocumentError::Malformed(_))), "{broken}");
    }
    let twice = br#"{"keys":[],"keys":[]}"#;
    assert!(BundleDocument::parse(&domain("one.test"), twice).is_err());
    assert!(BundleDocument::parse(&domain("one.test"), b"<html>").is_err());
    let many = vec![json!({}); 1001];
    assert_eq!(read(&json!({ "keys": many })), Err(DocumentError::TooManyKeys(1001)));
}

/// What is kept is read again at the next start, within the same bound.
#[test]
fn what_is_given_has_no_more_keys_than_are_read() {
    let many = TrustBundle::new(domain("one.test"), vec![authority(); 1001]).unwrap().to_pem();
    let given = BundleDocument::given(&domain("one.test"), &many);
    assert!(matches!(given, Err(DocumentError::TooManyKeys(1001))), "{given:?}");
}
