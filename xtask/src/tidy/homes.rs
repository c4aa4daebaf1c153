//! One home per library: a crate's name is written only where the table "Library" says, so that
//! replacing the library touches its home alone.

use std::collections::BTreeMap;

use crate::tidy::source::Source;
use crate::tidy::table;

/// The word of the table for libraries that any module may use.
const ANYWHERE: &str = "anywhere";

/// Libraries away from home, and dependencies without one.
pub(super) fn problems(architecture: &str, manifest: &str, sources: &[Source]) -> Vec<String> {
    let homes = homes(architecture);
    let mut problems = Vec::new();
    for dependency in dependencies(manifest) {
        if !homes.contains_key(&dependency) {
            problems.push(format!(
                "daemon/Cargo.toml: `{dependency}` has no home in ARCHITECTURE.md's table of libraries"
            ));
        }
    }
    for source in sources {
        let Some(inside) = source.path.strip_prefix("daemon/src/") else {
            continue;
        };
        let code = source.code();
        if source.is_tests() {
            continue;
        }
        for (library, places) in &homes {
            let at_home = places.iter().any(|place| place == ANYWHERE || is_in(inside, place));
            if !at_home && uses(&code, library) {
                problems.push(format!(
                    "{}: uses `{library}`, whose home is {}",
                    source.path,
                    places.join(", ")
                ));
            }
        }
    }
    problems
}

fn homes(architecture: &str) -> BTreeMap<String, Vec<String>> {
    let mut homes = BTreeMap::new();
    for row in table::rows(architecture, "Library") {
        let [libraries, places, ..] = row.as_slice() else {
            continue;
        };
        for library in table::names(libraries) {
            homes.insert(library.replace('-', "_"), table::names(places));
        }
    }
    homes
}

/// `bpf` holds `bpf/flows.rs`; `proxy/tls.rs` holds only itself.
fn is_in(inside: &str, place: &str) -> bool {
    inside == place
        || inside.strip_suffix(".rs") == Some(place)
        || inside.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'))
}

fn uses(code: &str, library: &str) -> bool {
    let path = format!("{library}::");
    code.match_indices(&path).any(|(at, _)| {
        let before = code.get(..at).unwrap_or_default();
        let root = before.strip_suffix("::").unwrap_or(before);
        // `crate::notify::x` and `my_notify::x` are other things; `::notify::x` is the library.
        !root.ends_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '_')
    })
}

/// The names in `[dependencies]`, as code writes them.
fn dependencies(manifest: &str) -> Vec<String> {
    manifest
        .lines()
        .skip_while(|line| line.trim() != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', '=', ' ']).next())
        .filter(|name| !name.is_empty() && !name.starts_with('#'))
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::source::source;

    const TABLE: &str = "| Library | Home |\n|---|---|\n| aya | bpf |\n| rcgen | `identity/local_ca.rs` |\n| tracing | anywhere |\n";

    fn check(path: &str, text: &str, count: usize) {
        let found = problems(TABLE, "", &[source(path, text)]);
        assert_eq!(found.len(), count, "{path}: {found:?}");
    }

    #[test]
    fn libraries_stay_at_home() {
        check("daemon/src/bpf/load.rs", "use aya::Ebpf;", 0);
        check("daemon/src/bpf.rs", "use ::aya::Ebpf;", 0);
        check("daemon/src/proxy/tls.rs", "use aya::Ebpf;", 1);
        check("daemon/src/proxy/tls.rs", "use crate::aya::Ebpf; tracing::info!(); my_aya::x()", 0);
        check("daemon/src/identity/local_ca.rs", "rcgen::x()", 0);
        check("daemon/src/identity/mod.rs", "rcgen::x()", 1);
    }

    #[test]
    fn every_dependency_has_a_home() {
        let manifest =
            "[dependencies]\naya.workspace = true\nnew-one = \"1\"\n\n[lints]\nworkspace = true\n";
        assert_eq!(dependencies(manifest), ["aya", "new_one"]);
        assert_eq!(problems(TABLE, manifest, &[]).len(), 1);
    }
}
