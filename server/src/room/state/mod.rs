//! What a room decides: who is in it, what is staged, what is committed, who gets what.
//!
//! Nothing here waits. The actor calls in with events and the time, and carries out what comes back.
//! One commit is in flight at most, and while it is, the document is ahead of the log: joins,
//! differences and checkpoints, which show the document, happen only between commits.
//!
//! `updates` has what becomes of an update, `differences` what brings a session up to date, and
//! `checkpoints` when one is made; here is who comes and goes, and the order of it all.

mod catch_up;
mod checkpoints;
mod differences;
mod updates;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

pub(super) use self::checkpoints::CheckpointJob;
use self::{
    catch_up::CatchingUp,
    checkpoints::SinceCheckpoint,
    differences::{Asked, Recent, chunks, event_bytes},
};
use super::{
    Incoming, Join, Presence, Rules,
    awareness::{Announced, AwarenessState, AwarenessTable, RENEW_INTERVAL},
    catch_up::CatchUps,
    config::Config,
    error::CloseReason,
    held::Held,
    outbox::{End, Event, Joined, Outbox, Pushed, Shared, Update},
};
use crate::{
    auth::Access,
    crdt::{Author, Batch, Document, Fault, Logged, Quotas},
    ids::{DocumentId, Epoch, Principal, Sequence, SessionId},
    log::{Append, AppendError, Loaded, LogState, Record},
    metrics::{ReasonLabels, RoomMetrics},
    time::{self, Instant},
};

/// How many updates are taken one by one in a room whose document has faulted, where it is not known on
/// which.
const CAREFUL_UPDATES: usize = 1000;

/// What a room decides.
#[derive(Debug)]
pub(super) struct State {
    id: DocumentId,
    config: Arc<Config>,
    metrics: RoomMetrics,
    document: Document,
    quotas: Quotas,
    epoch: Option<Epoch>,
    /// The last durable update.
    head: Sequence,
    members: HashMap<SessionId, Member>,
    awareness: Arc<Mutex<AwarenessTable>>,
    awareness_changed: bool,
    /// When a change may be told, at the earliest: long past, where that is at once.
    awareness_due: Instant,
    /// When the table is looked through for states to be told again, where Yjs clients are.
    renew_due: Instant,
    /// Told by outboxes for which something waits, when they are empty.
    drained: Arc<Notify>,
    lagging: usize,
    /// Sessions that have asked for a difference, and those with updates that are held.
    asking: usize,
    holding: usize,
    /// Sessions of Yjs clients.
    yjs: usize,
    staged: VecDeque<Incoming>,
    joins: Vec<Waiting>,
    leaves: Vec<(SessionId, oneshot::Sender<()>)>,
    /// Something is being written: the document is ahead of the log.
    writing: bool,
    commit: Option<Commit>,
    fan_out: Option<Instant>,
    recent: Recent,
    /// The whole document in chunks, as of `head`.
    full: Option<Vec<Event>>,
    since_checkpoint: SinceCheckpoint,
    /// An upper bound of the size of the document, and the size when it was last measured.
    document_bytes: usize,
    /// The document has faulted before: this many updates are taken one by one, so that the next fault
    /// names its sender.
    careful: usize,
    idle_since: Option<Instant>,
    /// When the room was made.
    created: Instant,
    /// How many sessions there are, for those outside.
    sessions: Arc<AtomicUsize>,
    catch_ups: Arc<CatchUps>,
    /// When to look whether sessions take the state that they joined with, while there are such.
    look_up_at: Option<Instant>,
    /// When to look whether there is room again for a difference that waits.
    look_at: Option<Instant>,
}

/// A session that waits to be let in, and how to tell it.
type Waiting = (Box<Join>, oneshot::Sender<Result<(), CloseReason>>);

#[derive(Debug)]
struct Member {
    outbox: Arc<Outbox>,
    principal: Principal,
    /// Who that is in the document.
    author: Author,
    awareness_client_id: Option<u64>,
    rules: Rules,
    lagging: Option<Lagging>,
    /// What the session has asked for a difference with.
    asked: Option<Asked>,
    held: Option<Box<Held>>,
    /// How it takes the state that it joined with, if it has not taken it.
    catching_up: Option<CatchingUp>,
    /// The highest id of its updates that is durable.
    durable: u64,
}

