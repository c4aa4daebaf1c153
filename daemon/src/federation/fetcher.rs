//! Keeps the bundles of other trust domains fresh: looks at each endpoint when it is due, and at once
//! when the configuration names it. Who has failed keeps its last good bundle.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::fetch::{FetchError, fetch};
use super::peer;
use super::schedule::{Bounds, wait};
use crate::audit::Audit;
use crate::config::{Relationship, UrlError, endpoint_url};
use crate::identity::draw;
use crate::metrics::Metrics;
use crate::shutdown::{Stop, Tasks};
use crate::spiffe::{BundleDocument, BundleSet, DocumentError, TrustDomain};
use crate::state::{BundleError, Declared, ForeignBundles, Taken};
use crate::sys::clock;

/// The wall clock can jump and a host can sleep, so plans are looked at anew at least this often.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// How endpoints are looked at.
#[derive(Debug, Clone, Copy)]
pub struct FetchSettings {
    /// How often and how seldom.
    pub bounds: Bounds,
    /// The longest that one look may take, with all redirects.
    pub timeout: Duration,
}

/// What a fetcher is made of.
#[derive(Debug, Clone)]
pub struct FetcherParts {
    /// Where bundles are kept, and which endpoints there are.
    pub bundles: ForeignBundles,
    /// Those in force, by which endpoints of SPIFFE are known.
    pub in_force: watch::Receiver<Arc<BundleSet>>,
    /// Where changes are recorded.
    pub audit: Audit,
    /// Where looks are counted.
    pub metrics: Arc<Metrics>,
    /// How to look.
    pub settings: FetchSettings,
}

/// How the looks at one endpoint fare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchStatus {
    /// When it was looked at last with success.
    pub fetched: Option<SystemTime>,
    /// When it is looked at next.
    pub next: SystemTime,
    /// How often that has failed in a row.
    pub failures: u32,
    /// Why it failed last.
    pub last_error: Option<String>,
}

/// Looks at endpoints. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fetcher {
    parts: FetcherParts,
    peers: Arc<Mutex<BTreeMap<TrustDomain, Peer>>>,
    woken: Arc<Notify>,
}

#[derive(Debug, Clone)]
struct Peer {
    relationship: Arc<Relationship>,
    due: Instant,
    /// A look is on its way.
    looking: bool,
    status: FetchStatus,
}

