//! A log that does what disks do at their worst.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use cowrite_server::{
    ids::{DocumentId, Epoch, Sequence},
    log::{
        Append, AppendError, Appending, Checkpoint, Compacted, DocumentSummary, LoadError, Loaded,
        LogState, MemoryLog, Record, UpdateLog,
    },
    metrics::Metrics,
    shutdown::Tasks,
};
use futures_util::future::{self, BoxFuture, FutureExt as _};
use tokio::sync::watch;

/// What becomes of appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Pass,
    /// They fail, and nothing of them is kept.
    Lose,
    /// They fail, and are kept all the same.
    KeepAndFail,
}

/// A log around another one that holds and fails on request. It survives [`UpdateLog::close`], so
/// that servers can be started on it one after the other.
#[derive(Debug)]
pub struct FaultyLog {
    inner: Arc<dyn UpdateLog>,
    fate: watch::Sender<Fate>,
    appends_open: watch::Sender<bool>,
    loads_open: watch::Sender<bool>,
    appends: AtomicUsize,
    loads: AtomicUsize,
    state: watch::Sender<LogState>,
    tasks: Tasks,
}

impl FaultyLog {
    /// A log in memory that does nothing wrong yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::around(Arc::new(MemoryLog::new(Metrics::new().log)))
    }

    /// A log around `inner` that does nothing wrong yet.
    #[must_use]
    pub fn around(inner: Arc<dyn UpdateLog>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            fate: watch::Sender::new(Fate::Pass),
            appends_open: watch::Sender::new(true),
            loads_open: watch::Sender::new(true),
            appends: AtomicUsize::new(0),
            loads: AtomicUsize::new(0),
            state: watch::Sender::new(LogState::Writable),
            tasks: Tasks::new(),
        })
    }

    /// Appends do not begin from now on, until [`Self::release_appends`].
    pub fn hold_appends(&self) {
        self.appends_open.send_replace(false);
    }

    /// Appends that were held take place.
    pub fn release_appends(&self) {
        self.appends_open.send_replace(true);
    }

    /// Loads do not begin from now on, until [`Self::release_loads`].
    pub fn hold_loads(&self) {
        self.loads_open.send_replace(false);
    }

    /// Loads that were held take place.
    pub fn release_loads(&self) {
        self.loads_open.send_replace(true);
    }

    /// Appends fail from now on; `kept` says whether they are kept all the same, as after a write
    /// that succeeded and a sync that did not.
    pub fn fail_appends(&self, kept: bool) {
        self.fate.send_replace(if kept { Fate::KeepAndFail } else { Fate::Lose });
    }

    /// Appends succeed again.
    pub fn heal(&self) {
        self.fate.send_replace(Fate::Pass);
    }

    /// Says that the log is in this state.
    pub fn set_state(&self, state: LogState) {
        self.state.send_replace(state);
    }

    /// How many appends were asked for.
    #[must_use]
    pub fn appends(&self) -> usize {
        self.appends.load(Ordering::Relaxed)
    }

    /// How many loads were asked for.
    #[must_use]
    pub fn loads(&self) -> usize {
        self.loads.load(Ordering::Relaxed)
    }
}

async fn opened(gate: &watch::Sender<bool>) {
    // The sender is right here, so that it is not gone.
    gate.subscribe().wait_for(|open| *open).await.ok();
}

impl UpdateLog for FaultyLog {
    fn create(&self, document: &DocumentId, epoch: Epoch) -> Appending {
        if *self.fate.borrow() == Fate::Pass {
            return self.inner.create(document, epoch);
        }
        Appending::ready(Err(AppendError::Unavailable))
    }

    fn append(&self, append: Append) -> Appending {
        self.appends.fetch_add(1, Ordering::Relaxed);
        let fate = *self.fate.borrow();
        if fate == Fate::Lose {
            return Appending::ready(Err(AppendError::Unavailable));
        }
        if fate == Fate::Pass && *self.appends_open.borrow() {
            return self.inner.append(append);
        }
        let (completion, appending) = Appending::new();
        let (inner, gate) = (Arc::clone(&self.inner), self.appends_open.clone());
        self.tasks.spawn(async move {
            opened(&gate).await;
            let result = inner.append(append).await;
            let failed = fate == Fate::KeepAndFail;
            let result = if failed { Err(AppendError::Unavailable) } else { result };
            // An error means that the room is gone.
            completion.send(result).ok();
        });
        appending
    }

    fn load(&self, document: &DocumentId) -> BoxFuture<'_, Result<Option<Loaded>, LoadError>> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        let document = document.clone();
        async move {
            opened(&self.loads_open).await;
            self.inner.load(&document).await
        }
        .boxed()
    }

    fn read(
        &self,
        document: &DocumentId,
        after: Sequence,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<Option<Vec<Record>>, LoadError>> {
        self.inner.read(document, after, bytes_max)
    }

    fn put_checkpoint(
        &self,
        document: &DocumentId,
        checkpoint: Checkpoint,
    ) -> BoxFuture<'_, Result<(), AppendError>> {
        self.inner.put_checkpoint(document, checkpoint)
    }

    fn list(&self, after: Option<&DocumentId>, limit: usize) -> Vec<DocumentSummary> {
        self.inner.list(after, limit)
    }

    fn delete(&self, document: &DocumentId) -> Appending {
        self.inner.delete(document)
    }

    fn compact(&self) -> BoxFuture<'_, Result<Compacted, AppendError>> {
        self.inner.compact()
    }

    fn state(&self) -> watch::Receiver<LogState> {
        self.state.subscribe()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        future::ready(()).boxed()
    }
}
