//! Who owns every task, and how they end: *drain* (stop accepting, finish what runs, until a
//! deadline), then *cancel* (drop the rest). The only file that may call `tokio::spawn`.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::timeout;

/// What a cancelled task has for writing its last record.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How far the shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// No new work; what runs may finish.
    Draining,
    /// Drop everything.
    Cancelled,
}

/// What a task watches to learn that it should end. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<Phase>);

impl Stop {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Resolves when draining begins (or is past).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn draining(&mut self) {
        self.reached(Phase::Draining).await;
    }

    /// Resolves when everything is to be dropped.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn cancelled(&mut self) {
        self.reached(Phase::Cancelled).await;
    }

    async fn reached(&mut self, phase: Phase) {
        // A closed channel means that the owner is gone: that is a cancellation.
        let _phase = self.0.wait_for(|now| *now >= phase).await.is_ok();
    }
}

/// Owns tasks. Dropping it aborts what is left.
#[derive(Debug)]
pub struct Tasks {
    phase: watch::Sender<Phase>,
    running: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Self {
        Self {
            phase: watch::channel(Phase::Running).0,
            running: JoinSet::new(),
            names: HashMap::new(),
        }
    }

    /// What tasks watch.
    pub fn stop(&self) -> Stop {
        Stop(self.phase.subscribe())
    }

    /// Starts a task; a panic in it is logged under `name` and ends only that task.
    pub fn spawn<F>(&mut self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.reap();
        let started = self.running.spawn(task);
        self.names.insert(started.id(), name);
    }

    /// How many tasks run.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// Frees what finished tasks hold.
    pub fn reap(&mut self) {
        while let Some(ended) = self.running.try_join_next_with_id() {
            self.forget(ended);
        }
    }

    /// Asks all tasks to finish, and does not wait for it.
    pub fn ask(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Asks all tasks to finish, waits until `deadline` has passed, then drops the rest.
    /// Gives the number of tasks that had to be dropped.
    pub async fn drain(&mut self, deadline: Duration) -> usize {
        self.phase.send_replace(Phase::Draining);
        if timeout(deadline, self.join_all()).await.is_ok() {
            return 0;
        }
        let left = self.running.len();
        self.phase.send_replace(Phase::Cancelled);
        if timeout(LAST_WORDS, self.join_all()).await.is_err() {
            self.running.abort_all();
        }
        left
    }

    async fn join_all(&mut self) {
        while let Some(ended) = self.running.join_next_with_id().await {
            self.forget(ended);
        }
    }

    fn forget(&mut self, ended: Result<(Id, ()), JoinError>) {
        let (id, panicked) = match ended {
            Ok((id, ())) => (id, false),
            Err(error) => (error.id(), error.is_panic()),
        };
        let name = self.names.remove(&id).unwrap_or_default();
        if panicked {
            tracing::error!(task = name, "a task panicked; it ended, the daemon goes on");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn drain_waits_for_those_who_finish_and_drops_those_who_do_not() {
        let mut tasks = Tasks::new();
        let mut stop = tasks.stop();
        tasks.spawn("finishes", async move { stop.draining().await });
        tasks.spawn("never ends", std::future::pending());
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, 1);
    }

    #[tokio::test]
    async fn a_panic_ends_only_its_task() {
        let mut tasks = Tasks::new();
        tasks.spawn("panics", async { panic!("on purpose") });
        assert_eq!(tasks.drain(Duration::from_secs(5)).await, 0);
    }
}
