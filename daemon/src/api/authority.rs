//! Makes the `:authority` of requests readable for the HTTP library, byte by byte as they come in.
//!
//! gRPC's own core (Python, C++, Ruby, PHP) takes the path of a Unix socket for the authority and
//! writes it as `run%2Ftacit%2F…`. The library in use reads authorities by the rules of URIs, which
//! allow no `%` there, and ends the stream. Nobody here asks for the authority, so each `%` of one
//! becomes a `-`: of the same length, since the compression of headers (HPACK) remembers lengths.
//! Nothing else is ever changed; what cannot be followed is passed on as it is. Source: RFC 9113
//! §4.1, §6.2, §6.10; RFC 7541 §5, §6.

/// Bytes before the first frame. Source: RFC 9113 §3.4.
const PREFACE: u32 = 24;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
/// Index of `:authority` in the static table. Source: RFC 7541 appendix A.
const AUTHORITY: u32 = 1;
/// The same, spelled out, as gRPC's core has it.
const NAME: &[u8] = b":authority";
/// Most bits of a number that are followed; lengths beyond are no header's.
const NUMBER_BITS: u32 = 28;

/// Follows what one client says.
#[derive(Debug)]
pub(super) struct Authority {
    at: At,
    field: Field,
}

/// Where in the stream of frames.
#[derive(Debug, Clone, Copy)]
enum At {
    Preface {
        left: u32,
    },
    /// In the nine bytes before a frame.
    Head {
        seen: u8,
        length: u32,
        kind: u8,
        flags: u8,
    },
    /// Before the header block of a frame, or in a frame without one.
    Skip {
        skip: u32,
        left: u32,
    },
    Block {
        left: u32,
    },
}

/// Where in a header block.
#[derive(Debug, Clone, Copy)]
enum Field {
    Start,
    Index {
        literal: bool,
        number: Number,
    },
    Length {
        of: Text,
    },
    LongLength {
        of: Text,
        plain: bool,
        number: Number,
    },
    Text {
        of: Text,
        plain: bool,
        left: u32,
    },
    /// Not to be followed any further.
    Lost,
}

/// Which string of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    /// A name, and whether it is that of the authority as far as it has been seen.
    Name(bool),
    Value,
    Authority,
}

/// A number that goes on in the next byte. Source: RFC 7541 §5.1.
#[derive(Debug, Clone, Copy)]
struct Number {
    value: u32,
    shift: u32,
}

impl Authority {
    pub(super) fn new() -> Self {
        Self { at: At::Preface { left: PREFACE }, field: Field::Start }
    }

    /// Passes on what came in.
    pub(super) fn pass(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.byte(byte);
        }
    }

    fn byte(&mut self, byte: &mut u8) {
        self.at = match self.at {
            At::Preface { left: 1 } => At::NEXT,
            At::Preface { left } => At::Preface { left: left.saturating_sub(1) },
            At::Head { seen, length, kind, flags } => self.head(*byte, seen, length, (kind, flags)),
            At::Skip { skip, left } => At::skip(skip, left.saturating_sub(1)),
            At::Block { left } => {
                self.field = self.field.next(byte);
                At::block(left.saturating_sub(1))
            }
        };
    }

    /// Length (3 bytes), type, flags, stream (4 bytes).
    fn head(&mut self, byte: u8, seen: u8, length: u32, (kind, flags): (u8, u8)) -> At {
        let next = |length, kind, flags| At::Head { seen: seen + 1, length, kind, flags };
        match seen {
            0..=2 => next(length << 8 | u32::from(byte), kind, flags),
            3 => next(length, byte, flags),
            4 => next(length, kind, byte),
            5..=7 => next(length, kind, flags),
            _ => match kind {
                HEADERS => {
                    self.field = Field::Start;
                    let padded = u32::from(flags & PADDED != 0);
                    let priority = if flags & PRIORITY == 0 { 0 } else { 5 };
                    At::skip(padded + priority + 1, length)
                }
                CONTINUATION => At::block(length),
                _ => At::skip(u32::MAX, length),
            },
        }
    }
}

