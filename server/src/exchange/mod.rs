//! Documents from elsewhere, and for elsewhere: what other Yjs servers have stored is read, checked
//! and stored as documents of ours; and documents are written to files.
//!
//! A source is only read, from its beginning to its end, one document at a time. What it holds is as
//! little trusted as what a client sends: [`prepare`] puts it through the same structural check, and
//! takes only what is complete. A document is stored by one append of its whole state, so that it is
//! there as a whole or not at all.

mod error;
mod files;
mod hocuspocus;
mod leveldb;
mod names;
mod prepare;
mod repair;
mod store;
#[cfg(test)]
mod tests;
mod y_leveldb;

use std::fmt;

use bytes::Bytes;

pub use self::{
    error::{Refusal, SourceError, StoreError},
    files::{ExportedFiles, UpdateFile, file_name, sync, write},
    hocuspocus::Hocuspocus,
    names::Naming,
    prepare::{Prepared, prepare},
    repair::{Probe, RebuildError, back_up, read_back_up, rebuild},
    store::{Outcome, Store, fit, open},
    y_leveldb::YLevelDb,
};

/// How many times the size of the largest document what is stored of it may have: every keystroke of
/// a long text is some 20 times the text.
const STORED_FACTOR: usize = 16;

/// What other servers have stored.
pub trait Source: fmt::Debug {
    /// The next document; `None` at the end.
    ///
    /// # Errors
    ///
    /// The source cannot be read any further.
    fn next(&mut self) -> Result<Option<Found>, SourceError>;
}

/// A document in a source.
#[derive(Debug)]
pub struct Found {
    /// Its name there.
    pub name: String,
    /// Yjs v1 updates, in the order in which they were stored; not checked yet.
    pub content: Result<Vec<Bytes>, Refusal>,
}
