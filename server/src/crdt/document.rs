//! One document in memory: takes batches of updates, and tells what others lack.

use std::{
    any::Any,
    cmp::Reverse,
    collections::HashMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use yrs::{
    Doc, OffsetKind, Options, ReadTxn, StateVector, Transact, TransactionMut, Update,
    block::{ClientID, ID},
    encoding::write::Write as _,
    updates::decoder::Decode,
};

use super::{
    canonical,
    error::{Fault, Incomplete},
    validate::{self, ClockRange, Malformed, Scan},
};

/// How many logged updates are replayed in one transaction. One by one or all at once are slower: a
/// document of 260 000 keystrokes takes 312 ms at 100, 406 ms at 1 and 515 ms at 10 000.
const REPLAY_UPDATES: usize = 100;

/// One document in memory. It belongs to one owner and never waits.
pub struct Document {
    doc: Doc,
    /// The next clock of each client, kept beside yrs so that checks need no transaction.
    known: HashMap<u64, u32>,
    /// Where the observer puts the event of a transaction.
    event: Arc<Mutex<Option<Vec<u8>>>>,
}

/// Updates that have been checked against a document and against each other, to be applied together.
#[derive(Debug, Default)]
pub struct Batch {
    updates: Vec<Bytes>,
    /// The structs that the document does not have yet.
    news: Vec<ClockRange>,
    /// For each client that advances, its next clock before and after the batch.
    advances: HashMap<u64, (u32, u32)>,
    /// The size of the updates in bytes.
    bytes: usize,
}

impl Batch {
    /// How many updates are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.updates.len()
    }

    /// There are no updates in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.updates.is_empty()
    }

    /// The size of the updates in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("clients", &self.known.len()).finish_non_exhaustive()
    }
}

impl Default for Document {
    fn default() -> Self {
        Self::new()
    }
}

impl Document {
    /// An empty document.
    #[must_use]
    pub fn new() -> Self {
        Self::watched(plain_doc(), HashMap::new())
    }

