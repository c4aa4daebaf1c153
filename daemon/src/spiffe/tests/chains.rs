//! The path from a leaf to an authority of its own trust domain.

use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;

use super::pki::{Ca, HOUR, ID, NAME_CONSTRAINTS, bundles, der, judge, now, raw};
use crate::spiffe::{
    BundleError, MAX_CERTIFICATE_BYTES, MAX_CHAIN, TrustBundle, VerifyError, parse_trust_domain,
    verify,
};

#[test]
fn a_chain_in_any_order_with_the_root_and_strangers_among_it() {
    let root = Ca::root("root");
    let upper = root.intermediate("upper");
    let lower = upper.intermediate("lower");
    let leaf = lower.leaf(ID);
    let stranger = Ca::root("stranger");
    let chain = [&leaf, &upper.der, &stranger.der, &root.der, &lower.der];
    let peer = judge(&root, &chain).unwrap();
    let trust = bundles(&[("td.test", &[&root, &upper, &lower])]);
    let known = trust.get(&parse_trust_domain("td.test").unwrap()).unwrap();
    let key_ids: Vec<_> = known.authorities().iter().rev().map(|it| it.key_id.clone()).collect();
    assert_eq!(peer.authorities(), key_ids);
    assert_eq!((peer.id().to_string().as_str(), peer.not_after()), (ID, now() + HOUR));
}

#[test]
fn a_chain_that_does_not_reach_the_root() {
    let root = Ca::root("root");
    let intermediate = root.intermediate("intermediate");
    let leaf = intermediate.leaf(ID);
    assert_eq!(judge(&root, &[&leaf]), Err(VerifyError::UnknownAuthority));
    assert_eq!(judge(&root, &[]), Err(VerifyError::NoCertificate));
    let impostor = Ca::root("root");
    assert_eq!(judge(&impostor, &[&root.leaf(ID)]), Err(VerifyError::BadSignature));
    let other = Ca::root("other");
    assert_eq!(judge(&root, &[&other.leaf(ID), &other.der]), Err(VerifyError::UnknownAuthority));
}

#[test]
fn an_authority_speaks_for_its_own_trust_domain_only() {
    let (root, other) = (Ca::root("root"), Ca::root("other root"));
    let both = bundles(&[("td.test", &[&root]), ("other.test", &[&other])]);
    let check = |leaf| verify(&[leaf], &both, now()).map(|peer| peer.id().to_string());
    assert_eq!(check(root.leaf(ID)), Ok(ID.to_owned()));
    let foreign = "spiffe://other.test/web";
    assert_eq!(check(other.leaf(foreign)), Ok(foreign.to_owned()));
    assert_eq!(check(root.leaf(foreign)), Err(VerifyError::UnknownAuthority));
    assert_eq!(check(other.leaf(ID)), Err(VerifyError::UnknownAuthority));
    let nowhere = parse_trust_domain("nowhere.test").unwrap();
    let unknown = Err(VerifyError::UntrustedDomain(nowhere));
    assert_eq!(check(root.leaf("spiffe://nowhere.test/web")), unknown);
    let empty = bundles(&[("td.test", &[])]);
    let found = verify(&[root.leaf(ID)], &empty, now());
    assert_eq!(found, Err(VerifyError::UnknownAuthority), "an empty bundle trusts nobody");
}

#[test]
fn a_root_or_an_intermediate_is_no_leaf() {
    let root = Ca::root("root");
    let intermediate = root.intermediate("intermediate");
    assert_eq!(judge(&root, &[&root.der]), Err(VerifyError::LeafIsAuthority));
    assert_eq!(judge(&root, &[&intermediate.der]), Err(VerifyError::LeafIsAuthority));
}

#[test]
fn intermediates_that_may_not_sign() {
    let root = Ca::root("root");
    let judge_under = |intermediate: Ca| {
        let leaf = intermediate.leaf(ID);
        judge(&root, &[&leaf, &intermediate.der]).map(|_peer| ())
    };
    let no_ca = root.intermediate_with("no CA", |params| params.is_ca = IsCa::ExplicitNoCa);
    assert_eq!(judge_under(no_ca), Err(VerifyError::IntermediateNotAuthority));
    let no_sign = root.intermediate_with("no keyCertSign", |params| {
        params.key_usages = vec![KeyUsagePurpose::CrlSign];
    });
    assert_eq!(judge_under(no_sign), Err(VerifyError::IntermediateNotAuthority));
    let no_usage = root.intermediate_with("no usage", |params| params.key_usages.clear());
    assert_eq!(judge_under(no_usage), Err(VerifyError::IntermediateNotAuthority));
    let servers_only = root.intermediate_with("servers", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert_eq!(judge_under(servers_only), Err(VerifyError::ExtendedKeyUsage));
    let any_use = root.intermediate_with("any", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
    });
    assert_eq!(judge_under(any_use), Ok(()));
    let unknown = root.intermediate_with("critical", |params| {
        params.custom_extensions.push(raw(&[1, 2, 3, 4], true, vec![5, 0]));
    });
    assert_eq!(judge_under(unknown), Err(VerifyError::UnknownCriticalExtension));
    let past = now() - HOUR / 2;
    let expired = root.intermediate_with("old", |params| params.not_after = past.into());
    assert_eq!(judge_under(expired), Err(VerifyError::Expired { not_after: past }));
    let future = now() + HOUR / 2;
    let early = root.intermediate_with("early", |params| params.not_before = future.into());
    assert_eq!(judge_under(early), Err(VerifyError::NotYetValid { not_before: future }));
}

