//! Writes what was found on each kernel into `docs/kernels.md`. What was not run this time stays as
//! it was, under its own date and commit.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};

use crate::run;
use crate::test::{Count, IN_GUESTS, Tier};

use super::release;

/// The document.
const FILE: &str = "docs/kernels.md";
/// The table stands between these two.
const BEGIN: &str = "<!-- written by `cargo xtask test --vm`: begin -->\n";
const END: &str = "<!-- written by `cargo xtask test --vm`: end -->\n";
/// The column of what `tacit doctor` says.
const REFUSED: &str = "programs refused";

/// What a tier came to on a kernel.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) count: Count,
    /// Names of tests that failed, or why the guest did.
    pub(super) failures: Vec<String>,
    /// What the kernel has no feature for.
    pub(super) not_run: Vec<String>,
    /// Programs that the kernel does not take; nothing if the guest did not say.
    pub(super) refused: Option<Vec<String>>,
}

/// Rows by series, cells by column.
type Table = BTreeMap<String, BTreeMap<String, String>>;

/// Enters outcomes of a kernel, each under the tier that it is of.
pub(super) fn publish(kernel: &str, outcomes: &[(Tier, Outcome)]) -> Result<()> {
    let path = run::root().join(FILE);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {FILE}"))?;
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("no table in {FILE}"))?;
    let (old, after) = rest.split_once(END).with_context(|| format!("no table in {FILE}"))?;
    let mut table = parse(old);
    let row = table.entry(series(kernel)).or_default();
    row.insert("release".to_owned(), kernel.to_owned());
    let when = format!("{}, {}", date()?, commit()?);
    for (tier, outcome) in outcomes {
        row.insert(tier.name().to_owned(), format!("{} ({when})", outcome.shown()));
        if let Some(refused) = &outcome.refused {
            let refused = if refused.is_empty() { "none".to_owned() } else { refused.join(", ") };
            row.insert(REFUSED.to_owned(), refused);
        }
    }
    fs::write(path, format!("{before}{BEGIN}{}{END}{after}", shown(&table)))?;
    println!("published in {FILE}");
    Ok(())
}

impl Outcome {
    fn shown(&self) -> String {
        let Count { passed, failed } = self.count;
        let mut text = format!("{passed} passed, {failed} failed");
        for (label, names) in [("", &self.failures), ("not run: ", &self.not_run)] {
            if !names.is_empty() {
                // Writing to a String cannot fail.
                let _written = write!(text, "; {label}{}", names.join(", ")).is_ok();
            }
        }
        // A cell of the table.
        text.replace(['|', '\n'], " ")
    }
}

fn columns() -> Vec<&'static str> {
    let tiers = IN_GUESTS.iter().map(|tier| tier.name());
    ["series", "release"].into_iter().chain(tiers).chain([REFUSED]).collect()
}

fn parse(text: &str) -> Table {
    let mut lines = text.lines().filter_map(cells);
    let Some(header) = lines.next() else { return Table::new() };
    let named = |row: Vec<String>| {
        let key = row.first()?.clone();
        let cells = header.iter().cloned().zip(row).skip(1).collect();
        (!key.starts_with('-')).then_some((key, cells))
    };
    lines.filter_map(named).collect()
}

fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    Some(inner.split('|').map(|cell| cell.trim().to_owned()).collect())
}

fn shown(table: &Table) -> String {
    let columns = columns();
    let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(columns.clone());
    text.push_str(&line(columns.iter().map(|_| "---").collect()));
    let mut rows: Vec<_> = table.iter().collect();
    rows.sort_by(|(a, _), (b, _)| release::by_number(a, b));
    for (series, row) in rows {
        let rest =
            columns.iter().skip(1).map(|name| row.get(*name).map_or("not run", String::as_str));
        text.push_str(&line([series.as_str()].into_iter().chain(rest).collect()));
    }
    text
}

/// `6.12.118+deb13-cloud-amd64` -> `6.12`.
fn series(release: &str) -> String {
    let mut parts = release.split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("{major}.{minor}")
}

fn date() -> Result<String> {
    Ok(run::output(&mut run::command("date", &["-u", "+%F"]))?.trim().to_owned())
}

/// The commit that was tested; a `+` for changes that are in none.
fn commit() -> Result<String> {
    let arguments = ["describe", "--always", "--dirty=+", "--exclude=*"];
    Ok(run::output(&mut run::command("git", &arguments))?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let mut table = Table::new();
        for (series, release) in [("6.12", "6.12.9"), ("6.1", "6.1.0-9"), ("5.10", "5.10.0-1")] {
            let row = table.entry(series.to_owned()).or_default();
            row.insert("release".to_owned(), release.to_owned());
            row.insert("kernel".to_owned(), "13 passed, 0 failed (2026-01-01, abc)".to_owned());
        }
        let text = shown(&table);
        let keys: Vec<_> = text.lines().skip(2).filter_map(|line| line.split(' ').nth(1)).collect();
        assert_eq!(keys, ["5.10", "6.1", "6.12"]);
        assert_eq!(shown(&parse(&text)), text);
    }

    #[test]
    fn an_outcome_in_a_cell() {
        let outcome = Outcome {
            count: Count { passed: 2, failed: 1 },
            failures: vec!["payload::a".to_owned()],
            not_run: vec!["sctp".to_owned()],
            refused: None,
        };
        assert_eq!(outcome.shown(), "2 passed, 1 failed; payload::a; not run: sctp");
        assert_eq!(series("7.3.4+deb13-cloud-amd64"), "7.3");
    }
}
