//! The key that signs checkpoints: Ed25519, of the node's own, made at first use, readable by the
//! daemon alone. Its public half lies beside the log, for whoever verifies elsewhere.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use zeroize::Zeroizing;

use super::line::{self, LineHash};
use crate::audit::Checkpoint;

/// What is signed begins with this, so that a signature means nothing elsewhere.
const PURPOSE: &str = "tacit audit checkpoint v1";

/// The signing key.
#[derive(Debug)]
pub(super) struct SigningKey {
    pair: Ed25519KeyPair,
    /// Held open and locked: two daemons cannot write one log.
    _lock: File,
}

/// The public half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(Vec<u8>);

/// The public key's file beside a log.
pub fn public_key_name(log: &Path) -> PathBuf {
    super::files::with_suffix(log, ".pub")
}

/// Where the signing key is.
pub(super) fn private_key_name(state_dir: &Path) -> PathBuf {
    state_dir.join("audit.key")
}

impl SigningKey {
    /// Reads the key, or makes it. `Ok(None)` if another process holds it.
    pub(super) fn open(state_dir: &Path) -> io::Result<Option<Self>> {
        let path = private_key_name(state_dir);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        let mut pkcs8 = Zeroizing::new(Vec::new());
        file.read_to_end(&mut pkcs8)?;
        if pkcs8.is_empty() {
            let document = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new())
                .map_err(io::Error::other)?;
            pkcs8.extend_from_slice(document.as_ref());
            file.write_all(&pkcs8)?;
            file.sync_all()?;
        }
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8)
            .map_err(|rejected| io::Error::new(io::ErrorKind::InvalidData, rejected))?;
        Ok(Some(Self { pair, _lock: file }))
    }

    /// The public half.
    pub(super) fn public(&self) -> PublicKey {
        PublicKey(self.pair.public_key().as_ref().to_vec())
    }

    /// Signs the chain up to the line whose hash is `prev`, as line `seq`, written at `time`.
    pub(super) fn sign(&self, seq: u64, prev: &LineHash, time: &str) -> Checkpoint {
        let signature = self.pair.sign(&statement(seq, &line::hex(prev), time));
        Checkpoint { key: self.public().id(), signature: line::hex(signature.as_ref()) }
    }
}

impl PublicKey {
    /// Reads a key that [`Self::write`] wrote.
    pub fn read(path: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(path)?;
        line::unhex(text.trim())
            .filter(|bytes| bytes.len() == 32)
            .map(Self)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not 64 hex digits"))
    }

    /// The public half of the key in a state directory; none if there is none.
    pub fn of_state_dir(state_dir: &Path) -> io::Result<Option<Self>> {
        let path = private_key_name(state_dir);
        let invalid = |what| {
            let what = format!("{}: {what}", path.display());
            io::Error::new(io::ErrorKind::InvalidData, what)
        };
        match fs::read(&path).map(Zeroizing::new) {
            Ok(pkcs8) => Ed25519KeyPair::from_pkcs8(&pkcs8)
                .map(|pair| Some(Self(pair.public_key().as_ref().to_vec())))
                .map_err(|rejected| invalid(rejected.to_string())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io::Error::new(error.kind(), invalid(error.to_string()))),
        }
    }

    /// Writes the key: 64 hex digits and a newline.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        if fs::read_to_string(path).is_ok_and(|text| text.trim() == line::hex(&self.0)) {
            return Ok(());
        }
        fs::write(path, line::hex(&self.0) + "\n")
    }

    /// SHA-256 of the key, lower-case hex: what checkpoints name it by.
    pub fn id(&self) -> String {
        line::hex(&line::hash(&self.0))
    }

    /// Whether a checkpoint was signed by this key over that chain.
    pub(super) fn confirms(&self, seq: u64, prev: &str, time: &str, mark: &Checkpoint) -> bool {
        let Some(signature) = line::unhex(&mark.signature) else {
            return false;
        };
        let key = UnparsedPublicKey::new(&ED25519, &self.0);
        key.verify(&statement(seq, prev, time), &signature).is_ok()
    }
}

fn statement(seq: u64, prev: &str, time: &str) -> Vec<u8> {
    format!("{PURPOSE}\n{seq}\n{prev}\n{time}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_is_private_and_is_held_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::open(dir.path()).unwrap().unwrap();
        let id = key.public().id();
        assert!(SigningKey::open(dir.path()).unwrap().is_none(), "held twice");
        drop(key);
        assert_eq!(SigningKey::open(dir.path()).unwrap().unwrap().public().id(), id);
        let mode = fs::metadata(private_key_name(dir.path())).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_signature_holds_for_one_place_in_one_chain() {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::open(dir.path()).unwrap().unwrap();
        let (hash, time) = (line::hash(b"a"), "2023-11-14T22:13:20.000Z");
        let mark = key.sign(7, &hash, time);
        let public = key.public();
        assert!(public.confirms(7, &line::hex(&hash), time, &mark));
        assert!(!public.confirms(8, &line::hex(&hash), time, &mark));
        assert!(!public.confirms(7, &line::hex(&line::hash(b"b")), time, &mark));
        let path = dir.path().join("k.pub");
        public.write(&path).unwrap();
        assert_eq!(PublicKey::read(&path).unwrap(), public);
    }
}
