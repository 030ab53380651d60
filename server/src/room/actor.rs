//! The task that owns a room: moves commands, time and writes between the state and the world.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::AtomicUsize},
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Sleep, sleep_until},
};

use super::{
    Command,
    catch_up::CatchUps,
    config::Config,
    error::CloseReason,
    memory::{Place, Weights},
    registry::Registry,
    state::{CheckpointJob, Failed, State, Write},
};
use crate::{
    crdt::{Fault, faithful_checkpoint},
    ids::{DocumentId, Epoch},
    log::{Appending, Checkpoint, LoadError, Loaded, Quarantine, UpdateLog},
    metrics::{RestartCause, RestartLabels, RoomMetrics},
    shutdown::{Tasks, aside},
    time::{self, Duration, Instant},
};

/// Commands taken from the mailbox at once.
const COMMANDS: usize = 256;

/// Documents from this size on are rebuilt on a thread of their own: this much takes a millisecond.
const LOAD_INLINE_BYTES: usize = 32 << 10;

/// How long a document waits for its turn to be loaded: as long as who wants it does, by default.
const LOAD_WAIT: Duration = Duration::from_secs(10);

/// Why a room ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Nobody was there.
    Idle,
    /// The log could not be written, or has to be read anew.
    Append,
    /// yrs faulted on an update.
    Fault,
    /// The document could not be loaded.
    Load(LoadFailed),
}

/// Why a document could not be loaded.
#[derive(Debug)]
pub(super) enum LoadFailed {
    /// The log said no.
    Log(LoadError),
    /// yrs faulted, twice.
    Fault(Fault),
    /// There is no memory for it.
    Memory,
    /// Too many others were being loaded for too long.
    Busy,
}

/// What a room task needs.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) id: DocumentId,
    pub(super) config: Arc<Config>,
    pub(super) log: Arc<dyn UpdateLog>,
    pub(super) quarantine: Quarantine,
    pub(super) metrics: RoomMetrics,
    pub(super) tasks: Tasks,
    pub(super) mailbox: mpsc::Receiver<Command>,
    /// How many sessions are in the room, for those outside.
    pub(super) sessions: Arc<AtomicUsize>,
    pub(super) place: Arc<Place>,
    /// Where the other rooms are.
    pub(super) registry: Registry,
    pub(super) catch_ups: Arc<CatchUps>,
    /// The document has faulted before.
    pub(super) careful: bool,
}

/// What is being written.
enum Writing {
    Create(Epoch, Appending),
    Append(Appending),
}

impl Room {
    /// Loads the document and serves its sessions until nobody is left, or something fails.
    pub(super) async fn run(mut self) -> Ended {
        let mut state = match self.load().await {
            Ok(state) => state,
            Err(failed) => {
                if let LoadFailed::Fault(fault) = &failed {
                    // Before anybody is told.
                    self.quarantine(fault).await;
                }
                let reason = failed.reason();
                self.refuse_all(&reason);
                return Ended::Load(failed);
            }
        };
        let ended = self.serve(&mut state).await;
        match &ended {
            Ended::Append => {
                self.restarted(RestartCause::Append);
                state.end_all(&CloseReason::LogUnavailable);
            }
            Ended::Fault => {
                self.restarted(RestartCause::Fault);
                state.end_culprit();
                state.end_all(&CloseReason::RoomRestarted);
            }
            Ended::Load(failed) => {
                if let LoadFailed::Fault(fault) = failed {
                    self.quarantine(fault).await;
                }
                state.end_all(&failed.reason());
            }
            Ended::Idle => {}
        }
        ended
    }

    async fn quarantine(&self, fault: &Fault) {
        let (quarantine, id, reason) =
            (self.quarantine.clone(), self.id.clone(), fault.to_string());
        // An error means that the runtime ends, and the next start finds out itself.
        self.tasks.spawn_blocking(move || quarantine.add(&id, &reason)).await.ok();
    }

    /// After a fault: loads the document again, and goes on with that. Nobody notices, but for a pause
    /// and for who is to blame.
    async fn recover(&mut self, state: &mut State, fault: &Fault) -> Result<(), Ended> {
        if !state.can_recover() {
            return Err(self.faulted(fault));
        }
        tracing::error!(document = %self.id, %fault, "an update faulted, the document is loaded anew");
        self.restarted(RestartCause::Fault);
        // What is loaded beside the room says nothing of its sessions.
        let sessions = std::mem::take(&mut self.sessions);
        let loaded = self.load().await;
        self.sessions = sessions;
        let mut loaded = loaded.map_err(Ended::Load)?;
        if state.recover(&mut loaded) { Ok(()) } else { Err(Ended::Append) }
    }

