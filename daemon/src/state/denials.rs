//! The deny list as commands change it: kept in `deny.toml` of the state directory, and in force beside
//! what the configuration declares, which goes first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use super::StateError;
use crate::config::{read_denials, render_denial};
use crate::policy::{Denied, DenyItem, DenyList};
use crate::sys::private_files::{
    FileError, PRIVATE, check_private_dir, create_private_dir, read_private, write_atomic,
};

/// The file, below the state directory.
const FILE: &str = "deny.toml";
/// What the file says to people.
const HEADER: &str = "# Written by tacit; change it by `tacit deny add | remove`.\n\n";
/// Where live items come from, for people.
pub(super) const ORIGIN: &str = "live";

/// Why a change was refused; nothing of it is in force.
#[derive(Debug, Error)]
pub enum DenialsError {
    /// The configuration has it.
    #[error("{denied} is denied by the configuration ({origin}); change it there")]
    Declared {
        /// What.
        denied: Denied,
        /// Where it stands.
        origin: String,
    },
    /// There is no such item.
    #[error("{0} is not denied; see `tacit deny list`")]
    Unknown(Denied),
    /// It could not be kept.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The deny list, of both origins. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LiveDenials(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// Held over a whole change, so that file and memory have the same order.
    turn: Mutex<()>,
    parts: Mutex<Parts>,
}

#[derive(Debug, Default)]
struct Parts {
    declared: Vec<DenyItem>,
    live: BTreeMap<Denied, DenyItem>,
}

impl LiveDenials {
    /// Reads the file, if there is one. Blocks: call it at start.
    ///
    /// # Errors
    /// See [`StateError`]: who is meant by a file that is wrong cannot be guessed, and a list that is
    /// left out would admit them.
    pub fn open(state_dir: &Path, declared: Vec<DenyItem>) -> Result<Self, StateError> {
        let path = state_dir.join(FILE);
        let mut live = BTreeMap::new();
        for mut item in read(&path)? {
            ORIGIN.clone_into(&mut item.origin);
            live.insert(item.denied.clone(), item);
        }
        let (turn, parts) = (Mutex::default(), Mutex::new(Parts { declared, live }));
        Ok(Self(Arc::new(Shared { path, turn, parts })))
    }

    /// The whole list.
    pub fn list(&self) -> DenyList {
        let parts = self.0.parts();
        parts.declared.iter().chain(parts.live.values()).cloned().collect()
    }

    /// Takes over what the configuration declares now.
    pub fn declare(&self, declared: &[DenyItem]) {
        declared.clone_into(&mut self.0.parts().declared);
    }

    /// Adds an item, or gives it another reason. Says whether that changes anything. Blocks: it writes
    /// and syncs a file.
    ///
    /// # Errors
    /// See [`DenialsError`].
    pub fn add(&self, mut item: DenyItem) -> Result<bool, DenialsError> {
        ORIGIN.clone_into(&mut item.origin);
        let _turn = self.0.turn();
        self.0.check_undeclared(&item.denied)?;
        let mut live = self.0.parts().live.clone();
        let same = live.get(&item.denied) == Some(&item);
        if !same {
            live.insert(item.denied.clone(), item);
            self.0.keep(live)?;
        }
        Ok(!same)
    }

    /// Removes an item. Blocks as [`LiveDenials::add`].
    ///
    /// # Errors
    /// See [`DenialsError`].
    pub fn remove(&self, denied: &Denied) -> Result<(), DenialsError> {
        let _turn = self.0.turn();
        self.0.check_undeclared(denied)?;
        let mut live = self.0.parts().live.clone();
        if live.remove(denied).is_none() {
            return Err(DenialsError::Unknown(denied.clone()));
        }
        self.0.keep(live)
    }
}

impl Shared {
    fn check_undeclared(&self, denied: &Denied) -> Result<(), DenialsError> {
        let parts = self.parts();
        let Some(found) = parts.declared.iter().find(|item| item.denied == *denied) else {
            return Ok(());
        };
        let (denied, origin) = (denied.clone(), found.origin.clone());
        Err(DenialsError::Declared { denied, origin })
    }

    fn keep(&self, live: BTreeMap<Denied, DenyItem>) -> Result<(), DenialsError> {
        let items = live.values().map(render_denial);
        let text = std::iter::once(HEADER.to_owned()).chain(items).collect::<Vec<_>>().join("\n");
        if let Some(state_dir) = self.path.parent() {
            create_private_dir(state_dir)?;
        }
        write_atomic(&self.path, text.as_bytes(), PRIVATE)?;
        self.parts().live = live;
        Ok(())
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A panic while it is held leaves nothing half done: every change is one assignment.
    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The items of the file; none if there is none.
fn read(path: &Path) -> Result<Vec<DenyItem>, StateError> {
    let bytes = match read_private(path) {
        Ok(bytes) => bytes,
        Err(error) if error.is_missing() => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    if let Some(state_dir) = path.parent() {
        check_private_dir(state_dir)?;
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    read_denials(path, text).map_err(StateError::Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(denied: Denied, reason: &str) -> DenyItem {
        DenyItem::new(denied, reason, "conf.toml:3").unwrap()
    }

    #[test]
    fn what_is_added_outlives_a_restart_and_what_is_declared_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let (a, b) = (Denied::id("spiffe://td/a").unwrap(), Denied::serial("00aB").unwrap());
        let open = |declared| LiveDenials::open(&state, declared).unwrap();
        let live = open(Vec::new());
        assert!(live.add(item(a.clone(), "a \"quoted\" \\ reason")).unwrap());
        assert!(!live.add(item(a.clone(), "a \"quoted\" \\ reason")).unwrap(), "the same");
        assert!(live.add(item(b.clone(), "")).unwrap());
        let before = live.list();
        assert_eq!(before.items().count(), 2);
        let again = open(Vec::new());
        assert_eq!(again.list(), before);
        again.declare(&[item(a.clone(), "declared")]);
        let list = again.list();
        let first = list.items().next().unwrap();
        assert_eq!((first.reason.as_str(), first.origin.as_str()), ("declared", "conf.toml:3"));
        assert!(matches!(again.add(item(a.clone(), "x")), Err(DenialsError::Declared { .. })));
        assert!(matches!(again.remove(&a), Err(DenialsError::Declared { .. })));
        again.remove(&b).unwrap();
        assert!(matches!(again.remove(&b), Err(DenialsError::Unknown(_))));
        again.declare(&[]);
        assert_eq!(again.list().items().next().unwrap().origin, ORIGIN, "in force again");
        assert_eq!(open(Vec::new()).list().items().count(), 1);
    }

    #[test]
    fn a_list_that_cannot_be_read_is_no_empty_list() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["[[deny]]\nspiffe_id = 7", "[[deny]]\nserial = \"x\"", "[[entry]]", "["] {
            write_atomic(&dir.path().join(FILE), text.as_bytes(), PRIVATE).unwrap();
            assert!(LiveDenials::open(dir.path(), Vec::new()).is_err(), "{text}");
        }
    }
}
