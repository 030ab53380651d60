//! Bounded queue of what waits for one session to be sent.
//!
//! The room puts events in, the session's transport takes everything that is there with one wake-up.
//! Updates are bounded in number and bytes; when they do not fit, the session is lagging: nothing
//! more is queued, and when the transport has taken what was there the room sends one difference.
//! Acknowledgements and awareness are the latest only and take no room in the queue.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    awareness::{AwarenessState, AwarenessTable},
    catch_up::Charge,
    error::{CloseReason, RefuseReason},
};
use crate::{
    auth::Access,
    ids::{Epoch, Sequence, SessionId},
    time,
};

/// How many bytes of updates a transport takes at once, about: more would be held for a reader that
/// has stopped. One event can be larger.
const TAKE_BYTES: usize = 64 << 10;

/// How many wire formats an event can be encoded in.
pub const WIRE_FORMATS: usize = 3;

/// Something that goes to many sessions, with its encodings: each is made once, by the first
/// transport that needs it.
#[derive(Debug)]
pub struct Shared<T> {
    value: T,
    /// Of what one session alone gets: given back with the last part of it.
    _charge: Option<Arc<Charge>>,
    encoded: [OnceLock<Bytes>; WIRE_FORMATS],
}

impl<T> Shared<T> {
    /// Not encoded yet.
    pub fn new(value: T) -> Arc<Self> {
        Self::charged(value, None)
    }

    /// As [`Self::new`], with what its bytes are counted by while it is there.
    pub(super) fn charged(value: T, charge: Option<Arc<Charge>>) -> Arc<Self> {
        let encoded = [const { OnceLock::new() }; WIRE_FORMATS];
        Arc::new(Self { value, _charge: charge, encoded })
    }

    /// What is to be sent.
    pub fn get(&self) -> &T {
        &self.value
    }

    /// Its encoding in `format`, which is below [`WIRE_FORMATS`], made by `encode` the first time.
    pub fn encoded(&self, format: usize, encode: impl FnOnce(&T) -> Bytes) -> Bytes {
        match self.encoded.get(format) {
            Some(slot) => slot.get_or_init(|| encode(&self.value)).clone(),
            None => encode(&self.value),
        }
    }
}

/// What is sent to a session.
#[derive(Clone, Debug)]
pub enum Event {
    /// The session is open.
    Joined(Box<Joined>),
    /// A part of a difference.
    Chunk(Arc<Shared<Chunk>>),
    /// Edits of others, durable.
    Update(Arc<Shared<Update>>),
    /// Edits of this session are durable.
    Ack {
        /// The highest of them.
        update_id: u64,
        /// Its sequence.
        sequence: Sequence,
    },
    /// An update of this session was not taken.
    Refused {
        /// The update.
        update_id: u64,
        /// Why.
        reason: RefuseReason,
    },
    /// The awareness state of another session.
    Awareness(Arc<Shared<AwarenessState>>),
    /// Asks for a sign of life.
    Ping {
        /// To be returned.
        nonce: u64,
    },
    /// The session may do something else from now on.
    AccessChanged(Access),
    /// The token of the session expires soon. For clients that do not look themselves.
    TokenExpiring,
    /// The session is about to end.
    Closing {
        /// Why.
        reason: CloseReason,
        /// When to come back.
        retry_after: Option<Duration>,
    },
}

/// The session is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The session.
    pub session: SessionId,
    /// What the session may do.
    pub access: Access,
    /// Which history the document has; `None` for a document that does not exist yet.
    pub epoch: Option<Epoch>,
    /// What the document has (yrs v1 state vector).
    pub state_vector: Bytes,
    /// What the initial state goes up to.
    pub sync_sequence: Sequence,
    /// The missing updates follow one by one, and no chunk.
    pub resumed: bool,
}

