//! The Rust files of the repository, and the parts of them that rules look at.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Folders that hold sources written by hand.
const FOLDERS: [&str; 6] = ["daemon", "ebpf-abi", "ebpf-programs", "proto", "xtask", "tests"];

/// One file.
#[derive(Debug)]
pub(super) struct Source {
    /// Relative to the root, with forward slashes.
    pub(super) path: String,
    /// Its text.
    pub(super) text: String,
}

impl Source {
    /// Every Rust file under the folders, sorted by path.
    pub(super) fn all(root: &Path) -> Result<Vec<Self>> {
        let mut found = Vec::new();
        for folder in FOLDERS {
            collect(root, &root.join(folder), &mut found)?;
        }
        found.sort_by(|one: &Self, other: &Self| one.path.cmp(&other.path));
        Ok(found)
    }

    /// What stands before the file's own tests.
    pub(super) fn before_tests(&self) -> &str {
        self.text.split("#[cfg(test)]").next().unwrap_or_default()
    }

    /// Whether all of the file is test code of its parent.
    pub(super) fn is_tests(&self) -> bool {
        self.path.ends_with("/tests.rs")
            || self.path.contains("/tests/") && self.path.starts_with("daemon/")
    }

    /// The code before the tests, without comments.
    pub(super) fn code(&self) -> String {
        self.before_tests().lines().map(without_comment).collect::<Vec<_>>().join("\n")
    }

    /// The module of the daemon that the file belongs to: its first folder or file name.
    pub(super) fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("daemon/src/")?;
        inside.split('/').next().map(|name| name.strip_suffix(".rs").unwrap_or(name))
    }
}

fn without_comment(line: &str) -> &str {
    let comment = line.match_indices("//").find(|(at, _)| {
        // Not the `//` of a URL in a string.
        line.get(..*at).is_some_and(|before| !before.ends_with(':'))
    });
    comment.and_then(|(at, _)| line.get(..at)).unwrap_or(line)
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target" && name != "gen") {
                collect(root, &path, found)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let relative = path.strip_prefix(root).unwrap_or(&path);
            found.push(Source { path: relative.to_string_lossy().replace('\\', "/"), text });
        }
    }
    Ok(())
}

/// A source for the tests of the rules.
#[cfg(test)]
pub(super) fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_no_code() {
        let file =
            source("daemon/src/a/b.rs", "//! crate::x\nlet url = \"https://x\"; // crate::y\n");
        assert_eq!(file.code().trim(), "let url = \"https://x\";");
        assert_eq!(file.module(), Some("a"));
    }

    #[test]
    fn tests_are_cut_off() {
        let file = source("daemon/src/a.rs", "one\n#[cfg(test)]\nmod tests {}\n");
        assert_eq!(file.before_tests(), "one\n");
        assert_eq!(file.module(), Some("a"));
    }
}
