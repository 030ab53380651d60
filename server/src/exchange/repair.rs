//! Looks for what makes a document fail when it is loaded, and makes it anew without that.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufRead as _, BufReader, BufWriter, Write as _},
    path::Path,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::prepare::ANYBODY;
use crate::{
    crdt::{Batch, Document, Fault, Logged, validate},
    ids::{DocumentId, Epoch, Principal, Sequence, SessionId},
    log::{Append, AppendError, Checkpoint, Loaded, NewRecord, Record, UpdateLog},
};

/// The most bytes of records in one append.
const APPEND_BYTES: usize = 4 << 20;

/// A document that is built up from its log one record at a time, as if each came from a client. It
/// may take the whole process with it: see the command `repair`.
#[derive(Debug)]
pub struct Probe {
    document: Document,
    /// Encode the document after each record, which finds the one that makes that fail.
    encodes: bool,
}

impl Probe {
    /// Begins with a checkpoint, if there is one.
    ///
    /// # Errors
    ///
    /// The checkpoint faults.
    pub fn new(checkpoint: Option<&[u8]>, encodes: bool) -> Result<Self, Fault> {
        let document = Document::load(checkpoint, std::iter::empty::<Logged<'_>>())?;
        Ok(Self { document, encodes })
    }

    /// Takes the next record (yrs v1 update).
    ///
    /// # Errors
    ///
    /// In the inner result, the rule that it breaks: it was left out. In the outer one, it faults, and
    /// nothing more can be taken.
    pub fn take(&mut self, update: &Bytes) -> Result<Result<(), String>, Fault> {
        let scan = match validate::update(update) {
            Ok(scan) => scan,
            Err(malformed) => return Ok(Err(malformed.to_string())),
        };
        let mut batch = Batch::default();
        if let Err(rejection) = self.document.check(&mut batch, update, &scan, ANYBODY)? {
            return Ok(Err(rejection.to_string()));
        }
        self.document.apply(&mut batch)?;
        if self.encodes {
            self.document.state()?;
        }
        Ok(Ok(()))
    }

    /// Does with the document what a room does with it.
    ///
    /// # Errors
    ///
    /// That faults.
    pub fn finish(self) -> Result<(), Fault> {
        let parts = self.document.checkpoint_parts()?;
        match crate::crdt::faithful_checkpoint(&parts)? {
            Some(_) => Ok(()),
            None => Err(Fault { what: "a checkpoint does not reproduce the document".to_owned() }),
        }
    }
}

/// A copy of what the log has of a document, as lines of JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    document: String,
    checkpoint: Option<HeadCheckpoint>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeadCheckpoint {
    sequence: u64,
    state: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    sequence: u64,
    time_ms: u64,
    principal: String,
    session: String,
    update: String,
}

/// Writes all that the log has of a document into a new file, durably. Blocks.
///
/// # Errors
///
/// The file is there, or cannot be written.
pub fn back_up(path: &Path, document: &DocumentId, loaded: &Loaded) -> io::Result<()> {
    let mut out = BufWriter::new(File::create_new(path)?);
    let checkpoint = loaded.checkpoint.as_ref().map(|checkpoint| HeadCheckpoint {
        sequence: checkpoint.sequence.0,
        state: BASE64_STANDARD.encode(&checkpoint.state),
    });
    let head = Head { document: document.to_string(), checkpoint };
    writeln!(out, "{}", serde_json::to_string(&head)?)?;
    for record in &loaded.tail {
        let line = Line {
            sequence: record.sequence.0,
            time_ms: record.time_ms,
            principal: record.principal.as_str().to_owned(),
            session: record.session.to_string(),
            update: BASE64_STANDARD.encode(&record.update),
        };
        writeln!(out, "{}", serde_json::to_string(&line)?)?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    super::sync(path.parent().unwrap_or(Path::new(".")))
}

/// Reads what [`back_up`] wrote. Blocks.
///
/// # Errors
///
/// The file cannot be read, or is something else.
pub fn read_back_up(path: &Path) -> io::Result<(DocumentId, Loaded)> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let decode =
        |text: &str| BASE64_STANDARD.decode(text).map(Bytes::from).map_err(io::Error::other);
    let mut lines = BufReader::new(File::open(path)?).lines();
    let head: Head = serde_json::from_str(&lines.next().ok_or_else(|| wrong("it is empty"))??)?;
    let document = DocumentId::parse(&head.document).map_err(io::Error::other)?;
    let checkpoint = head.checkpoint.map(|HeadCheckpoint { sequence, state }| {
        Ok::<_, io::Error>(Checkpoint { sequence: Sequence(sequence), state: decode(&state)? })
    });
    let tail = lines.map(|line| {
        let line: Line = serde_json::from_str(&line?)?;
        Ok(Record {
            sequence: Sequence(line.sequence),
            time_ms: line.time_ms,
            principal: Principal::new(&line.principal).ok_or_else(|| wrong("a principal"))?,
            session: SessionId::parse(&line.session).ok_or_else(|| wrong("a session"))?,
            update: decode(&line.update)?,
        })
    });
    let tail = tail.collect::<io::Result<Vec<_>>>()?;
    Ok((document, Loaded { epoch: Epoch([0; 16]), checkpoint: checkpoint.transpose()?, tail }))
}

/// Makes `document` anew in the log from what was `loaded` of it, without the records in `without`,
/// and with an epoch of its own, because its history is another one. What is there of it is removed
/// first: [`back_up`] comes before this.
///
/// # Errors
///
/// The log failed, and the document is not there or not all of it: this can be done again.
///
/// # Cancellation
///
/// As after a failure.
pub async fn rebuild(
    log: &dyn UpdateLog,
    document: &DocumentId,
    loaded: &Loaded,
    without: &BTreeSet<Sequence>,
) -> Result<(), RebuildError> {
    if log.load(document).await.is_ok_and(|there| there.is_some()) {
        log.delete(document).await?;
    }
    log.create(document, Epoch::random()).await?;
    let mut appends: Vec<Append> = Vec::new();
    let mut add = |time_ms: u64, new: NewRecord| match appends.last_mut() {
        Some(last)
            if last.time_ms == time_ms
                && last.updates.iter().map(|u| u.update.len()).sum::<usize>() < APPEND_BYTES =>
        {
            last.updates.push(new);
        }
        _ => appends.push(Append { document: document.clone(), time_ms, updates: vec![new] }),
    };
    if let Some(checkpoint) = &loaded.checkpoint {
        let state = Document::load(Some(&checkpoint.state), std::iter::empty::<Logged<'_>>())?;
        let (principal, session) = (Principal::anonymous(), SessionId::random());
        let first = loaded.tail.first().map_or(0, |record| record.time_ms);
        add(first, NewRecord { principal, session, update: state.state()? });
    }
    for record in loaded.tail.iter().filter(|record| !without.contains(&record.sequence)) {
        let Record { principal, session, update, .. } = record.clone();
        add(record.time_ms, NewRecord { principal, session, update });
    }
    for append in appends {
        log.append(append).await?;
    }
    if let Some(Checkpoint { state, .. }) = &loaded.checkpoint {
        // The first record is what it stands for; it also says whose the client ids are.
        let checkpoint = Checkpoint { sequence: Sequence(1), state: state.clone() };
        log.put_checkpoint(document, checkpoint).await?;
    }
    Ok(())
}

/// A document that was not made anew.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] AppendError),
    /// Its checkpoint faults.
    #[error(transparent)]
    Fault(#[from] Fault),
}
