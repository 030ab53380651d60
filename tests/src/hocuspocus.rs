//! A client of the Hocuspocus door: documents on one socket, each with a copy.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
};

use bytes::{Bytes, BytesMut};
use yrs::{
    Doc, GetString as _, ReadTxn as _, StateVector, Text as _, Transact as _, Update,
    updates::{decoder::Decode as _, encoder::Encode as _},
};

use crate::{Lib0, RawSocket, Told, lib0, soon};

/// A socket on which documents are spoken of.
#[derive(Debug)]
pub struct HClient {
    /// The socket.
    pub socket: RawSocket,
    documents: BTreeMap<String, HDocument>,
}

/// One document, and what was told of it.
#[derive(Debug, Default)]
pub struct HDocument {
    doc: Doc,
    clock: u64,
    /// What the client may do, when it was let in.
    pub scope: Option<String>,
    /// Why it was not.
    pub denied: Option<String>,
    /// Why the document was closed.
    pub closed: Option<String>,
    /// Times that a new token was asked for.
    pub asked: usize,
    /// State vectors of the server.
    pub questions: usize,
    /// Differences that answered ours.
    pub differences: usize,
    /// Whether updates were taken, in order.
    pub statuses: VecDeque<bool>,
    /// The awareness of others: clock and JSON.
    pub awareness: BTreeMap<u64, (u64, String)>,
    /// Awareness messages without a state.
    pub keepalives: usize,
}

/// A message to `address`.
#[must_use]
pub fn addressed(address: &str, body: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    lib0::put_bytes(&mut out, address.as_bytes());
    out.extend_from_slice(body);
    out.freeze()
}

impl HDocument {
    /// Its text.
    #[must_use]
    pub fn text(&self) -> String {
        self.doc.get_or_insert_text("text").get_string(&self.doc.transact())
    }

    /// Its copy.
    #[must_use]
    pub fn doc(&self) -> &Doc {
        &self.doc
    }

    /// Its Yjs client id.
    #[must_use]
    pub fn client_id(&self) -> u64 {
        self.doc.client_id().get()
    }

    /// What it knows of the awareness of `client`.
    #[must_use]
    pub fn sees(&self, client: u64) -> Option<&str> {
        let state = self.awareness.get(&client).map(|(_, state)| &state[..]);
        state.filter(|state| *state != "null")
    }

    fn take(&mut self, mut reader: Lib0) -> Option<Bytes> {
        match (reader.number(), reader.number()) {
            (0, 0) => {
                let theirs = StateVector::decode_v1(&reader.bytes()).expect("a state vector");
                self.questions += 1;
                return Some(lib0::message(&[0, 1], &self.doc.transact().encode_diff_v1(&theirs)));
            }
            (0, kind) => {
                let update = Update::decode_v1(&reader.bytes()).expect("an update");
                self.doc.transact_mut().apply_update(update).expect("it applies");
                self.differences += usize::from(kind == 1);
            }
            (1, _) => {
                let count = reader.number();
                self.keepalives += usize::from(count == 0);
                for _ in 0..count {
                    let (client, clock) = (reader.number(), reader.number());
                    self.awareness.insert(client, (clock, reader.text()));
                }
            }
            (2, 0) => self.asked += 1,
            (2, 1) => self.denied = Some(reader.text()),
            (2, 2) => self.scope = Some(reader.text()),
            (8, status) => self.statuses.push_back(status == 1),
            (7, length) => {
                let reason = reader.0.split_to(usize::try_from(length).expect("a length"));
                self.closed = Some(String::from_utf8(reason.to_vec()).expect("UTF-8"));
            }
            other => panic!("a message of kind {other:?}"),
        }
        assert!(reader.0.is_empty(), "bytes after the message");
        None
    }
}

impl HClient {
    /// Opens a socket without documents.
    pub async fn connect(address: SocketAddr) -> Self {
        let socket = RawSocket::open(address, "/hocuspocus", &[]).await.expect("an upgrade");
        Self { socket, documents: BTreeMap::new() }
    }

    /// Opens a socket with one document.
    pub async fn open(address: SocketAddr, document: &str) -> Self {
        let mut client = Self::connect(address).await;
        client.attach(document).await;
        client
    }

