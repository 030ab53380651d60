//! A log in memory: the reference for what a log does, for tests and for servers that need not
//! remember.

use std::{
    collections::{BTreeMap, btree_map},
    ops::Bound,
};

use futures_util::future::{self, BoxFuture, FutureExt as _};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    Append, AppendError, Appending, Checkpoint, Compacted, DocumentSummary, LoadError, Loaded,
    LogState, Record, UpdateLog,
};
use crate::{
    ids::{DocumentId, Epoch, Sequence},
    metrics::LogMetrics,
};

/// A log in memory. It is lost with the process.
///
/// Updates that a checkpoint stands for are kept until [`UpdateLog::compact`], whatever their age.
#[derive(Debug)]
pub struct MemoryLog {
    documents: Mutex<BTreeMap<DocumentId, Document>>,
    state: watch::Sender<LogState>,
    metrics: LogMetrics,
}

#[derive(Debug)]
struct Document {
    epoch: Epoch,
    checkpoint: Option<Checkpoint>,
    /// Contiguous, up to the head.
    records: Vec<Record>,
    head: Sequence,
}

impl Document {
    fn base(&self) -> Sequence {
        self.checkpoint.as_ref().map(|checkpoint| checkpoint.sequence).unwrap_or_default()
    }

    /// The records after `after`; `None` if the first of them is gone.
    fn after(&self, after: Sequence) -> Option<&[Record]> {
        let first = self.records.first().map_or(self.head.next(), |record| record.sequence);
        let missing = (after.0 + 1).checked_sub(first.0)?;
        let start = usize::try_from(missing).unwrap_or(usize::MAX).min(self.records.len());
        self.records.get(start..)
    }
}

impl MemoryLog {
    /// An empty log.
    #[must_use]
    pub fn new(metrics: LogMetrics) -> Self {
        metrics.writable.set(1);
        let state = watch::Sender::new(LogState::Writable);
        Self { documents: Mutex::default(), state, metrics }
    }

    fn write(
        &self,
        work: impl FnOnce(&mut BTreeMap<DocumentId, Document>) -> Result<Sequence, AppendError>,
    ) -> Appending {
        let result = if *self.state.borrow() == LogState::Closed {
            Err(AppendError::Unavailable)
        } else {
            work(&mut self.documents.lock())
        };
        if result.is_err() {
            self.metrics.append_failures.inc();
        }
        Appending::ready(result)
    }
}

impl UpdateLog for MemoryLog {
    fn create(&self, document: &DocumentId, epoch: Epoch) -> Appending {
        self.write(|documents| match documents.entry(document.clone()) {
            btree_map::Entry::Occupied(_) => Err(AppendError::Exists(document.clone())),
            btree_map::Entry::Vacant(vacant) => {
                let (checkpoint, records, head) = (None, Vec::new(), Sequence::ZERO);
                vacant.insert(Document { epoch, checkpoint, records, head });
                Ok(Sequence::ZERO)
            }
        })
    }

    fn append(&self, append: Append) -> Appending {
        self.write(|documents| {
            let Some(document) = documents.get_mut(&append.document) else {
                return Err(AppendError::Unknown(append.document));
            };
            self.metrics.commits.inc();
            self.metrics.commit_records.observe(append.updates.len() as f64);
            self.metrics.records.inc_by(append.updates.len() as u64);
            for new in append.updates {
                document.head = document.head.next();
                document.records.push(Record {
                    sequence: document.head,
                    time_ms: append.time_ms,
                    principal: new.principal,
                    session: new.session,
                    update: new.update,
                });
            }
            Ok(document.head)
        })
    }

    fn load(&self, document: &DocumentId) -> BoxFuture<'_, Result<Option<Loaded>, LoadError>> {
        let loaded = self.documents.lock().get(document).map(|document| Loaded {
            epoch: document.epoch,
            checkpoint: document.checkpoint.clone(),
            tail: document.after(document.base()).unwrap_or_default().to_vec(),
        });
        future::ready(Ok(loaded)).boxed()
    }

    fn read(
        &self,
        document: &DocumentId,
        after: Sequence,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<Option<Vec<Record>>, LoadError>> {
        let documents = self.documents.lock();
        let records = documents.get(document).and_then(|document| document.after(after));
        let read = records.map(|records| {
            let mut bytes = 0;
            let fits = records.iter().take_while(|record| {
                let first = bytes == 0;
                bytes += record.update.len().max(1);
                first || bytes <= bytes_max
            });
            fits.cloned().collect()
        });
        future::ready(Ok(read)).boxed()
    }

    fn put_checkpoint(
        &self,
        document: &DocumentId,
        checkpoint: Checkpoint,
    ) -> BoxFuture<'_, Result<(), AppendError>> {
        let name = document.clone();
        let stored = self.write(|documents| {
            let Some(document) = documents.get_mut(&name) else {
                return Err(AppendError::Unknown(name));
            };
            let newer = document.checkpoint.is_none() || checkpoint.sequence > document.base();
            if !newer || checkpoint.sequence > document.head {
                let (checkpoint, head) = (checkpoint.sequence, document.head);
                return Err(AppendError::Checkpoint { document: name, checkpoint, head });
            }
            document.checkpoint = Some(checkpoint);
            self.metrics.checkpoints.inc();
            Ok(Sequence::ZERO)
        });
        stored.map(|result| result.map(drop)).boxed()
    }

    fn list(&self, after: Option<&DocumentId>, limit: usize) -> Vec<DocumentSummary> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let documents = self.documents.lock();
        let lines = documents.range::<DocumentId, _>((from, Bound::Unbounded)).take(limit);
        lines
            .map(|(id, document)| DocumentSummary { document: id.clone(), head: document.head })
            .collect()
    }

    fn delete(&self, document: &DocumentId) -> Appending {
        self.write(|documents| {
            let removed = documents.remove(document);
            removed
                .map(|removed| removed.head)
                .ok_or_else(|| AppendError::Unknown(document.clone()))
        })
    }

    fn compact(&self) -> BoxFuture<'_, Result<Compacted, AppendError>> {
        for document in self.documents.lock().values_mut() {
            let base = document.base();
            document.records.retain(|record| record.sequence > base);
        }
        future::ready(Ok(Compacted::default())).boxed()
    }

    fn state(&self) -> watch::Receiver<LogState> {
        self.state.subscribe()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.metrics.writable.set(0);
        self.state.send_replace(LogState::Closed);
        future::ready(()).boxed()
    }
}
