//! All sets of files, as the configuration has them: begins those that are new, ends those that are
//! gone and removes their files, also what a daemon before this one has left.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use super::known::{Known, KnownError};
use super::place::Place;
use super::standing::Standings;
use super::upkeep::Upkeep;
use crate::audit::Audit;
use crate::identity::Identities;
use crate::shutdown::{Stop, Tasks};
use crate::sys::command::CommandCgroup;
use crate::sys::private_files::FileError;
use crate::workload::{FileSet, Owner};

/// How long a set that ends may take; a command that runs is killed at once.
const END: Duration = Duration::from_secs(2);
/// How soon removing is tried again where it failed.
const REMOVE_AGAIN: Duration = Duration::from_secs(5);

/// What it needs.
#[derive(Debug)]
pub struct FilesParts {
    /// The sets, as they change.
    pub sets: watch::Receiver<Arc<Vec<FileSet>>>,
    /// Whose SVIDs they are.
    pub identities: Identities,
    /// Who is told of every key that leaves the daemon.
    pub audit: Audit,
    /// Told how each set stands.
    pub standings: Standings,
    /// Where it is kept which directories are in use.
    pub state_dir: PathBuf,
    /// Cgroup of commands, as a directory.
    pub commands: PathBuf,
    /// Wall-clock time; it numbers versions.
    pub clock: fn() -> SystemTime,
}

struct Keeper {
    parts: FilesParts,
    known: Arc<Mutex<Known>>,
    running: BTreeMap<PathBuf, Running>,
    /// Cgroups given to sets so far.
    begun: u64,
}

struct Running {
    set: Arc<FileSet>,
    tasks: Tasks,
}

/// Makes the task that keeps the files until the daemon drains; then they stay as they are, valid as
/// long as their SVIDs.
///
/// # Errors
/// What an earlier daemon has written is not known: it could not be removed.
pub fn keep(parts: FilesParts, stop: Stop) -> Result<impl Future<Output = ()> + Send, KnownError> {
    let known = Arc::new(Mutex::new(Known::open(&parts.state_dir)?));
    let keeper = Keeper { parts, known, running: BTreeMap::new(), begun: 0 };
    Ok(keeper.run(stop))
}

impl Keeper {
    async fn run(mut self, mut stop: Stop) {
        let mut sets = self.parts.sets.clone();
        // What a killed daemon has left running.
        CommandCgroup::at(self.parts.commands.clone()).kill();
        loop {
            let wanted = Arc::clone(&sets.borrow_and_update());
            let is_done = self.bring_in_line(&wanted).await;
            tokio::select! {
                biased;
                () = stop.draining() => break,
                changed = sets.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(REMOVE_AGAIN), if !is_done => {}
            }
        }
        for running in self.running.values_mut() {
            running.tasks.drain(END).await;
        }
    }

    /// Says whether nothing is left to do.
    async fn bring_in_line(&mut self, wanted: &[FileSet]) -> bool {
        let is_wanted = |set: &FileSet| wanted.contains(set);
        let ended: Vec<PathBuf> = self
            .running
            .iter()
            .filter(|(_, running)| !is_wanted(&running.set))
            .map(|(directory, _)| directory.clone())
            .collect();
        for directory in ended {
            if let Some(mut running) = self.running.remove(&directory) {
                running.tasks.drain(END).await;
                self.parts.standings.set(&running.set.name, None);
            }
        }
        let mut is_done = true;
        let all = self.known().all();
        for (directory, owner) in all {
            let stays = |set: &FileSet| set.directory == directory && set.owner == owner;
            if !wanted.iter().any(stays) {
                is_done &= self.remove(&directory, owner).await;
            }
        }
        for set in wanted {
            if !self.running.contains_key(&set.directory) {
                is_done &= self.begin(set).await;
            }
        }
        is_done
    }

    async fn begin(&mut self, set: &FileSet) -> bool {
        // Known before anything is there.
        let (directory, owner) = (set.directory.clone(), set.owner);
        if let Err(problem) = self.note(move |known| known.add(&directory, owner)).await {
            self.tell(&set.name, Some(problem));
            return false;
        }
        let cgroup = CommandCgroup::at(self.parts.commands.join(self.begun.to_string()));
        self.begun += 1;
        let set = Arc::new(set.clone());
        let upkeep = Upkeep {
            set: Arc::clone(&set),
            watch: self.parts.identities.watch_entry(&set.entry),
            audit: self.parts.audit.clone(),
            standings: self.parts.standings.clone(),
            cgroup,
            clock: self.parts.clock,
            seen: None,
            untold: None,
        };
        self.tell(&set.name, Some("not written yet".to_owned()));
        let mut tasks = Tasks::new();
        tasks.spawn("SVID in files", upkeep.run(tasks.stop()));
        self.running.insert(set.directory.clone(), Running { set, tasks });
        true
    }

    /// Removes what was written to a directory. Says whether that is done.
    async fn remove(&mut self, directory: &Path, owner: Owner) -> bool {
        let path = directory.to_owned();
        let cleared = tokio::task::spawn_blocking(move || match Place::once(&path, owner) {
            Ok(Some(place)) => place.clear(),
            Ok(None) => Ok(false),
            Err(error) => Err(error),
        });
        let shown = directory.display().to_string();
        let problem = match cleared.await {
            Ok(Ok(was_there)) => {
                if was_there {
                    let detail = format!("SVID, key and bundle in {shown} of user {owner}");
                    self.parts.audit.order("files_removed", detail).await;
                }
                let directory = directory.to_owned();
                self.note(move |known| known.remove(&directory)).await.err()
            }
            Ok(Err(error)) => Some(format!("no rule asks for files here, and they stay: {error}")),
            Err(_panicked) => Some("removing files failed in an unforeseen way".to_owned()),
        };
        let is_done = problem.is_none();
        self.tell(&shown, problem);
        is_done
    }

    /// Changes the list, which is a file.
    async fn note(
        &self,
        change: impl FnOnce(&mut Known) -> Result<(), FileError> + Send + 'static,
    ) -> Result<(), String> {
        let known = Arc::clone(&self.known);
        let changed = tokio::task::spawn_blocking(move || change(&mut lock(&known)));
        match changed.await {
            Ok(changed) => changed.map_err(|error| error.to_string()),
            Err(_panicked) => Err("the list of directories could not be kept".to_owned()),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    fn tell(&self, name: &str, problem: Option<String>) {
        if self.parts.standings.set(name, problem.clone())
            && let Some(problem) = problem
        {
            tracing::info!(files = name, problem, "SVIDs in files");
        }
    }
}

/// A panic while it is held leaves nothing half done: the last step of a change is one assignment.
fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}
