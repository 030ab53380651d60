//! What becomes of the updates of a batch: taken, known already, held, or refused.

use std::{collections::VecDeque, time::Duration};

use parking_lot::Mutex;

use super::{Commit, Failed, Member, State, event_bytes};
use crate::{
    crdt::{Author, Batch, Fault, Incomplete, Quotas, Rejection, Terms, validate::Scan},
    ids::{Principal, SessionId},
    log::{Append, LogState, NewRecord},
    metrics::ReasonLabels,
    room::{
        CheckedUpdate, Incoming, Rules, UpdateKind,
        error::{CloseReason, RefuseReason},
        held::Held,
    },
    shutdown::while_others_go_on,
    time::{self, Instant},
};

/// The most updates in one batch: above, yrs gets slower for each of them.
const BATCH_UPDATES_MAX: usize = 1000;

/// From how much work on, as [`Batch::work`] counts it, a batch is applied while others go on: some
/// milliseconds.
const HEAVY_WORK: u64 = 10_000;

/// Batches that take more of the memory than this while they are applied wait for each other: they take
/// up to a tenth of a gigabyte, for some tenths of a second.
const LARGE_BYTES: u64 = 8 << 20;

static LARGE: Mutex<()> = Mutex::new(());

/// An update that was held and lacks nothing any more: its session and id, when it arrived, and its
/// record if it brings something; or why it is not taken all the same.
type Released = (SessionId, u64, Instant, Result<Option<NewRecord>, Rejection>);

/// What becomes of an update.
enum Verdict {
    /// It is in the batch.
    Taken(Principal),
    /// It brings nothing new, and is acknowledged.
    Known,
    /// It lacks something.
    Incomplete(Incomplete),
    /// It is for the next batch.
    Later,
    /// It was refused, or its session has ended.
    Dropped,
}

/// What somebody may do in a document with an update.
fn terms<'a>(
    author: Author,
    kind: UpdateKind,
    quotas: &'a Quotas,
    comments_root: &'a str,
) -> Terms<'a> {
    let only_root = kind.is_comment.then_some(comments_root);
    Terms { author, only_root, quotas, is_difference: kind.is_difference }
}

fn note_origin(origins: &mut Vec<(SessionId, u64)>, session: SessionId, update_id: u64) {
    match origins.iter_mut().find(|(other, _)| *other == session) {
        Some((_, latest)) => *latest = update_id.max(*latest),
        None => origins.push((session, update_id)),
    }
}

impl State {
    /// Ends sessions whose updates were held for too long.
    pub(super) fn end_holding(&mut self, now: Instant) {
        if self.holding == 0 {
            return;
        }
        let max = self.config.held_max;
        let late = |member: &Member| {
            member.held.as_ref().filter(|held| held.since + max <= now).map(|held| held.lacks)
        };
        let late: Vec<_> =
            self.members.iter().filter_map(|(id, member)| Some((*id, late(member)?))).collect();
        for (session, lacks) in late {
            self.end(session, lacks.into());
        }
    }

