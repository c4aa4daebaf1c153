//! One set of files, for as long as its rule stands: written when its SVID or the bundle changes, or
//! when somebody has taken the files away; recorded before anybody can see them; then the program is
//! told, again and again until it worked.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::content;
use super::place::{Place, PlaceError};
use super::standing::Standings;
use super::tell::tell;
use crate::audit::Audit;
use crate::identity::{EntryWatch, HeldSvid, IssueError};
use crate::shutdown::Stop;
use crate::spiffe::{BundleSet, TrustBundle};
use crate::sys::command::CommandCgroup;
use crate::workload::FileSet;

/// How often files are looked at, and tried again, though nothing is known to have changed. Chosen:
/// a service manager removes the directory of a service that stops.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// A program that cannot be told is told again after so long, then after twice as long, and so on.
const TELL_AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(5));

/// One set and what it needs.
#[derive(Debug)]
pub(super) struct Upkeep {
    pub(super) set: Arc<FileSet>,
    pub(super) watch: EntryWatch,
    pub(super) audit: Audit,
    pub(super) standings: Standings,
    pub(super) cgroup: CommandCgroup,
    pub(super) clock: fn() -> SystemTime,
    /// What programs see now, if anything was written.
    pub(super) seen: Option<Version>,
    /// The program has still to be told, from when on, and after what pause next.
    pub(super) untold: Option<(Instant, Duration)>,
}

/// What was written.
#[derive(Debug, Clone)]
pub(super) struct Version {
    name: String,
    serial: String,
    bundle: Arc<TrustBundle>,
}

impl Upkeep {
    /// Keeps the files until the rule or the daemon ends. They stay as they are then.
    pub(super) async fn run(mut self, mut stop: Stop) {
        loop {
            let pause = tokio::select! {
                biased;
                () = stop.draining() => return,
                pause = self.look() => pause,
            };
            tokio::select! {
                biased;
                () = stop.draining() => return,
                () = self.watch.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Does what is due, and says how long nothing else will be.
    async fn look(&mut self) -> Duration {
        let done = self.write_if_due().await;
        let problem = match done {
            Ok(()) => self.tell_if_due().await,
            Err(problem) => Some(problem),
        };
        let is_news = self.standings.set(&self.set.name, problem.clone());
        if let Some(problem) = problem.filter(|_| is_news) {
            tracing::warn!(
                files = &*self.set.name,
                problem,
                "an SVID in files is not as it should be"
            );
        }
        let until_told = self.untold.map(|(at, _)| at.saturating_duration_since(Instant::now()));
        until_told.map_or(LOOK_AGAIN, |wait| wait.min(LOOK_AGAIN))
    }

    async fn write_if_due(&mut self) -> Result<(), String> {
        let (held, bundles) = match self.watch.current().await {
            Ok(found) => found,
            Err(error) => {
                if matches!(error, IssueError::Denied(_)) {
                    self.withdraw().await?;
                }
                return Err(error.to_string());
            }
        };
        let bundle = bundle_of(&held, &bundles)?;
        let same = self
            .seen
            .as_ref()
            .filter(|seen| seen.serial == held.svid.serial && *seen.bundle == *bundle);
        let (set, same) = (Arc::clone(&self.set), same.map(|seen| seen.name.clone()));
        let names = content::names(&set);
        if blocking(move || Ok(is_shown(&set, same.as_deref(), &names))).await? {
            return Ok(());
        }
        self.write(&held, bundle).await
    }

    /// Takes away what an identity that is denied must not have any more.
    async fn withdraw(&mut self) -> Result<(), String> {
        self.seen = None;
        let set = Arc::clone(&self.set);
        let cleared = blocking(move || match Place::once(&set.directory, set.owner)? {
            Some(place) => place.clear(),
            None => Ok(false),
        });
        if cleared.await? {
            let (directory, owner) = (self.set.directory.display(), self.set.owner);
            let detail = format!("SVID, key and bundle in {directory} of user {owner}: denied");
            self.audit.order("files_removed", detail).await;
        }
        Ok(())
    }

    async fn write(&mut self, held: &HeldSvid, bundle: Arc<TrustBundle>) -> Result<(), String> {
        let number = (self.clock)().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (set, svid) = (Arc::clone(&self.set), Arc::clone(&held.svid));
        let trusted = Arc::clone(&bundle);
        let staged = blocking(move || {
            let files = content::of(&set, &svid, &trusted);
            Place::open(&set)?.stage(&files, number.as_nanos())
        });
        let staged = staged.await?;
        // Nobody can see the key yet: it is not given away without a record.
        let detail = format!(
            "{} (serial {}, entry {}) to files in {} of user {}, by `{}`",
            held.svid.id,
            held.svid.serial,
            held.entry.id,
            self.set.directory.display(),
            self.set.owner,
            self.set.name,
        );
        self.audit.order("svid_handed_over", detail).await;
        let (place, name) = blocking(move || staged.publish()).await?;
        let serial = held.svid.serial.clone();
        tracing::info!(files = &*self.set.name, serial, "SVID written to files");
        self.seen = Some(Version { name: name.clone(), serial, bundle });
        self.untold = Some((Instant::now(), TELL_AGAIN.0));
        let names = content::names(&self.set);
        blocking(move || place.tidy(&name, &names)).await
    }

    /// Why the program could not be told, if it has to be and could not.
    async fn tell_if_due(&mut self) -> Option<String> {
        let (at, pause) = self.untold?;
        if at > Instant::now() {
            // As it stood: the last attempt failed.
            return self.standings.of(&self.set.name);
        }
        match tell(&self.set, &self.cgroup).await {
            Ok(()) => {
                self.untold = None;
                None
            }
            Err(error) => {
                let next = (pause * 2).min(TELL_AGAIN.1);
                self.untold = Some((Instant::now() + pause, next));
                Some(format!("written, but its program could not be told: {error}"))
            }
        }
    }
}

/// The bundle by which peers of the SVID's own trust domain are verified.
fn bundle_of(held: &HeldSvid, bundles: &BundleSet) -> Result<Arc<TrustBundle>, String> {
    let bundle = bundles.for_id(&held.svid.id).map(Arc::clone);
    bundle.ok_or_else(|| format!("there is no bundle of {}", held.svid.id.trust_domain()))
}

fn is_shown(set: &FileSet, version: Option<&str>, names: &[String]) -> bool {
    let Some(version) = version else { return false };
    Place::open(set).is_ok_and(|place| place.shows(version, names))
}

/// Disks may hang: nobody else waits for them.
async fn blocking<T, F>(work: F) -> Result<T, String>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, PlaceError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_panicked) => Err("writing failed in an unforeseen way; see the log".to_owned()),
    }
}
