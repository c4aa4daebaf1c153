//! Which module of the daemon may import which: `crate::` paths against the table "Module".

use std::collections::{BTreeMap, BTreeSet};

use crate::tidy::source::Source;
use crate::tidy::table;

/// The word of the table that allows every edge.
const EVERYTHING: &str = "everything";

/// One line per edge that is not in the table, and per module that is not.
pub(super) fn problems(architecture: &str, sources: &[Source]) -> Vec<String> {
    let allowed = allowed(architecture);
    if allowed.is_empty() {
        return vec![
            "ARCHITECTURE.md: no table of allowed imports (first header `Module`)".to_owned(),
        ];
    }
    let mut problems = Vec::new();
    for source in sources {
        let Some(module) = source.module() else {
            continue;
        };
        if matches!(module, "lib" | "main") || source.is_tests() {
            continue;
        }
        let code = source.code();
        if code.contains("super::super::") {
            problems.push(format!(
                "{}: `super::super::` hides an import; write `crate::`",
                source.path
            ));
        }
        let Some(may) = allowed.get(module) else {
            problems.push(format!(
                "{}: module `{module}` is not in ARCHITECTURE.md's table of imports",
                source.path
            ));
            continue;
        };
        for import in imports(&code) {
            if import != module && !may.contains(&import) && !may.contains(EVERYTHING) {
                problems.push(format!(
                    "{}: `{module}` imports `{import}`, which ARCHITECTURE.md does not allow",
                    source.path
                ));
            }
        }
    }
    problems
}

fn allowed(architecture: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut allowed = BTreeMap::new();
    for row in table::rows(architecture, "Module") {
        let [modules, imports, ..] = row.as_slice() else {
            continue;
        };
        for module in table::names(modules) {
            allowed.insert(module, table::names(imports).into_iter().collect());
        }
    }
    allowed
}

/// The modules that `crate::` paths name, grouped imports included.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let behind_word = code.get(..at).is_some_and(|before| before.ends_with(is_word));
        let Some(rest) = code.get(at + "crate::".len()..) else {
            continue;
        };
        if behind_word {
            continue;
        }
        if let Some(group) = rest.strip_prefix('{') {
            found.extend(group_heads(group));
        } else {
            found.insert(word(rest).to_owned());
        }
    }
    // Items of the crate root are no modules.
    found.retain(|name| name.chars().next().is_some_and(char::is_lowercase));
    found
}

/// The first word of each item of a `{a::b, c::{d, e}}` group, given what is behind its brace.
fn group_heads(group: &str) -> Vec<String> {
    let (mut heads, mut depth, mut expecting) = (Vec::new(), 0_usize, true);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expecting = true,
            _ if expecting && is_word(letter) => {
                heads.push(word(group.get(at..).unwrap_or_default()).to_owned());
                expecting = false;
            }
            _ => {}
        }
    }
    heads
}

fn word(text: &str) -> &str {
    text.split(|letter| !is_word(letter)).next().unwrap_or_default()
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::source::source;

    const TABLE: &str =
        "| Module | May import |\n|---|---|\n| policy | workload, spiffe |\n| app | everything |\n";

    #[test]
    fn finds_paths_and_groups() {
        let code = "use crate::policy::X;\nuse crate::{audit::A, workload::{B, C}, sys};\nother_crate::no;";
        let found: Vec<_> = imports(code).into_iter().collect();
        assert_eq!(found, ["audit", "policy", "sys", "workload"]);
    }

    #[test]
    fn names_what_is_not_allowed() {
        let check = |path, text, count| {
            let found = problems(TABLE, &[source(path, text)]);
            assert_eq!(found.len(), count, "{path}: {found:?}");
        };
        check("daemon/src/policy/a.rs", "use crate::workload::X; use crate::policy::Y;", 0);
        check("daemon/src/policy/a.rs", "use crate::bpf::X;", 1);
        check("daemon/src/policy/a.rs", "// use crate::bpf::X;", 0);
        check("daemon/src/policy/a.rs", "#[cfg(test)]\nmod tests { use crate::bpf::X; }", 0);
        check("daemon/src/policy/a.rs", "use super::super::bpf;", 1);
        check("daemon/src/unknown.rs", "", 1);
        check("daemon/src/app.rs", "use crate::bpf::X;", 0);
        check("daemon/src/lib.rs", "", 0);
        check("xtask/src/a.rs", "use crate::bpf::X;", 0);
    }

    #[test]
    fn a_missing_table_is_a_problem() {
        assert_eq!(problems("", &[]).len(), 1);
    }
}