/// A part of a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// A part of a yrs v1 update.
    pub bytes: Bytes,
    /// The last part.
    pub last: bool,
    /// What the difference goes up to.
    pub sequence: Sequence,
    /// The bytes of all parts.
    pub total: usize,
    /// The state vector (yrs v1) of the document, if the session has asked for the difference, by its
    /// join or since; else the session had been lagging.
    pub asked: Option<Bytes>,
}

/// Edits, durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The sequence of the last one.
    pub sequence: Sequence,
    /// yrs v1 update.
    pub update: Bytes,
}

/// How a session ended, after everything before it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The client left.
    Left,
    /// The server ended it.
    Closed {
        /// Why.
        reason: CloseReason,
        /// When to come back.
        retry_after: Option<Duration>,
    },
}

/// How much an outbox holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Updates.
    pub items_max: usize,
    /// Bytes of updates.
    pub bytes_max: usize,
}

/// Whether an update went into an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It did.
    Queued,
    /// There was no room: the session is lagging from now on.
    Overflow,
    /// The session was lagging already.
    Lagging,
}

/// Bounded queue of what waits for one session.
#[derive(Debug)]
pub struct Outbox {
    limits: OutboxLimits,
    inner: Mutex<Inner>,
    /// Told once, when the session has ended.
    finished: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<Event>,
    /// Updates in `queue`, and their bytes.
    updates: usize,
    update_bytes: usize,
    /// Refusals in `queue`.
    refusals: usize,
    /// Parts of differences in `queue`.
    chunks: usize,
    ack: Option<(u64, Sequence)>,
    awareness: Option<AwarenessCursor>,
    lagging: bool,
    /// The room waits until everything is taken.
    awaited: bool,
    /// Told when a session for which the room waits has taken everything.
    drained: Option<Arc<Notify>>,
    end: Option<End>,
    ended: bool,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct AwarenessCursor {
    table: Arc<Mutex<AwarenessTable>>,
    session: SessionId,
    /// The Yjs client that nothing is told of: the session itself.
    own: Option<u64>,
    seen: u64,
    pending: bool,
    /// Nothing is told before it is known who the session is itself.
    told: bool,
}

impl Outbox {
    /// An empty outbox.
    #[must_use]
    pub fn new(limits: OutboxLimits) -> Arc<Self> {
        Arc::new(Self { limits, inner: Mutex::default(), finished: Notify::new() })
    }

    /// Connects the outbox to its room: where awareness comes from, and who is told when a lagging
    /// session has taken everything. Awareness waits for [`Self::tell_awareness`] unless `told`.
    pub(super) fn attach(
        &self,
        session: SessionId,
        table: Arc<Mutex<AwarenessTable>>,
        drained: Arc<Notify>,
        told: bool,
    ) {
        let mut inner = self.inner.lock();
        let cursor = AwarenessCursor { table, session, own: None, seen: 0, pending: true, told };
        inner.awareness = Some(cursor);
        inner.drained = Some(drained);
        inner.wake();
    }

    /// Tells the awareness of others from now on. A Yjs client takes over what it hears of its own
    /// id, so that it is told nothing before it has said which id that is, or has said nothing for a
    /// while.
    pub fn tell_awareness(&self) {
        let mut inner = self.inner.lock();
        if let Some(cursor) = &mut inner.awareness
            && !cursor.told
        {
            cursor.told = true;
            cursor.table.lock().freshen(time::now());
            inner.wake();
        }
    }

    /// Tells the awareness of all others anew.
    pub fn repeat_awareness(&self) {
        let mut inner = self.inner.lock();
        if let Some(cursor) = &mut inner.awareness {
            (cursor.seen, cursor.pending, cursor.told) = (0, true, true);
            cursor.table.lock().freshen(time::now());
            inner.wake();
        }
    }

    /// Says which Yjs client the session is, and tells it of the others.
    pub(super) fn bind_awareness(&self, client_id: u64) {
        if let Some(cursor) = &mut self.inner.lock().awareness {
            cursor.own = Some(client_id);
        }
        self.tell_awareness();
    }

