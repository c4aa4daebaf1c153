//! What anybody can provoke without end is not recorded without end: of one cause, by one user or
//! one peer, so many records in so much time, and then one that says how many more. Else whoever
//! likes could push everybody's records out of the log.
//!
//! Summed up are refusals, connections that were broken off before they were admitted, and
//! connections that are only observed. Never what was admitted, nor what both ends have proved an
//! identity for.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::record::Record;
use super::{Direction, Outcome, Protection};

/// How long records are counted together. Chosen.
const WINDOW: Duration = Duration::from_secs(10);
/// Records of one cause by one user or peer in that time. Chosen: 10 in a second.
const TOLD_EACH: u32 = 100;
/// How many causes, users and peers are told apart; beyond it, they are counted as one. Chosen.
const TOLD_APART: usize = 4096;

/// Who causes records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Causer {
    /// A local user.
    User(u32),
    /// Whoever has this address; of IPv6, this network of 64 bits.
    Peer(IpAddr),
    /// Nobody can say, or there are too many to tell apart.
    Anybody,
}

/// What is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    kind: Kind,
    reason: &'static str,
    causer: Causer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Denied,
    BrokenOff,
    Observed,
}

/// The windows that are open.
#[derive(Debug, Default)]
pub(super) struct Sums(Mutex<HashMap<Key, Window>>);

#[derive(Debug)]
struct Window {
    since: Instant,
    told: u32,
    more: u64,
}

impl Causer {
    /// Whoever has this address.
    pub fn peer(address: IpAddr) -> Self {
        Self::Peer(match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) & !u128::from(u64::MAX);
                IpAddr::V6(Ipv6Addr::from(network))
            }
            address @ IpAddr::V4(_) => address,
        })
    }

    /// A local user for what local programs begin, a peer for what comes from outside.
    pub fn of(direction: Direction, uid: Option<u32>, peer: Option<SocketAddr>) -> Self {
        match (direction, uid, peer) {
            (Direction::Outbound, Some(uid), _) => Self::User(uid),
            (_, _, Some(peer)) => Self::peer(peer.ip()),
            (_, _, None) => Self::Anybody,
        }
    }
}

impl Key {
    /// Refusals for this reason.
    pub(super) fn denied(reason: &'static str, causer: Causer) -> Self {
        Self { kind: Kind::Denied, reason, causer }
    }

    /// Observed connections.
    pub(super) fn observed(causer: Causer) -> Self {
        Self { kind: Kind::Observed, reason: "", causer }
    }

    /// What a closing record is counted with; none if it is never summed up.
    pub(super) fn of(record: &Record, direction: Direction, outcome: Outcome) -> Option<Self> {
        let id = |end: &Option<super::Endpoint>| end.as_ref()?.spiffe_id.clone();
        if id(&record.local).is_some() && id(&record.peer).is_some() {
            return None;
        }
        let address = record.peer.as_ref().and_then(|peer| peer.address.as_ref()?.parse().ok());
        let uid = record.process.as_ref().map(|process| process.uid);
        let causer = Causer::of(direction, uid, address);
        let is_admitted = record.policy_epoch.is_some();
        match (outcome, direction) {
            (Outcome::Denied(reason), _) => Some(Self::denied(reason.as_str(), causer)),
            _ if record.protection.as_deref() == Some(Protection::Untouched.as_str()) => {
                Some(Self::observed(causer))
            }
            (Outcome::PeerFailed(failure), Direction::Inbound) if !is_admitted => {
                Some(Self { kind: Kind::BrokenOff, reason: failure.as_str(), causer })
            }
            _ => None,
        }
    }
}

impl Sums {
    /// Whether there is room for one more record, which is counted.
    pub(super) fn admit(&self, key: Key, now: Instant) -> bool {
        self.counted(key, now, |window| {
            let has_room = window.told < TOLD_EACH;
            window.told = window.told.saturating_add(1);
            window.more += u64::from(!has_room);
            has_room
        })
    }

    /// Whether a record would find no room; then it is counted as one that is not made.
    pub(super) fn is_full(&self, key: Key, now: Instant) -> bool {
        self.counted(key, now, |window| {
            let is_full = window.told >= TOLD_EACH;
            window.more += u64::from(is_full);
            is_full
        })
    }

    /// Whether a record would find no room. Nothing is counted.
    pub(super) fn would_be_full(&self, key: Key) -> bool {
        self.lock().get(&key).is_some_and(|window| window.told >= TOLD_EACH)
    }

    fn counted(&self, key: Key, now: Instant, count: impl FnOnce(&mut Window) -> bool) -> bool {
        let mut windows = self.lock();
        let key = if windows.len() < TOLD_APART || windows.contains_key(&key) {
            key
        } else {
            Key { causer: Causer::Anybody, ..key }
        };
        count(windows.entry(key).or_insert(Window { since: now, told: 0, more: 0 }))
    }

