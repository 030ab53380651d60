//! A participant who types: a raw session with a copy of the document behind it.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use cowrite_proto::v1::{
    Closing, Join, Joined, Refused, ServerAwareness, server_frame::Frame as Down,
};
use tonic::{Status, transport::Channel};
use yrs::{
    Doc, GetString as _, OffsetKind, Options, ReadTxn as _, Text as _, Transact as _,
    TransactionMut, Update, WriteTxn as _,
    block::ClientID,
    updates::{decoder::Decode as _, encoder::Encode as _},
};

use crate::{Door, RawSession, TestServer, join_as, soon, up};

/// The root that participants type into.
const ROOT: &str = "text";

/// A participant: what it has, and everything that it was told.
#[derive(Debug)]
pub struct Participant {
    session: RawSession,
    doc: Doc,
    chunks: BytesMut,
    update_id: u64,
    /// What the server said at first.
    pub joined: Joined,
    /// Chunks of differences that were received, by size.
    pub chunk_sizes: Vec<usize>,
    /// Complete differences that were received.
    pub differences: usize,
    /// Update frames that were received.
    pub updates: usize,
    /// The highest update id that was acknowledged.
    pub acked: u64,
    /// Updates that were not taken.
    pub refused: Vec<Refused>,
    /// The awareness of others, the latest of each.
    pub awareness: BTreeMap<u64, ServerAwareness>,
    /// Awareness frames that were received.
    pub awareness_frames: usize,
    /// The announcement of the end.
    pub closing: Option<Closing>,
    /// How the stream ended: `Some(None)` for OK.
    pub ended: Option<Option<Status>>,
}

/// An update by a client that is not there yet, which types `text`.
#[must_use]
pub fn text_update(text: &str) -> Bytes {
    text_update_of(ROOT, text)
}

/// As [`text_update`], into another shared type.
#[must_use]
pub fn text_update_of(root: &str, text: &str) -> Bytes {
    let doc = Doc::with_options(options(client_id()));
    let mut txn = doc.transact_mut();
    txn.get_or_insert_text(root).insert(&mut txn, 0, text);
    txn.encode_update_v1().into()
}

fn client_id() -> u64 {
    u64::from(rand::random::<u32>()).max(1)
}

fn options(client_id: u64) -> Options {
    let mut options = Options::with_client_id(ClientID::new(client_id));
    options.offset_kind = OffsetKind::Utf16;
    options
}

impl Participant {
    /// Somebody new in `document`, with awareness under the id of the copy.
    pub async fn join(server: &TestServer, door: Door, document: &str) -> Self {
        Self::open(server.channel(), door, document).await.expect("the participant is let in")
    }

    /// As [`Self::join`], over a connection of the test's.
    ///
    /// # Errors
    ///
    /// The status of the refusal.
    pub async fn open(channel: Channel, door: Door, document: &str) -> Result<Self, Status> {
        let id = client_id();
        Self::open_with(channel, door, join_as(document, id), Doc::with_options(options(id))).await
    }

    /// Somebody who brings a copy and knows how to join with it.
    ///
    /// # Errors
    ///
    /// The status of the refusal.
    pub async fn open_with(
        channel: Channel,
        door: Door,
        join: Join,
        doc: Doc,
    ) -> Result<Self, Status> {
        let (session, joined) = RawSession::open(channel, door, join).await?;
        Ok(Self {
            session,
            doc,
            chunks: BytesMut::new(),
            update_id: 0,
            joined,
            chunk_sizes: Vec::new(),
            differences: 0,
            updates: 0,
            acked: 0,
            refused: Vec::new(),
            awareness: BTreeMap::new(),
            awareness_frames: 0,
            closing: None,
            ended: None,
        })
    }

    /// Comes back with the copy that it has, at `sequence`, as a client does after a loss.
    ///
    /// # Errors
    ///
    /// The status of the refusal.
    pub async fn come_back(
        self,
        channel: Channel,
        door: Door,
        document: &str,
        sequence: u64,
    ) -> Result<Self, Status> {
        let Self { session, doc, joined, .. } = self;
        drop(session);
        let state_vector = doc.transact().state_vector().encode_v1().into();
        let id = doc.client_id().get();
        let join = Join {
            state_vector,
            epoch: joined.epoch,
            resume_sequence: sequence,
            ..join_as(document, id)
        };
        Self::open_with(channel, door, join, doc).await
    }

    /// The Yjs client id of the copy, under which it announces awareness.
    #[must_use]
    pub fn client_id(&self) -> u64 {
        self.doc.client_id().get()
    }

    /// The copy.
    #[must_use]
    pub fn doc(&self) -> &Doc {
        &self.doc
    }

    /// The session, for frames by hand.
    pub fn session(&mut self) -> &mut RawSession {
        &mut self.session
    }

