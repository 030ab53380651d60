//! Which rooms there are: loads each document once, and forgets rooms that ended.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use dashmap::{DashMap, Entry};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::{
    Command, Join, RoomHandle,
    actor::{Ended, LoadFailed, Room},
    config::Config,
    error::CloseReason,
};
use crate::{
    ids::{DocumentId, Sequence},
    log::{DocumentSummary, LogState, Quarantine, Quarantined, UpdateLog},
    metrics::RoomMetrics,
    shutdown::Tasks,
};

/// A document in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The document.
    pub document: DocumentId,
    /// Its last durable update.
    pub head: Sequence,
    /// How many sessions are in it now.
    pub sessions: usize,
}

/// How often a join is tried on a room that is just ending. Each try meets another room, so that a
/// second one is almost always enough.
const TRIES: usize = 10;

/// The rooms of this server. Cheap to clone; clones are the same registry.
#[derive(Clone, Debug)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Arc<Config>,
    log: Arc<dyn UpdateLog>,
    quarantine: Quarantine,
    log_state: watch::Receiver<LogState>,
    metrics: RoomMetrics,
    tasks: Tasks,
    rooms: DashMap<DocumentId, Known>,
    /// Rooms in memory, counted apart: the length of the map may not be asked for inside of it.
    count: AtomicUsize,
    generation: AtomicU64,
}

#[derive(Debug)]
enum Known {
    /// The room is there, or on its way.
    Open { handle: RoomHandle, generation: u64 },
    /// The document faulted on an update: the next room takes updates one by one.
    Faulted,
    /// The document faults whenever it is loaded.
    Quarantined,
}

