//! Stores a document from elsewhere in the log, and looks whether it is there.

use std::fmt;

use bytes::Bytes;

use super::{
    error::{Refusal, StoreError},
    prepare::{ANYBODY, Prepared},
};
use crate::{
    crdt::{Batch, Document, Fault, Logged, is_same, validate},
    ids::{DocumentId, Epoch, Principal, Sequence, SessionId},
    log::{Append, AppendError, Loaded, NewRecord, Record, UpdateLog},
    time,
};

/// What became of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is new here, with an epoch of its own.
    Imported,
    /// A document that was there has got what it did not have. Its epoch is what it was.
    Merged,
    /// All of it was there already.
    Unchanged,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Imported => "imported",
            Self::Merged => "merged",
            Self::Unchanged => "unchanged",
        })
    }
}

/// How documents are stored.
#[derive(Debug)]
pub struct Store<'a> {
    /// Where. Nobody else writes it meanwhile.
    pub log: &'a dyn UpdateLog,
    /// The largest document, encoded as one yrs v1 update, in bytes.
    pub document_bytes_max: usize,
    /// Whether a document that is there gets what it does not have; else it is refused.
    pub merge: bool,
    /// Only say what would become of it.
    pub dry_run: bool,
}

impl Store<'_> {
    /// Stores `prepared` as `document`. Durable when it returns, and read again. A document that is
    /// there without an update, as one is that somebody has opened and left, is filled.
    ///
    /// # Errors
    ///
    /// Why the document was not stored. Then nothing of it was, but for its name and an epoch if the
    /// log failed in between, which the next time fills; with [`AppendError::Unavailable`] it is not
    /// known whether it was.
    ///
    /// # Cancellation
    ///
    /// The document may be stored all the same.
    pub async fn store(
        &self,
        document: &DocumentId,
        prepared: &Prepared,
    ) -> Result<Outcome, StoreError> {
        let there = self.log.load(document).await?;
        let (expected, outcome) = match &there {
            None => (prepared.state().clone(), Outcome::Imported),
            Some(loaded) => {
                let Some(state) = fit(&open(loaded)?, prepared)? else {
                    return Ok(Outcome::Unchanged);
                };
                if loaded.head() == Sequence::ZERO {
                    (state, Outcome::Imported)
                } else if !self.merge {
                    return Err(Refusal::Exists.into());
                } else if state.len() > self.document_bytes_max {
                    let (bytes, bytes_max) = (state.len(), self.document_bytes_max);
                    let key = "room.document_bytes_max";
                    return Err(Refusal::TooLarge { bytes, bytes_max, key }.into());
                } else {
                    (state, Outcome::Merged)
                }
            }
        };
        if self.dry_run {
            return Ok(outcome);
        }
        self.write(document, prepared, there.is_none()).await?;
        let loaded = self.log.load(document).await?.ok_or(Refusal::NotReproduced)?;
        if !is_same(&open(&loaded)?.state()?, &expected)? {
            return Err(Refusal::NotReproduced.into());
        }
        Ok(outcome)
    }

    async fn write(
        &self,
        document: &DocumentId,
        prepared: &Prepared,
        create: bool,
    ) -> Result<(), AppendError> {
        // Both are made before either is waited for: calls take effect in the order in which they
        // are made, and one commit can take both.
        let created = create.then(|| self.log.create(document, Epoch::random()));
        let update = NewRecord {
            // Nobody here: who wrote what is in the update is not known.
            principal: Principal::anonymous(),
            session: SessionId::random(),
            update: prepared.state().clone(),
        };
        let append =
            Append { document: document.clone(), time_ms: time::wall_ms(), updates: vec![update] };
        let appended = (!prepared.is_empty()).then(|| self.log.append(append));
        if let Some(created) = created {
            created.await?;
        }
        if let Some(appended) = appended {
            appended.await?;
        }
        Ok(())
    }
}

/// The document that is stored.
///
/// # Errors
///
/// yrs does not bear it.
pub fn open(loaded: &Loaded) -> Result<Document, Fault> {
    let checkpoint = loaded.checkpoint.as_ref().map(|checkpoint| &checkpoint.state[..]);
    let tail = loaded.tail.iter();
    let tail = tail.map(|Record { principal, update, .. }| Logged { author: principal, update });
    Document::load(checkpoint, tail)
}

/// What `there` (which is not changed) would be with `prepared` in it, as a Yjs v1 update; `None`
/// when it has all of it.
///
/// # Errors
///
/// The two cannot be put together.
pub fn fit(there: &Document, prepared: &Prepared) -> Result<Option<Bytes>, Refusal> {
    let before = there.state()?;
    let mut together = Document::of(&before)?;
    let update = prepared.state();
    let scan = validate::update(update);
    let scan = scan.map_err(|source| Refusal::Malformed { source, hint: "" })?;
    let mut batch = Batch::default();
    if !together.check(&mut batch, update, &scan, ANYBODY)?? {
        return Ok(None);
    }
    together.apply(&mut batch)?;
    let after = together.state()?;
    Ok((!is_same(&before, &after)?).then_some(after))
}
