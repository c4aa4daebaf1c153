//! One record, one line: JSON in which no text from outside can start another line, close a
//! string, or move a terminal's cursor. And the hash that chains the lines.

use std::io;

use aws_lc_rs::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::ser::Formatter;

use crate::audit::Record;

/// SHA-256 of one line, without its newline.
pub(super) type LineHash = [u8; 32];

/// The hash before the first line of all.
pub(super) const NO_LINE: LineHash = [0; 32];

/// The line of a record, without its newline.
pub(super) fn encode(record: &Record) -> io::Result<Vec<u8>> {
    plain_json(record)
}

/// JSON on one line, in which no text can deceive whoever reads it on a terminal.
pub fn plain_json<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(1024);
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut line, Plain))?;
    Ok(line)
}

/// The hash of a line.
pub(super) fn hash(line: &[u8]) -> LineHash {
    let mut hash = NO_LINE;
    let digest = digest(&SHA256, line);
    hash.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    hash
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing into a string cannot fail.
        let _infallible = write!(out, "{byte:02x}").is_ok();
        out
    })
}

/// The bytes of lower-case or upper-case hex; none if it is not that.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    let pairs = text.as_bytes().chunks_exact(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// `serde_json` escapes quotes, backslashes and what is below U+0020. This also escapes every other
/// control character, line and paragraph separators, and what turns the direction of writing:
/// a log is read on terminals too.
struct Plain;

impl Formatter for Plain {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        let mut rest = fragment;
        while let Some((at, deceitful)) = rest.char_indices().find(|(_, c)| deceives(*c)) {
            let (before, from) = rest.split_at(at);
            writer.write_all(before.as_bytes())?;
            // All of these are below U+10000: one escape each.
            write!(writer, "\\u{:04x}", u32::from(deceitful))?;
            rest = from.split_at(deceitful.len_utf8()).1;
        }
        writer.write_all(rest.as_bytes())
    }
}

/// Whether a character can move a terminal's cursor, hide, or turn the direction of writing.
/// Source: Unicode 16, general category Cc; Zl, Zp; `Bidi_Control`; zero-width and byte order mark.
pub fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audit::{Endpoint, Event};

    proptest! {
        #[test]
        fn no_text_can_forge_a_line(exe in any::<String>(), id in ".{0,40}", detail in "\\PC*|[\\x00-\\u{a0}]*") {
            let mut record = Record::new(Event::Close);
            record.detail = Some(detail);
            record.scope = Some(exe);
            record.peer = Some(Endpoint { spiffe_id: Some(id), address: None });
            let line = String::from_utf8(encode(&record).unwrap()).unwrap();
            prop_assert!(!line.chars().any(deceives), "{line}");
            prop_assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
        }

        #[test]
        fn hex_round_trips(bytes in any::<Vec<u8>>()) {
            prop_assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        }
    }

    #[test]
    fn a_newline_and_a_terminal_escape_stay_inside_their_string() {
        let mut record = Record::new(Event::Close);
        record.detail = Some("a\"}\n{\"seq\":1\u{1b}[2J\u{9b}\u{202e}\u{2028}".to_owned());
        let line = String::from_utf8(encode(&record).unwrap()).unwrap();
        let expected = r#"a\"}\n{\"seq\":1\u001b[2J\u009b\u202e\u2028"#;
        assert!(line.contains(expected), "{line}");
    }

    #[test]
    fn hashes_are_sha256() {
        assert!(hex(&hash(b"abc")).starts_with("ba7816bf8f01cfea"));
        assert_eq!(unhex("0g"), None);
        assert_eq!(unhex("abc"), None);
    }
}
