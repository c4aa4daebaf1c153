//! The request by which a node has its authority signed elsewhere: its key stays here, its public half
//! and the node's name travel (PKCS #10, RFC 2986). What the certificate will say is up to the
//! signer, whatever a request may ask for.

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, DnValue,
    PKCS_ECDSA_P256_SHA256, PublicKey,
};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::error::CaError;
use super::signing::AuthorityKey;
use crate::identity::issuer::IssueError;
use crate::spiffe::pem_block;

/// A request with the key that it is for.
pub(super) struct MadeRequest {
    /// PEM.
    pub(super) request: String,
    /// PKCS#8 DER.
    pub(super) key: Zeroizing<Vec<u8>>,
}

/// A request, read, and its signature verified: who sent it has the key.
#[derive(Debug)]
pub(super) struct Request {
    /// The node's name.
    pub(super) name: String,
    /// The key to be certified.
    pub(super) key: PublicKey,
}

/// Makes a key, and the request for it.
pub(super) fn make_request(name: &str) -> Result<MadeRequest, CaError> {
    const FAILED: IssueError = IssueError::Crypto("make a signing request");
    let key = AuthorityKey::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let request = params.serialize_request(&key).map_err(|_rcgen| FAILED)?;
    let request = pem_block("CERTIFICATE REQUEST", request.der()).to_string();
    Ok(MadeRequest { request, key: key.to_pkcs8()? })
}

/// Reads a request in PEM.
pub(super) fn read_request(pem: &[u8]) -> Result<Request, CaError> {
    let refused = |_| CaError::NotRequest;
    let der = CertificateSigningRequestDer::from_pem_slice(pem).map_err(|_| CaError::NotRequest)?;
    let read = CertificateSigningRequestParams::from_der(&der).map_err(refused)?;
    // Whatever else a node might sign with, it could not.
    if read.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
        return Err(CaError::NotRequest);
    }
    let name = match read.params.distinguished_name.get(&DnType::CommonName) {
        Some(DnValue::Utf8String(name)) => name.clone(),
        Some(DnValue::PrintableString(name)) => name.as_str().to_owned(),
        _ => return Err(CaError::NotRequest),
    };
    Ok(Request { name, key: read.public_key })
}
