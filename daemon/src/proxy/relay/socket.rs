//! Receiving from and sending to a TCP socket by shared reference, ready or not.
//!
//! A short count tells that the kernel has no more (or no more room), which saves the system call
//! that would only say so. Home of nothing else: who reads and writes what is `pump.rs`.

use std::io::{self, IoSlice, Read as _, Write};
use std::ops::Deref;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::sys::sockopt;

/// A socket that sends a reset when it is dropped, unless the connection has ended in order:
/// nobody may take one that was refused, cut, or whose task died, for one that was completed.
#[derive(Debug)]
pub(in crate::proxy) struct ResetOnDrop {
    socket: TcpStream,
    ended_in_order: bool,
}

impl ResetOnDrop {
    pub(in crate::proxy) fn new(socket: TcpStream) -> Self {
        Self { socket, ended_in_order: false }
    }

    /// The coming close is an orderly one.
    pub(in crate::proxy) fn end_in_order(&mut self) {
        self.ended_in_order = true;
    }
}

impl Deref for ResetOnDrop {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.socket
    }
}

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        if self.ended_in_order {
            return;
        }
        if let Err(error) = sockopt::reset_on_close(&self.socket) {
            tracing::debug!(%error, "a connection is closed instead of reset");
        }
    }
}

/// Receives without waiting: `WouldBlock` if nothing is there, 0 at the end of the stream.
pub(super) fn try_receive(socket: &TcpStream, into: &mut [u8]) -> io::Result<usize> {
    let wanted = into.len();
    transfer(socket, Interest::READABLE, wanted, || (&*SockRef::from(socket)).read(into))
}

/// Runs one transfer. If it moved less than it might have, the readiness is cleared, by the tick
/// seen *before* the transfer: news that come in between are not lost. The end of a stream is news
/// that tokio never clears.
fn transfer(
    socket: &TcpStream,
    interest: Interest,
    wanted: usize,
    mut move_bytes: impl FnMut() -> io::Result<usize>,
) -> io::Result<usize> {
    let mut moved = None;
    let done = socket.try_io(interest, || {
        let count = move_bytes()?;
        moved = Some(count);
        if count > 0 && count < wanted { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match (moved, done) {
        (Some(count), _) => Ok(count),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Ok(0),
    }
}

/// Sends without waiting: `WouldBlock` if there is no room.
#[derive(Debug)]
pub(in crate::proxy) struct Sending<'a>(pub(in crate::proxy) &'a TcpStream);

impl Write for Sending<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let send = || SockRef::from(self.0).send(bytes);
        transfer(self.0, Interest::WRITABLE, bytes.len(), send)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let wanted = slices.iter().map(|slice| slice.len()).sum();
        let send = || SockRef::from(self.0).send_vectored(slices);
        transfer(self.0, Interest::WRITABLE, wanted, send)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As writing to [`Sending`], with the promise that more follows at once: the kernel may hold back
/// what does not fill a packet, until something is sent without that promise, or [`push`].
pub(super) fn send_more(socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let send = || SockRef::from(socket).send_with_flags(bytes, sockopt::MORE_FOLLOWS);
    transfer(socket, Interest::WRITABLE, bytes.len(), send)
}

/// Sends what was held back for more to come. Source: `tcp(7)`, `TCP_NODELAY`.
pub(super) fn push(socket: &TcpStream) -> io::Result<()> {
    sockopt::send_at_once(socket)
}

/// Tells the other side that nothing more will be sent (FIN).
pub(super) fn finish_sending(socket: &TcpStream) -> io::Result<()> {
    match SockRef::from(socket).shutdown(std::net::Shutdown::Write) {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
        done => done,
    }
}
