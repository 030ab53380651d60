//! The embedded store: segment files written by one thread, and a catalogue in SQLite.
//!
//! ```text
//! <directory>/lock                    held by the process that has the log open
//! <directory>/catalogue.db            documents, checkpoints, index of full segments
//! <directory>/segments/00000001.seg   frames of updates, creations and deletions
//! <directory>/checkpoints/<epoch>-<sequence>   states too big for the catalogue
//! ```
//!
//! An append is one entry in a frame of the newest segment, and returns when that is synced. The
//! catalogue is written by checkpoints, by compaction and when the log is closed; it is never behind
//! an append. `recovery.rs` says what happens after a crash and when bytes rot.

mod catalogue;
mod checkpoint;
#[cfg(test)]
mod corruption;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod damage;
mod disk;
mod entry;
#[cfg(test)]
mod faults;
mod index;
mod queue;
mod read;
mod recovery;
mod rows;
#[cfg(test)]
mod script;
mod segment;
#[cfg(test)]
mod sim;
mod upkeep;
mod writer;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt as _};
use parking_lot::{Mutex, RwLock};
use tokio::{sync::watch, task::spawn_blocking};

use self::{
    catalogue::Catalogue,
    disk::{Disk, Lock, OsDisk},
    index::{Index, Standing},
    queue::{Command, Queue},
    upkeep::Upkeep,
};
use super::{
    Append, AppendError, Appending, Checkpoint, Compacted, Config, DocumentSummary, LoadError,
    Loaded, LogState, OpenError, Record, UpdateLog,
};
use crate::{
    ids::{DocumentId, Epoch, Sequence},
    metrics::LogMetrics,
};

/// The embedded store.
///
/// Its futures need a tokio runtime, as they read files on its blocking threads; appends do not.
/// Dropped without [`UpdateLog::close`], it commits what is queued, and is left as after a crash.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedLog")
            .field("root", &self.shared.layout.root)
            .finish_non_exhaustive()
    }
}

/// What the writer, the readers and the upkeep share. Locks are taken in the order of the fields,
/// from `gate` down, but for `checkpointing` and `upkeep`, which come first.
#[derive(Debug)]
struct Shared {
    config: Config,
    tuning: Tuning,
    layout: Layout,
    disk: Arc<dyn Disk>,
    /// Random, in the checksum of every frame.
    salt: u64,
    metrics: LogMetrics,
    /// One compaction at a time.
    upkeep: Mutex<Upkeep>,
    /// One checkpoint at a time.
    checkpointing: Mutex<()>,
    /// Held by readers while they read, and by those who remove files.
    gate: RwLock<()>,
    catalogue: Catalogue,
    index: Mutex<Index>,
    queue: Queue,
    /// `None` once the log is closed.
    lock: Mutex<Option<Lock>>,
}

impl Shared {
    fn count_damaged(&self, index: &Index) {
        self.metrics.corrupt_documents.set(index.damaged() as i64);
    }
}

/// Sizes that are no settings.
#[derive(Clone, Copy, Debug)]
struct Tuning {
    /// The size of a segment, in bytes.
    segment_bytes: u64,
    /// A frame takes no further append when it has this many bytes. 8 MiB: some 10 ms of writing,
    /// which nobody notices, and a sync for it is not worth saving.
    frame_bytes: usize,
    /// A state of this many bytes or more gets a file of its own. 64 KiB: above that a file is
    /// faster than the overflow pages of SQLite, and the catalogue stays small.
    inline_bytes: usize,
    /// How often a full disk is looked at. 1 s: nobody waits for it longer than for a reconnect, and
    /// a look costs next to nothing.
    probe_interval: Duration,
}

impl Tuning {
    fn new(config: &Config) -> Self {
        Self {
            segment_bytes: config.segment_bytes,
            frame_bytes: 8 << 20,
            inline_bytes: 64 << 10,
            probe_interval: Duration::from_secs(1),
        }
    }
}

/// Where everything is.
#[derive(Debug)]
struct Layout {
    root: PathBuf,
    segments: PathBuf,
    checkpoints: PathBuf,
    catalogue: PathBuf,
}

impl Layout {
    fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            segments: root.join("segments"),
            checkpoints: root.join("checkpoints"),
            catalogue: root.join("catalogue.db"),
        }
    }
}

impl EmbeddedLog {
    /// Opens the log in `config.directory`, or makes one. Blocks: for as long as it takes to read
    /// what was written since the last clean close or compaction.
    ///
    /// A document that is damaged does not keep the log from opening: it alone is refused when it is
    /// loaded, with [`LoadError::Corrupt`].
    ///
    /// # Errors
    ///
    /// Says why the log cannot be opened, and what to do.
    pub fn open(config: &Config, metrics: LogMetrics) -> Result<Self, OpenError> {
        Self::open_on(config, Tuning::new(config), Arc::new(OsDisk), metrics)
    }

