//! Upkeep: lets the catalogue know what is in full segments, and drops those that nobody needs.
//!
//! Every step is safe to be cut short. The catalogue moves past a segment in one transaction, which
//! has everything that the segment says of documents that still exist. A segment is forgotten by the
//! catalogue before its file is removed; a file that is left over is removed at the next start.

use std::{collections::HashMap, ops::ControlFlow};

use super::{
    Shared,
    catalogue::{self, Step},
    checkpoint,
    index::{Entry, Index, Sealed},
    rows::{self, DocumentRow, RunsRow, SegmentRow},
    segment::{self, Position},
};
use crate::{
    ids::{DocumentId, Epoch, Sequence},
    log::{AppendError, Compacted},
    time::wall_ms,
};

/// Documents that are looked at under one lock. 4096: some 100 us.
const CHUNK: usize = 4096;

/// What upkeep remembers from one time to the next.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    /// For old segments, somebody who still needs it: a look at this one saves a look at all.
    pins: HashMap<u32, (DocumentId, Epoch, Sequence)>,
}

/// See [`UpdateLog::compact`](crate::log::UpdateLog::compact). Blocks.
pub(super) fn compact(shared: &Shared) -> Result<Compacted, AppendError> {
    let mut upkeep = shared.upkeep.lock();
    let sealed = shared.index.lock().sealed.clone();
    let position = sealed.last().map(|sealed| sealed.next);
    advance(shared, position, &sealed)?;
    drop_segments(shared, &mut upkeep)
}

/// Lets the catalogue know all of the log, so that the next start need not read it, and so that
/// damage to any of it is found. Blocks. The writer must have ended.
pub(super) fn finish(shared: &Shared) -> Result<(), AppendError> {
    let _alone = shared.upkeep.lock();
    let index = shared.index.lock();
    let (sealed, end) = (index.sealed.clone(), index.end);
    drop(index);
    advance(shared, Some(end), &sealed)
}

fn advance(
    shared: &Shared,
    position: Option<Position>,
    sealed: &[Sealed],
) -> Result<(), AppendError> {
    let mut index = shared.index.lock();
    if index.has_lost_frames() {
        // Every start has to see the damage, until the log is restored.
        return Ok(());
    }
    let from = index.indexed_to;
    let to = position.unwrap_or(from);
    if to == from && index.removed.is_empty() {
        return Ok(());
    }
    // First these: a document that is deleted from now on is written as it was, and removed the
    // next time. The log knows better meanwhile.
    let removed = index.take_removed();
    drop(index);
    let sealed_rows = sealed
        .iter()
        .map(|sealed| SegmentRow { number: sealed.segment, newest_ms: sealed.newest_ms });
    let mut step = Step {
        position: to,
        documents: Vec::new(),
        removed,
        runs: Vec::new(),
        sealed: sealed_rows.collect(),
    };
    if to != from {
        each_document(shared, |document, entry| gather(&mut step, document, entry, (from, to)));
    }
    let deleted = step.removed.clone();
    let index = shared.index.lock();
    // Created again, and known again since.
    step.removed.retain(|document| index.get(document).is_none_or(|entry| entry.created != (0, 0)));
    drop(index);
    if let Err(error) = shared.catalogue.advance(&step) {
        shared.index.lock().removed.extend(deleted);
        return Err(failed("take a part of the log into the catalogue", &error));
    }
    let mut index = shared.index.lock();
    index.indexed_to = to;
    index.sealed.drain(..sealed.len());
    for row in &step.documents {
        if let Some(entry) = index.get_mut(&row.document).filter(|entry| entry.epoch == row.epoch) {
            entry.created = (0, 0);
        }
    }
    for row in &step.runs {
        if let Some(entry) = index.get_mut(&row.document) {
            entry.trim(to);
        }
    }
    drop(index);
    remove_checkpoints(shared, &deleted).map_err(|error| {
        shared.index.lock().removed.extend(deleted);
        failed("remove the checkpoints of deleted documents", &error)
    })
}

/// Adds what the log says of a document between two positions.
fn gather(step: &mut Step, document: &DocumentId, entry: &Entry, (from, to): (Position, Position)) {
    let start = entry.runs.partition_point(|run| run.is_before(from));
    let end = entry.runs.partition_point(|run| run.is_before(to));
    let new = entry.runs.get(start..end).unwrap_or_default();
    let is_new = entry.created != (0, 0) && entry.created < (to.segment, to.offset);
    if new.is_empty() && !is_new {
        return;
    }
    let head = new.last().map_or(Sequence::ZERO, |run| run.last());
    step.documents.push(DocumentRow { document: document.clone(), epoch: entry.epoch, head });
    // A row is without holes, so that its first and last sequence say all.
    for runs in new.chunk_by(|a, b| a.segment == b.segment && a.last().next() == b.first) {
        let (document, epoch) = (document.clone(), entry.epoch);
        step.runs.push(RunsRow { document, epoch, runs: runs.to_vec() });
    }
}

