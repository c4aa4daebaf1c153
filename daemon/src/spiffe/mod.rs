//! SPIFFE's own words: IDs, trust domains, SVIDs, bundles, and the one place where a peer's
//! X.509-SVID, or a JWT-SVID, is verified. Pure: no I/O, no clock. Home of the `spiffe` crate.

mod bundle;
mod certificate;
mod id;
mod jwt;
mod leaf;
mod path;
mod pem;
mod signatures;
mod svid;
mod verify;
mod verify_error;

#[cfg(test)]
mod tests;

pub use ::spiffe::{SpiffeId, TrustDomain};
pub use bundle::{Authority, BundleDocument, BundleError, BundleSet, DocumentError, TrustBundle};
pub use certificate::hex;
pub use id::{IdError, MAX_ID_BYTES, parse_id, parse_trust_domain};
pub use jwt::{
    Curve, JwtAuthority, JwtClaims, JwtError, JwtIdentity, JwtKey, JwtSvid, KeyUse, SigningInput,
    jwks, verify_jwt,
};
pub use pem::pem_block;
pub use svid::X509Svid;
pub use verify::{MAX_CERTIFICATE_BYTES, MAX_CHAIN, MAX_CHAIN_BYTES, PeerIdentity, verify};
pub use verify_error::{KeyUsageFault, VerifyError};
