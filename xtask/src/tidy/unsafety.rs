//! `unsafe` only in the files that the table "Unsafe files" names, each with its reason.

use crate::tidy::source::Source;
use crate::tidy::table;

/// Files with `unsafe` that the table does not name, and rows that name nothing any more.
pub(super) fn problems(architecture: &str, sources: &[Source]) -> Vec<String> {
    let listed: Vec<String> = table::rows(architecture, "Unsafe files")
        .iter()
        .filter_map(|row| row.first())
        .flat_map(|cell| table::names(cell))
        .collect();
    let covers = |pattern: &str, path: &str| match pattern.strip_suffix('*') {
        Some(folder) => path.starts_with(folder),
        None => path == pattern,
    };
    let mut problems = Vec::new();
    // This rule speaks of the word; the lints keep the thing out of here.
    let judged = sources.iter().filter(|source| !source.path.starts_with("xtask/"));
    let holds: Vec<&Source> = judged.filter(|source| has_unsafe(&source.text)).collect();
    for source in &holds {
        if !listed.iter().any(|pattern| covers(pattern, &source.path)) {
            problems
                .push(format!("{}: `unsafe`, but ARCHITECTURE.md does not list it", source.path));
        }
    }
    for pattern in &listed {
        if !holds.iter().any(|source| covers(pattern, &source.path)) {
            problems.push(format!("ARCHITECTURE.md: `{pattern}` is listed as unsafe and has none"));
        }
    }
    problems
}

/// Whether the word `unsafe` stands before a block, function, impl or extern.
fn has_unsafe(text: &str) -> bool {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).any(|line| {
        ["unsafe {", "unsafe fn ", "unsafe impl", "unsafe extern", "#[unsafe("]
            .iter()
            .any(|form| line.contains(form) && !line.contains(&format!("\"{form}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::source::source;

    const TABLE: &str =
        "| Unsafe files | Why |\n|---|---|\n| `daemon/src/sys/*` | system calls |\n";

    #[test]
    fn unsafe_stays_where_it_is_listed() {
        let call = "let x = unsafe { f() };";
        let listed = source("daemon/src/sys/a.rs", call);
        assert!(problems(TABLE, &[listed]).is_empty());
        let both = [source("daemon/src/sys/a.rs", call), source("daemon/src/proxy/a.rs", call)];
        assert_eq!(problems(TABLE, &both).len(), 1);
        let mentions = [
            source("daemon/src/sys/a.rs", call),
            source("b.rs", "#![deny(unsafe_code)]\n// unsafe { }"),
        ];
        assert!(problems(TABLE, &mentions).is_empty());
    }

    #[test]
    fn a_row_without_a_file_is_stale() {
        assert_eq!(problems(TABLE, &[]).len(), 1);
    }
}
