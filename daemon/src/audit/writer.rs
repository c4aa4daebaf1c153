//! The one task that writes the log. What cannot be written now is kept and tried again; while it
//! is kept, nothing more is taken from the queue, so that a full disk is felt by those who
//! produce records (`block`) or counted (`drop`), as configured.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::handle::{AuditSettings, Entry, Shared};
use super::log::{Before, Log, LogError};
use super::record::{Event, Record};
use super::{Outcome, time};
use crate::shutdown::Stop;

/// Records written at once; chosen: one write of about 300 KiB.
const BATCH: usize = 256;

/// Lines are signed at the latest after this long, however few; chosen.
const SIGN_AFTER: Duration = Duration::from_mins(1);

/// Pause after the log could not be rotated; chosen: a rotation forces the log to the disk.
const ROTATE_AGAIN: Duration = Duration::from_secs(1);

/// How often a stopping daemon tries to write its last records, and the pause between.
const LAST_TRIES: u32 = 5;
const LAST_PAUSE: Duration = Duration::from_millis(100);

/// The task; made by [`super::Audit::open`].
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Entry>,
    orders: mpsc::Receiver<Order>,
    settings: AuditSettings,
    sink: Sink,
    /// Taken from the queue and not yet written.
    pending: Vec<Record>,
    /// Those who wait until everything is on the disk.
    waiting: Vec<oneshot::Sender<()>>,
    open_after: Duration,
    sync_every: Duration,
    synced: Instant,
    signed: Instant,
    /// When the log could not be rotated last.
    unrotated: Option<Instant>,
}

/// Where records go.
#[derive(Debug)]
enum Sink {
    /// To the log.
    Log(Box<Log>),
    /// Nowhere for the moment: a successor is about to take the log over. They are kept.
    Held,
    /// To the successor, which has the log.
    Away(mpsc::Sender<Box<Record>>),
    /// A panic has taken the log away, or the successor is gone.
    Lost,
}

/// What is done about the log itself, when one daemon succeeds another.
#[derive(Debug)]
pub(super) enum Order {
    /// Write, sign and sync what there is, close the log, and keep what comes.
    Release(oneshot::Sender<Result<(), LogError>>),
    /// Open it again: the successor came to nothing.
    Resume(oneshot::Sender<Result<(), LogError>>),
    /// Send all records this way from now on.
    Send(mpsc::Sender<Box<Record>>, oneshot::Sender<Result<(), LogError>>),
}

/// What is to be done to the log in one go, off the runtime's threads.
struct Job {
    records: Vec<Record>,
    rotate: bool,
    sign: bool,
    sync: bool,
    time: String,
}

