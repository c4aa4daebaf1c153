//! The peer, verified and judged inside the handshake: first its chain, by the rules of X.509-SVID;
//! then, when it has proved that it holds the key, by policy. What was found is handed out only
//! with a finished handshake, or to say why there was none.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    SignatureScheme,
};

use crate::policy::{Denial, Permit};
use crate::spiffe::{BundleSet, PeerIdentity, VerifyError, verify};

/// What policy says of a peer that has proved who it is.
pub(in crate::proxy) type Judge =
    Box<dyn Fn(&PeerIdentity) -> Result<Permit, Denial> + Send + Sync>;

/// By what a peer is verified and judged, in one handshake.
pub(in crate::proxy) struct Trust {
    /// The authorities, as they are now.
    pub(in crate::proxy) bundles: Arc<BundleSet>,
    /// Reads the clock when the chain is verified.
    pub(in crate::proxy) clock: fn() -> SystemTime,
    /// Decides.
    pub(in crate::proxy) judge: Judge,
}

/// What a handshake has found out about the peer.
#[derive(Debug, Clone)]
pub(super) enum Finding {
    Admitted(PeerIdentity, Permit),
    Denied(PeerIdentity, Denial),
    Unverified(VerifyError),
}

/// Verifies and judges the peer of one connection.
pub(super) struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
    /// Whom the chain names; that the peer holds the key is not proved yet.
    named: OnceLock<PeerIdentity>,
    finding: OnceLock<Finding>,
}

impl Verifier {
    pub(super) fn new(trust: Trust, provider: &Arc<CryptoProvider>) -> Arc<Self> {
        let provider = Arc::clone(provider);
        Arc::new(Self { trust, provider, named: OnceLock::new(), finding: OnceLock::new() })
    }

    /// What was found, as far as the handshake came.
    pub(super) fn finding(&self) -> Option<Finding> {
        self.finding.get().cloned()
    }

    fn check_chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), Error> {
        let chain: Vec<_> =
            std::iter::once(leaf).chain(intermediates).map(|der| der.as_ref().into()).collect();
        match verify(&chain, &self.trust.bundles, (self.trust.clock)()) {
            // A second chain in one handshake cannot be: the first one named stays.
            Ok(peer) => self.named.set(peer).map_err(|_second| refusal()),
            Err(fault) => {
                let alert = alert_for(&fault);
                self.find(Finding::Unverified(fault));
                Err(alert.into())
            }
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let valid = verify_tls13_signature(message, certificate, signed, algorithms)?;
        // Closed: a signature that no verified chain came before proves nobody.
        let peer = self.named.get().ok_or_else(refusal)?;
        match (self.trust.judge)(peer) {
            Ok(permit) => {
                self.find(Finding::Admitted(peer.clone(), permit));
                Ok(valid)
            }
            Err(denial) => {
                self.find(Finding::Denied(peer.clone(), denial));
                Err(refusal())
            }
        }
    }

    /// The first finding stays; rustls asks once.
    fn find(&self, finding: Finding) {
        if self.finding.set(finding).is_err() {
            tracing::error!("a handshake verified its peer twice; the first finding stays");
        }
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("finding", &self.finding).finish_non_exhaustive()
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("bundles", &self.bundles).finish_non_exhaustive()
    }
}

/// The alert `access_denied`.
fn refusal() -> Error {
    CertificateError::ApplicationVerificationFailure.into()
}

fn alert_for(fault: &VerifyError) -> CertificateError {
    match fault {
        fault if fault.is_expired() => CertificateError::Expired,
        VerifyError::UntrustedDomain(_)
        | VerifyError::UnknownAuthority
        | VerifyError::DistrustedAuthority(_) => CertificateError::UnknownIssuer,
        VerifyError::Malformed => CertificateError::BadEncoding,
        _ => CertificateError::ApplicationVerificationFailure,
    }
}

/// Only TLS 1.3 is spoken.
fn no_tls12() -> Error {
    Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13)
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Names and addresses play no part: the identity is the SPIFFE ID (X509-SVID §5).
        self.check_chain(end_entity, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // None: which authorities are trusted depends on the client's trust domain.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check_chain(end_entity, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

/// Stands in a configuration until the verifier of the connection takes its place; admits nobody.
#[derive(Debug)]
pub(super) struct NoOne;

impl ServerCertVerifier for NoOne {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Err(refusal())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(refusal())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(refusal())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        Vec::new()
    }
}
