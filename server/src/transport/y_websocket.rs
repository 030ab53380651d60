//! The door for y-websocket: `new WebsocketProvider("ws://host/yjs", "document", ydoc)`.
//!
//! One socket is one session. The token is the parameter `token` (`params: {token}`), or travels as
//! a sub-protocol (`protocols: ["cowrite", "cowrite.token.<token>"]`), which keeps it out of the
//! logs of proxies. The document is the path behind `/yjs/`, its escapes undone once.
//!
//! The provider comes back after any close but those from 4400 to 4499, after which it stops for
//! good: so that is what is said where coming back cannot help, and nowhere else. It has no
//! acknowledgement, and no way to be told that an update was not taken.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;

use super::{
    lib0::{Malformed, Reader},
    websocket::{Close, Dialect, Feed, Outgoing, Upgrades, code, feed, shrink},
    yjs::{self, Differences, Sync},
};
use crate::{
    session::{
        CloseReason, End, Event, Frame, Join, Outbox, PROTOCOL_VERSION, RefuseReason, Remedy,
        Rules, SessionId,
    },
    time::{self, Instant},
};

/// How long a client may take to say which Yjs client it is before it is told of others.
const AWARENESS_WAIT: Duration = Duration::from_secs(1);

/// States in one message of a client that has not said which it is: it says so in one with its own.
const FIRST_STATES_MAX: usize = 4;

/// How long a client whose edits do not fit on the disk keeps its connection: coming back at once
/// would change nothing.
const DISK_WAIT: Duration = Duration::from_secs(5);

/// Which document, and with which credentials.
#[derive(Clone, Debug)]
pub(super) struct Request {
    /// The document, not checked yet.
    pub(super) document: String,
    /// The credentials.
    pub(super) token: String,
}

/// One session on a socket of its own.
pub(super) struct YWebSocket {
    feed: Feed,
    outbox: Arc<Outbox>,
    events: Vec<Event>,
    differences: Differences,
    update_id: u64,
    /// When the client is told of others, whether it has said who it is or not.
    tell_at: Option<Instant>,
    /// The client was told that it may not write.
    is_denied: bool,
    /// A close that waits.
    ending: Option<(Instant, Close)>,
    /// What the session ended with.
    closing: Option<Close>,
    drain_spread: Duration,
}

impl YWebSocket {
    /// Opens the session.
    pub(super) fn open(upgrades: &Upgrades, request: Request) -> Self {
        let Request { document, token } = request;
        let join = Join {
            protocol_version: PROTOCOL_VERSION,
            document,
            token: token.into(),
            rules: Rules::Yjs,
            ..Join::default()
        };
        let (feed, fed) = feed(Frame::Join(Box::new(join)));
        // The session ends with its frames, so that what was sent before a goodbye counts.
        let (outbox, _) = upgrades.sessions().open(SessionId::random(), fed);
        Self {
            feed,
            outbox,
            events: Vec::new(),
            differences: Differences::default(),
            update_id: 0,
            tell_at: None,
            is_denied: false,
            ending: None,
            closing: None,
            drain_spread: upgrades.drain_spread(),
        }
    }

    fn read(&mut self, message: Bytes) -> Result<(), Malformed> {
        let mut reader = Reader::new(message);
        // Mostly one; newer clients put several into one frame.
        while !reader.is_empty() {
            match reader.number()? {
                yjs::SYNC => self.sync(Sync::read(&mut reader)?),
                yjs::AWARENESS => {
                    let mut states = yjs::read_awareness(&mut reader)?;
                    match self.outbox.awareness_client_id() {
                        Some(own) => states.retain(|state| state.client_id == own),
                        None if states.len() > FIRST_STATES_MAX => states.clear(),
                        None => {}
                    }
                    for state in states {
                        let bytes = state.state.len();
                        self.feed.push(Frame::Presence(state), bytes);
                    }
                }
                // Means nothing from a client; the reference server passes over it.
                yjs::AUTH => {
                    reader.number()?;
                    reader.text()?;
                }
                yjs::QUERY_AWARENESS => self.outbox.repeat_awareness(),
                _ => return Err(Malformed("an unknown kind of message")),
            }
        }
        Ok(())
    }

    fn sync(&mut self, sync: Sync) {
        let (bytes, frame) = match sync {
            Sync::Step1(state_vector) => (state_vector.len(), Frame::Sync(state_vector)),
            // There is nobody to be told that nothing was taken.
            Sync::Step2(update) | Sync::Update(update) if *update == *yjs::EMPTY_UPDATE => return,
            Sync::Step2(update) => {
                self.update_id += 1;
                (update.len(), Frame::Difference { update_id: self.update_id, update })
            }
            Sync::Update(update) => {
                self.update_id += 1;
                (update.len(), Frame::Update { update_id: self.update_id, update })
            }
        };
        self.feed.push(frame, bytes);
    }

