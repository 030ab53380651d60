//! Opening: what the catalogue knows, and then what the log says after that.
//!
//! A frame is written only after the one before it was synced, so that a crash can damage only the
//! last one. Hence:
//!
//! - Bytes that are no frame, and no good frame after them, are a **torn tail**: a commit that
//!   nobody was told of. It is cut off, and a warning says so. An acknowledged last frame that rots
//!   after a crash looks the same; a clean close lets the catalogue know every update, and then it
//!   does not.
//! - Bytes that are no frame with a good frame after them are **damage**. Nothing is cut. A document
//!   is refused if it misses sequences, or if it may have been in the lost frames (the witness of
//!   the next good frame tells, see [`segment`]; without one it is any document) and nothing after
//!   them shows that it went on from where it was. So is an unknown document that may have been
//!   created in them. The catalogue is not moved past the damage, so that every start sees it again.
//! - With `durability = "os"` a loss of power can damage several frames of the last segment at once,
//!   which looks like damage, and is.
//! - Damage in front of the position that the catalogue knows is found when a document is loaded
//!   that needs the damaged bytes, and by nobody else.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};

use super::{
    Layout, Shared, Tuning,
    catalogue::Catalogue,
    checkpoint,
    disk::{self, Disk, DiskFile},
    entry::{self, Kind},
    index::{Index, Sealed},
    queue::Queue,
    rows::CheckpointRow,
    segment::{self, HEADER_BYTES, Header, Position, Recent, Scanner, witness_hash},
    upkeep::Upkeep,
    writer::{Active, Writer},
};
use crate::{
    log::{Config, LogState, OpenError},
    metrics::LogMetrics,
    time::wall_ms,
};

/// Opens the log: its shared part, and the writer, which does not run yet.
pub(super) fn open(
    config: &Config,
    tuning: Tuning,
    disk: Arc<dyn Disk>,
    metrics: LogMetrics,
) -> Result<(Arc<Shared>, Writer), OpenError> {
    let layout = Layout::new(&config.directory);
    for dir in [&layout.root, &layout.segments, &layout.checkpoints] {
        disk.create_dir(dir).map_err(at(dir))?;
    }
    let Some(lock) = disk.lock(&layout.root).map_err(at(&layout.root))? else {
        return Err(OpenError::InUse { path: layout.root });
    };
    let names = disk.list(&layout.segments).map_err(at(&layout.segments))?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    let catalogue = Catalogue::open(
        Arc::clone(&disk),
        layout.catalogue.clone(),
        rand::random(),
        numbers.is_empty(),
    )?;
    // Segments without their catalogue are worth little: its name comes first.
    disk.sync_dir(&layout.root).map_err(at(&layout.root))?;
    let failed = |source| OpenError::Catalogue { path: layout.catalogue.clone(), source };
    let meta = catalogue.meta().map_err(failed)?;
    let (documents, checkpoints) = catalogue.documents().map_err(failed)?;
    let mut recovery = Recovery {
        disk: &*disk,
        layout: &layout,
        salt: meta.salt,
        index: Index::new(documents, meta.position),
        recent: Recent::default(),
        end: meta.position,
        torn: false,
    };
    recovery.remove_orphans(&mut numbers, &catalogue)?;
    recovery.scan(&numbers)?;
    let (active, state) = recovery.active(&mut numbers, tuning)?;
    let Recovery { mut index, recent, end, .. } = recovery;
    index.end = end;
    complete(&mut index, &catalogue, &checkpoints).map_err(failed)?;
    remove_stray_checkpoints(&*disk, &layout, &checkpoints)?;

    metrics.segments.set(numbers.len() as i64);
    metrics.corrupt_documents.set(index.damaged() as i64);
    let shared = Arc::new(Shared {
        config: config.clone(),
        tuning,
        layout,
        disk,
        salt: meta.salt,
        queue: Queue::new(state, metrics.clone()),
        metrics,
        index: Mutex::new(index),
        catalogue,
        gate: RwLock::new(()),
        checkpointing: Mutex::new(()),
        upkeep: Mutex::new(Upkeep::default()),
        lock: Mutex::new(Some(lock)),
    });
    let writer = Writer::new(Arc::clone(&shared), active, end, recent);
    Ok((shared, writer))
}

