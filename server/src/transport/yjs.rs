//! What the protocols of y-websocket and Hocuspocus have in common: sync, awareness, and auth.
//!
//! A message of Hocuspocus is an address and then what is a whole message of y-websocket, so that
//! the encoding that goes to many is made once for both.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::{
    lib0::{Malformed, Reader, put_bytes, put_number},
    websocket::Outgoing,
};
use crate::session::{AwarenessState, Chunk, Shared, Update};

/// The place of these protocols among the wire formats of shared events.
const FORMAT: usize = 1;

/// The kind of a message: sync.
pub(super) const SYNC: u64 = 0;
/// The kind of a message: awareness.
pub(super) const AWARENESS: u64 = 1;
/// The kind of a message: authentication.
pub(super) const AUTH: u64 = 2;
/// The kind of a message: asks for awareness.
pub(super) const QUERY_AWARENESS: u64 = 3;

/// An awareness update in which nothing is: the cheapest message that keeps clients from taking the
/// connection for dead.
pub(super) const KEEPALIVE: &[u8] = &[1, 1, 0];

/// The update in which nothing is.
pub(super) const EMPTY_UPDATE: &[u8] = &[0, 0];

/// A message of the sync protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    /// A state vector, which is answered with a difference.
    Step1(Bytes),
    /// That difference.
    Step2(Bytes),
    /// An update.
    Update(Bytes),
}

impl Sync {
    /// Reads what comes after the kind of the message.
    pub(super) fn read(reader: &mut Reader) -> Result<Self, Malformed> {
        Ok(match reader.number()? {
            0 => Self::Step1(reader.bytes()?),
            1 => Self::Step2(reader.bytes()?),
            2 => Self::Update(reader.bytes()?),
            _ => return Err(Malformed("an unknown sync message")),
        })
    }
}

/// Reads what comes after the kind of an awareness message; a state that is `null` is empty.
pub(super) fn read_awareness(reader: &mut Reader) -> Result<Vec<AwarenessState>, Malformed> {
    let mut reader = Reader::new(reader.bytes()?);
    let count = reader.number()?;
    // An entry has 3 bytes at least.
    if count > reader.len() as u64 / 3 {
        return Err(Malformed("more awareness states than bytes"));
    }
    let mut states = Vec::new();
    for _ in 0..count {
        let (client_id, clock) = (reader.number()?, reader.number()?);
        let state = reader.text()?;
        let state = if state.as_str() == "null" { Bytes::new() } else { state.into_bytes() };
        states.push(AwarenessState { client_id, clock, state });
    }
    if reader.is_empty() { Ok(states) } else { Err(Malformed("bytes after the awareness states")) }
}

/// A state vector (yrs v1) as a sync message.
pub(super) fn step1(state_vector: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(state_vector.len() + 8);
    out.put_slice(&[0, 0]);
    put_bytes(&mut out, state_vector);
    out.freeze()
}

/// Edits as a sync message, encoded once for all.
pub(super) fn update(update: &Shared<Update>) -> Bytes {
    update.encoded(FORMAT, |Update { update, .. }| {
        let mut out = BytesMut::with_capacity(update.len() + 12);
        out.put_slice(&[0, 2]);
        put_bytes(&mut out, update);
        out.freeze()
    })
}

/// Awareness states as one message, each encoded once for all.
pub(super) fn awareness(states: &[std::sync::Arc<Shared<AwarenessState>>]) -> Bytes {
    let mut entries = BytesMut::new();
    put_number(&mut entries, states.len() as u64);
    for state in states {
        let entry = state.encoded(FORMAT, |AwarenessState { client_id, clock, state }| {
            let mut out = BytesMut::with_capacity(state.len() + 20);
            put_number(&mut out, *client_id);
            put_number(&mut out, *clock);
            put_bytes(&mut out, if state.is_empty() { b"null" } else { state });
            out.freeze()
        });
        entries.put_slice(&entry);
    }
    let mut out = BytesMut::with_capacity(entries.len() + 10);
    out.put_u8(1);
    put_bytes(&mut out, &entries);
    out.freeze()
}

/// "Permission denied", for people.
pub(super) fn denied(reason: &str) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(&[2, 0]);
    put_bytes(&mut out, reason.as_bytes());
    out.freeze()
}

/// Writes differences, whose parts are parts of one message.
#[derive(Debug, Default)]
pub(super) struct Differences {
    /// A message has been begun.
    is_open: bool,
}

