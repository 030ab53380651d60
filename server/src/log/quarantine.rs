//! Documents that are not loaded any more, because loading them fails, and how that is found out when
//! it takes the whole process with it.
//!
//! ```text
//! <directory>/quarantine.json    documents in quarantine, and those under suspicion
//! <directory>/loading            the documents that are being loaded, in slots of 136 bytes
//! ```
//!
//! yrs can fail in ways that cannot be caught, such as an overflow of the stack. So a document stands
//! in a slot while it is loaded. One that still stands there at the next start was being loaded when
//! the process ended, which is a suspicion: it is loaded once more, and no other suspect beside it.
//! After [`ENDS_MAX`] ends in a row it is quarantined. Slots are written without a sync: they have to
//! outlive the process, not the machine.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::OpenError;
use crate::{ids::DocumentId, time};

/// How often the process may end while it loads a document before that is not loaded any more. Three
/// in a row is no accident of an impatient supervisor.
const ENDS_MAX: u32 = 3;

/// The bytes of a slot: the length of the id, and the id.
const SLOT_BYTES: u64 = 136;

/// Documents that are marked at once. Those beyond are loaded without a mark.
const SLOTS: u32 = 4096;

/// A document in quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Which.
    pub document: DocumentId,
    /// Since when, in milliseconds since 1970.
    pub since_ms: u64,
    /// Why: for people.
    pub reason: String,
}

/// What is known against a document.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    document: String,
    since_ms: u64,
    /// How often the process has ended while it loaded the document, in a row.
    ends: u32,
    /// Why it is in quarantine; `None` while it is under suspicion only.
    reason: Option<String>,
}

/// The documents in quarantine. Cheap to clone; clones are the same.
#[derive(Clone, Debug)]
pub struct Quarantine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// `None` where nothing outlives the process.
    files: Option<Files>,
    records: Mutex<BTreeMap<DocumentId, Record>>,
    free: Mutex<Vec<u32>>,
    /// Held while a suspect is loaded.
    suspects: Arc<AsyncMutex<()>>,
}

#[derive(Debug)]
struct Files {
    directory: PathBuf,
    loading: File,
}

/// A document is being loaded. Dropped, it is not any more.
#[derive(Debug)]
pub struct Loading {
    quarantine: Quarantine,
    document: DocumentId,
    slot: Option<u32>,
    _alone: Option<OwnedMutexGuard<()>>,
}