impl Registry {
    /// A registry without rooms, whose rooms run in `tasks`.
    #[must_use]
    pub fn new(
        config: Config,
        log: Arc<dyn UpdateLog>,
        quarantine: Quarantine,
        metrics: RoomMetrics,
        tasks: Tasks,
    ) -> Self {
        let rooms = DashMap::new();
        for Quarantined { document, reason, .. } in quarantine.list() {
            tracing::error!(%document, reason, "the document is in quarantine: see cowrite repair");
            metrics.quarantined.inc();
            rooms.insert(document, Known::Quarantined);
        }
        let inner = Inner {
            config: Arc::new(config),
            log_state: log.state(),
            log,
            quarantine,
            metrics,
            tasks,
            rooms,
            count: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Takes a session into the room of `document`, which is loaded if it is not there. When this
    /// returns, the initial state is in the session's outbox.
    ///
    /// # Errors
    ///
    /// Why the session cannot join.
    ///
    /// # Cancellation
    ///
    /// The session may be in the room until its room finds that nobody waits.
    pub async fn join(&self, document: &DocumentId, join: Join) -> Result<RoomHandle, CloseReason> {
        let mut join = Box::new(join);
        for _ in 0..TRIES {
            let handle = self.room(document)?;
            let (reply, outcome) = oneshot::channel();
            match handle.mailbox.send(Command::Join { join, reply }).await {
                Ok(()) => {}
                Err(mpsc::error::SendError(Command::Join { join: again, .. })) => {
                    // The room ended between the look-up and now.
                    join = again;
                    tokio::task::yield_now().await;
                    continue;
                }
                Err(_) => return Err(CloseReason::RoomRestarted),
            }
            return match outcome.await {
                Ok(Ok(())) => Ok(handle),
                Ok(Err(reason)) => Err(reason),
                // It ended with the join in its mailbox; the client comes back.
                Err(_) => Err(CloseReason::RoomRestarted),
            };
        }
        Err(CloseReason::RoomRestarted)
    }

    /// How many sessions are in `document` now.
    #[must_use]
    pub fn sessions(&self, document: &DocumentId) -> usize {
        match self.inner.rooms.get(document).as_deref() {
            Some(Known::Open { handle, .. }) => handle.sessions.load(Ordering::Relaxed),
            Some(Known::Faulted | Known::Quarantined) | None => 0,
        }
    }

    /// Documents in the order of their ids, after `after`, at most `limit`.
    #[must_use]
    pub fn list(&self, after: Option<&DocumentId>, limit: usize) -> Vec<Listed> {
        let listed = self.inner.log.list(after, limit).into_iter();
        let listed = listed.map(|DocumentSummary { document, head }| {
            let sessions = self.sessions(&document);
            Listed { document, head, sessions }
        });
        listed.collect()
    }

    /// Whether the log takes appends.
    #[must_use]
    pub fn log_state(&self) -> LogState {
        *self.inner.log_state.borrow()
    }

    /// How many rooms are in memory.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.count.load(Ordering::Relaxed)
    }

    /// No room is in memory.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The settings of the rooms.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    fn room(&self, document: &DocumentId) -> Result<RoomHandle, CloseReason> {
        let inner = &self.inner;
        if let Some(known) = inner.rooms.get(document) {
            match known.value() {
                Known::Open { handle, .. } if handle.is_open() => return Ok(handle.clone()),
                Known::Quarantined => return Err(CloseReason::Quarantined),
                Known::Open { .. } | Known::Faulted => {}
            }
        }
        let mut slot = inner.rooms.entry(document.clone());
        let careful = match &mut slot {
            Entry::Occupied(known) => match known.get() {
                Known::Open { handle, .. } if handle.is_open() => return Ok(handle.clone()),
                Known::Quarantined => return Err(CloseReason::Quarantined),
                Known::Open { .. } => false,
                Known::Faulted => true,
            },
            Entry::Vacant(_) => false,
        };
        let max = inner.config.rooms_max;
        if inner.count.fetch_add(1, Ordering::Relaxed) >= max {
            inner.count.fetch_sub(1, Ordering::Relaxed);
            return Err(CloseReason::TooManyRooms(max));
        }
        inner.metrics.rooms.inc();
        let generation = inner.generation.fetch_add(1, Ordering::Relaxed);
        let (sender, mailbox) = mpsc::channel(inner.config.mailbox_items_max);
        let permits = usize::try_from(inner.config.mailbox_bytes_max).unwrap_or(usize::MAX);
        let handle = RoomHandle {
            mailbox: sender,
            bytes: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
            config: Arc::clone(&inner.config),
            sessions: Arc::default(),
        };
        slot.insert(Known::Open { handle: handle.clone(), generation });
        let room = Room {
            id: document.clone(),
            config: Arc::clone(&inner.config),
            log: Arc::clone(&inner.log),
            quarantine: inner.quarantine.clone(),
            metrics: inner.metrics.clone(),
            tasks: inner.tasks.clone(),
            mailbox,
            sessions: Arc::clone(&handle.sessions),
            careful,
        };
        let registered = Registered { registry: self.clone(), id: document.clone(), generation };
        inner.tasks.spawn(async move {
            let ended = room.run().await;
            registered.ended(&ended);
        });
        Ok(handle)
    }
}

/// The entry of a room that runs. Dropped, it is as if nothing was known of the document.
struct Registered {
    registry: Registry,
    id: DocumentId,
    generation: u64,
}

impl Registered {
    fn ended(self, ended: &Ended) {
        let after = match ended {
            Ended::Idle | Ended::Append | Ended::Load(LoadFailed::Log(_)) => None,
            Ended::Fault => Some(Known::Faulted),
            Ended::Load(LoadFailed::Fault(fault)) => {
                let inner = &self.registry.inner;
                inner.metrics.quarantined.inc();
                tracing::error!(document = %self.id, %fault, "document quarantined");
                Some(Known::Quarantined)
            }
        };
        if let Ended::Load(LoadFailed::Log(error)) = ended {
            tracing::error!(document = %self.id, %error, "loading the document failed");
        }
        if let Some(after) = after
            && let Entry::Occupied(mut entry) = self.registry.inner.rooms.entry(self.id.clone())
            && is_generation(entry.get(), self.generation)
        {
            entry.insert(after);
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let inner = &self.registry.inner;
        inner.count.fetch_sub(1, Ordering::Relaxed);
        inner.metrics.rooms.dec();
        inner.rooms.remove_if(&self.id, |_, known| is_generation(known, self.generation));
    }
}

fn is_generation(known: &Known, generation: u64) -> bool {
    matches!(known, Known::Open { generation: g, .. } if *g == generation)
}
