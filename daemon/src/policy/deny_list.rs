//! Whom nobody here talks to, whatever rules and entries say: SPIFFE IDs, and certificates by their
//! serial numbers. A list is a value; who keeps it is elsewhere.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use super::{Denial, DenyReason};
use crate::spiffe::{IdError, PeerIdentity, SpiffeId, parse_id};

/// Longest serial number, hex digits. RFC 5280 §4.1.2.2 allows 20 octets; some have a sign octet more.
const LONGEST_SERIAL: usize = 42;
/// Longest reason, bytes. Chosen: a line.
const LONGEST_REASON: usize = 256;

/// What is denied.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Denied {
    /// Whoever has this identity, here or elsewhere.
    Id(SpiffeId),
    /// Whoever shows the certificate with this serial number: lower-case hex without zeros in front.
    /// Of another issuer another certificate may have it, too, which is then denied as well.
    Serial(String),
}

/// One entry of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DenyItem {
    /// Who.
    pub denied: Denied,
    /// Why, in an operator's words; may be empty.
    pub reason: String,
    /// Where that stands.
    pub origin: String,
}

/// What cannot stand in a list.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum DenyError {
    /// No SPIFFE ID.
    #[error("is no SPIFFE ID: {0}")]
    Id(IdError),
    /// The ID of a whole trust domain.
    #[error("names no workload; to deny a trust domain, delete its bundle (tacit bundle delete)")]
    NoPath,
    /// No serial number.
    #[error("is no serial number; write it in hex, as openssl and the audit log do")]
    Serial,
    /// No line of text.
    #[error("is no reason; write up to {LONGEST_REASON} bytes without control characters")]
    Reason,
}

/// A snapshot of who is denied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DenyList {
    ids: BTreeMap<SpiffeId, DenyItem>,
    serials: BTreeMap<String, DenyItem>,
}

impl Denied {
    /// Reads a SPIFFE ID.
    ///
    /// # Errors
    /// It is none, or none of a workload.
    pub fn id(text: &str) -> Result<Self, DenyError> {
        let id = parse_id(text).map_err(DenyError::Id)?;
        if id.path().is_empty() { Err(DenyError::NoPath) } else { Ok(Self::Id(id)) }
    }

    /// Reads a serial number: hex of either case, with or without colons and zeros in front.
    ///
    /// # Errors
    /// It is none.
    pub fn serial(text: &str) -> Result<Self, DenyError> {
        let plain: String = text.chars().filter(|char| *char != ':').collect();
        let is_hex = plain.bytes().all(|byte| byte.is_ascii_hexdigit());
        let plain = plain.to_ascii_lowercase();
        let short = without_zeros(&plain);
        if is_hex && !short.is_empty() && plain.len() <= LONGEST_SERIAL {
            Ok(Self::Serial(short.to_owned()))
        } else {
            Err(DenyError::Serial)
        }
    }
}

/// openssl prints a number, certificates have octets of which the first may be zero.
fn without_zeros(serial: &str) -> &str {
    serial.trim_start_matches('0')
}

impl DenyItem {
    /// An item, its reason checked.
    ///
    /// # Errors
    /// The reason is no line of text.
    pub fn new(denied: Denied, reason: &str, origin: &str) -> Result<Self, DenyError> {
        if reason.len() > LONGEST_REASON || reason.chars().any(char::is_control) {
            return Err(DenyError::Reason);
        }
        Ok(Self { denied, reason: reason.to_owned(), origin: origin.to_owned() })
    }

    pub(super) fn denial(&self, epoch: u64) -> Denial {
        Denial::new(DenyReason::DenyListed, None, epoch).because(self.to_string().into())
    }
}

impl DenyList {
    /// Why this identity is denied, if it is.
    pub fn id(&self, id: &SpiffeId) -> Option<&DenyItem> {
        self.ids.get(id)
    }

    /// Why the certificate with this serial number, lower-case hex, is denied, if it is.
    pub fn serial(&self, serial: &str) -> Option<&DenyItem> {
        // Zeros in front cost nothing to compare away.
        self.serials.get(without_zeros(serial))
    }

    /// Why this peer is denied, by its identity or by the certificate that it has shown, if it is.
    pub fn peer(&self, peer: &PeerIdentity) -> Option<&DenyItem> {
        self.id(peer.id()).or_else(|| self.serial(peer.serial()))
    }

    /// Every item, identities first.
    pub fn items(&self) -> impl Iterator<Item = &DenyItem> {
        self.ids.values().chain(self.serials.values())
    }
}

impl FromIterator<DenyItem> for DenyList {
    /// Of several about the same, the first counts.
    fn from_iter<I: IntoIterator<Item = DenyItem>>(items: I) -> Self {
        let mut list = Self::default();
        for item in items {
            match item.denied.clone() {
                Denied::Id(id) => drop(list.ids.entry(id).or_insert(item)),
                Denied::Serial(serial) => drop(list.serials.entry(serial).or_insert(item)),
            }
        }
        list
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Serial(serial) => write!(f, "serial number {serial}"),
        }
    }
}

impl fmt::Display for DenyItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { denied, reason, origin } = self;
        let colon = if reason.is_empty() { "" } else { ": " };
        write!(f, "{denied} is on the deny list ({origin}){colon}{reason}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(denied: Denied, origin: &str) -> DenyItem {
        DenyItem::new(denied, "stolen", origin).unwrap()
    }

    #[test]
    fn serial_numbers_are_compared_as_numbers() {
        let list: DenyList = [item(Denied::serial("00:AB:0c").unwrap(), "x")].into_iter().collect();
        for same in ["ab0c", "00ab0c", "0ab0c"] {
            assert!(list.serial(same).is_some(), "{same}");
        }
        for other in ["ab0", "ab0c00", "", "0"] {
            assert!(list.serial(other).is_none(), "{other}");
        }
        for bad in ["", "0", "00:00", "xyz", "ab 0c", "0xab", &"1".repeat(43)] {
            assert_eq!(Denied::serial(bad), Err(DenyError::Serial), "{bad}");
        }
    }

    #[test]
    fn only_the_very_identity_is_denied() {
        let list: DenyList = [
            item(Denied::id("spiffe://td/a").unwrap(), "first"),
            item(Denied::id("spiffe://td/a").unwrap(), "second"),
        ]
        .into_iter()
        .collect();
        let denied = |id: &str| list.id(&parse_id(id).unwrap());
        assert_eq!(denied("spiffe://td/a").unwrap().origin, "first");
        assert_eq!(
            denied("spiffe://td/a").unwrap().to_string(),
            "spiffe://td/a is on the deny list (first): stolen"
        );
        assert!(denied("spiffe://td/a/b").is_none() && denied("spiffe://td2/a").is_none());
        assert_eq!(Denied::id("spiffe://td"), Err(DenyError::NoPath));
        assert!(matches!(Denied::id("spiffe://td/*"), Err(DenyError::Id(_))));
        let peer = PeerIdentity::unproved("spiffe://td/b");
        assert!(list.peer(&peer).is_none());
        let list: DenyList = [item(Denied::serial("1").unwrap(), "x")].into_iter().collect();
        assert!(list.peer(&peer).is_some(), "by its certificate");
        let long = "x".repeat(LONGEST_REASON + 1);
        for bad in ["a\nb", &long] {
            let item = DenyItem::new(Denied::serial("1").unwrap(), bad, "x");
            assert_eq!(item, Err(DenyError::Reason));
        }
    }
}
