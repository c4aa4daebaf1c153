//! A JWT-SVID that this node makes for a workload. Whoever has the token is taken for the workload
//! until it expires: it is never printed, and wiped on drop.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use zeroize::Zeroizing;

use crate::spiffe::SpiffeId;

/// What a token says. Source: JWT-SVID §3; `iat` as SPIRE has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtClaims {
    /// Whose token it is.
    pub id: SpiffeId,
    /// Whom verifiers of `OpenID` Connect take for the issuer, if it has one.
    pub issuer: Option<Arc<str>>,
    /// For whom it is; at least one.
    pub audience: Vec<String>,
    /// From when on it is valid.
    pub issued_at: SystemTime,
    /// Until when.
    pub expires_at: SystemTime,
}

/// A token.
#[derive(Clone, PartialEq, Eq)]
pub struct JwtSvid {
    /// What it says.
    pub claims: JwtClaims,
    /// The key that signed it.
    pub key_id: String,
    /// JWS in compact form.
    pub token: Zeroizing<String>,
}

/// What is to be signed, by ECDSA on P-256 with SHA-256.
#[derive(Debug)]
pub struct SigningInput {
    claims: JwtClaims,
    key_id: String,
    text: String,
}

impl SigningInput {
    /// Header and claims as they are signed. Source: RFC 7515 §7.1.
    pub fn es256(claims: JwtClaims, key_id: &str) -> Self {
        let header = json!({ "alg": "ES256", "kid": key_id, "typ": "JWT" });
        let mut body = json!({
            "sub": claims.id.to_string(),
            "aud": claims.audience,
            "iat": seconds(claims.issued_at),
            "exp": seconds(claims.expires_at),
        });
        if let (serde_json::Value::Object(body), Some(issuer)) = (&mut body, &claims.issuer) {
            body.insert("iss".to_owned(), issuer.as_ref().into());
        }
        let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let text = format!("{}.{}", part(header), part(body));
        Self { claims, key_id: key_id.to_owned(), text }
    }

    /// The bytes to sign.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// The token, given the signature: both numbers one after the other (RFC 7518 §3.4).
    pub fn signed(self, signature: &[u8]) -> JwtSvid {
        let token = Zeroizing::new(format!("{}.{}", self.text, URL_SAFE_NO_PAD.encode(signature)));
        JwtSvid { claims: self.claims, key_id: self.key_id, token }
    }
}

impl JwtSvid {
    /// Whether less than half of its life is left.
    pub fn is_past_half_life(&self, now: SystemTime) -> bool {
        let JwtClaims { issued_at, expires_at, .. } = &self.claims;
        let life = expires_at.duration_since(*issued_at).unwrap_or_default();
        expires_at.duration_since(now).unwrap_or_default() < life / 2
    }

    /// Whether it is valid at this time.
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        now < self.claims.expires_at
    }
}

impl fmt::Debug for JwtSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSvid")
            .field("claims", &self.claims)
            .field("key_id", &self.key_id)
            .field("token", &"<redacted>")
            .finish()
    }
}

/// Tokens count in whole seconds.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
