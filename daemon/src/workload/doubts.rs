//! What could not be found out about a process. A selector of such a kind may hold of it or not:
//! nobody is to be given an identity on the assumption that it does not.

use super::Selector;

/// Which kinds of `unix` selectors are in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each kind is in doubt or is not, by itself")]
pub struct Doubts {
    /// `user`: its name was not told in time.
    pub user: bool,
    /// `group` and `supplementary_group`: the name of one was not told in time.
    pub groups: bool,
    /// `supplementary_gid` and `supplementary_group`: the process exited, or changed, before it was
    /// looked at.
    pub supplementary: bool,
    /// `path`: the same.
    pub path: bool,
    /// `sha256`: the same, or the executable could not be read.
    pub digest: bool,
}

impl Doubts {
    /// Whether anything is in doubt.
    pub fn any(self) -> bool {
        self.user || self.groups || self.supplementary || self.path || self.digest
    }

    /// Whether this selector is.
    pub fn cover(self, selector: &Selector) -> bool {
        let key = selector.value().split(':').next().unwrap_or_default();
        selector.kind() == "unix"
            && match key {
                "user" => self.user,
                "group" => self.groups,
                "supplementary_group" => self.groups || self.supplementary,
                "supplementary_gid" => self.supplementary,
                "path" => self.path,
                "sha256" => self.digest,
                _ => false,
            }
    }
}
