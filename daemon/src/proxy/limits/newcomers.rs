//! Clients that have not proved who they are: everybody can be one, as often as he likes. So they
//! never have more than their part of the places for connections, none of their addresses has more
//! than its part of that, and when the part is full whoever has the most of it makes room.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// How many newcomers there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NewcomerLimits {
    /// In all.
    pub(super) all: usize,
    /// To one workload.
    pub(super) each: usize,
    /// To one workload from one place.
    pub(super) from_one: usize,
}

/// All newcomers. `W` is the local workload, `P` the place at the other end.
#[derive(Debug)]
pub(super) struct Newcomers<W, P> {
    limits: NewcomerLimits,
    state: Mutex<State<W, P>>,
}

#[derive(Debug)]
struct State<W, P> {
    last: u64,
    all: usize,
    groups: HashMap<(W, P), Group>,
    /// Size and number of each group, the largest last; of all, and of each workload.
    sizes: BTreeSet<(usize, u64)>,
    workloads: HashMap<W, Sizes>,
    numbers: HashMap<u64, (W, P)>,
}

#[derive(Debug, Default)]
struct Sizes {
    all: usize,
    groups: BTreeSet<(usize, u64)>,
}

/// Those of one place at one workload, the oldest first.
#[derive(Debug)]
struct Group {
    number: u64,
    members: VecDeque<(u64, oneshot::Sender<()>)>,
}

/// A newcomer, until this is dropped.
#[derive(Debug)]
pub(in crate::proxy) struct Newcomer<W: Clone + Eq + Hash, P: Clone + Eq + Hash> {
    newcomers: Arc<Newcomers<W, P>>,
    key: (W, P),
    id: u64,
    shown_out: oneshot::Receiver<()>,
}

impl<W: Clone + Eq + Hash, P: Clone + Eq + Hash> Newcomers<W, P> {
    pub(super) fn new(limits: NewcomerLimits) -> Arc<Self> {
        let state = State {
            last: 0,
            all: 0,
            groups: HashMap::new(),
            sizes: BTreeSet::new(),
            workloads: HashMap::new(),
            numbers: HashMap::new(),
        };
        Arc::new(Self { limits, state: Mutex::new(state) })
    }

    /// Lets one in; `None` if there is no room, and nobody who has more than this one.
    pub(super) fn enter(self: &Arc<Self>, workload: W, place: P) -> Option<Newcomer<W, P>> {
        let key = (workload, place);
        let (sender, receiver) = oneshot::channel();
        let id = {
            let mut state = self.state();
            let own = state.groups.get(&key).map_or(0, |group| group.members.len());
            if own >= self.limits.from_one {
                return None;
            }
            let to_workload = state.workloads.get(&key.0).map_or(0, |sizes| sizes.all);
            if to_workload >= self.limits.each {
                let largest = state.workloads.get(&key.0)?.groups.last().copied();
                state.make_room(largest, own)?;
            } else if state.all >= self.limits.all {
                let largest = state.sizes.last().copied();
                state.make_room(largest, own)?;
            }
            state.add(&key, sender)
        };
        Some(Newcomer { newcomers: Arc::clone(self), key, id, shown_out: receiver })
    }

    /// A panic while it is held leaves a newcomer too many at most.
    fn state(&self) -> MutexGuard<'_, State<W, P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Clone + Eq + Hash, P: Clone + Eq + Hash> State<W, P> {
    /// Shows the oldest of the largest group out, if that has more than the one who comes would have.
    fn make_room(&mut self, largest: Option<(usize, u64)>, own: usize) -> Option<()> {
        let (size, number) = largest?;
        if size <= own + 1 {
            return None;
        }
        let key = self.numbers.get(&number)?.clone();
        let (id, show_out) =
            self.groups.get_mut(&key)?.members.front_mut().map(|(id, sender)| {
                let (gone, _) = oneshot::channel();
                (*id, std::mem::replace(sender, gone))
            })?;
        self.remove(&key, id);
        // It may be leaving by itself.
        let _told = show_out.send(()).is_ok();
        Some(())
    }

