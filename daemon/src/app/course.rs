//! The daemon from the moment it serves: until it is told to stop, or another takes its place. Then it
//! drains: no new connections, open ones finish until the deadline, the rest is reset and recorded.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};

use crate::admin::AdminSocket;
use crate::api::Bequest;
use crate::config::ReloadHandle;
use crate::shutdown::Tasks;
use crate::sys::service_manager;

use super::drains::Drains;
use super::reign::{Governor, Reign};
use super::sockets::Listeners;
use super::start_error::StartError;
use super::succession::{Candidate, Offer, PATIENCE, Passable, Successor};
use super::surface::Surface;

/// How long the last records may take to be written once everything else has ended.
const LAST_RECORDS: Duration = Duration::from_secs(5);
/// How long a successor that came to nothing may take to let go of the audit log, and how often it
/// is tried.
const LET_GO: Duration = Duration::from_secs(10);
const TRY: Duration = Duration::from_millis(100);

/// A daemon that serves.
pub(super) struct Course {
    pub(super) governor: Governor,
    pub(super) reign: Reign,
    /// What ends when the daemon drains.
    pub(super) serving: Tasks,
    /// The control socket and the loopback port.
    pub(super) front: Tasks,
    /// What lives until the last connection has ended.
    pub(super) last: Tasks,
    pub(super) surface: Surface,
    pub(super) reload: ReloadHandle,
    pub(super) candidates: mpsc::Receiver<Candidate>,
    /// Set while nothing may be changed by command: a successor reads what there is.
    pub(super) frozen: Arc<AtomicBool>,
    pub(super) listeners: Listeners,
    pub(super) passable: Passable,
    pub(super) workload_file: Bequest,
    pub(super) offer: Offer,
    pub(super) drains: Drains,
    pub(super) drain_timeout: Duration,
}

/// SIGTERM and SIGINT mean the same.
struct Signals(Signal, Signal);

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
    }

    /// # Cancel safety
    /// Cancel safe.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

/// What became of a candidate.
enum Turn {
    Taken(Successor),
    Failed(Box<dyn std::error::Error + Send + Sync>),
    Stop,
}

impl Course {
    /// Runs until the daemon has ended. The first signal drains, a second one stops at once.
    pub(super) async fn run(mut self) -> Result<(), StartError> {
        let mut signals = Signals::new()
            .map_err(|source| StartError::Machine { what: "the first signal", source })?;
        let successor = self.until_told(&mut signals).await;
        self.drain(successor, &mut signals).await;
        Ok(())
    }

    /// Gives the successor, if it is for one that the daemon has to end.
    async fn until_told(&mut self, signals: &mut Signals) -> Option<Successor> {
        loop {
            let candidate = tokio::select! {
                biased;
                () = signals.next() => return None,
                Some(candidate) = self.candidates.recv() => candidate,
            };
            let (pid, version) = (candidate.pid, candidate.version.clone());
            tracing::info!(pid, version, "another process is about to take over");
            match self.give_way(candidate, signals).await {
                Turn::Taken(successor) => return Some(successor),
                Turn::Stop => return None,
                Turn::Failed(error) => {
                    tracing::warn!(pid, %error, "it came to nothing; this daemon goes on");
                }
            }
        }
    }

    async fn give_way(&mut self, candidate: Candidate, signals: &mut Signals) -> Turn {
        let offer = Offer { draining: self.drains.pids(), ..self.offer.clone() };
        let prepared = tokio::select! {
            biased;
            () = signals.next() => return Turn::Stop,
            prepared = Successor::prepare(candidate, offer, &self.passable) => prepared,
        };
        let mut successor = match prepared {
            Ok(successor) => successor,
            Err(error) => return Turn::Failed(error.into()),
        };
        match self.let_go(&mut successor).await {
            Ok(()) => Turn::Taken(successor),
            Err(error) => {
                drop(successor);
                self.go_on().await;
                Turn::Failed(error)
            }
        }
    }

    /// From here on until the successor serves, connections are served and nothing is ruled.
    async fn let_go(
        &mut self,
        successor: &mut Successor,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.frozen.store(true, Ordering::SeqCst);
        self.governor.kernel.retire();
        self.reign.end().await;
        self.governor.kernel.last_beat(PATIENCE)?;
        self.governor.audit.release_log().await?;
        Ok(successor.yields().await?)
    }

