//! The mark of the mesh: sixteen random bytes and their tag, where a `ClientHello` carries its legacy
//! session id, which TLS 1.3 servers echo and otherwise ignore (RFC 8446 §4.1.2).
//!
//! It tells the mesh's TLS from TLS that an application speaks by itself. It proves nothing and
//! grants nothing: anyone can compute it. Start at [`marked`] and [`is_marked`].

use std::cell::Cell;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::crypto::{GetRandomFailed, SecureRandom};

/// Length of the legacy session id that is sent. Source: RFC 8446 §4.1.2.
pub(in crate::proxy) const SESSION_ID_BYTES: usize = 32;
/// Random bytes before the tag; the tag has as many.
const NONCE_BYTES: usize = 16;
/// Sets this use of SHA-256 apart from every other.
const LABEL: &[u8] = b"tacit mesh marker 1\0";

thread_local! {
    /// The next session id drawn on this thread is to bear the mark.
    static MARK_NEXT: Cell<bool> = const { Cell::new(false) };
}

/// The provider's source of randomness. It draws session ids with the mark inside [`marked`].
#[derive(Debug)]
pub(super) struct MarkingRandom;

impl SecureRandom for MarkingRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        aws_lc_rs::rand::fill(bytes).map_err(|_unspecified| GetRandomFailed)?;
        // rustls draws the session id first; the client random, equally long, comes after it.
        if bytes.len() == SESSION_ID_BYTES && MARK_NEXT.take() {
            write_tag(bytes);
        }
        Ok(())
    }
}

/// Runs `make`, which makes one client connection, so that its `ClientHello` bears the mark.
pub(super) fn marked<T>(make: impl FnOnce() -> T) -> T {
    /// A connection that could not be made must not leave its mark to the next.
    struct Unset;
    impl Drop for Unset {
        fn drop(&mut self) {
            MARK_NEXT.set(false);
        }
    }
    let _unset = Unset;
    MARK_NEXT.set(true);
    make()
}

/// Whether a legacy session id bears the mark.
pub(in crate::proxy) fn is_marked(session_id: &[u8]) -> bool {
    session_id.len() == SESSION_ID_BYTES
        && session_id
            .split_at_checked(NONCE_BYTES)
            .is_some_and(|(nonce, found)| found == tag(nonce))
}

fn write_tag(session_id: &mut [u8]) {
    if let Some((nonce, place)) = session_id.split_at_mut_checked(NONCE_BYTES) {
        place.copy_from_slice(&tag(nonce));
    }
}

fn tag(nonce: &[u8]) -> [u8; NONCE_BYTES] {
    let mut context = Context::new(&SHA256);
    context.update(LABEL);
    context.update(nonce);
    let digest = context.finish();
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw() -> [u8; SESSION_ID_BYTES] {
        let mut bytes = [0; SESSION_ID_BYTES];
        MarkingRandom.fill(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn only_the_first_draw_of_that_length_bears_the_mark() {
        let drawn = marked(|| {
            MarkingRandom.fill(&mut [0; 2]).unwrap();
            [draw(), draw()]
        });
        assert!(is_marked(&drawn[0]));
        assert!(!is_marked(&drawn[1]));
        assert_ne!(drawn[0], draw());
    }

    #[test]
    fn a_mark_that_was_not_used_is_forgotten() {
        marked(|| ());
        assert!(!is_marked(&draw()));
    }

    #[test]
    fn nothing_else_is_taken_for_a_mark() {
        let session_id = marked(draw);
        assert!(is_marked(&session_id));
        assert!(!is_marked(&session_id[..31]));
        assert!(!is_marked(&[]));
        assert!(!is_marked(&[0; SESSION_ID_BYTES]));
        for bit in 0..SESSION_ID_BYTES * 8 {
            let mut other = session_id;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_marked(&other), "bit {bit}");
        }
    }
}
