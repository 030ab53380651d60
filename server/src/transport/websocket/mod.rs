//! What the WebSocket doors have in common: the upgrade, the limits, and the task of a socket.
//!
//! A socket has one task, which reads and writes. It takes everything that waits in the outboxes,
//! hands it to the socket's buffer, and flushes once. While a client does not take what it is sent,
//! nothing more is taken from its outboxes, which are bounded; while a session does not take what it
//! is sent, nothing more is read. Large messages are sent in fragments, so that the socket's buffer
//! stays small: it keeps the size that it once had.
//!
//! Of several clients behind one proxy each has its own connection, so that not reading one harms
//! nobody else.

mod feed;
mod upgrade;

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{Sink as _, SinkExt as _, Stream as _, StreamExt as _};
use tokio::{
    io::AsyncReadExt as _,
    time::{Sleep, sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        error::ProtocolError,
        protocol::{
            CloseFrame, Role, WebSocketConfig,
            frame::{
                Frame,
                coding::{Data, OpCode},
            },
        },
    },
};

pub(super) use self::{
    feed::{Feed, feed},
    upgrade::{Offer, Upgrades, credentials, percent_decoded},
};
use super::listener::Wire;
use crate::{
    session::Event,
    time::{self, Instant},
};

/// The size of a socket's buffers. The library's own is 128 KiB, which costs 136 KiB of memory for
/// each connection and 2.6 times the processor time for each message.
const BUFFER_BYTES: usize = 2 << 10;

/// The largest fragment: the largest message that a buffer has to hold.
const FRAGMENT_BYTES: usize = 4 << 10;

/// Messages that wait for the socket, from which on nothing more is read that could be answered.
const WAITING_MAX: usize = 64;

/// Something is sent this long after the last message at the latest. Clients take a connection for
/// dead on which nothing came for 30 s.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// How long a client that does not read is given when its session is over already.
const BLOCKED_CHECK: Duration = Duration::from_secs(5);

/// How long the last messages and the close handshake may take.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// How long a client whose bytes cannot be read may be silent before its connection is closed.
const SILENCE: Duration = Duration::from_millis(500);

/// The longest reason that fits into a close frame, in bytes.
const CLOSE_REASON_BYTES_MAX: usize = 123;

/// The codes of a close frame that every door uses.
pub(super) mod code {
    /// The client left.
    pub(in super::super) const NORMAL: u16 = 1000;
    /// A frame that is not one of the WebSocket protocol.
    pub(super) const PROTOCOL: u16 = 1002;
    /// A text message.
    pub(super) const UNSUPPORTED: u16 = 1003;
    /// The server shuts down.
    pub(in super::super) const RESTART: u16 = 1012;
    /// Come back.
    pub(in super::super) const TRY_AGAIN: u16 = 1013;
}

/// The end of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Close {
    /// The code of the close frame.
    pub(super) code: u16,
    /// For people.
    pub(super) reason: String,
    /// How long to wait before it is said: those who come back at once should not all do.
    pub(super) after: Duration,
}

impl Close {
    /// A close at once.
    pub(super) fn new(code: u16, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), after: Duration::ZERO }
    }

    fn message(&self) -> Message {
        let mut end = self.reason.len().min(CLOSE_REASON_BYTES_MAX);
        while !self.reason.is_char_boundary(end) {
            end -= 1;
        }
        let reason = self.reason.get(..end).unwrap_or_default();
        Message::Close(Some(CloseFrame { code: self.code.into(), reason: reason.into() }))
    }
}

/// What is said on a socket, and to whom it goes.
pub(super) trait Dialect: Send + 'static {
    /// Whether another message may be read; its sessions wake `cx` when they have taken more.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()>;

    /// Takes a message.
    ///
    /// # Errors
    ///
    /// The end of the socket.
    fn receive(&mut self, message: Bytes) -> Result<(), Close>;

    /// The client has given a sign of life that is no message.
    fn heard(&mut self);

    /// Puts into `out` what sessions have to say.
    ///
    /// # Errors
    ///
    /// The end of the socket, after what is in `out`.
    fn poll_events(&mut self, cx: &mut Context<'_>, out: &mut Outgoing) -> Poll<Result<(), Close>>;

    /// When [`Self::due`] is to be called.
    fn deadline(&self) -> Option<Instant>;

    /// Does what is due.
    ///
    /// # Errors
    ///
    /// The end of the socket.
    fn due(&mut self, now: Instant) -> Result<(), Close>;

    /// Says something, because nothing was said for a while.
    fn keep_alive(&mut self, out: &mut Outgoing);

    /// Whether the sessions have ended, so that the client can only be told so.
    fn is_over(&self) -> bool;

    /// The end of a socket whose client has sent a message above the limit.
    fn too_large(&self) -> Close;
}

/// Messages that wait for the socket.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    messages: VecDeque<Message>,
}