impl At {
    const NEXT: Self = Self::Head { seen: 0, length: 0, kind: 0, flags: 0 };

    /// `skip` is one more than the bytes that come before the block.
    fn skip(skip: u32, left: u32) -> Self {
        match (skip.saturating_sub(1), left) {
            (_, 0) => Self::NEXT,
            (0, left) => Self::Block { left },
            (skip, left) => Self::Skip { skip, left },
        }
    }

    fn block(left: u32) -> Self {
        if left == 0 { Self::NEXT } else { Self::Block { left } }
    }
}

impl Field {
    fn next(self, byte: &mut u8) -> Self {
        match self {
            Self::Start => Self::start(*byte),
            Self::Index { literal, number } => match number.next(*byte) {
                Some(Ok(index)) => Self::indexed(literal, index),
                Some(Err(number)) => Self::Index { literal, number },
                None => Self::Lost,
            },
            Self::Length { of } => {
                let plain = *byte & 0x80 == 0;
                match Number::begin(*byte, 0x7f) {
                    Ok(left) => Self::text(of.of_length(plain, left), plain, left),
                    Err(number) => Self::LongLength { of, plain, number },
                }
            }
            Self::LongLength { of, plain, number } => match number.next(*byte) {
                Some(Ok(left)) => Self::text(of, plain, left),
                Some(Err(number)) => Self::LongLength { of, plain, number },
                None => Self::Lost,
            },
            Self::Text { of, plain, left } => {
                if of == Text::Authority && plain && *byte == b'%' {
                    *byte = b'-';
                }
                Self::text(of.with(*byte, left), plain, left.saturating_sub(1))
            }
            Self::Lost => Self::Lost,
        }
    }

    /// The first byte of a field says of which kind it is. Source: RFC 7541 §6.
    fn start(byte: u8) -> Self {
        let (literal, mask) = match byte {
            0x80.. => (false, 0x7f),
            0x40.. => (true, 0x3f),
            // A new size of the table.
            0x20.. => (false, 0x1f),
            _ => (true, 0x0f),
        };
        match Number::begin(byte, mask) {
            Ok(index) => Self::indexed(literal, index),
            Err(number) => Self::Index { literal, number },
        }
    }

    fn indexed(literal: bool, index: u32) -> Self {
        match (literal, index) {
            (false, _) => Self::Start,
            (true, 0) => Self::Length { of: Text::Name(false) },
            (true, AUTHORITY) => Self::Length { of: Text::Authority },
            (true, _) => Self::Length { of: Text::Value },
        }
    }

    fn text(of: Text, plain: bool, left: u32) -> Self {
        match (of, left) {
            (Text::Name(true), 0) => Self::Length { of: Text::Authority },
            (Text::Name(false), 0) => Self::Length { of: Text::Value },
            (_, 0) => Self::Start,
            (of, left) => Self::Text { of, plain, left },
        }
    }
}

impl Text {
    /// A name of this length may be that of the authority.
    fn of_length(self, plain: bool, length: u32) -> Self {
        match self {
            Self::Name(_) => Self::Name(plain && usize::try_from(length) == Ok(NAME.len())),
            other => other,
        }
    }

    /// With its next byte, when so many are `left`.
    fn with(self, byte: u8, left: u32) -> Self {
        match self {
            Self::Name(true) => {
                let seen = usize::try_from(left).ok().and_then(|left| NAME.len().checked_sub(left));
                Self::Name(seen.and_then(|seen| NAME.get(seen)) == Some(&byte))
            }
            other => other,
        }
    }
}

impl Number {
    /// A number whose first bits are in this byte; `Err` if it goes on.
    fn begin(byte: u8, mask: u8) -> Result<u32, Self> {
        let value = u32::from(byte & mask);
        if byte & mask == mask { Err(Self { value, shift: 0 }) } else { Ok(value) }
    }

