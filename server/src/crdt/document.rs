//! One document in memory: takes batches of updates, and tells what others lack.

use std::{
    any::Any,
    cmp::Reverse,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;
use foldhash::HashMap;
use parking_lot::Mutex;
use yrs::{
    Doc, IdSet, OffsetKind, Options, ReadTxn, StateVector, Transact, TransactionMut, Update,
    block::{ClientID, ID},
    encoding::write::Write as _,
    updates::decoder::Decode,
};

use super::{
    canonical, checkpoint,
    error::{Fault, Incomplete, Rejection},
    outline::{Excess, JOINED_MAX, Outline, Plan, Quotas, Rows, Strictness},
    owners::{Author, Owners},
    validate::{self, ClockRange, Malformed, Scan, Visit},
};
use crate::ids::Principal;

/// How many logged updates are replayed in one transaction. One by one or all at once are slower: a
/// document of 260 000 keystrokes takes 312 ms at 100, 406 ms at 1 and 515 ms at 10 000.
const REPLAY_UPDATES: usize = 100;

/// And how many bytes of them, a single one apart, of which the wall has seen to it: what yrs copies while
/// it joins structs grows with their square, here to 128 MiB at most.
const REPLAY_BYTES: usize = 4 << 10;

/// One document in memory. It belongs to one owner and never waits.
pub struct Document {
    doc: Doc,
    /// What is in it and where, kept beside yrs. After a check it is ahead of yrs by the batch.
    outline: Outline,
    owners: Owners,
    /// What is deleted in it, if it was looked at since the last batch.
    deleted: Option<IdSet>,
    /// Where the observer puts the event of a transaction.
    event: Arc<Mutex<Option<Vec<u8>>>>,
}

/// Updates that have been checked against a document and against each other, to be applied together.
#[derive(Default)]
pub struct Batch {
    /// Until they are applied.
    updates: Vec<Update>,
    count: usize,
    /// The structs that the document does not have yet.
    news: Vec<ClockRange>,
    /// For each client that advances, its next clock before the batch.
    before: HashMap<u64, u32>,
    /// The size of the updates in bytes.
    bytes: usize,
    /// What it costs to apply, in structs that yrs looks at, about.
    work: u64,
    /// How many bytes yrs copies, at most, while it joins what the clients put in a row.
    joined: u64,
    rows: Rows,
}

impl Batch {
    /// How many updates are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// There are no updates in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The size of the updates in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What it costs to apply, in structs that yrs looks at, about: at most 200 ns each.
    #[must_use]
    pub fn work(&self) -> u64 {
        self.work
    }

    /// What yrs may take of the memory while it is applied, in bytes, beside what is there afterwards.
    #[must_use]
    pub fn transient_bytes(&self) -> u64 {
        self.joined
    }
}

/// From whom an update comes, and what they may do.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Who.
    pub author: Author,
    /// The only root that they may change; `None` for all.
    pub only_root: Option<&'a str>,
    /// How much there may be.
    pub quotas: &'a Quotas,
    /// The update answers a state vector, and has the deletions of the whole document in it.
    pub is_difference: bool,
}

