//! Runs a relay until it ends, and says truly how.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::end::{End, Fault};
use super::pump::{Pump, Whose};
use crate::audit::{ByteCounters, CutReason, LocalFailure, Outcome, PeerFailure};
use crate::policy::Permit;
use crate::proxy::live::Life;
use crate::proxy::tls::ChannelError;

/// Under which terms bytes are carried.
#[derive(Debug)]
pub(in crate::proxy) struct Terms {
    counters: Arc<ByteCounters>,
    idle: Option<Duration>,
    life: Life,
}

impl Terms {
    /// What is carried is counted in `counters`. The connection ends when nothing is carried for
    /// `idle` (at the latest for twice that), and when `life` does.
    pub(in crate::proxy) fn new(
        counters: Arc<ByteCounters>,
        idle: Option<Duration>,
        life: Life,
    ) -> Self {
        Self { counters, idle, life }
    }
}

/// Carries bytes both ways until the connection ends, and says how it did. Whatever is no orderly
/// end on both sides becomes a reset on both: neither application may take it for one.
///
/// # Cancel safety
/// Dropped, it resets both ends; bytes on their way are lost.
pub(in crate::proxy) async fn run(
    _permit: &Permit,
    mut app: End,
    mut peer: End,
    mut terms: Terms,
) -> Outcome {
    let counters = Arc::clone(&terms.counters);
    let mut pump = Pump::new(&mut app, &mut peer, &counters);
    let outcome = tokio::select! {
        biased;
        reason = terms.life.ended() => Outcome::Cut(reason),
        ended = poll_fn(|cx| poll_pump(&mut pump, cx)) => ended,
        () = idled(&counters, terms.idle) => Outcome::Cut(CutReason::Idle),
    };
    drop(pump);
    if outcome == Outcome::Completed {
        app.socket.end_in_order();
        peer.socket.end_in_order();
    }
    outcome
}

fn poll_pump(pump: &mut Pump<'_>, cx: &mut Context<'_>) -> Poll<Outcome> {
    pump.poll(cx).map(|ended| match ended {
        Ok(()) => Outcome::Completed,
        Err((Whose::App, fault)) => Outcome::LocalFailed(local_failure(&fault)),
        Err((Whose::Peer, Fault::Io(error))) if error.kind() == io::ErrorKind::TimedOut => {
            Outcome::Cut(CutReason::PeerUnresponsive)
        }
        Err((Whose::Peer, fault)) => Outcome::PeerFailed(peer_failure(&fault)),
    })
}

/// Resolves when nothing has been carried for `limit`. Looks only when that might be so: a busy
/// connection costs no timer.
///
/// # Cancel safety
/// Cancel safe.
async fn idled(counters: &ByteCounters, limit: Option<Duration>) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    let mut seen = counters.read();
    loop {
        sleep_until(Instant::now() + limit).await;
        let now = counters.read();
        if now == seen {
            return;
        }
        seen = now;
    }
}

fn local_failure(fault: &Fault) -> LocalFailure {
    match fault {
        Fault::Io(error) if is_reset(error) => LocalFailure::Reset,
        Fault::Io(_) | Fault::Truncated | Fault::Tls(_) => LocalFailure::Failed,
    }
}

fn peer_failure(fault: &Fault) -> PeerFailure {
    match fault {
        Fault::Io(error) if is_reset(error) => PeerFailure::Reset,
        Fault::Io(_) => PeerFailure::Failed,
        Fault::Truncated => PeerFailure::Truncated,
        Fault::Tls(ChannelError::CertificateRefused(_)) => PeerFailure::CertificateRefused,
        Fault::Tls(_) => PeerFailure::ProtocolViolated,
    }
}

fn is_reset(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), ConnectionReset | BrokenPipe | ConnectionAborted)
}
