//! Bundles of other trust domains, kept in `bundles.json` of the state directory, so that a restart
//! has the last good ones. At most one for each trust domain: what was put there last.
//!
//! A change is on the disk before it is in force, and in force before it is acknowledged.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::StateError;
use crate::spiffe::{BundleDocument, BundleSet, TrustBundle, TrustDomain, parse_trust_domain};
use crate::sys::private_files::{
    FileError, PRIVATE, check_private_dir, create_private_dir, read_private, write_atomic,
};

/// The file, below the state directory.
const FILE: &str = "bundles.json";
/// Largest file that is written, bytes: one that is read again at the next start.
const LARGEST: usize = 12 << 20;

/// How a bundle came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BundleSource {
    /// By `tacit bundle set`.
    Set,
}

/// The bundle of another trust domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownBundle {
    /// How it came here.
    pub source: BundleSource,
    /// When.
    pub since: SystemTime,
    /// The bundle.
    pub document: Arc<BundleDocument>,
}

/// Why a change was refused; nothing of it is in force.
#[derive(Debug, Error)]
pub enum BundleError {
    /// Nobody but the issuer says who vouches for the own trust domain.
    #[error("{0} is this node's own trust domain; its authorities are those of its CA")]
    Own(TrustDomain),
    /// No bundle, neither as PEM nor as SPIFFE's JSON.
    #[error("the bundle of {trust_domain} {why}")]
    Unreadable {
        /// Whose it was said to be.
        trust_domain: TrustDomain,
        /// What is wrong.
        why: String,
    },
    /// Nothing is kept for it.
    #[error("there is no bundle of {0}; see `tacit bundle list`")]
    Unknown(TrustDomain),
    /// More than is kept.
    #[error("all bundles together have more than {LARGEST} bytes; delete some that are not needed")]
    TooLarge,
    /// It could not be kept.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The bundles. Cheap to clone.
#[derive(Clone)]
pub struct ForeignBundles(Arc<Shared>);

/// Puts bundles in force; by the time that it returns they are.
pub type Enforce = Box<dyn Fn(&BundleSet) + Send + Sync>;

struct Shared {
    path: PathBuf,
    own: TrustDomain,
    /// Held by whoever changes the file.
    turn: Mutex<()>,
    kept: Mutex<Kept>,
    enforce: Enforce,
}

type Kept = BTreeMap<TrustDomain, KnownBundle>;

/// The file as serde sees it. Keys are trust domains.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    bundles: BTreeMap<String, BundleText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BundleText {
    source: String,
    /// Seconds since 1970.
    since: u64,
    /// In SPIFFE's format.
    bundle: Value,
}

impl ForeignBundles {
    /// Reads the file, if there is one, and puts what is in it in force. Blocks: call it at start.
    ///
    /// # Errors
    /// See [`StateError`]: whom a file means that is wrong cannot be guessed.
    pub fn open(state_dir: &Path, own: TrustDomain, enforce: Enforce) -> Result<Self, StateError> {
        let path = state_dir.join(FILE);
        let kept = read(&path, &own)?;
        enforce(&bundles(&kept));
        let (turn, kept) = (Mutex::default(), Mutex::new(kept));
        Ok(Self(Arc::new(Shared { path, own, turn, kept, enforce })))
    }

    /// All of them, by trust domain.
    pub fn list(&self) -> BTreeMap<TrustDomain, KnownBundle> {
        self.0.kept().clone()
    }

    /// Puts a bundle in place of what there is for its trust domain. The text is PEM or SPIFFE's JSON.
    /// Blocks: it writes and syncs a file.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn set(
        &self,
        trust_domain: &TrustDomain,
        text: &str,
        now: SystemTime,
    ) -> Result<KnownBundle, BundleError> {
        if *trust_domain == self.0.own {
            return Err(BundleError::Own(trust_domain.clone()));
        }
        let document = Arc::new(understand(trust_domain, text)?);
        let bundle = KnownBundle { source: BundleSource::Set, since: now, document };
        self.0.change(|kept| {
            kept.insert(trust_domain.clone(), bundle.clone());
            Ok(())
        })?;
        Ok(bundle)
    }

    /// Forgets a bundle: nobody of its trust domain is trusted any more. Blocks as
    /// [`ForeignBundles::set`].
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn delete(&self, trust_domain: &TrustDomain) -> Result<(), BundleError> {
        self.0.change(|kept| {
            let gone = kept.remove(trust_domain);
            gone.map(drop).ok_or_else(|| BundleError::Unknown(trust_domain.clone()))
        })
    }
}

