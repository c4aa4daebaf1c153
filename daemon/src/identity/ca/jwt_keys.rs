//! The keys with which this node signs JWT-SVIDs: one signs, the next is made and published a day
//! before it does, and the last stays published until what it signed has expired.
//!
//! Each is a file of its own below the CA directory, `jwt/<seconds since 1970>.pem` (0600), named
//! after the time from which it signs. They are this node's own: no other node has them.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;

use super::error::CaError;
use crate::identity::issuer::{IssueError, JwtRequest};
use crate::spiffe::{
    Curve, JwtAuthority, JwtClaims, JwtKey, JwtSvid, SigningInput, hex, pem_block,
};
use crate::sys::private_files::{
    FileError, PRIVATE, create_private_dir, read_private, write_atomic,
};

/// Below the CA directory.
const FOLDER: &str = "jwt";
/// How long a key signs. Chosen.
const SIGNS_FOR: Duration = Duration::from_hours(7 * 24);
/// How long before it signs a key is published. Chosen; validators look every few minutes.
const PUBLISHED_AHEAD: Duration = Duration::from_hours(24);
/// The same where the time is long past, as after months without power.
const PUBLISHED_AHEAD_AT_LEAST: Duration = Duration::from_hours(1);
/// How long a key that signs no more stays published: no token lives longer.
const RETIRES_AFTER: Duration = Duration::from_hours(25);
/// Bytes of SHA-256 that make a key id. As for certificates.
const KEY_ID_BYTES: usize = 20;

/// The keys, by the time from which they sign.
#[derive(Debug, Clone)]
pub(super) struct JwtKeys {
    folder: PathBuf,
    keys: Vec<Arc<JwtSigningKey>>,
}

/// One key.
struct JwtSigningKey {
    signs_from: SystemTime,
    pair: EcdsaKeyPair,
    authority: JwtAuthority,
}

