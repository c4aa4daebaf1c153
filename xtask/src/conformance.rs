//! `cargo xtask conformance`: what the standards demand of a Workload API, asked of the daemon, and the
//! table of its answers in docs/conformance.md.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::{run, test};

/// Where the table is published.
const TABLE: &str = "docs/conformance.md";

/// Asks everything, and writes the table if nothing failed.
pub(crate) fn run() -> Result<()> {
    let results = run::target_dir().join("conformance.md");
    if results.exists() {
        fs::remove_file(&results)?;
    }
    test::conformance(&results)?;
    let table = fs::read_to_string(&results).context("the suite left no table")?;
    fs::write(run::root().join(TABLE), page(&table, &run::provenance()?)?)?;
    println!("published {TABLE}");
    Ok(())
}

/// The table of the suite under a heading, without the socket of the test.
fn page(table: &str, provenance: &str) -> Result<String> {
    let Some(start) = table.find("| Section") else { bail!("not a table: {table}") };
    let rows = table.get(start..).unwrap_or_default().trim_end();
    Ok(format!(
        "# Conformance\n\nWritten by `cargo xtask conformance`: {provenance}. Do not edit.\n\n\
         What the SPIFFE standards demand of a Workload API, asked of the daemon by \
         `tests/conformance/`, which can be pointed at any other: `conformance --socket PATH`.\n\n{rows}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_stands_under_a_heading() {
        let said =
            page("SPIFFE Workload API at /tmp/x\n\n| Section | a |\n\n1 pass", "today").unwrap();
        assert!(said.contains("today") && said.ends_with("| Section | a |\n\n1 pass\n"));
        assert!(!said.contains("/tmp/x") && page("nothing", "today").is_err());
    }
}
