//! Yjs v1 updates by hand: making the smallest ones, and finding out what is in those that arrive,
//! without a document. A receiver does this for every delivery, so it does not allocate.

use std::ops::Range;

use bytes::Bytes;
use yrs::{Update, updates::decoder::Decode as _};

const GC: u8 = 0;
const DELETED: u8 = 1;
const STRING: u8 = 4;
const SKIP: u8 = 10;
const CONTENT: u8 = 0b0001_1111;
const HAS_PARENT_SUB: u8 = 0b0010_0000;
const HAS_RIGHT_ORIGIN: u8 = 0b0100_0000;
const HAS_ORIGIN: u8 = 0b1000_0000;

/// The update that appends `chars` ASCII characters to what `client` wrote into the root text `root`.
/// `clock` is the number of characters it has written so far; nobody else may write into that root.
pub(crate) fn append(client: u64, clock: u32, root: &str, chars: u32) -> Bytes {
    let mut bytes = Vec::with_capacity(chars as usize + 48);
    write_var(&mut bytes, 1); // clients
    write_var(&mut bytes, 1); // blocks
    write_var(&mut bytes, client);
    write_var(&mut bytes, clock.into());
    if clock == 0 {
        bytes.push(STRING);
        write_var(&mut bytes, 1); // the parent is a root, by name
        write_var(&mut bytes, root.len() as u64);
        bytes.extend_from_slice(root.as_bytes());
    } else {
        bytes.push(STRING | HAS_ORIGIN);
        write_var(&mut bytes, client);
        write_var(&mut bytes, u64::from(clock - 1));
    }
    write_var(&mut bytes, chars.into());
    bytes.extend((clock..clock + chars).map(|at| b'a' + (at % 26) as u8));
    write_var(&mut bytes, 0); // deletions
    bytes.into()
}

/// Appends a number in groups of 7 bits, the lowest first.
pub(crate) fn write_var(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// An update that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server sent an update that cannot be read")]
pub(crate) struct Malformed;

/// Calls `found` with each client and run of clocks that `update` inserts. Runs may touch.
pub(crate) fn insertions(
    update: &[u8],
    mut found: impl FnMut(u64, Range<u32>),
) -> Result<(), Malformed> {
    // Nothing is reported by a walk that meets content it does not know, so that nothing is
    // reported twice.
    if walk(update, |_, _| {}).is_some() {
        walk(update, found).ok_or(Malformed)
    } else {
        let update = Update::decode_v1(update).map_err(|_| Malformed)?;
        for (client, ranges) in update.insertions(true).iter() {
            for range in ranges.iter() {
                found(client.get(), range.start..range.end);
            }
        }
        Ok(())
    }
}

/// As [`insertions`], for text alone; `None` at anything else.
fn walk(update: &[u8], mut found: impl FnMut(u64, Range<u32>)) -> Option<()> {
    let mut reader = Reader(update);
    for _ in 0..reader.var()? {
        let blocks = reader.var()?;
        let client = reader.var()?;
        let mut clock = reader.clock()?;
        for _ in 0..blocks {
            let info = reader.byte()?;
            let (len, inserts) = match info & CONTENT {
                GC if info == GC => (reader.clock()?, true),
                SKIP if info == SKIP => (reader.clock()?, false),
                DELETED => {
                    reader.skip_position(info)?;
                    (reader.clock()?, true)
                }
                STRING => {
                    reader.skip_position(info)?;
                    let text = reader.string()?;
                    (utf16_len(text)?, true)
                }
                _ => return None,
            };
            let end = clock.checked_add(len)?;
            if inserts {
                found(client, clock..end);
            }
            clock = end;
        }
    }
    Some(())
}

fn utf16_len(text: &[u8]) -> Option<u32> {
    if text.is_ascii() {
        return u32::try_from(text.len()).ok();
    }
    u32::try_from(std::str::from_utf8(text).ok()?.encode_utf16().count()).ok()
}

/// Reads from the front of its bytes; `None` where they end too early.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn var(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn clock(&mut self) -> Option<u32> {
        u32::try_from(self.var()?).ok()
    }

    /// Bytes with their number in front.
    pub(crate) fn string(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.var()?).ok()?;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(text)
    }

    fn skip_id(&mut self) -> Option<()> {
        self.var()?;
        self.var().map(drop)
    }

    /// Skips where an item stands: its neighbours, or its parent where it has none.
    fn skip_position(&mut self, info: u8) -> Option<()> {
        if info & HAS_ORIGIN != 0 {
            self.skip_id()?;
        }
        if info & HAS_RIGHT_ORIGIN != 0 {
            self.skip_id()?;
        }
        if info & (HAS_ORIGIN | HAS_RIGHT_ORIGIN) == 0 {
            if self.var()? == 1 {
                self.string()?;
            } else {
                self.skip_id()?;
            }
            if info & HAS_PARENT_SUB != 0 {
                self.string()?;
            }
        }
        Some(())
    }
}