/// An update from the log, and who wrote it.
#[derive(Clone, Copy, Debug)]
pub struct Logged<'a> {
    /// Who.
    pub author: &'a Principal,
    /// yrs v1 update.
    pub update: &'a [u8],
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("updates", &self.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("clients", &self.outline.clients()).finish_non_exhaustive()
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
        Self::watched(plain_doc(), Outline::default(), Owners::default())
    }

    /// Takes over `doc`, which nobody watches yet and of which `outline` tells.
    fn watched(doc: Doc, outline: Outline, owners: Owners) -> Self {
        let event = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&event);
        // Fails only while a transaction is open, and there is none.
        let observed = doc.observe_update_v1("cowrite", move |_: &TransactionMut<'_>, event| {
            *slot.lock() = Some(event.update.clone());
        });
        debug_assert!(observed.is_ok());
        Self { doc, outline, owners, deleted: None, event }
    }

    /// A document from a checkpoint (as [`faithful_checkpoint`] makes it) and the updates after it, which
    /// all come from our own log.
    ///
    /// # Errors
    ///
    /// yrs panics or refuses, or something is left pending.
    pub fn load<'a>(
        checkpoint: Option<&[u8]>,
        tail: impl IntoIterator<Item = Logged<'a>, IntoIter: Clone>,
    ) -> Result<Self, Fault> {
        let tail = tail.into_iter();
        let (owners, state) = match checkpoint {
            Some(checkpoint) => checkpoint::open(checkpoint).map_err(fault)?,
            None => (&[][..], &[][..]),
        };
        let state = (!state.is_empty()).then_some(state);
        let doc = replayed(state, tail.clone().map(|logged| logged.update))?;
        let encoded = guarded(|| Ok(whole(&doc)))?;
        let mut outline = Outline::default();
        let plan = outline.plan(&encoded, &Rows::default(), Strictness::Own).map_err(fault)?;
        outline.carry_out(plan);
        let mut owners = Owners::decode(owners).map_err(fault)?;
        for Logged { author, update } in tail {
            let author = owners.author(author);
            if author != Author::NOBODY {
                // Read a second time, which yrs has just done with success.
                for run in validate::update(update).map_err(fault)?.structs {
                    owners.claim(run.client, author);
                }
            }
        }
        Ok(Self::watched(doc, outline, owners))
    }

    /// A document that is `state` (yrs v1), which nobody owns.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn of(state: &[u8]) -> Result<Self, Fault> {
        let nobody = Principal::anonymous();
        Self::load(None, [Logged { author: &nobody, update: state }])
    }

    /// The number of somebody who writes, for [`Terms`].
    pub fn author(&mut self, principal: &Principal) -> Author {
        self.owners.author(principal)
    }

    /// How many structs there are, at most.
    #[must_use]
    pub fn structs(&self) -> usize {
        self.outline.structs()
    }

    /// Counts the structs anew, by what the document is encoded as (yrs v1): yrs joins more of them
    /// than is known when they come.
    ///
    /// # Errors
    ///
    /// This is no document.
    pub fn recount(&mut self, state: &[u8]) -> Result<(), Fault> {
        let scan = validate::update(state).map_err(fault)?;
        self.outline.recount(scan.parts);
        Ok(())
    }

    /// Whether anything was written under this client id.
    #[must_use]
    pub fn knows(&self, client: u64) -> bool {
        self.outline.clock(client) > 0
    }

    /// Checks an update (yrs v1, and what [`validate::update`] said of it) against the document and
    /// the updates that are already in `batch`, and adds it. Returns whether it may bring something:
    /// an update whose structs are all known and that deletes nothing is left out.
    ///
    /// A batch to which something was added has to be applied; else the document must be thrown away.
    ///
    /// # Errors
    ///
    /// In the inner result, why the update cannot be taken; the batch is as it was. In the outer one,
    /// yrs panicked.
    pub fn check(
        &mut self,
        batch: &mut Batch,
        update: &Bytes,
        scan: &Scan,
        terms: Terms<'_>,
    ) -> Result<Result<bool, Rejection>, Fault> {
        let plan = match self.judge(batch, update, scan, terms) {
            Ok(None) => return Ok(Ok(false)),
            Ok(Some(plan)) => plan,
            Err(rejection) => return Ok(Err(rejection)),
        };
        if scan.deletes
            && let Some(root) = terms.only_root
            && !self.deletes_only(update, root, terms.is_difference)?
        {
            return Ok(Err(Rejection::NoComment));
        }
        // Refused here and not by the transaction, where it would be a fault of all of the batch.
        let Ok(decoded) = guarded(|| Ok(Update::decode_v1(update)))? else {
            let what = "content that the document cannot hold";
            return Ok(Err(Malformed { what, at: 0 }.into()));
        };
        for run in plan.news() {
            batch.before.entry(run.client).or_insert(run.start);
            batch.news.push(run);
            self.owners.claim(run.client, terms.author);
        }
        batch.work += plan.work() + scan.parts as u64;
        batch.joined += plan.joined();
        batch.rows.extend(plan.rows());
        self.outline.carry_out(plan);
        batch.bytes += update.len();
        batch.updates.push(decoded);
        batch.count += 1;
        Ok(Ok(true))
    }

    /// What an update adds; `None` for nothing.
    fn judge<'a>(
        &self,
        batch: &Batch,
        update: &'a [u8],
        scan: &Scan,
        terms: Terms<'_>,
    ) -> Result<Option<Plan<'a>>, Rejection> {
        let mut brings = false;
        // As far as the update itself goes: what it has of each client, one run after the other.
        let mut ends = super::by_client::ByClient::default();
        for run in &scan.structs {
            let clock = ends.get(run.client).copied();
            let clock = clock.unwrap_or_else(|| self.outline.clock(run.client));
            if run.start > clock {
                return Err(Incomplete { client: run.client, clock }.into());
            }
            if run.end > clock {
                brings = true;
                if !self.owners.may_write(run.client, terms.author) {
                    return Err(Rejection::Taken(run.client));
                }
                match ends.get_mut(run.client) {
                    Some(end) => *end = run.end,
                    None => ends.add(run.client, run.end),
                }
            }
        }
        for (client, clock) in &scan.needs {
            let end = ends.get(*client).copied();
            if *clock >= end.unwrap_or_else(|| self.outline.clock(*client)) {
                return Err(Incomplete { client: *client, clock: *clock }.into());
            }
        }
        if !brings && !scan.deletes {
            return Ok(None);
        }
        let plan = self.outline.plan(update, &batch.rows, Strictness::Client(terms.quotas))?;
        if batch.joined + plan.joined() > JOINED_MAX {
            let is_alone = batch.is_empty();
            return Err(if is_alone { Rejection::Excess(Excess::Pieces) } else { Rejection::Full });
        }
        if terms.only_root.is_some_and(|root| !self.outline.is_within(&plan, root)) {
            return Err(Rejection::NoComment);
        }
        Ok(Some(plan))
    }

    /// Whether what an update deletes is in this root. A difference may have what is deleted already.
    fn deletes_only(
        &mut self,
        update: &[u8],
        root: &str,
        is_difference: bool,
    ) -> Result<bool, Fault> {
        let mut outside = IdSet::new();
        let outline = &self.outline;
        let walked = validate::walk(update, &mut |visit| {
            if let Visit::Deletion(range) = visit {
                outline.outside(range, root, &mut |ClockRange { client, start, end }| {
                    outside.insert(ID::new(ClientID::new(client), start), end - start);
                });
            }
            Ok::<(), Malformed>(())
        });
        walked.map_err(fault)?;
        if outside.is_empty() {
            return Ok(true);
        }
        Ok(is_difference && outside.diff(self.deleted()?).is_empty())
    }

    /// What is deleted: a walk over the document, once for each batch.
    fn deleted(&mut self) -> Result<&IdSet, Fault> {
        let deleted = match self.deleted.take() {
            Some(deleted) => deleted,
            None => guarded(|| Ok(self.doc.transact().snapshot().delete_set))?,
        };
        Ok(self.deleted.insert(deleted))
    }

    /// Whether the document, with the updates that were checked since, has everything that an update
    /// brings (yrs v1, and what [`validate::update`] said of it): its structs, and its deletions.
    ///
    /// # Errors
    ///
    /// yrs panics or refuses.
    pub fn contains(&mut self, update: &[u8], scan: &Scan) -> Result<bool, Fault> {
        let mut structs = scan.structs.iter();
        if !structs.all(|run| run.end <= self.outline.clock(run.client)) {
            return Ok(false);
        }
        if !scan.deletes {
            return Ok(true);
        }
        let update = guarded(|| Update::decode_v1(update).map_err(fault))?;
        Ok(update.delete_set().diff(self.deleted()?).is_empty())
    }

    /// Applies the batch in one transaction and returns its effect as one yrs v1 update; `None` when
    /// there is none.
    ///
    /// # Errors
    ///
    /// yrs panicked, or did not do what it said. The document must be thrown away and loaded anew.
    pub fn apply(&mut self, batch: &mut Batch) -> Result<Option<Bytes>, Fault> {
        self.deleted = None;
        guarded(|| {
            self.event.lock().take();
            let mut txn = self.doc.transact_mut();
            for update in batch.updates.drain(..) {
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
            Ok(())
        })?;
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
            batch.before.get(&client).copied().unwrap_or(clock)
        })
    }

    fn encode_state_vector(&self, clock: impl Fn(u64, u32) -> u32) -> Bytes {
        let entries = self.outline.clocks().map(|(client, now)| (client, clock(client, now)));
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
        guarded(|| Ok(whole(&self.doc).into()))
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

    /// What a checkpoint is made of, for [`faithful_checkpoint`].
    ///
    /// # Errors
    ///
    /// yrs panicked.
    pub fn checkpoint_parts(&self) -> Result<CheckpointParts, Fault> {
        Ok(CheckpointParts { state: self.state()?, owners: self.owners.encode() })
    }
}

