//! Readiness: a list of named conditions, each met or failing for a stated reason. A condition
//! fails from when it is made until somebody says that it is met, so nothing is ready by omission.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// The conditions. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<Vec<Named>>>);

/// One condition that its holder sets.
#[derive(Debug)]
pub struct Condition {
    readiness: Readiness,
    index: usize,
}

/// How a condition stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// What it is about.
    pub condition: String,
    /// Why it is not met; none if it is.
    pub failing: Option<String>,
    /// What is not as it should be, and no reason not to be ready.
    #[serde(default)]
    pub degraded: Option<String>,
}

/// What is asked for the standing of a condition.
type Probe = Box<dyn Fn() -> Result<(), String> + Send>;

/// What is asked for what is worth noting.
type Note = Box<dyn Fn() -> Option<String> + Send>;

struct Named {
    name: &'static str,
    state: State,
}

enum State {
    Told(Result<(), String>),
    Asked(Probe),
    Noted(Note),
}

impl Readiness {
    /// A condition that fails as `starting` until its holder says otherwise.
    pub fn condition(&self, name: &'static str) -> Condition {
        let mut conditions = self.lock();
        let state = State::Told(Err("starting".to_owned()));
        conditions.push(Named { name, state });
        Condition { readiness: self.clone(), index: conditions.len() - 1 }
    }

    /// A condition that is asked for each time. The probe must not block.
    pub fn probe<F>(&self, name: &'static str, probe: F)
    where
        F: Fn() -> Result<(), String> + Send + 'static,
    {
        self.lock().push(Named { name, state: State::Asked(Box::new(probe)) });
    }

    /// Something that is asked for each time, and never a reason not to be ready. The note must not
    /// block.
    pub fn note<F>(&self, name: &'static str, note: F)
    where
        F: Fn() -> Option<String> + Send + 'static,
    {
        self.lock().push(Named { name, state: State::Noted(Box::new(note)) });
    }

    /// How all conditions stand, in the order in which they were made.
    pub fn standings(&self) -> Vec<Standing> {
        let standing = |named: &Named| Standing {
            condition: named.name.to_owned(),
            failing: match &named.state {
                State::Told(standing) => standing.clone().err(),
                State::Asked(probe) => probe().err(),
                State::Noted(_) => None,
            },
            degraded: match &named.state {
                State::Noted(note) => note(),
                State::Told(_) | State::Asked(_) => None,
            },
        };
        self.lock().iter().map(standing).collect()
    }

    /// Whether all conditions are met.
    pub fn is_ready(&self) -> bool {
        self.standings().iter().all(|standing| standing.failing.is_none())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Named>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Condition {
    /// It is met.
    pub fn met(&self) {
        self.set(Ok(()));
    }

    /// It is not met, for this reason.
    pub fn failing(&self, reason: impl Into<String>) {
        self.set(Err(reason.into()));
    }

    fn set(&self, standing: Result<(), String>) {
        if let Some(named) = self.readiness.lock().get_mut(self.index) {
            named.state = State::Told(standing);
        }
    }
}

impl fmt::Debug for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Named").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_when_every_condition_is_met() {
        let readiness = Readiness::default();
        let attached = readiness.condition("programs attached");
        readiness.probe("audit log writable", || Ok(()));
        assert!(!readiness.is_ready());
        attached.met();
        assert!(readiness.is_ready());
        attached.failing("detached");
        let failing: Vec<_> = readiness.standings().into_iter().filter_map(|s| s.failing).collect();
        assert_eq!(failing, ["detached"]);
        attached.met();
        readiness.note("bundles", || Some("old".to_owned()));
        assert!(readiness.is_ready());
        let notes: Vec<_> = readiness.standings().into_iter().filter_map(|s| s.degraded).collect();
        assert_eq!(notes, ["old"]);
    }
}
