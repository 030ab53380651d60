//! The catalogue: an SQLite database with the documents, the checkpoints, and the index of the log
//! up to a position.
//!
//! The log is the truth. The catalogue is what the log said up to `position`; the rest is read from
//! the log at every start. Every row has a checksum, as SQLite has none, and the documents have a
//! sum over theirs, so that a row that vanishes is missed. A missing run is a hole in the sequences
//! of its document.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::{
    disk::Disk,
    index::{Entry, Run},
    rows::{
        self, CheckpointRow, DocumentRow, Meta, Result, RunsRow, SegmentRow, check, damaged,
        document, epoch, sequence,
    },
    segment::Position,
};
use crate::{
    ids::{DocumentId, Epoch, Sequence},
    log::OpenError,
};

/// The version of the schema, in `user_version`.
pub(super) const FORMAT: u32 = 1;

/// `wal_checkpoint` and the like are left to SQLite. `synchronous=FULL`: a transaction is durable
/// when it returns, also in WAL mode.
const PRAGMAS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;";

const SCHEMA: &str = "
    CREATE TABLE meta (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        salt INTEGER NOT NULL, segment INTEGER NOT NULL, position INTEGER NOT NULL,
        frame INTEGER NOT NULL, documents INTEGER NOT NULL, documents_sum INTEGER NOT NULL,
        crc INTEGER NOT NULL
    );
    CREATE TABLE documents (
        document TEXT PRIMARY KEY, epoch BLOB NOT NULL, head INTEGER NOT NULL, crc INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE checkpoints (
        document TEXT PRIMARY KEY, epoch BLOB NOT NULL, sequence INTEGER NOT NULL,
        bytes INTEGER NOT NULL, state_crc INTEGER NOT NULL, in_file INTEGER NOT NULL,
        crc INTEGER NOT NULL, state BLOB
    );
    CREATE TABLE runs (
        document TEXT NOT NULL, epoch BLOB NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
        segment INTEGER NOT NULL, crc INTEGER NOT NULL, runs BLOB NOT NULL,
        PRIMARY KEY (document, epoch, first)
    );
    CREATE INDEX runs_segment ON runs (segment, document);
    CREATE TABLE segments (
        number INTEGER PRIMARY KEY, newest_ms INTEGER NOT NULL, runs INTEGER NOT NULL,
        runs_sum INTEGER NOT NULL, crc INTEGER NOT NULL
    );
    PRAGMA user_version = 1;
";

/// The catalogue. Its methods block; each is one transaction at most.
pub(super) struct Catalogue {
    path: PathBuf,
    disk: Arc<dyn Disk>,
    /// `None` once it is closed.
    writer: Mutex<Option<Connection>>,
    /// Reads beside a writing transaction; `None` where the disk has one connection only.
    reader: Mutex<Option<Connection>>,
    /// A transaction failed for another reason than a full disk: what SQLite has synced is not
    /// known, and it is not asked again.
    failed: AtomicBool,
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalogue").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What the catalogue learns of the log in one step.
#[derive(Debug)]
pub(super) struct Step {
    /// Up to here it knows the log afterwards.
    pub(super) position: Position,
    pub(super) documents: Vec<DocumentRow>,
    pub(super) removed: Vec<DocumentId>,
    pub(super) runs: Vec<RunsRow>,
    pub(super) sealed: Vec<SegmentRow>,
}

impl Catalogue {
    /// Opens the catalogue at `path`; makes one with the random `salt` if there is none and
    /// `may_create`.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        path: PathBuf,
        salt: u64,
        may_create: bool,
    ) -> std::result::Result<Self, OpenError> {
        let failed = |source| OpenError::Catalogue { path: path.clone(), source };
        let mut writer = disk.catalogue(&path).map_err(failed)?;
        let version = writer
            .query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0))
            .map_err(failed)?;
        if version > FORMAT {
            return Err(OpenError::Format { path, found: version, known: FORMAT });
        }
        writer.execute_batch(PRAGMAS).map_err(failed)?;
        if version == 0 {
            if !may_create {
                let what = "it is empty, but there are segments".to_owned();
                return Err(OpenError::Damaged { path, what });
            }
            let transaction = writer.transaction().map_err(failed)?;
            transaction.execute_batch(SCHEMA).map_err(failed)?;
            let meta = Meta { salt, position: Position::START, documents: 0, documents_sum: 0 };
            meta.write(&transaction).map_err(failed)?;
            transaction.commit().map_err(failed)?;
            disk.catalogue_committed(&writer);
        }
        let reader = disk.catalogue_reader(&path).map_err(failed)?;
        let (writer, reader) = (Mutex::new(Some(writer)), Mutex::new(reader));
        Ok(Self { path, disk, writer, reader, failed: AtomicBool::new(false) })
    }

    /// Lets go of the database.
    pub(super) fn close(&self) {
        drop(self.reader.lock().take());
        drop(self.writer.lock().take());
    }

    /// The row of `meta`.
    pub(super) fn meta(&self) -> Result<Meta> {
        self.read(Meta::read)
    }

    /// All documents, and all of their checkpoints without the states.
    pub(super) fn documents(&self) -> Result<(BTreeMap<DocumentId, Entry>, Vec<CheckpointRow>)> {
        self.read(|connection| {
            let meta = Meta::read(connection)?;
            let mut documents = BTreeMap::new();
            let mut sum = 0_i64;
            let mut statement =
                connection.prepare("SELECT document, epoch, head, crc FROM documents")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let found = DocumentRow {
                    document: document(row, 0)?,
                    epoch: epoch(row, 1)?,
                    head: sequence(row, 2)?,
                };
                check(row, 3, found.crc(), || format!("row of document {}", found.document))?;
                sum = sum.wrapping_add(i64::from(found.crc()));
                let mut entry = Entry::new(found.epoch, (0, 0));
                entry.head = found.head;
                documents.insert(found.document, entry);
            }
            if sum != meta.documents_sum || documents.len() as i64 != meta.documents {
                return Err(damaged("documents are missing"));
            }
            let mut checkpoints = Vec::new();
            let mut statement = connection.prepare(
                "SELECT document, epoch, sequence, bytes, state_crc, in_file, crc FROM checkpoints",
            )?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                match CheckpointRow::read(row) {
                    Ok(row) => checkpoints.push(row),
                    // Its document finds out whether it can do without.
                    Err(error) => tracing::error!(%error, "a checkpoint of the log is damaged"),
                }
            }
            Ok((documents, checkpoints))
        })
    }

    /// Calls `visit` with all runs that `wanted` asks for by document, epoch and last sequence.
    /// Damaged rows are left out: their document misses them.
    pub(super) fn runs(
        &self,
        mut wanted: impl FnMut(&DocumentId, Epoch, Sequence) -> bool,
        mut visit: impl FnMut(RunsRow),
    ) -> Result<()> {
        self.read(|connection| {
            let mut statement = connection
                .prepare("SELECT document, epoch, first, last, segment, crc, runs FROM runs")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                // A row without a name is nobody's row: somebody misses it.
                let (Ok(document), Ok(epoch)) = (document(row, 0), epoch(row, 1)) else { continue };
                if wanted(&document, epoch, sequence(row, 3)?) {
                    match RunsRow::read(row) {
                        Ok(row) => visit(row),
                        Err(error) => tracing::error!(%error, "the index of the log is damaged"),
                    }
                }
            }
            Ok(())
        })
    }

    /// The runs of a document that have updates after `after`, in order, until they have
    /// `bytes_max` bytes.
    pub(super) fn history(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        after: Sequence,
        bytes_max: u64,
    ) -> Result<Vec<Run>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT document, epoch, first, last, segment, crc, runs FROM runs
                 WHERE document = ?1 AND epoch = ?2 AND last > ?3 ORDER BY first",
            )?;
            let mut rows =
                statement.query(params![document.as_str(), epoch.0, after.0.cast_signed()])?;
            let mut runs = Vec::new();
            let mut bytes = 0;
            while let Some(row) = rows.next()?
                && bytes < bytes_max
            {
                let mut found = RunsRow::read(row)?.runs;
                found.retain(|run| run.last() > after);
                bytes += found.iter().map(|run| u64::from(run.length)).sum::<u64>();
                runs.append(&mut found);
            }
            Ok(runs)
        })
    }

    /// The checkpoint of a document, with the state if it is not in a file.
    pub(super) fn checkpoint(
        &self,
        document: &DocumentId,
    ) -> Result<Option<(CheckpointRow, Option<Bytes>)>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT document, epoch, sequence, bytes, state_crc, in_file, crc, state
                 FROM checkpoints WHERE document = ?1",
            )?;
            let found = statement.query_row([document.as_str()], |row| {
                Ok((CheckpointRow::read(row)?, row.get::<_, Option<Vec<u8>>>(7)?))
            });
            Ok(found.optional()?.map(|(row, state)| (row, state.map(Bytes::from))))
        })
    }

    /// The checkpoint of a document without the state.
    pub(super) fn checkpoint_row(&self, document: &DocumentId) -> Result<Option<CheckpointRow>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT document, epoch, sequence, bytes, state_crc, in_file, crc
                 FROM checkpoints WHERE document = ?1",
            )?;
            statement.query_row([document.as_str()], CheckpointRow::read).optional()
        })
    }

    /// Stores a checkpoint over the one that is there, whichever it is.
    pub(super) fn put_checkpoint(&self, row: &CheckpointRow, state: Option<&[u8]>) -> Result<()> {
        self.write(|transaction| {
            let mut statement = transaction.prepare_cached(
                "INSERT OR REPLACE INTO checkpoints VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?;
            statement.execute(params![
                row.document.as_str(),
                row.epoch.0,
                row.sequence.0.cast_signed(),
                row.bytes.cast_signed(),
                row.state_crc,
                row.in_file,
                row.crc(),
                state
            ])?;
            Ok(())
        })
    }

    /// Removes the checkpoints of these histories.
    pub(super) fn remove_checkpoints(&self, stale: &[(DocumentId, Epoch)]) -> Result<()> {
        self.write(|transaction| {
            let mut statement = transaction
                .prepare_cached("DELETE FROM checkpoints WHERE document = ?1 AND epoch = ?2")?;
            for (document, epoch) in stale {
                statement.execute(params![document.as_str(), epoch.0])?;
            }
            Ok(())
        })
    }

    /// Takes in a part of the log.
    pub(super) fn advance(&self, step: &Step) -> Result<()> {
        self.write(|transaction| {
            let mut meta = Meta::read(transaction)?;
            meta.position = step.position;
            let written = step.documents.iter().map(|row| (&row.document, Some(row)));
            let removed = step.removed.iter().map(|document| (document, None));
            for (document, row) in removed.chain(written) {
                meta.replace(transaction, document, row)?;
            }
            let mut statement = transaction
                .prepare_cached("INSERT INTO runs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?;
            for row in &step.runs {
                let (Some(first), Some(last)) = (row.runs.first(), row.runs.last()) else {
                    continue;
                };
                let blob = row.encode();
                statement.execute(params![
                    row.document.as_str(),
                    row.epoch.0,
                    first.first.0.cast_signed(),
                    last.last().0.cast_signed(),
                    first.segment,
                    row.crc(&blob),
                    blob
                ])?;
            }
            for row in &step.sealed {
                row.write(transaction)?;
            }
            meta.write(transaction)
        })
    }

    /// The full segments that the catalogue knows, in order.
    pub(super) fn segments(&self) -> Result<Vec<SegmentRow>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT number, newest_ms, runs, runs_sum, crc FROM segments ORDER BY number",
            )?;
            let rows = statement.query_map([], |row| SegmentRow::read(row).map(|(row, ..)| row))?;
            rows.collect()
        })
    }

    /// Whether the catalogue has any trace of a segment. One that was dropped has none.
    pub(super) fn knows_segment(&self, number: u32) -> Result<bool> {
        self.read(|connection| {
            connection.query_row(
                "SELECT EXISTS (SELECT 1 FROM segments WHERE number = ?1)
                     OR EXISTS (SELECT 1 FROM runs WHERE segment = ?1)",
                [number],
                |row| row.get(0),
            )
        })
    }

    /// The first document in a segment that `pins` says yes to, by its epoch and the sequence of
    /// the last update that it has there.
    pub(super) fn pin(
        &self,
        segment: u32,
        pins: impl Fn(&DocumentId, Epoch, Sequence) -> bool,
    ) -> Result<Option<(DocumentId, Epoch, Sequence)>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT document, epoch, first, last, segment, crc, runs FROM runs
                 WHERE segment = ?1",
            )?;
            let mut rows = statement.query([segment])?;
            while let Some(row) = rows.next()? {
                let row = RunsRow::read(row)?;
                let last = row.runs.last().map_or(Sequence::ZERO, Run::last);
                if pins(&row.document, row.epoch, last) {
                    return Ok(Some((row.document, row.epoch, last)));
                }
            }
            let (_, runs, sum) = connection.query_row(
                "SELECT number, newest_ms, runs, runs_sum, crc FROM segments WHERE number = ?1",
                [segment],
                SegmentRow::read,
            )?;
            // A row that vanished could have been the one that needs the segment.
            if rows::count_runs(connection, segment)? == (runs, sum) {
                return Ok(None);
            }
            Err(damaged("runs are missing"))
        })
    }

    /// Forgets segments.
    pub(super) fn drop_segments(&self, numbers: &[u32]) -> Result<()> {
        self.write(|transaction| {
            for number in numbers {
                transaction.execute("DELETE FROM runs WHERE segment = ?1", [number])?;
                transaction.execute("DELETE FROM segments WHERE number = ?1", [number])?;
            }
            Ok(())
        })
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let reader = self.reader.lock();
        if let Some(connection) = reader.as_ref() {
            return work(connection);
        }
        drop(reader);
        work(self.writer.lock().as_ref().ok_or_else(closed)?)
    }

    fn write(&self, work: impl FnOnce(&Transaction<'_>) -> Result<()>) -> Result<()> {
        let mut writer = self.writer.lock();
        let connection = writer.as_mut().ok_or_else(closed)?;
        if self.failed.load(Ordering::Relaxed) {
            return Err(rusqlite::Error::InvalidPath(PathBuf::from("the catalogue has failed")));
        }
        let written = connection.transaction().and_then(|transaction| {
            work(&transaction)?;
            transaction.commit()
        });
        match &written {
            Ok(()) => self.disk.catalogue_committed(connection),
            Err(error) if is_full(error) => {}
            Err(_) => self.failed.store(true, Ordering::Relaxed),
        }
        written
    }
}

/// There is no room for a transaction.
pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}

fn closed() -> rusqlite::Error {
    rusqlite::Error::InvalidPath(PathBuf::from("the catalogue is closed"))
}
