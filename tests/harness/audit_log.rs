//! A node's audit log as a test reads it: records by direction and outcome.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::wait::{DEADLINE, soon};

/// One record.
#[derive(Debug, Clone)]
pub struct Record(Value);

impl Record {
    /// A field by its path, such as `local.spiffe_id`; empty where it is absent or null.
    pub fn field(&self, path: &str) -> String {
        let mut value = &self.0;
        for name in path.split('.') {
            match value.get(name) {
                Some(inner) => value = inner,
                None => return String::new(),
            }
        }
        match value {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        }
    }

    /// A number by its path; 0 where it is absent.
    pub fn number(&self, path: &str) -> u64 {
        self.field(path).parse().unwrap_or(0)
    }

    /// Whether it closes a connection: exactly one does.
    pub fn is_closing(&self) -> bool {
        self.field("event") == "close"
    }

    /// The record as it stands in the log.
    pub fn json(&self) -> String {
        self.0.to_string()
    }
}

/// A node's audit log.
#[derive(Debug, Clone)]
pub struct AuditLog {
    path: PathBuf,
}

impl AuditLog {
    /// The log in this file.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All complete records.
    pub fn records(&self) -> Vec<Record> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).map(Record).collect()
    }

    /// The closing records of a direction, `outbound` or `inbound`.
    pub fn closed(&self, direction: &str) -> Vec<Record> {
        let mut records = self.records();
        records.retain(|record| record.is_closing() && record.field("direction") == direction);
        records
    }

    /// Waits for a closing record of this direction that fits.
    ///
    /// # Errors
    /// When none comes; the error shows what did come.
    pub fn expect(&self, direction: &str, fits: impl Fn(&Record) -> bool) -> Result<Record> {
        let look = || self.closed(direction).into_iter().find(|record| fits(record));
        match soon(DEADLINE, "a record", look) {
            Ok(record) => Ok(record),
            Err(_) => bail!("no fitting {direction} record; the log holds:\n{}", self.shown()),
        }
    }

    /// Waits for a refusal with this reason.
    ///
    /// # Errors
    /// When none comes.
    pub fn expect_denied(&self, direction: &str, reason: &str) -> Result<Record> {
        self.expect(direction, |record| {
            record.field("outcome") == "denied" && record.field("reason") == reason
        })
    }

    /// Waits for a completed connection.
    ///
    /// # Errors
    /// When none comes.
    pub fn expect_completed(&self, direction: &str) -> Result<Record> {
        self.expect(direction, |record| record.field("outcome") == "completed")
    }

    /// The last records, for a failure report.
    pub fn shown(&self) -> String {
        let records = self.records();
        let skip = records.len().saturating_sub(12);
        records.iter().skip(skip).map(Record::json).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_by_path() {
        let record = Record(serde_json::json!({
            "event": "close", "local": {"spiffe_id": "spiffe://a/b"}, "bytes_sent": 7, "x": null
        }));
        assert_eq!(record.field("local.spiffe_id"), "spiffe://a/b");
        assert_eq!(record.number("bytes_sent"), 7);
        assert_eq!(record.field("x"), "");
        assert_eq!(record.field("local.nothing.there"), "");
        assert!(record.is_closing());
    }
}
