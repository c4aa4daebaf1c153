//! TLS as the endpoints speak it: 1.2 and 1.3 with the suites of Mozilla's "intermediate" list, and
//! nobody is asked for a client certificate. Source: SPIFFE Federation §5.2.1, §5.2.2.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, ServerConfig};
use rustls::sign::CertifiedKey;

/// All that is spoken over it.
pub(super) const HTTP: &[u8] = b"http/1.1";

/// A server that shows what `shown` has at that moment.
///
/// # Errors
/// The provider of cryptography lacks what is asked of it, which it does not.
pub(super) fn server(shown: Arc<dyn ResolvesServerCert>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(shown);
    config.alpn_protocols = vec![HTTP.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// A chain and its key, if they belong together.
///
/// # Errors
/// They do not, or the key is of no kind that can sign.
pub(super) fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'_>,
) -> Result<CertifiedKey, rustls::Error> {
    // Read in place: `CertifiedKey::from_der` would leave a copy behind that nobody wipes.
    let certified = CertifiedKey::new(chain, any_supported_type(key)?);
    certified.keys_match()?;
    Ok(certified)
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
