//! Bundles of other trust domains, kept in `bundles.json` of the state directory, so that a restart
//! has the last good ones. At most one for each trust domain: what was put there last, by hand or by a
//! look at its endpoint. What was fetched goes with the endpoint that the configuration names.
//!
//! A change is on the disk before it is in force, and in force before it is acknowledged.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use thiserror::Error;
use tokio::sync::watch;

use super::text;
use crate::config::Relationship;
use crate::spiffe::{BundleDocument, BundleSet, DocumentError, TrustDomain};
use crate::state::StateError;
use crate::sys::private_files::{FileError, PRIVATE, create_private_dir, write_atomic};

/// The file, below the state directory.
const FILE: &str = "bundles.json";
/// Largest file that is written, bytes: one that is read again at the next start.
const LARGEST: usize = 12 << 20;

/// How a bundle came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BundleSource {
    /// By `tacit bundle set`.
    Set,
    /// From its endpoint.
    Fetched,
    /// From a file that the configuration names, before the first look at its endpoint.
    Declared,
}

/// What became of a bundle that was fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is in force.
    Changed,
    /// It is the one in force already.
    Same,
    /// Its endpoint is not one of ours any more.
    Retired,
}

/// Where bundles are fetched, by trust domain.
pub type Declared = BTreeMap<TrustDomain, Arc<Relationship>>;

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
        why: DocumentError,
    },
    /// It would only be fetched again.
    #[error(
        "the bundle of {trust_domain} is fetched, as declared at {origin}; remove that instead"
    )]
    Declared {
        /// Whose it is.
        trust_domain: TrustDomain,
        /// Where its endpoint is named.
        origin: String,
    },
    /// Older than what is known. Source: SPIFFE Trust Domain and Bundle §4.1.1.
    #[error(
        "the sequence number went back from {had} to {got}, which a publisher never does; the \
         bundle stays (if it is right, set it by hand: tacit bundle set)"
    )]
    WentBack {
        /// Of the bundle that is kept.
        had: u64,
        /// Of the one that came.
        got: u64,
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
    declared: watch::Sender<Arc<Declared>>,
    /// Held by whoever changes the file.
    turn: Mutex<()>,
    kept: Mutex<Kept>,
    enforce: Enforce,
}

pub(super) type Kept = BTreeMap<TrustDomain, KnownBundle>;

impl ForeignBundles {
    /// Reads the file, if there is one, and puts what is in it in force. Blocks: call it at start.
    ///
    /// # Errors
    /// See [`StateError`]: whom a file means that is wrong cannot be guessed.
    pub fn open(
        state_dir: &Path,
        own: TrustDomain,
        relationships: &[Arc<Relationship>],
        enforce: Enforce,
    ) -> Result<Self, StateError> {
        let path = state_dir.join(FILE);
        let (turn, kept) = (Mutex::default(), Mutex::new(text::read(&path, &own)?));
        let declared = watch::Sender::default();
        let bundles = Self(Arc::new(Shared { path, own, declared, turn, kept, enforce }));
        bundles.declare(relationships);
        Ok(bundles)
    }

    /// Takes over which endpoints the configuration names. What was fetched from others is forgotten
    /// at once, whatever becomes of the file: nobody vouches for it any more. Blocks where that is.
    pub fn declare(&self, relationships: &[Arc<Relationship>]) {
        let of = |it: &Arc<Relationship>| (it.trust_domain.clone(), Arc::clone(it));
        let declared: Arc<Declared> = Arc::new(relationships.iter().map(of).collect());
        let _turn = self.0.turn();
        let mut kept = self.0.kept().clone();
        let before = kept.len();
        kept.retain(|domain, known| {
            known.source != BundleSource::Fetched || declared.contains_key(domain)
        });
        let is_kept = if kept.len() == before { Ok(()) } else { self.0.write(&kept) };
        if let Err(error) = is_kept {
            tracing::error!(%error, "bundles that are not fetched any more stay in the file");
        }
        self.0.publish(kept, &declared);
        self.0.declared.send_if_modified(|now| {
            let differs = *now != declared;
            *now = declared;
            differs
        });
    }

    /// Which endpoints there are, as that changes.
    pub fn declared(&self) -> watch::Receiver<Arc<Declared>> {
        self.0.declared.subscribe()
    }

