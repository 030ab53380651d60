//! The numbers and byte strings of lib0, which the protocols of Yjs providers are written in.
//!
//! A number is unsigned LEB128 of at most 53 bits, what a JavaScript number holds exactly; bytes and
//! text come after their length in bytes. Reading takes parts of the message without copying.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// The largest number.
const NUMBER_MAX: u64 = (1 << 53) - 1;

/// What is wrong with a message. For people and logs; it has no content in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// Reads a message from its beginning.
#[derive(Debug)]
pub(super) struct Reader {
    rest: Bytes,
}

impl Reader {
    /// Reads `message`.
    pub(super) fn new(message: Bytes) -> Self {
        Self { rest: message }
    }

    /// Everything has been read.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes are left.
    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    /// What was not read.
    pub(super) fn into_rest(self) -> Bytes {
        self.rest
    }

    /// A number.
    pub(super) fn number(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let Some(byte) = self.rest.first().copied() else {
                return Err(Malformed("the message ends within a number"));
            };
            self.rest.advance(1);
            // 53 bits are 8 groups of 7, the last with 4.
            if shift > 49 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
            if shift == 49 {
                return Err(Malformed("a number above 53 bits"));
            }
        }
        if value > NUMBER_MAX { Err(Malformed("a number above 53 bits")) } else { Ok(value) }
    }

    /// Bytes after their length.
    pub(super) fn bytes(&mut self) -> Result<Bytes, Malformed> {
        let length = self.number()?;
        match usize::try_from(length) {
            Ok(length) if length <= self.rest.len() => Ok(self.rest.split_to(length)),
            _ => Err(Malformed("the message ends within bytes")),
        }
    }

    /// Text after its length in bytes.
    pub(super) fn text(&mut self) -> Result<Text, Malformed> {
        Text::new(self.bytes()?)
    }
}

/// A part of a message that is UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text(Bytes);

impl Text {
    fn new(bytes: Bytes) -> Result<Self, Malformed> {
        match std::str::from_utf8(&bytes) {
            Ok(_) => Ok(Self(bytes)),
            Err(_) => Err(Malformed("text that is not UTF-8")),
        }
    }

    /// As a string.
    pub(super) fn as_str(&self) -> &str {
        // Checked when it was made.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// As bytes.
    pub(super) fn into_bytes(self) -> Bytes {
        self.0
    }
}

/// Writes a number.
pub(super) fn put_number(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        // The lowest 7 bits, and a mark that there are more.
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Writes bytes after their length.
pub(super) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.put_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &'static [u8]) -> Result<u64, Malformed> {
        Reader::new(Bytes::from_static(bytes)).number()
    }

    #[test]
    fn numbers_read_back_up_to_53_bits() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), NUMBER_MAX] {
            let mut out = BytesMut::new();
            put_number(&mut out, value);
            let mut reader = Reader::new(out.freeze());
            assert_eq!(reader.number(), Ok(value));
            assert!(reader.is_empty());
        }
        let above = Err(Malformed("a number above 53 bits"));
        assert_eq!(number(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x10]), above);
        assert_eq!(number(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01]), above);
        assert_eq!(number(&[0xff; 20]), above);
        let ended = Err(Malformed("the message ends within a number"));
        assert_eq!(number(&[]), ended);
        assert_eq!(number(&[0x80]), ended);
    }

    #[test]
    fn a_length_beyond_the_message_is_refused_without_reserving_it() {
        let mut reader = Reader::new(Bytes::from_static(&[0xff, 0xff, 0xff, 0x7f, 1]));
        assert_eq!(reader.bytes(), Err(Malformed("the message ends within bytes")));
        let mut reader = Reader::new(Bytes::from_static(&[2, 0xc3, 0x28]));
        assert_eq!(reader.text(), Err(Malformed("text that is not UTF-8")));
    }
}
