//! Reads the directory of y-leveldb, where y-websocket keeps documents: a Yjs v1 update for each
//! change, or for several.
//!
//! Keys are lists. A text is a 0, the length of its UTF-8 and that; a number is a 1 and 4 bytes, the
//! highest first. `"v1", name, "update", number` is an update, in order; `"v1", name, "meta", key`
//! and `"v1_sv", name` are values beside the document, which are left out.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{Found, Refusal, STORED_FACTOR, Source, error::SourceError, leveldb::LevelDb};

/// What the keys of updates begin with: the text `v1`.
const BEGINNING: &[u8] = b"\0\x02v1\0";
/// What stands between the name and the number: the text `update`.
const UPDATE: &[u8] = b"\0\x06update\x01";

/// A directory that is open for reading.
#[derive(Debug)]
pub struct YLevelDb {
    path: PathBuf,
    database: LevelDb,
    /// The first update of the next document.
    next: Option<(Vec<u8>, Bytes)>,
    /// Some document was found.
    found: bool,
    bytes_max: usize,
}

impl YLevelDb {
    /// Opens the directory `path`; documents have at most `document_bytes_max` bytes.
    ///
    /// # Errors
    ///
    /// It cannot be opened, or is in use.
    pub fn open(path: &Path, document_bytes_max: usize) -> Result<Self, SourceError> {
        let database = LevelDb::open(path)?;
        let bytes_max = document_bytes_max.saturating_mul(STORED_FACTOR);
        Ok(Self { path: path.to_owned(), database, next: None, found: false, bytes_max })
    }

    /// The next update, and the name of its document.
    fn update(&mut self) -> Result<Option<(Vec<u8>, Bytes)>, SourceError> {
        if let Some(update) = self.next.take() {
            return Ok(Some(update));
        }
        while let Some((key, value)) = self.database.next()? {
            if let Some(name) = document(&key) {
                return Ok(Some((name.to_owned(), value)));
            }
        }
        Ok(None)
    }
}

impl Source for YLevelDb {
    fn next(&mut self) -> Result<Option<Found>, SourceError> {
        let Some((name, first)) = self.update()? else {
            let what = "no document of y-leveldb is in it";
            return if self.found { Ok(None) } else { Err(SourceError::damaged(&self.path, what)) };
        };
        self.found = true;
        let mut bytes = first.len();
        let mut updates = vec![first];
        // The keys of a document stand together.
        while let Some((other, update)) = self.update()? {
            if other != name {
                self.next = Some((other, update));
                break;
            }
            bytes = bytes.saturating_add(update.len());
            if bytes <= self.bytes_max {
                updates.push(update);
            }
        }
        let content = match bytes {
            _ if std::str::from_utf8(&name).is_err() => Err(Refusal::NotText),
            0.. if bytes > self.bytes_max => Err(Refusal::stored(bytes, self.bytes_max)),
            _ => Ok(updates),
        };
        Ok(Some(Found { name: String::from_utf8_lossy(&name).into_owned(), content }))
    }
}

/// The name in the key of an update; `None` for other keys.
fn document(key: &[u8]) -> Option<&[u8]> {
    let mut rest = key.strip_prefix(BEGINNING)?;
    let mut length = 0_usize;
    // A name of more than 4 groups of 7 bits is longer than any key.
    for shift in (0..28).step_by(7) {
        let (byte, after) = rest.split_first()?;
        rest = after;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let (name, rest) = rest.split_at_checked(length)?;
            return (rest.strip_prefix(UPDATE)?.len() == 4).then_some(name);
        }
    }
    None
}
