//! Entries: what one call of the log has written, as bytes.
//!
//! ```text
//! length u32 | crc32c u32 | kind u8 | epoch 16 | time_ms u64 | first u64 | count u32
//!     | document: length u8, bytes
//!     | count x (session u64 | principal: length u8, bytes | update: length u32, bytes)
//! ```
//!
//! All numbers are little-endian. The length counts what follows the checksum, which is over the
//! length and all that follows: so that one entry can be read and trusted without its frame.

use bytes::Bytes;

use crate::{
    ids::{DocumentId, Epoch, Principal, Sequence, SessionId},
    log::{Append, Record},
};

/// Length and checksum.
const PREFIX_BYTES: usize = 8;

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The document was created with this epoch.
    Create,
    /// Updates were appended.
    Updates,
    /// The document was deleted.
    Delete,
}

/// An entry without its updates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// What it says.
    pub(super) kind: Kind,
    /// Of which document.
    pub(super) document: DocumentId,
    /// Of which of its histories.
    pub(super) epoch: Epoch,
    /// Wall time in milliseconds since 1970.
    pub(super) time_ms: u64,
    /// The sequence of its first update; 0 without updates.
    pub(super) first: Sequence,
    /// How many updates it has.
    pub(super) count: u32,
    /// All of its bytes.
    pub(super) length: u32,
}

/// What a creation or a deletion is about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marker<'a> {
    pub(super) document: &'a DocumentId,
    pub(super) epoch: Epoch,
    pub(super) time_ms: u64,
}

/// Appends the entry of a creation to `out`.
pub(super) fn encode_create(out: &mut Vec<u8>, marker: Marker<'_>) {
    let start = encode_head(out, 1, marker, (Sequence::ZERO, 0));
    encode_prefix(out, start);
}

/// Appends the entry of a deletion to `out`.
pub(super) fn encode_delete(out: &mut Vec<u8>, marker: Marker<'_>) {
    let start = encode_head(out, 3, marker, (Sequence::ZERO, 0));
    encode_prefix(out, start);
}

/// Appends the entry of updates to `out`; the first of them gets the sequence `first`.
pub(super) fn encode_updates(out: &mut Vec<u8>, append: &Append, epoch: Epoch, first: Sequence) {
    let marker = Marker { document: &append.document, epoch, time_ms: append.time_ms };
    // The callers bound both: an append has far less than 4 GiB.
    let start = encode_head(out, 2, marker, (first, append.updates.len() as u32));
    for new in &append.updates {
        let principal = new.principal.as_str();
        out.extend_from_slice(&new.session.to_u64().to_le_bytes());
        out.push(principal.len() as u8);
        out.extend_from_slice(principal.as_bytes());
        out.extend_from_slice(&(new.update.len() as u32).to_le_bytes());
        out.extend_from_slice(&new.update);
    }
    encode_prefix(out, start);
}

/// The most bytes that the entry of `append` can have.
pub(super) fn updates_bytes_max(append: &Append) -> usize {
    let updates = append.updates.iter().map(|new| new.update.len() + Principal::BYTES_MAX + 13);
    updates.sum::<usize>() + 256
}

fn encode_head(
    out: &mut Vec<u8>,
    kind: u8,
    marker: Marker<'_>,
    (first, count): (Sequence, u32),
) -> usize {
    let start = out.len();
    let document = marker.document.as_str();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    out.push(kind);
    out.extend_from_slice(&marker.epoch.0);
    out.extend_from_slice(&marker.time_ms.to_le_bytes());
    out.extend_from_slice(&first.0.to_le_bytes());
    out.extend_from_slice(&count.to_le_bytes());
    out.push(document.len() as u8);
    out.extend_from_slice(document.as_bytes());
    start
}

fn encode_prefix(out: &mut [u8], start: usize) {
    let length = ((out.len() - start - PREFIX_BYTES) as u32).to_le_bytes();
    let crc = checksum(length, &out[start + PREFIX_BYTES..]).to_le_bytes();
    out[start..start + 4].copy_from_slice(&length);
    out[start + 4..start + PREFIX_BYTES].copy_from_slice(&crc);
}

fn checksum(length: [u8; 4], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length), body)
}

/// The entry at the beginning of `bytes`, without a look at its checksum: for those who have
/// checked the frame. `None` if there is none.
pub(super) fn decode(bytes: &[u8]) -> Option<Entry> {
    decode_head(&mut Cursor::new(bytes))
}

/// All of `bytes` as an entry, checked, and its updates. `None` if it is damaged.
pub(super) fn decode_updates(bytes: &Bytes) -> Option<(Entry, Vec<Record>)> {
    let mut cursor = Cursor::new(bytes);
    let entry = decode_head(&mut cursor)?;
    let length: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
    let crc = u32::from_le_bytes(bytes.get(4..PREFIX_BYTES)?.try_into().ok()?);
    if entry.length as usize != bytes.len() || checksum(length, bytes.get(PREFIX_BYTES..)?) != crc {
        return None;
    }
    let mut records: Vec<Record> = Vec::with_capacity(entry.count as usize);
    let mut sequence = entry.first;
    for _ in 0..entry.count {
        let session = SessionId::from_u64(cursor.u64()?);
        let principal = cursor.text()?;
        // Mostly one person after another: their name is shared.
        let principal = match records.last() {
            Some(last) if last.principal.as_str() == principal => last.principal.clone(),
            Some(_) | None => Principal::new(principal)?,
        };
        let length = cursor.u32()? as usize;
        let start = cursor.position;
        cursor.take(length)?;
        let update = bytes.slice(start..start + length);
        records.push(Record { sequence, time_ms: entry.time_ms, principal, session, update });
        sequence = sequence.next();
    }
    Some((entry, records))
}

fn decode_head(cursor: &mut Cursor<'_>) -> Option<Entry> {
    let length = cursor.u32()?;
    let _crc = cursor.u32()?;
    if length as usize > cursor.bytes.len() - cursor.position {
        return None;
    }
    let kind = match cursor.take(1)? {
        [1] => Kind::Create,
        [2] => Kind::Updates,
        [3] => Kind::Delete,
        _ => return None,
    };
    let epoch = Epoch(cursor.take(16)?.try_into().ok()?);
    let time_ms = cursor.u64()?;
    let first = Sequence(cursor.u64()?);
    let count = cursor.u32()?;
    let document = DocumentId::parse(cursor.text()?).ok()?;
    // Each update has at least 13 bytes: a count beyond that would only reserve memory.
    let counted = u64::from(count) * 13 <= u64::from(length);
    let numbered = (kind == Kind::Updates) == (count > 0) && (count > 0) == (first.0 > 0);
    let length = length.checked_add(PREFIX_BYTES as u32)?;
    (counted && numbered).then_some(Entry { kind, document, epoch, time_ms, first, count, length })
}

struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0 }
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.position..self.position.checked_add(length)?)?;
        self.position += length;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<&'a str> {
        let &[length] = self.take(1)? else { return None };
        std::str::from_utf8(self.take(usize::from(length))?).ok()
    }
}