impl Quarantine {
    /// A quarantine that ends with the process.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::new(None, BTreeMap::new())
    }

    /// The quarantine of the log in `directory`, which the caller has to itself. Blocks.
    ///
    /// # Errors
    ///
    /// Its files cannot be read or written.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        let at = |name: &str| {
            let path = directory.join(name);
            move |source| OpenError::Io { path, source }
        };
        let mut records = read(directory).map_err(at("quarantine.json"))?;
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(true).create(true).truncate(false);
        let loading = opened.open(directory.join("loading")).map_err(at("loading"))?;
        let left = marked(&loading).map_err(at("loading"))?;
        let is_changed = !left.is_empty();
        for document in left {
            suspect(&mut records, &document);
        }
        let this = Self::new(Some(Files { directory: directory.to_owned(), loading }), records);
        if let (true, Some(files)) = (is_changed, &this.inner.files) {
            // First the suspicions, then the marks: else a crash in between would lose them.
            files.save(&this.inner.records.lock()).map_err(at("quarantine.json"))?;
            files.loading.set_len(0).map_err(at("loading"))?;
        }
        Ok(this)
    }

    fn new(files: Option<Files>, records: BTreeMap<DocumentId, Record>) -> Self {
        let free = if files.is_some() { (0..SLOTS).rev().collect() } else { Vec::new() };
        let (records, free) = (Mutex::new(records), Mutex::new(free));
        Self { inner: Arc::new(Inner { files, records, free, suspects: Arc::default() }) }
    }

    /// The documents in quarantine, in the order of their ids.
    #[must_use]
    pub fn list(&self) -> Vec<Quarantined> {
        let records = self.inner.records.lock();
        let quarantined = records.iter().filter_map(|(document, record)| {
            let (document, reason) = (document.clone(), record.reason.clone()?);
            Some(Quarantined { document, since_ms: record.since_ms, reason })
        });
        quarantined.collect()
    }

    /// Puts a document into quarantine. Blocks. Where that cannot be written down, it holds until the
    /// process ends.
    pub fn add(&self, document: &DocumentId, reason: &str) {
        let since_ms = time::wall_ms();
        let record = Record {
            document: document.to_string(),
            since_ms,
            ends: 0,
            reason: Some(reason.to_owned()),
        };
        self.change(|records| drop(records.insert(document.clone(), record)));
    }

    /// Lets a document go; returns whether it was in quarantine. Blocks.
    ///
    /// # Errors
    ///
    /// That could not be written down.
    pub fn release(&self, document: &DocumentId) -> io::Result<bool> {
        let mut records = self.inner.records.lock();
        let released = records.remove(document).is_some_and(|record| record.reason.is_some());
        if let Some(files) = &self.inner.files {
            files.save(&records)?;
        }
        Ok(released)
    }

    /// Notes that `document` is about to be loaded. Returns when no other suspect is, if it is one.
    ///
    /// # Cancellation
    ///
    /// Safe.
    pub async fn loading(&self, document: &DocumentId) -> Loading {
        let is_suspect = self.inner.records.lock().contains_key(document);
        let alone = match is_suspect {
            true => Some(Arc::clone(&self.inner.suspects).lock_owned().await),
            false => None,
        };
        let slot = self.inner.free.lock().pop();
        if let Some(slot) = slot {
            let name = document.as_str().as_bytes();
            let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
            self.write_slot(slot, &[&[length], name].concat());
        }
        Loading { quarantine: self.clone(), document: document.clone(), slot, _alone: alone }
    }

    fn write_slot(&self, slot: u32, bytes: &[u8]) {
        let Some(files) = &self.inner.files else { return };
        if let Err(error) = files.loading.write_at(bytes, u64::from(slot) * SLOT_BYTES) {
            tracing::warn!(%error, "a load could not be noted: a crash in it would not be counted");
        }
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<DocumentId, Record>)) {
        let mut records = self.inner.records.lock();
        change(&mut records);
        if let Some(files) = &self.inner.files
            && let Err(error) = files.save(&records)
        {
            tracing::error!(%error, "the quarantine could not be written down");
        }
    }
}

impl Loading {
    /// The document was loaded, which speaks for it. Blocks for a moment if it was under suspicion.
    pub fn succeeded(self) {
        if self._alone.is_some() {
            self.quarantine.change(|records| drop(records.remove(&self.document)));
        }
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.quarantine.write_slot(slot, &[0]);
            self.quarantine.inner.free.lock().push(slot);
        }
    }
}

impl Files {
    /// Writes the records; they are there as before or as now, whatever happens.
    fn save(&self, records: &BTreeMap<DocumentId, Record>) -> io::Result<()> {
        let (path, temporary) =
            (self.directory.join("quarantine.json"), self.directory.join("quarantine.json.tmp"));
        let records: Vec<_> = records.values().collect();
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(&records)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(&self.directory)?.sync_all()
    }
}

fn read(directory: &Path) -> io::Result<BTreeMap<DocumentId, Record>> {
    let bytes = match fs::read(directory.join("quarantine.json")) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let records: Vec<Record> = serde_json::from_slice(&bytes)?;
    let named = records.into_iter().map(|record| {
        let document = DocumentId::parse(&record.document).map_err(io::Error::other)?;
        Ok((document, record))
    });
    named.collect()
}

