//! One document on a socket: a session, and what its client is told of it.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};

use super::{
    super::{
        lib0::Malformed,
        websocket::{Feed, Outgoing, Upgrades, feed, shrink},
        yjs::{self, Differences, Sync},
    },
    acks::Acks,
    codec::{self, ToDocument, Verdict},
    verdict,
};
use crate::{
    session::{
        AwarenessState, CloseReason, End, Event, Frame, Join, Outbox, PROTOCOL_VERSION, Rules,
        SessionId,
    },
    time::{self, Instant},
};

/// How long a client may take to say which Yjs client it is before it is told of others.
const AWARENESS_WAIT: Duration = Duration::from_secs(1);

/// States in one message of a client that has not said which it is: it says so in one with its own.
const FIRST_STATES_MAX: usize = 4;

/// How a document ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The socket goes on.
    Alone,
    /// The socket ends too, for this reason.
    Closed(CloseReason),
}

/// One document on a socket.
pub(super) struct Document {
    address: Bytes,
    /// The beginning of each message.
    head: Bytes,
    session: Option<Session>,
    events: Vec<Event>,
    differences: Differences,
    acks: Acks,
    update_bytes_max: usize,
    is_authenticated: bool,
    /// The session waits for a sign of life.
    is_pinged: bool,
    /// When the client is told of others, whether it has said who it is or not.
    tell_at: Option<Instant>,
    /// The last message to the client, after which nothing more is said; `None` in it for none.
    farewell: Option<Option<Bytes>>,
    /// What the session ended with.
    closing: Option<CloseReason>,
}

struct Session {
    /// `None` after the last frame.
    feed: Option<Feed>,
    outbox: Arc<Outbox>,
}

impl Document {
    /// Opens the session.
    pub(super) fn open(upgrades: &Upgrades, address: Bytes, token: String) -> Self {
        let sessions = upgrades.sessions();
        let document = String::from_utf8_lossy(codec::name(&address)).into_owned();
        let join = Join {
            protocol_version: PROTOCOL_VERSION,
            document,
            token: token.into(),
            rules: Rules::Yjs,
            ..Join::default()
        };
        let (feed, fed) = feed(Frame::Join(Box::new(join)));
        // The session ends with its frames, so that what was sent before a goodbye counts.
        let (outbox, _) = sessions.open(SessionId::random(), fed);
        let update_bytes_max = sessions.config().update_bytes_max;
        Self {
            session: Some(Session { feed: Some(feed), outbox }),
            update_bytes_max,
            ..Self::without_session(address)
        }
    }

    /// A document that cannot be opened.
    pub(super) fn refused(address: Bytes, reason: &str) -> Self {
        let farewell = Some(Some(codec::denied(reason)));
        Self { farewell, ..Self::without_session(address) }
    }

    fn without_session(address: Bytes) -> Self {
        Self {
            head: codec::head(&address),
            address,
            session: None,
            events: Vec::new(),
            differences: Differences::default(),
            acks: Acks::default(),
            update_bytes_max: 0,
            is_authenticated: false,
            is_pinged: false,
            tell_at: None,
            farewell: None,
            closing: None,
        }
    }

    /// Whether messages to this address are for this document.
    pub(super) fn is_at(&self, address: &[u8]) -> bool {
        self.address == address
    }

    /// Where its messages go.
    pub(super) fn address(&self) -> Bytes {
        self.address.clone()
    }

    /// Whether the client has been let in.
    pub(super) fn is_authenticated(&self) -> bool {
        self.is_authenticated
    }

