//! Bytes received and not yet handed on, in a buffer that grows while reads fill it and is given
//! back when there is nothing to read: an idle connection holds none.

use std::io;
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;

use super::socket::try_receive;

/// First size of a buffer. Chosen: most requests fit.
const MIN_BYTES: usize = 4 << 10;
/// A buffer for what one socket receives.
#[derive(Debug)]
pub(in crate::proxy) struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    size: usize,
    most: usize,
}

impl Inbox {
    /// Nothing received yet; `most` is the largest size of the buffer, bytes.
    pub(in crate::proxy) fn new(most: usize) -> Self {
        let size = most.clamp(1, MIN_BYTES);
        Self { buffer: Vec::new(), start: 0, end: 0, size, most: most.max(1) }
    }

    /// The largest size of the buffer, bytes.
    pub(in crate::proxy) fn most(&self) -> usize {
        self.most
    }

    /// What has been received and not consumed.
    pub(in crate::proxy) fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Takes note that the first `count` bytes have been handed on.
    pub(in crate::proxy) fn consume(&mut self, count: usize) {
        self.start = self.end.min(self.start + count);
    }

    /// Makes sure that there are bytes; 0 is the end of the stream. Gives the buffer back if
    /// there is nothing to read yet.
    pub(in crate::proxy) fn poll_fill(
        &mut self,
        socket: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.start < self.end {
            return Poll::Ready(Ok(self.end - self.start));
        }
        (self.start, self.end) = (0, 0);
        let filled = self.poll_more(socket, cx);
        if self.end == 0 && self.buffer.capacity() > 0 {
            self.buffer = Vec::new();
        }
        filled
    }

    /// Receives more behind what is there; 0 is the end of the stream.
    pub(in crate::proxy) fn poll_more(
        &mut self,
        socket: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(socket.poll_read_ready(cx))?;
            self.make_room();
            let room = self.buffer.get_mut(self.end..).unwrap_or_default();
            let wanted = room.len();
            match try_receive(socket, room) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(count) => {
                    self.end += count;
                    self.adapt(wanted, count);
                    return Poll::Ready(Ok(count));
                }
            }
        }
    }

    /// Only ever called when something has come, so that waiting costs no buffer.
    fn make_room(&mut self) {
        if self.end == 0 && self.buffer.len() < self.size {
            self.buffer = vec![0; self.size];
        } else if self.end == self.buffer.len() {
            self.buffer.resize(self.end + self.size, 0);
        }
    }

    /// A read that filled the buffer asks for a larger one next time, a small one for a smaller.
    fn adapt(&mut self, wanted: usize, count: usize) {
        if count == wanted {
            self.size = (self.size * 2).min(self.most);
        } else if count < self.size / 4 {
            self.size = (self.size / 2).max(MIN_BYTES.min(self.most));
        }
    }
}
