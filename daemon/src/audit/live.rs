//! The connections whose records are still being made, in the order in which they began.
//! The writer finds here which of them are due for an opening record; `tacit connections` lists them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::record::{Event, Label, Record};
use super::{Direction, Outcome, Protection, time};

/// Said of an observed connection whose end is not waited for.
const UNSEEN: &str = "the daemon stopped; the connection goes on without it";

/// Bytes of one connection, as the local application sent and received them.
#[derive(Debug, Default)]
pub struct ByteCounters {
    sent: AtomicU64,
    received: AtomicU64,
}

impl ByteCounters {
    /// Adds bytes that the local application sent.
    pub fn add_sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds bytes that the local application received.
    pub fn add_received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes sent and received so far.
    pub fn read(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }
}

/// One connection whose record is being made.
#[derive(Debug)]
pub(super) struct Connection {
    number: u64,
    id: String,
    direction: Direction,
    started: Instant,
    announced: AtomicBool,
    bytes: Arc<ByteCounters>,
    /// `None` once the closing record is made.
    record: Mutex<Option<Box<Record>>>,
}

impl Connection {
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn direction(&self) -> Direction {
        self.direction
    }

    /// Whether an opening record tells of it, which is to be followed by a closing one.
    pub(super) fn is_announced(&self) -> bool {
        self.announced.load(Ordering::Relaxed)
    }

    pub(super) fn bytes(&self) -> &Arc<ByteCounters> {
        &self.bytes
    }

    /// Changes the record; nothing happens if it has been closed.
    pub(super) fn change(&self, change: impl FnOnce(&mut Record)) {
        if let Some(record) = lock(&self.record).as_mut() {
            change(record);
        }
    }

    /// The record as it is now, for an opening record or a listing; none if it has been closed.
    pub(super) fn snapshot(&self, now: Instant) -> Option<Record> {
        let mut record = lock(&self.record).as_deref()?.clone();
        let is_counted = !is_untouched(&record);
        self.measure(&mut record, now, is_counted);
        Some(record)
    }

    /// Takes the closing record; none if it has been taken.
    pub(super) fn finish(&self, outcome: Outcome, ended: Instant) -> Option<Box<Record>> {
        let mut record = lock(&self.record).take()?;
        let is_unseen = is_untouched(&record) && outcome == Outcome::Interrupted;
        if is_unseen && record.detail.is_none() {
            record.detail = Some(UNSEEN.to_owned());
        }
        self.measure(&mut record, ended, !is_unseen);
        record.event = Event::Close;
        record.outcome = Some(Label::Borrowed(outcome.as_str()));
        record.reason = outcome.reason().map(Label::Borrowed);
        Some(record)
    }

    fn measure(&self, record: &mut Record, at: Instant, is_counted: bool) {
        if is_counted {
            let (sent, received) = self.bytes.read();
            record.bytes_sent = Some(sent);
            record.bytes_received = Some(received);
        }
        if record.duration.is_none() {
            let lived = at.saturating_duration_since(self.started);
            record.duration = Some(time::milliseconds(lived));
        }
    }
}

/// All connections whose records are being made. Numbers rise in the order of beginning.
#[derive(Debug)]
pub(super) struct Live {
    run: String,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    /// Every connection up to this number has been looked at for its opening record.
    looked_at: u64,
    open: BTreeMap<u64, Arc<Connection>>,
}

impl Live {
    /// `run` sets apart the ids of this run of the daemon from those of every other.
    pub(super) fn new(run: String) -> Self {
        Self { run, table: Mutex::default() }
    }

    /// A new connection.
    pub(super) fn begin(&self, direction: Direction) -> Arc<Connection> {
        let mut record = Record::new(Event::Open);
        record.direction = Some(Label::Borrowed(direction.as_str()));
        let mut table = lock(&self.table);
        table.last += 1;
        let number = table.last;
        let id = format!("{}-{number}", self.run);
        record.id = Some(id.clone());
        let connection = Arc::new(Connection {
            number,
            id,
            direction,
            started: Instant::now(),
            announced: AtomicBool::new(false),
            bytes: Arc::default(),
            record: Mutex::new(Some(Box::new(record))),
        });
        table.open.insert(number, Arc::clone(&connection));
        connection
    }

    /// Forgets a connection.
    pub(super) fn end(&self, connection: &Connection) {
        lock(&self.table).open.remove(&connection.number);
    }

    /// Opening records that have become due: each connection once, when it is `after` old.
    pub(super) fn due(&self, after: Duration, now: Instant) -> Vec<Record> {
        let mut due = Vec::new();
        {
            let mut table = lock(&self.table);
            let old = |c: &Connection| now.saturating_duration_since(c.started) >= after;
            let newer = table.looked_at + 1..;
            due.extend(table.open.range(newer).map(|(_, c)| c).take_while(|c| old(c)).cloned());
            if let Some(last) = due.last() {
                table.looked_at = last.number;
            }
        }
        for connection in &due {
            connection.announced.store(true, Ordering::Relaxed);
        }
        due.iter().filter_map(|connection| connection.snapshot(now)).collect()
    }

    /// Opening records, once more, of those still open that have had one: a new file of the log
    /// begins with them, so that whoever reads it knows of every connection that may end in it.
    pub(super) fn announced(&self, now: Instant) -> Vec<Record> {
        let open = self.all();
        let told = open.iter().filter(|c| c.is_announced());
        told.filter_map(|connection| connection.snapshot(now)).collect()
    }

    /// Everything open, oldest first.
    pub(super) fn all(&self) -> Vec<Arc<Connection>> {
        lock(&self.table).open.values().cloned().collect()
    }
}

/// Whether the kernel counts its bytes, and tells them when it ends.
fn is_untouched(record: &Record) -> bool {
    record.protection.as_deref() == Some(Protection::Untouched.as_str())
}

/// A panic while a lock is held leaves at worst a half-told record: it is still worth writing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_connection_is_announced_once_when_it_is_old_enough() {
        let live = Live::new("r".to_owned());
        let after = Duration::from_secs(10);
        let first = live.begin(Direction::Outbound);
        tokio::time::advance(Duration::from_secs(6)).await;
        let second = live.begin(Direction::Inbound);
        assert!(live.due(after, Instant::now()).is_empty());
        tokio::time::advance(Duration::from_secs(5)).await;
        let due = live.due(after, Instant::now());
        assert_eq!(due.iter().map(|r| r.id.as_deref()).collect::<Vec<_>>(), [Some(first.id())]);
        assert!(live.due(after, Instant::now()).is_empty());
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(live.due(after, Instant::now()).len(), 1);
        live.end(&first);
        assert_eq!(live.announced(Instant::now()).len(), 1);
        assert!(second.finish(Outcome::Completed, Instant::now()).is_some());
        assert!(second.finish(Outcome::Completed, Instant::now()).is_none());
        assert!(live.announced(Instant::now()).is_empty());
    }
}
