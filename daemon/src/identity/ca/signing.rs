//! An authority of the embedded CA: its certificate, its key, and what it signs.
//!
//! Keys are aws-lc-rs's own, so that rcgen, of which this file is the only home, writes
//! certificates but never holds a private key. Profiles are those of X509-SVID §2-§4 and, where
//! that leaves room, of SPIRE. Files are `files.rs`; who may have an SVID is decided elsewhere.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
    SerialNumber, SignatureAlgorithm,
};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::identity::issuer::{IssueError, IssueRequest};
use crate::spiffe::{Authority, TrustBundle, TrustDomain, X509Svid, hex};

/// How long a root lasts. Chosen: it is carried to every node by hand.
pub(in crate::identity) const ROOT_TTL: Duration = Duration::from_hours(10 * 365 * 24);
/// How long the authority of a node lasts. Chosen: once a year is a habit, once in ten is a surprise.
pub(in crate::identity) const NODE_TTL: Duration = Duration::from_hours(365 * 24);
/// How far the start of an authority lies in the past, for nodes whose clocks are behind.
const AUTHORITY_BACKDATE: Duration = Duration::from_mins(1);
/// Random bytes of a serial number. RFC 5280 §4.1.2.2 allows 20.
const SERIAL_BYTES: usize = 16;
/// Longest common name, in characters. Source: RFC 5280 appendix A.1.
const MAX_COMMON_NAME: usize = 64;
/// `id-at-serialNumber`, RFC 5280 appendix A.1: tells authorities of one name apart.
const DN_SERIAL_NUMBER: [u64; 4] = [2, 5, 4, 5];

/// An authority with its key.
pub(in crate::identity) struct SigningAuthority {
    authority: Authority,
    trust_domain: TrustDomain,
    issuer: rcgen::Issuer<'static, AuthorityKey>,
}

impl SigningAuthority {
    /// A root for this trust domain, signed by itself.
    pub(in crate::identity) fn root(
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<Self, IssueError> {
        let key = AuthorityKey::generate()?;
        let name = format!("{trust_domain} root");
        let mut params = authority_params(trust_domain, &name)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        set_validity(&mut params, now, AUTHORITY_BACKDATE, now + ROOT_TTL);
        let certificate = params.self_signed(&key).map_err(|_rcgen| SIGN)?;
        Self::new(certificate.der(), key)
    }

    /// The authority of a node, signed by this one. It can sign leaves only.
    pub(in crate::identity) fn node(
        &self,
        name: &str,
        now: SystemTime,
    ) -> Result<Self, IssueError> {
        let key = AuthorityKey::generate()?;
        let certificate = self.certify(name, &key, now)?;
        Self::new(&certificate, key)
    }

    /// A certificate for the authority of a node whose key is elsewhere, signed by this one.
    pub(super) fn certify(
        &self,
        name: &str,
        key: &impl PublicKeyData,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, IssueError> {
        self.check_valid(now)?;
        let mut params = authority_params(&self.trust_domain, name)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let not_after = (now + NODE_TTL).min(self.authority.not_after);
        set_validity(&mut params, now, AUTHORITY_BACKDATE, not_after);
        let certificate = params.signed_by(key, &self.issuer).map_err(|_rcgen| SIGN)?;
        Ok(certificate.into())
    }

    /// An authority read from elsewhere. `None` if the key is not that of the certificate, or if
    /// the certificate is not one of an authority that bears the ID of a trust domain.
    pub(in crate::identity) fn read(
        certificate: &CertificateDer<'static>,
        key_pkcs8: &[u8],
    ) -> Option<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key_pkcs8).ok()?;
        Self::new(certificate, AuthorityKey::new(pair)).ok()
    }

    fn new(certificate: &CertificateDer<'static>, key: AuthorityKey) -> Result<Self, IssueError> {
        let trust_domain = TrustBundle::trust_domain_of(certificate).ok_or(READ)?;
        let bundle = TrustBundle::new(trust_domain.clone(), vec![certificate.clone()])
            .map_err(|_not_an_authority| READ)?;
        let authority = bundle.authorities().first().ok_or(READ)?.clone();
        if authority.public_key != key.public {
            return Err(READ);
        }
        let issuer = rcgen::Issuer::from_ca_cert_der(certificate, key).map_err(|_rcgen| READ)?;
        Ok(Self { authority, trust_domain, issuer })
    }

    /// What is public about it.
    pub(in crate::identity) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// For which trust domain it signs.
    pub(in crate::identity) fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// PKCS#8 DER of its private key.
    pub(in crate::identity) fn key_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, IssueError> {
        pkcs8(&self.issuer.key().pair)
    }

    /// Makes a key and an SVID for it, valid from `backdate` ago; never longer than the authority.
    pub(in crate::identity) fn svid(
        &self,
        request: &IssueRequest,
        backdate: Duration,
        now: SystemTime,
    ) -> Result<X509Svid, IssueError> {
        if !request.spiffe_id.is_member_of(&self.trust_domain) {
            return Err(IssueError::ForeignTrustDomain {
                id: request.spiffe_id.clone(),
                trust_domain: self.trust_domain.clone(),
            });
        }
        self.check_valid(now)?;
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map_err(|_unspecified| IssueError::Crypto("make a key"))?;
        let mut params = leaf_params(request)?;
        let not_after = (now + request.ttl).min(self.authority.not_after);
        set_validity(&mut params, now, backdate, not_after);
        let public = PublicKey(pair.public_key().as_ref().to_vec());
        let leaf = params.signed_by(&public, &self.issuer).map_err(|_rcgen| SIGN)?;
        let chain = vec![leaf.into(), self.authority.certificate.clone()];
        X509Svid::read(chain, pkcs8(&pair)?).map_err(IssueError::Invalid)
    }