    fn faulted(&self, fault: &Fault) -> Ended {
        tracing::error!(document = %self.id, %fault, "room closed, it will be loaded anew");
        Ended::Fault
    }

    fn restarted(&self, cause: RestartCause) {
        self.metrics.restarts.get_or_create(&RestartLabels { cause }).inc();
    }

    async fn load(&mut self) -> Result<State, LoadFailed> {
        let turn = self.catch_ups.load(LOAD_WAIT).await.ok_or(LoadFailed::Busy)?;
        let started = time::now();
        let loading = self.quarantine.loading(&self.id).await;
        let loaded = self.log.load(&self.id).await.map_err(LoadFailed::Log)?;
        let bytes = loaded.as_ref().map_or(0, Loaded::bytes);
        // Before anything is made of it, and held from now on.
        let expected = Weights { document_bytes: bytes, ..Weights::default() }.bytes();
        let take = || self.place.try_take(expected).then_some(()).ok_or(CloseReason::Overloaded);
        self.registry.placed(expected, take).await.map_err(|_| LoadFailed::Memory)?;
        let (id, config, metrics) =
            (self.id.clone(), Arc::clone(&self.config), self.metrics.clone());
        let (sessions, careful) = (Arc::clone(&self.sessions), self.careful);
        let catch_ups = Arc::clone(&self.catch_ups);
        let build = move || {
            let build = |careful| {
                let (id, config, metrics) = (id.clone(), Arc::clone(&config), metrics.clone());
                let (sessions, catch_ups) = (Arc::clone(&sessions), Arc::clone(&catch_ups));
                State::new(id, config, metrics, loaded.as_ref(), sessions, catch_ups, careful)
            };
            // Once more, because a fault that comes again is in the document and not in the moment.
            build(careful).or_else(|fault| {
                tracing::error!(document = %id, %fault, "loading the document faulted");
                build(true)
            })
        };
        let state = if bytes < LOAD_INLINE_BYTES {
            build()
        } else {
            // Other rooms go on meanwhile. The task is not cancelled, and a panic is caught inside.
            let built = self.tasks.spawn_blocking(build).await;
            built.unwrap_or_else(|error| Err(Fault { what: error.to_string() }))
        };
        drop(turn);
        let took = time::now().saturating_duration_since(started);
        self.metrics.load_duration.observe(took.as_secs_f64());
        let state = state.map_err(LoadFailed::Fault)?;
        loading.succeeded();
        Ok(state)
    }

    async fn serve(&mut self, state: &mut State) -> Ended {
        let mut log_state = self.log.state();
        let drained = state.drained();
        let mut commands = Vec::with_capacity(COMMANDS);
        let mut writing: Option<Writing> = None;
        let mut checkpoint: Option<oneshot::Receiver<()>> = None;
        let mut timer = Timer::new();
        let ending = self.tasks.token().clone();
        loop {
            let now = time::now();
            let log = *log_state.borrow();
            match state.advance(now, log) {
                Ok(Some(Write::Create(epoch))) => {
                    writing = Some(Writing::Create(epoch, self.log.create(&self.id, epoch)));
                }
                Ok(Some(Write::Append(append))) => {
                    writing = Some(Writing::Append(self.log.append(append)));
                }
                Ok(None) => {}
                Err(Failed::Append) => return Ended::Append,
                Err(Failed::Fault(fault)) => match self.recover(state, &fault).await {
                    Ok(()) => continue,
                    Err(ended) => return ended,
                },
            }
            if ending.is_cancelled() && writing.is_none() && !state.has_staged() {
                return Ended::Idle;
            }
            let empty_since = state.empty_since();
            self.place.take(state.weights().bytes());
            self.place.empty_since(empty_since);
            let is_asked = empty_since.is_some() && self.place.is_asked();
            let unloading = (state.is_idle(now) || is_asked) && writing.is_none();
            match state.checkpoint(unloading) {
                Ok(Some(job)) => checkpoint = Some(self.store_checkpoint(job)),
                Ok(None) if unloading && checkpoint.is_none() && self.mailbox.is_empty() => {
                    return Ended::Idle;
                }
                Ok(None) => {}
                Err(fault) => return self.faulted(&fault),
            }
            // In order of priority: what is durable is passed on before more is taken.
            tokio::select! {
                biased;
                result = written(&mut writing) => {
                    let outcome = match result {
                        (Some(epoch), result) => state.created(epoch, result),
                        (None, result) => state.written(time::now(), result),
                    };
                    match outcome {
                        Ok(()) => {}
                        Err(Failed::Append) => return Ended::Append,
                        Err(Failed::Fault(fault)) => return self.faulted(&fault),
                    }
                }
                () = ending.cancelled(), if writing.is_none() && !state.has_staged() => {}
                () = drained.notified() => {}
                () = done(&mut checkpoint) => {
                    checkpoint = None;
                    state.checkpoint_done();
                }
                changed = log_state.changed() => if changed.is_err() { return Ended::Append },
                count = self.mailbox.recv_many(&mut commands, COMMANDS) => {
                    if count == 0 {
                        return Ended::Idle;
                    }
                    for command in commands.drain(..) {
                        dispatch(state, command);
                    }
                }
                () = self.place.asked() => {}
                () = timer.until(state.deadline()) => {}
            }
        }
    }

