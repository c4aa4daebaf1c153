//! A line that is fair at two levels, and nothing but the line: workloads take turns, and for each of
//! them the places at the other end do. Who may be let in, and when, is a question to the caller.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Who waits: `T`, for a workload `W`, from a place `P`.
#[derive(Debug)]
pub(super) struct Line<W, P, T> {
    workloads: HashMap<W, Places<P, T>>,
    ring: VecDeque<W>,
}

#[derive(Debug)]
struct Places<P, T> {
    waiting: HashMap<P, VecDeque<T>>,
    ring: VecDeque<P>,
}

impl<W, P, T> Default for Line<W, P, T> {
    fn default() -> Self {
        Self { workloads: HashMap::new(), ring: VecDeque::new() }
    }
}

impl<W: Clone + Eq + Hash, P: Clone + Eq + Hash, T> Line<W, P, T> {
    /// Goes to the end of the line of its place.
    pub(super) fn join(&mut self, workload: &W, place: &P, who: T) {
        let ring = &mut self.ring;
        let places = self.workloads.entry(workload.clone()).or_insert_with(|| {
            ring.push_back(workload.clone());
            Places { waiting: HashMap::new(), ring: VecDeque::new() }
        });
        let ring = &mut places.ring;
        let line = places.waiting.entry(place.clone()).or_insert_with(|| {
            ring.push_back(place.clone());
            VecDeque::new()
        });
        line.push_back(who);
    }

    /// Lets in whoever is next of those that may be: for a workload that may, from a place that may.
    /// Both then go to the end of their rings.
    pub(super) fn next(
        &mut self,
        may_workload: impl Fn(&W) -> bool,
        may_place: impl Fn(&W, &P) -> bool,
    ) -> Option<(W, P, T)> {
        for _ in 0..self.ring.len() {
            let workload = self.ring.pop_front()?;
            let places = self.workloads.get_mut(&workload)?;
            let found = if may_workload(&workload) {
                places.next(|place| may_place(&workload, place))
            } else {
                None
            };
            if places.ring.is_empty() {
                self.workloads.remove(&workload);
            } else {
                self.ring.push_back(workload.clone());
            }
            if let Some((place, who)) = found {
                return Some((workload, place, who));
            }
        }
        None
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Workloads for which somebody waits.
    pub(super) fn workloads(&self) -> impl Iterator<Item = &W> {
        self.ring.iter()
    }
}

impl<P: Clone + Eq + Hash, T> Places<P, T> {
    fn next(&mut self, may: impl Fn(&P) -> bool) -> Option<(P, T)> {
        for _ in 0..self.ring.len() {
            let place = self.ring.pop_front()?;
            if !may(&place) {
                self.ring.push_back(place);
                continue;
            }
            let line = self.waiting.get_mut(&place)?;
            let who = line.pop_front();
            if line.is_empty() {
                self.waiting.remove(&place);
            } else {
                self.ring.push_back(place.clone());
            }
            if let Some(who) = who {
                return Some((place, who));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_take_turns_and_so_do_places() {
        let mut line = Line::default();
        for number in 0..3 {
            line.join(&"busy", &"flood", number);
        }
        line.join(&"busy", &"other", 10);
        line.join(&"quiet", &"flood", 20);
        let order: Vec<i32> = std::iter::from_fn(|| line.next(|_| true, |_, _| true))
            .map(|(_, _, who)| who)
            .collect();
        assert_eq!(order, [0, 20, 10, 1, 2]);
        assert!(line.is_empty());
    }

    #[test]
    fn who_may_not_is_passed_over_and_keeps_its_place() {
        let mut line = Line::default();
        line.join(&"a", &"full", 1);
        line.join(&"a", &"free", 2);
        line.join(&"b", &"free", 3);
        let next = |line: &mut Line<&str, &str, i32>, full: &str| {
            line.next(|_| true, |_, place| *place != full).map(|(_, _, who)| who)
        };
        assert_eq!(next(&mut line, "full"), Some(2));
        assert_eq!(next(&mut line, "full"), Some(3));
        assert_eq!(next(&mut line, "full"), None);
        assert_eq!(next(&mut line, ""), Some(1));
        assert_eq!(line.workloads().count(), 0);
    }
}