    /// With the next byte: done, going on, or too large.
    fn next(self, byte: u8) -> Option<Result<u32, Self>> {
        if self.shift >= NUMBER_BITS {
            return None;
        }
        let value = self.value.checked_add(u32::from(byte & 0x7f) << self.shift)?;
        let more = byte & 0x80 != 0;
        Some(if more { Err(Self { value, shift: self.shift + 7 }) } else { Ok(value) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// A field whose value is written plainly: with the first byte `kind`, and a name if it is 0x40.
    fn field(kind: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
        let length = |text: &[u8]| match u8::try_from(text.len()).unwrap() {
            short @ ..0x7f => vec![short],
            long => vec![0x7f, long - 0x7f],
        };
        let name =
            if name.is_empty() { Vec::new() } else { [length(name), name.to_vec()].concat() };
        [vec![kind], name, length(value), value.to_vec()].concat()
    }

    /// In pieces of every size, what comes out is the same.
    fn check(frames: &[Vec<u8>], expected: &[Vec<u8>]) {
        let stream = [HELLO.to_vec(), frames.concat()].concat();
        let expected = [HELLO.to_vec(), expected.concat()].concat();
        for size in 1..=stream.len() {
            let (mut authority, mut passed) = (Authority::new(), stream.clone());
            passed.chunks_mut(size).for_each(|piece| authority.pass(piece));
            assert_eq!(passed, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn an_authority_loses_its_percent_signs_and_nothing_else_does() {
        let uri = field(0x44, b"", b"/a%2Fb");
        let other = field(0x40, b"x%y", b"a%b");
        let near = field(0x40, b":authoritx", b"a%b");
        let hidden = field(0x10, b"x%y", b"a%b");
        let long = vec![b'%'; 200];
        let block = |value: &[u8]| {
            let (indexed, spelled) = (field(0x41, b"", value), field(0x40, b":authority", value));
            let numbers = vec![0x83, 0xff, 0x01, 0x3f, 0xe1, 0x1f];
            [
                uri.clone(),
                numbers,
                indexed,
                near.clone(),
                spelled,
                other.clone(),
                hidden.clone(),
                vec![0xbe],
            ]
            .concat()
        };
        let data = frame(0, 0, b"\x41\x03%2F");
        for (before, after) in [
            (&b"tmp%2Fx.sock"[..], &b"tmp-2Fx.sock"[..]),
            (b"localhost", b"localhost"),
            (b"", b""),
            (&long, &[b'-'; 200]),
        ] {
            let whole = |value| vec![data.clone(), frame(1, 4, &block(value)), data.clone()];
            check(&whole(before), &whole(after));
            // Split anywhere between the frames of one block, with priority in front.
            let split = |value: &[u8]| {
                let block = block(value);
                let (first, second) = block.split_at(block.len() / 2);
                let first = [&[0, 0, 0, 0, 16], first].concat();
                vec![
                    frame(1, PRIORITY, &first),
                    frame(9, 4, second),
                    frame(1, 4, &field(0x41, b"", value)),
                ]
            };
            check(&split(before), &split(after));
        }
    }

    #[test]
    fn compressed_text_and_endless_numbers_are_passed_on_as_they_are() {
        let compressed = frame(1, 4, &[0x41, 0x83, b'%', b'%', b'%']);
        let endless = frame(1, 4, &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x41, 0x01, b'%']);
        let compressed = [compressed];
        check(&compressed, &compressed);
        let endless = [endless];
        check(&endless, &endless);
    }

    proptest! {
        #[test]
        fn only_percent_signs_change_and_only_so(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let stream = [HELLO, &bytes].concat();
            let mut passed = stream.clone();
            Authority::new().pass(&mut passed);
            for (before, after) in stream.iter().zip(&passed) {
                prop_assert!(before == after || (*before, *after) == (b'%', b'-'));
            }
        }
    }
}
