//! JWT authorities as a JSON Web Key Set (RFC 7517).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::authority::{JwtAuthority, JwtKey};

/// Whether keys say what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUse {
    /// `"use": "jwt-svid"`, as a SPIFFE bundle must. Source: JWT-SVID §6.1.
    Svid,
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
fn jwk(authority: &JwtAuthority, key_use: KeyUse) -> Value {
    let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let mut jwk = match &authority.key {
        JwtKey::Ec { curve, x, y } => {
            json!({ "kty": "EC", "crv": curve.as_str(), "x": number(x), "y": number(y) })
        }
        JwtKey::Rsa { n, e } => json!({ "kty": "RSA", "n": number(n), "e": number(e) }),
    };
    if let Value::Object(fields) = &mut jwk {
        fields.insert("kid".to_owned(), authority.key_id.clone().into());
        if key_use == KeyUse::Svid {
            fields.insert("use".to_owned(), "jwt-svid".into());
        }
    }
    jwk
}