impl Outgoing {
    /// A message.
    pub(super) fn whole(&mut self, message: Bytes) {
        if message.len() <= FRAGMENT_BYTES {
            self.messages.push_back(Message::Binary(message));
        } else {
            self.part(&message, true, true);
        }
    }

    /// A message of a head that is the client's own and a body that is shared.
    pub(super) fn message(&mut self, mut head: BytesMut, body: &Bytes) {
        if head.len() + body.len() <= FRAGMENT_BYTES {
            head.put_slice(body);
            self.messages.push_back(Message::Binary(head.freeze()));
        } else {
            self.part(&head.freeze(), true, false);
            self.part(body, false, true);
        }
    }

    /// A part of a message, in fragments; no other message comes before its last one.
    pub(super) fn part(&mut self, bytes: &Bytes, mut begins: bool, ends: bool) {
        let mut rest = bytes.clone();
        loop {
            let fragment = rest.split_to(rest.len().min(FRAGMENT_BYTES));
            let kind = if begins { Data::Binary } else { Data::Continue };
            let is_final = ends && rest.is_empty();
            let frame = Frame::message(fragment, OpCode::Data(kind), is_final);
            self.messages.push_back(Message::Frame(frame));
            begins = false;
            if rest.is_empty() {
                return;
            }
        }
    }

    /// What a client makes of the fragments of one message.
    #[cfg(test)]
    pub(super) fn into_one_message(self) -> Bytes {
        let count = self.messages.len();
        let mut whole = BytesMut::new();
        for (i, message) in self.messages.into_iter().enumerate() {
            let Message::Frame(frame) = message else { return message.into_data() };
            assert!(frame.payload().len() <= FRAGMENT_BYTES);
            assert_eq!(frame.header().is_final, i + 1 == count);
            let kind = if i == 0 { Data::Binary } else { Data::Continue };
            assert_eq!(frame.header().opcode, OpCode::Data(kind));
            whole.put_slice(frame.payload());
        }
        whole.freeze()
    }

    /// Asks for a sign of life.
    pub(super) fn ping(&mut self, nonce: u64) {
        let nonce = Bytes::copy_from_slice(&nonce.to_be_bytes());
        self.messages.push_back(Message::Ping(nonce));
    }
}

/// Makes room after a burst: most sockets are idle most of the time.
pub(super) fn shrink(events: &mut Vec<Event>) {
    if events.capacity() > 16 {
        *events = Vec::new();
    }
}

/// A socket and what is said on it.
pub(super) struct Socket<D> {
    stream: WebSocketStream<Wire>,
    dialect: D,
    out: Outgoing,
    /// Something is in the buffer of the stream.
    is_unflushed: bool,
    /// The client does not take what it is sent.
    is_blocked: bool,
    /// What the client sends cannot be read any more.
    is_unreadable: bool,
    /// When the last message was sent.
    sent: Instant,
    timer: Pin<Box<Sleep>>,
}

/// The connection is gone: nothing more can be said.
struct Gone;

impl<D: Dialect> Socket<D> {
    /// A socket on a connection that was upgraded; `read` is what was read from it already.
    pub(super) async fn new(wire: Wire, read: &[u8], dialect: D, message_bytes_max: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(BUFFER_BYTES)
            .max_write_buffer_size(BUFFER_BYTES + 4 * FRAGMENT_BYTES)
            .max_message_size(Some(message_bytes_max))
            .max_frame_size(Some(message_bytes_max));
        let stream =
            WebSocketStream::from_partially_read(wire, read.to_vec(), Role::Server, Some(config));
        Self {
            stream: stream.await,
            dialect,
            out: Outgoing::default(),
            is_unflushed: false,
            is_blocked: false,
            is_unreadable: false,
            sent: time::now(),
            timer: Box::pin(sleep(KEEPALIVE)),
        }
    }