    /// Takes over `doc`, which nobody watches yet and which has the state vector `known`.
    fn watched(doc: Doc, known: HashMap<u64, u32>) -> Self {
        let event = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&event);
        // Fails only while a transaction is open, and there is none.
        let observed = doc.observe_update_v1("cowrite", move |_: &TransactionMut<'_>, event| {
            *slot.lock() = Some(event.update.clone());
        });
        debug_assert!(observed.is_ok());
        Self { doc, known, event }
    }

    /// A document from a checkpoint (yrs v2 update) and the updates after it (yrs v1), which all
    /// come from our own log.
    ///
    /// # Errors
    ///
    /// yrs panics or refuses, or something is left pending.
    pub fn load<'a>(
        checkpoint: Option<&[u8]>,
        tail: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, Fault> {
        guarded(move || {
            // Not watched yet: nobody wants the events of the replay.
            let doc = plain_doc();
            if let Some(state) = checkpoint {
                let update = Update::decode_v2(state).map_err(fault)?;
                doc.transact_mut().apply_update(update).map_err(fault)?;
            }
            let mut tail = tail.into_iter().peekable();
            while tail.peek().is_some() {
                let mut txn = doc.transact_mut();
                for update in tail.by_ref().take(REPLAY_UPDATES) {
                    let update = Update::decode_v1(update).map_err(fault)?;
                    txn.apply_update(update).map_err(fault)?;
                }
            }
            let txn = doc.transact();
            // Only what was complete has been logged, so that nothing may wait for anything.
            if txn.has_missing_updates() {
                return Err(Fault::new("updates in the log depend on others that are not there"));
            }
            let known = txn.state_vector().iter().map(|(id, clock)| (id.get(), *clock)).collect();
            drop(txn);
            Ok(Self::watched(doc, known))
        })
    }

    /// Checks an update (yrs v1, and what [`validate::update`] said of it) against the document and
    /// the updates that are already in `batch`, and adds it. Returns whether it may bring something:
    /// an update whose structs are all known and that deletes nothing is left out.
    ///
    /// # Errors
    ///
    /// The update cannot be taken; the batch is as it was.
    pub fn check(
        &self,
        batch: &mut Batch,
        update: &Bytes,
        scan: &Scan,
    ) -> Result<bool, Incomplete> {
        let mut advances: smallvec::SmallVec<[(u64, u32); 2]> = smallvec::SmallVec::new();
        let next = |advances: &[(u64, u32)], client| {
            let within = advances.iter().rev().find(|(other, _)| *other == client);
            within.map_or_else(|| self.next_clock(batch, client), |(_, clock)| *clock)
        };
        for run in &scan.structs {
            let clock = next(&advances, run.client);
            if run.start > clock {
                return Err(Incomplete { client: run.client, clock });
            }
            if run.end > clock {
                advances.push((run.client, run.end));
            }
        }
        for (client, clock) in &scan.needs {
            if *clock >= next(&advances, *client) {
                return Err(Incomplete { client: *client, clock: *clock });
            }
        }
        if advances.is_empty() && !scan.deletes {
            return Ok(false);
        }
        self.admit(batch, scan, &advances);
        batch.bytes += update.len();
        batch.updates.push(update.clone());
        Ok(true)
    }

    /// Whether the document, with the updates that are already in `batch`, has everything that an
    /// update brings (yrs v1, and what [`validate::update`] said of it): its structs, and its
    /// deletions. Where there are deletions and nothing else it takes a walk over the document.
    ///
    /// # Errors
    ///
    /// yrs panics or refuses.
    pub fn contains(&self, batch: &Batch, update: &[u8], scan: &Scan) -> Result<bool, Fault> {
        let mut structs = scan.structs.iter();
        if !structs.all(|run| run.end <= self.next_clock(batch, run.client)) {
            return Ok(false);
        }
        if !scan.deletes {
            return Ok(true);
        }
        guarded(|| {
            let update = Update::decode_v1(update).map_err(fault)?;
            let deleted = self.doc.transact().snapshot().delete_set;
            Ok(update.delete_set().diff(&deleted).is_empty())
        })
    }

    fn admit(&self, batch: &mut Batch, scan: &Scan, advances: &[(u64, u32)]) {
        for run in &scan.structs {
            let start = run.start.max(self.next_clock(batch, run.client));
            if start < run.end {
                batch.news.push(ClockRange { start, ..*run });
            }
        }
        for (client, end) in advances {
            let before = self.known.get(client).copied().unwrap_or(0);
            batch.advances.entry(*client).or_insert((before, before)).1 = *end;
        }
    }

    fn next_clock(&self, batch: &Batch, client: u64) -> u32 {
        let ahead = batch.advances.get(&client).map(|(_, after)| *after);
        ahead.or_else(|| self.known.get(&client).copied()).unwrap_or(0)
    }

    /// Applies the batch in one transaction and returns its effect as one yrs v1 update; `None` when
    /// there is none.
    ///
    /// # Errors
    ///
    /// yrs panicked, or did not do what it said. The document must be thrown away and loaded anew.
    pub fn apply(&mut self, batch: &Batch) -> Result<Option<Bytes>, Fault> {
        guarded(|| {
            self.event.lock().take();
            let mut txn = self.doc.transact_mut();
            for update in &batch.updates {
                let update = Update::decode_v1(update).map_err(fault)?;
                txn.apply_update(update).map_err(fault)?;
            }
            // An acknowledgement promises that the edit is in the document; that yrs returned `Ok`
            // is no proof of it.
            if txn.has_missing_updates() {
                return Err(Fault::new("a complete update was left pending"));
            }
            let inserted = txn.insert_set();
            for run in &batch.news {
                let has = |clock| inserted.contains(&ID::new(ClientID::new(run.client), clock));
                if !has(run.start) || !has(run.end - 1) {
                    return Err(Fault::new("an update was applied but is not in the document"));
                }
            }
            drop(txn);
            Ok(())
        })?;
        for (client, (_, after)) in &batch.advances {
            self.known.insert(*client, *after);
        }
        Ok(self.event.lock().take().map(Bytes::from))
    }

    /// The state vector (yrs v1).
    #[must_use]
    pub fn state_vector(&self) -> Bytes {
        self.encode_state_vector(|_, clock| clock)
    }

    /// The state vector (yrs v1) as it was before `batch`, the last one that was applied.
    #[must_use]
    pub fn state_vector_before(&self, batch: &Batch) -> Bytes {
        self.encode_state_vector(|client, clock| {
            batch.advances.get(&client).map_or(clock, |(before, _)| *before)
        })
    }

    fn encode_state_vector(&self, clock: impl Fn(u64, u32) -> u32) -> Bytes {
        let entries = self.known.iter().map(|(client, now)| (*client, clock(*client, *now)));
        let mut entries: Vec<_> = entries.filter(|(_, clock)| *clock > 0).collect();
        // In the order that Yjs writes: the same document has the same bytes.
        entries.sort_unstable_by_key(|(client, _)| Reverse(*client));
        let mut out = Vec::with_capacity(1 + 8 * entries.len());
        out.write_var(entries.len());
        for (client, clock) in entries {
            out.write_var(client);
            out.write_var(clock);
        }
        out.into()
    }

    /// The whole document as one yrs v1 update.
    ///
    /// # Errors
    ///
    /// yrs panicked.
    pub fn state(&self) -> Result<Bytes, Fault> {
        guarded(|| Ok(self.doc.transact().encode_diff_v1(&StateVector::default()).into()))
    }

    /// What somebody with this state vector (yrs v1, checked here) lacks, as one yrs v1 update. It
    /// has the deletions of the whole document in it.
    ///
    /// # Errors
    ///
    /// The state vector is malformed, in the inner result; yrs panicked, in the outer one.
    pub fn diff(&self, state_vector: &[u8]) -> Result<Result<Bytes, Malformed>, Fault> {
        let entries = match validate::state_vector(state_vector) {
            Ok(entries) => entries,
            Err(malformed) => return Ok(Err(malformed)),
        };
        let vector: StateVector =
            entries.into_iter().map(|(client, clock)| (ClientID::new(client), clock)).collect();
        guarded(|| Ok(Ok(self.doc.transact().encode_diff_v1(&vector).into())))
    }

    /// A checkpoint: the whole document as a yrs v2 update.
    ///
    /// # Errors
    ///
    /// yrs panicked.
    pub fn checkpoint(&self) -> Result<Bytes, Fault> {
        guarded(|| Ok(self.doc.transact().encode_diff_v2(&StateVector::default()).into()))
    }
}

