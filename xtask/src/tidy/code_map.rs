//! The code map and the code agree: every module is on the map, every path on the map exists.

use std::collections::BTreeSet;

use crate::tidy::source::Source;

/// Modules that are not on the map, and paths of the map that are gone.
pub(super) fn problems(
    architecture: &str,
    sources: &[Source],
    exists: impl Fn(&str) -> bool,
) -> Vec<String> {
    let named = paths(architecture);
    let mut wanted = BTreeSet::new();
    for source in sources {
        let Some(inside) = source.path.strip_prefix("daemon/src/") else {
            continue;
        };
        match inside.split_once('/') {
            Some((folder, _)) => wanted.insert(format!("daemon/src/{folder}/")),
            None => wanted.insert(source.path.clone()),
        };
    }
    let missing = wanted
        .iter()
        .filter(|path| !named.contains(*path))
        .map(|path| format!("ARCHITECTURE.md: `{path}` is not on the code map"));
    let gone = named
        .iter()
        .filter(|path| !exists(path))
        .map(|path| format!("ARCHITECTURE.md: `{path}` does not exist"));
    missing.chain(gone).collect()
}

/// The repository paths between back quotes.
fn paths(markdown: &str) -> BTreeSet<String> {
    const ROOTS: [&str; 7] =
        ["daemon/", "ebpf-abi/", "ebpf-programs/", "xtask/", "tests/", "docs/", "proto/"];
    markdown
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|quoted| ROOTS.iter().any(|root| quoted.starts_with(root)))
        .filter(|quoted| !quoted.contains(['*', '{', ' ']))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::source::source;

    #[test]
    fn map_and_code_agree() {
        let check = |map: &str, count: usize| {
            let files = [source("daemon/src/policy/a.rs", ""), source("daemon/src/app.rs", "")];
            let found = problems(map, &files, |path| !path.contains("gone"));
            assert_eq!(found.len(), count, "{found:?}");
        };
        check("`daemon/src/policy/` rules, `daemon/src/app.rs` all", 0);
        check("`daemon/src/policy/` rules", 1);
        check("`daemon/src/policy/`, `daemon/src/app.rs`, `daemon/src/gone.rs`", 1);
    }
}
