//! What the log knows of every document without reading a file: epoch, head, checkpoint, and where
//! the updates are.

use std::{
    collections::{BTreeMap, HashSet},
    mem,
    ops::Bound,
};

use super::segment::{Position, witness_hash};
use crate::{
    ids::{DocumentId, Epoch, Sequence},
    log::DocumentSummary,
};

/// Where the updates of one append are. 24 bytes: there is one for every append that no checkpoint
/// stands for yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The sequence of the first update.
    pub(super) first: Sequence,
    /// How many there are.
    pub(super) count: u32,
    /// The segment of the entry.
    pub(super) segment: u32,
    /// The first byte of the entry in it.
    pub(super) offset: u32,
    /// All bytes of the entry.
    pub(super) length: u32,
}

impl Run {
    /// The sequence of the last update.
    pub(super) fn last(&self) -> Sequence {
        Sequence(self.first.0 + u64::from(self.count) - 1)
    }

    /// Whether it is in front of `position`.
    pub(super) fn is_before(&self, position: Position) -> bool {
        (self.segment, self.offset) < (position.segment, position.offset)
    }
}

/// What is known of a document.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Which history this is.
    pub(super) epoch: Epoch,
    /// The last durable update.
    pub(super) head: Sequence,
    /// What the newest checkpoint stands for.
    pub(super) checkpoint: Option<Sequence>,
    /// Every run that has an update after the checkpoint, and those that the catalogue does not know
    /// yet. In order.
    pub(super) runs: Vec<Run>,
    /// The creation, or the first that was seen of it, is at or after this segment and offset; zero
    /// when the catalogue knows the document.
    pub(super) created: (u32, u32),
    /// A frame was lost that may have had something of the document, and nothing has shown since
    /// that it had not.
    pub(super) doubtful: bool,
    /// What is wrong with its records, as found when the log was opened. Such a document is neither
    /// read nor written; it can be deleted.
    pub(super) damage: Option<Box<str>>,
}

impl Entry {
    /// A document without updates.
    pub(super) fn new(epoch: Epoch, created: (u32, u32)) -> Self {
        Self {
            epoch,
            head: Sequence::ZERO,
            checkpoint: None,
            runs: Vec::new(),
            created,
            doubtful: false,
            damage: None,
        }
    }

    /// What the checkpoint stands for, or nothing.
    pub(super) fn base(&self) -> Sequence {
        self.checkpoint.unwrap_or_default()
    }

    /// Adds a run that follows on the last one.
    pub(super) fn push(&mut self, run: Run) {
        self.head = self.head.max(run.last());
        self.runs.push(run);
    }

    /// Forgets the runs that a checkpoint stands for and that the catalogue has.
    pub(super) fn trim(&mut self, indexed_to: Position) {
        let base = self.base();
        self.runs.retain(|run| run.last() > base || !run.is_before(indexed_to));
        if self.runs.len() * 4 < self.runs.capacity() {
            self.runs.shrink_to_fit();
        }
    }

    /// The first updates after the checkpoint that no run has; `None` if all are there.
    pub(super) fn hole(&self) -> Option<(Sequence, Sequence)> {
        hole(&self.runs, self.base(), self.head)
    }
}

/// The first updates after `base` and up to `head` that `runs` do not have exactly once.
pub(super) fn hole(runs: &[Run], base: Sequence, head: Sequence) -> Option<(Sequence, Sequence)> {
    let mut next = base.next();
    let mut previous = Sequence::ZERO;
    for run in runs {
        if run.first <= previous {
            return Some((run.first, previous));
        }
        previous = run.last();
        if run.last() <= base {
            continue;
        }
        if run.first > next {
            return Some((next, Sequence(run.first.0 - 1)));
        }
        next = run.last().next();
    }
    (next <= head).then_some((next, head))
}

/// Documents that may have been in lost frames.
#[derive(Clone, Debug, Default)]
pub(super) struct Suspects {
    /// Any document may.
    all: bool,
    /// Those with these hashes may.
    hashes: HashSet<u32>,
    /// Those were deleted afterwards: whatever was lost of them does not matter.
    cleared: HashSet<DocumentId>,
}

impl Suspects {
    fn contains(&self, document: &DocumentId) -> bool {
        (self.all || self.hashes.contains(&witness_hash(document)))
            && !self.cleared.contains(document)
    }

    fn is_empty(&self) -> bool {
        !self.all && self.hashes.is_empty()
    }
}

/// A segment that is full and that the catalogue does not know yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sealed {
    /// Its number.
    pub(super) segment: u32,
    /// The wall time of its newest entry, in milliseconds since 1970.
    pub(super) newest_ms: u64,
    /// Where the log goes on.
    pub(super) next: Position,
}

/// What a document is to somebody who wants to write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// There is no such document.
    Absent,
    /// There is none, but one may have been in lost frames.
    Suspect,
    /// There is.
    Present { epoch: Epoch, head: Sequence },
    /// There is, and it is damaged.
    Damaged { epoch: Epoch, head: Sequence },
}

/// A change that has become durable.
#[derive(Debug)]
pub(super) enum Change {
    /// The document was created.
    Created { document: DocumentId, epoch: Epoch },
    /// Updates were appended to it.
    Appended { document: DocumentId, run: Run },
    /// It was deleted.
    Deleted { document: DocumentId },
}

