//! The handle that the rest of the daemon holds: begins records, hands finished ones to the
//! writer through a bounded queue, and tells how the log fares. Nothing is lost in silence: what
//! finds no room is counted, and the log says how much as soon as it can be written again.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::live::{Connection, Live};
use super::log::{Before, Log, LogError};
use super::record::Record;
use super::sums::{Causer, Key, Sums};
use super::writer::{Order, Writer};
use super::{Clock, Direction, Outcome, RecordBuilder, time};
use crate::metrics::Metrics;
use crate::policy::DenyReason;
use crate::workload::ScopeId;

/// Folder below the daemon's state directory that is [`AuditSettings::state_dir`].
pub const STATE_FOLDER: &str = "audit";

/// What becomes of a record that finds the queue full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// The connection's task waits: a log that stalls slows the node down.
    Block,
    /// It is counted, and a `lost` record says so.
    Drop,
}

/// Where and how the log is kept.
#[derive(Debug, Clone)]
pub struct AuditSettings {
    /// The log; rotated files have `.1`, `.2`, … behind their names, the public key `.pub`.
    pub path: PathBuf,
    /// Directory (0700) for the signing key and the head.
    pub state_dir: PathBuf,
    /// Name of the node.
    pub node: String,
    /// A file this long is rotated, bytes.
    pub rotate_bytes: u64,
    /// How many rotated files are kept; at least 1.
    pub keep: u32,
    /// Bound of the queue, records.
    pub queue: usize,
    /// What becomes of a record that finds the queue full.
    pub overflow: Overflow,
    /// Age at which a connection is told of before it ends.
    pub open_after: Duration,
    /// How often the log is forced to the disk; zero is after each batch.
    pub sync_every: Duration,
}

/// How the log fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditHealth {
    /// Why it cannot be written or rotated, if it cannot.
    pub problem: Option<String>,
    /// Records that wait.
    pub queued: usize,
    /// Bound of the queue.
    pub queue: usize,
    /// Records that could not be kept since the daemon started.
    pub lost: u64,
}

/// The handle. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Audit(Arc<Shared>);

/// What the handle and the writer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) live: Live,
    /// What is summed up.
    pub(super) sums: Sums,
    pub(super) metrics: Arc<Metrics>,
    /// Why the log cannot be written, if it cannot.
    pub(super) problem: ArcSwapOption<String>,
    /// Why the log cannot be rotated, if it cannot.
    pub(super) unrotated: ArcSwapOption<String>,
    /// Lost, and not yet told of in the log.
    pub(super) untold: AtomicU64,
    lost: AtomicU64,
    queue: mpsc::Sender<Entry>,
    orders: mpsc::Sender<Order>,
    overflow: Overflow,
    scopes: ArcSwap<HashMap<ScopeId, String>>,
}

/// What travels to the writer.
#[derive(Debug)]
pub(super) enum Entry {
    /// A record to write.
    Record(Box<Record>),
    /// Write and sync everything before this, then answer.
    Flush(oneshot::Sender<()>),
}

/// Room in the queue for one record; none with [`Overflow::Drop`], or once the writer has ended.
pub(super) type Room<'a> = Option<mpsc::Permit<'a, Entry>>;

impl Audit {
    /// Opens the log, repairs what a killed predecessor left behind, and closes the records of its
    /// connections as interrupted. Blocking; call it before serving. The writer must be run, and
    /// outlive everything that makes records.
    ///
    /// # Errors
    /// If the log or its key cannot be opened, or another daemon writes this log.
    pub fn open(
        settings: &AuditSettings,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Writer), LogError> {
        Self::open_after(settings, Before::Gone, clock, metrics)
            .map(|(audit, writer, _)| (audit, writer))
    }

