//! What can go wrong with the log, as far as callers decide by it.

use std::{io, path::PathBuf};

use crate::ids::{DocumentId, Sequence};

/// An append that was not made durable.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The disk is full. Nothing of the append was kept.
    #[error("the disk of the log is full")]
    Full,
    /// The log has failed or is closed. Whether the append is on disk is not known: it may be there
    /// after a restart.
    #[error("the log cannot be written")]
    Unavailable,
    /// There is no such document. Nothing was kept.
    #[error("document {0} is not in the log")]
    Unknown(DocumentId),
    /// There is such a document already. Nothing was kept.
    #[error("document {0} is in the log already")]
    Exists(DocumentId),
    /// A checkpoint that is not newer than the stored one, or newer than the log.
    #[error("a checkpoint of document {document} at {checkpoint} does not fit its log at {head}")]
    Checkpoint {
        /// The document.
        document: DocumentId,
        /// The sequence of the refused checkpoint.
        checkpoint: Sequence,
        /// The last durable sequence.
        head: Sequence,
    },
}

/// A document that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// What is stored is damaged. The files are left as they are.
    #[error("document {document} is damaged in the log: {what}")]
    Corrupt {
        /// The document.
        document: DocumentId,
        /// What was found.
        what: String,
    },
    /// The files could not be read.
    #[error("read document {document} from the log")]
    Io {
        /// The document.
        document: DocumentId,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A log that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file could not be read or written.
    #[error("open the log: {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The catalogue could not be opened.
    #[error("open the catalogue of the log: {path}")]
    Catalogue {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: rusqlite::Error,
    },
    /// What is stored contradicts itself in a way that no single document can be blamed for.
    #[error("the log is damaged: {path}: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// Another process has the log open.
    #[error("the log in {path} is in use by another process: stop it, or give another --data")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The log was written by a version that this one does not know.
    #[error("the log in {path} has the format {found}, this version reads {known}")]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The format that is known.
        known: u32,
    },
}