struct Recovery<'a> {
    disk: &'a dyn Disk,
    layout: &'a Layout,
    salt: u64,
    index: Index,
    recent: Recent,
    /// Behind the last good frame.
    end: Position,
    /// There is something behind it in its segment.
    torn: bool,
}

impl Recovery<'_> {
    /// Removes the segments that the catalogue has forgotten: a crash came between that and their
    /// removal.
    fn remove_orphans(
        &self,
        numbers: &mut Vec<u32>,
        catalogue: &Catalogue,
    ) -> Result<(), OpenError> {
        let position = self.index.indexed_to;
        let mut orphans = Vec::new();
        for &number in numbers.iter().take_while(|&&number| number < position.segment) {
            let known = catalogue.knows_segment(number).map_err(|source| OpenError::Catalogue {
                path: self.layout.catalogue.clone(),
                source,
            })?;
            if !known {
                let path = segment::path(&self.layout.segments, number);
                self.disk.remove(&path).map_err(at(&path))?;
                orphans.push(number);
            }
        }
        numbers.retain(|number| !orphans.contains(number));
        Ok(())
    }

    /// Reads everything behind the position that the catalogue knows.
    fn scan(&mut self, numbers: &[u32]) -> Result<(), OpenError> {
        let start = self.index.indexed_to;
        let last = numbers.last().copied().unwrap_or_default();
        if start == Position::START && last == 0 {
            return Ok(());
        }
        for number in start.segment..=last.max(start.segment) {
            let path = segment::path(&self.layout.segments, number);
            let offset = if number == start.segment { start.offset } else { HEADER_BYTES };
            let place = Position { segment: number, offset, frame: self.end.frame };
            let file = match self.disk.open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.lost(&path, "it is missing");
                    continue;
                }
                Err(error) => return Err(at(&path)(error)),
            };
            let newest_ms = self.scan_segment(&path, file, place)?;
            if number < last {
                let next =
                    Position { segment: number + 1, offset: HEADER_BYTES, frame: self.end.frame };
                // A part of the first segment is in the catalogue already, and its time is not: now
                // is never too early.
                let newest_ms = if number == start.segment { wall_ms() } else { newest_ms };
                self.index.sealed.push(Sealed { segment: number, newest_ms, next });
            }
        }
        Ok(())
    }

    /// Reads the frames of a segment; returns the time of its newest entry.
    fn scan_segment(
        &mut self,
        path: &Path,
        file: Arc<dyn DiskFile>,
        mut place: Position,
    ) -> Result<u64, OpenError> {
        let first = match segment::read_header(&*file, place.segment).map_err(at(path))? {
            Header::Good { first } => first,
            Header::Newer(found) => {
                let (path, known) = (path.to_owned(), segment::FORMAT);
                return Err(OpenError::Format { path, found, known });
            }
            // The frames are good or bad by themselves.
            Header::Bad => {
                tracing::warn!(path = %path.display(), "a segment has no good header");
                0
            }
        };
        let mut scanner = Scanner::new(file, place.segment, self.salt).map_err(at(path))?;
        if scanner.size() < u64::from(place.offset) {
            if place.offset > HEADER_BYTES {
                self.lost(path, "it is shorter than it was");
            }
            (self.end, self.torn) = (place, false);
            return Ok(0);
        }
        let mut newest_ms = 0;
        loop {
            if let Some(frame) = scanner.frame(place.offset, place.frame).map_err(at(path))? {
                if frame.number > place.frame {
                    let witness = frame.witness(place.frame);
                    let (from, to) = (place.frame, frame.number - 1);
                    tracing::error!(
                        path = %path.display(), from, to, bounded = witness.is_some(),
                        "frames of the log are damaged; their documents are refused"
                    );
                    self.index.doubt(witness.as_deref());
                }
                let entries = (place.segment, place.offset + frame.entries_at);
                let mut hashes = Vec::new();
                let times = replay(&mut self.index, frame.entries, entries, &mut hashes);
                newest_ms = newest_ms.max(times);
                self.recent.push(frame.number, frame.bytes as usize, &hashes);
                place.frame = frame.number + 1;
                place.offset += frame.bytes;
            } else if let Some(found) =
                scanner.search(place.offset, place.frame).map_err(at(path))?
            {
                // Whether frames were lost is told by the number of the one that was found.
                let (from, to) = (place.offset, found);
                tracing::error!(path = %path.display(), from, to, "a part of the log is damaged");
                place.offset = found;
            } else {
                break;
            }
        }
        if scanner.frame(place.offset, 0).map_err(at(path))?.is_some() {
            // Somebody has put files of different times together.
            self.lost(path, "its frames are out of order");
        }
        if first > place.frame {
            self.lost(path, "frames that were durable before it are missing");
            place.frame = first;
        }
        self.torn = scanner.anything_after(place.offset).map_err(at(path))?;
        self.end = place;
        Ok(newest_ms)
    }

    /// Frames may have been lost, and nothing bounds which.
    fn lost(&mut self, path: &Path, what: &str) {
        tracing::error!(path = %path.display(), what, "the log is damaged; documents are refused");
        self.index.doubt(None);
    }

    /// The segment to go on in, and whether there is room in it.
    fn active(
        &mut self,
        numbers: &mut Vec<u32>,
        tuning: Tuning,
    ) -> Result<(Active, LogState), OpenError> {
        let Some(&last) = numbers.last() else {
            // Either there was never one, or it is missing: then its number stays free.
            let fresh = self.end == Position::START;
            let number = if fresh { self.end.segment } else { self.end.segment + 1 };
            return Ok((self.begin(number, numbers, tuning)?, LogState::Writable));
        };
        if last == self.end.segment {
            let path = segment::path(&self.layout.segments, last);
            let file = self.disk.open(&path).map_err(at(&path))?;
            let header = segment::read_header(&*file, last).map_err(at(&path))?;
            let good = matches!(header, Header::Good { .. });
            let size = file.size().map_err(at(&path))?;
            if good && size >= u64::from(self.end.offset) {
                return self.resume(file, &path, size, tuning);
            }
            if self.end.offset == HEADER_BYTES {
                // The crash came before its header was durable: nothing was acknowledged in it.
                return Ok((self.begin(last, numbers, tuning)?, LogState::Writable));
            }
            // It cannot be written to, but what can be read of it is still needed.
            let next = Position { segment: last + 1, offset: HEADER_BYTES, ..self.end };
            self.index.sealed.push(Sealed { segment: last, newest_ms: wall_ms(), next });
        }
        let number = last.max(self.end.segment) + 1;
        Ok((self.begin(number, numbers, tuning)?, LogState::Writable))
    }

    fn resume(
        &mut self,
        file: Arc<dyn DiskFile>,
        path: &Path,
        mut size: u64,
        tuning: Tuning,
    ) -> Result<(Active, LogState), OpenError> {
        let number = self.end.segment;
        let end = u64::from(self.end.offset);
        if self.torn {
            let bytes = size - end;
            tracing::warn!(path = %path.display(), end, bytes, "a torn commit was cut off the log");
            file.set_size(end).map_err(at(path))?;
            size = end;
        }
        let mut state = LogState::Writable;
        let mut allocated = size;
        if size < tuning.segment_bytes {
            match file.allocate(tuning.segment_bytes) {
                Ok(()) => allocated = tuning.segment_bytes,
                Err(error) if disk::is_full(&error) => (allocated, state) = (0, LogState::Full),
                Err(error) => return Err(at(path)(error)),
            }
        }
        // What was found may have been written by a process that ended before it could sync: it is
        // served from now on, and must not vanish any more.
        file.sync_all().map_err(at(path))?;
        Ok((Active { number, file, allocated, newest_ms: wall_ms() }, state))
    }

    fn begin(
        &mut self,
        number: u32,
        numbers: &mut Vec<u32>,
        tuning: Tuning,
    ) -> Result<Active, OpenError> {
        let path = segment::path(&self.layout.segments, number);
        let size = tuning.segment_bytes;
        self.end = Position { segment: number, offset: HEADER_BYTES, frame: self.end.frame };
        let file = segment::create(self.disk, &path, self.end, size).map_err(at(&path))?;
        file.sync_all().map_err(at(&path))?;
        self.disk.sync_dir(&self.layout.segments).map_err(at(&self.layout.segments))?;
        numbers.retain(|&there| there != number);
        numbers.push(number);
        Ok(Active { number, file, allocated: size, newest_ms: 0 })
    }
}

