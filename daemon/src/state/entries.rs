//! Live entries: added by command, kept in `entries.toml` of the state directory, and in force
//! beside the declared ones, those of the configuration.
//!
//! An id that both have is the declared entry's: the live one is shadowed, and in force again when
//! the declared one goes. A change is on the disk before it is in force, and in force before it is
//! acknowledged.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use tokio::sync::watch;

use crate::config::{EntryDraft, Problem, Problems, check_drafts, read_entries, render_entry};
use crate::registry::{RegistrationEntry, Registry};
use crate::spiffe::TrustDomain;
use crate::sys::private_files::{
    FileError, PRIVATE, check_private_dir, create_private_dir, read_private, write_atomic,
};

/// The file, below the state directory.
const FILE: &str = "entries.toml";
/// Largest file that is written, bytes: one that is read again at the next start.
const LARGEST: usize = 12 << 20;
/// What the file says to people.
const HEADER: &str = "# Written by tacit; change it by `tacit entries add | remove | import`.\n\n";
/// Where live entries come from, for people.
const ORIGIN: &str = "live";

/// Why what the daemon keeps cannot be used at start. The operator mends or removes the file.
#[derive(Debug, Error)]
pub enum StateError {
    /// The file could not be read or relied upon.
    #[error(transparent)]
    File(#[from] FileError),
    /// What is in it.
    #[error("what the daemon keeps is not valid:\n{0}")]
    Invalid(Problems),
    /// The sequence number of the published bundle.
    #[error("{}: {what}; remove it, and the number goes on from the time of day", path.display())]
    Published {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The bundles of other trust domains.
    #[error("{}: {what}; mend it, or remove it and set its bundles again (tacit bundle set)", path.display())]
    Bundles {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// Why a change was refused; nothing of it is in force.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// The drafts are no entries.
    #[error(transparent)]
    Invalid(Problems),
    /// They cannot stand beside what there is.
    #[error("{}", lines(.0))]
    Conflicts(Vec<Conflict>),
    /// More than is kept.
    #[error(
        "live entries together have more than {LARGEST} bytes; declare some in the configuration"
    )]
    TooLarge,
    /// They could not be kept.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Why one entry cannot be added or removed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Conflict {
    /// The configuration has it.
    #[error("entry `{id}` is declared at {origin}; change it there, or choose another id")]
    Declared {
        /// The id.
        id: String,
        /// Where it stands.
        origin: String,
    },
    /// Another entry of this id was added before.
    #[error("entry `{0}` exists and says something else; remove it first, or add with --replace")]
    Exists(String),
    /// There is no such entry.
    #[error("there is no entry `{0}`; see `tacit entries list`")]
    Unknown(String),
}

/// What became of drafts.
#[derive(Debug, Default)]
pub struct Added {
    /// New, or in place of one that said something else.
    pub added: Vec<Arc<RegistrationEntry>>,
    /// There already, and the same.
    pub unchanged: Vec<String>,
    /// What is worth telling.
    pub warnings: Vec<Problem>,
}

/// A live entry.
#[derive(Debug, Clone)]
pub struct LiveEntry {
    /// The entry.
    pub entry: Arc<RegistrationEntry>,
    /// A declared entry has its id, and is in force instead.
    pub shadowed: bool,
}

/// The live entries, and the registry that they make with the declared ones. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LiveEntries(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    trust_domain: TrustDomain,
    /// Held over a whole change, so that file and memory have the same order.
    turn: Mutex<()>,
    parts: Mutex<Parts>,
    registry: watch::Sender<Arc<Registry>>,
}

#[derive(Debug, Default)]
struct Parts {
    declared: Arc<Registry>,
    live: Kept,
}

/// By id, each with its text in the file.
type Kept = BTreeMap<String, (Arc<RegistrationEntry>, Arc<str>)>;

impl LiveEntries {
    /// Reads the file, if there is one. Blocks: call it at start.
    ///
    /// # Errors
    /// See [`StateError`]: what a file means that is wrong cannot be guessed.
    pub fn open(
        state_dir: &Path,
        trust_domain: TrustDomain,
        declared: Arc<Registry>,
    ) -> Result<Self, StateError> {
        let path = state_dir.join(FILE);
        let mut live = Kept::new();
        for mut entry in read(&path, &trust_domain)? {
            ORIGIN.clone_into(&mut entry.origin);
            let text = render_entry(&entry).into();
            live.insert(entry.id.clone(), (Arc::new(entry), text));
        }
        let parts = Parts { declared, live };
        let registry = watch::Sender::new(Arc::new(parts.registry()));
        let (turn, parts) = (Mutex::default(), Mutex::new(parts));
        Ok(Self(Arc::new(Shared { path, trust_domain, turn, parts, registry })))
    }

    /// All entries in force, as they change.
    pub fn registry(&self) -> watch::Receiver<Arc<Registry>> {
        self.0.registry.subscribe()
    }

    /// The live entries, in the order of their ids.
    pub fn list(&self) -> Vec<LiveEntry> {
        let parts = self.0.parts();
        let live = parts.live.iter().map(|(id, (entry, _))| LiveEntry {
            entry: Arc::clone(entry),
            shadowed: parts.declares(id).is_some(),
        });
        live.collect()
    }

