//! Whom a look at another trust domain's endpoint believes: a certificate of the web, or an X.509-SVID
//! of one ID. Source: SPIFFE Federation §5.2.

use std::fmt;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};
use thiserror::Error as ThisError;

use super::tls::{HTTP, provider};
use crate::config::FetchProfile;
use crate::spiffe::{BundleSet, SpiffeId, TrustDomain, VerifyError, verify};
use crate::sys::clock;

/// A client that believes endpoints of this profile, by what is known now.
///
/// # Errors
/// The host has no authorities of the web, or the provider lacks what is asked of it.
pub(super) fn client(
    profile: &FetchProfile,
    in_force: Arc<BundleSet>,
) -> Result<ClientConfig, String> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut config = match profile {
        FetchProfile::HttpsWeb { authorities } => {
            builder.with_root_certificates(roots(authorities.as_deref())?).with_no_client_auth()
        }
        FetchProfile::HttpsSpiffe { endpoint } => {
            let expected = endpoint.clone();
            let verifier = SpiffeEndpoint { expected, in_force, provider };
            let builder = builder.dangerous();
            builder.with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![HTTP.to_vec()];
    // Each look is judged by what is known at that time.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The authorities of the web: those given, or the host's.
fn roots(given: Option<&[CertificateDer<'static>]>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let certificates = given.map_or_else(
        || rustls_native_certs::load_native_certs().certs,
        <[CertificateDer<'static>]>::to_vec,
    );
    // A host's store may hold what cannot be read; what can be is enough.
    let (_added, _ignored) = roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        return Err(
            "this host knows no authorities of the web; install ca-certificates, or name a \
                    file of them (authorities)"
                .to_owned(),
        );
    }
    Ok(roots)
}

/// Why the handshake failed, in our words where we have some.
pub(super) fn reason(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(ours)))) => {
            ours.to_string()
        }
        Some(other) => other.to_string(),
        None => error.to_string(),
    }
}

/// Believes an endpoint that has an X.509-SVID of one ID, by the bundle of that ID's trust domain.
/// Names and addresses play no part. Source: SPIFFE Federation §5.2.2.
struct SpiffeEndpoint {
    expected: SpiffeId,
    in_force: Arc<BundleSet>,
    provider: Arc<CryptoProvider>,
}

/// Why an endpoint is not believed.
#[derive(Debug, ThisError)]
enum NotBelieved {
    #[error("{0}")]
    Unverified(VerifyError),
    #[error("it is {0}, not {1}")]
    Another(SpiffeId, SpiffeId),
    #[error(
        "no bundle of {0} is known, by which its endpoint could be; name one (bundle), or set one \
         (tacit bundle set)"
    )]
    NoBundle(TrustDomain),
}

impl SpiffeEndpoint {
    fn judge(&self, chain: &[CertificateDer<'_>]) -> Result<(), NotBelieved> {
        let domain = self.expected.trust_domain();
        if self.in_force.get(domain).is_none() {
            return Err(NotBelieved::NoBundle(domain.clone()));
        }
        let peer = verify(chain, &self.in_force, clock::now()).map_err(NotBelieved::Unverified)?;
        if *peer.id() == self.expected {
            Ok(())
        } else {
            Err(NotBelieved::Another(peer.id().clone(), self.expected.clone()))
        }
    }
}

impl fmt::Debug for SpiffeEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpiffeEndpoint").field("expected", &self.expected).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for SpiffeEndpoint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain: Vec<_> =
            std::iter::once(end_entity).chain(intermediates).map(|it| it.as_ref().into()).collect();
        match self.judge(&chain) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(why) => Err(CertificateError::Other(OtherError(Arc::new(why))).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
