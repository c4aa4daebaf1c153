//! A set of TCP ports as rules and scopes write it: `"all"`, `443`, `"8000-8100"`.

use std::ops::RangeInclusive;

use thiserror::Error;

/// A set of ports; the empty list of ranges means every port.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortSet(Vec<RangeInclusive<u16>>);

/// Why a port or range cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PortSetError {
    /// Not a number from 1 to 65535, nor a range of them.
    #[error("`{0}` is neither a port (1-65535) nor a range such as \"8000-8100\"")]
    Malformed(String),
    /// First port above the last.
    #[error("range `{0}` starts after its end")]
    Reversed(String),
}

impl PortSet {
    /// Every port.
    pub const fn all() -> Self {
        Self(Vec::new())
    }

    /// Reads a list of ports and ranges; an empty list is every port.
    pub fn parse<S: AsRef<str>>(items: &[S]) -> Result<Self, PortSetError> {
        items.iter().map(|item| parse_range(item.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether the set holds every port.
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the set holds this port.
    pub fn contains(&self, port: u16) -> bool {
        self.is_all() || self.0.iter().any(|range| range.contains(&port))
    }

    /// The ranges; empty means every port.
    pub fn ranges(&self) -> &[RangeInclusive<u16>] {
        &self.0
    }
}

fn parse_range(item: &str) -> Result<RangeInclusive<u16>, PortSetError> {
    let malformed = || PortSetError::Malformed(item.to_owned());
    let port = |text: &str| match text.trim().parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(malformed()),
    };
    let Some((first, last)) = item.split_once('-') else {
        let port = port(item)?;
        return Ok(port..=port);
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(PortSetError::Reversed(item.to_owned()));
    }
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ports_and_ranges() {
        let set = PortSet::parse(&["443", "8000-8100"]).unwrap();
        for (port, inside) in [(443, true), (444, false), (8000, true), (8100, true), (8101, false)]
        {
            assert_eq!(set.contains(port), inside, "{port}");
        }
        assert!(PortSet::parse::<&str>(&[]).unwrap().contains(1));
    }

    #[test]
    fn refuses_what_is_no_port() {
        for bad in ["", "0", "65536", "1-", "-1", "a", "1-2-3"] {
            assert_eq!(
                PortSet::parse(&[bad]),
                Err(PortSetError::Malformed(bad.to_owned())),
                "{bad}"
            );
        }
        assert_eq!(PortSet::parse(&["9-8"]), Err(PortSetError::Reversed("9-8".to_owned())));
    }
}
