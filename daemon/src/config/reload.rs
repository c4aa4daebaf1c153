//! Takes over a changed configuration while the daemon runs: at once, wholly, or not at all.
//! A file that is wrong, or that changes what only a restart can change, leaves everything as it
//! is; the error is kept for `tacit status`. Start at [`Reloader::run`].

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::restart::keys_that_need_a_restart;
use super::watch::{Fingerprint, Watches};
use super::{Config, Names, Problem, Problems, Resolve, SystemResolver, load_with};
use crate::shutdown::Stop;

/// Quiet for so long means that the writer is done.
const QUIET: Duration = Duration::from_millis(100);
/// A writer that is never quiet is not waited for any longer.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often the files are looked at without a notice, for file systems that give none.
const LOOK: Duration = Duration::from_secs(5);

/// Why a configuration was not taken over.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReloadError {
    /// It is wrong.
    #[error("{0}")]
    Invalid(Problems),
    /// It changes what cannot change while the daemon runs.
    #[error("{}: changed, which needs a restart of tacit; nothing was taken over", .0.join(", "))]
    NeedsRestart(Vec<&'static str>),
    /// This host cannot keep what it says.
    #[error("{0}; nothing was taken over")]
    Impossible(String),
    /// The loading itself came to grief.
    #[error("the configuration could not be loaded; nothing was taken over")]
    Failed,
    /// The reloader has ended.
    #[error("the daemon is stopping")]
    Stopping,
}

/// How the last load went.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReloadStatus {
    /// Epoch of the configuration in force.
    pub epoch: u64,
    /// Why the files as they are now are not in force.
    pub error: Option<ReloadError>,
    /// What is worth telling about the configuration in force.
    pub warnings: Vec<Problem>,
    /// How often another configuration was taken over.
    pub taken_over: u64,
    /// How often one was refused.
    pub refused: u64,
}

/// Watches the files and publishes what they say.
pub struct Reloader {
    path: PathBuf,
    resolver: Arc<dyn Resolve>,
    take_up: TakeUp,
    config: watch::Sender<Arc<Config>>,
    status: watch::Sender<ReloadStatus>,
    requests: mpsc::Receiver<Request>,
    handle: ReloadHandle,
}

/// Puts another configuration into force, as one, or says why that cannot be and leaves the old one
/// in force.
type TakeUp = Box<dyn Fn(&Config) -> Result<(), String> + Send + Sync>;

type Request = oneshot::Sender<Result<bool, ReloadError>>;

/// What the rest of the daemon sees of it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ReloadHandle {
    config: watch::Receiver<Arc<Config>>,
    status: watch::Receiver<ReloadStatus>,
    requests: mpsc::Sender<Request>,
}

impl ReloadHandle {
    /// The configuration in force, always wholly valid.
    pub fn config(&self) -> watch::Receiver<Arc<Config>> {
        self.config.clone()
    }

    /// How the last load went.
    pub fn status(&self) -> watch::Receiver<ReloadStatus> {
        self.status.clone()
    }

    /// Loads the files again, host names too, changed or not. Says whether anything is new.
    ///
    /// # Errors
    /// Why nothing was taken over.
    ///
    /// # Cancel safety
    /// Dropping it does not stop a reload that has begun.
    pub async fn reload_now(&self) -> Result<bool, ReloadError> {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(reply).await.is_err() {
            return Err(ReloadError::Stopping);
        }
        answer.await.unwrap_or(Err(ReloadError::Stopping))
    }
}

impl Reloader {
    /// Starts from the configuration that was loaded from `path`.
    pub fn new(path: PathBuf, config: Config) -> Self {
        Self::with_resolver(path, config, Arc::new(SystemResolver))
    }

    /// The same, looking up host names with this resolver.
    pub fn with_resolver(path: PathBuf, config: Config, resolver: Arc<dyn Resolve>) -> Self {
        let status = ReloadStatus { epoch: config.epoch, ..ReloadStatus::default() };
        let (config, config_seen) = watch::channel(Arc::new(config));
        let (told, told_seen) = watch::channel(status);
        let (requests, waiting) = mpsc::channel(1);
        let handle = ReloadHandle { config: config_seen, status: told_seen, requests };
        let take_up: TakeUp = Box::new(|_| Ok(()));
        Self { path, resolver, take_up, config, status: told, requests: waiting, handle }
    }