    /// Takes everything back.
    async fn go_on(&mut self) {
        let patience = Instant::now() + LET_GO;
        while let Err(error) = self.governor.audit.resume_log().await {
            if Instant::now() >= patience {
                tracing::error!(%error, "the audit log is not to be had again; connections wait");
                break;
            }
            sleep(TRY).await;
        }
        if let Err(error) = self.rule_again().await {
            tracing::error!(%error, "this daemon cannot go on ruling: strict scopes will close");
        }
        // The candidate may have put its own in its place.
        match AdminSocket::supersede(&self.surface.socket) {
            Ok(socket) => {
                let Surface { daemon, changes, .. } = &self.surface;
                let (daemon, changes) = (Arc::clone(daemon), Arc::clone(changes));
                let serving = socket.serve(daemon, changes, self.front.stop());
                self.front.spawn("control socket", serving);
            }
            Err(error) => tracing::error!(%error, "there is no control socket any more"),
        }
        self.frozen.store(false, Ordering::SeqCst);
    }

    async fn rule_again(&mut self) -> Result<(), StartError> {
        let kernel = &self.governor.kernel;
        kernel.introduce(&self.listeners.ports(), &self.drains.pids())?;
        // The candidate may have written its own scopes, and a reload meanwhile wrote none.
        let config = Arc::clone(&self.reload.config().borrow());
        self.governor.table.apply(&config.scopes)?;
        kernel.attach()?;
        self.reign = self.governor.begin()?;
        self.governor.adopt(&mut self.reign).await
    }

    async fn drain(mut self, successor: Option<Successor>, signals: &mut Signals) {
        let until = Instant::now() + self.drain_timeout;
        self.drains.begin(until);
        if successor.is_some() {
            self.workload_file.made(true);
        }
        self.serving.ask();
        self.reign.lay_down();
        self.candidates.close();
        let broken = if let Some(successor) = successor {
            tracing::info!(pid = successor.pid, "another process has taken over; draining");
            self.front.ask();
            self.report_to(successor).await
        } else {
            service_manager::stopping();
            tracing::info!(drain = ?self.drain_timeout, "draining; a second signal stops at once");
            None
        };
        drop((self.listeners, self.passable));
        let dropped = tokio::select! {
            biased;
            () = signals.next() => self.serving.drain(Duration::ZERO).await,
            () = lost(broken) => {
                tracing::error!("the successor is gone, and nobody records; stopping at once");
                self.serving.drain(Duration::ZERO).await
            }
            dropped = self.serving.drain(self.drain_timeout) => dropped,
        };
        if dropped > 0 {
            tracing::warn!(dropped, "tasks were dropped at the drain deadline");
        }
        // Those before this daemon record through it; their time ends before its own.
        let _all_gone = timeout_at(until, self.drains.others_gone()).await.is_ok();
        if !self.governor.audit.flush(LAST_RECORDS).await {
            tracing::warn!("the audit log takes no records; they are tried once more, then lost");
        }
        self.reign.end().await;
        self.last.drain(LAST_RECORDS).await;
        self.front.drain(LAST_RECORDS).await;
    }

    /// Sends what this daemon records to its successor, to the last. What is given resolves when
    /// the successor is gone.
    async fn report_to(&mut self, successor: Successor) -> Option<oneshot::Receiver<()>> {
        let records = match self.governor.audit.send_records().await {
            Ok(records) => records,
            Err(error) => {
                tracing::error!(%error, "what this daemon records is lost");
                return None;
            }
        };
        let (over, broken) = oneshot::channel();
        let drains = self.drains.clone();
        self.front.spawn("report to the successor", async move {
            if let Err(error) = successor.report(records, || drains.dump()).await {
                tracing::error!(%error, "the successor does not listen");
                let _heard = over.send(()).is_ok();
            }
        });
        Some(broken)
    }
}

/// Resolves when that is said; never if it is not.
async fn lost(broken: Option<oneshot::Receiver<()>>) {
    if let Some(broken) = broken
        && broken.await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}
