//! Whose handshake is next? Handshakes cost processor time, so that only so many go on at a time and
//! begin in a second, and the rest waits in a fair line. No workload has more than half of the turns,
//! and no place at the other end more than a quarter with one workload; and a handshake whose peer
//! keeps it waiting gives its turn back until the peer goes on. So neither a flood from one place,
//! nor silent peers, nor a workload that everybody calls hold up the others.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until};

use super::line::Line;

/// What one workload may have of the turns: half, rounded up.
const WORKLOAD_SHARE: usize = 2;
/// What one place may have of them, with one workload: a quarter, rounded up.
const PLACE_SHARE: usize = 4;

/// How many handshakes there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TurnLimits {
    /// At a time.
    pub(super) at_once: usize,
    /// In a second.
    pub(super) per_second: u32,
    /// In a second, of one workload.
    pub(super) per_second_each: u32,
}

/// The turns. `W` is the local workload, `P` the place at the other end.
#[derive(Debug)]
pub(super) struct Turns<W: Clone + Eq + Hash, P: Clone + Eq + Hash> {
    limits: TurnLimits,
    state: Mutex<State<W, P>>,
    /// Told when somebody waits for time to pass.
    short: Notify,
}

/// Somebody in line, to whom his turn is handed.
#[derive(Debug)]
struct Waiting<W: Clone + Eq + Hash, P: Clone + Eq + Hash> {
    turn: oneshot::Sender<Turn<W, P>>,
    /// It counts for the rate: it does not go on with what had a turn before.
    is_new: bool,
}

#[derive(Debug)]
struct State<W: Clone + Eq + Hash, P: Clone + Eq + Hash> {
    line: Line<W, P, Waiting<W, P>>,
    taken: usize,
    bucket: Bucket,
    workloads: HashMap<W, Usage<P>>,
}

/// What a workload has taken.
#[derive(Debug)]
struct Usage<P> {
    taken: usize,
    bucket: Bucket,
    places: HashMap<P, usize>,
}

/// How many may still begin, as of a moment: a second's worth at most.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    rate: f64,
    since: Instant,
}

/// A turn; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Turn<W: Clone + Eq + Hash, P: Clone + Eq + Hash> {
    turns: Arc<Turns<W, P>>,
    workload: W,
    place: P,
}

impl Bucket {
    fn full(per_second: u32) -> Self {
        let rate = f64::from(per_second.max(1));
        Self { tokens: rate, rate, since: Instant::now() }
    }

    fn refill(&mut self, now: Instant) {
        let earned = now.duration_since(self.since).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + earned).min(self.rate);
        self.since = now;
    }

    fn is_empty(&self) -> bool {
        self.tokens < 1.0
    }

    fn is_full(&self) -> bool {
        self.tokens >= self.rate
    }

    /// When there will be one.
    fn next(&self) -> Instant {
        self.since + Duration::from_secs_f64((1.0 - self.tokens).max(0.0) / self.rate)
    }
}

impl<W: Clone + Eq + Hash, P: Clone + Eq + Hash> Turns<W, P> {
    pub(super) fn new(limits: TurnLimits) -> Arc<Self> {
        let state = State {
            line: Line::default(),
            taken: 0,
            bucket: Bucket::full(limits.per_second),
            workloads: HashMap::new(),
        };
        Arc::new(Self { limits, state: Mutex::new(state), short: Notify::new() })
    }

    /// Waits for a turn, for a handshake that begins (`is_new`) or goes on.
    ///
    /// # Cancel safety
    /// Dropped, it leaves the line.
    pub(super) async fn take(
        self: &Arc<Self>,
        workload: &W,
        place: &P,
        is_new: bool,
    ) -> Option<Turn<W, P>> {
        let (turn, given) = oneshot::channel();
        self.state().line.join(workload, place, Waiting { turn, is_new });
        self.serve();
        // The sender stays in the line until it has sent.
        given.await.ok()
    }

    /// Lets in as many as may be now.
    pub(super) fn serve(self: &Arc<Self>) {
        while let Some((waiting, turn)) = self.next() {
            // One who left the line gets none: given back at once, outside of the lock.
            drop(waiting.turn.send(turn));
        }
        if self.state().is_short() {
            self.short.notify_one();
        }
    }

