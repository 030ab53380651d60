//! What can go wrong with a document in memory, as far as callers decide by it.

use super::{outline::Excess, validate::Malformed};

/// An update that a document does not take, because it depends on structs that are not there. The
/// document is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the update needs clock {clock} of client {client}, which the document does not have")]
pub struct Incomplete {
    /// Whose structs.
    pub client: u64,
    /// The first one that is missing, or one after it.
    pub clock: u32,
}

/// Why a document does not take an update. The document is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It lacks something.
    #[error(transparent)]
    Incomplete(#[from] Incomplete),
    /// It breaks a rule that shows with the document at hand.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It has edits under a client id that is somebody else's.
    #[error("the update has edits of client {0}, which is somebody else's")]
    Taken(u64),
    /// It changes something else than comments.
    #[error("the update changes more than comments")]
    NoComment,
    /// There would be too much of something.
    #[error(transparent)]
    Excess(Excess),
    /// It may be taken, but not in one batch with those before it.
    #[error("the batch is full")]
    Full,
}

/// yrs panicked or broke a promise: what the document in memory holds is not known any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fault in the document: {what}")]
pub struct Fault {
    /// What was seen. For logs; no content is in it.
    pub what: String,
}

impl Fault {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}
