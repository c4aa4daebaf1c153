//! SVIDs as rustls wants them: one credential for each generation of an SVID, shared by its
//! connections. What differs between connections, the judge of the peer, costs a clone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use thiserror::Error;

use super::marker::MarkingRandom;
use super::verifier::{NoOne, Verifier};
use crate::spiffe::{BundleSet, SpiffeId, VerifyError, X509Svid, verify};

/// Makes credentials, and keeps them while their SVIDs are in use.
#[derive(Debug)]
pub(in crate::proxy) struct Tls {
    provider: Arc<CryptoProvider>,
    /// By the address of the SVID, which is not used again while a weak reference is kept.
    credentials: Mutex<HashMap<usize, Kept>>,
}

#[derive(Debug)]
struct Kept {
    /// Weak, so that the key of an SVID is wiped when nobody uses it any more.
    svid: Weak<X509Svid>,
    credential: Arc<Credential>,
}

/// One generation of an SVID, ready for handshakes.
#[derive(Debug)]
pub(in crate::proxy) struct Credential {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) key: Arc<SingleCertAndKey>,
    /// Complete but for the verifier.
    client: ClientConfig,
    id: SpiffeId,
    authorities: Arc<[String]>,
    not_after: SystemTime,
}

/// What a client offers besides its certificate.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::proxy) struct Offer<'a> {
    /// ALPN protocols in order; none if empty.
    pub(in crate::proxy) alpn: &'a [Vec<u8>],
    /// Server name; none is sent if absent.
    pub(in crate::proxy) sni: Option<&'a str>,
}

/// Why an SVID cannot be used.
#[derive(Debug, Error)]
pub(in crate::proxy) enum CredentialError {
    /// It would not pass our own verification.
    #[error("the workload's own SVID is not valid: {0}")]
    Invalid(VerifyError),
    /// The key is of no kind that is used for signing.
    #[error("the workload's own SVID cannot be used")]
    Unusable(#[source] rustls::Error),
}

impl Default for Tls {
    fn default() -> Self {
        Self { provider: Arc::new(provider()), credentials: Mutex::default() }
    }
}

impl Tls {
    /// The credential for an SVID, made on first use.
    ///
    /// # Errors
    /// The SVID is not valid by our own rules, or its key cannot sign.
    pub(in crate::proxy) fn credential(
        &self,
        svid: &Arc<X509Svid>,
        bundles: &BundleSet,
        now: SystemTime,
    ) -> Result<Arc<Credential>, CredentialError> {
        let mut kept = self.credentials.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = Arc::as_ptr(svid).addr();
        let found = kept.get(&generation);
        let holds = |old: &&Kept| old.credential.lasts(now) && old.credential.is_trusted(bundles);
        if let Some(found) = found.filter(holds) {
            return Ok(Arc::clone(&found.credential));
        }
        kept.retain(|_, old| old.svid.strong_count() > 0);
        let made = Arc::new(Credential::new(&self.provider, svid, bundles, now)?);
        let keep = Kept { svid: Arc::downgrade(svid), credential: Arc::clone(&made) };
        kept.insert(generation, keep);
        Ok(made)
    }

    /// Drops the credentials whose SVIDs nobody holds any more.
    pub(in crate::proxy) fn sweep(&self) {
        let mut kept = self.credentials.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, old| old.svid.strong_count() > 0);
    }
}

impl Credential {
    fn new(
        provider: &Arc<CryptoProvider>,
        svid: &X509Svid,
        bundles: &BundleSet,
        now: SystemTime,
    ) -> Result<Self, CredentialError> {
        let own = verify(&svid.chain, bundles, now).map_err(CredentialError::Invalid)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(svid.key.as_slice()));
        // Read in place: `CertifiedKey::from_der` would leave a copy behind that nobody wipes.
        let signer = any_supported_type(&key).map_err(CredentialError::Unusable)?;
        let certified = CertifiedKey::new(svid.chain.clone(), signer);
        certified.keys_match().map_err(CredentialError::Unusable)?;
        let key = Arc::new(SingleCertAndKey::from(certified));
        Ok(Self {
            client: client_config(provider, &key).map_err(CredentialError::Unusable)?,
            provider: Arc::clone(provider),
            key,
            id: svid.id.clone(),
            authorities: own.authorities().into(),
            not_after: svid.not_after,
        })
    }

    /// Subject key ids of the authorities of our own chain: the leaf's issuer first, the root last.
    pub(in crate::proxy) fn authorities(&self) -> &Arc<[String]> {
        &self.authorities
    }

    /// Whether peers could still trust it, as far as the own bundle says: that may have changed since
    /// it was made.
    fn is_trusted(&self, bundles: &BundleSet) -> bool {
        bundles.for_id(&self.id).is_some_and(|bundle| bundle.vouches_for(&self.authorities))
    }

    fn lasts(&self, now: SystemTime) -> bool {
        now < self.not_after
    }

    /// The configuration of one client connection.
    pub(super) fn client(&self, verifier: &Arc<Verifier>, offer: Offer<'_>) -> ClientConfig {
        let mut config = self.client.clone();
        config.enable_sni = offer.sni.is_some();
        config.alpn_protocols = offer.alpn.to_vec();
        let verifier: Arc<Verifier> = Arc::clone(verifier);
        config.dangerous().set_certificate_verifier(verifier);
        config
    }

    /// The configuration of one server connection.
    pub(super) fn server(&self, verifier: &Arc<Verifier>) -> Result<ServerConfig, rustls::Error> {
        let verifier: Arc<Verifier> = Arc::clone(verifier);
        let key: Arc<SingleCertAndKey> = Arc::clone(&self.key);
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(key);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(config)
    }
}

/// aws-lc-rs with the hybrid key exchange first, and randomness that can bear the mark. AES-128
/// first: its SHA-256 has instructions of its own on today's processors, SHA-384 has not, and the
/// key schedule of a handshake is made of it.
fn provider() -> CryptoProvider {
    use aws_lc_rs::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    use aws_lc_rs::kx_group::{SECP256R1, X25519, X25519MLKEM768};
    CryptoProvider {
        cipher_suites: vec![
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![X25519MLKEM768, X25519, SECP256R1],
        secure_random: &MarkingRandom,
        ..aws_lc_rs::default_provider()
    }
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    key: &Arc<SingleCertAndKey>,
) -> Result<ClientConfig, rustls::Error> {
    let key: Arc<SingleCertAndKey> = Arc::clone(key);
    let mut config = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(NoOne))
        .with_client_cert_resolver(key);
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Ok(config)
}
