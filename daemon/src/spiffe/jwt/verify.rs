//! The one place where it is decided that a JWT-SVID is valid: every MUST of JWT-SVID §2-§6 and of
//! SPIFFE Workload API §6.2.3, by the bundle of the token's own trust domain only.
//! Nothing that a token says is printed, but IDs that have passed the rules of SPIFFE-ID §2.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

use super::authority::Algorithm;
use crate::spiffe::{BundleSet, IdError, SpiffeId, TrustDomain, parse_id};

/// Largest token that is read. Chosen: what a header of a request may hold, and more.
const MAX_BYTES: usize = 64 << 10;
/// How far `nbf` may lie ahead, for issuers whose clocks are. Source: JWT-SVID appendix A calls a
/// small leeway tolerable.
const LEEWAY: Duration = Duration::from_mins(1);

/// A token that was verified. Only [`verify_jwt`] makes one.
#[derive(Debug, Clone, PartialEq)]
pub struct JwtIdentity {
    id: SpiffeId,
    claims: Map<String, Value>,
}

/// Why a token is no valid JWT-SVID for this audience.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum JwtError {
    /// Not three parts of base64url, or too large.
    #[error("token is not a JWS in compact serialization")]
    NotCompact,
    /// A header that is no JSON, has parameters that JWT-SVID §2 does not know, or one of them
    /// twice.
    #[error("token header is malformed or has parameters other than alg, kid and typ")]
    Header,
    /// JWT-SVID §2.3.
    #[error("token header typ is neither JWT nor JOSE")]
    Type,
    /// JWT-SVID §2.1: `none` and symmetric algorithms among others.
    #[error("token signature algorithm is not supported")]
    Algorithm,
    /// Claims that are no JSON object, or one of the wrong type.
    #[error("token claims are malformed")]
    Claims,
    /// JWT-SVID §3.1.
    #[error("token has an invalid subject claim: {0}")]
    Subject(IdError),
    /// JWT-SVID §3.1.
    #[error("token missing subject claim")]
    NoSubject,
    /// JWT-SVID §3.3.
    #[error("token missing expiration claim")]
    NoExpiration,
    /// JWT-SVID §3.3.
    #[error("token has expired")]
    Expired,
    /// RFC 7519 §4.1.5.
    #[error("token not yet valid")]
    NotYetValid,
    /// JWT-SVID §3.2.
    #[error("token missing audience claim")]
    NoAudience,
    /// JWT-SVID §3.2.
    #[error("expected audience is not among those of the token")]
    Audience,
    /// No bundle of the token's trust domain.
    #[error("no keys found for trust domain {0}")]
    UntrustedDomain(TrustDomain),
    /// No such key in the bundle.
    #[error("public key not found in trust domain {0}")]
    UnknownKey(TrustDomain),
    /// The signature does not fit.
    #[error("token signature is wrong")]
    Signature,
}

/// Source: JWT-SVID §2. Others are refused: some of them name keys.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
}

impl JwtIdentity {
    /// Whose token it is.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// All that it says; `aud` is always a list.
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }
}

/// Verifies a token for an audience.
///
/// # Errors
/// The first rule that is broken; of a token that nobody trusted has signed, only what says so.
pub fn verify_jwt(
    token: &str,
    audience: &str,
    bundles: &BundleSet,
    now: SystemTime,
) -> Result<JwtIdentity, JwtError> {
    let parts = Parts::split(token)?;
    let header: Header = serde_json::from_slice(&parts.header).map_err(|_json| JwtError::Header)?;
    // Before anything else is done with the token. Source: JWT-SVID §4.
    let algorithm = Algorithm::parse(&header.alg).ok_or(JwtError::Algorithm)?;
    if header.typ.is_some_and(|typ| typ != "JWT" && typ != "JOSE") {
        return Err(JwtError::Type);
    }
    let mut claims: Map<String, Value> =
        serde_json::from_slice(&parts.claims).map_err(|_json| JwtError::Claims)?;
    let id = subject(&claims)?;
    let domain = || id.trust_domain().clone();
    let bundle = bundles.for_id(&id).ok_or_else(|| JwtError::UntrustedDomain(domain()))?;
    let mut named = bundle
        .jwt_authorities()
        .iter()
        .filter(|authority| header.kid.as_ref().is_none_or(|kid| *kid == authority.key_id))
        .peekable();
    named.peek().ok_or_else(|| JwtError::UnknownKey(domain()))?;
    if !named.any(|key| key.signed(algorithm, parts.signed, &parts.signature)) {
        return Err(JwtError::Signature);
    }
    check_times(&claims, now)?;
    let audiences = audiences(&claims)?;
    if !audiences.iter().any(|one| one == audience) {
        return Err(JwtError::Audience);
    }
    claims.insert("aud".to_owned(), audiences.into());
    Ok(JwtIdentity { id, claims })
}

/// The parts of a token, decoded.
struct Parts<'a> {
    signed: &'a [u8],
    header: Vec<u8>,
    claims: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn split(token: &'a str) -> Result<Self, JwtError> {
        if token.len() > MAX_BYTES {
            return Err(JwtError::NotCompact);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::NotCompact)?;
        let (header, claims) = signed.split_once('.').ok_or(JwtError::NotCompact)?;
        let decode = |part: &str| {
            let decoded = URL_SAFE_NO_PAD.decode(part).ok();
            decoded.filter(|bytes| !bytes.is_empty()).ok_or(JwtError::NotCompact)
        };
        Ok(Self {
            signed: signed.as_bytes(),
            header: decode(header)?,
            claims: decode(claims)?,
            signature: decode(signature)?,
        })
    }
}

fn subject(claims: &Map<String, Value>) -> Result<SpiffeId, JwtError> {
    match claims.get("sub") {
        Some(Value::String(text)) => parse_id(text).map_err(JwtError::Subject),
        Some(_) => Err(JwtError::Claims),
        None => Err(JwtError::NoSubject),
    }
}

fn check_times(claims: &Map<String, Value>, now: SystemTime) -> Result<(), JwtError> {
    let expires_at = time(claims, "exp")?.ok_or(JwtError::NoExpiration)?;
    if expires_at <= now {
        return Err(JwtError::Expired);
    }
    match time(claims, "nbf")? {
        Some(not_before) if not_before > now + LEEWAY => Err(JwtError::NotYetValid),
        _ => Ok(()),
    }
}

/// A `NumericDate`, which may have a fraction. Source: RFC 7519 §2.
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<SystemTime>, JwtError> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let seconds = value.as_f64().ok_or(JwtError::Claims)?;
    let since = Duration::try_from_secs_f64(seconds).map_err(|_range| JwtError::Claims)?;
    SystemTime::UNIX_EPOCH.checked_add(since).map(Some).ok_or(JwtError::Claims)
}

/// One or a list. Source: RFC 7519 §4.1.3.
fn audiences(claims: &Map<String, Value>) -> Result<Vec<String>, JwtError> {
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or(JwtError::Claims);
    let audiences = match claims.get("aud") {
        None => return Err(JwtError::NoAudience),
        Some(Value::Array(values)) => values.iter().map(text).collect::<Result<Vec<_>, _>>()?,
        Some(value) => vec![text(value)?],
    };
    if audiences.is_empty() { Err(JwtError::NoAudience) } else { Ok(audiences) }
}
