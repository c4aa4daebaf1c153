//! The two directions of a relayed connection as one state machine without tasks of its own.
//!
//! Reading waits while the other side does not take what was read: that is all the backpressure
//! there is. The end of one direction is carried on and leaves the other open.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::net::TcpStream;

use super::end::{Coat, End, Fault};
use crate::audit::ByteCounters;

/// Transfers in a row after which other tasks get their turn. Chosen: 2 MiB at most.
const TURN: usize = 32;

/// Whose end it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// The local application's.
    App,
    /// The remote peer's.
    Peer,
}

/// How far one direction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Carrying,
    /// The end was read, and is to be handed on.
    Finishing,
    Finished,
}

/// One end with what the pump knows of it.
struct Half<'a> {
    socket: &'a TcpStream,
    coat: &'a mut Coat,
    whose: Whose,
    /// Of the direction in which this end is read.
    stage: Stage,
    /// A reset of a socket that is no longer read is learnt in no other way.
    reset: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
}

/// Both directions of one connection.
pub(super) struct Pump<'a> {
    app: Half<'a>,
    peer: Half<'a>,
    counters: &'a ByteCounters,
}

impl<'a> Pump<'a> {
    pub(super) fn new(app: &'a mut End, peer: &'a mut End, counters: &'a ByteCounters) -> Self {
        let half = |end: &'a mut End, whose| Half {
            socket: &end.socket,
            coat: &mut end.coat,
            whose,
            stage: Stage::Carrying,
            reset: None,
        };
        Self { app: half(app, Whose::App), peer: half(peer, Whose::Peer), counters }
    }

    /// Carries what can be carried now. Ready when both directions have ended in order, or one
    /// end has failed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), (Whose, Fault)>> {
        let Self { app, peer, counters } = self;
        let out = carry(app, peer, cx, |sent| counters.add_sent(sent));
        let back = carry(peer, app, cx, |received| counters.add_received(received));
        match (out, back) {
            (Poll::Ready(Err(fault)), _) | (_, Poll::Ready(Err(fault))) => Poll::Ready(Err(fault)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            (Poll::Pending, _) | (_, Poll::Pending) => self.poll_reset(cx).map(Err),
        }
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<(Whose, Fault)> {
        for half in [&mut self.app, &mut self.peer] {
            if half.stage == Stage::Carrying {
                continue;
            }
            let socket = half.socket;
            let reset = half.reset.get_or_insert_with(|| Box::pin(reset_of(socket)));
            if reset.as_mut().poll(cx).is_ready() {
                let error = io::Error::from(io::ErrorKind::ConnectionReset);
                return Poll::Ready((half.whose, Fault::Io(error)));
            }
        }
        Poll::Pending
    }
}

/// Resolves when the socket has failed. A socket that does not say so is never waited for.
async fn reset_of(socket: &TcpStream) {
    match socket.ready(Interest::ERROR).await {
        Ok(ready) if ready.is_error() => {}
        _ => std::future::pending().await,
    }
}

/// Carries one direction on, as far as it goes without waiting.
fn carry(
    from: &mut Half<'_>,
    to: &mut Half<'_>,
    cx: &mut Context<'_>,
    count: impl Fn(u64),
) -> Poll<Result<(), (Whose, Fault)>> {
    for _ in 0..TURN {
        match from.stage {
            Stage::Finished => return Poll::Ready(Ok(())),
            Stage::Finishing => match to.coat.poll_finish(to.socket, cx) {
                Poll::Ready(Ok(())) => from.stage = Stage::Finished,
                other => return other.map_err(|fault| to.fault(fault)),
            },
            Stage::Carrying => match from.coat.poll_fill(from.socket, cx) {
                Poll::Ready(Ok(0)) => from.stage = Stage::Finishing,
                Poll::Ready(Ok(_)) => match send(from, to, cx) {
                    Poll::Ready(Ok(sent)) => {
                        from.coat.consume(sent);
                        count(u64::try_from(sent).unwrap_or(u64::MAX));
                    }
                    Poll::Ready(Err(fault)) => return Poll::Ready(Err(to.fault(fault))),
                    Poll::Pending => return Poll::Pending,
                },
                Poll::Ready(Err(fault)) => return Poll::Ready(Err((from.whose, fault))),
                // Nothing to read: what the other coat holds back must not wait for more.
                Poll::Pending => match to.coat.poll_flush(to.socket, cx) {
                    Poll::Ready(Err(fault)) => return Poll::Ready(Err(to.fault(fault))),
                    Poll::Ready(Ok(())) | Poll::Pending => return Poll::Pending,
                },
            },
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

fn send(
    from: &mut Half<'_>,
    to: &mut Half<'_>,
    cx: &mut Context<'_>,
) -> Poll<Result<usize, Fault>> {
    let more = from.coat.has_more();
    to.coat.poll_send(to.socket, cx, from.coat.bytes(), more)
}

impl Half<'_> {
    fn fault(&mut self, fault: Fault) -> (Whose, Fault) {
        (self.whose, self.coat.explain(self.socket, fault))
    }
}