    fn add(&mut self, key: &(W, P), show_out: oneshot::Sender<()>) -> u64 {
        self.last += 1;
        let (id, numbers) = (self.last, &mut self.numbers);
        let group = self.groups.entry(key.clone()).or_insert_with(|| {
            numbers.insert(id, key.clone());
            Group { number: id, members: VecDeque::new() }
        });
        let before = (group.members.len(), group.number);
        group.members.push_back((id, show_out));
        let after = (group.members.len(), group.number);
        self.all += 1;
        self.resize(&key.0, before, after);
        let sizes = self.workloads.entry(key.0.clone()).or_default();
        sizes.all += 1;
        id
    }

    fn remove(&mut self, key: &(W, P), id: u64) {
        let Some(group) = self.groups.get_mut(key) else { return };
        // Ids only grow: the members are in their order.
        let Ok(at) = group.members.binary_search_by_key(&id, |(id, _)| *id) else { return };
        let before = (group.members.len(), group.number);
        group.members.remove(at);
        let after = (group.members.len(), group.number);
        if group.members.is_empty() {
            self.numbers.remove(&group.number);
            self.groups.remove(key);
        }
        self.all = self.all.saturating_sub(1);
        self.resize(&key.0, before, after);
        if let Some(sizes) = self.workloads.get_mut(&key.0) {
            sizes.all = sizes.all.saturating_sub(1);
            if sizes.all == 0 {
                self.workloads.remove(&key.0);
            }
        }
    }

    fn resize(&mut self, workload: &W, before: (usize, u64), after: (usize, u64)) {
        let sizes = &mut self.workloads.entry(workload.clone()).or_default().groups;
        for sizes in [sizes, &mut self.sizes] {
            sizes.remove(&before);
            if after.0 > 0 {
                sizes.insert(after);
            }
        }
    }
}

impl<W: Clone + Eq + Hash, P: Clone + Eq + Hash> Newcomer<W, P> {
    /// Resolves when it has to make room.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(in crate::proxy) async fn shown_out(&mut self) {
        // The sender is dropped with its place, which is this one's until it is shown out.
        let _told = (&mut self.shown_out).await.is_ok();
    }
}

impl<W: Clone + Eq + Hash, P: Clone + Eq + Hash> Drop for Newcomer<W, P> {
    fn drop(&mut self) {
        self.newcomers.state().remove(&self.key, self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type TestNewcomers = Arc<Newcomers<&'static str, u8>>;
    type TestNewcomer = Newcomer<&'static str, u8>;

    fn newcomers(all: usize, each: usize, from_one: usize) -> TestNewcomers {
        Newcomers::new(NewcomerLimits { all, each, from_one })
    }

    fn many(newcomers: &TestNewcomers, who: &'static str, place: u8) -> Vec<TestNewcomer> {
        std::iter::from_fn(|| newcomers.enter(who, place)).take(100).collect()
    }

    fn is_out(one: &mut TestNewcomer) -> bool {
        one.shown_out.try_recv().is_ok()
    }

    #[test]
    fn one_place_has_its_part() {
        let newcomers = newcomers(100, 100, 10);
        let flood = many(&newcomers, "a", 1);
        assert_eq!(flood.len(), 10);
        assert!(newcomers.enter("a", 2).is_some());
        assert!(newcomers.enter("b", 1).is_some());
        drop(flood);
        assert_eq!(many(&newcomers, "a", 1).len(), 10);
    }

    #[test]
    fn whoever_has_most_makes_room_and_his_oldest_first() {
        let newcomers = newcomers(12, 8, 8);
        let mut flood = many(&newcomers, "a", 1);
        assert_eq!(flood.len(), 8, "all that one workload may have");
        let other = newcomers.enter("a", 2).unwrap();
        assert!(is_out(&mut flood[0]) && !is_out(&mut flood[1]));
        // Another workload, until the node is full.
        let quiet: Vec<_> = (10..18).map(|place| newcomers.enter("b", place).unwrap()).collect();
        assert!((1..=4).all(|at| is_out(&mut flood[at])) && !is_out(&mut flood[5]));
        assert!(newcomers.enter("a", 1).is_none(), "who has most does not push others out");
        drop((other, quiet, flood));
        let state = newcomers.state();
        assert!(state.groups.is_empty() && state.sizes.is_empty() && state.numbers.is_empty());
        assert!(state.workloads.is_empty() && state.all == 0);
    }
}
