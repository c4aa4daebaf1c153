//! The form of a file: its header, its size, and how many share a folder.

use std::collections::BTreeMap;

use crate::tidy::source::Source;

/// Lines of a file before its tests.
const FILE_LINES: usize = 400;
/// Lines of a contents page.
const MOD_LINES: usize = 80;
/// Files of a folder.
const FOLDER_FILES: usize = 10;
/// How many lines from the top an oversize reason may stand.
const REASON_LINES: usize = 12;

/// What is wrong with the form of one file.
pub(super) fn problems(source: &Source) -> Vec<String> {
    let mut problems = Vec::new();
    let mut say = |what: String| problems.push(format!("{}: {what}", source.path));
    if !has_header(&source.text) {
        say("does not start with a `//!` header that says what it is for".to_owned());
    }
    let lines = source.before_tests().lines().count();
    if lines > FILE_LINES && !source.is_tests() && oversize_reason(source).is_none() {
        say(format!(
            "{lines} lines before its tests (at most {FILE_LINES}, or `// oversize: reason`)"
        ));
    }
    if source.path.ends_with("/mod.rs") && !source.is_tests() && lines > MOD_LINES {
        say(format!("{lines} lines; a mod.rs is a contents page (at most {MOD_LINES})"));
    }
    problems
}

/// Nothing but attributes of the file itself may stand before the header.
fn has_header(text: &str) -> bool {
    const ATTRIBUTE_LINES: usize = 8;
    let header = text.lines().take(ATTRIBUTE_LINES).position(|line| line.starts_with("//!"));
    header.is_some_and(|at| at == 0 || text.starts_with("#!["))
}

/// The reason that a file gives for being larger than the budget.
pub(super) fn oversize_reason(source: &Source) -> Option<&str> {
    source.text.lines().take(REASON_LINES).find_map(|line| line.strip_prefix("// oversize: "))
}

/// Folders of the daemon with more files than one reads at a glance.
pub(super) fn crowded_folders(sources: &[Source]) -> Vec<String> {
    let mut folders: BTreeMap<&str, (usize, bool)> = BTreeMap::new();
    for source in sources.iter().filter(|source| source.path.starts_with("daemon/src/")) {
        let Some((folder, _)) = source.path.rsplit_once('/') else {
            continue;
        };
        if folder == "daemon/src" || source.is_tests() {
            continue;
        }
        let entry = folders.entry(folder).or_default();
        entry.0 += usize::from(!source.path.ends_with("/mod.rs"));
        entry.1 |= source.path.ends_with("/mod.rs") && oversize_reason(source).is_some();
    }
    folders
        .into_iter()
        .filter(|(_, (files, excused))| *files > FOLDER_FILES && !excused)
        .map(|(folder, (files, _))| {
            format!("{folder}: {files} files (at most {FOLDER_FILES}, or `// oversize: reason` in mod.rs)")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::source::source;

    fn check(path: &str, text: &str, count: usize) {
        let found = problems(&source(path, text));
        assert_eq!(found.len(), count, "{path}: {found:?}");
    }

    #[test]
    fn wants_a_header() {
        check("a.rs", "//! What it is.\n", 0);
        check("a.rs", "#![expect(x)]\n//! What it is.\n", 0);
        check("a.rs", "use std;\n", 1);
        check("a.rs", "use std;\n//! Too late.\n", 1);
    }

    #[test]
    fn wants_small_files() {
        let long = "x\n".repeat(FILE_LINES);
        check("a.rs", &format!("//! h\n{long}"), 1);
        check("a.rs", &format!("//! h\n// oversize: one table\n{long}"), 0);
        check("a.rs", &format!("//! h\n#[cfg(test)]\n{long}"), 0);
        check("b/tests.rs", &format!("//! h\n{long}"), 0);
        check("b/mod.rs", &format!("//! h\n{}", "x\n".repeat(MOD_LINES)), 1);
    }

    #[test]
    fn wants_folders_at_a_glance() {
        let files = |count: usize| -> Vec<Source> {
            (0..count).map(|at| source(&format!("daemon/src/a/{at}.rs"), "")).collect()
        };
        assert!(crowded_folders(&files(FOLDER_FILES)).is_empty());
        assert_eq!(crowded_folders(&files(FOLDER_FILES + 1)).len(), 1);
        let mut excused = files(FOLDER_FILES + 1);
        excused.push(source("daemon/src/a/mod.rs", "//! h\n// oversize: one per hook\n"));
        assert!(crowded_folders(&excused).is_empty());
    }
}