/// How far a job came.
struct JobDone {
    job: Job,
    wrote: u64,
    /// Whether a new file was begun. Its failure is told apart: what was written is written.
    rotation: std::io::Result<bool>,
    result: std::io::Result<()>,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        (queue, orders): (mpsc::Receiver<Entry>, mpsc::Receiver<Order>),
        log: Log,
        settings: &AuditSettings,
    ) -> Self {
        let now = Instant::now();
        Self {
            shared,
            queue,
            orders,
            settings: settings.clone(),
            sink: Sink::Log(Box::new(log)),
            pending: Vec::new(),
            waiting: Vec::new(),
            open_after: settings.open_after,
            sync_every: settings.sync_every,
            synced: now,
            signed: now,
            unrotated: None,
        }
    }

    /// Writes until told to stop; then writes all that is left, closes what is still open as
    /// interrupted, and signs. It is to be stopped last, after everything that makes records.
    pub async fn run(mut self, mut stop: Stop) {
        let pause = self.sync_every.clamp(Duration::from_millis(50), Duration::from_secs(1));
        let mut tick = interval(pause);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                () = stop.draining() => break,
                Some(order) = self.orders.recv() => self.obey(order).await,
                _ = tick.tick() => self.on_tick().await,
                _ = self.queue.recv_many(&mut batch, BATCH), if self.pending.is_empty() => {
                    self.take(&mut batch);
                    self.work(false).await;
                }
            }
        }
        self.finish().await;
    }

    async fn on_tick(&mut self) {
        let now = Instant::now();
        self.shared.metrics.audit_queue(self.queue.len());
        // While the disk refuses, openings wait: each is told of once only.
        if self.pending.is_empty() {
            self.pending.extend(self.shared.live.due(self.open_after, now));
            self.pending.extend(self.shared.sums.over(now, false));
        }
        self.tell_lost();
        self.reopen();
        let sign = now.duration_since(self.signed) >= SIGN_AFTER;
        self.work(sign).await;
    }

    fn take(&mut self, batch: &mut Vec<Entry>) {
        for entry in batch.drain(..) {
            match entry {
                Entry::Record(record) => self.pending.push(*record),
                Entry::Flush(done) => self.waiting.push(done),
            }
        }
    }

    async fn obey(&mut self, order: Order) {
        // Whoever no longer waits for the answer finds out otherwise.
        match order {
            Order::Release(done) => {
                let released = self.release().await;
                let _heard = done.send(released).is_ok();
            }
            Order::Resume(done) => {
                let resumed = self.resume().await;
                let _heard = done.send(resumed).is_ok();
            }
            Order::Send(to, done) => {
                self.sink = Sink::Away(to);
                self.work(false).await;
                let _heard = done.send(Ok(())).is_ok();
            }
        }
    }

    async fn release(&mut self) -> Result<(), LogError> {
        self.work(true).await;
        let sink = std::mem::replace(&mut self.sink, Sink::Held);
        let Sink::Log(log) = sink else {
            self.sink = sink;
            return Err(LogError::NoWriter);
        };
        let time = time::format((self.shared.clock.now)());
        let path = self.settings.path.clone();
        match spawn_blocking(move || log.release(&time)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err((log, error))) => {
                self.sink = Sink::Log(log);
                Err(LogError::Open(path, error))
            }
            Err(_panicked) => {
                self.give_up();
                Err(LogError::NoWriter)
            }
        }
    }

    async fn resume(&mut self) -> Result<(), LogError> {
        let (settings, time) = (self.settings.clone(), time::format((self.shared.clock.now)()));
        let open = move || Log::open_after(&settings, Before::Myself, &time);
        let (log, _mine) = spawn_blocking(open).await.unwrap_or(Err(LogError::NoWriter))?;
        self.sink = Sink::Log(Box::new(log));
        self.work(false).await;
        Ok(())
    }

    /// Writes what is pending, syncs if it is time or somebody waits for it.
    async fn work(&mut self, sign: bool) {
        match std::mem::replace(&mut self.sink, Sink::Lost) {
            Sink::Log(log) => self.write(log, sign).await,
            Sink::Held => self.sink = Sink::Held,
            Sink::Away(to) => self.send(to).await,
            Sink::Lost => self.give_up(),
        }
    }

    /// Sends what is pending to the successor.
    async fn send(&mut self, to: mpsc::Sender<Box<Record>>) {
        let time = time::format((self.shared.clock.now)());
        while !self.pending.is_empty() {
            let Ok(room) = to.reserve().await else { return self.give_up() };
            let mut record = Box::new(self.pending.remove(0));
            if record.time.is_empty() {
                time.clone_into(&mut record.time);
            }
            room.send(record);
        }
        self.sink = Sink::Away(to);
        for done in self.waiting.drain(..) {
            let _heard = done.send(()).is_ok();
        }
    }

    async fn write(&mut self, log: Box<Log>, sign: bool) {
        let now = Instant::now();
        let due = now.duration_since(self.synced) >= self.sync_every;
        let sync = sign || due || !self.waiting.is_empty();
        let time = time::format((self.shared.clock.now)());
        let rotate = self.unrotated.is_none_or(|at| now.duration_since(at) >= ROTATE_AGAIN);
        let job = Job { records: std::mem::take(&mut self.pending), rotate, sign, sync, time };
        let Ok((log, mut done)) = spawn_blocking(move || perform(log, job)).await else {
            return self.give_up();
        };
        self.sink = Sink::Log(log);
        self.pending = std::mem::take(&mut done.job.records);
        self.shared.metrics.audit_wrote(done.wrote);
        match done.result {
            Ok(()) => self.succeeded(&done.job, now),
            Err(error) => self.failed(&error),
        }
        match done.rotation {
            // A new file begins with what is open: see `log::recover`.
            Ok(true) => self.pending.extend(self.shared.live.announced(now)),
            Ok(false) => {}
            Err(error) => self.not_rotated(&error, now),
        }
    }

    fn succeeded(&mut self, job: &Job, now: Instant) {
        if self.shared.problem.swap(None).is_some() {
            tracing::info!("the audit log can be written again");
        }
        if job.rotate && self.unrotated.take().is_some() {
            self.shared.unrotated.store(None);
        }
        if job.sign {
            self.signed = now;
        }
        if job.sync {
            self.synced = now;
            for done in self.waiting.drain(..) {
                // Whoever no longer waits does not need to be told.
                let _heard = done.send(()).is_ok();
            }
        }
    }

    fn failed(&mut self, error: &std::io::Error) {
        self.shared.metrics.audit_failed();
        let problem = Some(Arc::new(format!("it cannot be written: {error}")));
        if self.shared.problem.swap(problem).is_none() {
            tracing::error!(%error, "the audit log cannot be written; records are kept and tried again");
        }
    }

    /// Nothing is lost by it: the file grows on.
    fn not_rotated(&mut self, error: &std::io::Error, now: Instant) {
        self.unrotated = Some(now);
        let problem = Some(Arc::new(format!("it cannot be rotated, and grows on: {error}")));
        if self.shared.unrotated.swap(problem).is_none() {
            tracing::error!(%error, "the audit log cannot be rotated; it grows on");
        }
    }

    /// A panic took the log away, or the successor is gone: nothing can be written any more, and
    /// everybody is told.
    fn give_up(&mut self) {
        let lost = u64::try_from(self.pending.len()).unwrap_or(u64::MAX);
        self.pending.clear();
        self.waiting.clear();
        self.shared.lose(lost);
        self.shared.problem.store(Some(Arc::new("the writer of the audit log failed".to_owned())));
    }

    /// A record of what was lost, once there is something to tell and room to tell it.
    fn tell_lost(&mut self) {
        if self.shared.problem.load().is_some() {
            return;
        }
        let lost = self.shared.untold.swap(0, Ordering::Relaxed);
        if lost > 0 {
            self.pending.push(Record { lost: Some(lost), ..Record::new(Event::Lost) });
        }
    }

    fn reopen(&mut self) {
        let Sink::Log(log) = &mut self.sink else { return };
        match log.reopen_if_moved() {
            Ok(true) => {
                let detail = "its file had been moved or removed".to_owned();
                self.pending.push(Record::daemon("log_reopened", Some(detail)));
            }
            Err(error) => self.failed(&error),
            Ok(false) => {}
        }
    }

    async fn finish(mut self) {
        let mut batch = Vec::new();
        while let Ok(entry) = self.queue.try_recv() {
            batch.push(entry);
        }
        self.take(&mut batch);
        let now = Instant::now();
        for connection in self.shared.live.all() {
            let record = self.shared.finish(&connection, Outcome::Interrupted, now);
            self.pending.extend(record.map(|record| *record));
        }
        // From here on nothing can be handed over; what was, before this line, is still read.
        self.queue.close();
        while let Some(entry) = self.queue.recv().await {
            batch.push(entry);
        }
        self.take(&mut batch);
        self.pending.extend(self.shared.sums.over(now, true));
        self.tell_lost();
        self.pending.push(match self.sink {
            Sink::Away(_) => {
                let pid = format!("process {}", std::process::id());
                Record::daemon("predecessor_drained", Some(pid))
            }
            _ => Record::daemon("stopped", None),
        });
        for _ in 0..LAST_TRIES {
            self.work(true).await;
            if self.shared.problem.load().is_none() {
                break;
            }
            tokio::time::sleep(LAST_PAUSE).await;
        }
        self.shared.lose(u64::try_from(self.pending.len()).unwrap_or(u64::MAX));
        // Also what found no room in the queue, and no chance to be told of in the log.
        let lost = self.shared.untold.load(Ordering::Relaxed);
        if lost > 0 {
            tracing::error!(lost, "the daemon ends, and these audit records are lost");
        }
    }
}

fn perform(mut log: Box<Log>, mut job: Job) -> (Box<Log>, JobDone) {
    let before = log.seq();
    // A file that cannot be rotated grows on: that is no reason to lose records.
    let rotation = if job.rotate { log.rotate_if_due(&job.time) } else { Ok(false) };
    let result = (|| {
        if !job.records.is_empty() {
            log.append(&mut job.records, &job.time)?;
        }
        if job.sign {
            log.sign(&job.time)?;
        }
        if job.sync { log.sync() } else { Ok(()) }
    })();
    let wrote = log.seq().saturating_sub(before);
    (log, JobDone { job, wrote, rotation, result })
}