    /// Those in force, by trust domain.
    pub fn list(&self) -> BTreeMap<TrustDomain, KnownBundle> {
        in_force(&self.0.kept(), &self.0.declared.borrow())
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
        let document = BundleDocument::given(trust_domain, text)
            .map_err(|why| BundleError::Unreadable { trust_domain: trust_domain.clone(), why })?;
        let document = Arc::new(document);
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
        let declared = Arc::clone(&self.0.declared.borrow());
        if let Some(relationship) = declared.get(trust_domain) {
            let (trust_domain, origin) = (trust_domain.clone(), relationship.origin.clone());
            return Err(BundleError::Declared { trust_domain, origin });
        }
        self.0.change(|kept| {
            let gone = kept.remove(trust_domain);
            gone.map(drop).ok_or_else(|| BundleError::Unknown(trust_domain.clone()))
        })
    }

    /// Takes over what an endpoint serves. Blocks as [`ForeignBundles::set`] where it is another
    /// bundle than before.
    ///
    /// # Errors
    /// See [`BundleError`]; what was in force before still is.
    pub fn fetched(
        &self,
        relationship: &Arc<Relationship>,
        document: Arc<BundleDocument>,
        now: SystemTime,
    ) -> Result<Taken, BundleError> {
        let domain = &relationship.trust_domain;
        let mut taken = Taken::Changed;
        self.0.change_if(|kept, declared| {
            // Closed: what is no longer declared was forgotten, and is not to come back by a look that
            // was on its way.
            if declared.get(domain) != Some(relationship) {
                taken = Taken::Retired;
                return Ok(false);
            }
            let known = kept.get(domain);
            if known.is_some_and(|it| it.source == BundleSource::Fetched && it.document == document)
            {
                taken = Taken::Same;
                return Ok(false);
            }
            let had = known.and_then(|known| known.document.sequence);
            if let (Some(had), Some(got)) = (had, document.sequence)
                && got < had
            {
                return Err(BundleError::WentBack { had, got });
            }
            let fresh = KnownBundle { source: BundleSource::Fetched, since: now, document };
            kept.insert(domain.clone(), fresh);
            Ok(true)
        })?;
        Ok(taken)
    }
}

impl Shared {
    /// Writes, and then puts in force.
    fn change(
        &self,
        change: impl FnOnce(&mut Kept) -> Result<(), BundleError>,
    ) -> Result<(), BundleError> {
        self.change_if(|kept, _| change(kept).map(|()| true))
    }

    /// The same, where there turns out to be a change.
    fn change_if(
        &self,
        change: impl FnOnce(&mut Kept, &Declared) -> Result<bool, BundleError>,
    ) -> Result<(), BundleError> {
        let _turn = self.turn();
        let declared = Arc::clone(&self.declared.borrow());
        let mut kept = self.kept().clone();
        if change(&mut kept, &declared)? {
            self.write(&kept)?;
            self.publish(kept, &declared);
        }
        Ok(())
    }

    fn write(&self, kept: &Kept) -> Result<(), BundleError> {
        let text = text::write(kept);
        if text.len() > LARGEST {
            return Err(BundleError::TooLarge);
        }
        if let Some(state_dir) = self.path.parent() {
            create_private_dir(state_dir)?;
        }
        Ok(write_atomic(&self.path, text.as_bytes(), PRIVATE)?)
    }

    fn publish(&self, kept: Kept, declared: &Declared) {
        let bundles = in_force(&kept, declared).into_values();
        (self.enforce)(&bundles.map(|known| known.document.bundle.clone()).collect());
        *self.kept() = kept;
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
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
            Self::Fetched => "fetched",
            Self::Declared => "declared",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        [Self::Set, Self::Fetched].into_iter().find(|source| source.as_str() == word)
    }
}

impl fmt::Debug for ForeignBundles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForeignBundles").field("path", &self.0.path).finish_non_exhaustive()
    }
}

/// What is kept, and what the configuration knows of those of whom nothing is.
fn in_force(kept: &Kept, declared: &Declared) -> Kept {
    let initial = declared.iter().filter_map(|(domain, relationship)| {
        let (source, since) = (BundleSource::Declared, SystemTime::UNIX_EPOCH);
        let document = Arc::clone(relationship.initial.as_ref()?);
        Some((domain.clone(), KnownBundle { source, since, document }))
    });
    let mut all: Kept = initial.collect();
    all.extend(kept.iter().map(|(domain, known)| (domain.clone(), known.clone())));
    all
}
