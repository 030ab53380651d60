//! Whether two encodings are of one document.
//!
//! yrs keeps the objects of JSON in hash maps, so that their keys come in another order each time a
//! document is loaded and encoded: `{"a":1,"b":2}` or `{"b":2,"a":1}`. Here the keys are sorted. It
//! also divides what one client put in a row into structs by how the document came about; here such
//! are joined. Everything else of an encoding is determined by the document.

use super::validate::{Cursor, Malformed, VALUE_DEPTH_MAX, utf16_length};

/// Whether `one` and `other` (Yjs v1 updates, as yrs encodes whole documents) are the same but for
/// the order of keys in objects and how they are divided into structs.
///
/// # Errors
///
/// One of them is no update.
pub(super) fn same(one: &[u8], other: &[u8]) -> Result<bool, Malformed> {
    Ok(one == other || canonical(one)? == canonical(other)?)
}

/// A whole document, with the keys of all objects sorted and everything joined that can be.
#[derive(PartialEq, Eq)]
struct Canonical<'a> {
    clients: Vec<(u64, u32, Vec<Piece>)>,
    /// As they are.
    deletions: &'a [u8],
}

/// Structs that are one.
#[derive(PartialEq, Eq)]
struct Piece {
    /// The first byte of the first of them: what they are, and what is known of their neighbours.
    first: u8,
    /// What is to the left of the first, or what it is in and for which key.
    place: Vec<u8>,
    right: Option<(u64, u32)>,
    /// In clocks.
    length: u64,
    /// Without lengths. Objects in JSON text lose their spaces as well.
    content: Vec<u8>,
}

fn canonical(update: &[u8]) -> Result<Canonical<'_>, Malformed> {
    let mut cursor = Cursor { bytes: update, at: 0 };
    let mut clients = Vec::new();
    for _ in 0..cursor.count(4, "more clients than bytes")? {
        let structs = cursor.count(2, "more structs than bytes")?;
        let (client, start) = (cursor.client()?, cursor.clock()?);
        let (mut pieces, mut clock) = (Vec::<Piece>::new(), u64::from(start));
        for _ in 0..structs {
            let (next, left) = piece(&mut cursor)?;
            let follows = left.is_some_and(|(id, at)| id == client && u64::from(at) + 1 == clock);
            clock += next.length;
            match pieces.last_mut() {
                Some(last) if last.is_one_with(&next, follows) => {
                    last.length += next.length;
                    last.content.extend(next.content);
                }
                _ => pieces.push(next),
            }
        }
        clients.push((client, start, pieces));
    }
    Ok(Canonical { clients, deletions: update.get(cursor.at..).unwrap_or_default() })
}

impl Piece {
    fn kind(&self) -> u8 {
        // Of what was collected, and of a gap, the whole byte.
        if matches!(self.first, 0 | 10) { self.first } else { self.first & 0x1f }
    }

    /// Whether `next`, of the same client, is a part of it.
    fn is_one_with(&self, next: &Self, follows: bool) -> bool {
        self.kind() == next.kind()
            && match self.kind() {
                0 | 10 => true,
                // Deleted, text, values.
                1 | 4 | 8 => follows && self.right == next.right,
                _ => false,
            }
    }
}

/// Reads a struct, and what it says is to its left.
fn piece(cursor: &mut Cursor<'_>) -> Result<(Piece, Option<(u64, u32)>), Malformed> {
    let first = cursor.byte()?;
    let (mut place, mut content) = (Vec::new(), Vec::new());
    if matches!(first, 0 | 10) {
        let length = cursor.clock()?.into();
        return Ok((Piece { first, place, right: None, length, content }, None));
    }
    let start = cursor.at;
    let left = if first & 0x80 == 0 { None } else { Some((cursor.client()?, cursor.clock()?)) };
    let after_left = cursor.at;
    let right = if first & 0x40 == 0 { None } else { Some((cursor.client()?, cursor.clock()?)) };
    let after_right = cursor.at;
    if first & 0xc0 == 0 {
        if cursor.byte()? == 1 {
            cursor.string()?;
        } else {
            cursor.client()?;
            cursor.clock()?;
        }
        if first & 0x20 != 0 {
            cursor.string()?;
        }
    }
    for part in [start..after_left, after_right..cursor.at] {
        place.extend_from_slice(cursor.bytes.get(part).unwrap_or_default());
    }
    let start = cursor.at;
    let as_it_is = |cursor: &Cursor<'_>, content: &mut Vec<u8>| {
        content.extend_from_slice(cursor.bytes.get(start..cursor.at).unwrap_or_default());
    };
    let length = match first & 0x1f {
        1 => cursor.clock()?.into(),
        4 => {
            let text = cursor.string()?;
            content.extend_from_slice(text.as_bytes());
            utf16_length(text)
        }
        8 => {
            let count = cursor.count(1, "more values than bytes")?;
            for _ in 0..count {
                value(cursor, VALUE_DEPTH_MAX, &mut content)?;
            }
            count
        }
        kind => {
            match kind {
                3 => {
                    cursor.blob()?;
                    as_it_is(cursor, &mut content);
                }
                5 => json(cursor, &mut content)?,
                6 => {
                    cursor.string()?;
                    as_it_is(cursor, &mut content);
                    json(cursor, &mut content)?;
                }
                7 => {
                    if cursor.byte()? == 3 {
                        cursor.string()?;
                    }
                    as_it_is(cursor, &mut content);
                }
                9 => {
                    cursor.string()?;
                    as_it_is(cursor, &mut content);
                    value(cursor, VALUE_DEPTH_MAX, &mut content)?;
                }
                _ => return Err(cursor.malformed("an unknown kind of content")),
            }
            1
        }
    };
    Ok((Piece { first, place, right, length, content }, left))
}