#[derive(Debug)]
struct Lagging {
    since: Instant,
    /// What the session has when it has taken what is queued (yrs v1 state vector).
    state_vector: Bytes,
}

/// What is being written.
#[derive(Debug)]
struct Commit {
    batch: Batch,
    event: Option<Bytes>,
    /// The sessions with updates in it, and the highest update id of each.
    origins: Vec<(SessionId, u64)>,
    arrivals: Vec<Instant>,
    /// The updates, until it is known that the document bears them.
    incoming: Vec<Incoming>,
    /// Sessions with updates in it that had been held.
    released: Vec<SessionId>,
}

/// What is to be written.
#[derive(Debug)]
pub(super) enum Write {
    /// The document does not exist yet.
    Create(Epoch),
    /// Updates.
    Append(Append),
}

/// Why a room cannot go on.
#[derive(Debug)]
pub(super) enum Failed {
    /// yrs faulted.
    Fault(Fault),
    /// The document in memory is ahead of the log, for good.
    Append,
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl State {
    /// A room for a document that was loaded; `loaded` is `None` if it does not exist.
    pub(super) fn new(
        id: DocumentId,
        config: Arc<Config>,
        metrics: RoomMetrics,
        loaded: Option<&Loaded>,
        sessions: Arc<AtomicUsize>,
        catch_ups: Arc<CatchUps>,
        careful: bool,
    ) -> Result<Self, Fault> {
        let checkpoint = loaded.and_then(|loaded| loaded.checkpoint.as_ref());
        let tail = loaded.map(|loaded| &loaded.tail[..]).unwrap_or_default();
        let logged = tail.iter();
        let logged =
            logged.map(|Record { principal, update, .. }| Logged { author: principal, update });
        let document = Document::load(checkpoint.map(|c| &c.state[..]), logged)?;
        let head = loaded.map_or(Sequence::ZERO, Loaded::head);
        let tail_bytes = tail.iter().map(|record| record.update.len()).sum();
        let checkpoint_bytes = checkpoint.map_or(0, |checkpoint| checkpoint.state.len());
        let gone_max = 2 * config.sessions_max;
        let created = time::now();
        Ok(Self {
            id,
            metrics,
            document,
            quotas: config.quotas(),
            epoch: loaded.map(|loaded| loaded.epoch),
            head,
            members: HashMap::new(),
            awareness: Arc::new(Mutex::new(AwarenessTable::new(time::wall_ms(), gone_max))),
            awareness_changed: false,
            awareness_due: created,
            renew_due: created + RENEW_INTERVAL,
            created,
            drained: Arc::new(Notify::new()),
            lagging: 0,
            asking: 0,
            holding: 0,
            yjs: 0,
            staged: VecDeque::new(),
            joins: Vec::new(),
            leaves: Vec::new(),
            writing: false,
            commit: None,
            fan_out: None,
            recent: Recent { updates: VecDeque::new(), bytes: 0, from: head },
            full: None,
            since_checkpoint: SinceCheckpoint {
                sequence: checkpoint.map_or(Sequence::ZERO, |checkpoint| checkpoint.sequence),
                updates: tail.len() as u64,
                bytes: tail_bytes,
                checkpoint_bytes,
                running: false,
            },
            // A v2 checkpoint is smaller than the v1 state, which is what the limit is about; 4
            // times is more than was ever seen, and a bound that is reached is measured.
            document_bytes: 4 * checkpoint_bytes + tail_bytes,
            careful: if careful { CAREFUL_UPDATES } else { 0 },
            idle_since: Some(created),
            config,
            sessions,
            catch_ups,
            look_up_at: None,
            look_at: None,
        })
    }

    /// The notifier of outboxes of lagging sessions.
    pub(super) fn drained(&self) -> Arc<Notify> {
        Arc::clone(&self.drained)
    }

    /// Whether updates wait for the next batch.
    pub(super) fn has_staged(&self) -> bool {
        !self.staged.is_empty()
    }

    /// Takes an update into the next batch.
    pub(super) fn stage(&mut self, incoming: Incoming) {
        self.staged.push_back(incoming);
    }

    /// Takes a session in, at the next time that the document may be shown.
    pub(super) fn join(
        &mut self,
        join: Box<Join>,
        reply: oneshot::Sender<Result<(), CloseReason>>,
    ) {
        self.joins.push((join, reply));
    }

    /// Takes a session out, when its updates are durable.
    pub(super) fn leave(&mut self, session: SessionId, done: oneshot::Sender<()>) {
        self.leaves.push((session, done));
    }

    /// Notes that a session asks for a difference to `state_vector` (yrs v1, checked).
    pub(super) fn sync(&mut self, session: SessionId, state_vector: &[u8]) {
        if let Some(member) = self.members.get_mut(&session) {
            self.asking += usize::from(member.asked.is_none());
            let own = self.staged.iter().filter(|incoming| incoming.session == session);
            let after = own.map(|incoming| incoming.update_id).max().unwrap_or(0);
            let state_vector = Bytes::copy_from_slice(state_vector);
            member.asked = Some(Asked { state_vector, after });
        }
    }

    /// Sets the awareness state of a session.
    ///
    /// A Yjs client passes on what it hears: of other tabs, and of us. Its first state is its own,
    /// because it sends that before it is told anything; later it is not believed to be somebody who
    /// is known here already.
    pub(super) fn set_awareness(&mut self, now: Instant, session: SessionId, presence: Presence) {
        let Some(member) = self.members.get_mut(&session) else { return };
        let principal = member.principal.clone();
        let mut table = self.awareness.lock();
        let (client_id, clock, state) = match presence {
            Presence::Own(state) => match member.awareness_client_id {
                Some(client_id) => (client_id, None, state),
                None => return,
            },
            Presence::Yjs(AwarenessState { client_id, clock, state }) => {
                let is_echo = match member.awareness_client_id {
                    Some(own) => own != client_id,
                    None => {
                        state.is_empty()
                            || (member.outbox.is_awareness_told() && table.knows(client_id))
                    }
                };
                if is_echo {
                    return;
                }
                member.awareness_client_id = Some(client_id);
                (client_id, Some(clock), state)
            }
        };
        let is_gone = state.is_empty();
        // Copied, because it stays, and is a part of whatever was read from the connection at once.
        let state = Bytes::copy_from_slice(&state);
        self.awareness_changed |= if is_gone {
            table.remove(session, client_id)
        } else {
            table.set(now, Announced { session, principal, client_id, clock, state })
        };
        drop(table);
        if clock.is_some() && member.outbox.awareness_client_id().is_none() {
            member.outbox.bind_awareness(client_id);
        }
        if is_gone {
            // At once: a cursor of somebody who is gone is worse than one that is late.
            self.awareness_due = self.created;
        }
    }

    /// Does what is due, and returns what is to be written. While that is being written, this does
    /// less, and returns nothing.
    pub(super) fn advance(&mut self, now: Instant, log: LogState) -> Result<Option<Write>, Failed> {
        if !self.writing {
            let create = self.admit()?;
            self.answer()?;
            self.resync_lagging()?;
            // Before the next write: under load there is always one.
            self.release();
            let write = match create {
                Some(epoch) => Some(Write::Create(epoch)),
                None if self.fan_out_at().is_some_and(|at| at <= now) => {
                    let append = self.flush(now, log)?;
                    if append.is_none() {
                        // Nothing was new: no write ends that would wake the room for those who
                        // waited for their updates.
                        self.answer()?;
                        self.release();
                    }
                    append.map(Write::Append)
                }
                None => None,
            };
            if write.is_some() {
                self.writing = true;
                return Ok(write);
            }
        }
        self.end_lagging(now);
        self.end_catching_up(now);
        self.end_holding(now);
        if self.yjs > 0 && self.renew_due <= now {
            self.renew_due = now + RENEW_INTERVAL;
            self.awareness_changed |= self.awareness.lock().renew(now);
        }
        if self.awareness_at().is_some_and(|at| at <= now) {
            self.awareness_changed = false;
            self.awareness_due = now + self.config.awareness_interval;
            for member in self.members.values() {
                member.outbox.awareness_changed();
            }
        }
        let idle = self.members.is_empty()
            && self.staged.is_empty()
            && self.joins.is_empty()
            && !self.writing;
        self.sessions.store(self.members.len(), Ordering::Relaxed);
        self.idle_since = idle.then(|| self.idle_since.unwrap_or(now));
        Ok(None)
    }

    /// When [`Self::advance`] has something to do again, if nothing happens before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let fan_out = (!self.writing).then(|| self.fan_out_at()).flatten();
        let lagging = (self.lagging > 0)
            .then(|| {
                self.members.values().filter_map(|m| m.lagging.as_ref()).map(|l| l.since).min()
            })
            .flatten()
            .map(|since| since + self.config.lagging_max);
        // A room that is idle and waits for its checkpoint would only be woken again and again.
        let idle = self.idle_since.filter(|_| !self.since_checkpoint.running);
        let idle = idle.map(|since| since + self.config.idle_timeout);
        let held = self.members.values().filter_map(|member| member.held.as_ref());
        let held = (self.holding > 0).then(|| held.map(|held| held.since).min()).flatten();
        let held = held.map(|since| since + self.config.held_max);
        let renew = (self.yjs > 0).then_some(self.renew_due);
        let catch_up = self.catch_up_at();
        let all = [fan_out, lagging, idle, held, renew, self.awareness_at(), catch_up];
        all.into_iter().flatten().min()
    }

