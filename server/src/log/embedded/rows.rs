//! The rows of the catalogue, each with its checksum.

use rusqlite::{Connection, OptionalExtension as _, Row, params, types::ValueRef};

use super::{index::Run, segment::Position};
use crate::ids::{DocumentId, Epoch, Sequence};

/// Why the catalogue could not answer or write.
pub(super) type Result<T> = rusqlite::Result<T>;

/// The one row of `meta`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meta {
    /// Random, in the checksum of every frame.
    pub(super) salt: u64,
    /// Up to here the catalogue knows the log.
    pub(super) position: Position,
    /// How many documents there are.
    pub(super) documents: i64,
    /// The sum of their checksums.
    pub(super) documents_sum: i64,
}

/// What the catalogue knows of a checkpoint, without the state.
#[derive(Clone, Debug)]
pub(super) struct CheckpointRow {
    /// Of which document.
    pub(super) document: DocumentId,
    /// Of which of its histories.
    pub(super) epoch: Epoch,
    /// What it stands for.
    pub(super) sequence: Sequence,
    /// The size of the state.
    pub(super) bytes: u64,
    /// The CRC-32C of the state.
    pub(super) state_crc: u32,
    /// The state is in a file of its own.
    pub(super) in_file: bool,
}

/// A row of `documents`.
#[derive(Clone, Debug)]
pub(super) struct DocumentRow {
    pub(super) document: DocumentId,
    pub(super) epoch: Epoch,
    pub(super) head: Sequence,
}

/// A row of `runs`: what one document has in one segment.
#[derive(Clone, Debug)]
pub(super) struct RunsRow {
    pub(super) document: DocumentId,
    pub(super) epoch: Epoch,
    /// Of one segment, contiguous, not empty.
    pub(super) runs: Vec<Run>,
}

/// A row of `segments`.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentRow {
    pub(super) number: u32,
    /// The wall time of the newest entry, in milliseconds since 1970.
    pub(super) newest_ms: u64,
}

/// A table that contradicts its checksums.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Damaged(String);

/// What is stored is damaged, as far as SQLite or the checksums can tell.
pub(super) fn is_damaged(error: &rusqlite::Error) -> bool {
    use rusqlite::{Error, ErrorCode};

    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || matches!(
            error,
            Error::FromSqlConversionFailure(..)
                | Error::InvalidColumnType(..)
                | Error::IntegralValueOutOfRange(..)
        )
}

pub(super) fn damaged(what: impl Into<String>) -> rusqlite::Error {
    let cause = Box::new(Damaged(what.into()));
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Null, cause)
}

pub(super) fn check(
    row: &Row<'_>,
    column: usize,
    crc: u32,
    what: impl Fn() -> String,
) -> Result<()> {
    if row.get_ref(column)? == ValueRef::Integer(i64::from(crc)) {
        return Ok(());
    }
    Err(damaged(format!("the {} has a wrong checksum", what())))
}

pub(super) fn document(row: &Row<'_>, column: usize) -> Result<DocumentId> {
    let text = row.get_ref(column)?.as_str().map_err(|_| damaged("a document id is not a text"))?;
    DocumentId::parse(text).map_err(|_| damaged("a document id is damaged"))
}

pub(super) fn epoch(row: &Row<'_>, column: usize) -> Result<Epoch> {
    row.get(column).map(Epoch)
}

pub(super) fn sequence(row: &Row<'_>, column: usize) -> Result<Sequence> {
    Ok(Sequence(row.get::<_, i64>(column)?.cast_unsigned()))
}

/// The CRC-32C over a name and numbers.
fn crc(text: &str, epoch: Epoch, numbers: &[u64]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(&epoch.0), text.as_bytes());
    numbers.iter().fold(crc, |crc, number| crc32c::crc32c_append(crc, &number.to_le_bytes()))
}

/// How many rows of runs a segment has, and the sum of their checksums.
pub(super) fn count_runs(connection: &Connection, segment: u32) -> Result<(i64, i64)> {
    connection.query_row(
        "SELECT count(*), coalesce(sum(crc), 0) FROM runs WHERE segment = ?1",
        [segment],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}

impl Meta {
    pub(super) fn read(connection: &Connection) -> Result<Self> {
        connection.query_row(
            "SELECT salt, segment, position, frame, documents, documents_sum, crc FROM meta",
            [],
            |row| {
                let position = Position {
                    segment: row.get(1)?,
                    offset: row.get(2)?,
                    frame: row.get::<_, i64>(3)?.cast_unsigned(),
                };
                let meta = Self {
                    salt: row.get::<_, i64>(0)?.cast_unsigned(),
                    position,
                    documents: row.get(4)?,
                    documents_sum: row.get(5)?,
                };
                check(row, 6, meta.crc(), || "row of the log".to_owned())?;
                Ok(meta)
            },
        )
    }

    pub(super) fn write(&self, connection: &Connection) -> Result<()> {
        connection.execute(
            "INSERT OR REPLACE INTO meta VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                self.salt.cast_signed(),
                self.position.segment,
                self.position.offset,
                self.position.frame.cast_signed(),
                self.documents,
                self.documents_sum,
                self.crc()
            ],
        )?;
        Ok(())
    }

    pub(super) fn crc(&self) -> u32 {
        let Position { segment, offset, frame } = self.position;
        let sums = [self.documents.cast_unsigned(), self.documents_sum.cast_unsigned()];
        let numbers = [self.salt, segment.into(), offset.into(), frame, sums[0], sums[1]];
        crc("", Epoch([0; 16]), &numbers)
    }

    /// Puts `row` in the place of what is there of `document`, and keeps the sums true.
    pub(super) fn replace(
        &mut self,
        connection: &Connection,
        document: &DocumentId,
        row: Option<&DocumentRow>,
    ) -> Result<()> {
        let mut find =
            connection.prepare_cached("SELECT crc FROM documents WHERE document = ?1")?;
        let old = find.query_row([document.as_str()], |row| row.get::<_, i64>(0)).optional()?;
        if let Some(old) = old {
            self.documents -= 1;
            self.documents_sum = self.documents_sum.wrapping_sub(old);
        }
        if let Some(row) = row {
            let mut put = connection
                .prepare_cached("INSERT OR REPLACE INTO documents VALUES (?1, ?2, ?3, ?4)")?;
            put.execute(params![
                document.as_str(),
                row.epoch.0,
                row.head.0.cast_signed(),
                row.crc()
            ])?;
            self.documents += 1;
            self.documents_sum = self.documents_sum.wrapping_add(i64::from(row.crc()));
        } else if old.is_some() {
            connection
                .prepare_cached("DELETE FROM documents WHERE document = ?1")?
                .execute([document.as_str()])?;
        }
        Ok(())
    }
}

