//! The one thread that writes: it takes all that is queued, writes it as one frame, syncs, and
//! completes.

use std::{collections::HashMap, io, sync::Arc, thread};

use super::{
    Shared,
    disk::{self, DiskFile},
    entry::{self, Marker},
    index::{Change, Index, Run, Sealed, Standing},
    queue::{Command, complete},
    segment::{self, FrameBuffer, HEADER_BYTES, Position, Recent, witness_hash},
};
use crate::{
    ids::{DocumentId, Epoch, Sequence},
    log::{Append, AppendError, Completion, Durability, LogState},
    time::{now, wall_ms},
};

/// The longest entry. Far above what a room sends; offsets in a segment are 32 bits wide.
const ENTRY_BYTES_MAX: usize = 1 << 30;

/// The segment that is written.
#[derive(Debug)]
pub(super) struct Active {
    /// Its number.
    pub(super) number: u32,
    /// Its file.
    pub(super) file: Arc<dyn DiskFile>,
    /// Up to here there is space. Less than the offset of the next frame when the disk was full.
    pub(super) allocated: u64,
    /// The wall time of its newest entry, in milliseconds since 1970.
    pub(super) newest_ms: u64,
}

/// Why a frame was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// There is no room, and nothing of the frame is there.
    Full,
    /// What is there is not known.
    Failed,
}

impl Trouble {
    fn state(self) -> LogState {
        match self {
            Self::Full => LogState::Full,
            Self::Failed => LogState::Failed,
        }
    }
}

/// What the writer has of one document in the frame that it is building.
#[derive(Clone, Copy, Debug)]
enum Staged {
    Absent,
    Present { epoch: Epoch, head: Sequence },
}

/// Fails the log when the writer panics: else everybody would wait for it for ever.
#[derive(Debug)]
struct FailOnPanic(Arc<Shared>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            let mut queued = Vec::new();
            self.0.queue.stop(LogState::Failed, &mut queued);
            for (_, completion) in queued {
                complete(completion, Err(AppendError::Unavailable));
            }
        }
    }
}

/// The writer: the only owner of the end of the log.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    active: Active,
    /// Where the next frame goes.
    end: Position,
    recent: Recent,
    frame: FrameBuffer,
    staged: HashMap<DocumentId, Staged>,
    changes: Vec<Change>,
    outcomes: Vec<(Completion, Result<Sequence, AppendError>)>,
    hashes: Vec<u32>,
    updates: u64,
    newest_ms: u64,
}

impl Writer {
    /// The writer of the log behind `shared`, which goes on at `end`.
    pub(super) fn new(shared: Arc<Shared>, active: Active, end: Position, recent: Recent) -> Self {
        Self {
            shared,
            active,
            end,
            recent,
            frame: FrameBuffer::default(),
            staged: HashMap::new(),
            changes: Vec::new(),
            outcomes: Vec::new(),
            hashes: Vec::new(),
            updates: 0,
            newest_ms: 0,
        }
    }

