//! Reads the database of the SQLite extension of Hocuspocus: a table `documents` with a Yjs v1
//! update for each name.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, types::ValueRef};

use super::{Found, Refusal, STORED_FACTOR, Source, error::SourceError};

/// The rows in the order in which they were made.
const NEXT: &str =
    "SELECT rowid, name, data FROM documents WHERE rowid > ?1 ORDER BY rowid LIMIT 1";

/// A database that is open for reading.
#[derive(Debug)]
pub struct Hocuspocus {
    path: PathBuf,
    database: Connection,
    /// The last row that was read.
    row: i64,
    bytes_max: usize,
}

impl Hocuspocus {
    /// Opens the database at `path`; documents have at most `document_bytes_max` bytes.
    ///
    /// # Errors
    ///
    /// It cannot be opened, or there is no such table in it.
    pub fn open(path: &Path, document_bytes_max: usize) -> Result<Self, SourceError> {
        let broken = |source| SourceError::Database { path: path.to_owned(), source };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(path, flags).map_err(broken)?;
        // What is read is the database at one moment, whatever is written meanwhile.
        database.execute_batch("BEGIN").map_err(broken)?;
        database.prepare(NEXT).map_err(broken)?;
        let bytes_max = document_bytes_max.saturating_mul(STORED_FACTOR);
        Ok(Self { path: path.to_owned(), database, row: i64::MIN, bytes_max })
    }
}

impl Source for Hocuspocus {
    fn next(&mut self) -> Result<Option<Found>, SourceError> {
        let bytes_max = self.bytes_max;
        let read = || {
            let mut statement = self.database.prepare_cached(NEXT)?;
            let row = statement.query_row([self.row], |row| {
                let name = match row.get_ref(1)? {
                    ValueRef::Text(name) => Ok(String::from_utf8_lossy(name).into_owned()),
                    ValueRef::Null
                    | ValueRef::Integer(_)
                    | ValueRef::Real(_)
                    | ValueRef::Blob(_) => Err(Refusal::Wrong("the column name is not text")),
                };
                let data = match row.get_ref(2)? {
                    ValueRef::Blob(data) if data.len() > bytes_max => {
                        Err(Refusal::stored(data.len(), bytes_max))
                    }
                    ValueRef::Blob(data) => Ok(Bytes::copy_from_slice(data)),
                    ValueRef::Null
                    | ValueRef::Integer(_)
                    | ValueRef::Real(_)
                    | ValueRef::Text(_) => Err(Refusal::Wrong("the column data is not a blob")),
                };
                Ok((row.get(0)?, name, data))
            });
            row.optional()
        };
        let broken = |source| SourceError::Database { path: self.path.clone(), source };
        let Some((row, name, data)) = read().map_err(broken)? else { return Ok(None) };
        self.row = row;
        Ok(Some(match name {
            Ok(name) => Found { name, content: data.map(|data| vec![data]) },
            Err(refusal) => Found { name: format!("(row {row})"), content: Err(refusal) },
        }))
    }
}