/// Why a look brought no bundle.
#[derive(Debug, Error)]
enum LookError {
    #[error("its URL {0}")]
    Url(UrlError),
    #[error("no TLS: {0}")]
    Tls(String),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("no answer within {}s", .0.as_secs())]
    TimedOut(Duration),
    #[error("what it serves {0}")]
    Document(#[from] DocumentError),
    #[error(transparent)]
    Kept(#[from] BundleError),
    #[error("the look came to grief")]
    Panicked,
}

impl Fetcher {
    /// Nothing is looked at before [`Fetcher::run`].
    pub fn new(parts: FetcherParts) -> Self {
        Self { parts, peers: Arc::default(), woken: Arc::default() }
    }

    /// How the looks fare, by trust domain.
    pub fn status(&self) -> BTreeMap<TrustDomain, FetchStatus> {
        self.peers().iter().map(|(domain, peer)| (domain.clone(), peer.status.clone())).collect()
    }

    /// Looks at endpoints until the daemon drains.
    pub async fn run(self, mut stop: Stop) {
        let mut declared = self.parts.bundles.declared();
        let mut looks = Tasks::new();
        loop {
            let now = Arc::clone(&declared.borrow_and_update());
            self.follow(&now);
            looks.reap();
            for relationship in self.claim_due() {
                looks.spawn("fetch a bundle", self.clone().look(relationship));
            }
            tokio::select! {
                biased;
                () = stop.draining() => break,
                changed = declared.changed() => if changed.is_err() { break },
                () = self.woken.notified() => {}
                () = sleep_until(self.soonest()) => {}
            }
        }
        looks.drain(Duration::ZERO).await;
    }

    /// Takes over which endpoints there are. One that is new or other than before is due at once.
    fn follow(&self, declared: &Declared) {
        let mut peers = self.peers();
        peers.retain(|domain, peer| declared.get(domain) == Some(&peer.relationship));
        for (domain, relationship) in declared {
            peers.entry(domain.clone()).or_insert_with(|| Peer {
                relationship: Arc::clone(relationship),
                due: Instant::now(),
                looking: false,
                status: FetchStatus {
                    fetched: None,
                    next: clock::now(),
                    failures: 0,
                    last_error: None,
                },
            });
        }
        drop(peers);
        self.count_failing();
    }

    fn claim_due(&self) -> Vec<Arc<Relationship>> {
        let now = Instant::now();
        let mut peers = self.peers();
        let due = peers.values_mut().filter(|peer| !peer.looking && peer.due <= now);
        due.map(|peer| {
            peer.looking = true;
            Arc::clone(&peer.relationship)
        })
        .collect()
    }

    fn soonest(&self) -> Instant {
        let longest = Instant::now() + LONGEST_SLEEP;
        let peers = self.peers();
        let due = peers.values().filter(|peer| !peer.looking).map(|peer| peer.due).min();
        due.map_or(longest, |due| due.min(longest))
    }

    async fn look(self, relationship: Arc<Relationship>) {
        let patience = self.parts.settings.timeout;
        let got = timeout(patience, self.get(&relationship)).await;
        let got = got.unwrap_or(Err(LookError::TimedOut(patience)));
        self.parts.metrics.bundle_fetched(got.is_ok());
        match &got {
            Ok((taken, document)) => self.tell(&relationship, *taken, document),
            Err(error) => {
                let Relationship { trust_domain, url, .. } = relationship.as_ref();
                tracing::warn!(%trust_domain, url, %error, "no bundle could be fetched");
            }
        }
        self.note(&relationship, got);
        self.woken.notify_one();
    }

    async fn get(
        &self,
        relationship: &Arc<Relationship>,
    ) -> Result<(Taken, Arc<BundleDocument>), LookError> {
        let url = endpoint_url(&relationship.url).map_err(LookError::Url)?;
        let in_force = Arc::clone(&self.parts.in_force.borrow());
        let profile = relationship.profile.clone();
        // Reads the files of the web's authorities.
        let config = blocking(move || peer::client(&profile, in_force)).await?;
        let config = Arc::new(config.map_err(LookError::Tls)?);
        let text = fetch(&url, &config).await?;
        let document = BundleDocument::parse(&relationship.trust_domain, &text)?;
        let document = Arc::new(document);
        let (bundles, of) = (self.parts.bundles.clone(), Arc::clone(relationship));
        let fresh = Arc::clone(&document);
        let taken = blocking(move || bundles.fetched(&of, fresh, clock::now())).await??;
        Ok((taken, document))
    }

    /// Source: SPIFFE Federation §7.6: every fetch is logged.
    fn tell(&self, relationship: &Relationship, taken: Taken, document: &BundleDocument) {
        let Relationship { trust_domain, url, .. } = relationship;
        let (x509, jwt) =
            (document.bundle.authorities().len(), document.bundle.jwt_authorities().len());
        let sequence = document.sequence;
        tracing::info!(%trust_domain, url, sequence, x509, jwt, ?taken, "a bundle was fetched");
        for ignored in &document.ignored {
            tracing::warn!(%trust_domain, url, "{ignored}");
        }
        if taken == Taken::Changed {
            let number = sequence.map_or_else(String::new, |it| format!("sequence {it}, "));
            let detail = format!(
                "{trust_domain}: {number}{x509} X.509 and {jwt} JWT authorities, from {url}"
            );
            self.parts.audit.daemon("bundle_fetched", Some(detail));
        }
    }

    /// What came of a look, unless the endpoint is another one by now.
    fn note(
        &self,
        relationship: &Arc<Relationship>,
        got: Result<(Taken, Arc<BundleDocument>), LookError>,
    ) {
        let mut peers = self.peers();
        let known = self.hint(relationship);
        let Some(peer) = peers
            .get_mut(&relationship.trust_domain)
            .filter(|peer| Arc::ptr_eq(&peer.relationship, relationship))
        else {
            return;
        };
        peer.looking = false;
        let status = &mut peer.status;
        let hint = match got {
            Ok((_, document)) => {
                status.fetched = Some(clock::now());
                status.failures = 0;
                status.last_error = None;
                document.refresh_hint
            }
            Err(error) => {
                status.failures = status.failures.saturating_add(1);
                status.last_error = Some(error.to_string());
                known
            }
        };
        let pause = wait(hint, status.failures, self.parts.settings.bounds, draw());
        status.next = clock::now() + pause;
        peer.due = Instant::now() + pause;
        drop(peers);
        self.count_failing();
    }

    /// What the bundle says that is kept.
    fn hint(&self, relationship: &Relationship) -> Option<Duration> {
        let kept = self.parts.bundles.list();
        kept.get(&relationship.trust_domain)?.document.refresh_hint
    }

    fn count_failing(&self) {
        let failing = self.peers().values().filter(|peer| peer.status.failures > 0).count();
        self.parts.metrics.bundles_failing(failing);
    }

    /// A panic while it is held leaves at most one look too few until the next reload.
    fn peers(&self) -> MutexGuard<'_, BTreeMap<TrustDomain, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn blocking<T, F>(work: F) -> Result<T, LookError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.map_err(|_panicked| LookError::Panicked)
}
