//! Values with a unit: durations ("30s", "1h 30m"), sizes ("64KiB"), and lists of ports.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// A duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::config) struct Interval(pub(in crate::config) Duration);

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::config) struct Size(pub(in crate::config) u64);

/// Ports and ranges as written; empty for `"all"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) struct Ports(pub(in crate::config) Vec<String>);

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer).map_err(|_error| {
            D::Error::custom("a duration is text with a unit, such as \"30s\" or \"1h 30m\"")
        })?;
        if text.trim() == "0" {
            return Ok(Self(Duration::ZERO));
        }
        humantime::parse_duration(&text).map(Self).map_err(|error| {
            D::Error::custom(format!("not a duration such as \"30s\" or \"1h 30m\" ({error})"))
        })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)
            .map_err(|_error| D::Error::custom("a size is text with a unit, such as \"64KiB\""))?;
        parse_size(&text).map(Self).ok_or_else(|| {
            D::Error::custom("not a size: a whole number and B, KiB, MiB or GiB, such as \"64KiB\"")
        })
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(digits)?;
    let shift = match unit.trim() {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let items = match toml::Value::deserialize(deserializer)? {
            toml::Value::String(all) if all == "all" => return Ok(Self(Vec::new())),
            toml::Value::Array(items) if items.is_empty() => {
                return Err(D::Error::custom("an empty list could mean none or all"));
            }
            toml::Value::Array(items) => items,
            one => vec![one],
        };
        let item = |item| match item {
            toml::Value::Integer(port) => Ok(port.to_string()),
            toml::Value::String(range) => Ok(range),
            other => Err(D::Error::custom(format!("{other} is neither a port nor a range"))),
        };
        items.into_iter().map(item).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes() {
        for (text, bytes) in [("0B", 0), ("64KiB", 65_536), ("2 MiB", 2 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for bad in ["", "64", "KiB", "-1B", "1.5MiB", "64kb", "99999999999GiB", "1é"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}
