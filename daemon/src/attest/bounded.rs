//! A map that never grows beyond a bound and forgets what was not used for longest, roughly: two
//! generations, of which the older is dropped when the younger is full. Every step is O(1).

use std::collections::HashMap;
use std::hash::Hash;

/// A bounded map. See the module header.
#[derive(Debug)]
pub(super) struct Bounded<K, V> {
    half: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V> Bounded<K, V> {
    /// Holds at most `entries`, and at least the last half of as many that were used.
    pub(super) fn new(entries: usize) -> Self {
        Self { half: (entries / 2).max(1), young: HashMap::new(), old: HashMap::new() }
    }

    /// The value of a key, which counts as used now.
    pub(super) fn get(&mut self, key: &K) -> Option<&mut V> {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.insert(key, value);
        }
        self.young.get_mut(key)
    }

    /// Sets the value of a key.
    pub(super) fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// Drops a key.
    pub(super) fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_used_stays() {
        let mut map = Bounded::new(4);
        for key in 0..100 {
            map.insert(key, key);
            assert_eq!(map.get(&0), Some(&mut 0));
        }
        assert_eq!(map.get(&50), None);
        map.remove(&0);
        assert_eq!(map.get(&0), None);
    }

    proptest! {
        #[test]
        fn never_beyond_the_bound(bound in 2_usize..20, keys: Vec<(u8, bool)>) {
            let mut map = Bounded::new(bound);
            for (key, insert) in keys {
                if insert {
                    map.insert(key, key);
                }
                let found = map.get(&key).copied();
                prop_assert!(found == Some(key) || !insert && found.is_none());
                prop_assert!(map.len() <= bound);
            }
        }
    }
}