/// A checkpoint (yrs v2) of the document that `state` (yrs v1) is, if it reproduces it: loaded into a
/// fresh document, it must encode to what `state` does; else `None`.
///
/// # Errors
///
/// yrs panics or refuses.
pub fn faithful_checkpoint(state: &[u8]) -> Result<Option<Bytes>, Fault> {
    let checkpoint = Document::load(None, [state])?.checkpoint()?;
    Ok(is_faithful(&checkpoint, state)?.then_some(checkpoint))
}

/// Whether `checkpoint` (yrs v2) and `state` (yrs v1) are one document. Both go through a fresh
/// document, because the same content can be divided into structs differently.
fn is_faithful(checkpoint: &[u8], state: &[u8]) -> Result<bool, Fault> {
    let reloaded = Document::load(Some(checkpoint), [])?.state()?;
    Ok(canonical::same(&reloaded, state).map_err(fault)? || {
        canonical::same(&reloaded, &Document::load(None, [state])?.state()?).map_err(fault)?
    })
}

/// Whether two whole documents (yrs v1) have the same content and the same history, although they may
/// be encoded differently.
///
/// # Errors
///
/// yrs panics or refuses.
pub fn is_same(one: &[u8], other: &[u8]) -> Result<bool, Fault> {
    let settled = |state| Document::load(None, [state])?.state();
    canonical::same(&settled(one)?, &settled(other)?).map_err(fault)
}

fn plain_doc() -> Doc {
    let mut options = Options::with_client_id(ClientID::new(0));
    // As in JavaScript, so that server-side positions are those of the editors.
    options.offset_kind = OffsetKind::Utf16;
    // The server adds nothing of its own to a document.
    options.cleanup_formatting = false;
    Doc::with_options(options)
}

fn fault(error: impl fmt::Display) -> Fault {
    Fault::new(error.to_string())
}