    /// Takes over what the configuration declares now.
    pub fn declare(&self, declared: Arc<Registry>) {
        let mut parts = self.0.parts();
        if parts.declared == declared {
            return;
        }
        parts.declared = declared;
        for id in parts.live.keys().filter(|id| parts.declares(id).is_some()) {
            tracing::warn!(entry = id, "a live entry is shadowed by a declared one of the same id");
        }
        self.0.publish(&parts);
    }

    /// Adds all of these or, if there is anything wrong, none. `source` says to people where they
    /// come from. Blocks: it writes and syncs a file.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub fn add(
        &self,
        source: &str,
        drafts: &[EntryDraft],
        replace: bool,
    ) -> Result<Added, ChangeError> {
        let read = check_drafts(source, drafts, &self.0.trust_domain);
        let read = read.map_err(ChangeError::Invalid)?;
        let _turn = self.0.turn();
        let mut live = self.0.parts().live.clone();
        let mut told = Added { warnings: read.warnings, ..Added::default() };
        let mut conflicts = Vec::new();
        for mut entry in read.entries {
            ORIGIN.clone_into(&mut entry.origin);
            let id = entry.id.clone();
            if let Some(origin) = self.0.parts().declares(&id) {
                conflicts.push(Conflict::Declared { id, origin });
                continue;
            }
            match live.get(&id) {
                Some((same, _)) if **same == entry => told.unchanged.push(id),
                Some(_) if !replace => conflicts.push(Conflict::Exists(id)),
                _ => {
                    let (text, entry) = (render_entry(&entry).into(), Arc::new(entry));
                    told.added.push(Arc::clone(&entry));
                    live.insert(id, (entry, text));
                }
            }
        }
        self.0.keep(live, conflicts, told.added.is_empty())?;
        Ok(told)
    }

    /// Removes all of these or, if one cannot be removed, none. Blocks as [`LiveEntries::add`].
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub fn remove(&self, ids: &[String]) -> Result<Vec<Arc<RegistrationEntry>>, ChangeError> {
        let _turn = self.0.turn();
        let mut live = self.0.parts().live.clone();
        let (mut removed, mut conflicts) = (Vec::new(), Vec::new());
        for id in ids {
            let declared = self.0.parts().declares(id);
            match (live.remove(id), declared) {
                (Some((entry, _)), _) => removed.push(entry),
                (None, Some(origin)) => {
                    conflicts.push(Conflict::Declared { id: id.clone(), origin });
                }
                (None, None) => conflicts.push(Conflict::Unknown(id.clone())),
            }
        }
        self.0.keep(live, conflicts, removed.is_empty())?;
        Ok(removed)
    }
}

impl Shared {
    /// Writes, and then publishes.
    fn keep(&self, live: Kept, conflicts: Vec<Conflict>, same: bool) -> Result<(), ChangeError> {
        if !conflicts.is_empty() {
            return Err(ChangeError::Conflicts(conflicts));
        }
        if same {
            return Ok(());
        }
        let texts = live.values().map(|(_, text)| &**text);
        let text = std::iter::once(HEADER).chain(texts).collect::<Vec<_>>().join("\n");
        if text.len() > LARGEST {
            return Err(ChangeError::TooLarge);
        }
        if let Some(state_dir) = self.path.parent() {
            create_private_dir(state_dir)?;
        }
        write_atomic(&self.path, text.as_bytes(), PRIVATE)?;
        let mut parts = self.parts();
        parts.live = live;
        self.publish(&parts);
        Ok(())
    }

    fn publish(&self, parts: &Parts) {
        self.registry.send_replace(Arc::new(parts.registry()));
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A panic while it is held leaves nothing half done: every change is one assignment.
    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parts {
    /// Where the configuration declares an entry of this id, if it does.
    fn declares(&self, id: &str) -> Option<String> {
        let entries = self.declared.entries();
        let at = entries.binary_search_by(|entry| entry.id.as_str().cmp(id)).ok()?;
        entries.get(at).map(|entry| entry.origin.clone())
    }

    fn registry(&self) -> Registry {
        let live = self.live.iter().filter(|(id, _)| self.declares(id).is_none());
        let live = live.map(|(_, (entry, _))| Arc::clone(entry));
        let all = self.declared.entries().iter().map(Arc::clone).chain(live).collect();
        Registry::new::<Arc<RegistrationEntry>>(all).unwrap_or_else(|errors| {
            // Cannot be: ids are unique by the above, and each entry was read with selectors.
            tracing::error!(?errors, "live entries do not fit; the declared ones stay");
            Registry::clone(&self.declared)
        })
    }
}

/// The entries of the file; none if there is none.
fn read(path: &Path, trust_domain: &TrustDomain) -> Result<Vec<RegistrationEntry>, StateError> {
    let bytes = match read_private(path) {
        Ok(bytes) => bytes,
        Err(error) if error.is_missing() => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    if let Some(state_dir) = path.parent() {
        check_private_dir(state_dir)?;
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let read = read_entries(path, text, trust_domain).map_err(StateError::Invalid)?;
    Ok(read.entries)
}

fn lines(conflicts: &[impl fmt::Display]) -> String {
    conflicts.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