    fn check_valid(&self, now: SystemTime) -> Result<(), IssueError> {
        let not_after = self.authority.not_after;
        if now < not_after { Ok(()) } else { Err(IssueError::AuthorityExpired { not_after }) }
    }
}

/// A bundle for this trust domain by which nobody is to be trusted, for those who cannot be told
/// "none": its authority has signed nothing and never will, since its key is thrown away here.
///
/// # Errors
/// The cryptographic library refuses.
pub fn void_bundle(trust_domain: &TrustDomain, now: SystemTime) -> Result<TrustBundle, IssueError> {
    let void = SigningAuthority::root(trust_domain, now)?;
    let certificates = vec![void.authority.certificate];
    TrustBundle::new(trust_domain.clone(), certificates).map_err(|_not_an_authority| READ)
}

impl fmt::Debug for SigningAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningAuthority")
            .field("authority", &self.authority)
            .field("key", &"<redacted>")
            .finish_non_exhaustive()
    }
}

const SIGN: IssueError = IssueError::Crypto("sign a certificate");
const READ: IssueError = IssueError::Crypto("read the authority's own certificate");

/// What a root and a node's authority have in common. Source: X509-SVID §3.2, §4.
fn authority_params(domain: &TrustDomain, name: &str) -> Result<CertificateParams, IssueError> {
    let mut params = params(&domain.id_string())?;
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(serial) = &params.serial_number {
        let printable = hex(&serial.to_bytes()).as_str().try_into().map_err(|_charset| SIGN)?;
        params.distinguished_name.push(
            DnType::CustomDnType(DN_SERIAL_NUMBER.to_vec()),
            DnValue::PrintableString(printable),
        );
    }
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// The profile of a leaf. Source: X509-SVID §4.3, §4.4; SPIRE's is the same but for key agreement
/// and key encipherment, which TLS 1.3 has no use for.
fn leaf_params(request: &IssueRequest) -> Result<CertificateParams, IssueError> {
    let mut params = params(&request.spiffe_id.to_string())?;
    for name in &request.dns_names {
        let name = name.as_str().try_into().map_err(|_charset| SIGN)?;
        params.subject_alt_names.push(SanType::DnsName(name));
    }
    // As SPIRE does, for clients that know nothing younger than common names.
    if let Some(first) = request.dns_names.first().filter(|name| name.len() <= MAX_COMMON_NAME) {
        params.distinguished_name.push(DnType::CommonName, first.as_str());
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// One URI SAN, a subject that is not empty, a random serial number, key identifiers.
fn params(uri: &str) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Tacit");
    params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(|_charset| SIGN)?)];
    params.serial_number = Some(SerialNumber::from(serial_number()?));
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Certificates count in whole seconds; a start is rounded down by the encoding.
fn set_validity(
    params: &mut CertificateParams,
    now: SystemTime,
    backdate: Duration,
    not_after: SystemTime,
) {
    params.not_before = now.checked_sub(backdate).unwrap_or(now).into();
    params.not_after = not_after.into();
}

/// Random, positive, and always of the same length.
fn serial_number() -> Result<Vec<u8>, IssueError> {
    let mut serial = vec![0; SERIAL_BYTES];
    aws_lc_rs::rand::fill(&mut serial)
        .map_err(|_unspecified| IssueError::Crypto("draw a number"))?;
    if let Some(first) = serial.first_mut() {
        // The top bit would make it negative, zero bits in front would make it shorter.
        *first = *first & 0x3f | 0x40;
    }
    Ok(serial)
}

fn pkcs8(pair: &EcdsaKeyPair) -> Result<Zeroizing<Vec<u8>>, IssueError> {
    // The document that aws-lc-rs makes is wiped on drop, too.
    let document =
        pair.to_pkcs8v1().map_err(|_unspecified| IssueError::Crypto("encode a private key"))?;
    Ok(Zeroizing::new(document.as_ref().to_vec()))
}

/// The key of an authority.
pub(super) struct AuthorityKey {
    pair: EcdsaKeyPair,
    public: Vec<u8>,
}

impl AuthorityKey {
    pub(super) fn generate() -> Result<Self, IssueError> {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map(Self::new)
            .map_err(|_unspecified| IssueError::Crypto("make a key"))
    }

    fn new(pair: EcdsaKeyPair) -> Self {
        Self { public: pair.public_key().as_ref().to_vec(), pair }
    }

    /// PKCS#8 DER.
    pub(super) fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, IssueError> {
        pkcs8(&self.pair)
    }
}

impl PublicKeyData for AuthorityKey {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for AuthorityKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.pair.sign(&SystemRandom::new(), message);
        signature
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_unspecified| rcgen::Error::RingUnspecified)
    }
}

/// The public half of a workload's key; the private half never leaves this file but in the SVID.
struct PublicKey(Vec<u8>);

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}