    /// The text of the copy.
    #[must_use]
    pub fn text(&self) -> String {
        let text = self.doc.get_or_insert_text(ROOT);
        text.get_string(&self.doc.transact())
    }

    /// Changes the copy, and returns the change for a frame of the test's own.
    pub fn change(&mut self, change: impl FnOnce(&mut TransactionMut<'_>)) -> Bytes {
        let mut txn = self.doc.transact_mut();
        change(&mut txn);
        txn.encode_update_v1().into()
    }

    /// Changes the copy by `text` at the end of its text, without sending that.
    pub fn append_unsent(&mut self, text: &str) -> Bytes {
        self.change(|txn| txn.get_or_insert_text(ROOT).push(txn, text))
    }

    /// Types at the end of the text; returns the id of the update.
    pub async fn type_text(&mut self, text: &str) -> u64 {
        let update = self.append_unsent(text);
        self.send_update(update).await.expect("the server takes the message")
    }

    /// Sends an update under the next id.
    ///
    /// # Errors
    ///
    /// What Publish answers.
    pub async fn send_update(&mut self, update: Bytes) -> Result<u64, Status> {
        self.update_id += 1;
        self.session.send([up::update(self.update_id, update)]).await?;
        Ok(self.update_id)
    }

    /// Announces an awareness state.
    pub async fn announce(&mut self, state: &str) {
        let frame = up::awareness(state.as_bytes().to_vec());
        self.session.send([frame]).await.expect("the server takes the message");
    }

    /// Takes the next frame, or the end, once.
    pub async fn step(&mut self) {
        assert!(self.ended.is_none(), "the stream has ended with {:?}", self.ended);
        let frame = match self.session.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return self.ended = Some(None),
            Err(status) => return self.ended = Some(Some(status)),
        };
        match frame {
            Down::Joined(_) => panic!("a second Joined"),
            Down::SyncChunk(chunk) => {
                self.chunk_sizes.push(chunk.bytes.len());
                self.chunks.extend_from_slice(&chunk.bytes);
                if chunk.last {
                    self.differences += 1;
                    let whole = self.chunks.split();
                    self.apply(&whole);
                }
            }
            Down::Update(update) => {
                self.updates += 1;
                self.apply(&update.update);
            }
            Down::Ack(ack) => {
                assert!(ack.update_id > self.acked, "acknowledgements grow");
                self.acked = ack.update_id;
            }
            Down::Refused(refused) => self.refused.push(refused),
            Down::Awareness(state) => {
                self.awareness_frames += 1;
                self.awareness.insert(state.client_id, state);
            }
            // An error shows when the stream is read.
            Down::Ping(ping) => drop(self.session.send([up::pong(ping.nonce)]).await),
            Down::AccessChanged(_) => {}
            Down::Closing(closing) => self.closing = Some(closing),
        }
    }

    fn apply(&mut self, update: &[u8]) {
        let update = Update::decode_v1(update).expect("the server sends updates that can be read");
        let mut txn = self.doc.transact_mut();
        txn.apply_update(update).expect("the server sends updates that can be applied");
        drop(txn);
        let missing = self.doc.transact().has_missing_updates();
        assert!(!missing, "an update came before those that it depends on");
    }

    /// Takes frames until `condition` holds, or the stream ends without it, which fails the test.
    pub async fn wait_until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        soon(what, async {
            while !condition(self) {
                assert!(self.ended.is_none(), "{what}: ended with {:?}", self.ended);
                self.step().await;
            }
        })
        .await;
    }

    /// Takes frames until the initial state is there.
    pub async fn wait_for_sync(&mut self) {
        self.wait_until("the initial state", |p| p.differences > 0).await;
    }

    /// Takes frames until the text is `text`.
    pub async fn wait_for_text(&mut self, text: &str) {
        self.wait_until(&format!("the text {text:?}"), |p| p.text() == text).await;
    }

    /// Takes frames until all own updates are durable.
    pub async fn wait_for_acks(&mut self) {
        let last = self.update_id;
        self.wait_until("an acknowledgement", |p| p.acked >= last).await;
    }

    /// The awareness state of `client`, as JSON text; `None` when it is gone or was never there.
    #[must_use]
    pub fn sees(&self, client: u64) -> Option<&str> {
        let state = &self.awareness.get(&client)?.state;
        (!state.is_empty()).then(|| std::str::from_utf8(state).expect("UTF-8"))
    }

    /// Reads to the end of the stream; `None` for OK.
    pub async fn wait_for_end(&mut self) -> Option<Status> {
        soon("the end of the stream", async {
            while self.ended.is_none() {
                self.step().await;
            }
        })
        .await;
        self.ended.clone().expect("it has ended")
    }

    /// Leaves and reads to the end; `None` for OK.
    pub async fn leave(&mut self) -> Option<Status> {
        self.session.send([up::leave()]).await.expect("the server takes the message");
        self.wait_for_end().await
    }
}
