//! stub
use super::*;
use parking_lot::Mutex;
use std::collections::BTreeMap;
#[derive(Debug)]
pub struct MemoryLog {
    docs: Mutex<BTreeMap<DocumentId, Loaded>>,
    state: watch::Sender<LogState>,
}
impl MemoryLog {
    pub fn new(_m: LogMetrics) -> Self {
        Self { docs: Mutex::default(), state: watch::channel(LogState::Writable).0 }
    }
}
impl UpdateLog for MemoryLog {
    fn create(&self, document: &DocumentId, epoch: Epoch) -> Appending {
        self.docs.lock().insert(document.clone(), Loaded { epoch, checkpoint: None, tail: vec![] });
        Appending::ready(Ok(Sequence::ZERO))
    }
    fn append(&self, append: Append) -> Appending {
        let mut docs = self.docs.lock();
        let Some(d) = docs.get_mut(&append.document) else {
            return Appending::ready(Err(AppendError::Unavailable));
        };
        let mut head = d.head();
        for r in append.updates {
            head = head.next();
            d.tail.push(Record {
                sequence: head,
                time_ms: append.time_ms,
                principal: r.principal,
                session: r.session,
                update: r.update,
            });
        }
        Appending::ready(Ok(head))
    }
    fn load(&self, document: &DocumentId) -> BoxFuture<'_, Result<Option<Loaded>, LoadError>> {
        let d = self.docs.lock().get(document).cloned();
        Box::pin(async move { Ok(d) })
    }
    fn read(
        &self,
        _d: &DocumentId,
        _a: Sequence,
        _b: usize,
    ) -> BoxFuture<'_, Result<Option<Vec<Record>>, LoadError>> {
        Box::pin(async { Ok(None) })
    }
    fn put_checkpoint(
        &self,
        document: &DocumentId,
        checkpoint: Checkpoint,
    ) -> BoxFuture<'_, Result<(), AppendError>> {
        if let Some(d) = self.docs.lock().get_mut(document) {
            d.tail.retain(|r| r.sequence > checkpoint.sequence);
            d.checkpoint = Some(checkpoint);
        }
        Box::pin(async { Ok(()) })
    }
    fn list(&self, after: Option<&DocumentId>, limit: usize) -> Vec<DocumentSummary> {
        self.docs
            .lock()
            .iter()
            .filter(|(k, _)| after.is_none_or(|a| *k > a))
            .take(limit)
            .map(|(k, v)| DocumentSummary { document: k.clone(), head: v.head() })
            .collect()
    }
    fn delete(&self, document: &DocumentId) -> Appending {
        self.docs.lock().remove(document);
        Appending::ready(Ok(Sequence::ZERO))
    }
    fn compact(&self) -> BoxFuture<'_, Result<Compacted, AppendError>> {
        Box::pin(async { Ok(Compacted::default()) })
    }
    fn state(&self) -> watch::Receiver<LogState> {
        self.state.subscribe()
    }
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