    fn write(&mut self, out: &mut Outgoing) {
        let mut states = Vec::new();
        for event in self.events.drain(..) {
            match event {
                Event::Joined(joined) => {
                    self.tell_at = Some(time::now() + AWARENESS_WAIT);
                    out.whole(yjs::step1(&joined.state_vector));
                    // A reader is told so when it writes, which most never do.
                }
                Event::Chunk(chunk) => self.differences.write(&[], chunk.get(), out),
                Event::Update(update) => out.whole(yjs::update(&update)),
                Event::Ack { .. } | Event::TokenExpiring => {}
                Event::Refused { reason, .. } => match reason {
                    RefuseReason::WriteDenied => {
                        if !std::mem::replace(&mut self.is_denied, true) {
                            out.whole(yjs::denied("this session may only read"));
                        }
                    }
                    RefuseReason::DocumentTooLarge(_) | RefuseReason::Excess(_) => {
                        let close = Close::new(4413, reason.to_string());
                        self.ending.get_or_insert((time::now(), close));
                    }
                    RefuseReason::LogFull => {
                        let after = DISK_WAIT.mul_f64(rand::random_range(0.5..1.5));
                        let close = Close::new(code::TRY_AGAIN, reason.to_string());
                        self.ending.get_or_insert((time::now() + after, close));
                    }
                },
                // There are no words for it. Who may only read from now on is told when it writes.
                Event::AccessChanged(_) => self.is_denied = false,
                Event::Awareness(state) => states.push(state),
                Event::Ping { nonce } => out.ping(nonce),
                Event::Closing { reason, .. } => {
                    self.closing = Some(closed(&reason, self.drain_spread));
                }
            }
        }
        if !states.is_empty() {
            out.whole(yjs::awareness(&states));
        }
        shrink(&mut self.events);
    }
}

impl Dialect for YWebSocket {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.feed.poll_ready(cx)
    }

    fn receive(&mut self, message: Bytes) -> Result<(), Close> {
        self.read(message).map_err(|malformed| {
            closed(&CloseReason::MalformedFrame(malformed.to_string()), Duration::ZERO)
        })
    }

    fn heard(&mut self) {
        self.feed.push(Frame::Pong, 0);
    }

    fn poll_events(&mut self, cx: &mut Context<'_>, out: &mut Outgoing) -> Poll<Result<(), Close>> {
        match self.outbox.poll_take(cx, &mut self.events) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                self.write(out);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Some(End::Left | End::Closed { .. })) => {
                let left = || Close::new(code::NORMAL, "");
                Poll::Ready(Err(self.closing.take().unwrap_or_else(left)))
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let ending = self.ending.as_ref().map(|(at, _)| *at);
        [self.tell_at, ending].into_iter().flatten().min()
    }

    fn due(&mut self, now: Instant) -> Result<(), Close> {
        if self.tell_at.is_some_and(|at| at <= now) {
            self.tell_at = None;
            self.outbox.tell_awareness();
        }
        match self.ending.take_if(|(at, _)| *at <= now) {
            Some((_, close)) => Err(close),
            None => Ok(()),
        }
    }

    fn keep_alive(&mut self, out: &mut Outgoing) {
        if !self.differences.is_open() {
            out.whole(Bytes::from_static(yjs::KEEPALIVE));
        }
    }

    fn is_over(&self) -> bool {
        self.outbox.is_finished()
    }

    fn too_large(&self) -> Close {
        Close::new(4413, "the message is larger than this server takes")
    }
}

/// What the end of a session is on the wire.
fn closed(reason: &CloseReason, drain_spread: Duration) -> Close {
    let code = match reason.remedy() {
        Remedy::AskOtherwise | Remedy::MendClient => 4400,
        Remedy::Authenticate => 4401,
        Remedy::GetPermission => 4403,
        Remedy::Fork => 4409,
        // The provider would come back with the same message after 1009.
        Remedy::SendLess => 4413,
        Remedy::AskOperator => 4422,
        Remedy::ComeBackElsewhere => code::RESTART,
        // Its application may have put a new token into its parameters; if not, 4401 follows.
        Remedy::ComeBack | Remedy::NewToken => code::TRY_AGAIN,
    };
    let mut close = Close::new(code, reason.to_string());
    if code == code::RESTART {
        // The provider comes back at once and without jitter.
        close.after = drain_spread.mul_f64(rand::random_range(0.0..1.0));
    }
    close
}

/// Reads a message as a session of a fuzz target does.
#[cfg(fuzzing)]
pub(super) fn fuzz(message: Bytes) {
    let mut reader = Reader::new(message);
    while !reader.is_empty() {
        let kind = reader.number();
        let read = match kind {
            Ok(yjs::SYNC) => Sync::read(&mut reader).map(drop),
            Ok(yjs::AWARENESS) => yjs::read_awareness(&mut reader).map(drop),
            Ok(yjs::AUTH) => reader.number().and_then(|_| reader.text()).map(drop),
            Ok(yjs::QUERY_AWARENESS) => Ok(()),
            Ok(_) | Err(_) => return,
        };
        if read.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_coming_back_cannot_help_stops_a_provider() {
        let after = |reason| closed(&reason, Duration::ZERO).code;
        let eviction = CloseReason::HeartbeatTimeout(Duration::from_secs(45));
        assert_eq!(after(eviction), 1013);
        assert_eq!(after(CloseReason::Draining), 1012);
        assert_eq!(after(CloseReason::Unauthenticated), 4401);
        assert_eq!(after(CloseReason::MessageTooLarge(1)), 4413);
        assert_eq!(after(CloseReason::Quarantined), 4422);
    }
}