#[test]
fn lengths_that_authorities_set() {
    let limited = |most| {
        move |params: &mut rcgen::CertificateParams| {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(most));
        }
    };
    let root = Ca::root("root");
    let upper = root.intermediate_with("upper", limited(0));
    let lower = upper.intermediate("lower");
    let chain = [&lower.leaf(ID), &lower.der, &upper.der];
    assert_eq!(judge(&root, &chain), Err(VerifyError::PathTooLong));
    assert!(judge(&root, &[&upper.leaf(ID), &upper.der]).is_ok());
    let short = Ca::root_with("short root", limited(0));
    let below = short.intermediate("below");
    assert_eq!(judge(&short, &[&below.leaf(ID), &below.der]), Err(VerifyError::PathTooLong));
    assert!(judge(&short, &[&short.leaf(ID)]).is_ok());
}

#[test]
fn time_is_blamed_only_if_nothing_else_is_wrong() {
    let past = now() - HOUR / 2;
    let root = Ca::root_with("old root", |params| params.not_after = past.into());
    let expired = Err(VerifyError::Expired { not_after: past });
    assert_eq!(judge(&root, &[&root.leaf(ID)]), expired);
    let sound = Ca::root("root");
    let old = sound.leaf_with(ID, |params| params.not_after = past.into());
    assert!(judge(&sound, &[&old]).is_err_and(|error| error.is_expired()));
    let impostor = Ca::root("root");
    assert_eq!(judge(&impostor, &[&old]), Err(VerifyError::BadSignature));
    let stranger = Ca::root("stranger");
    assert_eq!(judge(&stranger, &[&old]), Err(VerifyError::UnknownAuthority));
}

#[test]
fn a_renewed_root_of_the_same_name_serves_beside_the_old_one() {
    let old = Ca::root_with("root", |params| {
        params.not_after = (now() - HOUR / 2).into();
    });
    let new = Ca::root("root");
    let trust = bundles(&[("td.test", &[&old, &new])]);
    assert!(verify(&[new.leaf(ID)], &trust, now()).is_ok());
}

#[test]
fn constraints_on_uris_are_refused_rather_than_ignored() {
    let permitted = der(0x30, &der(0xa0, &der(0x30, &der(0x86, b"td.test"))));
    let root = Ca::root_with("constrained", |params| {
        params.custom_extensions.push(raw(NAME_CONSTRAINTS, true, permitted));
    });
    assert_eq!(judge(&root, &[&root.leaf(ID)]), Err(VerifyError::NameConstraint));
}

#[test]
fn what_costs_too_much_to_read() {
    let root = Ca::root("root");
    let leaf = root.leaf(ID);
    let many = vec![leaf.clone(); MAX_CHAIN + 1];
    let trust = bundles(&[("td.test", &[&root])]);
    let long = VerifyError::ChainTooLong(MAX_CHAIN + 1);
    assert_eq!(verify(&many, &trust, now()), Err(long));
    let garbage = CertificateDer::from(vec![0; MAX_CERTIFICATE_BYTES + 1]);
    let large = VerifyError::TooLarge(MAX_CERTIFICATE_BYTES + 1);
    assert_eq!(judge(&root, &[&leaf, &garbage]), Err(large));
    let full = CertificateDer::from(vec![0; MAX_CERTIFICATE_BYTES]);
    let all = judge(&root, &[&leaf, &full, &full, &full, &full]);
    assert_eq!(all, Err(VerifyError::TooLarge(4 * MAX_CERTIFICATE_BYTES + leaf.len())));
    let junk = CertificateDer::from(vec![0x30, 3, 1, 2, 3]);
    assert_eq!(judge(&root, &[&junk]), Err(VerifyError::Malformed));
    assert!(judge(&root, &[&leaf, &junk]).is_ok(), "junk beside a sound path is ignored");
    let mut longer = leaf.to_vec();
    longer.push(0);
    assert_eq!(judge(&root, &[&CertificateDer::from(longer)]), Err(VerifyError::Malformed));
}

#[test]
fn a_tangle_of_namesakes_is_not_searched() {
    let outside = Ca::root("twin");
    let twins: Vec<_> = (0..4).map(|_| outside.intermediate("twin")).collect();
    let leaf = twins[0].leaf(ID);
    let mut chain = vec![&leaf];
    chain.extend(twins.iter().map(|twin| &twin.der));
    assert_eq!(judge(&Ca::root("root"), &chain), Err(VerifyError::PathTooComplex));
    chain.pop();
    assert_eq!(judge(&Ca::root("root"), &chain), Err(VerifyError::UnknownAuthority));
    let mut deep = vec![Ca::root("0")];
    for level in 1..8 {
        deep.push(deep[level - 1].intermediate(&level.to_string()));
    }
    let leaf = deep[7].leaf(ID);
    let mut chain = vec![&leaf];
    chain.extend(deep.iter().skip(1).map(|ca| &ca.der));
    assert_eq!(judge(&deep[0], &chain), Err(VerifyError::PathTooComplex));
}

#[test]
fn a_bundle_holds_authorities_only() {
    let root = Ca::root("root");
    let domain = || parse_trust_domain("td.test").unwrap();
    let bundle = TrustBundle::new(domain(), vec![root.der.clone()]).unwrap();
    let read = TrustBundle::from_pem(domain(), bundle.to_pem().as_bytes());
    assert_eq!(read, Ok(bundle));
    let leaf = TrustBundle::new(domain(), vec![root.der.clone(), root.leaf(ID)]);
    assert_eq!(leaf, Err(BundleError::NotAuthority { index: 1 }));
    let junk = TrustBundle::new(domain(), vec![CertificateDer::from(vec![1, 2, 3])]);
    assert_eq!(junk, Err(BundleError::Malformed { index: 0 }));
    let bad_pem = TrustBundle::from_pem(domain(), b"-----BEGIN CERTIFICATE-----\n!\n");
    assert_eq!(bad_pem, Err(BundleError::Pem));
}
