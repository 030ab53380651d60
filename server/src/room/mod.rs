//! Rooms: the live gathering for one document.
//!
//! A room has one owner task, which takes updates from sessions in batches, applies them, appends
//! them to the log, and only then acknowledges them and passes them on. Nothing that could be lost
//! leaves a room: while a batch is being written, those who want the state of the document wait.

mod actor;
mod awareness;
mod catch_up;
mod config;
mod error;
mod held;
mod memory;
mod outbox;
mod registry;
mod state;

use std::sync::{Arc, atomic::AtomicUsize};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

pub use self::{
    awareness::AwarenessState,
    config::Config,
    error::{CloseReason, RefuseReason, Remedy},
    outbox::{Chunk, End, Event, Joined, Outbox, OutboxLimits, Shared, Update, WIRE_FORMATS},
    registry::{Listed, Registry},
};
use crate::{
    auth::Grant,
    crdt::validate::{Malformed, Scan},
    ids::{Epoch, Sequence, SessionId},
    time::Instant,
};
pub use crate::{crdt::validate, log::LogState};

/// An update whose structure was checked, on its way to a room.
#[derive(Debug)]
pub struct CheckedUpdate {
    bytes: Bytes,
    scan: Scan,
}

impl CheckedUpdate {
    /// Checks the structure of a yrs v1 update.
    ///
    /// # Errors
    ///
    /// The rule that it breaks.
    pub fn new(bytes: Bytes) -> Result<Self, Malformed> {
        let scan = validate::update(&bytes)?;
        Ok(Self { bytes, scan })
    }

    /// How many structs and ranges of deletions it has.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.scan.parts
    }
}

/// A session that wants to take part.
#[derive(Debug)]
pub struct Join {
    /// The session.
    pub session: SessionId,
    /// Who it is, and what it may do.
    pub grant: Grant,
    /// Where its events go.
    pub outbox: Arc<Outbox>,
    /// What the client has (yrs v1 state vector, of checked structure); empty for nothing.
    pub state_vector: Bytes,
    /// Which history the client's state belongs to.
    pub epoch: Option<Epoch>,
    /// The last frame that the client has applied.
    pub resume: Option<Sequence>,
    /// The Yjs client id of its awareness state.
    pub awareness_client_id: Option<u64>,
    /// Whose rules the client keeps.
    pub rules: Rules,
}

/// Whose rules a client keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rules {
    /// Ours: the difference follows the join, an update that is not complete ends the session, and
    /// the Yjs client id is known from the join.
    #[default]
    Cowrite,
    /// Those of Yjs providers: a difference is sent whenever one is asked for, what is typed can
    /// arrive before what was typed offline and is held until then, and the Yjs client id is that of
    /// the first awareness state.
    Yjs,
}

/// An awareness state on its way to a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Of the client id that the join has named: JSON, of checked structure; empty for none.
    Own(Bytes),
    /// Of a Yjs client that gives its own clocks, and may repeat what it has heard of others.
    Yjs(AwarenessState),
}

/// What is known of an update besides its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpdateKind {
    /// It answers a state vector: it has the deletions of the whole document in it, and mostly
    /// brings nothing.
    pub is_difference: bool,
    /// Its session may not write: it is refused if it brings anything.
    pub is_denied: bool,
    /// Its session may only comment: it is refused if it changes anything else.
    pub is_comment: bool,
}

enum Command {
    Join { join: Box<Join>, reply: oneshot::Sender<Result<(), CloseReason>> },
    Update(Incoming),
    Awareness { session: SessionId, presence: Presence },
    Sync { session: SessionId, state_vector: Bytes },
    Leave { session: SessionId, done: oneshot::Sender<()> },
}

/// An update in the mailbox of a room.
#[derive(Debug)]
struct Incoming {
    session: SessionId,
    update_id: u64,
    update: CheckedUpdate,
    kind: UpdateKind,
    arrived: Instant,
    /// Its bytes of the mailbox, given back when it is applied.
    _permit: OwnedSemaphorePermit,
}

/// A room, as those see it who talk to it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RoomHandle {
    mailbox: mpsc::Sender<Command>,
    /// Bytes that are free in the mailbox.
    bytes: Arc<Semaphore>,
    config: Arc<Config>,
    /// How many sessions are in it.
    sessions: Arc<AtomicUsize>,
    /// What it takes of the memory.
    place: Arc<memory::Place>,
}

impl RoomHandle {
    /// Hands an update to the room. The acknowledgement comes through the session's outbox; so does
    /// the end of the session, if the update does not fit the document.
    ///
    /// # Errors
    ///
    /// [`CloseReason::Busy`] if the room did not take it within `room.mailbox_wait`;
    /// [`CloseReason::RoomRestarted`] if the room is gone.
    ///
    /// # Cancellation
    ///
    /// The update was not handed over.
    pub async fn update(
        &self,
        session: SessionId,
        update_id: u64,
        update: CheckedUpdate,
        kind: UpdateKind,
    ) -> Result<(), CloseReason> {
        let arrived = crate::time::now();
        let bytes = self.config.mailbox_charge(update.bytes.len());
        let free = Arc::clone(&self.bytes);
        // The way without waiting first: it sets no timer.
        let permit = match Arc::clone(&free).try_acquire_many_owned(bytes) {
            Ok(permit) => permit,
            // In boxes, where it waits: a session has the room of its largest step all the time.
            Err(_) => Box::pin(self.in_time(free.acquire_many_owned(bytes))).await?,
        };
        let incoming = Incoming { session, update_id, update, kind, arrived, _permit: permit };
        self.send(Command::Update(incoming)).await
    }

    /// Hands an awareness state to the room. It is dropped while the room is busy: only the latest
    /// state counts, and there will be another.
    pub fn awareness(&self, session: SessionId, presence: Presence) {
        // Full or gone: see above.
        drop(self.mailbox.try_send(Command::Awareness { session, presence }));
    }

    /// Asks for what somebody with this state vector (yrs v1, of checked structure) lacks. It comes
    /// through the session's outbox; of several requests that wait, the last is answered.
    ///
    /// # Errors
    ///
    /// As for [`Self::update`].
    ///
    /// # Cancellation
    ///
    /// The request was not handed over.
    pub async fn sync(&self, session: SessionId, state_vector: Bytes) -> Result<(), CloseReason> {
        self.send(Command::Sync { session, state_vector }).await
    }

    /// Takes the session out of the room, and returns when everything that it sent before has been
    /// acknowledged or refused.
    pub async fn leave(&self, session: SessionId) {
        let (done, left) = oneshot::channel();
        if self.mailbox.send(Command::Leave { session, done }).await.is_ok() {
            // An error means that the room is gone, and the session with it.
            drop(left.await);
        }
    }

    /// Whether the room still takes commands.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.mailbox.is_closed()
    }

    async fn send(&self, command: Command) -> Result<(), CloseReason> {
        match self.mailbox.try_send(command) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(CloseReason::RoomRestarted),
            Err(mpsc::error::TrySendError::Full(command)) => {
                Box::pin(self.in_time(self.mailbox.send(command))).await
            }
        }
    }

    async fn in_time<T, E>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, CloseReason> {
        match tokio::time::timeout(self.config.mailbox_wait, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) => Err(CloseReason::RoomRestarted),
            Err(_) => Err(CloseReason::Busy),
        }
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Join { .. } => "Join",
            Self::Update(_) => "Update",
            Self::Awareness { .. } => "Awareness",
            Self::Sync { .. } => "Sync",
            Self::Leave { .. } => "Leave",
        })
    }
}