    /// Checks and applies what is staged, and returns what is to be appended.
    pub(super) fn flush(&mut self, now: Instant, log: LogState) -> Result<Option<Append>, Failed> {
        if matches!(log, LogState::Failed | LogState::Closed) {
            return Err(Failed::Append);
        }
        let count = if self.careful > 0 { 1 } else { BATCH_UPDATES_MAX };
        let count = count.min(self.staged.len());
        self.careful = self.careful.saturating_sub(count);
        let mut staged = self.staged.drain(..count).collect::<VecDeque<_>>();
        let mut batch = Batch::default();
        let mut origins: Vec<(SessionId, u64)> = Vec::new();
        let mut arrivals = Vec::with_capacity(count);
        let mut records = Vec::with_capacity(count);
        let (mut kept, mut released) = (Vec::with_capacity(count), Vec::new());
        while let Some(incoming) = staged.pop_front() {
            let Incoming { session, update_id, arrived, .. } = incoming;
            match self.consider(&mut batch, &incoming, log)? {
                Verdict::Taken(principal) => {
                    let update = incoming.update.bytes.clone();
                    records.push(NewRecord { principal, session, update });
                    kept.push(incoming);
                }
                Verdict::Known => kept.push(incoming),
                Verdict::Incomplete(lacks) => {
                    self.hold(now, incoming, lacks);
                    continue;
                }
                Verdict::Later => {
                    staged.push_front(incoming);
                    break;
                }
                Verdict::Dropped => continue,
            }
            arrivals.push(arrived);
            note_origin(&mut origins, session, update_id);
        }
        for incoming in staged.into_iter().rev() {
            self.staged.push_front(incoming);
        }
        if self.holding > 0 {
            for (session, update_id, arrived, record) in self.release_held(&mut batch)? {
                match record {
                    Ok(record) => records.extend(record),
                    Err(rejection) => {
                        self.reject(session, update_id, rejection);
                        continue;
                    }
                }
                arrivals.push(arrived);
                note_origin(&mut origins, session, update_id);
                released.push(session);
            }
        }
        self.fan_out = Some(now);
        if records.is_empty() {
            self.acknowledge_known(&origins);
            return Ok(None);
        }
        // Before it is applied, so that a fault finds who caused it.
        let incoming = kept;
        self.commit = Some(Commit { batch, event: None, origins, arrivals, incoming, released });
        let Some(commit) = &mut self.commit else { return Ok(None) };
        let (document, batch) = (&mut self.document, &mut commit.batch);
        let is_large = batch.transient_bytes() > LARGE_BYTES;
        commit.event = if batch.work() > HEAVY_WORK || is_large {
            while_others_go_on(|| {
                let _one_at_a_time = is_large.then(|| LARGE.lock());
                document.apply(batch)
            })?
        } else {
            document.apply(batch)?
        };
        if commit.event.is_none() {
            // Deletions of what was deleted already: whoever repeats them does not fill the disk.
            let origins = self.commit.take().map(|commit| commit.origins).unwrap_or_default();
            self.acknowledge_known(&origins);
            return Ok(None);
        }
        // The mailbox has room for others.
        (commit.incoming, commit.released) = (Vec::new(), Vec::new());
        self.document_bytes += commit.batch.bytes();
        let time_ms = time::wall_ms();
        Ok(Some(Append { document: self.id.clone(), time_ms, updates: records }))
    }

    /// Acknowledges updates that bring nothing: what they say is durable.
    fn acknowledge_known(&mut self, origins: &[(SessionId, u64)]) {
        for (session, update_id) in origins {
            if let Some(member) = self.members.get_mut(session) {
                member.acknowledge(*update_id, self.head);
            }
        }
    }

    /// Decides over an update, and adds it to the batch if it is taken.
    fn consider(
        &mut self,
        batch: &mut Batch,
        incoming: &Incoming,
        log: LogState,
    ) -> Result<Verdict, Fault> {
        let Incoming { session, update_id, update, kind, .. } = incoming;
        let Some(member) = self.members.get(session) else { return Ok(Verdict::Dropped) };
        let (author, principal) = (member.author, member.principal.clone());
        // Comments are no document yet.
        let is_denied = kind.is_denied || (kind.is_comment && self.epoch.is_none());
        if self.epoch.is_none() && !is_denied {
            // It may write since it has a new token, and there is no document yet: coming back, it
            // creates one and is told its epoch.
            self.end(*session, CloseReason::RoomRestarted);
            return Ok(Verdict::Dropped);
        }
        let may_be_known = is_denied || kind.is_difference;
        if may_be_known && self.document.contains(&update.bytes, &update.scan)? {
            return Ok(Verdict::Known);
        }
        let reason = if is_denied {
            Some(RefuseReason::WriteDenied)
        } else if log == LogState::Full {
            Some(RefuseReason::LogFull)
        } else if self.is_too_large(batch.bytes() + update.bytes.len())? {
            Some(RefuseReason::DocumentTooLarge(self.config.document_bytes_max))
        } else {
            None
        };
        if let Some(reason) = reason {
            self.refuse(*session, *update_id, reason);
            return Ok(Verdict::Dropped);
        }
        if let Some(client) = self.announced_by_another(&update.scan, author, &principal) {
            self.reject(*session, *update_id, Rejection::Taken(client));
            return Ok(Verdict::Dropped);
        }
        let terms = terms(author, *kind, &self.quotas, &self.config.comments_root);
        Ok(match self.document.check(batch, &update.bytes, &update.scan, terms)? {
            Ok(true) => Verdict::Taken(principal),
            // Nothing new: it is acknowledged with the others, all of which it may repeat.
            Ok(false) => Verdict::Known,
            Err(Rejection::Incomplete(lacks)) => Verdict::Incomplete(lacks),
            Err(Rejection::Full) => Verdict::Later,
            Err(rejection) => {
                self.reject(*session, *update_id, rejection);
                Verdict::Dropped
            }
        })
    }