    /// Serves the socket to its end.
    pub(super) async fn serve(&mut self) {
        let ended = std::future::poll_fn(|cx| self.poll(cx)).await;
        let Ok(close) = ended else { return };
        sleep(close.after).await;
        // Whether it could be said or not, this is the end.
        drop(timeout(CLOSE_WAIT, self.close(&close)).await);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Close, Gone>> {
        loop {
            match self.poll_write(cx) {
                Poll::Ready(ended) => return Poll::Ready(ended),
                Poll::Pending => {}
            }
            match self.poll_read(cx) {
                Poll::Ready(Ok(Some(close))) => return Poll::Ready(Ok(close)),
                Poll::Ready(Ok(None)) if !self.is_blocked => continue,
                Poll::Ready(Err(Gone)) => return Poll::Ready(Err(Gone)),
                Poll::Ready(Ok(None)) | Poll::Pending => {}
            }
            match self.poll_timer(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(ended)) => return Poll::Ready(ended),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Writes what there is to say; ready at the end.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<Close, Gone>> {
        self.is_blocked = true;
        loop {
            while !self.out.messages.is_empty() {
                match Pin::new(&mut self.stream).poll_ready(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Gone)),
                    Poll::Ready(Ok(())) => {}
                }
                if let Some(message) = self.out.messages.pop_front() {
                    if !message.is_ping() {
                        self.sent = time::now();
                    }
                    self.is_unflushed = true;
                    if Pin::new(&mut self.stream).start_send(message).is_err() {
                        return Poll::Ready(Err(Gone));
                    }
                }
            }
            match self.dialect.poll_events(cx, &mut self.out) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(close)) => return Poll::Ready(Ok(close)),
                Poll::Pending => break,
            }
        }
        if self.out.messages.capacity() > 16 {
            self.out.messages = VecDeque::new();
        }
        if self.is_unflushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Gone)),
                Poll::Ready(Ok(())) => self.is_unflushed = false,
            }
        }
        self.is_blocked = false;
        Poll::Pending
    }

    /// Reads what has come; ready when there may be something to say, or at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Close>, Gone>> {
        let mut has_read = false;
        while self.out.messages.len() < WAITING_MAX && self.dialect.poll_ready(cx).is_ready() {
            let message = match Pin::new(&mut self.stream).poll_next(cx) {
                Poll::Pending if has_read => break,
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(message))) => message,
                Poll::Ready(Some(Err(error))) => {
                    self.is_unreadable = true;
                    return Poll::Ready(self.failed(&error).map(Some).ok_or(Gone));
                }
                Poll::Ready(None) => return Poll::Ready(Err(Gone)),
            };
            has_read = true;
            match message {
                Message::Binary(message) => {
                    if let Err(close) = self.dialect.receive(message) {
                        return Poll::Ready(Ok(Some(close)));
                    }
                }
                Message::Ping(_) | Message::Pong(_) => self.dialect.heard(),
                // It is answered with the next reading, which also ends the stream.
                Message::Close(_) => {}
                Message::Text(_) | Message::Frame(_) => {
                    let close = Close::new(code::UNSUPPORTED, "only binary messages are taken");
                    return Poll::Ready(Ok(Some(close)));
                }
            }
        }
        if has_read { Poll::Ready(Ok(None)) } else { Poll::Pending }
    }

    /// What to say to a client whose bytes cannot be read; `None` if nothing can be said.
    fn failed(&self, error: &Error) -> Option<Close> {
        match error {
            Error::Capacity(_) => Some(self.dialect.too_large()),
            Error::Protocol(fault) if *fault != ProtocolError::ResetWithoutClosingHandshake => {
                Some(Close::new(code::PROTOCOL, error.to_string()))
            }
            Error::Utf8(_) => Some(Close::new(code::UNSUPPORTED, "only binary messages are taken")),
            Error::ConnectionClosed
            | Error::Protocol(_)
            | Error::AlreadyClosed
            | Error::Io(_)
            | Error::Tls(_)
            | Error::WriteBufferFull(_)
            | Error::AttackAttempt
            | Error::Url(_)
            | Error::Http(_)
            | Error::HttpFormat(_) => None,
        }
    }

    /// Ready when something was due.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Result<Close, Gone>>> {
        let wanted = self.dialect.deadline().unwrap_or(self.sent + KEEPALIVE);
        if wanted < self.timer.deadline() {
            self.timer.as_mut().reset(wanted);
        }
        if self.timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let now = time::now();
        if self.is_blocked && self.dialect.is_over() {
            return Poll::Ready(Err(Err(Gone)));
        }
        if self.dialect.deadline().is_some_and(|at| at <= now)
            && let Err(close) = self.dialect.due(now)
        {
            return Poll::Ready(Err(Ok(close)));
        }
        if !self.is_blocked && self.sent + KEEPALIVE <= now {
            self.dialect.keep_alive(&mut self.out);
            // Also if it had nothing to say.
            self.sent = now;
        }
        let next = if self.is_blocked { now + BLOCKED_CHECK } else { self.sent + KEEPALIVE };
        self.timer.as_mut().reset(self.dialect.deadline().map_or(next, |at| at.min(next)));
        Poll::Ready(Ok(()))
    }

    /// Says what is left and that this is the end, and waits until the client has heard it: a
    /// connection that is closed while there is something to be read is reset, and what was said
    /// last is lost.
    async fn close(&mut self, close: &Close) -> Result<(), Error> {
        while let Some(message) = self.out.messages.pop_front() {
            self.stream.feed(message).await?;
        }
        self.stream.send(close.message()).await?;
        if !self.is_unreadable {
            // Until the client has answered; what else it says is thrown away.
            while let Some(message) = self.stream.next().await {
                message?;
            }
            return Ok(());
        }
        // It may be in the middle of a large message.
        let mut bytes = [0; 1024];
        let stream = self.stream.get_mut();
        while let Ok(Ok(1..)) = timeout(SILENCE, stream.read(&mut bytes)).await {}
        Ok(())
    }
}
