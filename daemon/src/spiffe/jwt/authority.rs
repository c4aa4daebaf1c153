//! A public key that signs JWT-SVIDs, and what is a valid signature by it.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};

/// An authority that signs JWT-SVIDs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtAuthority {
    /// Key id, as tokens name it.
    pub key_id: String,
    /// The public key.
    pub key: JwtKey,
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtKey {
    /// On an elliptic curve.
    Ec {
        /// Which curve.
        curve: Curve,
        /// Horizontal coordinate, big endian, as long as the field.
        x: Vec<u8>,
        /// Vertical coordinate, the same.
        y: Vec<u8>,
    },
    /// RSA.
    Rsa {
        /// Modulus, big endian.
        n: Vec<u8>,
        /// Exponent, big endian.
        e: Vec<u8>,
    },
}

/// A curve that JWT-SVIDs may be signed on. Source: RFC 7518 §6.2.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// P-256.
    P256,
    /// P-384.
    P384,
    /// P-521.
    P521,
}

/// How a JWT-SVID is signed. Source: JWT-SVID §2.1; there are no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Es256,
    Es384,
    Es512,
    Ps256,
    Ps384,
    Ps512,
}

impl Algorithm {
    /// By its name in a header.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            _ => return None,
        })
    }

    /// How to verify it with a key on this curve, if it belongs to the curve. Source: RFC 7518 §3.4.
    fn on(self, curve: Curve) -> Option<&'static dyn VerificationAlgorithm> {
        match (self, curve) {
            (Self::Es256, Curve::P256) => Some(&ECDSA_P256_SHA256_FIXED),
            (Self::Es384, Curve::P384) => Some(&ECDSA_P384_SHA384_FIXED),
            (Self::Es512, Curve::P521) => Some(&ECDSA_P521_SHA512_FIXED),
            _ => None,
        }
    }

    /// How to verify it with an RSA key, of 2048 bits at least. Source: RFC 7518 §3.3, §3.5.
    fn rsa(self) -> Option<&'static RsaParameters> {
        match self {
            Self::Rs256 => Some(&RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Some(&RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Some(&RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Some(&RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Some(&RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Some(&RSA_PSS_2048_8192_SHA512),
            Self::Es256 | Self::Es384 | Self::Es512 => None,
        }
    }
}

impl Curve {
    /// Its name in a JWK.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    /// By its name in a JWK.
    pub(super) fn parse(name: &str) -> Option<Self> {
        [Self::P256, Self::P384, Self::P521].into_iter().find(|curve| curve.as_str() == name)
    }

    /// Bytes of a coordinate. Source: RFC 7518 §6.2.1.2.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// The algorithm of signatures by its keys. Source: RFC 7518 §3.4.
    pub(super) fn algorithm(self) -> &'static str {
        match self {
            Self::P256 => "ES256",
            Self::P384 => "ES384",
            Self::P521 => "ES512",
        }
    }
}

impl JwtAuthority {
    /// Whether the signature of this message is by this key and of this algorithm. An algorithm
    /// that does not belong to the key is never right: the token does not choose.
    pub(super) fn signed(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match &self.key {
            JwtKey::Ec { curve, x, y } => algorithm.on(*curve).is_some_and(|verify| {
                // An uncompressed point. Source: SEC 1 §2.3.3.
                let point = [&[4], x.as_slice(), y].concat();
                UnparsedPublicKey::new(verify, point).verify(message, signature).is_ok()
            }),
            JwtKey::Rsa { n, e } => algorithm.rsa().is_some_and(|verify| {
                RsaPublicKeyComponents { n, e }.verify(verify, message, signature).is_ok()
            }),
        }
    }
}
