//! Reading documents: the checkpoint, the updates after it, and older updates while they are there.
//!
//! Everything that is read is checked: entries and states have checksums, and an entry must be what
//! the index says that it is.

use std::{collections::BTreeMap, io, sync::Arc};

use bytes::Bytes;

use super::{
    Shared, checkpoint,
    disk::DiskFile,
    entry::{self, Kind},
    index::{self, Entry, Run},
    rows::{self, CheckpointRow},
    segment,
};
use crate::{
    ids::{DocumentId, Epoch, Sequence},
    log::{Checkpoint, LoadError, Loaded, LogState, Record},
};

/// What stands in the way.
#[derive(Debug)]
enum Trouble {
    /// What is stored is damaged.
    Damaged(String),
    /// It could not be read.
    Io(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        if rows::is_damaged(&error) {
            Self::Damaged(format!("the catalogue: {error}"))
        } else {
            Self::Io(io::Error::other(error))
        }
    }
}

/// See [`UpdateLog::load`](crate::log::UpdateLog::load). Blocks.
pub(super) fn load(shared: &Shared, document: &DocumentId) -> Result<Option<Loaded>, LoadError> {
    let _gate = shared.gate.read();
    let Some(entry) = find(shared, document)? else { return Ok(None) };
    let loaded = load_entry(shared, document, &entry);
    note(shared, document, loaded.is_ok(), matches!(loaded, Err(Trouble::Damaged(_))));
    loaded.map(Some).map_err(|trouble| refuse(document, trouble))
}

/// See [`UpdateLog::read`](crate::log::UpdateLog::read). Blocks.
pub(super) fn read(
    shared: &Shared,
    document: &DocumentId,
    after: Sequence,
    bytes_max: usize,
) -> Result<Option<Vec<Record>>, LoadError> {
    let _gate = shared.gate.read();
    let Some(entry) = find(shared, document)? else { return Ok(None) };
    let read = read_entry(shared, document, &entry, after, bytes_max);
    if let Err(Trouble::Damaged(_)) = read
        && after >= entry.base()
    {
        note(shared, document, false, true);
    }
    read.map_err(|trouble| refuse(document, trouble))
}

fn refuse(document: &DocumentId, trouble: Trouble) -> LoadError {
    let document = document.clone();
    match trouble {
        Trouble::Damaged(what) => LoadError::Corrupt { document, what },
        Trouble::Io(source) => LoadError::Io { document, source },
    }
}

fn note(shared: &Shared, document: &DocumentId, whole: bool, damaged: bool) {
    let mut index = shared.index.lock();
    if whole {
        index.heal(document);
    }
    if damaged {
        index.rot(document);
    }
    shared.count_damaged(&index);
}

/// A copy of what is known of the document, as its runs are read without the lock.
fn find(shared: &Shared, document: &DocumentId) -> Result<Option<Entry>, LoadError> {
    use super::index::Standing;

    let corrupt = |what: &str| {
        let document = document.clone();
        Err(LoadError::Corrupt { document, what: what.to_owned() })
    };
    if shared.queue.current() == LogState::Closed {
        let source = io::Error::other("the log is closed");
        return Err(LoadError::Io { document: document.clone(), source });
    }
    let index = shared.index.lock();
    match index.standing(document) {
        Standing::Absent => Ok(None),
        Standing::Suspect => corrupt("it may have been created in a damaged frame"),
        Standing::Present { .. } => Ok(index.get(document).cloned()),
        Standing::Damaged { .. } => {
            let damage = index.get(document).and_then(|entry| entry.damage.as_deref());
            corrupt(damage.unwrap_or_default())
        }
    }
}

fn load_entry(shared: &Shared, document: &DocumentId, entry: &Entry) -> Result<Loaded, Trouble> {
    let epoch = entry.epoch;
    let checkpoint = match entry.checkpoint {
        None => None,
        Some(known) => match load_checkpoint(shared, document, epoch, known) {
            Ok(checkpoint) => Some(checkpoint),
            Err(Trouble::Damaged(what)) => return replay(shared, document, entry, what),
            Err(trouble) => return Err(trouble),
        },
    };
    // It may be a newer one than the entry knows of.
    let base = checkpoint.as_ref().map(|checkpoint| checkpoint.sequence).unwrap_or_default();
    let runs = entry.runs.iter().filter(|run| run.last() > base);
    let tail = read_runs(shared, document, epoch, runs, base, usize::MAX)?;
    Ok(Loaded { epoch, checkpoint, tail })
}

/// Loads a document whose checkpoint is damaged from its updates, if they are all still there.
fn replay(
    shared: &Shared,
    document: &DocumentId,
    entry: &Entry,
    what: String,
) -> Result<Loaded, Trouble> {
    let runs = all_runs(shared, document, entry, Sequence::ZERO, u64::MAX)?;
    if index::hole(&runs, Sequence::ZERO, entry.head).is_some() {
        return Err(Trouble::Damaged(what));
    }
    let tail = read_runs(shared, document, entry.epoch, runs.iter(), Sequence::ZERO, usize::MAX)?;
    tracing::error!(
        %document, what,
        "the checkpoint of a document is damaged; it was loaded from all of its updates instead"
    );
    // From now on there is none, so that the next one is taken and mends it.
    let mut index = shared.index.lock();
    if let Some(known) = index.get_mut(document)
        && known.epoch == entry.epoch
        && known.checkpoint == entry.checkpoint
    {
        let mut runs = runs;
        runs.extend(known.runs.iter().filter(|run| run.first > entry.head));
        known.runs = runs;
        known.checkpoint = None;
    }
    drop(index);
    Ok(Loaded { epoch: entry.epoch, checkpoint: None, tail })
}

