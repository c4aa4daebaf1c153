//! JWT authorities as a JSON Web Key Set (RFC 7517).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use super::authority::{Curve, JwtAuthority, JwtKey};

/// The `use` of a key for JWT-SVIDs in a SPIFFE bundle. Source: JWT-SVID §6.1.
pub(in crate::spiffe) const JWT_SVID: &str = "jwt-svid";
/// Longest key id that is read, bytes.
const LONGEST_KEY_ID: usize = 512;
/// Sizes of an RSA modulus that can be verified by, bytes: as for signatures.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// Largest exponent, bytes: as for signatures.
const RSA_EXPONENT_BYTES: std::ops::RangeInclusive<usize> = 1..=5;

/// Whether keys say what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUse {
    /// `"use": "jwt-svid"`, as a SPIFFE bundle must. Source: JWT-SVID §6.1.
    Svid,
    /// `"use": "sig"` and the algorithm, as verifiers of `OpenID` Connect look for them.
    /// Source: RFC 7517 §4.2, §4.4.
    Signature,
    /// Nothing: stock libraries for JWTs refuse a use that they do not know. So the Workload API
    /// has it, as SPIRE does.
    Unsaid,
}

/// The keys as JSON text. Without any, an empty set: nothing of that trust domain is valid.
pub fn jwks<'a>(
    authorities: impl IntoIterator<Item = &'a JwtAuthority>,
    key_use: KeyUse,
) -> String {
    let keys: Vec<_> = authorities.into_iter().map(|authority| jwk(authority, key_use)).collect();
    json!({ "keys": keys }).to_string()
}

/// Source: RFC 7518 §6.2.1, §6.3.1.
pub(in crate::spiffe) fn jwk(authority: &JwtAuthority, key_use: KeyUse) -> Value {
    let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let mut jwk = match &authority.key {
        JwtKey::Ec { curve, x, y } => {
            json!({ "kty": "EC", "crv": curve.as_str(), "x": number(x), "y": number(y) })
        }
        JwtKey::Rsa { n, e } => json!({ "kty": "RSA", "n": number(n), "e": number(e) }),
    };
    if let Value::Object(fields) = &mut jwk {
        fields.insert("kid".to_owned(), authority.key_id.clone().into());
        match (key_use, &authority.key) {
            (KeyUse::Unsaid, _) => {}
            (KeyUse::Svid, _) => drop(fields.insert("use".to_owned(), JWT_SVID.into())),
            (KeyUse::Signature, key) => {
                fields.insert("use".to_owned(), "sig".into());
                if let JwtKey::Ec { curve, .. } = key {
                    fields.insert("alg".to_owned(), curve.algorithm().into());
                }
            }
        }
    }
    jwk
}

/// The authority that a key is, if it has an id and can be verified by.
/// Source: JWT-SVID §6; RFC 7518 §6.2.1, §6.3.1.
pub(in crate::spiffe) fn read_jwk(jwk: &Map<String, Value>) -> Option<JwtAuthority> {
    let member = |name: &str| jwk.get(name).and_then(Value::as_str);
    let number = |name: &str| URL_SAFE_NO_PAD.decode(member(name)?).ok();
    let key_id = member("kid").filter(|id| (1..=LONGEST_KEY_ID).contains(&id.len()))?.to_owned();
    let key = match member("kty")? {
        "EC" => {
            let curve = Curve::parse(member("crv")?)?;
            let coordinate = |name: &str| number(name).filter(|it| it.len() == curve.bytes());
            JwtKey::Ec { curve, x: coordinate("x")?, y: coordinate("y")? }
        }
        "RSA" => JwtKey::Rsa {
            n: number("n").filter(|n| RSA_BYTES.contains(&n.len()))?,
            e: number("e").filter(|e| RSA_EXPONENT_BYTES.contains(&e.len()))?,
        },
        _ => return None,
    };
    Some(JwtAuthority { key_id, key })
}