    /// Nobody has been here for long enough that the room may leave memory.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.idle_since.is_some_and(|since| since + self.config.idle_timeout <= now)
    }

    /// What was being written is durable up to `head`, or not.
    pub(super) fn written(
        &mut self,
        now: Instant,
        result: Result<Sequence, AppendError>,
    ) -> Result<(), Failed> {
        let head = match result {
            Ok(head) => head,
            Err(error) => {
                tracing::warn!(document = %self.id, %error, "append failed");
                return Err(Failed::Append);
            }
        };
        self.writing = false;
        let Some(commit) = self.commit.take() else { return Ok(()) };
        self.head = head;
        self.full = None;
        self.since_checkpoint.updates += commit.batch.len() as u64;
        self.since_checkpoint.bytes += commit.batch.bytes();
        self.metrics.updates.inc_by(commit.arrivals.len() as u64);
        self.metrics.batches.inc();
        self.metrics.batch_updates.observe(commit.arrivals.len() as f64);
        if let Some(event) = &commit.event {
            self.pass_on(now, event, &commit);
        }
        for (session, update_id) in &commit.origins {
            if let Some(member) = self.members.get_mut(session) {
                member.acknowledge(*update_id, head);
            }
        }
        for arrived in &commit.arrivals {
            let waited = now.saturating_duration_since(*arrived);
            self.metrics.update_duration.observe(waited.as_secs_f64());
        }
        Ok(())
    }

    /// The document was created with this epoch, or not.
    pub(super) fn created(
        &mut self,
        epoch: Epoch,
        result: Result<Sequence, AppendError>,
    ) -> Result<(), Failed> {
        self.writing = false;
        match result {
            Ok(_) => self.epoch = Some(epoch),
            // Nothing in memory is ahead of the log, so that readers stay.
            Err(AppendError::Full) => self.refuse_writers(),
            Err(error) => {
                tracing::warn!(document = %self.id, %error, "creating the document failed");
                return Err(Failed::Append);
            }
        }
        Ok(())
    }

    fn refuse_writers(&mut self) {
        let is_writer = |(join, _): &mut Waiting| join.grant.access >= Access::Write;
        for (_, reply) in self.joins.extract_if(.., is_writer) {
            // An error means that the session is gone.
            drop(reply.send(Err(CloseReason::LogFull)));
        }
    }

    /// Ends all sessions.
    pub(super) fn end_all(&mut self, reason: &CloseReason) {
        for (_, member) in self.members.drain() {
            count_closed(&self.metrics, reason);
            member.outbox.finish(closed(reason.clone()));
        }
        for (join, reply) in self.joins.drain(..) {
            join.outbox.finish(closed(reason.clone()));
            // An error means that the session is gone.
            drop(reply.send(Err(reason.clone())));
        }
        self.lagging = 0;
        self.sessions.store(0, Ordering::Relaxed);
    }

    /// Whether the room can go on after a fault, with the document as it is in the log: nothing that
    /// anybody was told is ahead of that.
    pub(super) fn can_recover(&self) -> bool {
        !self.writing && self.commit.is_some()
    }

    /// Goes on with the document of `loaded`, after a fault in a batch that was not written. Whoever
    /// was alone in the batch is ended; otherwise its updates are taken again, one by one. Returns
    /// whether that could be.
    pub(super) fn recover(&mut self, loaded: &mut Self) -> bool {
        let Some(commit) = self.commit.take() else { return false };
        if (loaded.head, loaded.epoch) != (self.head, self.epoch) {
            return false;
        }
        std::mem::swap(&mut self.document, &mut loaded.document);
        self.document_bytes = loaded.document_bytes;
        let is_owned = self.config.client_ids_owned;
        for member in self.members.values_mut() {
            let owner = is_owned.then_some(&member.principal);
            member.author = owner.map_or(Author::NOBODY, |owner| self.document.author(owner));
        }
        for session in commit.released {
            // What it had sent is gone. Coming back, it sends it again.
            self.end(session, CloseReason::RoomRestarted);
        }
        match &commit.origins[..] {
            [(culprit, _)] => self.end(*culprit, CloseReason::PoisonousUpdate),
            _ => self.careful = self.careful.max(commit.incoming.len()),
        }
        for incoming in commit.incoming.into_iter().rev() {
            // Those of a session that was ended are passed over.
            self.staged.push_front(incoming);
        }
        true
    }

    /// After a fault: ends the session that caused it, if that is known.
    pub(super) fn end_culprit(&mut self) {
        if let Some(Commit { origins, .. }) = self.commit.take()
            && let [(session, _)] = origins[..]
        {
            self.end(session, CloseReason::PoisonousUpdate);
        }
    }

    fn end(&mut self, session: SessionId, reason: CloseReason) {
        if let Some(member) = self.remove(session) {
            count_closed(&self.metrics, &reason);
            member.outbox.finish(closed(reason));
        }
    }

    fn remove(&mut self, session: SessionId) -> Option<Member> {
        let member = self.members.remove(&session)?;
        self.lagging -= usize::from(member.lagging.is_some());
        self.asking -= usize::from(member.asked.is_some());
        self.holding -= usize::from(member.held.is_some());
        self.yjs -= usize::from(member.rules == Rules::Yjs);
        if let Some(client_id) = member.awareness_client_id {
            self.awareness_changed |= self.awareness.lock().remove(session, client_id);
            // At once: a cursor of somebody who is gone is worse than one that is late.
            self.awareness_due = self.created;
        }
        Some(member)
    }

    /// When the staged updates may be passed on.
    fn fan_out_at(&self) -> Option<Instant> {
        let first = self.staged.front()?;
        let sessions = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        let pace = self.config.pace_per_session.saturating_mul(sessions).min(self.config.pace_max);
        Some(self.fan_out.map_or(first.arrived, |last| last + pace))
    }

    fn awareness_at(&self) -> Option<Instant> {
        self.awareness_changed.then_some(self.awareness_due)
    }

    /// Lets in those who wait. A document that does not exist is created first, if somebody wants
    /// to write: its epoch must be durable before anybody hears of it.
    fn admit(&mut self) -> Result<Option<Epoch>, Fault> {
        let to_create =
            |(join, _): &Waiting| join.grant.access >= Access::Write && join.epoch.is_none();
        if self.epoch.is_none() && self.joins.iter().any(to_create) {
            return Ok(Some(Epoch::random()));
        }
        for (join, reply) in std::mem::take(&mut self.joins) {
            let outcome = self.admit_one(&join)?;
            if outcome.is_ok() {
                self.idle_since = None;
                tracing::debug!(document = %self.id, session = %join.session, "session joined");
            }
            if reply.send(outcome).is_err() {
                // The session ended while it waited.
                self.remove(join.session);
            }
        }
        Ok(None)
    }

    fn admit_one(&mut self, join: &Join) -> Result<Result<(), CloseReason>, Fault> {
        if self.members.len() >= self.config.sessions_max {
            return Ok(Err(CloseReason::TooManySessions(self.config.sessions_max)));
        }
        if join.epoch.is_some_and(|epoch| Some(epoch) != self.epoch) {
            return Ok(Err(CloseReason::EpochMismatch));
        }
        let resumed = join.resume.filter(|_| join.epoch.is_some());
        let resumed = resumed.and_then(|sequence| self.recent.after(sequence, self.head));
        let initial = match &resumed {
            // It asks when it wants it.
            _ if join.rules == Rules::Yjs => Vec::new(),
            Some(updates) => updates.clone(),
            None if join.state_vector.is_empty() => self.full()?,
            None => match self.private(&join.state_vector, Some(&self.document.state_vector()))? {
                Ok(Some(difference)) => difference,
                Ok(None) => return Ok(Err(CloseReason::Overloaded)),
                Err(malformed) => {
                    return Ok(Err(CloseReason::MalformedFrame(malformed.to_string())));
                }
            },
        };
        join.outbox.push(Event::Joined(Box::new(Joined {
            session: join.session,
            access: join.grant.access,
            epoch: self.epoch,
            state_vector: self.document.state_vector(),
            sync_sequence: self.head,
            resumed: resumed.is_some(),
        })));
        let is_given = !initial.is_empty();
        for event in initial {
            join.outbox.push(event);
        }
        let (table, drained) = (Arc::clone(&self.awareness), Arc::clone(&self.drained));
        join.outbox.attach(join.session, table, drained, join.rules == Rules::Cowrite);
        self.yjs += usize::from(join.rules == Rules::Yjs);
        let owner = self.config.client_ids_owned.then_some(&join.grant.principal);
        let member = Member {
            outbox: Arc::clone(&join.outbox),
            principal: join.grant.principal.clone(),
            author: owner.map_or(Author::NOBODY, |owner| self.document.author(owner)),
            awareness_client_id: join.awareness_client_id,
            rules: join.rules,
            lagging: None,
            asked: None,
            held: None,
            catching_up: None,
            durable: 0,
        };
        self.members.insert(join.session, member);
        if is_given {
            self.catch_up_begins(join.session);
        }
        Ok(Ok(()))
    }

    /// Passes a durable batch on to everybody; to its origin only if there are several, because
    /// each then lacks the others' part.
    fn pass_on(&mut self, now: Instant, event: &Bytes, commit: &Commit) {
        let update = Shared::new(Update { sequence: self.head, update: event.clone() });
        let only = if let [(session, _)] = commit.origins[..] { Some(session) } else { None };
        let mut before = None;
        let mut deliveries = 0;
        for (session, member) in &mut self.members {
            if Some(*session) == only {
                continue;
            }
            match member.outbox.push_update(&update) {
                Pushed::Queued => deliveries += 1,
                Pushed::Lagging => {}
                Pushed::Overflow => {
                    let document = &self.document;
                    let state_vector: &Bytes =
                        before.get_or_insert_with(|| document.state_vector_before(&commit.batch));
                    let state_vector = state_vector.clone();
                    member.lagging = Some(Lagging { since: now, state_vector });
                    self.lagging += 1;
                    self.metrics.lagging.inc();
                }
            }
        }
        self.metrics.deliveries.inc_by(deliveries);
        self.recent.push(update, self.config.recent_bytes_max);
    }

    /// Lets those go who wanted to and whose updates are durable.
    fn release(&mut self) {
        for (session, done) in std::mem::take(&mut self.leaves) {
            if self.staged.iter().any(|incoming| incoming.session == session) {
                self.leaves.push((session, done));
                continue;
            }
            self.remove(session);
            // An error means that nobody waits for it.
            done.send(()).ok();
        }
    }
}

impl Member {
    /// Acknowledges updates up to `update_id`, but not what is held, nor what came after that.
    fn acknowledge(&mut self, update_id: u64, sequence: Sequence) {
        self.durable = update_id.max(self.durable);
        let held = self.held.as_ref().and_then(|held| held.first_id());
        let up_to = held.map_or(self.durable, |first| self.durable.min(first.saturating_sub(1)));
        self.outbox.acknowledge(up_to, sequence);
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.end_all(&CloseReason::RoomRestarted);
    }
}

fn count_closed(metrics: &RoomMetrics, reason: &CloseReason) {
    metrics.closed.get_or_create(&ReasonLabels { reason: reason.label() }).inc();
}

/// The end of a session by the room, with a delay that differs from session to session.
fn closed(reason: CloseReason) -> End {
    let retry_after = Duration::from_millis(rand::random_range(100..2000));
    End::Closed { reason, retry_after: Some(retry_after) }
}
