//! A small PKI whose certificates can be spoilt one property at a time.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;

use crate::spiffe::{
    BundleSet, PeerIdentity, TrustBundle, VerifyError, parse_trust_domain, verify,
};

pub(super) const ID: &str = "spiffe://td.test/web";
pub(super) const HOUR: Duration = Duration::from_hours(1);

pub(super) const SAN: &[u64] = &[2, 5, 29, 17];
pub(super) const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
pub(super) const NAME_CONSTRAINTS: &[u64] = &[2, 5, 29, 30];

pub(super) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_hours(500_000)
}

/// An authority of the test.
pub(super) struct Ca {
    pub(super) der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// A root.
    pub(super) fn root(name: &str) -> Self {
        Self::root_with(name, |_| {})
    }

    /// A root with something changed.
    pub(super) fn root_with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = ca_params(name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().into();
        Self { der, issuer: Issuer::new(params, key) }
    }

    /// An intermediate under this authority.
    pub(super) fn intermediate(&self, name: &str) -> Self {
        self.intermediate_with(name, |_| {})
    }

    /// An intermediate with something changed.
    pub(super) fn intermediate_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let mut params = ca_params(name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let der = params.signed_by(&key, &self.issuer).unwrap().into();
        Self { der, issuer: Issuer::new(params, key) }
    }

    /// A sound leaf.
    pub(super) fn leaf(&self, id: &str) -> CertificateDer<'static> {
        self.leaf_with(id, |_| {})
    }

    /// A leaf with something changed.
    pub(super) fn leaf_with(
        &self,
        id: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let mut params = leaf_params(id);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, &self.issuer).unwrap().into()
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now() - HOUR).into();
    params.not_after = (now() + HOUR).into();
    params.use_authority_key_identifier_extension = true;
    params
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub(super) fn leaf_params(id: &str) -> CertificateParams {
    let mut params = params("leaf");
    params.is_ca = IsCa::ExplicitNoCa;
    params.subject_alt_names = vec![uri(id)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

pub(super) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// An extension written by hand, for what the library refuses to write.
pub(super) fn raw(oid: &[u64], critical: bool, content: Vec<u8>) -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(oid, content);
    extension.set_criticality(critical);
    extension
}

/// DER: one tag, its length, its content.
pub(super) fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap();
    assert!(length < 128, "short form only");
    [&[tag, length], content].concat()
}

/// A SAN extension of these URIs, byte for byte.
pub(super) fn raw_uris(uris: &[&[u8]]) -> Vec<u8> {
    let names: Vec<u8> = uris.iter().flat_map(|uri| der(0x86, uri)).collect();
    der(0x30, &names)
}

/// The bundles of a verifier: trust domain and its roots.
pub(super) fn bundles(of: &[(&str, &[&Ca])]) -> BundleSet {
    of.iter()
        .map(|(name, roots)| {
            let roots = roots.iter().map(|root| root.der.clone()).collect();
            TrustBundle::new(parse_trust_domain(name).unwrap(), roots).unwrap()
        })
        .collect()
}

/// What a verifier that trusts `root` in `td.test` says about a chain.
pub(super) fn judge(
    root: &Ca,
    chain: &[&CertificateDer<'static>],
) -> Result<PeerIdentity, VerifyError> {
    let chain: Vec<_> = chain.iter().map(|der| (*der).clone()).collect();
    verify(&chain, &bundles(&[("td.test", &[root])]), now())
}