/// Runs `work`, which calls yrs, and turns a panic into a fault.
fn guarded<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    // What `work` borrows may be left halfway through a change: every caller throws it away.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Fault::new(message(&*panic))))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("yrs panicked: {}", text.unwrap_or("without a message"))
}

#[cfg(test)]
mod tests {
    use yrs::{GetString, Text};

    use super::*;

    /// A replica as an editor has it, with its updates one by one.
    struct Editor {
        doc: Doc,
        sent: StateVector,
    }

    impl Editor {
        fn new(client: u64) -> Self {
            Self { doc: Doc::with_client_id(client), sent: StateVector::default() }
        }

        fn edit(&mut self, edit: impl FnOnce(&yrs::TextRef, &mut TransactionMut<'_>)) -> Bytes {
            let text = self.doc.get_or_insert_text("content");
            let mut txn = self.doc.transact_mut();
            edit(&text, &mut txn);
            let update = txn.encode_update_v1();
            self.sent = txn.state_vector();
            update.into()
        }

        fn insert(&mut self, at: u32, text: &str) -> Bytes {
            self.edit(|root, txn| root.insert(txn, at, text))
        }
    }

    fn content(document: &Document) -> String {
        let root = document.doc.get_or_insert_text("content");
        root.get_string(&document.doc.transact())
    }

    fn check(document: &Document, batch: &mut Batch, update: &Bytes) -> Result<bool, Incomplete> {
        document.check(batch, update, &validate::update(update).unwrap())
    }

    fn take(document: &mut Document, updates: &[Bytes]) -> Option<Bytes> {
        let mut batch = Batch::default();
        for update in updates {
            check(document, &mut batch, update).unwrap();
        }
        document.apply(&batch).unwrap()
    }

    #[test]
    fn a_batch_has_one_event_that_brings_another_replica_up_to_date() {
        let mut editor = Editor::new(1);
        let updates: Vec<_> = (0..100).map(|i| editor.insert(i, "x")).collect();
        let mut document = Document::new();
        let event = take(&mut document, &updates).unwrap();
        let parts: usize = updates.iter().map(Bytes::len).sum();
        assert!(event.len() * 7 < parts, "{} bytes for {parts}", event.len());
        let mut other = Document::new();
        take(&mut other, &[event]);
        assert_eq!(content(&other), "x".repeat(100));
    }

    #[test]
    fn an_update_that_brings_nothing_is_left_out() {
        let mut editor = Editor::new(1);
        let update = editor.insert(0, "hi");
        let mut document = Document::new();
        take(&mut document, std::slice::from_ref(&update));
        let mut batch = Batch::default();
        assert_eq!(check(&document, &mut batch, &update), Ok(false));
        assert!(batch.is_empty());
    }

    #[test]
    fn a_difference_that_repeats_the_deletions_of_the_document_is_contained_in_it() {
        let mut editor = Editor::new(1);
        let mut document = Document::new();
        let typed = editor.insert(0, "hello");
        let removed = editor.edit(|root, txn| root.remove_range(txn, 1, 2));
        let contains = |document: &Document, update: &Bytes| {
            let scan = validate::update(update).unwrap();
            document.contains(&Batch::default(), update, &scan).unwrap()
        };
        take(&mut document, std::slice::from_ref(&typed));
        assert!(contains(&document, &typed));
        assert!(!contains(&document, &removed), "a deletion that is not there yet");
        take(&mut document, std::slice::from_ref(&removed));
        let whole = document.diff(&document.state_vector()).unwrap().unwrap();
        assert!(whole.len() > 2, "it has the deletions in it");
        assert!(contains(&document, &whole));
        assert!(contains(&document, &Bytes::from_static(&[0, 0])));
        let more = editor.edit(|root, txn| root.remove_range(txn, 0, 1));
        assert!(!contains(&document, &more));
        assert!(!contains(&document, &editor.insert(0, "x")));
    }