    fn next(self: &Arc<Self>) -> Option<(Waiting<W, P>, Turn<W, P>)> {
        let mut state = self.state();
        loop {
            let (workload, place, waiting) = state.next(&self.limits)?;
            if waiting.turn.is_closed() {
                continue;
            }
            state.take(&self.limits, &workload, &place, waiting.is_new);
            let turn = Turn { turns: Arc::clone(self), workload, place };
            return Some((waiting, turn));
        }
    }

    /// Lets those in who wait for nothing but time. To be run for as long as there are turns.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn pass_time(self: &Arc<Self>) {
        loop {
            // Asked anew each time: what was told before this was last dropped counts, too.
            let next = {
                let state = self.state();
                state.is_short().then(|| state.next_token())
            };
            match next {
                Some(next) => {
                    sleep_until(next).await;
                    self.serve();
                }
                None => self.short.notified().await,
            }
        }
    }

    /// Forgets workloads that have nothing and could have all.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        self.state().workloads.retain(|_, usage| {
            usage.bucket.refill(now);
            usage.taken > 0 || !usage.bucket.is_full()
        });
    }

    /// A panic while it is held leaves at most one turn too few.
    fn state(&self) -> MutexGuard<'_, State<W, P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Clone + Eq + Hash, P: Clone + Eq + Hash> State<W, P> {
    /// Who is next, if anybody may be let in.
    fn next(&mut self, limits: &TurnLimits) -> Option<(W, P, Waiting<W, P>)> {
        let now = Instant::now();
        self.bucket.refill(now);
        for workload in self.line.workloads() {
            if let Some(usage) = self.workloads.get_mut(workload) {
                usage.bucket.refill(now);
            }
        }
        if self.line.is_empty() || self.taken >= limits.at_once || self.bucket.is_empty() {
            return None;
        }
        let (half, quarter) =
            (limits.at_once.div_ceil(WORKLOAD_SHARE), limits.at_once.div_ceil(PLACE_SHARE));
        let workloads = &self.workloads;
        let may_workload = |workload: &W| {
            workloads.get(workload).is_none_or(|it| it.taken < half && !it.bucket.is_empty())
        };
        let may_place = |workload: &W, place: &P| {
            let taken = workloads.get(workload).and_then(|it| it.places.get(place));
            taken.is_none_or(|taken| *taken < quarter)
        };
        self.line.next(may_workload, may_place)
    }

    fn take(&mut self, limits: &TurnLimits, workload: &W, place: &P, is_new: bool) {
        let usage = self.workloads.entry(workload.clone()).or_insert_with(|| Usage {
            taken: 0,
            bucket: Bucket::full(limits.per_second_each),
            places: HashMap::new(),
        });
        self.taken += 1;
        usage.taken += 1;
        *usage.places.entry(place.clone()).or_default() += 1;
        if is_new {
            self.bucket.tokens -= 1.0;
            usage.bucket.tokens -= 1.0;
        }
    }

    fn give_back(&mut self, workload: &W, place: &P) {
        self.taken = self.taken.saturating_sub(1);
        let Some(usage) = self.workloads.get_mut(workload) else { return };
        usage.taken = usage.taken.saturating_sub(1);
        if let Some(taken) = usage.places.get_mut(place) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                usage.places.remove(place);
            }
        }
    }

    /// Whether somebody waits for whom there are no more in this second.
    fn is_short(&self) -> bool {
        let is_short = |it: &W| self.workloads.get(it).is_some_and(|it| it.bucket.is_empty());
        !self.line.is_empty() && (self.bucket.is_empty() || self.line.workloads().any(is_short))
    }

    /// When the next one may be let in for whom time is all that is missing.
    fn next_token(&self) -> Instant {
        let usages = self.line.workloads().filter_map(|it| self.workloads.get(it));
        let own = usages.filter(|it| it.bucket.is_empty()).map(|it| it.bucket.next()).min();
        let node = self.bucket.is_empty().then(|| self.bucket.next());
        // Both must have one: the later of them.
        [own, node].into_iter().flatten().max().unwrap_or_else(Instant::now)
    }
}

