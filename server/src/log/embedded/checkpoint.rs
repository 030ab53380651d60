//! Storing checkpoints: small states in the catalogue, big ones in files of their own.

use std::{io, sync::Arc};

use bytes::Bytes;

use super::{Shared, catalogue, disk, rows::CheckpointRow};
use crate::{
    ids::{DocumentId, Epoch, Sequence},
    log::{AppendError, Checkpoint},
};

/// The name of the file of a state. The sequence of the checkpoints of a history only grows, but for
/// one that replaces a damaged one.
pub(super) fn file_name(epoch: Epoch, sequence: Sequence) -> String {
    format!("{:032x}-{sequence}", u128::from_be_bytes(epoch.0))
}

/// Whether a file is one of ours, complete or not.
pub(super) fn is_file_name(name: &str) -> bool {
    let name = name.strip_suffix(".tmp").unwrap_or(name);
    name.split_once('-').is_some_and(|(epoch, sequence)| {
        epoch.len() == 32
            && epoch.bytes().all(|b| b.is_ascii_hexdigit())
            && !sequence.is_empty()
            && sequence.bytes().all(|b| b.is_ascii_digit())
    })
}

/// Stores a checkpoint of the history `epoch`. Blocks.
pub(super) fn put(
    shared: &Arc<Shared>,
    document: &DocumentId,
    epoch: Epoch,
    checkpoint: Checkpoint,
) -> Result<(), AppendError> {
    // One at a time: what is checked here must still hold when it is stored.
    let _alone = shared.checkpointing.lock();
    let Checkpoint { sequence, state } = checkpoint;
    check(shared, document, epoch, sequence)?;
    let old = shared.catalogue.checkpoint_row(document).unwrap_or_else(|error| {
        // What cannot be read can be replaced.
        tracing::error!(%document, %error, "the stored checkpoint of a document is damaged");
        None
    });
    let row = CheckpointRow {
        document: document.clone(),
        epoch,
        sequence,
        bytes: state.len() as u64,
        state_crc: crc32c::crc32c(&state),
        in_file: state.len() >= shared.tuning.inline_bytes,
    };
    let failed = |attempt: &str, full: bool, error: &dyn std::fmt::Display| {
        tracing::warn!(%document, %error, attempt, "could not store a checkpoint");
        if full { AppendError::Full } else { AppendError::Unavailable }
    };
    if row.in_file {
        write_file(shared, &file_name(epoch, sequence), &state)
            .map_err(|error| failed("write the file", disk::is_full(&error), &error))?;
    }
    let inline = (!row.in_file).then_some(&*state);
    shared
        .catalogue
        .put_checkpoint(&row, inline)
        .map_err(|error| failed("write the catalogue", catalogue::is_full(&error), &error))?;
    let mut index = shared.index.lock();
    let indexed_to = index.indexed_to;
    if let Some(entry) = index.get_mut(document).filter(|entry| entry.epoch == epoch) {
        entry.checkpoint = Some(sequence);
        entry.trim(indexed_to);
        index.heal(document);
    }
    shared.count_damaged(&index);
    drop(index);
    shared.metrics.checkpoints.inc();
    // A damaged one may have been replaced by one of the same name.
    let replaced =
        |old: &CheckpointRow| row.in_file && (old.epoch, old.sequence) == (epoch, sequence);
    if let Some(old) = old.filter(|old| old.in_file && !replaced(old)) {
        remove_file(shared, &old);
    }
    Ok(())
}

fn check(
    shared: &Shared,
    document: &DocumentId,
    epoch: Epoch,
    sequence: Sequence,
) -> Result<(), AppendError> {
    let index = shared.index.lock();
    let Some(entry) = index.get(document).filter(|entry| entry.epoch == epoch) else {
        return Err(AppendError::Unknown(document.clone()));
    };
    if entry.damage.is_some() {
        return Err(AppendError::Unavailable);
    }
    let newer = entry.checkpoint.is_none_or(|stored| sequence > stored);
    if newer && sequence <= entry.head {
        return Ok(());
    }
    let (document, checkpoint, head) = (document.clone(), sequence, entry.head);
    Err(AppendError::Checkpoint { document, checkpoint, head })
}

/// Writes a file that is there whole or not at all, also after a crash.
fn write_file(shared: &Shared, name: &str, state: &Bytes) -> io::Result<()> {
    let dir = &shared.layout.checkpoints;
    let temporary = dir.join(format!("{name}.tmp"));
    let written = (|| {
        let file = shared.disk.create(&temporary)?;
        file.write_at(0, state)?;
        file.sync_all()?;
        shared.disk.rename(&temporary, &dir.join(name))
    })();
    if let Err(error) = written {
        // It takes room that may be short; if it stays, the next start removes it.
        drop(shared.disk.remove(&temporary));
        return Err(error);
    }
    shared.disk.sync_dir(dir)
}

/// Removes the file of a state that the catalogue no longer refers to.
pub(super) fn remove_file(shared: &Shared, row: &CheckpointRow) {
    let path = shared.layout.checkpoints.join(file_name(row.epoch, row.sequence));
    // Nobody who has seen the old row still reads.
    let _gate = shared.gate.write();
    if let Err(error) = shared.disk.remove(&path) {
        // The next start tries again.
        tracing::warn!(path = %path.display(), %error, "could not remove an old checkpoint");
    }
}
