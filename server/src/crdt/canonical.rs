//! Whether two encodings are of one document.
//!
//! yrs keeps the objects of JSON in hash maps, so that their keys come in another order each time a
//! document is loaded and encoded: `{"a":1,"b":2}` or `{"b":2,"a":1}`. Here the keys are sorted.
//! Everything else of an encoding is determined by the document.

use super::validate::{Cursor, Malformed, VALUE_DEPTH_MAX};

/// Whether `one` and `other` (Yjs v1 updates, as yrs encodes whole documents) are the same but for
/// the order of keys in objects.
///
/// # Errors
///
/// One of them is no update.
pub(super) fn same(one: &[u8], other: &[u8]) -> Result<bool, Malformed> {
    Ok(one == other || (one.len() == other.len() && canonical(one)? == canonical(other)?))
}

/// The update with the keys of all objects sorted. Objects in JSON text lose their spaces as well.
fn canonical(update: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut writer = Writer {
        cursor: Cursor { bytes: update, at: 0 },
        out: Vec::with_capacity(update.len()),
        copied: 0,
    };
    let cursor = &mut writer.cursor;
    for _ in 0..cursor.count(4, "more clients than bytes")? {
        let structs = writer.cursor.count(2, "more structs than bytes")?;
        writer.cursor.client()?;
        writer.cursor.clock()?;
        for _ in 0..structs {
            writer.one_struct()?;
        }
    }
    // The deletions stay as they are.
    writer.cursor.at = update.len();
    writer.copy();
    Ok(writer.out)
}

struct Writer<'a> {
    cursor: Cursor<'a>,
    out: Vec<u8>,
    /// Up to where what was read has been written.
    copied: usize,
}

impl Writer<'_> {
    /// Writes what was read and is not to be changed.
    fn copy(&mut self) {
        let read = self.cursor.bytes.get(self.copied..self.cursor.at);
        self.out.extend_from_slice(read.unwrap_or_default());
        self.copied = self.cursor.at;
    }

    fn one_struct(&mut self) -> Result<(), Malformed> {
        let cursor = &mut self.cursor;
        let kind = cursor.byte()?;
        if matches!(kind, 0 | 10) {
            return cursor.clock().map(drop);
        }
        for flag in [0x80, 0x40] {
            if kind & flag != 0 {
                cursor.client()?;
                cursor.clock()?;
            }
        }
        if kind & 0xc0 == 0 {
            if cursor.byte()? == 1 {
                cursor.string()?;
            } else {
                cursor.client()?;
                cursor.clock()?;
            }
            if kind & 0x20 != 0 {
                cursor.string()?;
            }
        }
        match kind & 0x1f {
            1 => cursor.clock().map(drop),
            3 => cursor.blob().map(drop),
            4 => cursor.string().map(drop),
            5 => self.json(),
            6 => {
                cursor.string()?;
                self.json()
            }
            7 => match cursor.byte()? {
                3 => cursor.string().map(drop),
                _ => Ok(()),
            },
            8 => {
                for _ in 0..cursor.count(1, "more values than bytes")? {
                    self.value()?;
                }
                Ok(())
            }
            9 => {
                cursor.string()?;
                self.value()
            }
            _ => Err(cursor.malformed("an unknown kind of content")),
        }
    }

    fn json(&mut self) -> Result<(), Malformed> {
        self.copy();
        let text = self.cursor.blob()?;
        // Keys are sorted by the type that they are read into. What is not JSON stays as it is.
        if let Ok(value) = serde_json::from_slice::<serde_json::Value>(text) {
            let sorted = value.to_string();
            self.out.extend_from_slice(&(sorted.len() as u64).to_le_bytes());
            self.out.extend_from_slice(sorted.as_bytes());
            self.copied = self.cursor.at;
        }
        Ok(())
    }

    fn value(&mut self) -> Result<(), Malformed> {
        self.copy();
        value(&mut self.cursor, VALUE_DEPTH_MAX, &mut self.out)?;
        self.copied = self.cursor.at;
        Ok(())
    }
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
