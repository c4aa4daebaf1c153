//! JWT-SVIDs: authorities that sign them, tokens that this node makes, and the one place where a
//! token is verified. Pure; what is random or kept is in `identity`. Source: JWT-SVID.

mod authority;
mod jwks;
mod svid;
mod verify;

#[cfg(test)]
mod tests;

pub use authority::{Curve, JwtAuthority, JwtKey};
pub(super) use jwks::{JWT_SVID, jwk, read_jwk};
pub use jwks::{KeyUse, jwks};
pub use svid::{JwtClaims, JwtSvid, SigningInput};
pub use verify::{JwtError, JwtIdentity, verify_jwt};
