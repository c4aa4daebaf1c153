//! What `tacit explain` is asked about, as people write it: `4711`, a connection's id, or
//! `"source -> destination"`.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use thiserror::Error;

use crate::spiffe::{SpiffeId, parse_id};

/// What is to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExplainTarget {
    /// A process that runs.
    Process(u32),
    /// A connection, open or closed, by the node's id or the one that both ends share.
    Connection(String),
    /// A connection that need not exist.
    Flow {
        /// Who would open it.
        source: FlowSource,
        /// Where to.
        destination: SocketAddr,
    },
}

/// Who would open a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowSource {
    /// A process that runs on this node.
    Process(u32),
    /// Whoever has this identity.
    Identity(SpiffeId),
    /// Whoever uses this address.
    Address(SocketAddr),
}

/// Why a target cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TargetError {
    /// Nothing of the kind.
    #[error(
        "`{0}` is neither a pid, nor a connection's id, nor \"source -> destination\" \
         such as \"4711 -> 10.0.0.2:5432\""
    )]
    Unknown(String),
    /// The left-hand side.
    #[error("`{0}` is no source: write a pid, a SPIFFE ID or address:port")]
    Source(String),
    /// The right-hand side.
    #[error("`{0}` is no destination: write address:port, with an IPv6 address in brackets")]
    Destination(String),
}

impl FromStr for ExplainTarget {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if let Some((source, destination)) = text.split_once("->") {
            let destination = destination.trim();
            let destination = destination
                .parse()
                .map_err(|_malformed| TargetError::Destination(destination.to_owned()))?;
            return Ok(Self::Flow { source: source.trim().parse()?, destination });
        }
        if let Ok(pid) = text.parse() {
            return Ok(Self::Process(pid));
        }
        // Ids of connections are hex, with a dash in those of one node.
        let id = |c: char| c.is_ascii_hexdigit() || c == '-';
        if !text.is_empty() && text.len() <= 128 && text.chars().all(id) {
            return Ok(Self::Connection(text.to_owned()));
        }
        Err(TargetError::Unknown(text.to_owned()))
    }
}

impl FromStr for FlowSource {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pid = text.strip_prefix("pid ").unwrap_or(text).trim();
        if let Ok(pid) = pid.parse() {
            return Ok(Self::Process(pid));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        parse_id(text)
            .map(Self::Identity)
            .map_err(|_malformed| TargetError::Source(text.to_owned()))
    }
}

impl fmt::Display for ExplainTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(pid) => write!(f, "{pid}"),
            Self::Connection(id) => f.write_str(id),
            Self::Flow { source, destination } => write!(f, "{source} -> {destination}"),
        }
    }
}

impl fmt::Display for FlowSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(pid) => write!(f, "{pid}"),
            Self::Identity(id) => write!(f, "{id}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write_and_writes_it_alike() {
        for text in [
            "4711",
            "19abc-42",
            "00ff00ff",
            "4711 -> 10.0.0.2:5432",
            "spiffe://example.org/a -> [::1]:80",
            "10.0.0.1:4000 -> 10.0.0.2:5432",
        ] {
            let target: ExplainTarget = text.parse().unwrap();
            assert_eq!(target.to_string(), text);
        }
        assert_eq!(
            "pid 7->1.2.3.4:5".parse::<ExplainTarget>().unwrap().to_string(),
            "7 -> 1.2.3.4:5"
        );
    }

    #[test]
    fn says_what_it_cannot_read() {
        for (text, error) in [
            ("", TargetError::Unknown(String::new())),
            ("redis", TargetError::Unknown("redis".to_owned())),
            ("x -> 1.2.3.4:5", TargetError::Source("x".to_owned())),
            ("1 -> 1.2.3.4", TargetError::Destination("1.2.3.4".to_owned())),
        ] {
            assert_eq!(text.parse::<ExplainTarget>(), Err(error));
        }
    }
}
