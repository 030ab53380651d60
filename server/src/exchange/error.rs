//! What can go wrong when documents come from elsewhere, as far as callers decide by it.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    crdt::{Fault, Incomplete, Rejection, validate::Malformed},
    ids::DocumentIdError,
    log::{AppendError, LoadError},
};

/// A source that cannot be read, or not any further.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file could not be read.
    #[error("read {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The source is open elsewhere.
    #[error("{path} is in use by another process: stop it first")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// What is stored contradicts itself.
    #[error("{path} is damaged, or is something else: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: &'static str,
    },
    /// The database could not be read.
    #[error("read the database {path}")]
    Database {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
}

impl SourceError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(super) fn damaged(path: &Path, what: &'static str) -> Self {
        Self::Damaged { path: path.to_owned(), what }
    }
}

/// Why one document is not taken. The others are not concerned.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It has a name that is not a document id.
    #[error(transparent)]
    Name(#[from] DocumentIdError),
    /// Its name is not text.
    #[error("the name is not UTF-8")]
    NotText,
    /// It is not in the form that is read.
    #[error("not a Yjs v1 update: {source}{hint}")]
    Malformed {
        /// The rule that is broken.
        source: Malformed,
        /// What may help.
        hint: &'static str,
    },
    /// What is stored depends on edits that are not stored.
    #[error(
        "edits are missing that others depend on ({0}): open it where it comes from, wait until it \
         is complete, and store it again"
    )]
    Incomplete(#[from] Incomplete),
    /// It cannot be a document for another reason.
    #[error("{0}")]
    Rejected(Rejection),
    /// It has more bytes than a document may have.
    #[error("{bytes} bytes, more than the limit of {bytes_max} ({key})")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
        /// The setting.
        key: &'static str,
    },
    /// There is a document of this name with other content.
    #[error("there is such a document already, with other content: see --merge")]
    Exists,
    /// What is stored in its place is not what an update is.
    #[error("{0}")]
    Wrong(&'static str),
    /// yrs does not bear it.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// What was stored, read again, is something else.
    #[error("read again, it is not what was written")]
    NotReproduced,
    /// The server that it was to go to does not take it.
    #[error("the server: {0}")]
    Server(String),
    /// The document of this name that is there cannot be read.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Incomplete(incomplete) => incomplete.into(),
            Rejection::Malformed(source) => Self::Malformed { source, hint: "" },
            other @ (Rejection::Taken(_)
            | Rejection::NoComment
            | Rejection::Excess(_)
            | Rejection::Full) => Self::Rejected(other),
        }
    }
}

impl Refusal {
    /// What is stored of a document has more than `bytes_max` bytes.
    pub(super) fn stored(bytes: usize, bytes_max: usize) -> Self {
        Self::TooLarge { bytes, bytes_max, key: "16 times room.document_bytes_max" }
    }
}

/// A document that was not stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// This document was not.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nothing can be stored any more.
    #[error(transparent)]
    Log(#[from] AppendError),
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        Self::Refused(fault.into())
    }
}

impl From<LoadError> for StoreError {
    fn from(error: LoadError) -> Self {
        Self::Refused(error.into())
    }
}
