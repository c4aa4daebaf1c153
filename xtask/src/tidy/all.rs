//! Runs every rule over the repository and prints all that is wrong at once.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::tidy::source::Source;
use crate::tidy::{code_map, denials, edges, form, homes, members, unsafety};
use crate::{run, switched};

/// Fails with the number of problems, having printed each.
pub(crate) fn run() -> Result<()> {
    let root = run::root();
    let architecture =
        fs::read_to_string(root.join("ARCHITECTURE.md")).context("cannot read ARCHITECTURE.md")?;
    let daemon_manifest = fs::read_to_string(root.join("daemon/Cargo.toml"))?;
    let workspace_manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let sources = Source::all(root)?;

    let mut problems = Vec::new();
    for source in &sources {
        problems.extend(form::problems(source));
    }
    problems.extend(form::crowded_folders(&sources));
    problems.extend(edges::problems(&architecture, &sources));
    problems.extend(homes::problems(&architecture, &daemon_manifest, &sources));
    problems.extend(unsafety::problems(&architecture, &sources));
    problems.extend(denials::problems(&sources));
    problems.extend(code_map::problems(&architecture, &sources, |path| root.join(path).exists()));
    problems.extend(members::problems(&workspace_manifest, |member| {
        fs::read_to_string(root.join(member).join("Cargo.toml")).ok()
    }));

    problems.extend(switched::problems());

    for source in sources.iter().filter(|source| form::oversize_reason(source).is_some()) {
        let reason = form::oversize_reason(source).unwrap_or_default();
        println!("note: {} is larger than the budget: {reason}", source.path);
    }
    if problems.is_empty() {
        println!("tidy: {} files, nothing to say", sources.len());
        return Ok(());
    }
    for problem in &problems {
        println!("{problem}");
    }
    bail!("{} problems", problems.len())
}