#[cfg(test)]
impl Document {
    /// What is in it and where.
    pub(super) fn outline(&self) -> &Outline {
        &self.outline
    }
}

/// What a checkpoint is made of.
#[derive(Clone, Debug)]
pub struct CheckpointParts {
    state: Bytes,
    /// Whose its client ids are.
    owners: Bytes,
}

impl CheckpointParts {
    /// The whole document as one yrs v1 update.
    #[must_use]
    pub fn state(&self) -> &Bytes {
        &self.state
    }
}

/// A checkpoint, for [`Document::load`], if it reproduces its document: loaded into a fresh one, it
/// must encode to what the document does; else `None`.
///
/// # Errors
///
/// yrs panics or refuses.
pub fn faithful_checkpoint(parts: &CheckpointParts) -> Result<Option<Bytes>, Fault> {
    let CheckpointParts { state, owners } = parts;
    let doc = replayed(None, [&state[..]])?;
    let compact = guarded(|| Ok(doc.transact().encode_diff_v2(&StateVector::default())))?;
    let is_faithful = is_faithful(&compact, state)?;
    Ok(is_faithful.then(|| checkpoint::seal(owners, compact.into())))
}

/// Whether `compact` (yrs v2) and `state` (yrs v1) are one document. Both go through a fresh
/// document, because the same content can be divided into structs differently.
fn is_faithful(compact: &[u8], state: &[u8]) -> Result<bool, Fault> {
    let doc = replayed(Some(compact), [])?;
    let reloaded = guarded(|| Ok(whole(&doc)))?;
    Ok(canonical::same(&reloaded, state).map_err(fault)?
        || canonical::same(&reloaded, &settled(state)?).map_err(fault)?)
}

