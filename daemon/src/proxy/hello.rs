//! What does a client say first? TLS with the mark of the mesh, other TLS, plain bytes, or nothing.
//!
//! Bytes are read once, into the inbox that TLS or the application then reads from; nothing is
//! decided here. A `ClientHello` may come in any number of segments and records. The answer depends
//! on the bytes alone, never on how they were cut. Start at [`listen`].

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::relay::Inbox;
use super::tls::{SESSION_ID_BYTES, is_marked};

/// What a client has said first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hello {
    /// TLS, with the mark of the mesh.
    Marked,
    /// TLS without it.
    Unmarked,
    /// Anything but TLS, or the end of what it has to say.
    Plaintext,
    /// Nothing within the first-byte timeout.
    Silent,
    /// It began like TLS, but is no `ClientHello`, or not within the time for one.
    Garbage,
}

/// Record type of handshake messages. Source: RFC 8446 §5.1.
const HANDSHAKE: u8 = 22;
/// Message type of a `ClientHello`. Source: RFC 8446 §4.
const CLIENT_HELLO: u8 = 1;
/// Major version in every version field of TLS since SSL 3.
const MAJOR_VERSION: u8 = 3;
/// Longest fragment in a record. Source: RFC 8446 §5.1.
const MAX_FRAGMENT: usize = 1 << 14;
/// Message type, length, version and random stand before the length of the session id.
const SESSION_ID_LENGTH_AT: usize = 1 + 3 + 2 + 32;
/// As much of a `ClientHello` as is looked at.
const LOOKED_AT: usize = SESSION_ID_LENGTH_AT + 1 + SESSION_ID_BYTES;
/// Shortest body of a `ClientHello`: version, random, and the lengths of what follows.
const MIN_BODY: u32 = 2 + 32 + 1 + 2 + 1;

/// Reads until it is known what the client speaks. What was read stays in `inbox`.
///
/// `first_byte` limits the wait for the first byte; `complete` the wait for as much of a
/// `ClientHello` as is looked at.
///
/// # Errors
/// The client reset the connection.
///
/// # Cancel safety
/// Cancel safe: what was read is in `inbox`.
pub(super) async fn listen(
    socket: &TcpStream,
    inbox: &mut Inbox,
    first_byte: Duration,
    complete: Duration,
) -> io::Result<Hello> {
    let start = Instant::now();
    loop {
        if let Some(hello) = classify(inbox.bytes()) {
            return Ok(hello);
        }
        let begun = !inbox.bytes().is_empty();
        let deadline = start + if begun { complete } else { first_byte };
        let more = poll_fn(|cx| inbox.poll_more(socket, cx));
        match timeout_at(deadline, more).await {
            Err(_elapsed) if begun => return Ok(Hello::Garbage),
            Err(_elapsed) => return Ok(Hello::Silent),
            Ok(Err(error)) => return Err(error),
            Ok(Ok(0)) if begun => return Ok(Hello::Garbage),
            Ok(Ok(0)) => return Ok(Hello::Plaintext),
            Ok(Ok(_)) => {}
        }
    }
}

/// What the bytes that a client sent first are; `None` while that cannot be said.
pub(super) fn classify(bytes: &[u8]) -> Option<Hello> {
    let mut message = Message::default();
    let mut rest = bytes;
    loop {
        let not_tls = if message.len == 0 { Hello::Plaintext } else { Hello::Garbage };
        match rest {
            [] => return None,
            [kind, ..] if *kind != HANDSHAKE => return Some(not_tls),
            [_, major, ..] if *major != MAJOR_VERSION => return Some(not_tls),
            _ => {}
        }
        let (header, body) = rest.split_first_chunk::<5>()?;
        let [_, _, _, high, low] = *header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length == 0 || length > MAX_FRAGMENT {
            return Some(not_tls);
        }
        let fragment = body.get(..length).unwrap_or(body);
        message.append(fragment);
        if let Some(hello) = message.judge() {
            return Some(hello);
        }
        rest = body.get(length..)?;
    }
}

/// The start of a handshake message, put together from its fragments.
struct Message {
    bytes: [u8; LOOKED_AT],
    len: usize,
}

impl Default for Message {
    fn default() -> Self {
        Self { bytes: [0; LOOKED_AT], len: 0 }
    }
}

impl Message {
    fn append(&mut self, fragment: &[u8]) {
        let room = self.bytes.iter_mut().skip(self.len);
        let taken = room.zip(fragment).map(|(place, byte)| *place = *byte).count();
        self.len += taken;
    }

