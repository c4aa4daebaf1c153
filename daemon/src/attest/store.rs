//! Attestations that are still fresh, by process and by everything that was recorded of it. Whoever
//! asks first works, the others of the same claim wait for the result.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::bounded::Bounded;
use super::evidence::Attestation;
use crate::workload::{ProcessClaim, ProcessKey};

/// How many different records of one process are kept: programs that change user or cgroup for each
/// connection are rare. Chosen.
const RECORDS_PER_PROCESS: usize = 16;

/// The place of one attestation: empty until someone has worked it out.
pub(super) type Cell = Arc<OnceCell<Arc<Attestation>>>;

/// The fresh attestations.
#[derive(Debug)]
pub(super) struct Store {
    fresh_for: Duration,
    processes: Mutex<Bounded<ProcessKey, Vec<Entry>>>,
}

#[derive(Debug)]
struct Entry {
    claim: ProcessClaim,
    since: Instant,
    cell: Cell,
}

impl Store {
    /// Nothing yet; keeps up to `entries` processes.
    pub(super) fn new(entries: usize, fresh_for: Duration) -> Self {
        Self { fresh_for, processes: Mutex::new(Bounded::new(entries)) }
    }

    /// The place for the attestation of this claim, filled if a fresh one is there.
    pub(super) fn cell(&self, claim: &ProcessClaim) -> Cell {
        let now = Instant::now();
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(entries) = processes.get(&claim.process) else {
            let entry = Entry::new(claim, now);
            let cell = Arc::clone(&entry.cell);
            processes.insert(claim.process, vec![entry]);
            return cell;
        };
        entries.retain(|entry| now.duration_since(entry.since) < self.fresh_for);
        if let Some(entry) = entries.iter().find(|entry| same_facts(&entry.claim, claim)) {
            return Arc::clone(&entry.cell);
        }
        if entries.len() >= RECORDS_PER_PROCESS {
            entries.remove(0);
        }
        let entry = Entry::new(claim, now);
        let cell = Arc::clone(&entry.cell);
        entries.push(entry);
        cell
    }

    /// The attestation of this claim, if a fresh one is there. Makes no place for one.
    pub(super) fn peek(&self, claim: &ProcessClaim) -> Option<Arc<Attestation>> {
        let now = Instant::now();
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries = processes.get(&claim.process)?.iter();
        let fresh = |entry: &&Entry| now.duration_since(entry.since) < self.fresh_for;
        let entry = entries.find(|entry| fresh(entry) && same_facts(&entry.claim, claim))?;
        entry.cell.get().map(Arc::clone)
    }

    /// Drops one attestation, unless another has taken its place.
    pub(super) fn discard(&self, process: ProcessKey, cell: &Cell) {
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entries) = processes.get(&process) {
            entries.retain(|entry| !Arc::ptr_eq(&entry.cell, cell));
        }
    }

    /// Drops all attestations of a process.
    pub(super) fn forget(&self, process: ProcessKey) {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner).remove(&process);
    }
}

impl Entry {
    fn new(claim: &ProcessClaim, since: Instant) -> Self {
        Self { claim: claim.clone(), since, cell: Cell::default() }
    }
}

/// Whether two claims record the same, whenever they were made.
fn same_facts(one: &ProcessClaim, other: &ProcessClaim) -> bool {
    let timeless = |claim: &ProcessClaim| ProcessClaim { seen_ns: 0, ..claim.clone() };
    timeless(one) == timeless(other)
}
