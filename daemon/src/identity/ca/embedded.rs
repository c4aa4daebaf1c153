//! The issuer inside the daemon: signs with the authority of this node. The root's key is not
//! needed; where it is kept beside, the node's authority is renewed, and rotated, by itself.
//! The files are the truth: they are followed, whoever changes them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::change::{Held, PATIENCE, Terms};
use super::error::CaError;
use super::files::{NodeAuthority, exists, has_root_key, init_ca};
use super::follow::{FileStates, authorities};
use super::jwt_keys::JwtKeys;
use super::rotation::{ACTIVATE_AFTER, RETIRE_AFTER, Rotation};
use crate::identity::issuer::{
    AuthorityStatus, IssueError, IssueRequest, Issuer, Issuing, IssuingJwt, JwtRequest,
};
use crate::spiffe::{Authority, BundleSet, JwtSvid, TrustBundle, TrustDomain, X509Svid};
use crate::sys::clock;

/// How soon it is looked whether another has let go of the directory.
const NEXT_TURN: Duration = Duration::from_millis(20);
/// How soon what failed is tried again. Chosen.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What the embedded CA needs to know.
#[derive(Debug, Clone)]
pub struct CaSettings {
    /// Where its files are: a directory of its own, made if it is absent.
    pub directory: PathBuf,
    /// The trust domain that the configuration names.
    pub trust_domain: TrustDomain,
    /// The node's name, for certificates that it makes for itself.
    pub node: String,
    /// How far the start of an SVID lies in the past, for peers whose clocks are behind.
    pub backdate: Duration,
    /// Wall-clock time.
    pub clock: fn() -> SystemTime,
}

impl CaSettings {
    /// As the standards and SPIRE have it: SVIDs start 10 s ago.
    pub fn new(directory: PathBuf, trust_domain: TrustDomain, node: String) -> Self {
        let backdate = Duration::from_secs(10);
        Self { directory, trust_domain, node, backdate, clock: clock::now }
    }
}

/// The embedded CA.
#[derive(Debug)]
pub struct LocalCa {
    settings: CaSettings,
    node: ArcSwap<NodeAuthority>,
    jwt_keys: ArcSwap<JwtKeys>,
    bundles: watch::Sender<Arc<BundleSet>>,
    signs_with: watch::Sender<Option<Arc<str>>>,
    /// The files as they were when they were taken over.
    seen: Mutex<FileStates>,
    /// Why what the files hold cannot be taken over, if it cannot.
    fault: Mutex<Option<String>>,
    /// The longest life of an SVID that was asked for, seconds.
    longest: AtomicU64,
}

impl LocalCa {
    /// Opens the CA directory; makes root and node authority where there is none at all.
    /// Blocks on files: call it at start.
    ///
    /// # Errors
    /// See [`CaError`]. A directory that holds only a part is never filled up: an authority that
    /// others trust would silently be replaced by one that nobody does.
    pub fn open(settings: CaSettings) -> Result<Self, CaError> {
        let (directory, now) = (&settings.directory, (settings.clock)());
        if !exists(directory) {
            init_ca(directory, &settings.trust_domain, &settings.node, now)?;
            tracing::info!(directory = %directory.display(), "a new authority was made");
        }
        let held = Held::of(directory, PATIENCE, now)?;
        let seen = Mutex::new(FileStates::of(directory));
        // A node that was down for a year comes back by itself if it can.
        let read = NodeAuthority::read(directory, now);
        let node = match read {
            Err(CaError::Issue(IssueError::AuthorityExpired { .. })) if has_root_key(directory) => {
                held.renew(&settings.node)?;
                NodeAuthority::read(directory, now)?
            }
            read => read?,
        };
        check_domain(&node, directory, &settings.trust_domain)?;
        let jwt_keys = JwtKeys::open(directory, now)?;
        let bundle = node.bundle.clone().with_jwt_authorities(jwt_keys.authorities());
        let bundles = watch::Sender::new(Arc::new([bundle].into_iter().collect()));
        let signs_with = watch::Sender::new(Some(node.signing.authority().key_id.as_str().into()));
        Ok(Self {
            node: ArcSwap::from_pointee(node),
            jwt_keys: ArcSwap::from_pointee(jwt_keys),
            longest: AtomicU64::default(),
            fault: Mutex::default(),
            bundles,
            signs_with,
            seen,
            settings,
        })
    }

    /// Changes the directory, and follows it at once: by the time of the answer what was changed is on
    /// the disk and in force. Blocks on files.
    ///
    /// # Errors
    /// See [`CaError`].
    pub fn change<T>(
        &self,
        change: impl FnOnce(&Held) -> Result<T, CaError>,
    ) -> Result<T, CaError> {
        let now = (self.settings.clock)();
        let held = Held::of(&self.settings.directory, PATIENCE, now)?;
        let done = change(&held)?;
        self.follow(now)?;
        Ok(done)
    }

