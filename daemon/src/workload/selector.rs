//! Selectors, written as SPIRE writes them: `type:value`, for example `unix:uid:1000`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// One fact about a workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector {
    kind: String,
    value: String,
}

/// All the facts about a workload, sorted.
pub type Selectors = BTreeSet<Selector>;

/// Why a selector cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SelectorError {
    /// No colon, or nothing on one side of it.
    #[error("selector `{0}` is not of the form type:value, such as unix:uid:1000")]
    Malformed(String),
}

impl Selector {
    /// A selector of this type and value: `Selector::new("unix", "uid:1000")`.
    pub fn new(kind: &str, value: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), value: value.into() }
    }

    /// The type, such as `unix`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// All behind the first colon, such as `uid:1000`.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some((kind, value)) if !kind.is_empty() && !value.is_empty() => {
                Ok(Self::new(kind, value))
            }
            _ => Err(SelectorError::Malformed(text.to_owned())),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_at_the_first_colon() {
        let selector: Selector = "unix:path:/usr/bin/a:b".parse().unwrap();
        assert_eq!((selector.kind(), selector.value()), ("unix", "path:/usr/bin/a:b"));
        assert_eq!(selector.to_string(), "unix:path:/usr/bin/a:b");
    }

    #[test]
    fn refuses_what_has_no_type_or_value() {
        for bad in ["", "unix", "unix:", ":uid"] {
            assert!(bad.parse::<Selector>().is_err(), "{bad}");
        }
    }
}
