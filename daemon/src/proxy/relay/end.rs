//! One end of a relayed connection: a socket, and what its bytes are wrapped in.

use std::io::{self, Write as _};
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;

use super::inbox::Inbox;
use super::socket::{ResetOnDrop, Sending, finish_sending, push, send_more};
use crate::proxy::tls::{Channel, ChannelError};

/// A socket and what its bytes are wrapped in.
#[derive(Debug)]
pub(in crate::proxy) struct End {
    pub(super) socket: ResetOnDrop,
    pub(super) coat: Coat,
}

/// What the bytes on a socket are wrapped in.
#[derive(Debug)]
pub(super) enum Coat {
    /// Nothing.
    Plain(Plain),
    /// Our TLS, its handshake done.
    Tls(Box<Channel>),
}

/// Bytes without a wrap.
#[derive(Debug)]
pub(super) struct Plain {
    /// What was received and not yet handed on.
    inbox: Inbox,
    /// What was sent last may wait for more in the kernel.
    held_back: bool,
}

impl End {
    /// An end that is spoken to in the clear; `heard` is what it has said so far.
    pub(in crate::proxy) fn plain(socket: ResetOnDrop, heard: Inbox) -> Self {
        Self { socket, coat: Coat::Plain(Plain { inbox: heard, held_back: false }) }
    }

    /// An end behind our TLS.
    pub(in crate::proxy) fn tls(socket: ResetOnDrop, channel: Box<Channel>) -> Self {
        Self { socket, coat: Coat::Tls(channel) }
    }
}

/// What can go wrong with one end.
#[derive(Debug)]
pub(super) enum Fault {
    /// The socket failed.
    Io(io::Error),
    /// TCP ended without TLS's `close_notify`.
    Truncated,
    /// What was received is no valid TLS, or is a TLS alert.
    Tls(ChannelError),
}

impl Coat {
    /// Waits for bytes to hand on and says how many there are; 0 is the orderly end.
    pub(super) fn poll_fill(
        &mut self,
        socket: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, Fault>> {
        match self {
            Self::Plain(plain) => plain.inbox.poll_fill(socket, cx).map_err(Fault::Io),
            Self::Tls(channel) => channel.poll_fill(socket, cx).map_err(Fault::from),
        }
    }

    /// The bytes to hand on.
    pub(super) fn bytes(&mut self) -> &[u8] {
        match self {
            Self::Plain(plain) => plain.inbox.bytes(),
            Self::Tls(channel) => channel.bytes(),
        }
    }

    /// Takes note that the first `count` bytes have been handed on.
    pub(super) fn consume(&mut self, count: usize) {
        match self {
            Self::Plain(plain) => plain.inbox.consume(count),
            Self::Tls(channel) => channel.consume(count),
        }
    }

    /// Whether more has been received than [`Self::bytes`] shows.
    pub(super) fn has_more(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(channel) => channel.has_more(),
        }
    }

    /// Sends a first part of `bytes` and says how many; waits if the socket takes none. With `more`
    /// to follow at once, it may be held back until [`Self::poll_flush`].
    pub(super) fn poll_send(
        &mut self,
        socket: &TcpStream,
        cx: &mut Context<'_>,
        bytes: &[u8],
        more: bool,
    ) -> Poll<Result<usize, Fault>> {
        match self {
            Self::Plain(plain) => plain.poll_send(socket, cx, bytes, more).map_err(Fault::Io),
            Self::Tls(channel) => channel.poll_send(socket, cx, bytes).map_err(Fault::from),
        }
    }

    /// Sends what [`Self::poll_send`] took and holds back.
    pub(super) fn poll_flush(
        &mut self,
        socket: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        match self {
            Self::Plain(plain) => Poll::Ready(plain.flush(socket).map_err(Fault::Io)),
            Self::Tls(channel) => channel.poll_flush(socket, cx).map_err(Fault::from),
        }
    }

    /// Says that nothing more will be sent; the other direction goes on.
    pub(super) fn poll_finish(
        &mut self,
        socket: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        if let Self::Tls(channel) = self {
            channel.close();
            ready!(channel.poll_flush(socket, cx)).map_err(Fault::from)?;
        }
        Poll::Ready(finish_sending(socket).map_err(Fault::Io))
    }

    /// After sending failed: what the peer had said before, if that explains it. A peer that
    /// refuses our certificate sends an alert and closes, and we may see the reset first.
    pub(super) fn explain(&mut self, socket: &TcpStream, fault: Fault) -> Fault {
        match (self, &fault) {
            (Self::Tls(channel), Fault::Io(_)) => {
                channel.last_word(socket).map_or(fault, Fault::Tls)
            }
            _ => fault,
        }
    }
}

impl From<ChannelError> for Fault {
    fn from(error: ChannelError) -> Self {
        match error {
            ChannelError::Io(error) => Self::Io(error),
            ChannelError::Truncated => Self::Truncated,
            other => Self::Tls(other),
        }
    }
}

impl Plain {
    fn poll_send(
        &mut self,
        socket: &TcpStream,
        cx: &mut Context<'_>,
        bytes: &[u8],
        more: bool,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(socket.poll_write_ready(cx))?;
            let sent = if more { send_more(socket, bytes) } else { Sending(socket).write(bytes) };
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => {
                    self.held_back = more;
                    return Poll::Ready(done);
                }
            }
        }
    }

    fn flush(&mut self, socket: &TcpStream) -> io::Result<()> {
        if std::mem::take(&mut self.held_back) { push(socket) } else { Ok(()) }
    }
}