/// Whether two whole documents (yrs v1) have the same content and the same history, although they may
/// be encoded differently.
///
/// # Errors
///
/// yrs panics or refuses.
pub fn is_same(one: &[u8], other: &[u8]) -> Result<bool, Fault> {
    canonical::same(&settled(one)?, &settled(other)?).map_err(fault)
}

/// The document `state` (yrs v1) as yrs encodes it.
fn settled(state: &[u8]) -> Result<Vec<u8>, Fault> {
    let doc = replayed(None, [state])?;
    guarded(|| Ok(whole(&doc)))
}

fn whole(doc: &Doc) -> Vec<u8> {
    doc.transact().encode_diff_v1(&StateVector::default())
}

/// A document of `state` (yrs v2) and updates (yrs v1), which nobody watches.
fn replayed<'a>(
    state: Option<&[u8]>,
    updates: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Doc, Fault> {
    guarded(move || {
        let doc = plain_doc();
        if let Some(state) = state {
            let update = Update::decode_v2(state).map_err(fault)?;
            doc.transact_mut().apply_update(update).map_err(fault)?;
        }
        let mut updates = updates.into_iter().peekable();
        while updates.peek().is_some() {
            let mut txn = doc.transact_mut();
            let (mut count, mut bytes) = (0, 0);
            while let Some(update) = updates.next_if(|update| {
                count == 0 || (count < REPLAY_UPDATES && bytes + update.len() <= REPLAY_BYTES)
            }) {
                (count, bytes) = (count + 1, bytes + update.len());
                let update = Update::decode_v1(update).map_err(fault)?;
                txn.apply_update(update).map_err(fault)?;
            }
        }
        // Only what was complete has been logged, so that nothing may wait for anything.
        if doc.transact().has_missing_updates() {
            return Err(Fault::new("updates in the log depend on others that are not there"));
        }
        Ok(doc)
    })
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

    const ANYBODY: Terms<'static> = Terms {
        author: Author::NOBODY,
        only_root: None,
        quotas: &Quotas::NONE,
        is_difference: false,
    };

    fn check_as(
        document: &mut Document,
        batch: &mut Batch,
        update: &Bytes,
        terms: Terms<'_>,
    ) -> Result<bool, Rejection> {
        document.check(batch, update, &validate::update(update).unwrap(), terms).unwrap()
    }

    fn check(
        document: &mut Document,
        batch: &mut Batch,
        update: &Bytes,
    ) -> Result<bool, Rejection> {
        check_as(document, batch, update, ANYBODY)
    }

    fn take(document: &mut Document, updates: &[Bytes]) -> Option<Bytes> {
        let mut batch = Batch::default();
        for update in updates {
            check(document, &mut batch, update).unwrap();
        }
        document.apply(&mut batch).unwrap()
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
        assert_eq!(check(&mut document, &mut batch, &update), Ok(false));
        assert!(batch.is_empty());
    }

    #[test]
    fn a_difference_that_repeats_the_deletions_of_the_document_is_contained_in_it() {
        let mut editor = Editor::new(1);
        let mut document = Document::new();
        let typed = editor.insert(0, "hello");
        let removed = editor.edit(|root, txn| root.remove_range(txn, 1, 2));
        let contains = |document: &mut Document, update: &Bytes| {
            let scan = validate::update(update).unwrap();
            document.contains(update, &scan).unwrap()
        };
        take(&mut document, std::slice::from_ref(&typed));
        assert!(contains(&mut document, &typed));
        assert!(!contains(&mut document, &removed), "a deletion that is not there yet");
        take(&mut document, std::slice::from_ref(&removed));
        let whole = document.diff(&document.state_vector()).unwrap().unwrap();
        assert!(whole.len() > 2, "it has the deletions in it");
        assert!(contains(&mut document, &whole));
        assert!(contains(&mut document, &Bytes::from_static(&[0, 0])));
        let more = editor.edit(|root, txn| root.remove_range(txn, 0, 1));
        assert!(!contains(&mut document, &more));
        assert!(!contains(&mut document, &editor.insert(0, "x")));
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
            let refused = check(&mut document, &mut batch, update);
            assert!(
                matches!(refused, Err(Rejection::Incomplete(Incomplete { client: 1, .. }))),
                "{refused:?}"
            );
        }
        // What is earlier in the same batch counts.
        for update in [&first, &reply, &second, &deletion] {
            assert_eq!(check(&mut document, &mut batch, update), Ok(true));
        }
        document.apply(&mut batch).unwrap();
        assert_eq!(content(&document).len(), 2);
    }

    #[test]
    fn a_gap_inside_an_update_is_seen() {
        let mut editor = Editor::new(1);
        let (first, _, third) =
            (editor.insert(0, "a"), editor.insert(1, "b"), editor.insert(2, "c"));
        let with_gap = yrs::merge_updates_v1([&first[..], &third[..]]).unwrap();
        let refused = check(&mut Document::new(), &mut Batch::default(), &with_gap.into());
        assert!(
            matches!(refused, Err(Rejection::Incomplete(Incomplete { client: 1, .. }))),
            "{refused:?}"
        );
    }

    #[test]
    fn a_state_vector_from_before_the_batch_asks_for_the_batch() {
        let mut editor = Editor::new(1);
        let mut document = Document::new();
        take(&mut document, &[editor.insert(0, "a")]);
        let replica = document.state().unwrap();
        let before = document.state_vector();
        let mut batch = Batch::default();
        check(&mut document, &mut batch, &editor.insert(1, "b")).unwrap();
        check(&mut document, &mut batch, &Editor::new(9).insert(0, "c")).unwrap();
        document.apply(&mut batch).unwrap();
        assert_eq!(document.state_vector_before(&batch), before);
        let diff = document.diff(&before).unwrap().unwrap();
        let mut other = Document::of(&replica).unwrap();
        take(&mut other, &[diff]);
        assert_eq!(content(&other), content(&document));
        assert_eq!(other.state_vector(), document.state_vector());
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
        let parts = document.checkpoint_parts().unwrap();
        let state = parts.state();
        let checkpoint = faithful_checkpoint(&parts).unwrap().unwrap();
        assert_eq!(is_faithful(&checkpoint, state), Ok(true));
        let loaded = Document::load(Some(&checkpoint), []).unwrap();
        assert_eq!(content(&loaded), content(&document));
        assert_eq!(loaded.state_vector(), document.state_vector());
        take(&mut document, &[editor.insert(0, "more")]);
        let newer = document.state().unwrap();
        assert_eq!(is_faithful(&checkpoint, &newer), Ok(false));
        assert!(is_faithful(&checkpoint[1..], state).is_err());
    }

    #[test]
    fn a_checkpoint_of_objects_is_faithful_in_whatever_order_their_keys_come() {
        let doc = Doc::with_client_id(1);
        let map = doc.get_or_insert_map("map");
        let mut txn = doc.transact_mut();
        let entries = (0..20).map(|key| (key.to_string(), yrs::Any::from(key)));
        let object = yrs::Any::from(entries.collect::<std::collections::HashMap<_, _>>());
        yrs::Map::insert(&map, &mut txn, "object", object);
        let parts = CheckpointParts { state: txn.encode_update_v1().into(), owners: Bytes::new() };
        for _ in 0..10 {
            assert!(faithful_checkpoint(&parts).unwrap().is_some());
        }
    }

    #[test]
    fn a_log_with_a_hole_is_a_fault() {
        let mut editor = Editor::new(1);
        let (_, second) = (editor.insert(0, "a"), editor.insert(1, "b"));
        assert!(Document::of(&second).is_err());
    }
}