/// What is known of all documents.
#[derive(Debug)]
pub(super) struct Index {
    documents: BTreeMap<DocumentId, Entry>,
    suspects: Suspects,
    /// Documents whose damage was found since.
    rotten: HashSet<DocumentId>,
    /// Deleted documents that the catalogue may still have.
    pub(super) removed: Vec<DocumentId>,
    /// Full segments that the catalogue does not know yet, in order.
    pub(super) sealed: Vec<Sealed>,
    /// Up to here the catalogue knows everything.
    pub(super) indexed_to: Position,
    /// Where the next frame goes.
    pub(super) end: Position,
}

impl Index {
    /// An index that has what the catalogue knows.
    pub(super) fn new(documents: BTreeMap<DocumentId, Entry>, indexed_to: Position) -> Self {
        Self {
            documents,
            suspects: Suspects::default(),
            rotten: HashSet::new(),
            removed: Vec::new(),
            sealed: Vec::new(),
            indexed_to,
            end: indexed_to,
        }
    }

    /// What is known of a document.
    pub(super) fn get(&self, document: &DocumentId) -> Option<&Entry> {
        self.documents.get(document)
    }

    /// What is known of a document, to change it.
    pub(super) fn get_mut(&mut self, document: &DocumentId) -> Option<&mut Entry> {
        self.documents.get_mut(document)
    }

    /// All documents, to complete them when the log is opened.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&DocumentId, &mut Entry)> {
        self.documents.iter_mut()
    }

    /// Documents after `after`.
    pub(super) fn range(
        &self,
        after: Option<&DocumentId>,
    ) -> impl Iterator<Item = (&DocumentId, &Entry)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.documents.range::<DocumentId, _>((from, Bound::Unbounded))
    }

    /// What a document is to somebody who wants to write it.
    pub(super) fn standing(&self, document: &DocumentId) -> Standing {
        match self.documents.get(document) {
            Some(Entry { damage: None, epoch, head, .. }) => {
                Standing::Present { epoch: *epoch, head: *head }
            }
            Some(Entry { epoch, head, .. }) => Standing::Damaged { epoch: *epoch, head: *head },
            None if self.suspects.contains(document) => Standing::Suspect,
            None => Standing::Absent,
        }
    }

    /// Lines of the catalogue.
    pub(super) fn list(&self, after: Option<&DocumentId>, limit: usize) -> Vec<DocumentSummary> {
        self.range(after)
            .take(limit)
            .map(|(document, entry)| DocumentSummary {
                document: document.clone(),
                head: entry.head,
            })
            .collect()
    }

    /// Takes note of a change that is durable. `at` is the segment and offset of its frame.
    pub(super) fn apply(&mut self, change: Change, at: (u32, u32)) {
        match change {
            Change::Created { document, epoch } => {
                self.documents.insert(document, Entry::new(epoch, at));
            }
            Change::Appended { document, run } => {
                if let Some(entry) = self.documents.get_mut(&document) {
                    entry.push(run);
                }
            }
            Change::Deleted { document } => self.delete(document),
        }
    }

    /// Takes note of an entry that was found in the log. In contrast to [`Self::apply`], what came
    /// before it may be missing.
    pub(super) fn replay(&mut self, found: super::entry::Entry, at: (u32, u32)) {
        use super::entry::Kind;

        match found.kind {
            Kind::Create => {
                self.documents.insert(found.document, Entry::new(found.epoch, at));
            }
            Kind::Delete => self.delete(found.document),
            Kind::Updates => {
                let (segment, offset) = at;
                let (first, count, length) = (found.first, found.count, found.length);
                let run = Run { first, count, segment, offset, length };
                let entry = self
                    .documents
                    .entry(found.document)
                    .or_insert_with(|| Entry::new(found.epoch, at));
                if entry.epoch != found.epoch {
                    *entry = Entry::new(found.epoch, at);
                }
                // The document went on from what was known of it: nothing of it was lost.
                if run.first == entry.head.next() {
                    entry.doubtful = false;
                }
                entry.push(run);
            }
        }
    }

    fn delete(&mut self, document: DocumentId) {
        self.documents.remove(&document);
        self.rotten.remove(&document);
        if !self.suspects.is_empty() {
            self.suspects.cleared.insert(document.clone());
        }
        self.removed.push(document);
    }

    /// Frames were lost. `witness` names the documents that they may have been of; `None`: any.
    pub(super) fn doubt(&mut self, witness: Option<&[u32]>) {
        self.suspects.cleared.clear();
        match witness {
            None => self.suspects.all = true,
            Some(hashes) => self.suspects.hashes.extend(hashes),
        }
        for (document, entry) in &mut self.documents {
            if witness.is_none_or(|hashes| hashes.contains(&witness_hash(document))) {
                entry.doubtful = true;
            }
        }
    }

    /// Frames were lost.
    pub(super) fn has_lost_frames(&self) -> bool {
        !self.suspects.is_empty()
    }

    /// Takes note that a document was found damaged while it was read.
    pub(super) fn rot(&mut self, document: &DocumentId) {
        if self.documents.get(document).is_some_and(|entry| entry.damage.is_none()) {
            self.rotten.insert(document.clone());
        }
    }

    /// Takes note that all of a document could be read, or need not be read any more.
    pub(super) fn heal(&mut self, document: &DocumentId) {
        self.rotten.remove(document);
    }

    /// How many documents are damaged, as far as is known.
    pub(super) fn damaged(&self) -> usize {
        // Damage from the time of opening is rare, and so is this question.
        let found = self.documents.values().filter(|entry| entry.damage.is_some()).count();
        found + self.rotten.len()
    }

    /// Takes the names of deleted documents.
    pub(super) fn take_removed(&mut self) -> Vec<DocumentId> {
        mem::take(&mut self.removed)
    }
}