    fn open_on(
        config: &Config,
        tuning: Tuning,
        disk: Arc<dyn Disk>,
        metrics: LogMetrics,
    ) -> Result<Self, OpenError> {
        let (shared, writer) = recovery::open(config, tuning, disk, metrics)?;
        let thread = thread::Builder::new()
            .name("cowrite-log".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| OpenError::Io { path: config.directory.clone(), source })?;
        Ok(Self { shared, writer: Mutex::new(Some(thread)) })
    }

    fn push(&self, command: Command) -> Appending {
        let (completion, appending) = Appending::new();
        self.shared.queue.push(command, completion);
        appending
    }

    /// Runs `work` on a thread that may block; `None` if the runtime is ending.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Shared>) -> T + Send + 'static,
    ) -> Option<T> {
        let shared = Arc::clone(&self.shared);
        spawn_blocking(move || work(&shared)).await.ok()
    }

    fn refuse_unless_open(&self) -> Result<(), AppendError> {
        match self.shared.queue.current() {
            LogState::Writable | LogState::Full => Ok(()),
            LogState::Failed | LogState::Closed => Err(AppendError::Unavailable),
        }
    }
}

impl UpdateLog for EmbeddedLog {
    fn create(&self, document: &DocumentId, epoch: Epoch) -> Appending {
        self.push(Command::Create { document: document.clone(), epoch })
    }

    fn append(&self, append: Append) -> Appending {
        self.push(Command::Append(append))
    }

    fn load(&self, document: &DocumentId) -> BoxFuture<'_, Result<Option<Loaded>, LoadError>> {
        let document = document.clone();
        async move {
            let name = document.clone();
            let loaded = self.blocking(move |shared| read::load(shared, &name)).await;
            loaded.unwrap_or_else(|| Err(ending(document)))
        }
        .boxed()
    }

    fn read(
        &self,
        document: &DocumentId,
        after: Sequence,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<Option<Vec<Record>>, LoadError>> {
        let document = document.clone();
        async move {
            let name = document.clone();
            let work = move |shared: &Arc<Shared>| read::read(shared, &name, after, bytes_max);
            self.blocking(work).await.unwrap_or_else(|| Err(ending(document)))
        }
        .boxed()
    }

    fn put_checkpoint(
        &self,
        document: &DocumentId,
        checkpoint: Checkpoint,
    ) -> BoxFuture<'_, Result<(), AppendError>> {
        // The history is the one of now, whatever happens to the document before it is stored.
        let standing = self.shared.index.lock().standing(document);
        let document = document.clone();
        async move {
            self.refuse_unless_open()?;
            let epoch = match standing {
                Standing::Present { epoch, .. } => epoch,
                Standing::Absent => return Err(AppendError::Unknown(document)),
                Standing::Suspect | Standing::Damaged { .. } => {
                    return Err(AppendError::Unavailable);
                }
            };
            let work =
                move |shared: &Arc<Shared>| checkpoint::put(shared, &document, epoch, checkpoint);
            self.blocking(work).await.unwrap_or(Err(AppendError::Unavailable))
        }
        .boxed()
    }

    fn list(&self, after: Option<&DocumentId>, limit: usize) -> Vec<DocumentSummary> {
        self.shared.index.lock().list(after, limit)
    }

    fn delete(&self, document: &DocumentId) -> Appending {
        self.push(Command::Delete { document: document.clone() })
    }

    fn compact(&self) -> BoxFuture<'_, Result<Compacted, AppendError>> {
        async move {
            self.refuse_unless_open()?;
            let compacted = self.blocking(|shared| upkeep::compact(shared)).await;
            compacted.unwrap_or(Err(AppendError::Unavailable))
        }
        .boxed()
    }

    fn state(&self) -> watch::Receiver<LogState> {
        self.shared.queue.state()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        // At once, so that no append that is made after this call is taken.
        self.shared.queue.close();
        async move {
            let writer = self.writer.lock().take();
            self.blocking(|shared| close(shared, writer)).await.unwrap_or_default();
        }
        .boxed()
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(writer) = self.writer.lock().take() {
            drop(writer.join());
        }
    }
}

fn close(shared: &Shared, writer: Option<JoinHandle<()>>) {
    let Some(writer) = writer else { return };
    let ended = writer.join().is_ok();
    let failed = shared.queue.current() == LogState::Failed;
    if ended
        && !failed
        && let Err(error) = upkeep::finish(shared)
    {
        // Nothing is lost by that: the next start reads the log instead.
        tracing::warn!(%error, "the catalogue of the log is behind at its end");
    }
    shared.queue.set_state(LogState::Closed);
    shared.catalogue.close();
    drop(shared.lock.lock().take());
}

fn ending(document: DocumentId) -> LoadError {
    let source = std::io::Error::other("the runtime is ending");
    LoadError::Io { document, source }
}
