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