impl Differences {
    /// Writes a part, in a message that begins with `address` if it is the first.
    pub(super) fn write(&mut self, address: &[u8], chunk: &Chunk, out: &mut Outgoing) {
        let begins = !self.is_open;
        self.is_open = !chunk.last;
        if !begins {
            return out.part(&chunk.bytes, false, chunk.last);
        }
        let mut head = BytesMut::with_capacity(address.len() + 12);
        head.put_slice(address);
        // A client takes the answer for the sign that it has everything; other differences are edits.
        head.put_slice(if chunk.asked.is_some() { &[0, 1] } else { &[0, 2] });
        put_number(&mut head, chunk.total as u64);
        if chunk.last {
            out.message(head, &chunk.bytes);
        } else {
            out.part(&head.freeze(), true, false);
            out.part(&chunk.bytes, false, false);
        }
    }

    /// Whether a message has been begun and no other may be sent now.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Sequence;

    fn bytes(hex: &str) -> Bytes {
        let digits: Vec<_> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
        digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
    }

    /// Reads a message with its kind.
    fn read(message: Bytes) -> Result<Sync, Malformed> {
        let mut reader = Reader::new(message);
        assert_eq!(reader.number()?, SYNC);
        let sync = Sync::read(&mut reader)?;
        if reader.is_empty() { Ok(sync) } else { Err(Malformed("more")) }
    }

    fn state(client_id: u64, clock: u64, json: &'static str) -> AwarenessState {
        AwarenessState { client_id, clock, state: Bytes::from_static(json.as_bytes()) }
    }

    #[test]
    fn the_sync_messages_of_the_reference_are_read() {
        for (hex, sync) in [
            ("00 00 01 00", Sync::Step1(bytes("00"))),
            ("00 01 02 0000", Sync::Step2(bytes("0000"))),
            ("00 02 0a 01010100440700014100", Sync::Update(bytes("01010100440700014100"))),
        ] {
            let message = bytes(hex);
            assert_eq!(read(message.clone()), Ok(sync), "{hex}");
            for end in 1..message.len() {
                assert!(read(message.slice(..end)).is_err(), "{hex} up to {end}");
            }
        }
        assert!(read(bytes("00 03 01 00")).is_err());
    }

    #[test]
    fn awareness_is_read_and_written_as_by_the_reference() {
        for (hex, expected) in [
            ("06 01 01 00 02 7b7d", vec![state(1, 0, "{}")]),
            ("08 01 01 01 04 6e756c6c", vec![state(1, 1, "")]),
            (
                "16 01 01 01 12 7b2275736572223a7b226e223a2278227d7d",
                vec![state(1, 1, r#"{"user":{"n":"x"}}"#)],
            ),
            ("01 00", vec![]),
        ] {
            let message = bytes(hex);
            assert_eq!(read_awareness(&mut Reader::new(message.clone())).as_ref(), Ok(&expected));
            let shared: Vec<_> = expected.into_iter().map(Shared::new).collect();
            assert_eq!(awareness(&shared), [&[1], &message[..]].concat(), "{hex}");
            for end in 0..message.len() {
                let part = message.slice(..end);
                assert!(read_awareness(&mut Reader::new(part)).is_err(), "{hex} up to {end}");
            }
            // Cut inside, with a length that is right.
            for end in 1..message.len() - 1 {
                let part = [&[u8::try_from(end).unwrap()], &message[1..=end]].concat();
                assert!(read_awareness(&mut Reader::new(part.into())).is_err(), "{hex} to {end}");
            }
        }
        assert_eq!(&awareness(&[])[..], KEEPALIVE);
        let many = bytes("05 ffffffff7f");
        assert!(read_awareness(&mut Reader::new(many)).is_err(), "more than bytes");
    }

    #[test]
    fn what_is_written_is_what_the_reference_writes() {
        assert_eq!(step1(&bytes("010702")), bytes("00 00 03 010702"));
        let edit = Update { sequence: Sequence(1), update: bytes("01010100440700014100") };
        assert_eq!(update(&Shared::new(edit)), bytes("00 02 0a 01010100440700014100"));
        assert_eq!(denied("no"), bytes("02 00 02 6e6f"));
    }

    #[test]
    fn a_difference_in_parts_is_one_message() {
        let whole: Bytes = (0..20_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        let sequence = Sequence(1);
        for asked in [None, Some(Bytes::new())] {
            for parts in [1, 2, 3] {
                let (mut out, mut differences) = (Outgoing::default(), Differences::default());
                let size = whole.len().div_ceil(parts);
                for (i, part) in whole.chunks(size).enumerate() {
                    let (bytes, total, asked) = (whole.slice_ref(part), whole.len(), asked.clone());
                    let last = i + 1 == parts;
                    let chunk = Chunk { bytes, last, sequence, total, asked };
                    differences.write(b"x", &chunk, &mut out);
                    assert_eq!(differences.is_open(), !last);
                }
                let mut expected = BytesMut::from(&b"x"[..]);
                expected.put_slice(&[0, if asked.is_some() { 1 } else { 2 }]);
                put_bytes(&mut expected, &whole);
                assert_eq!(out.into_one_message(), expected);
            }
        }
    }
}
