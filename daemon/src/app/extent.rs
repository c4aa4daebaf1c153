//! What the daemon has to be able to do for a configuration, and so which privileges it keeps. They are
//! given up for good at the start: a configuration that needs more needs a restart.

use crate::config::Config;
use crate::files;
use crate::sys::privilege::{
    KEPT, KEPT_FOR_COMMANDS, KEPT_FOR_FILES, Kept, PrivilegeError, Programs, forbid_calls,
    keep_only,
};
use crate::workload::{FileSet, Told};

/// How far it goes; each includes those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Extent {
    /// No SVID is written to files.
    Connections,
    /// Some are.
    Files,
    /// And commands are run when they change.
    Commands,
}

impl Extent {
    /// What a configuration needs, and what earlier ones have left to be removed.
    pub(super) fn at_start(config: &Config) -> Self {
        let left =
            if files::are_left(&config.node.state_dir) { Self::Files } else { Self::Connections };
        Self::of(&config.files).max(left)
    }

    /// What these sets of files need.
    pub(super) fn of(sets: &[FileSet]) -> Self {
        let each = sets.iter().map(|set| match set.told {
            Told::Command { .. } => Self::Commands,
            Told::Not | Told::Signal { .. } => Self::Files,
        });
        each.max().unwrap_or(Self::Connections)
    }

    /// Gives up all privileges beyond it. Call it while there is one thread.
    pub(super) fn keep(self) -> Result<(), PrivilegeError> {
        keep_only(&self.kept())
    }

    /// Forbids all calls beyond it, in every thread.
    pub(super) fn forbid(self) -> Result<(), PrivilegeError> {
        let programs = if self == Self::Commands { Programs::Configured } else { Programs::None };
        forbid_calls(programs)
    }

    fn kept(self) -> Vec<Kept> {
        let mut kept = KEPT.to_vec();
        if self >= Self::Files {
            kept.extend_from_slice(KEPT_FOR_FILES);
        }
        if self >= Self::Commands {
            kept.extend_from_slice(KEPT_FOR_COMMANDS);
        }
        kept
    }

    /// Why a configuration cannot be taken up with what is left, if it cannot.
    pub(super) fn allows(self, config: &Config) -> Result<(), String> {
        let needed = Self::of(&config.files);
        if needed <= self {
            return Ok(());
        }
        let what = if needed == Self::Files { "[[files]]" } else { "[[files]] with a command" };
        Err(format!(
            "the daemon was started without {what} and has given up what that takes; restart it"
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::workload::Owner;

    fn set(told: Told) -> FileSet {
        FileSet {
            name: "a".into(),
            entry: "a".to_owned(),
            directory: "/srv/a".into(),
            certificate: "svid.pem".to_owned(),
            key: "svid.key".to_owned(),
            bundle: "bundle.pem".to_owned(),
            owner: Owner { uid: 1, gid: 1 },
            told,
        }
    }

    #[test]
    fn more_is_kept_only_where_it_is_needed() {
        let run =
            Told::Command { argv: vec!["/bin/true".to_owned()], timeout: Duration::from_secs(1) };
        assert_eq!(Extent::of(&[]), Extent::Connections);
        assert_eq!(Extent::of(&[set(Told::Not)]), Extent::Files);
        assert_eq!(Extent::of(&[set(run), set(Told::Not)]), Extent::Commands);
        let [some, more, most] = [Extent::Connections, Extent::Files, Extent::Commands]
            .map(|extent| extent.kept().len());
        assert!(some == KEPT.len() && some < more && more < most);
    }
}