impl DocumentRow {
    pub(super) fn crc(&self) -> u32 {
        crc(self.document.as_str(), self.epoch, &[self.head.0])
    }
}

impl CheckpointRow {
    pub(super) fn read(row: &Row<'_>) -> Result<Self> {
        let found = Self {
            document: document(row, 0)?,
            epoch: epoch(row, 1)?,
            sequence: sequence(row, 2)?,
            bytes: row.get::<_, i64>(3)?.cast_unsigned(),
            state_crc: row.get(4)?,
            in_file: row.get(5)?,
        };
        check(row, 6, found.crc(), || format!("checkpoint of document {}", found.document))?;
        Ok(found)
    }

    pub(super) fn crc(&self) -> u32 {
        let numbers =
            [self.sequence.0, self.bytes, u64::from(self.state_crc), u64::from(self.in_file)];
        crc(self.document.as_str(), self.epoch, &numbers)
    }
}

impl RunsRow {
    pub(super) fn read(row: &Row<'_>) -> Result<Self> {
        let (document, epoch) = (document(row, 0)?, epoch(row, 1)?);
        let (first, last) = (sequence(row, 2)?, sequence(row, 3)?);
        let segment = row.get(4)?;
        let blob = row.get_ref(6)?.as_blob().map_err(|_| damaged("runs are not bytes"))?;
        let mut next = first;
        let mut runs = Vec::with_capacity(blob.len() / 12);
        for words in blob.as_chunks::<12>().0 {
            let word = |at: usize| {
                u32::from_le_bytes([words[at], words[at + 1], words[at + 2], words[at + 3]])
            };
            let run =
                Run { first: next, count: word(0), segment, offset: word(4), length: word(8) };
            next = Sequence(next.0.wrapping_add(u64::from(run.count)));
            runs.push(run);
        }
        let found = Self { document, epoch, runs };
        check(row, 5, found.crc(blob), || format!("index of document {}", found.document))?;
        if next.0 != last.0.wrapping_add(1) || found.runs.iter().any(|run| run.count == 0) {
            return Err(damaged(format!("the index of document {} is torn", found.document)));
        }
        Ok(found)
    }

    /// The count, offset and length of each run, as `u32`s.
    pub(super) fn encode(&self) -> Vec<u8> {
        let words = self.runs.iter().flat_map(|run| [run.count, run.offset, run.length]);
        words.flat_map(u32::to_le_bytes).collect()
    }

    pub(super) fn crc(&self, blob: &[u8]) -> u32 {
        let (first, segment) =
            self.runs.first().map_or((0, 0), |run| (run.first.0, u64::from(run.segment)));
        let crc = crc(self.document.as_str(), self.epoch, &[first, segment]);
        crc32c::crc32c_append(crc, blob)
    }
}

impl SegmentRow {
    /// The row, how many rows of runs it has, and the sum of their checksums.
    pub(super) fn read(row: &Row<'_>) -> Result<(Self, i64, i64)> {
        let (runs, sum) = (row.get(2)?, row.get(3)?);
        let found = Self { number: row.get(0)?, newest_ms: row.get::<_, i64>(1)?.cast_unsigned() };
        check(row, 4, found.crc((runs, sum)), || format!("row of segment {}", found.number))?;
        Ok((found, runs, sum))
    }

    pub(super) fn write(&self, connection: &Connection) -> Result<()> {
        let counted = count_runs(connection, self.number)?;
        connection.execute(
            "INSERT INTO segments VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                self.number,
                self.newest_ms.cast_signed(),
                counted.0,
                counted.1,
                self.crc(counted)
            ],
        )?;
        Ok(())
    }

    pub(super) fn crc(&self, (runs, sum): (i64, i64)) -> u32 {
        let numbers =
            [u64::from(self.number), self.newest_ms, runs.cast_unsigned(), sum.cast_unsigned()];
        crc("", Epoch([0; 16]), &numbers)
    }
}