/// Which of one author's characters a receiver has: nearly always all up to a clock.
#[derive(Debug, Default)]
pub(crate) struct Coverage {
    next: u32,
    /// What is missing before `next`.
    gaps: Vec<Range<u32>>,
}

impl Coverage {
    /// Takes a run that arrived; calls `new` with those parts of it that had not arrived before.
    pub(crate) fn arrived(&mut self, run: Range<u32>, mut new: impl FnMut(Range<u32>)) {
        if run.start < self.next && !self.gaps.is_empty() {
            let mut left = Vec::new();
            for gap in self.gaps.drain(..) {
                let filled = gap.start.max(run.start)..gap.end.min(run.end);
                if filled.is_empty() {
                    left.push(gap);
                    continue;
                }
                left.extend(
                    [gap.start..filled.start, filled.end..gap.end]
                        .into_iter()
                        .filter(|g| !g.is_empty()),
                );
                new(filled);
            }
            self.gaps = left;
        }
        if run.start > self.next {
            self.gaps.push(self.next..run.start);
        }
        let fresh = run.start.max(self.next)..run.end;
        if !fresh.is_empty() {
            self.next = fresh.end;
            new(fresh);
        }
    }
}

#[cfg(test)]
mod tests {
    use yrs::{Doc, GetString as _, Map as _, ReadTxn as _, StateVector, Text as _, Transact as _};

    use super::*;

    fn runs(update: &[u8]) -> Vec<(u64, Range<u32>)> {
        let mut runs = Vec::new();
        insertions(update, |client, run| runs.push((client, run))).expect("reads");
        runs.sort_by_key(|(client, run)| (*client, run.start));
        runs
    }

    #[test]
    fn appended_text_is_what_yrs_makes_of_it() {
        let doc = Doc::new();
        let text = doc.get_or_insert_text("e");
        let client = (1 << 40) + 300;
        for edit in 0..30 {
            let update = append(client, edit * 5, "e", 5);
            assert_eq!(runs(&update), [(client, edit * 5..edit * 5 + 5)]);
            let update = Update::decode_v1(&update).expect("decodes");
            doc.transact_mut().apply_update(update).expect("applies");
        }
        let txn = doc.transact();
        assert!(!txn.has_missing_updates());
        let expected: String = (0..150).map(|at| char::from(b'a' + (at % 26) as u8)).collect();
        assert_eq!(text.get_string(&txn), expected);
        let whole = txn.encode_diff_v1(&StateVector::default());
        let (mut coverage, mut covered) = (Coverage::default(), 0);
        for (of, run) in runs(&whole) {
            assert_eq!(of, client);
            coverage.arrived(run, |new| covered += new.len());
        }
        assert_eq!(covered, 150);
    }

    #[test]
    fn content_that_is_no_text_is_found_too() {
        let doc = Doc::with_client_id(9);
        let text = doc.get_or_insert_text("t");
        let map = doc.get_or_insert_map("m");
        let mut txn = doc.transact_mut();
        text.push(&mut txn, "a😀b");
        text.remove_range(&mut txn, 0, 1);
        map.insert(&mut txn, "k", 3);
        drop(txn);
        let whole = doc.transact().encode_diff_v1(&StateVector::default());
        let found: usize = runs(&whole).iter().map(|(_, run)| run.len()).sum();
        assert_eq!(found, 5);
    }

    #[test]
    fn what_arrives_twice_is_new_once_and_gaps_are_filled() {
        let mut coverage = Coverage::default();
        let mut new = Vec::new();
        for run in [0..4, 0..4, 8..12, 6..7, 2..14, 0..14] {
            coverage.arrived(run, |run| new.push(run));
        }
        new.sort_by_key(|run| run.start);
        assert_eq!(new, [0..4, 4..6, 6..7, 7..8, 8..12, 12..14]);
    }

    #[test]
    fn bytes_that_are_no_update_are_an_error() {
        assert_eq!(insertions(&[1, 1, 7], |_, _| {}), Err(Malformed));
    }
}