    /// Whether the session has been told of others.
    pub(super) fn is_awareness_told(&self) -> bool {
        self.inner.lock().awareness.as_ref().is_some_and(|cursor| cursor.told)
    }

    /// Which Yjs client the session is, if its first awareness state has said so.
    #[must_use]
    pub fn awareness_client_id(&self) -> Option<u64> {
        self.inner.lock().awareness.as_ref().and_then(|cursor| cursor.own)
    }

    /// Queues an update, unless there is no room for it.
    pub(super) fn push_update(&self, update: &Arc<Shared<Update>>) -> Pushed {
        let bytes = update.get().update.len();
        let mut inner = self.inner.lock();
        if inner.lagging {
            return Pushed::Lagging;
        }
        if inner.end.is_some() {
            return Pushed::Queued;
        }
        // A single update above the limit still fits into an empty outbox: else its session would
        // never get it but by a difference, which is larger.
        let fits = inner.updates < self.limits.items_max
            && (inner.updates == 0 || inner.update_bytes + bytes <= self.limits.bytes_max);
        if !fits {
            inner.lagging = true;
            return Pushed::Overflow;
        }
        inner.queue_event(Event::Update(Arc::clone(update)));
        Pushed::Queued
    }

    /// Queues anything but acknowledgements and awareness. Not bounded here: the number of such
    /// events is bounded by what causes them.
    pub fn push(&self, event: Event) {
        let mut inner = self.inner.lock();
        if inner.end.is_none() {
            inner.queue_event(event);
        }
    }

    /// Queues that the session may do something else from now on, in the place of what was queued of
    /// that before: a client that changes its token again and again and does not read is told once.
    pub fn access_changed(&self, access: Access) {
        let mut inner = self.inner.lock();
        if inner.end.is_some() {
            return;
        }
        let told = |event: &Event| matches!(event, Event::AccessChanged(_));
        match inner.queue.iter().position(told).and_then(|at| inner.queue.get_mut(at)) {
            Some(event) => *event = Event::AccessChanged(access),
            None => inner.queue_event(Event::AccessChanged(access)),
        }
    }

    /// Queues the refusal of an update; returns whether there was room for it. A client that sends
    /// and does not read is answered as often as it is sent updates, and no oftener.
    pub(super) fn refuse(&self, update_id: u64, reason: RefuseReason) -> bool {
        let mut inner = self.inner.lock();
        let fits = inner.refusals < self.limits.items_max;
        if fits && inner.end.is_none() {
            inner.queue_event(Event::Refused { update_id, reason });
        }
        fits
    }

    /// Sets the latest acknowledgement. It is sent after what is queued now; a session that is
    /// lagging gets it after the difference, so that it has been sent all up to `sequence`.
    pub(super) fn acknowledge(&self, update_id: u64, sequence: Sequence) {
        let mut inner = self.inner.lock();
        if inner.end.is_some() {
            // It could be of something that was not queued any more.
            return;
        }
        let latest = inner.ack.map_or(update_id, |(earlier, _)| earlier.max(update_id));
        inner.ack = Some((latest, sequence));
        inner.wake();
    }

    /// Says that there is awareness to be fetched.
    pub(super) fn awareness_changed(&self) {
        let mut inner = self.inner.lock();
        if let Some(cursor) = &mut inner.awareness {
            cursor.pending = true;
            inner.wake();
        }
    }

    /// Whether a lagging session has taken everything and waits for a difference.
    pub(super) fn is_drained(&self) -> bool {
        let inner = self.inner.lock();
        inner.lagging && inner.queue.is_empty()
    }

    /// How many parts of differences wait.
    pub(super) fn chunks(&self) -> usize {
        self.inner.lock().chunks
    }

    /// Whether a difference may be queued: no part of an earlier one waits. If there is one, the room
    /// is told when everything is taken.
    pub(super) fn takes_difference(&self) -> bool {
        let mut inner = self.inner.lock();
        let free = inner.chunks == 0;
        inner.awaited |= !free;
        free
    }