    /// A client id under which an update is the first to write, while somebody else is here under it, who
    /// is seen by all and will write soon.
    fn announced_by_another(
        &self,
        scan: &Scan,
        author: Author,
        principal: &Principal,
    ) -> Option<u64> {
        if author == Author::NOBODY {
            return None;
        }
        let is_new = |client: &u64| !self.document.knows(*client);
        let is_anothers = |client: &u64| self.awareness.lock().is_anothers(*client, principal);
        scan.structs.iter().map(|run| run.client).filter(is_new).find(is_anothers)
    }

    /// Tells a session that an update was not taken, and lets it go on.
    fn refuse(&mut self, session: SessionId, update_id: u64, reason: RefuseReason) {
        let label = ReasonLabels { reason: reason.label() };
        self.metrics.refused.get_or_create(&label).inc();
        let Some(member) = self.members.get(&session) else { return };
        if !member.outbox.refuse(update_id, reason) {
            // It sends, but does not read what it is told.
            self.end(session, CloseReason::TooSlow(Duration::ZERO));
        }
    }

    /// Refuses an update that does not fit the document, or ends the session that sent it.
    fn reject(&mut self, session: SessionId, update_id: u64, rejection: Rejection) {
        match rejection {
            Rejection::Incomplete(lacks) => self.end(session, lacks.into()),
            // It is offered again.
            Rejection::Full => {}
            Rejection::Malformed(what) => self.end(session, CloseReason::MalformedUpdate(what)),
            Rejection::Taken(client) => self.end(session, CloseReason::ClientIdTaken(client)),
            Rejection::Excess(excess) => {
                self.refuse(session, update_id, RefuseReason::Excess(excess));
            }
            Rejection::NoComment => {
                let rules = self.members.get(&session).map(|member| member.rules);
                if rules == Some(Rules::Yjs) {
                    self.refuse(session, update_id, RefuseReason::WriteDenied);
                } else {
                    self.end(session, CloseReason::WriteDenied);
                }
            }
        }
    }

    /// Keeps an update of a Yjs client until what it lacks is there, or ends its session.
    fn hold(&mut self, now: Instant, incoming: Incoming, lacks: Incomplete) {
        let session = incoming.session;
        let Some(member) = self.members.get_mut(&session) else { return };
        let is_held = member.rules == Rules::Yjs && {
            self.holding += usize::from(member.held.is_none());
            let held = member.held.get_or_insert_with(|| Box::new(Held::new(now, lacks)));
            held.push(incoming, lacks, &self.config)
        };
        if !is_held {
            self.end(session, lacks.into());
        }
    }

    /// Adds to the batch what was held and is complete now.
    fn release_held(&mut self, batch: &mut Batch) -> Result<Vec<Released>, Fault> {
        let mut all = Vec::new();
        let mut fault = None;
        for (session, member) in &mut self.members {
            let Some(mut held) = member.held.take() else { continue };
            let (document, quotas) = (&mut self.document, &self.quotas);
            let comments_root = &self.config.comments_root;
            let mut outcomes = Vec::new();
            let released = held.release(|held| {
                let terms = terms(member.author, held.kind, quotas, comments_root);
                let CheckedUpdate { bytes, scan } = &held.update;
                match document.check(batch, bytes, scan, terms) {
                    Ok(Err(Rejection::Incomplete(_) | Rejection::Full)) => false,
                    Ok(outcome) => {
                        outcomes.push(outcome);
                        true
                    }
                    Err(faulted) => {
                        fault = Some(faulted);
                        false
                    }
                }
            });
            if held.first_id().is_none() {
                self.holding -= 1;
            } else {
                member.held = Some(held);
            }
            for (held, outcome) in released.into_iter().zip(outcomes) {
                let (principal, update) = (member.principal.clone(), held.update.bytes);
                let record = NewRecord { principal, session: *session, update };
                let record = outcome.map(|is_new| is_new.then_some(record));
                all.push((*session, held.update_id, held.arrived, record));
            }
        }
        fault.map_or(Ok(all), Err)
    }