    /// The same after a daemon whose connections are not over: gives their opening records. It has
    /// released the log.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_after(
        settings: &AuditSettings,
        before: Before,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Writer, Vec<Record>), LogError> {
        let (sender, receiver) = mpsc::channel(settings.queue.max(1));
        let (orders, ordered) = mpsc::channel(1);
        let now = (clock.now)();
        let run = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
        let shared = Arc::new(Shared {
            clock,
            live: Live::new(format!("{run:x}")),
            sums: Sums::default(),
            metrics,
            problem: ArcSwapOption::empty(),
            unrotated: ArcSwapOption::empty(),
            untold: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            queue: sender,
            orders,
            overflow: settings.overflow,
            scopes: ArcSwap::default(),
        });
        let (log, open) = Log::open_after(settings, before, &time::format(now))?;
        let writer = Writer::new(Arc::clone(&shared), (receiver, ordered), log, settings);
        Ok((Self(shared), writer, open))
    }

    /// Has the writer do something about the log itself.
    ///
    /// # Errors
    /// What the writer says; or that there is none any more.
    pub(super) async fn have_done<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, LogError>>) -> Order,
    ) -> Result<T, LogError> {
        let (done, wait) = oneshot::channel();
        if self.0.orders.send(order(done)).await.is_err() {
            return Err(LogError::NoWriter);
        }
        wait.await.unwrap_or(Err(LogError::NoWriter))
    }

    /// Takes in a record that another process has made, waiting for room.
    ///
    /// # Cancel safety
    /// Not cancel safe: the record may be lost.
    pub(super) async fn take_in(&self, record: Box<Record>) {
        if self.0.queue.send(Entry::Record(record)).await.is_err() {
            self.0.lose(1);
        }
    }

    /// The wall-clock time now, as records have it.
    pub(super) fn time(&self) -> String {
        time::format((self.0.clock.now)())
    }

    /// Begins the record of a connection.
    pub fn connection(&self, direction: Direction) -> RecordBuilder {
        self.0.metrics.opened(direction.as_str());
        RecordBuilder::new(self.clone(), self.0.live.begin(direction))
    }

    /// Records something about the daemon itself: `reason` is a label, such as `config_reloaded`.
    pub fn daemon(&self, reason: &'static str, detail: Option<String>) {
        let mut record = Box::new(Record::daemon(reason, detail));
        record.time = time::format((self.0.clock.now)());
        self.hand_over(record);
    }

    /// Whether one more record of this denial would be summed up; then it is, and none need be made.
    pub fn sums_up_denial(&self, reason: DenyReason, causer: Causer) -> bool {
        self.sums_up(Key::denied(reason.as_str(), causer))
    }

    /// Whether one more record of an observed connection would be summed up; then it is, and none
    /// need be made.
    pub fn sums_up_observed(&self, causer: Causer) -> bool {
        self.sums_up(Key::observed(causer))
    }

    /// Whether one more record of an observed connection would be summed up, if it ended now.
    pub fn would_sum_up_observed(&self, causer: Causer) -> bool {
        self.0.sums.would_be_full(Key::observed(causer))
    }

    fn sums_up(&self, key: Key) -> bool {
        let is_full = self.0.sums.is_full(key, Instant::now());
        if is_full {
            self.0.metrics.audit_summed_up();
        }
        is_full
    }

    /// The same, waiting for room where that is the policy: for what is done on command, and must
    /// not be done without a record.
    ///
    /// # Cancel safety
    /// Cancel safe: either recorded or not.
    pub async fn order(&self, reason: &'static str, detail: String) {
        let room = self.room().await;
        let mut record = Box::new(Record::daemon(reason, Some(detail)));
        record.time = time::format((self.0.clock.now)());
        match room {
            Some(room) => room.send(Entry::Record(record)),
            None => self.hand_over(record),
        }
    }

    /// The names under which records speak of scopes, from now on.
    pub fn name_scopes(&self, names: HashMap<ScopeId, String>) {
        self.0.scopes.store(Arc::new(names));
    }

    /// The records of all connections that are open, as they stand, oldest first.
    pub fn open_connections(&self) -> Vec<Record> {
        let now = Instant::now();
        let all = self.0.live.all();
        all.iter().filter_map(|connection| connection.snapshot(now)).collect()
    }

    /// How the log fares.
    pub fn health(&self) -> AuditHealth {
        let queue = self.0.queue.max_capacity();
        let problem = self.0.problem.load_full().or_else(|| self.0.unrotated.load_full());
        AuditHealth {
            problem: problem.as_deref().cloned(),
            queued: queue - self.0.queue.capacity(),
            queue,
            lost: self.0.lost.load(Ordering::Relaxed),
        }
    }

    /// Waits until everything handed over so far is on the disk, at most so long. Says whether it
    /// is: a disk that takes nothing would be waited for without end.
    pub async fn flush(&self, patience: Duration) -> bool {
        let flushed = async {
            let (done, wait) = oneshot::channel();
            self.0.queue.send(Entry::Flush(done)).await.is_ok() && wait.await.is_ok()
        };
        tokio::time::timeout(patience, flushed).await.unwrap_or(false)
    }

    /// Waits for room for one record, where that is the policy.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn room(&self) -> Room<'_> {
        match self.0.overflow {
            Overflow::Block => self.0.queue.reserve().await.ok(),
            Overflow::Drop => None,
        }
    }

    /// Hands over the closing record, in the room kept for it if there is some.
    pub(super) fn closed_into(
        &self,
        room: Room<'_>,
        connection: &Connection,
        outcome: Outcome,
        ended: Instant,
    ) {
        let Some(record) = self.0.finish(connection, outcome, ended) else {
            return;
        };
        match room {
            Some(room) => room.send(Entry::Record(record)),
            None => self.hand_over(record),
        }
    }

    /// Hands over the closing record without waiting, unless that has been done.
    pub(super) fn closed(&self, connection: &Connection, outcome: Outcome, ended: Instant) {
        self.closed_into(None, connection, outcome, ended);
    }

    /// The wall-clock time of an instant of the kernel's, by how the clocks stand now.
    pub(super) fn time_of_day(&self, since_boot_ns: u64) -> String {
        time::format(self.0.clock.at_boot_ns(since_boot_ns))
    }

    /// The name of a scope; its number if it has none; nothing for "in no scope".
    pub(super) fn scope_name(&self, scope: ScopeId) -> Option<String> {
        if scope == ScopeId(0) {
            return None;
        }
        Some(self.0.scopes.load().get(&scope).cloned().unwrap_or_else(|| scope.0.to_string()))
    }

    fn hand_over(&self, record: Box<Record>) {
        if self.0.queue.try_send(Entry::Record(record)).is_err() {
            self.0.lose(1);
        }
    }
}

impl Shared {
    /// Makes the closing record; none if it has been made, or is one too many and summed up.
    pub(super) fn finish(
        &self,
        connection: &Connection,
        outcome: Outcome,
        ended: Instant,
    ) -> Option<Box<Record>> {
        let mut record = connection.finish(outcome, ended)?;
        self.live.end(connection);
        if record.time.is_empty() {
            record.time = time::format((self.clock.now)());
        }
        let direction = connection.direction().as_str();
        self.metrics.closed(direction, outcome.as_str(), outcome.reason().unwrap_or_default());
        let (sent, received) = connection.bytes().read();
        self.metrics.carried(direction, sent, received);
        let key = Key::of(&record, connection.direction(), outcome);
        let key = key.filter(|_| !connection.is_announced());
        if key.is_some_and(|key| !self.sums.admit(key, ended)) {
            self.metrics.audit_summed_up();
            return None;
        }
        Some(record)
    }

    /// Counts records that could not be kept.
    pub(super) fn lose(&self, records: u64) {
        self.untold.fetch_add(records, Ordering::Relaxed);
        self.lost.fetch_add(records, Ordering::Relaxed);
        self.metrics.audit_lost(records);
    }
}