    /// Has each new configuration put into force by this, before anybody is shown it. What this
    /// refuses is not taken over.
    #[must_use]
    pub fn taken_up_by(
        self,
        take_up: impl Fn(&Config) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self { take_up: Box::new(take_up), ..self }
    }

    /// What the rest of the daemon sees of it.
    pub fn handle(&self) -> ReloadHandle {
        self.handle.clone()
    }

    /// Watches and reloads until the daemon drains.
    pub async fn run(mut self, mut stop: Stop) {
        let (notices, mut waiting) = mpsc::channel(1);
        let dir = self.config.borrow().node.include_dir.clone();
        let mut watches = Watches::new(&self.path, dir.as_deref(), notices);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Empty, so that the first tick sees what changed since the daemon read the file.
        let mut seen = Fingerprint::default();
        loop {
            tokio::select! {
                biased;
                () = stop.draining() => return,
                Some(reply) = self.requests.recv() => {
                    let outcome = self.reload().await;
                    // Whoever asked may have gone; the outcome stands in the status too.
                    let _gone = reply.send(outcome).is_err();
                    continue;
                }
                Some(()) = waiting.recv() => until_quiet(&mut waiting).await,
                _ = look.tick() => {}
            }
            watches.renew();
            let now = self.fingerprint().await;
            let waits_for_names = !self.config.borrow().unresolved.is_empty();
            if now != seen || waits_for_names {
                seen = now;
                // The outcome stands in the status and the log.
                let _outcome = self.reload().await.is_ok();
            }
        }
    }

    async fn fingerprint(&self) -> Fingerprint {
        let (path, dir) = (self.path.clone(), self.config.borrow().node.include_dir.clone());
        let look = move || Fingerprint::of(&path, dir.as_deref());
        tokio::task::spawn_blocking(look).await.unwrap_or_default()
    }

    async fn reload(&self) -> Result<bool, ReloadError> {
        let outcome = self.take_over().await;
        match &outcome {
            Ok(true) => {
                let epoch = self.config.borrow().epoch;
                tracing::info!(epoch, "configuration taken over");
            }
            Ok(false) => tracing::debug!("configuration unchanged"),
            Err(error) => tracing::error!(%error, "configuration refused; the old one stays"),
        }
        outcome
    }

    async fn take_over(&self) -> Result<bool, ReloadError> {
        let old = Arc::clone(&self.config.borrow());
        let names = Names::new(Arc::clone(&self.resolver))
            .or_keep(old.addresses.clone())
            .or_later_these(old.unresolved.clone());
        let path = self.path.clone();
        let loaded = tokio::task::spawn_blocking(move || load_with(&path, &names)).await;
        let loaded = match loaded {
            Ok(loaded) => loaded.map_err(ReloadError::Invalid),
            Err(_panicked) => Err(ReloadError::Failed),
        };
        let taken_up = loaded.and_then(|(mut new, warnings)| {
            let keys = keys_that_need_a_restart(&old, &new);
            if !keys.is_empty() {
                return Err(ReloadError::NeedsRestart(keys));
            }
            new.epoch = old.epoch;
            let is_new = new != *old;
            if is_new {
                new.epoch += 1;
                (self.take_up)(&new).map_err(ReloadError::Impossible)?;
            }
            Ok((new, is_new, warnings))
        });
        let (new, is_new, warnings) = match taken_up {
            Ok(taken_up) => taken_up,
            Err(error) => {
                self.status.send_modify(|status| {
                    status.error = Some(error.clone());
                    status.refused += 1;
                });
                return Err(error);
            }
        };
        if warnings != self.status.borrow().warnings {
            for warning in &warnings {
                tracing::warn!(%warning, "configuration");
            }
        }
        self.status.send_modify(|status| {
            (status.epoch, status.error, status.warnings) = (new.epoch, None, warnings);
            status.taken_over += u64::from(is_new);
        });
        if is_new {
            self.config.send_replace(Arc::new(new));
        }
        Ok(is_new)
    }
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Waits until there has been no notice for a while, but not forever.
async fn until_quiet(noticed: &mut mpsc::Receiver<()>) {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if timeout(QUIET, noticed.recv()).await.is_err() {
            return;
        }
    }
}