    /// Whether the document would be too large with this many bytes more.
    fn is_too_large(&mut self, more: usize) -> Result<bool, Fault> {
        let max = self.config.document_bytes_max;
        if self.document_bytes + more <= max {
            return Ok(false);
        }
        // The bound adds up updates, which together are smaller. It is measured anew where that
        // can pay: a document that is nearly full is not encoded for every keystroke.
        let state = self.full()?.iter().map(event_bytes).sum::<usize>();
        self.document_bytes = state;
        Ok(state + more > max)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use tokio::sync::{Semaphore, oneshot};

    use super::*;
    use crate::{
        auth::{Access, Grant},
        ids::Sequence,
        room::{
            Join,
            outbox::{Outbox, OutboxLimits},
            state::{Write, checkpoints::tests::idle_room},
        },
    };

    fn join(
        room: &mut State,
        session: SessionId,
    ) -> (Arc<Outbox>, oneshot::Receiver<Result<(), CloseReason>>) {
        let outbox = Outbox::new(OutboxLimits { items_max: 100, bytes_max: 1 << 20 });
        let principal = Principal::new(&session.to_string()).unwrap();
        let join = Join {
            session,
            grant: Grant { principal, access: Access::Write },
            outbox: Arc::clone(&outbox),
            state_vector: Bytes::new(),
            epoch: None,
            resume: None,
            awareness_client_id: None,
            rules: Rules::Cowrite,
        };
        let (reply, joined) = oneshot::channel();
        room.join(Box::new(join), reply);
        (outbox, joined)
    }

    fn typed(client: u8, deletions: &[u8]) -> Vec<u8> {
        [&[1, 1, client, 0, 4, 1, 1, b'r', 1, b'y'][..], deletions].concat()
    }

    fn incoming(session: SessionId, update: CheckedUpdate) -> Incoming {
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let (kind, arrived) = (UpdateKind::default(), time::now());
        Incoming { session, update_id: 1, update, kind, arrived, _permit: permit }
    }

    #[tokio::test]
    async fn a_fault_ends_who_caused_it_and_nobody_else() {
        let [alice, mallory, bob] = [1, 2, 3].map(SessionId::from_u64);
        let mut room = idle_room(1);
        let sessions = [alice, mallory, bob].map(|session| join(&mut room, session));
        let now = time::now();
        room.advance(now, LogState::Writable).unwrap();
        // The wall is told that it deletes nothing, and it deletes what there is not: yrs keeps that until
        // it comes, which nobody may be promised.
        let mut poison = CheckedUpdate::new(typed(20, &[0]).into()).unwrap();
        poison.bytes = typed(20, &[1, 9, 1, 5, 1]).into();
        room.stage(incoming(alice, CheckedUpdate::new(typed(10, &[0]).into()).unwrap()));
        room.stage(incoming(mallory, poison));
        room.stage(incoming(bob, CheckedUpdate::new(typed(30, &[0]).into()).unwrap()));
        let later = now + Duration::from_secs(1);
        assert!(matches!(room.advance(later, LogState::Writable), Err(Failed::Fault(_))));
        assert!(room.can_recover() && room.recover(&mut idle_room(1)));

        let mut appended = Vec::new();
        for n in 1..=10 {
            let at = later + Duration::from_secs(n);
            match room.advance(at, LogState::Writable) {
                Ok(Some(Write::Append(append))) => {
                    appended.extend(append.updates.iter().map(|record| record.session));
                    let head = Sequence(1 + appended.len() as u64);
                    room.written(at, Ok(head)).unwrap();
                }
                Ok(Some(Write::Create(_))) => panic!("the document is there"),
                Ok(None) => {}
                // Alone in its batch.
                Err(Failed::Fault(_)) => assert!(room.recover(&mut idle_room_with(&appended))),
                Err(Failed::Append) => panic!("nothing was appended"),
            }
        }
        assert_eq!(appended, [alice, bob]);
        assert_eq!(sessions.map(|(outbox, _)| outbox.is_finished()), [false, true, false]);
    }

    /// The room as it is loaded after these have typed.
    fn idle_room_with(appended: &[SessionId]) -> State {
        let mut room = idle_room(1);
        room.head = Sequence(1 + appended.len() as u64);
        room
    }
}
