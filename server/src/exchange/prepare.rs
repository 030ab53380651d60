//! Makes one document of what is stored of it, if it is sound and complete.

use bytes::Bytes;

use super::error::Refusal;
use crate::crdt::{
    Author, Batch, Document, Quotas, Rejection, Terms, is_same,
    validate::{self, Scan},
};

/// Documents come in whole, and nobody is known to have written them.
pub(super) const ANYBODY: Terms<'static> =
    Terms { author: Author::NOBODY, only_root: None, quotas: &Quotas::NONE, is_difference: false };

/// How many updates are applied in one transaction: above, yrs gets slower for each of them.
const BATCH_UPDATES: usize = 1000;

/// How often those updates are tried again that came before what they depend on. Servers store
/// updates in an order in which they can be applied, so that more than one time is rare.
const ROUNDS_MAX: usize = 100;

/// A document that can be stored.
#[derive(Clone, Debug)]
pub struct Prepared {
    state: Bytes,
    empty: bool,
}

impl Prepared {
    /// The whole document as one Yjs v1 update, which was loaded once and found to be the same.
    #[must_use]
    pub fn state(&self) -> &Bytes {
        &self.state
    }

    /// There is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.empty
    }
}

/// Checks updates (Yjs v1) as if they came from a client, and applies them to an empty document,
/// which may have `bytes_max` bytes.
///
/// # Errors
///
/// Why there is no such document.
pub fn prepare(updates: &[Bytes], bytes_max: usize) -> Result<Prepared, Refusal> {
    let scans = updates.iter().map(|update| Ok((update, scan(update)?)));
    let mut waiting = scans.collect::<Result<Vec<_>, Refusal>>()?;
    let mut document = Document::new();
    for round in 1.. {
        let (mut batch, mut later, mut missing) = (Batch::default(), Vec::new(), None);
        let before = waiting.len();
        for (update, scan) in waiting {
            let mut checked = document.check(&mut batch, update, &scan, ANYBODY)?;
            if checked == Err(Rejection::Full) {
                document.apply(&mut std::mem::take(&mut batch))?;
                checked = document.check(&mut batch, update, &scan, ANYBODY)?;
            }
            match checked {
                Ok(_) if batch.len() < BATCH_UPDATES => {}
                Ok(_) => drop(document.apply(&mut std::mem::take(&mut batch))?),
                Err(Rejection::Incomplete(incomplete)) => {
                    missing = missing.or(Some(incomplete));
                    later.push((update, scan));
                }
                Err(rejection) => return Err(rejection.into()),
            }
        }
        document.apply(&mut batch)?;
        match missing {
            None => break,
            Some(incomplete) if later.len() == before || round == ROUNDS_MAX => {
                return Err(incomplete.into());
            }
            Some(_) => waiting = later,
        }
    }
    let state = document.state()?;
    if state.len() > bytes_max {
        let key = "room.document_bytes_max";
        return Err(Refusal::TooLarge { bytes: state.len(), bytes_max, key });
    }
    let reloaded = Document::of(&state)?;
    if !is_same(&reloaded.state()?, &state)? || reloaded.state_vector() != document.state_vector() {
        return Err(Refusal::NotReproduced);
    }
    let empty = *state == [0, 0];
    Ok(Prepared { state, empty })
}

fn scan(update: &[u8]) -> Result<Scan, Refusal> {
    validate::update(update).map_err(|source| {
        // Version 2 begins with a 0, which version 1 only does where nothing was inserted.
        let hint = if update.len() > 2 && update.first() == Some(&0) {
            " (version 2? Y.convertUpdateFormatV2ToV1 makes a v1 update of it)"
        } else {
            ""
        };
        Refusal::Malformed { source, hint }
    })
}