/// Takes in the entries of a frame, which begin at `at`; returns the time of the newest.
fn replay(index: &mut Index, entries: &[u8], at: (u32, u32), hashes: &mut Vec<u32>) -> u64 {
    let mut newest_ms = 0;
    let mut left = entries;
    let mut offset = at.1;
    while let Some(found) = entry::decode(left) {
        let Some(rest) = left.get(found.length as usize..) else { break };
        left = rest;
        newest_ms = newest_ms.max(found.time_ms);
        hashes.push(witness_hash(&found.document));
        let length = found.length;
        debug_assert!(found.kind == Kind::Updates || found.count == 0);
        index.replay(found, (at.0, offset));
        offset += length;
    }
    newest_ms
}

/// Adds what only the catalogue has, and finds the documents that are not whole.
fn complete(
    index: &mut Index,
    catalogue: &Catalogue,
    checkpoints: &[CheckpointRow],
) -> rusqlite::Result<()> {
    for row in checkpoints {
        match index.get_mut(&row.document) {
            Some(entry) if entry.epoch == row.epoch => {
                entry.checkpoint = Some(row.sequence);
                // Without fsync the log can be behind the catalogue after a loss of power.
                entry.head = entry.head.max(row.sequence);
            }
            // Of a history that was deleted: the next compaction removes it.
            Some(_) | None => index.removed.push(row.document.clone()),
        }
    }
    let mut found = Vec::new();
    catalogue.runs(
        |document, epoch, last| {
            index.get(document).is_some_and(|entry| entry.epoch == epoch && last > entry.base())
        },
        |row| found.push(row),
    )?;
    for row in found {
        if let Some(entry) = index.get_mut(&row.document) {
            entry.runs.extend(row.runs);
        }
    }
    let indexed_to = index.indexed_to;
    for (document, entry) in index.iter_mut() {
        entry.runs.sort_unstable_by_key(|run| run.first);
        entry.trim(indexed_to);
        let hole = entry.hole();
        let damage = match hole {
            Some((from, to)) => format!("the updates {from} to {to} are missing"),
            None if entry.doubtful => "a damaged frame may have had updates of it".to_owned(),
            None => continue,
        };
        tracing::error!(%document, damage, "a document is damaged in the log");
        entry.damage = Some(damage.into());
    }
    Ok(())
}

/// Removes the files of states that no checkpoint refers to: a crash came before the one or after
/// the other.
fn remove_stray_checkpoints(
    disk: &dyn Disk,
    layout: &Layout,
    checkpoints: &[CheckpointRow],
) -> Result<(), OpenError> {
    let dir = &layout.checkpoints;
    let rows = checkpoints.iter().filter(|row| row.in_file);
    let needed: HashSet<String> =
        rows.map(|row| checkpoint::file_name(row.epoch, row.sequence)).collect();
    for name in disk.list(dir).map_err(at(dir))? {
        if checkpoint::is_file_name(&name) && !needed.contains(&name) {
            let path = dir.join(name);
            disk.remove(&path).map_err(at(&path))?;
        }
    }
    Ok(())
}

fn at(path: &Path) -> impl Fn(io::Error) -> OpenError {
    let path = PathBuf::from(path);
    move |source| OpenError::Io { path: path.clone(), source }
}