    /// Whether the end of the session waits to be told.
    pub(super) fn is_over(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.outbox.is_finished())
    }

    /// Whether a message has been begun that only this document can end.
    pub(super) fn is_within_message(&self) -> bool {
        self.differences.is_open()
    }

    /// Whether there is room for a message.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.feed() {
            Some(feed) => feed.poll_ready(cx),
            None => Poll::Ready(()),
        }
    }

    fn feed(&self) -> Option<&Feed> {
        self.session.as_ref().and_then(|session| session.feed.as_ref())
    }

    /// Takes a message, without its address.
    pub(super) fn receive(&mut self, rest: Bytes) {
        if self.farewell.is_some() {
            return;
        }
        let taken = codec::read_rest(rest).map(|message| self.take(message));
        if let Err(malformed @ Malformed(_)) = taken {
            self.leave(Some(codec::closed(&malformed.to_string())));
        }
    }

    /// Says nothing more but this, and lets the session end after what it was sent.
    fn leave(&mut self, farewell: Option<Bytes>) {
        self.farewell.get_or_insert(farewell);
        if let Some(session) = &mut self.session {
            session.feed = None;
        }
    }

    fn take(&mut self, message: ToDocument) {
        let (frame, bytes) = match message {
            ToDocument::Sync(Sync::Step1(state_vector)) => {
                let bytes = state_vector.len();
                (Frame::Sync(state_vector), bytes)
            }
            ToDocument::Sync(Sync::Step2(update)) => {
                let update_id = self.acks.number();
                let bytes = update.len();
                (Frame::Difference { update_id, update }, bytes)
            }
            ToDocument::Sync(Sync::Update(update)) => {
                let update_id = self.acks.number();
                let bytes = update.len();
                (Frame::Update { update_id, update }, bytes)
            }
            ToDocument::Awareness(states) => return self.awareness(states),
            ToDocument::Token(token) => (Frame::RefreshToken(token.into()), 0),
            ToDocument::QueryAwareness | ToDocument::Stateless => (Frame::Pong, 0),
            ToDocument::Close => return self.leave(None),
        };
        if let Frame::Update { update_id, update } | Frame::Difference { update_id, update } =
            &frame
            && update.len() > self.update_bytes_max
        {
            // The client can be told so, and goes on.
            return self.acks.refuse(*update_id);
        }
        if let Some(feed) = self.feed() {
            feed.push(frame, bytes);
        }
    }

    fn awareness(&self, states: Vec<AwarenessState>) {
        let Some(Session { feed: Some(feed), outbox }) = &self.session else { return };
        let own = outbox.awareness_client_id();
        if own.is_none() && states.len() > FIRST_STATES_MAX {
            return;
        }
        for state in states.into_iter().filter(|state| own.is_none_or(|own| own == state.client_id))
        {
            let bytes = state.state.len();
            feed.push(Frame::Presence(state), bytes);
        }
    }

    /// The client has given a sign of life.
    pub(super) fn heard(&mut self) {
        if std::mem::take(&mut self.is_pinged)
            && let Some(feed) = self.feed()
        {
            feed.push(Frame::Pong, 0);
        }
    }

    /// When [`Self::due`] is to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.tell_at
    }

    /// Does what is due.
    pub(super) fn due(&mut self, now: Instant) {
        if self.tell_at.is_some_and(|at| at <= now) {
            self.tell_at = None;
            if let Some(session) = &self.session {
                session.outbox.tell_awareness();
            }
        }
    }

    /// A message to the client.
    pub(super) fn write(&self, body: &[u8], out: &mut Outgoing) {
        let mut message = BytesMut::with_capacity(self.head.len() + body.len());
        message.extend_from_slice(&self.head);
        message.extend_from_slice(body);
        out.whole(message.freeze());
    }

    fn write_shared(&self, body: &Bytes, out: &mut Outgoing) {
        let mut head = BytesMut::with_capacity(self.head.len() + body.len().min(4096));
        head.extend_from_slice(&self.head);
        out.message(head, body);
    }

    /// Says what there is to say; ready with `None` if there was something, and with the end once.
    /// `is_only`: there is no other document on the socket.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        is_only: bool,
        out: &mut Outgoing,
    ) -> Poll<Option<Ended>> {
        if !self.is_within_message() {
            if let Some(farewell) = self.farewell.take() {
                if let Some(farewell) = farewell {
                    self.write(&farewell, out);
                }
                return Poll::Ready(Some(Ended::Alone));
            }
            if self.write_statuses(out) {
                return Poll::Ready(None);
            }
        }
        let Some(session) = &self.session else { return Poll::Ready(Some(Ended::Alone)) };
        match session.outbox.poll_take(cx, &mut self.events) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                self.write_events(out);
                Poll::Ready(None)
            }
            Poll::Ready(Some(End::Left | End::Closed { .. })) => {
                Poll::Ready(Some(self.ended(is_only, out)))
            }
        }
    }

    fn write_statuses(&mut self, out: &mut Outgoing) -> bool {
        let mut has_written = false;
        while let Some(is_taken) = self.acks.next() {
            out.whole(codec::sync_status(&self.head, is_taken));
            has_written = true;
        }
        has_written
    }

    fn write_events(&mut self, out: &mut Outgoing) {
        let mut states = Vec::new();
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            match event {
                Event::Chunk(chunk) => {
                    let chunk = chunk.get();
                    if let Some(state_vector) = &chunk.asked
                        && !self.differences.is_open()
                        && self.farewell.is_none()
                    {
                        // Its answer brings what we lack, and ends "unsaved" when it is durable.
                        self.write(&yjs::step1(state_vector), out);
                    }
                    if self.farewell.is_none() || self.differences.is_open() {
                        self.differences.write(&self.head, chunk, out);
                    }
                }
                Event::Ack { update_id, .. } => self.acks.acknowledge(update_id),
                Event::Refused { update_id, .. } => self.acks.refuse(update_id),
                Event::Closing { reason, .. } => self.closing = Some(reason),
                Event::Ping { nonce } => {
                    self.is_pinged = true;
                    out.ping(nonce);
                }
                // Nothing more is said but what was begun.
                Event::Joined(_)
                | Event::Update(_)
                | Event::Awareness(_)
                | Event::AccessChanged(_)
                | Event::TokenExpiring
                    if self.farewell.is_some() => {}
                Event::Joined(joined) => {
                    self.is_authenticated = true;
                    self.tell_at = Some(time::now() + AWARENESS_WAIT);
                    self.write(&codec::authenticated(joined.access), out);
                }
                Event::TokenExpiring => self.write(codec::TOKEN_SYNC, out),
                Event::AccessChanged(access) => self.write(&codec::authenticated(access), out),
                Event::Update(update) => self.write_shared(&yjs::update(&update), out),
                Event::Awareness(state) => states.push(state),
            }
        }
        self.events = events;
        shrink(&mut self.events);
        if self.differences.is_open() || self.farewell.is_some() {
            return;
        }
        if !states.is_empty() {
            self.write_shared(&yjs::awareness(&states), out);
        }
        self.write_statuses(out);
    }

    /// Tells the client about the end of the session.
    fn ended(&mut self, is_only: bool, out: &mut Outgoing) -> Ended {
        let Some(reason) = self.closing.take() else { return Ended::Alone };
        let text = reason.to_string();
        match verdict(&reason) {
            Verdict::Denied => self.write(&codec::denied(&text), out),
            Verdict::Closed => self.write(&codec::closed(&text), out),
            // The others were let in, and should not suffer from this one.
            Verdict::ComeBack if !self.is_authenticated && !is_only => {
                self.write(&codec::denied(&text), out);
            }
            Verdict::ComeBack => return Ended::Closed(reason),
        }
        Ended::Alone
    }
}
