//! What was demanded, by which section, and what came of it.

use std::fmt::Write as _;
use std::path::Path;

/// How a case went.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Pass,
    Fail(String),
    NotRun(String),
}

#[derive(Debug, Clone)]
struct Row {
    section: String,
    demand: String,
    outcome: Outcome,
}

/// The results.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    /// Notes a case: `Err` says what was seen instead.
    pub(crate) fn note(&mut self, section: &str, demand: &str, outcome: Result<(), String>) {
        let outcome = outcome.map_or_else(Outcome::Fail, |()| Outcome::Pass);
        self.push(section, demand, outcome);
    }

    /// Notes a case by whether it holds.
    pub(crate) fn holds(&mut self, section: &str, demand: &str, holds: bool) {
        self.note(section, demand, if holds { Ok(()) } else { Err("does not hold".to_owned()) });
    }

    /// Notes a case that nobody could judge.
    pub(crate) fn not_run(&mut self, section: &str, demand: &str, why: &str) {
        self.push(section, demand, Outcome::NotRun(why.to_owned()));
    }

    fn push(&mut self, section: &str, demand: &str, outcome: Outcome) {
        let (section, demand) = (section.to_owned(), demand.to_owned());
        self.0.push(Row { section, demand, outcome });
    }

    /// How many cases failed.
    pub(crate) fn failures(&self) -> usize {
        self.0.iter().filter(|row| matches!(row.outcome, Outcome::Fail(_))).count()
    }

    /// One line for each case, for another process to read.
    pub(crate) fn lines(&self) -> String {
        let line = |row: &Row| match &row.outcome {
            Outcome::Pass => format!("pass\t{}\t{}\t", row.section, row.demand),
            Outcome::Fail(seen) => format!("fail\t{}\t{}\t{seen}", row.section, row.demand),
            Outcome::NotRun(why) => format!("not run\t{}\t{}\t{why}", row.section, row.demand),
        };
        self.0.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Takes over what another process noted.
    pub(crate) fn read(&mut self, lines: &str) {
        for line in lines.lines() {
            let mut fields = line.splitn(4, '\t');
            let mut field = || fields.next().unwrap_or_default();
            let (how, section, demand, said) = (field(), field(), field(), field().to_owned());
            match how {
                "pass" => self.push(section, demand, Outcome::Pass),
                "fail" => self.push(section, demand, Outcome::Fail(said)),
                "not run" => self.push(section, demand, Outcome::NotRun(said)),
                _ => {}
            }
        }
    }

    /// As Markdown, with a summary.
    pub(crate) fn shown(&self, socket: &Path) -> String {
        let mut text = format!("SPIFFE Workload API at {}\n\n", socket.display());
        text.push_str("| Section | Demand | Result |\n|---|---|---|\n");
        let (mut passed, mut failed, mut not_run) = (0, 0, 0);
        for Row { section, demand, outcome } in &self.0 {
            let result = match outcome {
                Outcome::Pass => {
                    passed += 1;
                    "pass".to_owned()
                }
                Outcome::Fail(seen) => {
                    failed += 1;
                    format!("FAIL: {seen}")
                }
                Outcome::NotRun(why) => {
                    not_run += 1;
                    format!("not run: {why}")
                }
            };
            // Writing to a String cannot fail.
            let _written = writeln!(text, "| {section} | {demand} | {result} |").is_ok();
        }
        let _written = write!(text, "\n{passed} pass, {failed} fail, {not_run} not run").is_ok();
        text
    }
}
