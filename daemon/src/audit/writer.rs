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
use super::log::Log;
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
    /// None only if a panic has taken it away.
    log: Option<Log>,
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
        queue: mpsc::Receiver<Entry>,
        log: Log,
        settings: &AuditSettings,
    ) -> Self {
        let now = Instant::now();
        Self {
            shared,
            queue,
            log: Some(log),
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

    /// Writes what is pending, syncs if it is time or somebody waits for it.
    async fn work(&mut self, sign: bool) {
        let now = Instant::now();
        let due = now.duration_since(self.synced) >= self.sync_every;
        let sync = sign || due || !self.waiting.is_empty();
        let Some(log) = self.log.take() else {
            return self.give_up();
        };
        let time = time::format((self.shared.clock.now)());
        let rotate = self.unrotated.is_none_or(|at| now.duration_since(at) >= ROTATE_AGAIN);
        let job = Job { records: std::mem::take(&mut self.pending), rotate, sign, sync, time };
        let Ok((log, mut done)) = spawn_blocking(move || perform(log, job)).await else {
            return self.give_up();
        };
        self.log = Some(log);
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

    /// A panic took the log away: nothing can be written any more, and everybody is told.
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
        match self.log.as_mut().map(Log::reopen_if_moved) {
            Some(Ok(true)) => {
                let detail = "its file had been moved or removed".to_owned();
                self.pending.push(Record::daemon("log_reopened", Some(detail)));
            }
            Some(Err(error)) => self.failed(&error),
            Some(Ok(false)) | None => {}
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
        self.pending.push(Record::daemon("stopped", None));
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

fn perform(mut log: Log, mut job: Job) -> (Log, JobDone) {
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