    /// Runs until the queue is closed and everything in it is complete.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let _guard = FailOnPanic(Arc::clone(&shared));
        let interval = shared.config.commit_interval;
        let mut commands = Vec::new();
        let mut last_start = None;
        loop {
            let state = shared.queue.current();
            if state == LogState::Full {
                let open = shared.queue.take(&mut commands, Some(shared.tuning.probe_interval));
                self.refuse(&mut commands, &AppendError::Full);
                if open.is_none() {
                    return;
                }
                self.probe();
                continue;
            }
            // The first append after a pause is committed at once. The next ones find the writer
            // asleep for the rest of the interval, and do not wake it: that would cost a wake-up
            // each, and gather nothing.
            let closing = shared.queue.wait();
            if let Some(last) = last_start
                && !closing
            {
                let rest = interval.saturating_sub(now().duration_since(last));
                if !rest.is_zero() {
                    thread::sleep(rest);
                }
            }
            last_start = Some(now());
            if shared.queue.take(&mut commands, None).is_none() {
                return self.end();
            }
            if let Err(trouble) = self.commit(&mut commands) {
                self.stop(trouble, &mut commands);
            }
        }
    }

    /// Leaves nothing to the operating system.
    fn end(&self) {
        if self.shared.config.durability == Durability::Os
            && self.shared.queue.current() != LogState::Failed
            && let Err(error) = self.active.file.sync_data()
        {
            failed("sync the last segment", &error);
            self.shared.queue.set_state(LogState::Failed);
        }
    }

    /// Commits all commands, in frames of a bounded size. After an error, those that are left were
    /// not tried.
    fn commit(&mut self, commands: &mut Vec<(Command, Completion)>) -> Result<(), Trouble> {
        let mut left = commands.drain(..);
        let mut result = Ok(());
        while result.is_ok() && left.len() > 0 {
            self.frame.begin(self.end.frame, &mut self.recent);
            let shared = Arc::clone(&self.shared);
            let index = shared.index.lock();
            while self.frame.len() < shared.tuning.frame_bytes
                && let Some((command, completion)) = left.next()
            {
                let outcome = self.stage(&index, command);
                self.outcomes.push((completion, outcome));
            }
            drop(index);
            result = if self.changes.is_empty() { Ok(()) } else { self.write() };
            self.staged.clear();
            if let Err(trouble) = result {
                // Before anybody is told of it: who sees the error also sees the state.
                self.shared.queue.set_state(trouble.state());
            }
            self.complete(result);
        }
        let left: Vec<_> = left.collect();
        *commands = left;
        result
    }

    /// Encodes a command into the frame, or says why not.
    fn stage(&mut self, index: &Index, command: Command) -> Result<Sequence, AppendError> {
        let document = match &command {
            Command::Create { document, .. } | Command::Delete { document } => document,
            Command::Append(append) => &append.document,
        };
        let standing = match self.staged.get(document) {
            Some(Staged::Absent) => Standing::Absent,
            Some(&Staged::Present { epoch, head }) => Standing::Present { epoch, head },
            None => index.standing(document),
        };
        match command {
            Command::Create { document, epoch } => {
                if standing != Standing::Absent {
                    // A document that may exist is not created over.
                    return Err(AppendError::Exists(document));
                }
                let marker = Marker { document: &document, epoch, time_ms: wall_ms() };
                entry::encode_create(self.frame.entries(), marker);
                self.note(&document, marker.time_ms);
                let staged = Staged::Present { epoch, head: Sequence::ZERO };
                self.staged.insert(document.clone(), staged);
                self.changes.push(Change::Created { document, epoch });
                Ok(Sequence::ZERO)
            }
            Command::Append(append) => {
                let (epoch, head) = match standing {
                    Standing::Present { epoch, head } => (epoch, head),
                    Standing::Absent => return Err(AppendError::Unknown(append.document)),
                    Standing::Suspect | Standing::Damaged { .. } => {
                        return Err(AppendError::Unavailable);
                    }
                };
                if append.updates.is_empty() {
                    return Ok(head);
                }
                let first = head.next();
                self.append(append, epoch, first)
            }
            Command::Delete { document } => {
                let (epoch, head) = match standing {
                    Standing::Present { epoch, head } | Standing::Damaged { epoch, head } => {
                        (epoch, head)
                    }
                    // Whatever there may have been is gone for certain after this.
                    Standing::Suspect => (Epoch([0; 16]), Sequence::ZERO),
                    Standing::Absent => return Err(AppendError::Unknown(document)),
                };
                let marker = Marker { document: &document, epoch, time_ms: wall_ms() };
                entry::encode_delete(self.frame.entries(), marker);
                self.note(&document, marker.time_ms);
                self.staged.insert(document.clone(), Staged::Absent);
                self.changes.push(Change::Deleted { document });
                Ok(head)
            }
        }
    }

    fn append(
        &mut self,
        append: Append,
        epoch: Epoch,
        first: Sequence,
    ) -> Result<Sequence, AppendError> {
        if entry::updates_bytes_max(&append) > ENTRY_BYTES_MAX {
            return Err(AppendError::Unavailable);
        }
        let offset = self.frame.entries().len();
        entry::encode_updates(self.frame.entries(), &append, epoch, first);
        // The segment, and where the frame begins in it, are known when the frame is complete.
        let run = Run {
            first,
            count: append.updates.len() as u32,
            segment: 0,
            offset: offset as u32,
            length: (self.frame.entries().len() - offset) as u32,
        };
        self.note(&append.document, append.time_ms);
        self.updates += u64::from(run.count);
        let staged = Staged::Present { epoch, head: run.last() };
        match self.staged.get_mut(&append.document) {
            Some(there) => *there = staged,
            None => drop(self.staged.insert(append.document.clone(), staged)),
        }
        self.changes.push(Change::Appended { document: append.document, run });
        Ok(run.last())
    }

    fn note(&mut self, document: &DocumentId, time_ms: u64) {
        self.hashes.push(witness_hash(document));
        self.newest_ms = self.newest_ms.max(time_ms);
    }

    /// Writes the frame and makes it durable.
    fn write(&mut self) -> Result<(), Trouble> {
        let bytes = self.frame.len() as u64;
        if u64::from(self.end.offset) + bytes > self.active.allocated {
            self.roll(bytes)?;
        }
        let started = now();
        let shared = &self.shared;
        let offset = self.end.offset;
        let frame = self.frame.finish(shared.salt, self.active.number, self.end.frame);
        if let Err(error) = self.active.file.write_at(offset.into(), frame) {
            return Err(self.undo(&error));
        }
        if shared.config.durability == Durability::Fsync {
            // An error of a sync is final, also one that says that the disk is full: what was
            // written may be lost already, and a second sync would say that all is well.
            self.active.file.sync_data().map_err(|error| failed("sync a segment", &error))?;
        }
        let metrics = &shared.metrics;
        metrics.commit_duration.observe(now().duration_since(started).as_secs_f64());
        metrics.commits.inc();
        metrics.commit_records.observe(self.updates as f64);
        metrics.written_bytes.inc_by(bytes);
        metrics.records.inc_by(self.updates);
        self.hashes.sort_unstable();
        self.hashes.dedup();
        self.recent.push(self.end.frame, bytes as usize, &self.hashes);
        self.active.newest_ms = self.active.newest_ms.max(self.newest_ms);
        self.end.frame += 1;
        self.end.offset += bytes as u32;
        let mut index = shared.index.lock();
        for mut change in self.changes.drain(..) {
            if let Change::Appended { run, .. } = &mut change {
                run.segment = self.active.number;
                run.offset += offset;
            }
            index.apply(change, (self.active.number, offset));
        }
        index.end = self.end;
        Ok(())
    }

    /// Completes what was staged, in order, and is ready for the next frame.
    fn complete(&mut self, result: Result<(), Trouble>) {
        self.changes.clear();
        self.hashes.clear();
        (self.updates, self.newest_ms) = (0, 0);
        for (completion, outcome) in self.outcomes.drain(..) {
            let outcome = match result {
                Ok(()) => outcome,
                Err(Trouble::Full) => outcome.and(Err(AppendError::Full)),
                Err(Trouble::Failed) => outcome.and(Err(AppendError::Unavailable)),
            };
            if outcome.is_err() {
                self.shared.metrics.append_failures.inc();
            }
            complete(completion, outcome);
        }
    }

    /// Begins a new segment with room for a frame of `bytes`.
    fn roll(&mut self, bytes: u64) -> Result<(), Trouble> {
        let shared = &self.shared;
        let Some(number) = self.active.number.checked_add(1) else { return Err(Trouble::Full) };
        let size = shared.tuning.segment_bytes.max(u64::from(HEADER_BYTES) + bytes);
        let next = Position { segment: number, offset: HEADER_BYTES, frame: self.end.frame };
        let file = create_segment(shared, next, size)?;
        if shared.config.durability == Durability::Os {
            // Nobody waits for this one; it keeps what a loss of power can take to one segment.
            self.active.file.sync_data().map_err(|error| failed("sync a segment", &error))?;
        }
        // What is left of the old one is given back. It need not be durable.
        if let Err(error) = self.active.file.set_size(self.end.offset.into()) {
            tracing::warn!(%error, segment = self.active.number, "could not trim a segment");
        }
        let (segment, newest_ms) = (self.active.number, self.active.newest_ms);
        let mut index = shared.index.lock();
        index.sealed.push(Sealed { segment, newest_ms, next });
        index.end = next;
        drop(index);
        shared.metrics.segments.inc();
        self.active = Active { number, file, allocated: size, newest_ms: 0 };
        self.end = next;
        Ok(())
    }

    /// Takes back what a failed write may have left. It could be the whole frame but for zeros at
    /// its end, and would be one when the file is extended: so it goes, durably, before anybody is
    /// told that it was not kept.
    fn undo(&mut self, error: &io::Error) -> Trouble {
        if !disk::is_full(error) {
            return failed("write a segment", error);
        }
        let end = u64::from(self.end.offset);
        let cut = self.active.file.set_size(end).and_then(|()| self.active.file.sync_all());
        if let Err(error) = cut {
            return failed("cut a segment after the disk was full", &error);
        }
        self.active.allocated = 0;
        Trouble::Full
    }

    /// Looks whether a full disk has room again.
    fn probe(&mut self) {
        let size = self.shared.tuning.segment_bytes.max(u64::from(self.end.offset));
        let found = if self.active.allocated == 0 {
            match self.active.file.allocate(size) {
                Ok(()) => {
                    self.active.allocated = size;
                    Ok(())
                }
                Err(error) if disk::is_full(&error) => Err(Trouble::Full),
                Err(error) => Err(failed("extend a segment", &error)),
            }
        } else {
            self.roll(0)
        };
        match found {
            Ok(()) => {
                tracing::info!("the disk of the log has room again");
                self.shared.queue.set_state(LogState::Writable);
            }
            Err(Trouble::Full) => {}
            Err(Trouble::Failed) => self.shared.queue.set_state(LogState::Failed),
        }
    }

    /// Takes nothing any more: `left`, and what is queued behind it, was not tried, and must not be,
    /// as it may build on what was refused.
    fn stop(&mut self, trouble: Trouble, left: &mut Vec<(Command, Completion)>) {
        let refusal = match trouble {
            Trouble::Full => {
                tracing::warn!("the disk of the log is full: nothing is taken until it has room");
                AppendError::Full
            }
            Trouble::Failed => AppendError::Unavailable,
        };
        self.shared.queue.stop(trouble.state(), left);
        self.refuse(left, &refusal);
    }

    fn refuse(&self, commands: &mut Vec<(Command, Completion)>, refusal: &AppendError) {
        for (_, completion) in commands.drain(..) {
            self.shared.metrics.append_failures.inc();
            let refusal = match refusal {
                AppendError::Full => AppendError::Full,
                AppendError::Unavailable
                | AppendError::Unknown(_)
                | AppendError::Exists(_)
                | AppendError::Checkpoint { .. } => AppendError::Unavailable,
            };
            complete(completion, Err(refusal));
        }
    }
}

/// Makes a segment with room for `size` bytes, durable with its name.
fn create_segment(
    shared: &Shared,
    start: Position,
    size: u64,
) -> Result<Arc<dyn DiskFile>, Trouble> {
    let path = segment::path(&shared.layout.segments, start.segment);
    let created = segment::create(&*shared.disk, &path, start, size);
    match created {
        Ok(file) => {
            let synced =
                file.sync_all().and_then(|()| shared.disk.sync_dir(&shared.layout.segments));
            synced.map_err(|error| failed("sync a new segment", &error))?;
            Ok(file)
        }
        Err(error) if disk::is_full(&error) => {
            // It is empty. If it stays, the next start goes on in it.
            drop(shared.disk.remove(&path));
            Err(Trouble::Full)
        }
        Err(error) => Err(failed("create a segment", &error)),
    }
}

fn failed(attempt: &str, error: &io::Error) -> Trouble {
    tracing::error!(%error, attempt, "the log has failed: nothing is taken until a restart");
    Trouble::Failed
}
