//! Connections to the control surface are few and short: this bounds how many there are at one
//! time and how long each may last, so that whoever may reach it cannot use up what the data
//! plane needs (file descriptors above all).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// Connections at one time. Chosen: a scraper, a prober and some people.
const CONNECTIONS: usize = 32;

/// The longest that one may last. Chosen: `doctor` takes seconds.
const LONGEST: Duration = Duration::from_mins(2);

/// How long to wait when `accept` fails, as it does without file descriptors.
const PAUSE: Duration = Duration::from_millis(200);

/// Room for so many connections.
#[derive(Debug, Clone)]
pub(super) struct Bound(Arc<Semaphore>);

/// A connection that takes up room and ends in time.
#[derive(Debug)]
pub(super) struct Bounded<S> {
    stream: S,
    end: Pin<Box<Sleep>>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Bound {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(CONNECTIONS)))
    }

    /// Waits for room.
    pub(super) async fn room(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        Arc::clone(&self.0).acquire_owned().await.ok()
    }
}

impl<S> Bounded<S> {
    pub(super) fn new(stream: S, room: Option<OwnedSemaphorePermit>) -> Self {
        Self { stream, end: Box::pin(sleep(LONGEST)), _room: room }
    }

    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

/// Says why nobody could be accepted, and waits a moment.
pub(super) async fn pause(error: &io::Error) {
    tracing::warn!(%error, "the control surface could not accept a connection");
    sleep(PAUSE).await;
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
