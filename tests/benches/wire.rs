//! What the wire carried: encrypted for every peer that says so, and readable for plain TCP, which
//! is the control that shows that the search can find something.

use anyhow::{Result, ensure};

use crate::ground::Ground;
use crate::peer::Peer;

/// What is sent, and searched for on the wire.
const MARKER: &str = "whoever-can-read-this-on-the-wire-has-not-met-any-encryption";

/// What crossed the wire in one exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wire {
    pub(crate) encrypted: bool,
    /// What the server chose.
    pub(crate) choice: Option<Choice>,
}

/// What a `ServerHello` chooses, by the names of IANA's registry of TLS parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) cipher: String,
    pub(crate) group: String,
}

/// Sends a text over a peer and looks for it on the wire between the nodes.
///
/// # Errors
/// If it crossed in the clear where it must not, or was not found where it must be.
pub(crate) fn check(ground: &Ground, peer: Peer) -> Result<Wire> {
    let capture = ground.near(peer).capture("bench")?;
    ground.load(peer, "say", &[MARKER])?;
    let packets = capture.stop()?;
    let readable = packets.contain(MARKER.as_bytes());
    let name = peer.name();
    if !peer.claims_encryption() {
        ensure!(readable, "the text was not found on the wire of {name}: the search sees nothing");
        return Ok(Wire { encrypted: false, choice: None });
    }
    ensure!(!readable, "the text crossed the wire of {name} in the clear");
    ensure!(packets.hold_tls(), "no TLS handshake crossed the wire of {name}");
    let choice = packets.first_tls(usize::MAX).as_deref().and_then(choice);
    ensure!(choice.is_some(), "no readable ServerHello crossed the wire of {name}");
    Ok(Wire { encrypted: true, choice })
}

/// What the first `ServerHello` in a capture chooses. Source: RFC 8446 §4.1.3, §4.2.8, §5.1.
fn choice(captured: &[u8]) -> Option<Choice> {
    let is_hello = |bytes: &[u8]| matches!(bytes, [0x16, 3, 3, _, _, 2]);
    let at = captured.windows(6).position(is_hello)?;
    // Record header, message type and length, version, random.
    let rest = captured.get(at + 5 + 4 + 2 + 32..)?;
    let (session_id, rest) = rest.split_first()?;
    let rest = rest.get(usize::from(*session_id)..)?;
    let (cipher, rest) = rest.split_first_chunk::<2>()?;
    // Compression, then extensions; key_share is number 51.
    let mut extensions = rest.get(1 + 2..)?;
    loop {
        let (header, rest) = extensions.split_first_chunk::<4>()?;
        let [kind_high, kind_low, high, low] = *header;
        let (kind, length) =
            (u16::from_be_bytes([kind_high, kind_low]), u16::from_be_bytes([high, low]));
        if kind == 51 {
            let (group, _) = rest.split_first_chunk::<2>()?;
            return Some(Choice { cipher: cipher_name(*cipher), group: group_name(*group) });
        }
        extensions = rest.get(usize::from(length)..)?;
    }
}

fn cipher_name(code: [u8; 2]) -> String {
    match code {
        [0x13, 1] => "AES-128-GCM".to_owned(),
        [0x13, 2] => "AES-256-GCM".to_owned(),
        [0x13, 3] => "ChaCha20-Poly1305".to_owned(),
        other => format!("{other:02x?}"),
    }
}

fn group_name(code: [u8; 2]) -> String {
    match code {
        [0, 23] => "P-256".to_owned(),
        [0, 29] => "X25519".to_owned(),
        [0x11, 0xec] => "X25519MLKEM768".to_owned(),
        other => format!("{other:02x?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_server_hello() {
        let mut bytes = b"noise\x16\x03\x03\0\x7a\x02\0\0\x76\x03\x03".to_vec();
        bytes.extend([7; 32]);
        bytes.extend([1, 9, 0x13, 2, 0]);
        bytes.extend([0, 12, 0, 43, 0, 2, 3, 4, 0, 51, 0, 36, 0, 29]);
        let chosen = choice(&bytes).unwrap();
        assert_eq!((&*chosen.cipher, &*chosen.group), ("AES-256-GCM", "X25519"));
        assert_eq!(choice(&bytes[..60]), None);
        assert_eq!(choice(b"GET / HTTP/1.1"), None);
    }
}