/// Calls `visit` with all documents, without keeping others from the index for long.
fn each_document(shared: &Shared, mut visit: impl FnMut(&DocumentId, &Entry)) {
    let mut after = None;
    loop {
        let index = shared.index.lock();
        match visit_chunk(&index, after.as_ref(), &mut visit) {
            ControlFlow::Continue(last) => after = Some(last),
            ControlFlow::Break(()) => return,
        }
    }
}

fn visit_chunk(
    index: &Index,
    after: Option<&DocumentId>,
    visit: &mut impl FnMut(&DocumentId, &Entry),
) -> ControlFlow<(), DocumentId> {
    let mut last = None;
    for (document, entry) in index.range(after).take(CHUNK) {
        visit(document, entry);
        last = Some(document);
    }
    last.map_or(ControlFlow::Break(()), |last| ControlFlow::Continue(last.clone()))
}

/// Removes the checkpoints of deleted histories.
fn remove_checkpoints(shared: &Shared, deleted: &[DocumentId]) -> rows::Result<()> {
    let _alone = shared.checkpointing.lock();
    let mut stale = Vec::new();
    for document in deleted {
        let Some(row) = shared.catalogue.checkpoint_row(document)? else { continue };
        let index = shared.index.lock();
        if index.get(document).is_none_or(|entry| entry.epoch != row.epoch) {
            stale.push(row);
        }
    }
    if stale.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = stale.iter().map(|row| (row.document.clone(), row.epoch)).collect();
    shared.catalogue.remove_checkpoints(&names)?;
    for row in stale.iter().filter(|row| row.in_file) {
        checkpoint::remove_file(shared, row);
    }
    Ok(())
}

fn drop_segments(shared: &Shared, upkeep: &mut Upkeep) -> Result<Compacted, AppendError> {
    let failed = |error| failed("drop old segments", &error);
    let retention = shared.config.history_retention.as_millis();
    let oldest_ms = wall_ms().saturating_sub(u64::try_from(retention).unwrap_or(u64::MAX));
    let needs = |index: &Index, document: &DocumentId, epoch: Epoch, last: Sequence| {
        index.get(document).is_some_and(|entry| {
            entry.epoch == epoch && (entry.damage.is_some() || last > entry.base())
        })
    };
    let mut numbers = Vec::new();
    for row in shared.catalogue.segments().map_err(failed)? {
        if row.newest_ms > oldest_ms {
            continue;
        }
        if let Some((document, epoch, last)) = upkeep.pins.get(&row.number)
            && needs(&shared.index.lock(), document, *epoch, *last)
        {
            continue;
        }
        let pin = shared.catalogue.pin(row.number, |document, epoch, last| {
            needs(&shared.index.lock(), document, epoch, last)
        });
        match pin {
            Ok(Some(pin)) => drop(upkeep.pins.insert(row.number, pin)),
            Ok(None) => numbers.push(row.number),
            Err(error) => {
                // It may be needed by somebody who is not known any more.
                let segment = row.number;
                tracing::error!(segment, %error, "a segment is kept, as its index is damaged");
            }
        }
    }
    let mut compacted = Compacted::default();
    if numbers.is_empty() {
        return Ok(compacted);
    }
    // Nobody who has seen their runs still reads.
    let _gate = shared.gate.write();
    shared.catalogue.drop_segments(&numbers).map_err(failed)?;
    for number in numbers {
        upkeep.pins.remove(&number);
        let path = segment::path(&shared.layout.segments, number);
        let size = shared.disk.open(&path).and_then(|file| file.size()).unwrap_or_default();
        if let Err(error) = shared.disk.remove(&path) {
            // The next start tries again.
            tracing::warn!(path = %path.display(), %error, "could not remove a segment");
            continue;
        }
        compacted.segments_dropped += 1;
        compacted.bytes_freed += size;
        shared.metrics.segments.dec();
        shared.metrics.segments_dropped.inc();
    }
    if let Err(error) = shared.disk.sync_dir(&shared.layout.segments) {
        tracing::warn!(%error, "could not sync the directory of the segments");
    }
    Ok(compacted)
}

fn failed(attempt: &str, error: &rusqlite::Error) -> AppendError {
    tracing::warn!(%error, attempt, "upkeep of the log failed");
    if catalogue::is_full(error) { AppendError::Full } else { AppendError::Unavailable }
}
