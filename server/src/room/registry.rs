//! Which rooms there are: loads each document once, and forgets rooms that ended.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use dashmap::{DashMap, Entry};
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::timeout_at,
};

use super::{
    Command, Join, RoomHandle,
    actor::{Ended, LoadFailed, Room},
    catch_up::CatchUps,
    config::Config,
    error::CloseReason,
    memory::{Memory, PLACE_WAIT, Place},
};
use crate::{
    ids::{DocumentId, Sequence},
    log::{DocumentSummary, LogState, Quarantine, Quarantined, UpdateLog},
    metrics::RoomMetrics,
    shutdown::Tasks,
    time::{self, Duration},
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

/// One part of so many of the rooms, or of the memory, is made free at once.
const EVICTED_PART: usize = 64;

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
    memory: Arc<Memory>,
    catch_ups: Arc<CatchUps>,
    /// Held by the one who looks for rooms to leave memory.
    evicting: Mutex<()>,
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
        let (loads, bytes) = (config.catch_ups_max, config.catch_up_bytes_max);
        let inner = Inner {
            memory: Arc::new(Memory::new(config.memory_bytes_max, metrics.clone())),
            catch_ups: Arc::new(CatchUps::new(loads, bytes, metrics.clone())),
            evicting: Mutex::new(()),
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
    /// returns, the initial state is in the session's outbox. Where there is no place for another
    /// room, those leave in which nobody is.
    ///
    /// # Errors
    ///
    /// Why the session cannot join; [`CloseReason::Busy`] if it could not within `wait`.
    ///
    /// # Cancellation
    ///
    /// The session may be in the room until its room finds that nobody waits.
    pub async fn join(
        &self,
        document: &DocumentId,
        join: Join,
        wait: Duration,
    ) -> Result<RoomHandle, CloseReason> {
        let ends = time::now() + wait;
        let mut join = Box::new(join);
        for _ in 0..TRIES {
            let handle = self.placed(0, || self.room(document)).await?;
            let (reply, mut outcome) = oneshot::channel();
            let sending = handle.mailbox.send(Command::Join { join, reply });
            match timeout_at(ends, sending).await {
                Ok(Ok(())) => {}
                Ok(Err(mpsc::error::SendError(Command::Join { join: again, .. }))) => {
                    // The room ended between the look-up and now.
                    join = again;
                    tokio::task::yield_now().await;
                    continue;
                }
                Ok(Err(_)) => return Err(CloseReason::RoomRestarted),
                Err(_) => return Err(CloseReason::Busy),
            }
            let told = match timeout_at(ends, &mut outcome).await {
                Ok(told) => told.ok(),
                Err(_) => {
                    // The room may have let it in just now; if not, it learns that nobody waits.
                    outcome.close();
                    match outcome.try_recv() {
                        Ok(told) => Some(told),
                        Err(_) => return Err(CloseReason::Busy),
                    }
                }
            };
            return match told {
                Some(Ok(())) => Ok(handle),
                Some(Err(reason)) => Err(reason),
                // It ended with the join in its mailbox; the client comes back.
                None => Err(CloseReason::RoomRestarted),
            };
        }
        Err(CloseReason::RoomRestarted)
    }

    /// Makes `attempt` until it is not for want of place that it fails, while rooms leave; it wants
    /// `more` bytes. Gives up after [`PLACE_WAIT`].
    ///
    /// # Errors
    ///
    /// That of the last attempt.
    pub(super) async fn placed<T>(
        &self,
        more: usize,
        mut attempt: impl FnMut() -> Result<T, CloseReason>,
    ) -> Result<T, CloseReason> {
        let ends = time::now() + PLACE_WAIT;
        loop {
            let mut freed = pin!(self.inner.memory.freed().notified());
            // Before the attempt, so that none that leaves is missed.
            freed.as_mut().enable();
            let reason = match attempt() {
                Ok(placed) => return Ok(placed),
                Err(reason) => reason,
            };
            let is_full = matches!(reason, CloseReason::TooManyRooms(_) | CloseReason::Overloaded);
            if !is_full || !self.evict(more) || timeout_at(ends, freed).await.is_err() {
                return Err(reason);
            }
        }
    }

    /// Asks rooms in which nobody is to leave memory, those first in which nobody has been for
    /// longest, until there is place; returns whether any leaves.
    fn evict(&self, more: usize) -> bool {
        let inner = &self.inner;
        // Somebody is at it already.
        let Some(_evicting) = inner.evicting.try_lock() else { return true };
        let mut empty = Vec::new();
        let (mut leaving, mut leaving_bytes) = (0, 0);
        for known in &inner.rooms {
            let Known::Open { handle, .. } = known.value() else { continue };
            if handle.place.is_asked() {
                leaving += 1;
                leaving_bytes += handle.place.bytes();
            } else if let Some(rank) = handle.place.rank() {
                empty.push((rank, Arc::clone(&handle.place)));
            }
        }
        // Some more than one, because looking at all of them is not for nothing.
        let (rooms_max, bytes_max) = (inner.config.rooms_max, inner.config.memory_bytes_max);
        let rooms = (self.len() + 1 + rooms_max / EVICTED_PART).saturating_sub(rooms_max);
        let bytes = inner.memory.excess(more.max(bytes_max / EVICTED_PART));
        empty.sort_unstable_by_key(|(rank, _)| *rank);
        for (_, place) in empty {
            if leaving >= rooms && leaving_bytes >= bytes {
                break;
            }
            place.ask();
            leaving += 1;
            leaving_bytes += place.bytes();
        }
        leaving > 0
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
        if inner.memory.excess(0) > 0 {
            return Err(CloseReason::Overloaded);
        }
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
            place: Place::new(&inner.memory),
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
            place: Arc::clone(&handle.place),
            registry: self.clone(),
            catch_ups: Arc::clone(&inner.catch_ups),
            careful,
        };
        let (registry, place) = (self.clone(), Arc::clone(&handle.place));
        let registered = Registered { registry, id: document.clone(), generation, place };
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
    place: Arc<Place>,
}

impl Registered {
    fn ended(self, ended: &Ended) {
        let after = match ended {
            Ended::Idle
            | Ended::Append
            | Ended::Load(LoadFailed::Log(_) | LoadFailed::Memory | LoadFailed::Busy) => None,
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
        // Last: those who wait for it look at the others.
        self.place.leave();
    }
}

fn is_generation(known: &Known, generation: u64) -> bool {
    matches!(known, Known::Open { generation: g, .. } if *g == generation)
}