impl JwtKeys {
    /// Reads the keys of a CA directory; makes the first where there is none. Blocks on files.
    ///
    /// # Errors
    /// See [`CaError`].
    pub(super) fn open(directory: &Path, now: SystemTime) -> Result<Self, CaError> {
        let folder = directory.join(FOLDER);
        create_private_dir(&folder)?;
        let mut keys = Vec::new();
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if let Some(signs_from) = time_of(&entry.path()) {
                keys.push(Arc::new(JwtSigningKey::read(&entry.path(), signs_from)?));
            }
        }
        let mut keys = Self { folder, keys };
        keys.sort();
        keys.upkeep(now)?;
        Ok(keys)
    }

    /// Makes the next key when it is time, and drops those whose tokens have all expired. Says
    /// whether the authorities have changed.
    ///
    /// # Errors
    /// See [`CaError`]; then the keys stay as they were, and the last one goes on signing.
    pub(super) fn upkeep(&mut self, now: SystemTime) -> Result<bool, CaError> {
        let made = match self.keys.last() {
            None => Some(now),
            Some(last) if last.signs_from > now => None,
            Some(last) => {
                let due = last.signs_from + SIGNS_FOR;
                (now + PUBLISHED_AHEAD >= due).then(|| due.max(now + PUBLISHED_AHEAD_AT_LEAST))
            }
        };
        if let Some(signs_from) = made {
            self.keys.push(Arc::new(JwtSigningKey::make(&self.folder, signs_from)?));
            self.sort();
        }
        let before = self.keys.len();
        while self.keys.get(1).is_some_and(|next| next.signs_from + RETIRES_AFTER <= now) {
            let retired = self.keys.remove(0);
            if let Err(error) = fs::remove_file(path_of(&self.folder, retired.signs_from)) {
                tracing::warn!(%error, key = retired.authority.key_id, "the file of a retired JWT key stays behind");
            }
        }
        Ok(made.is_some() || self.keys.len() != before)
    }

    /// Makes a key that signs from now on, and forgets all others with what they have signed.
    ///
    /// # Errors
    /// See [`CaError`]; then the keys stay as they were.
    pub(super) fn replace(&mut self, now: SystemTime) -> Result<(), CaError> {
        // A file is named after its second.
        let mut signs_from = now;
        let path = |time| path_of(&self.folder, time);
        while self.keys.iter().any(|key| path(key.signs_from) == path(signs_from)) {
            signs_from += Duration::from_secs(1);
        }
        let fresh = JwtSigningKey::make(&self.folder, signs_from)?;
        for old in std::mem::replace(&mut self.keys, vec![Arc::new(fresh)]) {
            let path = path_of(&self.folder, old.signs_from);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(FileError::Io { path, act: "remove", source }.into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What is public about them.
    pub(super) fn authorities(&self) -> Vec<JwtAuthority> {
        self.keys.iter().map(|key| key.authority.clone()).collect()
    }

    /// Signs a token.
    ///
    /// # Errors
    /// The cryptographic library refuses.
    pub(super) fn sign(
        &self,
        request: &JwtRequest,
        now: SystemTime,
    ) -> Result<JwtSvid, IssueError> {
        let failed = || IssueError::Crypto("sign a token");
        let of_age = self.keys.iter().rev().find(|key| key.signs_from <= now);
        // A clock that was set back: better the oldest key than none.
        let key = of_age.or_else(|| self.keys.first()).ok_or_else(failed)?;
        let claims = JwtClaims {
            id: request.spiffe_id.clone(),
            issuer: request.issuer.clone(),
            audience: request.audience.clone(),
            issued_at: now,
            expires_at: now + request.ttl,
        };
        let input = SigningInput::es256(claims, &key.authority.key_id);
        let signature = key.pair.sign(&SystemRandom::new(), input.as_bytes());
        let signature = signature.map_err(|_unspecified| failed())?;
        Ok(input.signed(signature.as_ref()))
    }

    fn sort(&mut self) {
        self.keys.sort_by_key(|key| key.signs_from);
    }
}

impl JwtSigningKey {
    fn make(folder: &Path, signs_from: SystemTime) -> Result<Self, CaError> {
        let failed = |what| CaError::Issue(IssueError::Crypto(what));
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .map_err(|_unspecified| failed("make a key"))?;
        let document = pair.to_pkcs8v1().map_err(|_unspecified| failed("encode a private key"))?;
        // As the file has it: in whole seconds.
        let path = path_of(folder, signs_from);
        write_atomic(&path, pem_block("PRIVATE KEY", document.as_ref()).as_bytes(), PRIVATE)?;
        let signs_from = time_of(&path).unwrap_or(signs_from);
        Self::of(&path, pair, signs_from)
    }

    fn read(path: &Path, signs_from: SystemTime) -> Result<Self, CaError> {
        let pem = read_private(path)?;
        let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|_bad_pem| unreadable(path))?;
        let der = zeroize::Zeroizing::new(der.secret_pkcs8_der().to_vec());
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der)
            .map_err(|_rejected| unreadable(path))?;
        Self::of(path, pair, signs_from)
    }

    fn of(path: &Path, pair: EcdsaKeyPair, signs_from: SystemTime) -> Result<Self, CaError> {
        let point = pair.public_key().as_ref();
        // An uncompressed point on P-256. Source: SEC 1 §2.3.3.
        let (x, y) = match point.split_first() {
            Some((4, both)) if both.len() == 64 => both.split_at(32),
            _ => return Err(unreadable(path)),
        };
        let digest = digest(&SHA256, point);
        let key_id = hex(digest.as_ref().get(..KEY_ID_BYTES).unwrap_or_default());
        let key = JwtKey::Ec { curve: Curve::P256, x: x.to_vec(), y: y.to_vec() };
        Ok(Self { signs_from, authority: JwtAuthority { key_id, key }, pair })
    }
}

impl fmt::Debug for JwtSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSigningKey")
            .field("signs_from", &self.signs_from)
            .field("key_id", &self.authority.key_id)
            .field("pair", &"<redacted>")
            .finish()
    }
}

fn unreadable(path: &Path) -> CaError {
    CaError::Unreadable {
        path: path.to_owned(),
        what: "a P-256 key in PEM; remove it, and another is made",
    }
}

fn path_of(folder: &Path, signs_from: SystemTime) -> PathBuf {
    let seconds = signs_from.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    folder.join(format!("{seconds}.pem"))
}

/// The time that a file is named after; `None` if it is no file of a key.
fn time_of(path: &Path) -> Option<SystemTime> {
    let seconds = path.file_name()?.to_str()?.strip_suffix(".pem")?.parse().ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}
