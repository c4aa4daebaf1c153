//! A bundle as it travels between trust domains: a JWK set with the authorities for X.509-SVIDs and
//! for JWT-SVIDs, a sequence number and a refresh hint. Source: SPIFFE Trust Domain and Bundle §4.
//!
//! What a reader does not understand of a key makes it ignore that key and no other (§4.2.2); what it
//! does not understand of the document makes it refuse the document.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use thiserror::Error;

use super::{TrustBundle, jwk};
use crate::spiffe::jwt::{JWT_SVID, KeyUse, jwk as jwt_jwk, read_jwk};
use crate::spiffe::{JwtAuthority, TrustDomain};

/// Most keys of a document. Chosen: every reader of the bundle pays for each of them.
const MAX_KEYS: usize = 1000;

/// A bundle, and what its publisher says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleDocument {
    /// The authorities. None at all is allowed: then nothing of the trust domain is valid.
    pub bundle: TrustBundle,
    /// Counts the versions of the contents.
    pub sequence: Option<u64>,
    /// After how long one should look for another version; as it was said, within no bounds.
    pub refresh_hint: Option<Duration>,
    /// Why keys were ignored that were meant for SPIFFE; for people.
    pub ignored: Vec<String>,
}

/// Why a text is no bundle.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DocumentError {
    /// No JSON, or a member of the wrong type.
    #[error("is no SPIFFE bundle: {0}")]
    Malformed(String),
    /// Keys that were meant for SPIFFE and are not understood.
    #[error("cannot be used as a whole: {0}")]
    InPart(String),
    /// No authorities.
    #[error("has no authorities; to trust nobody of it, use `tacit bundle delete`")]
    Empty,
    /// More keys than are read.
    #[error("has {0} keys; at most {MAX_KEYS} are read")]
    TooManyKeys(usize),
}

/// Source: SPIFFE Trust Domain and Bundle §4.1. Members that are not known are tolerated.
#[derive(Deserialize)]
struct Text {
    keys: Vec<Map<String, Value>>,
    spiffe_sequence: Option<u64>,
    spiffe_refresh_hint: Option<i64>,
}

/// What becomes of one key.
enum Key {
    X509(TrustBundle),
    Jwt(JwtAuthority),
    Ignored(Option<&'static str>),
}

impl BundleDocument {
    /// A bundle of which nothing more is said.
    pub fn plain(bundle: TrustBundle) -> Self {
        Self { bundle, sequence: None, refresh_hint: None, ignored: Vec::new() }
    }

    /// Reads the bundle of this trust domain. The text does not name it: whose bundle it is, only the
    /// reader knows. Source: SPIFFE Federation §7.2.
    ///
    /// # Errors
    /// See [`DocumentError`].
    pub fn parse(trust_domain: &TrustDomain, text: &[u8]) -> Result<Self, DocumentError> {
        let read: Text = serde_json::from_slice(text)
            .map_err(|error| DocumentError::Malformed(error.to_string()))?;
        if read.keys.len() > MAX_KEYS {
            return Err(DocumentError::TooManyKeys(read.keys.len()));
        }
        let (mut certificates, mut jwt, mut ignored) = (Vec::new(), Vec::new(), Vec::new());
        for (index, jwk) in read.keys.iter().enumerate() {
            match key(trust_domain, jwk) {
                Key::X509(one) => {
                    let fresh = one.certificates().filter(|it| !certificates.contains(*it));
                    certificates.extend(fresh.cloned().collect::<Vec<_>>());
                }
                Key::Jwt(authority) => jwt.push(authority),
                Key::Ignored(why) => {
                    ignored.extend(why.map(|why| format!("key {index} is ignored: {why}")));
                }
            }
        }
        // Each was read before.
        let bundle = TrustBundle::new(trust_domain.clone(), certificates)
            .map_err(|error| DocumentError::Malformed(error.to_string()))?;
        Ok(Self {
            bundle: bundle.with_jwt_authorities(jwt),
            sequence: read.spiffe_sequence,
            refresh_hint: read
                .spiffe_refresh_hint
                .map(|hint| Duration::from_secs(u64::try_from(hint).unwrap_or_default())),
            ignored,
        })
    }

    /// Reads what an operator gives, PEM or JSON. Stricter than what is fetched: whoever stands beside
    /// it can mend it.
    ///
    /// # Errors
    /// See [`DocumentError`].
    pub fn given(trust_domain: &TrustDomain, text: &str) -> Result<Self, DocumentError> {
        let document = if text.trim_start().starts_with('{') {
            Self::parse(trust_domain, text.as_bytes())?
        } else {
            let bundle = TrustBundle::from_pem(trust_domain.clone(), text.as_bytes());
            Self::plain(bundle.map_err(|error| DocumentError::Malformed(error.to_string()))?)
        };
        let keys = document.bundle.authorities().len();
        if keys > MAX_KEYS {
            return Err(DocumentError::TooManyKeys(keys));
        }
        if let Some(ignored) = document.ignored.first() {
            return Err(DocumentError::InPart(ignored.clone()));
        }
        if document.bundle.is_empty() { Err(DocumentError::Empty) } else { Ok(document) }
    }

    /// The document as text; the same for the same contents.
    ///
    /// An authority whose key is of a kind that JWKs have no words for is left out.
    pub fn to_json(&self) -> String {
        let x509 = self.bundle.authorities().iter().filter_map(jwk::write);
        let jwt = self.bundle.jwt_authorities().iter();
        let jwt = jwt.map(|authority| jwt_jwk(authority, KeyUse::Svid));
        let mut document = json!({ "keys": x509.chain(jwt).collect::<Vec<_>>() });
        if let Value::Object(members) = &mut document {
            if let Some(sequence) = self.sequence {
                members.insert("spiffe_sequence".to_owned(), sequence.into());
            }
            if let Some(hint) = self.refresh_hint {
                members.insert("spiffe_refresh_hint".to_owned(), hint.as_secs().into());
            }
        }
        document.to_string()
    }
}

/// Source: SPIFFE Trust Domain and Bundle §4.2.
fn key(trust_domain: &TrustDomain, jwk: &Map<String, Value>) -> Key {
    let member = |name: &str| jwk.get(name).and_then(Value::as_str);
    let (Some(kind), Some(purpose)) = (member("kty"), member("use")) else {
        return Key::Ignored(None);
    };
    match purpose {
        jwk::X509_SVID if !jwk::KEY_TYPES.contains(&kind) => Key::Ignored(None),
        jwk::X509_SVID => match jwk::certificate(jwk) {
            None => Key::Ignored(Some("x5c holds no certificate in base64")),
            Some(der) => TrustBundle::new(trust_domain.clone(), vec![der]).map_or(
                Key::Ignored(Some("its certificate is not that of an authority")),
                Key::X509,
            ),
        },
        JWT_SVID if kind != "EC" && kind != "RSA" => Key::Ignored(None),
        JWT_SVID => read_jwk(jwk)
            .map_or(Key::Ignored(Some("it has no kid, or is no key for a JWT-SVID")), Key::Jwt),
        _ => Key::Ignored(None),
    }
}
