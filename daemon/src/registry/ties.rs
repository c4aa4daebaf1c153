//! Entries that were seen to match a process equally well. Which goes first is told by their ids, but
//! seldom meant: each such pair is logged once, and shown in `tacit status` and `tacit entries`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::{RegistrationEntry, Registry};

/// How many pairs are kept. Chosen: nobody reads more.
const KEPT: usize = 1000;

/// Pairs that were seen, the one that goes first first.
#[derive(Debug, Default)]
pub struct SeenTies(Mutex<BTreeSet<(String, String)>>);

/// The ties among entries, as they stand.
#[derive(Debug, Default)]
pub struct Ties {
    seen: BTreeSet<(String, String)>,
    same: Vec<Vec<String>>,
}

impl SeenTies {
    /// Notes that these lost to an entry by their ids alone.
    pub fn note(&self, first: &RegistrationEntry, tied: &[Arc<RegistrationEntry>]) {
        for other in tied {
            let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let pair = (first.id.clone(), other.id.clone());
            if seen.len() < KEPT && seen.insert(pair) {
                drop(seen);
                tracing::warn!(
                    entry = first.id,
                    other = other.id,
                    "two entries match a process equally well; the lower id goes first"
                );
            }
        }
    }

    /// Forgets pairs of which one is gone.
    pub fn retain(&self, registry: &Registry) {
        let ids: BTreeSet<&str> =
            registry.entries().iter().map(|entry| entry.id.as_str()).collect();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|(first, other)| ids.contains(first.as_str()) && ids.contains(other.as_str()));
    }

    /// Together with what can be said without a process.
    pub fn among(&self, registry: &Registry) -> Ties {
        let ids = |group: Vec<Arc<RegistrationEntry>>| {
            group.iter().map(|entry| entry.id.clone()).collect()
        };
        Ties {
            seen: self.0.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            same: registry.twins().into_iter().map(ids).collect(),
        }
    }
}

impl Ties {
    /// With which entries this one ties.
    pub fn of(&self, id: &str) -> Vec<String> {
        let twins = self.same.iter().filter(|group| group.iter().any(|it| it == id)).flatten();
        let mut tied: BTreeSet<&String> = twins.filter(|it| *it != id).collect();
        for (first, other) in &self.seen {
            tied.extend((first == id).then_some(other));
            tied.extend((other == id).then_some(first));
        }
        tied.into_iter().cloned().collect()
    }

    /// The pairs that were seen and have not the very same selectors: those are told with the
    /// configuration.
    pub fn seen(&self) -> Vec<(String, String)> {
        let is_same = |(first, other): &&(String, String)| {
            self.same.iter().any(|group| group.contains(first) && group.contains(other))
        };
        self.seen.iter().filter(|pair| !is_same(pair)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, selectors: &[&str]) -> RegistrationEntry {
        RegistrationEntry::new(
            id,
            "spiffe://example.org/a".parse().unwrap(),
            selectors.iter().map(|it| it.parse().unwrap()).collect(),
            "",
        )
    }

    #[test]
    fn ties_are_those_of_the_same_selectors_and_those_that_were_seen() {
        let entries = vec![
            entry("a", &["unix:uid:1"]),
            entry("b", &["unix:uid:1"]),
            entry("c", &["unix:gid:1"]),
            entry("d", &["unix:gid:2"]),
        ];
        let registry = Registry::new(entries).unwrap();
        let seen = SeenTies::default();
        let selectors = ["unix:uid:1", "unix:gid:1"].map(|it| it.parse().unwrap()).into();
        let found = registry.find(&selectors);
        seen.note(&found.entry.unwrap(), &found.tied);
        let ties = seen.among(&registry);
        let of = |id| ties.of(id).join(" ");
        assert_eq!(
            (of("a"), of("b"), of("c"), of("d")),
            ("b c".into(), "a".into(), "a".into(), String::new())
        );
        assert_eq!(ties.seen(), [("a".to_owned(), "c".to_owned())]);
        let fewer = Registry::new(vec![entry("a", &["unix:uid:1"])]).unwrap();
        seen.retain(&fewer);
        assert!(seen.among(&fewer).of("a").is_empty());
    }
}