    /// Records of how many more there were, of windows that are over; of all at the end.
    pub(super) fn over(&self, now: Instant, all: bool) -> Vec<Record> {
        let mut records = Vec::new();
        self.lock().retain(|key, window| {
            let is_over = all || now.duration_since(window.since) >= WINDOW;
            if is_over && window.more > 0 {
                records.push(key.summed_up(window.more));
            }
            !is_over
        });
        records
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Window>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Key {
    fn summed_up(&self, more: u64) -> Record {
        let (reason, what) = match self.kind {
            Kind::Denied => ("denials_summed_up", format!("denied as {}", self.reason)),
            Kind::BrokenOff => ("failures_summed_up", format!("not admitted, as {}", self.reason)),
            Kind::Observed => ("observed_summed_up", "observed".to_owned()),
        };
        let detail = format!("{more} more connections by {}, {what} in {WINDOW:?}", self.causer);
        Record::daemon(reason, Some(detail))
    }
}

impl fmt::Display for Causer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(uid) => write!(f, "user {uid}"),
            Self::Peer(IpAddr::V6(network)) => write!(f, "peers in {network}/64"),
            Self::Peer(address) => write!(f, "peer {address}"),
            Self::Anybody => f.write_str("others"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Endpoint, Event, Process};
    use super::super::{CutReason, PeerFailure};
    use super::*;
    use crate::policy::DenyReason;

    fn told(records: &[Record]) -> Vec<&str> {
        records.iter().filter_map(|record| record.detail.as_deref()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_a_hundred_in_ten_seconds_one_record_says_how_many_more() {
        let (sums, start) = (Sums::default(), Instant::now());
        let key = |uid| Key::denied("no_rule", Causer::User(uid));
        let admitted = (0..250).filter(|_| sums.admit(key(7), start)).count();
        assert_eq!(admitted, 100);
        assert!(sums.is_full(key(7), start) && !sums.is_full(key(8), start));
        assert!(sums.admit(key(8), start), "one user's flood is not another's");
        assert!(sums.over(start + Duration::from_secs(9), false).is_empty());
        let over = sums.over(start + WINDOW, false);
        assert_eq!(told(&over), ["151 more connections by user 7, denied as no_rule in 10s"]);
        assert_eq!(over[0].reason.as_deref(), Some("denials_summed_up"));
        assert!(sums.admit(key(7), start + WINDOW), "a new window");
        assert!(sums.over(start + WINDOW, true).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_is_counted_as_one_and_takes_no_memory() {
        let (sums, now) = (Sums::default(), Instant::now());
        let peer = |n: u32| Causer::peer(std::net::Ipv4Addr::from(n).into());
        let admitted = (0..10_000).filter(|n| sums.admit(Key::observed(peer(*n)), now)).count();
        assert_eq!(admitted, TOLD_APART + 100);
        let told_more = sums.over(now, true);
        assert_eq!(told(&told_more), ["5804 more connections by others, observed in 10s"]);
    }

    #[test]
    fn a_peer_of_ipv6_is_its_network() {
        let peer = |text: &str| Causer::peer(text.parse().unwrap());
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::ffff:1"));
        assert_ne!(peer("2001:db8:0:1::1"), peer("2001:db8::1"));
        assert_eq!(peer("::ffff:10.0.0.1"), peer("10.0.0.1"));
        assert_ne!(peer("10.0.0.2"), peer("10.0.0.1"));
    }

    #[test]
    fn what_was_admitted_or_proved_is_never_summed_up() {
        let end = |id: Option<&str>, address: &str| {
            Some(Endpoint { spiffe_id: id.map(str::to_owned), address: Some(address.to_owned()) })
        };
        let record = |local: Option<&str>, peer: Option<&str>| Record {
            local: end(local, "10.0.0.1:80"),
            peer: end(peer, "10.0.0.2:4000"),
            process: Some(Process { uid: 7, ..Process::default() }),
            ..Record::new(Event::Close)
        };
        let denied = Outcome::Denied(DenyReason::PeerNotAllowed);
        let broken = Outcome::PeerFailed(PeerFailure::Reset);
        let (inbound, outbound) = (Direction::Inbound, Direction::Outbound);
        let peer = Causer::peer("10.0.0.2".parse().unwrap());
        let (a, b) = (Some("spiffe://td/a"), Some("spiffe://td/b"));
        assert_eq!(Key::of(&record(a, b), inbound, denied), None, "both are proved");
        let key = Key::denied("peer_not_allowed", peer);
        assert_eq!(Key::of(&record(a, None), inbound, denied), Some(key));
        let key = Key::denied("peer_not_allowed", Causer::User(7));
        assert_eq!(Key::of(&record(a, None), outbound, denied), Some(key));
        let admitted = Record { policy_epoch: Some(1), ..record(a, None) };
        assert!(Key::of(&record(a, None), inbound, broken).is_some());
        for outcome in [Outcome::Completed, broken, Outcome::Cut(CutReason::Idle)] {
            assert_eq!(Key::of(&admitted, inbound, outcome), None, "{outcome:?}");
            assert_eq!(Key::of(&admitted, outbound, outcome), None, "{outcome:?}");
        }
        let protection = Some(Protection::Untouched.as_str().into());
        let untouched = Record { protection, ..record(None, None) };
        let key = Key::observed(Causer::User(7));
        assert_eq!(Key::of(&untouched, outbound, Outcome::Completed), Some(key));
        let nobody = Record::new(Event::Close);
        let key = Key::denied("peer_not_allowed", Causer::Anybody);
        assert_eq!(Key::of(&nobody, outbound, denied), Some(key));
    }
}