    /// Prepares the next root of a node that keeps its own. It signs after `activate_after`, and the
    /// old one is trusted for `retire_after` more. Gives its key id. Blocks on files.
    ///
    /// # Errors
    /// See [`CaError`].
    pub fn rotate(
        &self,
        activate_after: Option<Duration>,
        retire_after: Option<Duration>,
    ) -> Result<String, CaError> {
        let longest = Duration::from_secs(self.longest.load(Ordering::Relaxed));
        let terms = Terms {
            activate_after: activate_after.unwrap_or(ACTIVATE_AFTER),
            retire_after: retire_after.unwrap_or(RETIRE_AFTER.max(longest)),
        };
        self.change(|held| held.prepare(terms))
    }

    /// Replaces everything that this node signs with, at once; what was there before is distrusted as
    /// soon as no SVID hangs on it, within seconds. Gives the key ids of that. Blocks on files.
    ///
    /// # Errors
    /// See [`CaError`].
    pub fn replace(&self) -> Result<BTreeSet<String>, CaError> {
        let compromised = self.change(|held| held.replace(&self.settings.node))?;
        self.replace_jwt_keys()?;
        Ok(compromised)
    }

    /// For which trust domain it signs.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.settings.trust_domain
    }

    /// Makes the request to have this node's authority signed elsewhere. PEM. Blocks on files.
    ///
    /// # Errors
    /// See [`CaError`].
    pub fn request(&self) -> Result<String, CaError> {
        self.change(|held| held.request(&self.settings.node))
    }

    /// Takes the certificate that was brought back. What it follows is distrusted, too, if that is
    /// compromised. Gives its key id. Blocks on files.
    ///
    /// # Errors
    /// See [`CaError`].
    pub fn accept(&self, pem: &[u8], compromised: bool) -> Result<String, CaError> {
        let key_id = self.change(|held| held.accept(pem, compromised))?;
        if compromised {
            self.replace_jwt_keys()?;
        }
        Ok(key_id)
    }

    /// What is due to the authorities, and when.
    pub fn rotation(&self) -> Rotation {
        self.node.load().rotation.clone()
    }

    /// Whether the key of this node's root is kept here.
    pub fn keeps_its_root(&self) -> bool {
        // It may be moved to a safe place at any time.
        self.node.load().has_root_key && has_root_key(&self.settings.directory)
    }

    /// Takes over what the files hold. Whoever is to be trusted is published before it signs.
    fn follow(&self, now: SystemTime) -> Result<(), CaError> {
        let directory = &self.settings.directory;
        let state = FileStates::of(directory);
        let node = NodeAuthority::read(directory, now)?;
        check_domain(&node, directory, &self.settings.trust_domain)?;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = state;
        self.publish(&node.bundle, &self.jwt_keys.load());
        let key_id: Arc<str> = node.signing.authority().key_id.as_str().into();
        self.node.store(Arc::new(node));
        self.signs_with.send_replace(Some(key_id));
        Ok(())
    }

    fn fault(&self) -> MutexGuard<'_, Option<String>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of a fault once.
    fn note_fault(&self, fault: Option<String>) {
        let mut known = self.fault();
        match &fault {
            Some(error) if *known != fault => {
                tracing::error!(error, "what is due to the authorities could not be done");
            }
            None if known.is_some() => {
                tracing::info!("the authorities are as they should be again");
            }
            _ => {}
        }
        *known = fault;
    }

    /// Publishes the own bundle, if it is another than before.
    fn publish(&self, bundle: &TrustBundle, keys: &JwtKeys) {
        let own = bundle.clone().with_jwt_authorities(keys.authorities());
        self.bundles.send_if_modified(|bundles| {
            let is_new = bundles.get(&self.settings.trust_domain).is_none_or(|old| **old != own);
            if is_new {
                *bundles = Arc::new(bundles.with([own]));
            }
            is_new
        });
    }

    fn sign(&self, request: &IssueRequest) -> Result<X509Svid, IssueError> {
        let now = (self.settings.clock)();
        self.longest.fetch_max(request.ttl.as_secs(), Ordering::Relaxed);
        self.renew_if_due(now);
        self.node.load().signing.svid(request, self.settings.backdate, now)
    }

    fn sign_jwt(&self, request: &JwtRequest) -> Result<JwtSvid, IssueError> {
        let trust_domain = &self.settings.trust_domain;
        if !request.spiffe_id.is_member_of(trust_domain) {
            return Err(IssueError::ForeignTrustDomain {
                id: request.spiffe_id.clone(),
                trust_domain: trust_domain.clone(),
            });
        }
        self.jwt_keys.load().sign(request, (self.settings.clock)())
    }

    /// Rare and short: a file made and one removed in a week.
    fn renew_jwt_keys(&self, now: SystemTime) {
        let mut keys = JwtKeys::clone(&self.jwt_keys.load());
        match keys.upkeep(now) {
            Ok(false) => {}
            Ok(true) => {
                // Before they sign: whoever verifies knows them by then.
                self.publish(&self.node.load().bundle, &keys);
                self.jwt_keys.store(Arc::new(keys));
                tracing::info!("the keys of JWT-SVIDs were rotated");
            }
            Err(error) => tracing::error!(%error, "the keys of JWT-SVIDs could not be rotated"),
        }
    }

    /// At once: what was signed with the old ones is worth nothing from now on.
    fn replace_jwt_keys(&self) -> Result<(), CaError> {
        let mut keys = JwtKeys::clone(&self.jwt_keys.load());
        keys.replace((self.settings.clock)())?;
        self.publish(&self.node.load().bundle, &keys);
        self.jwt_keys.store(Arc::new(keys));
        Ok(())
    }

    /// Rare and short: once in a year, a few kilobytes of files.
    fn renew_if_due(&self, now: SystemTime) {
        if !is_due(self.node.load().signing.authority(), now) || !self.keeps_its_root() {
            return;
        }
        let directory = &self.settings.directory;
        let renewed = Held::of(directory, Duration::ZERO, now)
            .and_then(|held| held.renew(&self.settings.node))
            .and_then(|()| self.follow(now));
        match renewed {
            Ok(()) => tracing::info!("the node's authority was renewed"),
            // SVIDs can still be signed; `tacit status` shows the warning.
            Err(error) => tracing::debug!(%error, "the node's authority could not be renewed"),
        }
    }

    /// Does what is due, and takes over what others have changed.
    fn proceed(&self, now: SystemTime, replaced: bool) -> Result<(), CaError> {
        let directory = &self.settings.directory;
        let changed = {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            *seen != FileStates::of(directory)
        };
        let rotation = &self.node.load().rotation;
        let due =
            rotation.next().is_some_and(|at| at <= now) || !rotation.due(now, replaced).is_empty();
        if !changed && !due {
            return Ok(());
        }
        let held = Held::of(directory, Duration::ZERO, now)?;
        held.proceed(&self.settings.node, replaced)?;
        self.follow(now)
    }
}