    /// Makes a checkpoint, verifies and stores it, on a thread where that may take its time.
    fn store_checkpoint(&self, job: CheckpointJob) -> oneshot::Receiver<()> {
        let (done, receiver) = oneshot::channel();
        let (id, log, metrics) = (self.id.clone(), Arc::clone(&self.log), self.metrics.clone());
        self.tasks.spawn(async move {
            let CheckpointJob { sequence, parts } = job;
            match aside(move || faithful_checkpoint(&parts)).await {
                Ok(Ok(Some(state))) => {
                    let checkpoint = Checkpoint { sequence, state };
                    if let Err(error) = log.put_checkpoint(&id, checkpoint).await {
                        tracing::warn!(document = %id, %error, "storing a checkpoint failed");
                    }
                }
                verdict => {
                    metrics.checkpoint_mismatches.inc();
                    tracing::error!(
                        document = %id, ?verdict,
                        "a checkpoint does not reproduce its document: it was thrown away, the log stays"
                    );
                }
            }
            // An error means that the room is gone.
            done.send(()).ok();
        });
        receiver
    }

    fn refuse_all(&mut self, reason: &CloseReason) {
        self.mailbox.close();
        while let Ok(command) = self.mailbox.try_recv() {
            if let Command::Join { reply, .. } = command {
                // An error means that the session is gone.
                drop(reply.send(Err(reason.clone())));
            }
        }
    }
}

impl LoadFailed {
    fn reason(&self) -> CloseReason {
        match self {
            Self::Log(LoadError::Corrupt { .. }) => CloseReason::DocumentCorrupt,
            Self::Log(LoadError::Io { .. }) => CloseReason::LogUnavailable,
            Self::Fault(_) => CloseReason::Quarantined,
            Self::Memory => CloseReason::Overloaded,
            Self::Busy => CloseReason::Busy,
        }
    }
}

fn dispatch(state: &mut State, command: Command) {
    match command {
        Command::Join { join, reply } => state.join(join, reply),
        Command::Update(incoming) => state.stage(incoming),
        Command::Awareness { session, presence } => {
            state.set_awareness(time::now(), session, presence);
        }
        Command::Sync { session, state_vector } => state.sync(session, &state_vector),
        Command::Leave { session, done } => state.leave(session, done),
    }
}

/// The outcome of what is being written, with the epoch of a creation; never, if nothing is.
async fn written(
    writing: &mut Option<Writing>,
) -> (Option<Epoch>, Result<crate::ids::Sequence, crate::log::AppendError>) {
    let outcome = match writing {
        Some(Writing::Create(epoch, appending)) => (Some(*epoch), appending.await),
        Some(Writing::Append(appending)) => (None, appending.await),
        None => std::future::pending().await,
    };
    *writing = None;
    outcome
}

/// When the checkpoint is done; never, if there is none.
async fn done(checkpoint: &mut Option<oneshot::Receiver<()>>) {
    match checkpoint {
        // An error means that its task died, which is done too.
        Some(receiver) => drop(receiver.await),
        None => std::future::pending().await,
    }
}

/// A timer that is set anew only when the deadline changes.
struct Timer {
    sleep: Pin<Box<Sleep>>,
    set: Option<Instant>,
}

impl Timer {
    fn new() -> Self {
        Self { sleep: Box::pin(sleep_until(time::now() + Duration::from_secs(1))), set: None }
    }

    fn until(&mut self, deadline: Option<Instant>) -> impl Future<Output = ()> + '_ {
        if let Some(deadline) = deadline
            && self.set != Some(deadline)
        {
            self.sleep.as_mut().reset(deadline);
        }
        self.set = deadline;
        async move {
            match deadline {
                Some(_) => self.sleep.as_mut().await,
                None => std::future::pending().await,
            }
        }
    }
}
