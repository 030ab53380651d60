//! Rooms: the live gathering for one document.
//!
//! A room has one owner task, which takes updates from sessions in batches, applies them, appends
//! them to the log, and only then acknowledges them and passes them on. Nothing that could be lost
//! leaves a room: while a batch is being written, those who want the state of the document wait.

mod actor;
mod awareness;
mod config;
mod error;
mod outbox;
mod registry;
mod state;

use std::sync::{Arc, atomic::AtomicUsize};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

pub use self::{
    awareness::AwarenessState,
    config::Config,
    error::{CloseReason, RefuseReason},
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
}

enum Command {
    Join { join: Box<Join>, reply: oneshot::Sender<Result<(), CloseReason>> },
    Update(Incoming),
    Awareness { session: SessionId, state: Bytes },
    Leave { session: SessionId, done: oneshot::Sender<()> },
}

/// An update in the mailbox of a room.
#[derive(Debug)]
struct Incoming {
    session: SessionId,
    update_id: u64,
    update: CheckedUpdate,
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
    ) -> Result<(), CloseReason> {
        let arrived = crate::time::now();
        let bytes = self.config.mailbox_charge(update.bytes.len());
        let free = Arc::clone(&self.bytes);
        // The way without waiting first: it sets no timer.
        let permit = match Arc::clone(&free).try_acquire_many_owned(bytes) {
            Ok(permit) => permit,
            Err(_) => self.in_time(free.acquire_many_owned(bytes)).await?,
        };
        let incoming = Incoming { session, update_id, update, arrived, _permit: permit };
        self.send(Command::Update(incoming)).await
    }

    /// Hands an awareness state to the room (JSON, of checked structure; empty for none). It is
    /// dropped while the room is busy: only the latest state counts, and there will be another.
    pub fn awareness(&self, session: SessionId, state: Bytes) {
        // Full or gone: see above.
        drop(self.mailbox.try_send(Command::Awareness { session, state }));
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
                self.in_time(self.mailbox.send(command)).await
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
            Self::Leave { .. } => "Leave",
        })
    }
}