    /// Ends the lagging with these events, which bring the session up to date.
    pub(super) fn resync(&self, events: impl IntoIterator<Item = Event>) {
        let mut inner = self.inner.lock();
        if inner.end.is_none() {
            for event in events {
                inner.queue_event(event);
            }
        }
        inner.lagging = false;
        inner.wake();
    }

    /// Ends the session after what is queued. The first call counts.
    pub fn finish(&self, end: End) {
        let mut inner = self.inner.lock();
        if inner.end.is_some() {
            return;
        }
        if let End::Closed { reason, retry_after } = &end {
            let (reason, retry_after) = (reason.clone(), *retry_after);
            inner.queue.push_back(Event::Closing { reason, retry_after });
        }
        inner.end = Some(end);
        // Nobody sends a difference any more; what is queued is still a prefix of the truth. An
        // acknowledgement would say that everything up to it has been sent.
        if std::mem::take(&mut inner.lagging) {
            inner.ack = None;
        }
        inner.wake();
        self.finished.notify_one();
    }

    /// As [`Self::finish`], for somebody who does not take what is queued: it is thrown away.
    pub(super) fn abandon(&self, end: End) {
        let mut inner = self.inner.lock();
        if inner.end.is_none() {
            inner.queue = VecDeque::new();
            (inner.updates, inner.update_bytes) = (0, 0);
            (inner.refusals, inner.chunks) = (0, 0);
            // It would say that everything up to it has been sent.
            inner.ack = None;
        }
        drop(inner);
        self.finish(end);
    }

    /// Returns when [`Self::finish`] was called. For one who waits.
    ///
    /// # Cancellation
    ///
    /// Safe.
    pub async fn finished(&self) {
        while !self.is_finished() {
            self.finished.notified().await;
        }
    }

    /// Whether [`Self::finish`] was called.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.inner.lock().end.is_some()
    }

    /// Takes what is there, about 64 KiB at most, appending it to `events`; then the end, once.
    /// `Ready(None)` means that there were events. One reader at a time.
    pub fn poll_take(&self, cx: &mut Context<'_>, events: &mut Vec<Event>) -> Poll<Option<End>> {
        let mut inner = self.inner.lock();
        inner.take(events);
        if !events.is_empty() {
            return Poll::Ready(None);
        }
        if let Some(end) = inner.end.clone() {
            inner.ended = true;
            return Poll::Ready(Some(end));
        }
        if !inner.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            inner.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Events and bytes of updates that wait.
    #[cfg(test)]
    pub(super) fn load(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.queue.len(), inner.update_bytes)
    }
}

impl Inner {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn queue_event(&mut self, event: Event) {
        if let Event::Update(update) = &event {
            self.updates += 1;
            self.update_bytes += update.get().update.len();
        }
        self.refusals += usize::from(matches!(event, Event::Refused { .. }));
        self.chunks += usize::from(matches!(event, Event::Chunk(_)));
        self.queue.push_back(event);
        self.wake();
    }

