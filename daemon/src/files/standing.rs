//! How each set of files stands, for readiness.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Why sets are not as they should be, by what is wrong with which. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Standings(Arc<Mutex<BTreeMap<String, String>>>);

impl Standings {
    /// What is wrong; `Ok` if nothing is.
    ///
    /// # Errors
    /// Every set that is not as it should be, with the reason.
    pub fn all(&self) -> Result<(), String> {
        let problems = self.lock();
        if problems.is_empty() {
            return Ok(());
        }
        let lines = problems.iter().map(|(name, problem)| format!("{name}: {problem}"));
        Err(lines.collect::<Vec<_>>().join("; "))
    }

    /// What is wrong with one.
    pub(super) fn of(&self, name: &str) -> Option<String> {
        self.lock().get(name).cloned()
    }

    /// Notes how something stands. Says whether that is news.
    pub(super) fn set(&self, name: &str, problem: Option<String>) -> bool {
        let mut problems = self.lock();
        match problem {
            Some(problem) => {
                let before = problems.insert(name.to_owned(), problem.clone());
                before != Some(problem)
            }
            None => problems.remove(name).is_some(),
        }
    }

    /// A panic while it is held leaves nothing half done: every change is one assignment.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