    /// Each field is judged as soon as it is there.
    fn judge(&self) -> Option<Hello> {
        let message = self.bytes.get(..self.len)?;
        let (kind, message) = message.split_first()?;
        if *kind != CLIENT_HELLO {
            return Some(Hello::Garbage);
        }
        let (&[a, b, c], message) = message.split_first_chunk::<3>()?;
        if u32::from_be_bytes([0, a, b, c]) < MIN_BODY {
            return Some(Hello::Garbage);
        }
        let (major, message) = message.split_first()?;
        if *major != MAJOR_VERSION {
            return Some(Hello::Garbage);
        }
        let (length, session_id) = message.get(1 + 32..)?.split_first()?;
        match usize::from(*length) {
            SESSION_ID_BYTES => {
                let session_id = session_id.get(..SESSION_ID_BYTES)?;
                Some(if is_marked(session_id) { Hello::Marked } else { Hello::Unmarked })
            }
            0..SESSION_ID_BYTES => Some(Hello::Unmarked),
            _ => Some(Hello::Garbage),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proxy::tls::client_hello;

    /// Cuts one record into records with fragments of at most `size` bytes.
    fn fragmented(record: &[u8], size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for fragment in record[5..].chunks(size) {
            out.extend_from_slice(&record[..3]);
            out.extend_from_slice(&u16::try_from(fragment.len()).unwrap().to_be_bytes());
            out.extend_from_slice(fragment);
        }
        out
    }

    /// The answer to growing prefixes: none, then always the same.
    fn check(bytes: &[u8]) -> Option<Hello> {
        let whole = classify(bytes);
        let mut said = None;
        for end in 0..=bytes.len() {
            let now = classify(&bytes[..end]);
            assert!(said.is_none() || now == said, "{now:?} after {said:?} at {end}");
            said = now;
        }
        assert_eq!(said, whole);
        whole
    }

    #[test]
    fn tells_ours_from_others_however_it_is_cut() {
        for (mark, expected) in [(true, Hello::Marked), (false, Hello::Unmarked)] {
            let record = client_hello(mark);
            assert!(record.len() > 1200, "the hybrid key share is missing");
            assert_eq!(check(&record), Some(expected));
            for size in [1, 2, 3, 7, 38, 70, 71, 1000] {
                assert_eq!(check(&fragmented(&record, size)), Some(expected), "{size}");
            }
        }
    }

    #[test]
    fn tells_what_is_no_tls() {
        for (bytes, expected) in [
            (&b""[..], None),
            (b"GET / HTTP/1.1\r\n", Some(Hello::Plaintext)),
            (b"\0", Some(Hello::Plaintext)),
            (b"\x16", None),
            (b"\x16\x02", Some(Hello::Plaintext)),
            (b"\x16\x03\x01\0\0", Some(Hello::Plaintext)),
            (b"\x16\x03\x01\x40\x01", Some(Hello::Plaintext)),
            (b"\x16\x03\x01\0\x05\x02", Some(Hello::Garbage)),
            (b"\x16\x03\x01\0\x05\x01\0\0\x01", Some(Hello::Garbage)),
            (b"\x16\x03\x01\0\x01\x01\x17", Some(Hello::Garbage)),
            (b"\x15\x03\x01\0\x02\x01\0", Some(Hello::Plaintext)),
        ] {
            assert_eq!(check(bytes), expected, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_get_one_answer(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            check(&bytes);
        }

        #[test]
        fn a_damaged_hello_gets_one_answer(
            at in 0_usize..100, to in any::<u8>(), size in 1_usize..100, cut in 0_usize..200,
        ) {
            let mut record = client_hello(true);
            record[at] = to;
            record.truncate(record.len() - cut);
            check(&record);
            check(&fragmented(&record, size));
        }
    }

    async fn hear(bytes: &'static [u8], then_close: bool) -> (Hello, Vec<u8>) {
        use tokio::io::AsyncWriteExt as _;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let say = async {
            client.set_nodelay(true).unwrap();
            for byte in bytes {
                client.write_all(&[*byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
            if then_close {
                client.shutdown().await.unwrap();
            }
        };
        let mut inbox = Inbox::new(4096);
        let wait = Duration::from_millis(300);
        let (hello, ()) = tokio::join!(listen(&server, &mut inbox, wait, wait), say);
        (hello.unwrap(), inbox.bytes().to_vec())
    }

    #[tokio::test]
    async fn what_was_heard_is_kept() {
        assert_eq!(hear(b"", false).await, (Hello::Silent, Vec::new()));
        assert_eq!(hear(b"", true).await, (Hello::Plaintext, Vec::new()));
        assert_eq!(hear(b"\x16\x03", false).await, (Hello::Garbage, b"\x16\x03".to_vec()));
        assert_eq!(hear(b"\x16\x03", true).await, (Hello::Garbage, b"\x16\x03".to_vec()));
        let (hello, heard) = hear(b"SELECT 1", false).await;
        assert_eq!(hello, Hello::Plaintext);
        assert!(b"SELECT 1".starts_with(&heard) && !heard.is_empty());
    }

    #[tokio::test]
    async fn a_hello_that_comes_byte_by_byte_is_understood() {
        let record: &'static [u8] = Box::leak(client_hello(true).into_boxed_slice());
        let (hello, heard) = hear(record, false).await;
        assert_eq!(hello, Hello::Marked);
        assert!(record.starts_with(&heard));
    }
}