fn load_checkpoint(
    shared: &Shared,
    document: &DocumentId,
    epoch: Epoch,
    known: Sequence,
) -> Result<Checkpoint, Trouble> {
    let damaged = |what: &str| Err(Trouble::Damaged(format!("the checkpoint {what}")));
    let Some((row, state)) = shared.catalogue.checkpoint(document)? else {
        return damaged("is missing");
    };
    if row.epoch != epoch || row.sequence < known {
        return damaged("is an old one");
    }
    let state = match state {
        Some(state) => state,
        None => read_state(shared, &row)?,
    };
    if state.len() as u64 != row.bytes || crc32c::crc32c(&state) != row.state_crc {
        return damaged("has a wrong checksum");
    }
    Ok(Checkpoint { sequence: row.sequence, state })
}

fn read_state(shared: &Shared, row: &CheckpointRow) -> Result<Bytes, Trouble> {
    let path = shared.layout.checkpoints.join(checkpoint::file_name(row.epoch, row.sequence));
    let file = shared.disk.open(&path).map_err(missing)?;
    let size = file.size()?;
    if size != row.bytes {
        return Err(Trouble::Damaged("the checkpoint has a wrong size".to_owned()));
    }
    let mut state = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
    let read = file.read_at(0, &mut state)?;
    state.truncate(read);
    Ok(Bytes::from(state))
}

fn missing(error: io::Error) -> Trouble {
    if error.kind() == io::ErrorKind::NotFound {
        return Trouble::Damaged("a file is missing".to_owned());
    }
    Trouble::Io(error)
}

fn read_entry(
    shared: &Shared,
    document: &DocumentId,
    entry: &Entry,
    after: Sequence,
    bytes_max: usize,
) -> Result<Option<Vec<Record>>, Trouble> {
    if after >= entry.head {
        return Ok(Some(Vec::new()));
    }
    let runs = if hole_before(&entry.runs, after, entry.head) {
        all_runs(shared, document, entry, after, bytes_max as u64)?
    } else {
        entry.runs.clone()
    };
    let wanted: Vec<Run> = runs.into_iter().filter(|run| run.last() > after).collect();
    if wanted.first().is_none_or(|run| run.first > after.next()) {
        return Ok(None);
    }
    read_runs(shared, document, entry.epoch, wanted.iter(), after, bytes_max).map(Some)
}

fn hole_before(runs: &[Run], after: Sequence, head: Sequence) -> bool {
    let start = runs.partition_point(|run| run.last() <= after);
    index::hole(runs.get(start..).unwrap_or_default(), after, head).is_some()
}

/// The runs after `after` that memory or the catalogue know, in order, without a hole, at least
/// `bytes_max` bytes of them if there are so many.
fn all_runs(
    shared: &Shared,
    document: &DocumentId,
    entry: &Entry,
    after: Sequence,
    bytes_max: u64,
) -> Result<Vec<Run>, Trouble> {
    let old = shared.catalogue.history(document, entry.epoch, after, bytes_max)?;
    let known = entry.runs.iter().filter(|run| run.last() > after).copied();
    let runs: BTreeMap<u64, Run> =
        old.into_iter().chain(known).map(|run| (run.first.0, run)).collect();
    let mut next = None;
    let contiguous = runs.into_values().take_while(|run| {
        let follows = next.is_none_or(|next| run.first == next);
        next = Some(run.last().next());
        follows
    });
    Ok(contiguous.collect())
}

/// The updates after `after` in `runs`, which follow on each other.
fn read_runs<'a>(
    shared: &Shared,
    document: &DocumentId,
    epoch: Epoch,
    runs: impl Iterator<Item = &'a Run>,
    after: Sequence,
    bytes_max: usize,
) -> Result<Vec<Record>, Trouble> {
    let mut records: Vec<Record> = Vec::new();
    let mut bytes = 0_usize;
    let mut open: Option<(u32, Arc<dyn DiskFile>)> = None;
    for run in runs {
        let file = match open.take() {
            Some((segment, file)) if segment == run.segment => file,
            Some(_) | None => {
                let path = segment::path(&shared.layout.segments, run.segment);
                shared.disk.open(&path).map_err(missing)?
            }
        };
        let damaged = || {
            Trouble::Damaged(format!(
                "the updates {} to {} in segment {}",
                run.first,
                run.last(),
                run.segment
            ))
        };
        let mut buffer = vec![0; run.length as usize];
        if file.read_at(run.offset.into(), &mut buffer)? < buffer.len() {
            return Err(damaged());
        }
        let (found, updates) = entry::decode_updates(&Bytes::from(buffer)).ok_or_else(damaged)?;
        let right = found.kind == Kind::Updates
            && found.document == *document
            && found.epoch == epoch
            && (found.first, found.count) == (run.first, run.count);
        if !right {
            return Err(damaged());
        }
        for record in updates {
            if record.sequence <= after {
                continue;
            }
            bytes = bytes.saturating_add(record.update.len());
            if bytes > bytes_max && !records.is_empty() {
                return Ok(records);
            }
            records.push(record);
        }
        open = Some((run.segment, file));
    }
    Ok(records)
}
