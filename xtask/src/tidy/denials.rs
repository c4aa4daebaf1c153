//! Every reason for a denial is provoked on a real kernel: its label stands as a string in a test of
//! a privileged tier. The few that no program from outside can bring about are listed here with why,
//! and stand in a test of the daemon instead.

use crate::tidy::source::Source;

/// Where the labels are.
const REASONS: &str = "daemon/src/policy/denial.rs";
/// Where they are to be provoked.
const TIERS: [&str; 3] = ["tests/kernel/", "tests/netns/", "tests/interop/"];
/// Labels that cannot be, and why.
const FROM_INSIDE_ONLY: [(&str, &str); 1] =
    [("unknown_flow", "sk_lookup drops what has no record before the daemon sees it")];

/// Labels that no test provokes, and excuses that nothing needs.
pub(super) fn problems(sources: &[Source]) -> Vec<String> {
    let labels: Vec<&str> = sources
        .iter()
        .filter(|source| source.path == REASONS)
        .flat_map(|source| labels(source.before_tests()))
        .collect();
    let mut problems = Vec::new();
    if labels.is_empty() {
        problems.push(format!("{REASONS}: no labels of reasons found"));
    }
    for label in &labels {
        let string = format!("\"{label}\"");
        let stands_in = |source: &&Source| source.text.contains(&string);
        let outside = sources.iter().filter(|it| is_privileged(it)).any(|it| stands_in(&it));
        let inside = sources.iter().filter(|it| it.is_tests()).any(|it| stands_in(&it));
        let excused = FROM_INSIDE_ONLY.iter().find(|(excused, _)| excused == label);
        match (excused, outside, inside) {
            (None, true, _) | (Some(_), false, true) => {}
            (None, false, _) => {
                problems.push(format!("{REASONS}: no privileged test provokes `{label}`"));
            }
            (Some((_, why)), false, false) => {
                problems
                    .push(format!("{REASONS}: no test of the daemon provokes `{label}` ({why})"));
            }
            (Some((_, why)), true, _) => {
                problems.push(format!("{REASONS}: `{label}` is provoked, but excused: {why}"));
            }
        }
    }
    for (excused, _) in FROM_INSIDE_ONLY.iter().filter(|(excused, _)| !labels.contains(excused)) {
        problems.push(format!("{REASONS}: `{excused}` is excused and is no reason"));
    }
    problems
}

fn is_privileged(source: &Source) -> bool {
    TIERS.iter().any(|tier| source.path.starts_with(tier))
}

/// What stands behind the arrows of `as_str`.
fn labels(code: &str) -> Vec<&str> {
    code.lines().filter_map(|line| line.split_once("=> \"")?.1.split('"').next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::source::source;

    const CODE: &str = "Self::A => \"no_rule\",\nSelf::B => \"unknown_flow\",\n";

    fn check(tests: &[(&str, &str)], count: usize) {
        let mut sources = vec![source(REASONS, CODE)];
        sources.extend(tests.iter().map(|(path, text)| source(path, text)));
        let found = problems(&sources);
        assert_eq!(found.len(), count, "{tests:?}: {found:?}");
    }

    #[test]
    fn every_label_is_provoked_where_it_can_be() {
        let inside = ("daemon/src/proxy/tests/a.rs", "f(\"unknown_flow\"); f(\"no_rule\")");
        let outside = ("tests/netns/a.rs", "expect_denied(\"outbound\", \"no_rule\")");
        check(&[inside, outside], 0);
        check(&[inside], 1);
        check(&[outside], 1);
        check(&[inside, ("tests/netns/a.rs", "// no_rule")], 1);
        check(&[inside, ("tests/demo/a.rs", "\"no_rule\"")], 1);
    }

    #[test]
    fn an_excuse_that_nothing_needs_is_stale() {
        let both = ("tests/netns/a.rs", "\"no_rule\" \"unknown_flow\"");
        check(&[both], 1);
        let sources = [source(REASONS, "Self::A => \"no_rule\","), source(both.0, both.1)];
        assert_eq!(problems(&sources).len(), 1);
        assert_eq!(problems(&[]).len(), 2);
    }
}
