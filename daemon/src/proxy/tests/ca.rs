//! An authority for tests, which also signs what no authority should.

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::spiffe::{BundleSet, TrustBundle, TrustDomain, X509Svid, parse_id};
use crate::sys::clock;

/// An authority of one trust domain.
pub(in crate::proxy) struct TestCa {
    pub(in crate::proxy) trust_domain: TrustDomain,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// What is asked of it, and what is wrong with that.
#[derive(Clone)]
pub(in crate::proxy) struct Wanted {
    pub(in crate::proxy) uris: Vec<String>,
    pub(in crate::proxy) not_before: SystemTime,
    pub(in crate::proxy) not_after: SystemTime,
    pub(in crate::proxy) is_ca: bool,
}

impl Wanted {
    pub(in crate::proxy) fn id(id: &str) -> Self {
        let now = clock::now();
        Self {
            uris: vec![id.to_owned()],
            not_before: now - Duration::from_mins(1),
            not_after: now + Duration::from_hours(1),
            is_ca: false,
        }
    }
}

impl fmt::Debug for TestCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestCa").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

impl TestCa {
    pub(in crate::proxy) fn new(trust_domain: &str) -> Self {
        let uri = format!("spiffe://{trust_domain}");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().unwrap())];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { trust_domain: TrustDomain::new(trust_domain).unwrap(), issuer }
    }

    pub(in crate::proxy) fn bundle(&self) -> TrustBundle {
        let certificate = CertificateDer::from(self.issuer.der().to_vec());
        TrustBundle::new(self.trust_domain.clone(), vec![certificate]).unwrap()
    }

    pub(in crate::proxy) fn bundles(&self) -> BundleSet {
        BundleSet::from_iter([self.bundle()])
    }

    /// A certificate and its PKCS#8 key, whatever is wrong with them.
    pub(in crate::proxy) fn sign(&self, wanted: &Wanted) -> (CertificateDer<'static>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names =
            wanted.uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap())).collect();
        params.not_before = wanted.not_before.into();
        params.not_after = wanted.not_after.into();
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.is_ca = IsCa::ExplicitNoCa;
        if wanted.is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages.push(KeyUsagePurpose::KeyCertSign);
        }
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (leaf.der().clone(), key.serialize_der())
    }

    /// A valid SVID.
    pub(in crate::proxy) fn svid(&self, id: &str) -> X509Svid {
        self.svid_until(id, clock::now() + Duration::from_hours(1))
    }

    pub(in crate::proxy) fn svid_until(&self, id: &str, not_after: SystemTime) -> X509Svid {
        let (leaf, key) = self.sign(&Wanted { not_after, ..Wanted::id(id) });
        let svid = X509Svid::read(vec![leaf], Zeroizing::new(key)).unwrap();
        assert_eq!(svid.id, parse_id(id).unwrap());
        svid
    }
}