impl Shared {
    /// Writes, and then puts in force.
    fn change(
        &self,
        change: impl FnOnce(&mut Kept) -> Result<(), BundleError>,
    ) -> Result<(), BundleError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = self.kept().clone();
        change(&mut kept)?;
        let text = write(&kept);
        if text.len() > LARGEST {
            return Err(BundleError::TooLarge);
        }
        if let Some(state_dir) = self.path.parent() {
            create_private_dir(state_dir)?;
        }
        write_atomic(&self.path, text.as_bytes(), PRIVATE)?;
        (self.enforce)(&bundles(&kept));
        *self.kept() = kept;
        Ok(())
    }

    /// A panic while it is held leaves nothing half done: every change is one assignment.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BundleSource {
    /// Stable label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Set => "set",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Set].into_iter().find(|source| source.as_str() == word)
    }
}

impl fmt::Debug for ForeignBundles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForeignBundles").field("path", &self.0.path).finish_non_exhaustive()
    }
}

/// What an operator gives. Stricter than what is fetched: whoever stands beside it can mend it.
fn understand(trust_domain: &TrustDomain, text: &str) -> Result<BundleDocument, BundleError> {
    let unreadable =
        |why: String| BundleError::Unreadable { trust_domain: trust_domain.clone(), why };
    let document = if text.trim_start().starts_with('{') {
        BundleDocument::parse(trust_domain, text.as_bytes())
            .map_err(|error| unreadable(error.to_string()))?
    } else {
        let bundle = TrustBundle::from_pem(trust_domain.clone(), text.as_bytes());
        BundleDocument::plain(
            bundle.map_err(|error| unreadable(format!("cannot be used: {error}")))?,
        )
    };
    if let Some(ignored) = document.ignored.first() {
        return Err(unreadable(format!("cannot be used as a whole: {ignored}")));
    }
    if document.bundle.is_empty() {
        let why = "has no authorities; to trust nobody of it, use `tacit bundle delete`";
        return Err(unreadable(why.to_owned()));
    }
    Ok(document)
}

fn bundles(kept: &Kept) -> BundleSet {
    kept.values().map(|known| known.document.bundle.clone()).collect()
}

fn write(kept: &Kept) -> String {
    let text = |known: &KnownBundle| BundleText {
        source: known.source.as_str().to_owned(),
        since: known.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
        bundle: serde_json::from_str(&known.document.to_json()).unwrap_or_default(),
    };
    let bundles = kept.iter().map(|(domain, known)| (domain.to_string(), text(known))).collect();
    // Of strings and numbers: there is nothing that JSON could not say.
    serde_json::to_string_pretty(&Text { bundles }).unwrap_or_default()
}

/// The bundles of the file; none if there is none.
fn read(path: &Path, own: &TrustDomain) -> Result<Kept, StateError> {
    let bytes = match read_private(path) {
        Ok(bytes) => bytes,
        Err(error) if error.is_missing() => return Ok(Kept::new()),
        Err(error) => return Err(error.into()),
    };
    if let Some(state_dir) = path.parent() {
        check_private_dir(state_dir)?;
    }
    let wrong = |what: String| StateError::Bundles { path: path.to_owned(), what };
    let text: Text =
        serde_json::from_slice(&bytes).map_err(|error| wrong(format!("not readable: {error}")))?;
    let mut kept = Kept::new();
    for (name, text) in text.bundles {
        let domain = parse_trust_domain(&name)
            .map_err(|error| wrong(format!("`{name}` is no trust domain: {error}")))?;
        if domain == *own {
            return Err(wrong(format!("holds a bundle of {own}, the node's own trust domain")));
        }
        let source = BundleSource::parse(&text.source)
            .ok_or_else(|| wrong(format!("`{}` is no source of a bundle", text.source)))?;
        let document = BundleDocument::parse(&domain, text.bundle.to_string().as_bytes())
            .map_err(|error| wrong(format!("the bundle of {name} {error}")))?;
        let since =
            SystemTime::UNIX_EPOCH + Duration::from_secs(text.since.min(u64::from(u32::MAX)));
        kept.insert(domain, KnownBundle { source, since, document: Arc::new(document) });
    }
    Ok(kept)
}
