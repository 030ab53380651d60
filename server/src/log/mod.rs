//! The durable history of documents: an append-only sequence of updates per document, and
//! checkpoints that stand for the beginning of it.
//!
//! A room appends; when the append returns, the updates are on disk. It is the only writer of its
//! document, and the log gives out the sequences.

mod config;
#[cfg(test)]
mod conformance;
pub mod embedded;
mod error;
mod memory;
mod quarantine;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{oneshot, watch};

pub use self::{
    config::{Config, Durability, Kind},
    error::{AppendError, LoadError, OpenError},
    memory::MemoryLog,
    quarantine::{Loading, Quarantine, Quarantined},
};
use crate::{
    ids::{DocumentId, Epoch, Principal, Sequence, SessionId},
    metrics::LogMetrics,
};

/// The durable history of documents.
///
/// Every implementation passes `log/conformance.rs`.
pub trait UpdateLog: fmt::Debug + Send + Sync + 'static {
    /// Creates `document` with the history `epoch`. Durable when the future returns; the sequence
    /// is [`Sequence::ZERO`].
    ///
    /// Creating a document that exists fails with [`AppendError::Exists`].
    fn create(&self, document: &DocumentId, epoch: Epoch) -> Appending;

    /// Appends updates to a document that was created. All of them or none are kept, with contiguous
    /// sequences; they are durable when the future returns the sequence of the last one. Calls take
    /// effect in the order in which they are made, also before their futures are polled, and also
    /// when those are dropped.
    fn append(&self, append: Append) -> Appending;

    /// What is needed to rebuild a document; `None` if it does not exist.
    fn load(&self, document: &DocumentId) -> BoxFuture<'_, Result<Option<Loaded>, LoadError>>;

    /// The updates after `after`, in order, at most `bytes_max` bytes of them (but at least one);
    /// `None` if they are no longer there one by one. A caller that gets fewer than it wants asks
    /// again.
    fn read(
        &self,
        document: &DocumentId,
        after: Sequence,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<Option<Vec<Record>>, LoadError>>;

    /// Stores a state that stands for all updates up to and including its sequence. Durable when
    /// the future returns. A checkpoint that is older than the stored one, or that claims to know
    /// more than is durable, is refused.
    fn put_checkpoint(
        &self,
        document: &DocumentId,
        checkpoint: Checkpoint,
    ) -> BoxFuture<'_, Result<(), AppendError>>;

    /// Documents in the order of their ids, after `after`, at most `limit`.
    fn list(&self, after: Option<&DocumentId>, limit: usize) -> Vec<DocumentSummary>;

    /// Deletes a document and its history. Durable when the future returns; the id may be created
    /// again, with another epoch.
    fn delete(&self, document: &DocumentId) -> Appending;

    /// Frees the space of updates that checkpoints stand for and that are older than the history
    /// retention.
    fn compact(&self) -> BoxFuture<'_, Result<Compacted, AppendError>>;

    /// Whether appends are taken.
    fn state(&self) -> watch::Receiver<LogState>;

    /// Makes everything durable and lets go of the files. Later appends fail.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Whether the log takes appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogState {
    /// It does.
    Writable,
    /// The disk is full. Reading goes on; changes back by itself when there is room.
    Full,
    /// A write or a sync failed: what the disk holds beyond the last acknowledged append is not
    /// known, and nothing is taken until the process is started anew.
    Failed,
    /// [`UpdateLog::close`] was called.
    Closed,
}

/// Updates of one document to be appended.
#[derive(Clone, Debug)]
pub struct Append {
    /// The document.
    pub document: DocumentId,
    /// Wall time of the batch in milliseconds since 1970.
    pub time_ms: u64,
    /// In the order of their sequences. Not empty.
    pub updates: Vec<NewRecord>,
}

/// An update that is not in the log yet.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// Who made it.
    pub principal: Principal,
    /// The session that it came from.
    pub session: SessionId,
    /// yrs v1 update, as the client sent it.
    pub update: Bytes,
}

/// An update in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its position.
    pub sequence: Sequence,
    /// Wall time in milliseconds since 1970.
    pub time_ms: u64,
    /// Who made it.
    pub principal: Principal,
    /// The session that it came from.
    pub session: SessionId,
    /// yrs v1 update.
    pub update: Bytes,
}

/// A state that stands for the beginning of a document's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last update that is in it.
    pub sequence: Sequence,
    /// The whole document as a yrs v2 update; opaque to the log.
    pub state: Bytes,
}

/// What is needed to rebuild a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Which history this is.
    pub epoch: Epoch,
    /// The newest checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// Every update after the checkpoint, in order and without a gap.
    pub tail: Vec<Record>,
}

impl Loaded {
    /// The size of the checkpoint and the updates, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let checkpoint = self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.state.len());
        checkpoint + self.tail.iter().map(|record| record.update.len()).sum::<usize>()
    }

    /// The sequence of the last update.
    #[must_use]
    pub fn head(&self) -> Sequence {
        let checkpoint = self.checkpoint.as_ref().map(|checkpoint| checkpoint.sequence);
        self.tail.last().map(|record| record.sequence).or(checkpoint).unwrap_or(Sequence::ZERO)
    }
}

/// A line of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentSummary {
    /// The document.
    pub document: DocumentId,
    /// The sequence of its last durable update.
    pub head: Sequence,
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Segments removed.
    pub segments_dropped: usize,
    /// Bytes freed on disk.
    pub bytes_freed: u64,
}

/// The future of an append: the sequence of its last update once that is durable.
///
/// # Cancellation
///
/// Dropping it changes nothing: the append takes place all the same.
#[derive(Debug)]
pub struct Appending(oneshot::Receiver<Result<Sequence, AppendError>>);

/// The other end of an [`Appending`].
pub type Completion = oneshot::Sender<Result<Sequence, AppendError>>;

impl Appending {
    /// An append and the means to complete it.
    #[must_use]
    pub fn new() -> (Completion, Self) {
        let (completion, receiver) = oneshot::channel();
        (completion, Self(receiver))
    }

    /// An append that is complete already.
    #[must_use]
    pub fn ready(result: Result<Sequence, AppendError>) -> Self {
        let (completion, this) = Self::new();
        // The receiver is right here, so that sending cannot fail.
        drop(completion.send(result));
        this
    }
}

impl Future for Appending {
    type Output = Result<Sequence, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // A completion that is dropped is a writer that died: whether the append is on disk is not
        // known, which is what `Unavailable` says.
        Pin::new(&mut self.0).poll(cx).map(|result| result.unwrap_or(Err(AppendError::Unavailable)))
    }
}

/// Opens the log that `config` names, and the quarantine beside it.
///
/// # Errors
///
/// Says why the log cannot be opened, and what to do.
pub fn open(
    config: &Config,
    metrics: LogMetrics,
) -> Result<(Arc<dyn UpdateLog>, Quarantine), OpenError> {
    Ok(match config.kind {
        Kind::Memory => (Arc::new(MemoryLog::new(metrics)), Quarantine::in_memory()),
        Kind::Embedded => {
            let log = embedded::EmbeddedLog::open(config, metrics)?;
            // After the log, which has the directory for itself now.
            (Arc::new(log), Quarantine::open(&config.directory)?)
        }
    })
}
