//! An X.509 authority as a JSON Web Key. Source: X509-SVID §6.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls_pki_types::CertificateDer;
use serde_json::{Map, Value, json};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;

use super::Authority;

/// What its `use` is.
pub(super) const X509_SVID: &str = "x509-svid";
/// Key types that a certificate can be of. Source: RFC 7518 §6.1, RFC 8037 §2.
pub(super) const KEY_TYPES: [&str; 3] = ["EC", "RSA", "OKP"];

/// The authority as a key; none if its public key is of a kind that JWKs have no words for.
pub(super) fn write(authority: &Authority) -> Option<Value> {
    let mut jwk = public_key(&authority.certificate)?;
    jwk.insert("use".to_owned(), X509_SVID.into());
    jwk.insert("x5c".to_owned(), json!([STANDARD.encode(&authority.certificate)]));
    Some(Value::Object(jwk))
}

/// The certificate of a key of this use: the first that it has. Others are to be ignored, and so is
/// a key that has none. Source: X509-SVID §6.2.
pub(super) fn certificate(jwk: &Map<String, Value>) -> Option<CertificateDer<'static>> {
    let first = jwk.get("x5c")?.as_array()?.first()?.as_str()?;
    STANDARD.decode(first).ok().map(CertificateDer::from)
}

/// The members that say what the key is. Source: RFC 7518 §6.2.1, §6.3.1; RFC 8037 §2.
fn public_key(certificate: &CertificateDer<'_>) -> Option<Map<String, Value>> {
    let (_rest, x509) = X509Certificate::from_der(certificate).ok()?;
    let info = x509.public_key();
    let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let jwk = match info.parsed().ok()? {
        PublicKey::RSA(key) => json!({
            "kty": "RSA",
            "n": number(without_zeros(key.modulus)),
            "e": number(without_zeros(key.exponent)),
        }),
        PublicKey::EC(point) => {
            let curve =
                match info.algorithm.parameters.as_ref()?.as_oid().ok()?.to_id_string().as_str() {
                    "1.2.840.10045.3.1.7" => "P-256",
                    "1.3.132.0.34" => "P-384",
                    "1.3.132.0.35" => "P-521",
                    _ => return None,
                };
            // Uncompressed. Source: SEC 1 §2.3.3.
            let (&4, coordinates) = point.data().split_first()? else { return None };
            let (x, y) = coordinates.split_at_checked(coordinates.len() / 2)?;
            json!({ "kty": "EC", "crv": curve, "x": number(x), "y": number(y) })
        }
        PublicKey::Unknown(key) if info.algorithm.algorithm.to_id_string() == "1.3.101.112" => {
            json!({ "kty": "OKP", "crv": "Ed25519", "x": number(key) })
        }
        _ => return None,
    };
    match jwk {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

/// DER puts a zero before a number whose first bit is set. Source: X.690 §8.3.
fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}