/// Keys are sorted by the type that they are read into. What is not JSON stays as it is.
fn json(cursor: &mut Cursor<'_>, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let text = cursor.blob()?;
    match serde_json::from_slice::<serde_json::Value>(text) {
        Ok(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Err(_) => out.extend_from_slice(text),
    }
    Ok(())
}

fn value(cursor: &mut Cursor<'_>, depth: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(cursor.malformed("values nested too deep"));
    };
    let start = cursor.at;
    match cursor.byte()? {
        118 => {
            let mut entries = Vec::new();
            for _ in 0..cursor.count(2, "more values than bytes")? {
                let key = cursor.string()?;
                let mut bytes = Vec::new();
                value(cursor, depth, &mut bytes)?;
                entries.push((key, bytes));
            }
            entries.sort();
            out.push(118);
            out.extend_from_slice(&(entries.len() as u64).to_le_bytes());
            for (key, bytes) in entries {
                out.extend_from_slice(&(key.len() as u64).to_le_bytes());
                out.extend_from_slice(key.as_bytes());
                out.extend_from_slice(&bytes);
            }
        }
        117 => {
            let count = cursor.count(1, "more values than bytes")?;
            out.push(117);
            out.extend_from_slice(&count.to_le_bytes());
            for _ in 0..count {
                value(cursor, depth, out)?;
            }
        }
        _ => {
            cursor.at = start;
            cursor.value(depth + 1)?;
            out.extend_from_slice(cursor.bytes.get(start..cursor.at).unwrap_or_default());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use yrs::{Any, Doc, Map, ReadTxn, StateVector, Text, Transact, types::Attrs};

    use super::*;

    fn object(keys: impl Iterator<Item = u32>) -> Any {
        let entries = keys.map(|key| (key.to_string(), Any::from(key)));
        Any::from(entries.collect::<std::collections::HashMap<_, _>>())
    }

    /// A document with objects in every place that has them, each with these keys.
    fn document(keys: impl Iterator<Item = u32> + Clone) -> Vec<u8> {
        let doc = Doc::with_client_id(1);
        let (text, map) = (doc.get_or_insert_text("text"), doc.get_or_insert_map("map"));
        let mut txn = doc.transact_mut();
        let nested = Any::from(vec![object(keys.clone()), Any::from("x")]);
        map.insert(&mut txn, "value", nested);
        text.insert(&mut txn, 0, "text");
        text.insert_embed(&mut txn, 1, object(keys.clone()));
        let style = Attrs::from([("style".into(), object(keys))]);
        text.format(&mut txn, 0, 2, style);
        txn.encode_diff_v1(&StateVector::default())
    }

    #[test]
    fn how_it_is_divided_makes_no_difference_and_what_it_stands_beside_does() {
        // The text "abc" of client 1 in the root "t"; and "a", behind it "bc", which has to its right ...
        let whole = [1, 1, 1, 0, 4, 1, 1, b't', 3, b'a', b'b', b'c', 0];
        let divided = [1, 2, 1, 0, 4, 1, 1, b't', 1, b'a', 132, 1, 0, 2, b'b', b'c', 0];
        let beside = [1, 2, 1, 0, 4, 1, 1, b't', 1, b'a', 196, 1, 0, 2, 0, 2, b'b', b'c', 0];
        assert_eq!(same(&whole, &divided), Ok(true));
        assert_eq!(same(&whole, &beside), Ok(false));
        assert_eq!(same(&divided, &beside), Ok(false));
    }

    #[test]
    fn the_order_of_keys_makes_no_difference_and_everything_else_does() {
        let document_of = |keys: std::ops::Range<u32>| document(keys);
        let one = document_of(10..30);
        let mut differently = 0;
        for _ in 0..20 {
            let other = document_of(10..30);
            differently += usize::from(other != one);
            assert_eq!(same(&one, &other), Ok(true));
        }
        assert!(differently > 0, "the order of keys was always the same");
        assert_eq!(same(&one, &document_of(11..31)), Ok(false));
        assert_eq!(same(&one, &document_of(10..29)), Ok(false));
        let text = one.windows(4).position(|bytes| bytes == b"text").unwrap();
        let mut changed = one.clone();
        changed[text] = b'T';
        assert_eq!(same(&one, &changed), Ok(false));
        assert!(same(&one, &vec![0xff; one.len()]).is_err());
    }
}