impl<W: Clone + Eq + Hash, P: Clone + Eq + Hash> Drop for Turn<W, P> {
    fn drop(&mut self) {
        self.turns.state().give_back(&self.workload, &self.place);
        self.turns.serve();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type TestTurns = Arc<Turns<&'static str, u8>>;

    fn turns(at_once: usize, per_second: u32, each: u32) -> TestTurns {
        Turns::new(TurnLimits { at_once, per_second, per_second_each: each })
    }

    /// Takes turns until the next one would have to wait.
    async fn fill(turns: &TestTurns, who: &'static str, place: u8) -> Vec<Turn<&'static str, u8>> {
        let mut taken = Vec::new();
        let soon = Duration::from_millis(1);
        while let Ok(turn) = tokio::time::timeout(soon, turns.take(&who, &place, true)).await {
            taken.extend(turn);
        }
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_has_more_than_his_share() {
        let turns = turns(16, 1000, 1000);
        let flood = fill(&turns, "a", 1).await;
        assert_eq!(flood.len(), 4, "a quarter");
        let other = fill(&turns, "a", 2).await;
        assert_eq!(other.len(), 4);
        assert!(fill(&turns, "a", 3).await.is_empty(), "half for one workload");
        assert_eq!(fill(&turns, "b", 1).await.len(), 4);
        drop(flood);
        assert_eq!(fill(&turns, "a", 3).await.len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_line_holds_up_only_itself() {
        let turns = turns(1, 1000, 1000);
        let first = turns.take(&"a", &1, true).await;
        let order = Mutex::new(Vec::new());
        let one = async |who: &'static str, place: u8| {
            let turn = turns.take(&who, &place, true).await;
            order.lock().unwrap().push((who, place));
            drop(turn);
        };
        let flood = futures_util::future::join_all((0..100).map(|_| one("a", 1)));
        let others = async { tokio::join!(one("a", 2), one("b", 9)) };
        // The others come when the whole flood stands in line already.
        let end = async { drop(first) };
        tokio::join!(flood, others, end);
        let order = order.into_inner().unwrap();
        assert_eq!(order[..3], [("a", 1), ("b", 9), ("a", 2)]);
        assert_eq!(order.len(), 102);
    }

    #[tokio::test(start_paused = true)]
    async fn who_left_the_line_is_given_no_turn() {
        let turns = turns(1, 1000, 1000);
        let first = turns.take(&"a", &1, true).await;
        let late = tokio::time::timeout(Duration::from_secs(1), turns.take(&"a", &1, true));
        assert!(late.await.is_err());
        drop(first);
        assert!(turns.take(&"a", &2, true).await.is_some());
        assert_eq!(turns.state().taken, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_begin_in_a_second_and_time_lets_the_next_in() {
        let turns = turns(1000, 20, 10);
        let passing = Arc::clone(&turns);
        let work = async {
            let began = Instant::now();
            for _ in 0..30 {
                drop(turns.take(&"a", &1, true).await);
            }
            let took = began.elapsed();
            assert!(
                (Duration::from_millis(1900)..Duration::from_millis(2200)).contains(&took),
                "{took:?}"
            );
            // What goes on is no new one, and uses nothing up.
            let began = Instant::now();
            for _ in 0..30 {
                drop(turns.take(&"b", &1, false).await);
            }
            assert!(began.elapsed() < Duration::from_millis(10));
        };
        // It is dropped and asked for again and again, as beside other work.
        let pass = async {
            loop {
                let _dropped =
                    tokio::time::timeout(Duration::from_millis(7), passing.pass_time()).await;
            }
        };
        tokio::select! {
            () = pass => {}
            () = work => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_at_rest_is_forgotten() {
        let turns = turns(10, 100, 100);
        drop(turns.take(&"a", &1, true).await);
        turns.sweep();
        assert_eq!(turns.state().workloads.len(), 1, "its rate is not forgotten");
        tokio::time::advance(Duration::from_secs(1)).await;
        turns.sweep();
        assert!(turns.state().workloads.is_empty());
        assert_eq!(turns.state().taken, 0);
    }
}