    #[test]
    fn an_update_that_needs_another_one_is_refused_until_that_is_there() {
        let mut editor = Editor::new(1);
        let (first, second) = (editor.insert(0, "a"), editor.insert(1, "b"));
        let deletion = editor.edit(|root, txn| root.remove_range(txn, 0, 1));
        let mut other = Editor::new(2);
        let state = Update::decode_v1(&first).unwrap();
        other.doc.transact_mut().apply_update(state).unwrap();
        let reply = other.insert(1, "c");
        let mut document = Document::new();
        let mut batch = Batch::default();
        for update in [&second, &deletion, &reply] {
            let refused = check(&document, &mut batch, update);
            assert!(matches!(refused, Err(Incomplete { client: 1, .. })), "{refused:?}");
        }
        // What is earlier in the same batch counts.
        for update in [&first, &reply, &second, &deletion] {
            assert_eq!(check(&document, &mut batch, update), Ok(true));
        }
        document.apply(&batch).unwrap();
        assert_eq!(content(&document).len(), 2);
    }

    #[test]
    fn a_gap_inside_an_update_is_seen() {
        let mut editor = Editor::new(1);
        let (first, _, third) =
            (editor.insert(0, "a"), editor.insert(1, "b"), editor.insert(2, "c"));
        let with_gap = yrs::merge_updates_v1([&first[..], &third[..]]).unwrap();
        let refused = check(&Document::new(), &mut Batch::default(), &with_gap.into());
        assert!(matches!(refused, Err(Incomplete { client: 1, .. })), "{refused:?}");
    }

    #[test]
    fn a_state_vector_from_before_the_batch_asks_for_the_batch() {
        let mut editor = Editor::new(1);
        let mut document = Document::new();
        take(&mut document, &[editor.insert(0, "a")]);
        let replica = document.state().unwrap();
        let before = document.state_vector();
        let mut batch = Batch::default();
        check(&document, &mut batch, &editor.insert(1, "b")).unwrap();
        check(&document, &mut batch, &Editor::new(9).insert(0, "c")).unwrap();
        document.apply(&batch).unwrap();
        assert_eq!(document.state_vector_before(&batch), before);
        let diff = document.diff(&before).unwrap().unwrap();
        let mut other = Document::load(None, [&replica[..]]).unwrap();
        take(&mut other, &[diff]);
        assert_eq!(content(&other), content(&document));
        assert_eq!(other.known, document.known);
    }

    #[test]
    fn a_checkpoint_is_checked_by_loading_it() {
        let mut editor = Editor::new(1);
        let mut document = Document::new();
        let updates = [
            editor.insert(0, "hello world"),
            editor.edit(|root, txn| root.remove_range(txn, 2, 5)),
            editor.insert(3, "é🙂"),
        ];
        take(&mut document, &updates);
        let (checkpoint, state) = (document.checkpoint().unwrap(), document.state().unwrap());
        assert_eq!(is_faithful(&checkpoint, &state), Ok(true));
        assert_eq!(faithful_checkpoint(&state), Ok(Some(checkpoint.clone())));
        let loaded = Document::load(Some(&checkpoint), []).unwrap();
        assert_eq!(content(&loaded), content(&document));
        assert_eq!(loaded.known, document.known);
        take(&mut document, &[editor.insert(0, "more")]);
        let newer = document.state().unwrap();
        assert_eq!(is_faithful(&checkpoint, &newer), Ok(false));
        assert!(is_faithful(&checkpoint[1..], &state).is_err());
    }

    #[test]
    fn a_checkpoint_of_objects_is_faithful_in_whatever_order_their_keys_come() {
        let doc = Doc::with_client_id(1);
        let map = doc.get_or_insert_map("map");
        let mut txn = doc.transact_mut();
        let entries = (0..20).map(|key| (key.to_string(), yrs::Any::from(key)));
        let object = yrs::Any::from(entries.collect::<HashMap<_, _>>());
        yrs::Map::insert(&map, &mut txn, "object", object);
        let state = txn.encode_update_v1();
        for _ in 0..10 {
            assert!(faithful_checkpoint(&state).unwrap().is_some());
        }
    }

    #[test]
    fn a_log_with_a_hole_is_a_fault() {
        let mut editor = Editor::new(1);
        let (_, second) = (editor.insert(0, "a"), editor.insert(1, "b"));
        assert!(Document::load(None, [&second[..]]).is_err());
    }
}
