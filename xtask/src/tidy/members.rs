//! Every member of the workspace takes part in its lints: a rule that is not wired in does nothing.

/// Members whose manifest does not say `[lints] workspace = true`.
pub(super) fn problems(
    workspace_manifest: &str,
    manifest_of: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    members(workspace_manifest)
        .filter_map(|member| match manifest_of(member) {
            None => Some(format!("Cargo.toml: member `{member}` has no manifest")),
            Some(text) if !inherits_lints(&text) => {
                Some(format!("{member}/Cargo.toml: no `[lints] workspace = true`"))
            }
            Some(_) => None,
        })
        .collect()
}

/// The members that a workspace's manifest names.
pub(crate) fn members(manifest: &str) -> impl Iterator<Item = &str> {
    let list = manifest
        .lines()
        .find_map(|line| line.strip_prefix("members = ["))
        .and_then(|rest| rest.split(']').next())
        .unwrap_or_default();
    list.split(',').map(|name| name.trim().trim_matches('"')).filter(|name| !name.is_empty())
}

fn inherits_lints(manifest: &str) -> bool {
    manifest
        .lines()
        .skip_while(|line| line.trim() != "[lints]")
        .nth(1)
        .is_some_and(|line| line.trim() == "workspace = true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_inherit_the_lints() {
        let workspace = "[workspace]\nmembers = [\"a\", \"b\"]\ndefault-members = [\"a\"]\n";
        let check = |text: Option<&str>, count: usize| {
            let found = problems(workspace, |_| text.map(str::to_owned));
            assert_eq!(found.len(), count, "{found:?}");
        };
        check(Some("[package]\n\n[lints]\nworkspace = true\n"), 0);
        check(Some("[package]\n"), 2);
        check(Some("[lints]\n"), 2);
        check(None, 2);
    }
}