    fn take(&mut self, events: &mut Vec<Event>) {
        let mut bytes = 0;
        while bytes < TAKE_BYTES {
            let Some(event) = self.queue.pop_front() else { break };
            match &event {
                Event::Update(update) => {
                    self.updates -= 1;
                    self.update_bytes -= update.get().update.len();
                    bytes += update.get().update.len();
                }
                Event::Chunk(chunk) => {
                    self.chunks -= 1;
                    bytes += chunk.get().bytes.len();
                }
                Event::Refused { .. } => self.refusals -= 1,
                Event::Joined(_)
                | Event::Ack { .. }
                | Event::Awareness(_)
                | Event::Ping { .. }
                | Event::AccessChanged(_)
                | Event::TokenExpiring
                | Event::Closing { .. } => {}
            }
            events.push(event);
        }
        if !self.queue.is_empty() {
            return;
        }
        if self.queue.capacity() > 64 {
            // After a burst: most sessions are idle most of the time.
            self.queue = VecDeque::new();
        }
        if (std::mem::take(&mut self.awaited) || self.lagging)
            && let Some(drained) = &self.drained
        {
            drained.notify_one();
        }
        if self.lagging {
            return;
        }
        if self.end.is_none()
            && let Some(cursor) = &mut self.awareness
            && cursor.pending
            && cursor.told
        {
            cursor.pending = false;
            let table = cursor.table.lock();
            let states = table.after(cursor.seen, cursor.session);
            let states = states.filter(|state| Some(state.get().client_id) != cursor.own);
            events.extend(states.map(Event::Awareness));
            cursor.seen = table.version();
        }
        if let Some((update_id, sequence)) = self.ack.take() {
            // A `Closing` is the last event; what was acknowledged comes before it.
            let at =
                events.len() - usize::from(matches!(events.last(), Some(Event::Closing { .. })));
            events.insert(at, Event::Ack { update_id, sequence });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: OutboxLimits = OutboxLimits { items_max: 3, bytes_max: 100 };

    fn update(sequence: u64, bytes: usize) -> Arc<Shared<Update>> {
        let update = Bytes::from(vec![0; bytes]);
        Shared::new(Update { sequence: Sequence(sequence), update })
    }

    fn take(outbox: &Outbox) -> (Vec<Event>, Poll<Option<End>>) {
        let mut events = Vec::new();
        let poll = outbox.poll_take(&mut Context::from_waker(Waker::noop()), &mut events);
        (events, poll)
    }

    #[test]
    fn an_outbox_holds_no_more_updates_than_its_limits() {
        for (bytes, fit) in [(1, 3), (50, 2), (1000, 1)] {
            let outbox = Outbox::new(LIMITS);
            for sequence in 1..=fit {
                assert_eq!(outbox.push_update(&update(sequence, bytes)), Pushed::Queued);
            }
            assert_eq!(outbox.push_update(&update(9, bytes)), Pushed::Overflow);
            assert_eq!(outbox.push_update(&update(10, 1)), Pushed::Lagging);
            assert_eq!(outbox.load().0, usize::try_from(fit).unwrap());
        }
    }

    #[test]
    fn a_lagging_session_gets_its_acknowledgement_after_the_difference() {
        let outbox = Outbox::new(LIMITS);
        for sequence in 1..=4 {
            outbox.push_update(&update(sequence, 1));
        }
        outbox.acknowledge(7, Sequence(5));
        assert!(!outbox.is_drained());
        let (events, _) = take(&outbox);
        assert!(events.iter().all(|event| matches!(event, Event::Update(_))), "{events:?}");
        assert!(outbox.is_drained());
        let chunk =
            Chunk { bytes: Bytes::new(), last: true, sequence: Sequence(5), total: 0, asked: None };
        outbox.resync([Event::Chunk(Shared::new(chunk))]);
        let (events, _) = take(&outbox);
        assert!(
            matches!(
                events[..],
                [Event::Chunk(_), Event::Ack { update_id: 7, sequence: Sequence(5) }]
            ),
            "{events:?}"
        );
    }

    #[test]
    fn acknowledgements_are_the_latest_only_and_follow_what_came_before() {
        let outbox = Outbox::new(LIMITS);
        outbox.acknowledge(1, Sequence(1));
        outbox.push_update(&update(2, 1));
        outbox.acknowledge(3, Sequence(3));
        let (events, _) = take(&outbox);
        assert!(
            matches!(events[..], [Event::Update(_), Event::Ack { update_id: 3, .. }]),
            "{events:?}"
        );
    }

    #[test]
    fn the_end_comes_after_everything_else_and_nothing_after_it() {
        let outbox = Outbox::new(LIMITS);
        outbox.push_update(&update(1, 1));
        outbox.acknowledge(1, Sequence(1));
        let closed = End::Closed { reason: CloseReason::Draining, retry_after: None };
        outbox.finish(closed.clone());
        outbox.finish(End::Left);
        outbox.push(Event::Ping { nonce: 1 });
        let (events, poll) = take(&outbox);
        assert!(
            matches!(events[..], [Event::Update(_), Event::Ack { .. }, Event::Closing { .. }]),
            "{events:?}"
        );
        assert_eq!(poll, Poll::Ready(None));
        assert_eq!(take(&outbox).1, Poll::Ready(Some(closed)));
    }

    #[test]
    fn what_a_session_gets_that_comes_back_counts_like_everything_else() {
        let outbox = Outbox::new(LIMITS);
        for sequence in 1..=2 {
            outbox.push(Event::Update(update(sequence, 10)));
        }
        assert_eq!(outbox.load(), (2, 20));
        drop(take(&outbox));
        assert_eq!(outbox.load(), (0, 0));
    }

    #[test]
    fn a_lagging_session_that_ends_is_not_told_that_it_has_everything() {
        let outbox = Outbox::new(LIMITS);
        for sequence in 1..=4 {
            outbox.push_update(&update(sequence, 1));
        }
        outbox.acknowledge(7, Sequence(5));
        outbox.finish(End::Closed { reason: CloseReason::Draining, retry_after: None });
        outbox.acknowledge(8, Sequence(6));
        let mut all = Vec::new();
        while let (events, Poll::Ready(None)) = take(&outbox) {
            all.extend(events);
        }
        assert!(!all.iter().any(|event| matches!(event, Event::Ack { .. })), "{all:?}");
    }

    #[test]
    fn what_is_abandoned_is_given_back_at_once_and_only_the_end_is_left() {
        let outbox = Outbox::new(LIMITS);
        let chunk =
            Chunk { bytes: Bytes::new(), last: true, sequence: Sequence(5), total: 0, asked: None };
        let chunk = Shared::new(chunk);
        outbox.push(Event::Chunk(Arc::clone(&chunk)));
        outbox.push_update(&update(1, 1));
        outbox.acknowledge(7, Sequence(5));
        let end = End::Closed { reason: CloseReason::TooSlow(Duration::ZERO), retry_after: None };
        outbox.abandon(end.clone());
        assert_eq!((Arc::strong_count(&chunk), outbox.chunks()), (1, 0));
        let (events, _) = take(&outbox);
        assert!(matches!(events[..], [Event::Closing { .. }]), "{events:?}");
        assert_eq!(take(&outbox).1, Poll::Ready(Some(end)));
    }

    #[test]
    fn refusals_that_nobody_reads_are_bounded() {
        let outbox = Outbox::new(LIMITS);
        let refusals = (0..100).filter(|id| outbox.refuse(*id, RefuseReason::LogFull)).count();
        assert_eq!(refusals, LIMITS.items_max);
        drop(take(&outbox));
        assert!(outbox.refuse(100, RefuseReason::LogFull));
    }

    #[test]
    fn a_large_backlog_is_taken_in_parts() {
        let outbox = Outbox::new(OutboxLimits { items_max: 100, bytes_max: 1 << 20 });
        for sequence in 1..=10 {
            outbox.push_update(&update(sequence, 20 << 10));
        }
        let counts: Vec<_> = std::iter::from_fn(|| {
            let (events, _) = take(&outbox);
            (!events.is_empty()).then_some(events.len())
        })
        .collect();
        assert_eq!(counts, [4, 4, 2]);
        assert_eq!(outbox.load(), (0, 0));
    }

    #[test]
    fn an_event_is_encoded_once_for_each_format() {
        let update = update(1, 1);
        let mut calls = 0;
        for _ in 0..3 {
            for format in [0, 1] {
                update.encoded(format, |_| {
                    calls += 1;
                    Bytes::new()
                });
            }
        }
        assert_eq!(calls, 2);
    }
}
