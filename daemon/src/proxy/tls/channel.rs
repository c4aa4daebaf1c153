//! One TLS connection over one TCP socket, driven by hand: rustls keeps the state, the relay keeps
//! the order. Nothing is held for an idle connection but the state itself.

use std::io::{self, BufRead as _, Read, Write as _};
use std::task::{Context, Poll, ready};

use rustls::{AlertDescription, Connection, Error};
use thiserror::Error as ThisError;
use tokio::net::TcpStream;

use crate::proxy::relay::{Inbox, Sending};

/// A TLS connection.
#[derive(Debug)]
pub(in crate::proxy) struct Channel {
    pub(super) tls: Connection,
    /// What was received and not yet decrypted.
    received: Inbox,
    /// The peer's FIN was received.
    ended: bool,
    closed: bool,
}

/// What can go wrong in a TLS connection.
#[derive(Debug, ThisError)]
pub(in crate::proxy) enum ChannelError {
    /// The socket failed.
    #[error("the connection failed")]
    Io(#[source] io::Error),
    /// TCP ended without `close_notify`: what the peer said may be cut short.
    #[error("closed without close_notify")]
    Truncated,
    /// The peer refused our certificate by this alert.
    #[error("the peer refused our certificate: {0:?}")]
    CertificateRefused(AlertDescription),
    /// Any other fault of TLS.
    #[error(transparent)]
    Tls(Error),
}

impl Channel {
    /// A connection before its handshake; `heard` is what the peer has said so far.
    pub(super) fn new(mut tls: Connection, heard: Inbox) -> Self {
        // As much may wait for the socket as may be received at once.
        tls.set_buffer_limit(Some(heard.most()));
        Self { tls, received: heard, ended: false, closed: false }
    }

    /// Waits for plaintext and says how much there is; 0 after the peer's `close_notify`.
    pub(in crate::proxy) fn poll_fill(
        &mut self,
        socket: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, ChannelError>> {
        loop {
            match self.tls.reader().fill_buf() {
                Ok(bytes) => return Poll::Ready(Ok(bytes.len())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(Err(ChannelError::Truncated));
                }
                Err(error) => return Poll::Ready(Err(ChannelError::Io(error))),
            }
            ready!(self.poll_receive(socket, cx))?;
        }
    }

    /// The plaintext that has been received.
    pub(in crate::proxy) fn bytes(&mut self) -> &[u8] {
        self.tls.reader().into_first_chunk().unwrap_or_default()
    }

    /// Whether more has been received that was not looked at yet.
    pub(in crate::proxy) fn has_more(&self) -> bool {
        !self.received.bytes().is_empty()
    }

    /// Takes note that the first `count` bytes of it have been handed on.
    pub(in crate::proxy) fn consume(&mut self, count: usize) {
        self.tls.reader().consume(count);
    }

    /// Encrypts a first part of `bytes` and says how much; waits while what was encrypted before
    /// is not sent.
    pub(in crate::proxy) fn poll_send(
        &mut self,
        socket: &TcpStream,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, ChannelError>> {
        ready!(self.poll_flush(socket, cx))?;
        let taken = self.tls.writer().write(bytes).map_err(ChannelError::Io)?;
        match self.poll_flush(socket, cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken)),
        }
    }

    /// Sends what is encrypted.
    pub(in crate::proxy) fn poll_flush(
        &mut self,
        socket: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ChannelError>> {
        while self.tls.wants_write() {
            ready!(socket.poll_write_ready(cx)).map_err(ChannelError::Io)?;
            match self.tls.write_tls(&mut Sending(socket)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(ChannelError::Io(error))),
                Ok(_) => {}
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Queues `close_notify`, once.
    pub(in crate::proxy) fn close(&mut self) {
        if !self.closed {
            self.closed = true;
            self.tls.send_close_notify();
        }
    }

    /// Reads what is there already, without waiting, for the alert that explains why the peer
    /// closed.
    pub(in crate::proxy) fn last_word(&mut self, socket: &TcpStream) -> Option<ChannelError> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        loop {
            match self.poll_receive(socket, &mut cx) {
                Poll::Ready(Ok(())) if self.ended || !self.tls.wants_read() => return None,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(ChannelError::Io(_))) | Poll::Pending => return None,
                Poll::Ready(Err(error)) => return Some(error),
            }
        }
    }

    /// Whether the peer has closed TCP.
    pub(super) fn is_at_end(&self) -> bool {
        self.ended
    }

    /// Receives once and lets TLS look at it.
    pub(super) fn poll_receive(
        &mut self,
        socket: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ChannelError>> {
        let Poll::Ready(filled) = self.received.poll_fill(socket, cx) else {
            self.rest();
            return Poll::Pending;
        };
        self.ended = filled.map_err(ChannelError::Io)? == 0;
        // At the end of the stream this is empty, which is how rustls learns of it.
        let mut bytes = self.received.bytes();
        let taken = self.tls.read_tls(&mut bytes).map_err(ChannelError::Io)?;
        self.received.consume(taken);
        let processed = self.tls.process_new_packets();
        // An answer (of a key update, or an alert) goes out as far as the socket takes it now.
        let answered = self.poll_flush(socket, cx);
        match (processed, answered) {
            (Err(error), _) => Poll::Ready(Err(error.into())),
            (Ok(_), Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (Ok(_), _) => Poll::Ready(Ok(())),
        }
    }

    /// Gives back what rustls keeps of its receive buffer beyond the least: it shrinks the buffer
    /// when it is about to read into it.
    fn rest(&mut self) {
        struct Nothing;
        impl Read for Nothing {
            fn read(&mut self, _into: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::WouldBlock.into())
            }
        }
        if self.tls.read_tls(&mut Nothing).is_ok() {
            tracing::error!("TLS took bytes from where there are none");
        }
    }
}

impl From<Error> for ChannelError {
    fn from(error: Error) -> Self {
        match error {
            Error::AlertReceived(alert) if is_about_certificates(alert) => {
                Self::CertificateRefused(alert)
            }
            other => Self::Tls(other),
        }
    }
}

/// Alerts by which a peer says that it does not accept our certificate. Source: RFC 8446 §6.2.
fn is_about_certificates(alert: AlertDescription) -> bool {
    use AlertDescription as Alert;
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateRequired
    )
}