fn check_domain(node: &NodeAuthority, path: &Path, expected: &TrustDomain) -> Result<(), CaError> {
    let found = node.signing.trust_domain();
    if found == expected {
        return Ok(());
    }
    let (path, found, expected) = (path.to_owned(), found.clone(), expected.clone());
    Err(CaError::ForeignTrustDomain { path, found, expected })
}

/// Whether less than a third of an authority's life is left.
pub(super) fn is_due(authority: &Authority, now: SystemTime) -> bool {
    let life = authority.not_after.duration_since(authority.not_before).unwrap_or_default();
    authority.not_after.duration_since(now).unwrap_or_default() < life / 3
}

impl Issuer for LocalCa {
    fn issue(&self, request: IssueRequest) -> Issuing<'_> {
        // Two signatures' worth of work: not worth another thread.
        Box::pin(async move { self.sign(&request) })
    }

    fn issue_jwt(&self, request: JwtRequest) -> IssuingJwt<'_> {
        Box::pin(async move { self.sign_jwt(&request) })
    }

    fn upkeep(&self, all_by: Option<&str>) -> Option<SystemTime> {
        let now = (self.settings.clock)();
        let replaced = all_by == Some(self.node.load().signing.authority().key_id.as_str());
        let soon = now + TRY_AGAIN;
        let next = match self.proceed(now, replaced) {
            Ok(()) => {
                self.note_fault(None);
                self.node.load().rotation.next()
            }
            // Whoever is at work has just told of it, and is done in a moment.
            Err(CaError::Busy(_)) => return Some(now + NEXT_TURN),
            Err(error) => {
                self.note_fault(Some(error.to_string()));
                Some(soon)
            }
        };
        self.renew_if_due(now);
        self.renew_jwt_keys(now);
        // What is due still has failed, or is another's turn.
        next.map(|at| if at <= now { soon } else { at })
    }

    fn signs_with(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.signs_with.subscribe()
    }

    fn bundles(&self) -> watch::Receiver<Arc<BundleSet>> {
        self.bundles.subscribe()
    }

    fn trust(&self, others: &BundleSet) {
        self.bundles.send_if_modified(|bundles| {
            let together = bundles.beside(&self.settings.trust_domain, others);
            let differs = together != **bundles;
            if differs {
                *bundles = Arc::new(together);
            }
            differs
        });
    }

    fn authorities(&self) -> Vec<AuthorityStatus> {
        let mut all =
            authorities(&self.node.load(), self.keeps_its_root(), (self.settings.clock)());
        if let Some(own) = all.first_mut().filter(|_| self.fault().is_some()) {
            own.warning = Some("what its directory holds cannot be taken over; see the log");
        }
        all
    }
}
