//! `cargo xtask attack`: the whole attack suite, races at full length, and the table of its results
//! in docs/attacks.md.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::{run, test};

/// Where the table is published.
const TABLE: &str = "docs/attacks.md";

/// Runs the tier at full length and writes the table if every row held.
pub(crate) fn run(only: Option<&str>) -> Result<()> {
    let results = run::target_dir().join("attack-results.tsv");
    if results.exists() {
        fs::remove_file(&results)?;
    }
    test::attack_at_length(only, &results)?;
    if only.is_some() {
        println!("not published: only a part was run");
        return Ok(());
    }
    let text = fs::read_to_string(&results).context("no row left a result")?;
    let rows = rows(&text)?;
    let path: PathBuf = run::root().join(TABLE);
    fs::create_dir_all(path.parent().unwrap_or(run::root()))?;
    fs::write(&path, page(&rows, &run::provenance()?))?;
    println!("published {} rows in {TABLE}", rows.len());
    Ok(())
}

/// A published row: who, trick, result, control, boundary.
type Row<'a> = [&'a str; 5];

fn rows(text: &str) -> Result<Vec<Row<'_>>> {
    let mut rows = Vec::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('\t').collect();
        let Ok(row) = Row::try_from(cells) else { bail!("not a row: {line}") };
        rows.push(row);
    }
    rows.sort_unstable();
    Ok(rows)
}

fn page(rows: &[Row<'_>], heading: &str) -> String {
    let (known, stopped): (Vec<&Row<'_>>, Vec<&Row<'_>>) =
        rows.iter().partition(|[_, _, _, _, words]| !words.is_empty());
    let stopped: Vec<String> = stopped
        .into_iter()
        .map(|[who, trick, result, control, _]| {
            format!("| {who} | {trick} | {result} | {control} |\n")
        })
        .collect();
    let known: Vec<String> = known
        .into_iter()
        .map(|[who, trick, result, _, words]| format!("| {who} | {trick} | {result} | {words} |\n"))
        .collect();
    format!(
        "# Attacks\n\nWritten by `cargo xtask attack`: {heading}. Do not edit.\n\n\
         Each row was tried against the daemon as shipped, and again in a control run without what \
         stops it, in which it must be seen to work. How: `tests/README.md`.\n\n\
         | Who | Trick | As shipped | Control run |\n|---|---|---|---|\n{}\n\
         ## Boundaries\nThese work, and SECURITY.md says so in these words.\n\n\
         | Who | Trick | As shipped | SECURITY.md |\n|---|---|---|---|\n{}",
        stopped.concat(),
        known.concat()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_a_table_of_what_was_seen() {
        let rows = rows("wire\tb\tstopped\tworked\t\nwire\ta\tworks\t\tsaid\n").unwrap();
        let page = page(&rows, "today");
        assert!(page.contains("| wire | b | stopped | worked |\n\n## Boundaries"));
        assert!(page.ends_with("| wire | a | works | said |\n"));
        assert!(super::rows("no row").is_err());
    }
}