/// The documents that stand in slots.
fn marked(loading: &File) -> io::Result<Vec<DocumentId>> {
    let bytes = loading.metadata()?.len().min(u64::from(SLOTS) * SLOT_BYTES);
    let mut slots = vec![0; usize::try_from(bytes).unwrap_or_default()];
    let read = loading.read_at(&mut slots, 0)?;
    slots.truncate(read);
    let slot = usize::try_from(SLOT_BYTES).unwrap_or(usize::MAX);
    let names = slots.chunks(slot).filter_map(|slot| {
        let (length, name) = slot.split_first()?;
        let name = name.get(..usize::from(*length))?;
        DocumentId::parse(std::str::from_utf8(name).ok()?).ok()
    });
    Ok(names.collect())
}

/// The process has ended while it loaded `document`.
fn suspect(records: &mut BTreeMap<DocumentId, Record>, document: &DocumentId) {
    let record = records.entry(document.clone()).or_insert_with(|| Record {
        document: document.to_string(),
        since_ms: time::wall_ms(),
        ends: 0,
        reason: None,
    });
    record.ends += 1;
    if record.ends >= ENDS_MAX && record.reason.is_none() {
        record.since_ms = time::wall_ms();
        record.reason = Some(format!(
            "the server has ended {ENDS_MAX} times in a row while it loaded the document"
        ));
    }
    tracing::warn!(%document, ends = record.ends, "the server ended while it loaded a document");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> DocumentId {
        DocumentId::parse(name).unwrap()
    }

    /// A process that ends while it loads these documents.
    async fn ends_while_loading(directory: &Path, names: &[&str]) -> Vec<Quarantined> {
        let quarantine = Quarantine::open(directory).unwrap();
        let listed = quarantine.list();
        for name in names {
            std::mem::forget(quarantine.loading(&id(name)).await);
        }
        listed
    }

    #[tokio::test]
    async fn a_document_that_ends_the_process_again_and_again_is_not_loaded_any_more() {
        let home = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            assert_eq!(ends_while_loading(home.path(), &["bad"]).await, []);
        }
        let quarantine = Quarantine::open(home.path()).unwrap();
        assert_eq!(quarantine.list().len(), 1);
        assert_eq!(quarantine.list()[0].document, id("bad"));
        assert!(quarantine.release(&id("bad")).unwrap());
        assert_eq!(Quarantine::open(home.path()).unwrap().list(), []);
    }

    #[tokio::test]
    async fn who_was_loaded_in_between_is_not_under_suspicion() {
        let home = tempfile::tempdir().unwrap();
        for _ in 0..10 {
            for _ in 0..2 {
                ends_while_loading(home.path(), &["good"]).await;
            }
            let quarantine = Quarantine::open(home.path()).unwrap();
            quarantine.loading(&id("good")).await.succeeded();
            assert_eq!(quarantine.list(), []);
        }
    }

    #[tokio::test]
    async fn suspects_are_loaded_one_at_a_time_and_others_beside_them() {
        let home = tempfile::tempdir().unwrap();
        ends_while_loading(home.path(), &["a", "b", "c"]).await;
        let quarantine = Quarantine::open(home.path()).unwrap();
        let a = quarantine.loading(&id("a")).await;
        drop(quarantine.loading(&id("x")).await);
        let (waiting, name) = (quarantine.clone(), id("b"));
        let mut b = Box::pin(async move { waiting.loading(&name).await });
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(b.as_mut().poll(&mut cx).is_pending());
        a.succeeded();
        b.await.succeeded();
        // The last one stands alone in the file now.
        std::mem::forget(quarantine.loading(&id("c")).await);
        drop(quarantine);
        let again = Quarantine::open(home.path()).unwrap();
        let ends: Vec<_> =
            again.inner.records.lock().values().map(|r| (r.document.clone(), r.ends)).collect();
        assert_eq!(ends, [("c".to_owned(), 2)]);
    }

    #[tokio::test]
    async fn a_load_that_is_over_leaves_no_mark() {
        let home = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::open(home.path()).unwrap();
        for name in ["a", "b", "c"] {
            drop(quarantine.loading(&id(name)).await);
        }
        quarantine.add(&id("q"), "it faults");
        drop(quarantine);
        let again = Quarantine::open(home.path()).unwrap();
        assert_eq!(again.inner.records.lock().len(), 1);
        assert_eq!(again.list()[0].reason, "it faults");
    }
}
