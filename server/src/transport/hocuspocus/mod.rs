//! The door for Hocuspocus providers, version 3 and 4: `url: "ws://host/hocuspocus"`.
//!
//! A socket carries several documents, each of which is a session of its own. What a client says
//! about a document before it has said who it is waits, within bounds, in order. A document ends
//! with a message in the band and leaves the socket to the others; a provider does not come back for
//! such a document, so that an end after which it should closes the socket, which it opens again.
//! The codes of close frames mean nothing to these versions.
//!
//! Stateless messages are read and passed over, as the reference server does without an extension;
//! one that asks for broadcasting ends its document, because only servers send it.

mod acks;
mod codec;
mod document;

use std::{
    collections::HashMap,
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio_util::sync::WaitForCancellationFutureOwned;

use self::{
    codec::{Incoming, Received, Verdict},
    document::{Document, Ended},
};
use super::{
    lib0::Malformed,
    websocket::{Close, Dialect, Outgoing, Upgrades, code},
    yjs,
};
use crate::{
    session::{CloseReason, Remedy},
    time::{self, Instant},
};

/// Bytes that wait on a socket for their documents to be authenticated.
const WAITING_BYTES_MAX: usize = 5 << 20;

/// Messages that wait on a socket for their documents to be authenticated.
const WAITING_MESSAGES_MAX: usize = 1000;

/// A message above the limit.
const TOO_BIG: u16 = 1009;
/// What the reference calls "reset connection": come back.
const RESET: u16 = 4205;
/// A message that belongs to no document.
const MALFORMED: u16 = 4400;
/// Nobody has said who he is for too long.
const TIMEOUT: u16 = 4408;

/// A socket with several documents.
pub(super) struct Hocuspocus {
    upgrades: Upgrades,
    documents: Vec<Document>,
    /// By the address, what came before somebody said who he is.
    waiting: HashMap<Bytes, Vec<Incoming>>,
    waiting_bytes: usize,
    waiting_messages: usize,
    /// The document that a message went to last: the only one that may have become full.
    last: Option<Bytes>,
    /// The document to be asked first for what it has to say, so that each has its turn.
    turn: usize,
    /// A ping of the client is to be answered.
    is_pinged: bool,
    /// Since when no document is authenticated.
    nobody_since: Option<Instant>,
    /// The end of the socket, after all documents have ended.
    ending: Option<Close>,
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Hocuspocus {
    /// A socket without documents.
    pub(super) fn open(upgrades: &Upgrades) -> Self {
        let draining = upgrades.sessions().draining().clone().cancelled_owned();
        Self {
            upgrades: upgrades.clone(),
            documents: Vec::new(),
            waiting: HashMap::new(),
            waiting_bytes: 0,
            waiting_messages: 0,
            last: None,
            turn: 0,
            is_pinged: false,
            nobody_since: Some(time::now()),
            ending: None,
            draining: Box::pin(draining),
        }
    }

    /// The document at this address; one that was opened without a session takes all sessions of
    /// its name.
    fn find(&mut self, address: &[u8]) -> Option<&mut Document> {
        let name = codec::name(address);
        let at = |address: &[u8]| self.documents.iter().position(|d| d.is_at(address));
        let index = at(address).or_else(|| at(name))?;
        self.documents.get_mut(index)
    }

    fn take(&mut self, incoming: Incoming) -> Result<(), Close> {
        if self.ending.is_some() {
            return Ok(());
        }
        if let Some(document) = self.documents.iter_mut().find(|d| d.is_at(&incoming.address)) {
            self.last = Some(incoming.address.clone());
            document.receive(incoming.rest);
            return Ok(());
        }
        if let Ok(Some(token)) = codec::token(incoming.rest.clone()) {
            self.attach(&incoming.address, token);
            return Ok(());
        }
        if let Some(document) = self.find(&incoming.address) {
            document.receive(incoming.rest);
            self.last = Some(document.address());
            return Ok(());
        }
        // Whether it can be read is looked at when there is somebody whose fault that is.
        self.wait(&incoming)
    }

    fn wait(&mut self, incoming: &Incoming) -> Result<(), Close> {
        if codec::is_close(&incoming.rest) {
            self.forget(&incoming.address);
            return Ok(());
        }
        self.waiting_bytes += incoming.address.len() + incoming.rest.len();
        self.waiting_messages += 1;
        let documents_max = self.upgrades.config().documents_per_socket_max;
        // Copied, because it waits, and is a part of whatever was read from the connection at once.
        let address = Bytes::copy_from_slice(&incoming.address);
        let rest = Bytes::copy_from_slice(&incoming.rest);
        let incoming = Incoming { address: address.clone(), rest };
        self.waiting.entry(address).or_default().push(incoming);
        if self.waiting_bytes > WAITING_BYTES_MAX
            || self.waiting_messages > WAITING_MESSAGES_MAX
            || self.waiting.len() > documents_max
        {
            return Err(Close::new(RESET, "too much was sent before it was said who sends it"));
        }
        Ok(())
    }

    fn forget(&mut self, address: &[u8]) -> Vec<Incoming> {
        let waiting = self.waiting.remove(address).unwrap_or_default();
        self.waiting_messages -= waiting.len();
        let bytes = waiting.iter().map(|incoming| incoming.address.len() + incoming.rest.len());
        self.waiting_bytes -= bytes.sum::<usize>();
        waiting
    }

    /// Opens the session of a document, whose token came.
    fn attach(&mut self, address: &[u8], token: String) {
        let address = Bytes::copy_from_slice(address);
        let waiting = self.forget(&address);
        let max = self.upgrades.config().documents_per_socket_max;
        let mut document = if self.documents.len() >= max {
            Document::refused(address.clone(), "too many documents on one connection")
        } else {
            Document::open(&self.upgrades, address.clone(), token)
        };
        for incoming in waiting {
            document.receive(incoming.rest);
        }
        self.documents.push(document);
        self.last = Some(address);
    }

    /// What the end of a document means for the socket.
    fn ended(&mut self, ended: Ended) -> Result<(), Close> {
        match ended {
            Ended::Alone => Ok(()),
            Ended::Closed(CloseReason::Draining) => {
                let mut close = Close::new(code::RESTART, CloseReason::Draining.to_string());
                close.after = self.upgrades.drain_spread().mul_f64(rand::random_range(0.0..1.0));
                // The others are about to end too, and have acknowledgements to come.
                self.ending.get_or_insert(close);
                Ok(())
            }
            Ended::Closed(reason @ CloseReason::HeartbeatTimeout(_)) => {
                Err(Close::new(TIMEOUT, reason.to_string()))
            }
            Ended::Closed(reason) => Err(Close::new(RESET, reason.to_string())),
        }
    }

    /// Lets one document say what it has to; ready if it said something.
    fn poll_document(
        &mut self,
        index: usize,
        cx: &mut Context<'_>,
        out: &mut Outgoing,
    ) -> Poll<Result<(), Close>> {
        let is_only = self.documents.len() == 1;
        let Some(document) = self.documents.get_mut(index) else { return Poll::Pending };
        match document.poll(cx, is_only, out) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(Ok(())),
            Poll::Ready(Some(ended)) => {
                self.documents.remove(index);
                Poll::Ready(self.ended(ended))
            }
        }
    }
}

impl Dialect for Hocuspocus {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(last) = &self.last else { return Poll::Ready(()) };
        let document = self.documents.iter().find(|document| document.is_at(last));
        document.map_or(Poll::Ready(()), |document| document.poll_ready(cx))
    }

    fn receive(&mut self, message: Bytes) -> Result<(), Close> {
        match codec::read(message) {
            Ok(Received::Message(incoming)) => self.take(incoming),
            Ok(Received::Ping) => {
                self.is_pinged = true;
                self.heard();
                Ok(())
            }
            Ok(Received::Pong) => {
                self.heard();
                Ok(())
            }
            Err(malformed @ Malformed(_)) => Err(Close::new(MALFORMED, malformed.to_string())),
        }
    }

    fn heard(&mut self) {
        for document in &mut self.documents {
            document.heard();
        }
    }

    fn poll_events(&mut self, cx: &mut Context<'_>, out: &mut Outgoing) -> Poll<Result<(), Close>> {
        if self.documents.is_empty() {
            if let Some(close) = self.ending.take() {
                return Poll::Ready(Err(close));
            }
            if self.draining.as_mut().poll(cx).is_ready() {
                return Poll::Ready(self.ended(Ended::Closed(CloseReason::Draining)));
            }
        }
        // No other message may come into the middle of one.
        if let Some(index) = self.documents.iter().position(Document::is_within_message) {
            return self.poll_document(index, cx, out);
        }
        if std::mem::take(&mut self.is_pinged) {
            out.whole(codec::pong());
            return Poll::Ready(Ok(()));
        }
        for _ in 0..self.documents.len() {
            self.turn = (self.turn + 1) % self.documents.len();
            let polled = self.poll_document(self.turn, cx, out);
            if polled.is_ready() {
                let has_somebody = self.documents.iter().any(Document::is_authenticated);
                self.nobody_since = match self.nobody_since {
                    _ if has_somebody => None,
                    since => since.or_else(|| Some(time::now())),
                };
                return polled;
            }
        }
        Poll::Pending
    }

    fn deadline(&self) -> Option<Instant> {
        let timeout = self.upgrades.config().authentication_timeout;
        let nobody = self.nobody_since.map(|since| since + timeout);
        self.documents.iter().filter_map(Document::deadline).chain(nobody).min()
    }

    fn due(&mut self, now: Instant) -> Result<(), Close> {
        for document in &mut self.documents {
            document.due(now);
        }
        let timeout: Duration = self.upgrades.config().authentication_timeout;
        if self.nobody_since.is_some_and(|since| since + timeout <= now) {
            return Err(Close::new(TIMEOUT, "nobody has said who sends on this connection"));
        }
        Ok(())
    }

    fn keep_alive(&mut self, out: &mut Outgoing) {
        if self.documents.iter().any(Document::is_within_message) {
            return;
        }
        // For every version: those before 4 know no ping.
        if let Some(document) = self.documents.iter().find(|document| document.is_authenticated()) {
            document.write(yjs::KEEPALIVE, out);
        }
    }

    fn is_over(&self) -> bool {
        !self.documents.is_empty() && self.documents.iter().all(Document::is_over)
    }

    fn too_large(&self) -> Close {
        Close::new(TOO_BIG, "the message is larger than this server takes")
    }
}

/// What the end of a session says to a client that goes on with other documents.
fn verdict(reason: &CloseReason) -> Verdict {
    match reason.remedy() {
        Remedy::AskOtherwise
        | Remedy::Authenticate
        | Remedy::NewToken
        | Remedy::GetPermission
        | Remedy::Fork
        | Remedy::AskOperator => Verdict::Denied,
        Remedy::MendClient | Remedy::SendLess => Verdict::Closed,
        Remedy::ComeBack | Remedy::ComeBackElsewhere => Verdict::ComeBack,
    }
}

/// Reads a message as a socket does, up to what its document gets.
#[cfg(fuzzing)]
pub(super) fn fuzz(message: Bytes) {
    if let Ok(Received::Message(Incoming { address, rest })) = codec::read(message) {
        assert!(!codec::name(&address).is_empty());
        drop(codec::token(rest.clone()));
        drop(codec::read_rest(rest));
    }
}