    /// Says who it is, and asks for what it lacks, as a provider does.
    pub async fn attach(&mut self, address: &str) {
        self.attach_with(address, Doc::new()).await;
    }

    /// As [`Self::attach`], with a copy from before.
    pub async fn attach_with(&mut self, address: &str, doc: Doc) {
        self.attach_as(address, "tok", doc).await;
    }

    /// As [`Self::attach_with`], with this token.
    pub async fn attach_as(&mut self, address: &str, token: &str, doc: Doc) {
        let state_vector = doc.transact().state_vector().encode_v1();
        self.documents.insert(address.to_owned(), HDocument { doc, ..HDocument::default() });
        self.show(address, token).await;
        self.send(address, &lib0::message(&[0, 0], &state_vector)).await;
    }

    /// Sends a token.
    pub async fn show(&mut self, address: &str, token: &str) {
        let mut message = BytesMut::from(&lib0::message(&[2, 0], token.as_bytes())[..]);
        lib0::put_bytes(&mut message, b"4.8.0");
        self.send(address, &message).await;
    }

    /// Sends a message about a document.
    pub async fn send(&mut self, address: &str, body: &[u8]) {
        self.socket.send_bytes(addressed(address, body)).await;
    }

    /// A document.
    #[must_use]
    pub fn document(&self, address: &str) -> &HDocument {
        self.documents.get(address).expect("a document of this client")
    }

    /// Types at the end, and keeps it.
    pub fn append_unsent(&mut self, address: &str, text: &str) -> Bytes {
        let document = self.documents.get_mut(address).expect("a document of this client");
        let root = document.doc.get_or_insert_text("text");
        let mut txn = document.doc.transact_mut();
        let end = root.len(&txn);
        root.insert(&mut txn, end, text);
        txn.encode_update_v1().into()
    }

    /// Types at the end.
    pub async fn type_text(&mut self, address: &str, text: &str) {
        let update = self.append_unsent(address, text);
        self.send(address, &lib0::message(&[0, 2], &update)).await;
    }

    /// Announces an awareness state: JSON, or `null`.
    pub async fn announce(&mut self, address: &str, state: &str) {
        let document = self.documents.get_mut(address).expect("a document of this client");
        let update = lib0::awareness(&[(document.client_id(), document.clock, state)]);
        document.clock += 1;
        self.send(address, &lib0::message(&[1], &update)).await;
    }

    /// Takes what comes next; `Err` at the end.
    ///
    /// # Errors
    ///
    /// The end of the socket.
    pub async fn step(&mut self) -> Result<(), Told> {
        let message = match self.socket.next().await {
            Told::Message(message) => message,
            Told::Ping => return Ok(()),
            end @ (Told::Closed(..) | Told::Lost) => return Err(end),
        };
        let mut reader = Lib0(message);
        let address = reader.text();
        let document = self.documents.get_mut(&address);
        let answer = document.unwrap_or_else(|| panic!("a message to {address:?}")).take(reader);
        if let Some(answer) = answer {
            self.send(&address, &answer).await;
        }
        Ok(())
    }

    /// Takes messages until `condition` holds for a document.
    pub async fn wait_until(
        &mut self,
        address: &str,
        what: &str,
        condition: impl Fn(&HDocument) -> bool,
    ) {
        soon(what, async {
            while !condition(self.document(address)) {
                self.step().await.unwrap_or_else(|end| panic!("the socket ended: {end:?}"));
            }
        })
        .await;
    }

    /// Waits until it has everything and its own difference was taken.
    pub async fn wait_for_sync(&mut self, address: &str) {
        let is_synced = |document: &HDocument| {
            document.scope.is_some() && document.differences > 0 && !document.statuses.is_empty()
        };
        self.wait_until(address, "sync", is_synced).await;
    }

    /// Waits for this text.
    pub async fn wait_for_text(&mut self, address: &str, text: &str) {
        self.wait_until(address, &format!("the text {text:?}"), |d| d.text() == text).await;
    }

    /// Waits until this many updates were told about.
    pub async fn wait_for_statuses(&mut self, address: &str, count: usize) {
        self.wait_until(address, "statuses", |document| document.statuses.len() >= count).await;
    }

    /// Reads to the end of the socket.
    pub async fn end(&mut self) -> Told {
        loop {
            if let Err(end) = self.step().await {
                return end;
            }
        }
    }
}
