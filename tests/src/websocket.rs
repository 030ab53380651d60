//! Clients of the WebSocket doors: a raw socket, and a copy of a document that speaks y-websocket.

use std::{collections::BTreeMap, net::SocketAddr};

use bytes::{Buf as _, Bytes};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest as _,
        protocol::{WebSocketConfig, frame::coding::CloseCode},
    },
};
use yrs::{
    Doc, GetString as _, ReadTxn as _, Text as _, Transact as _, Update,
    updates::{decoder::Decode as _, encoder::Encode as _},
};

use crate::soon;

/// A WebSocket on which nothing is understood.
#[derive(Debug)]
pub struct RawSocket {
    stream: WebSocketStream<TcpStream>,
    /// The sub-protocol that the server has selected.
    pub protocol: Option<String>,
}

/// The answer to an upgrade that was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpgradeRefused {
    /// The HTTP status.
    pub status: u16,
}

/// What came from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A binary message.
    Message(Bytes),
    /// A ping, which was answered.
    Ping,
    /// The end, with the code and reason of the close frame.
    Closed(u16, String),
    /// The end, without a close frame.
    Lost,
}

impl RawSocket {
    /// Opens a WebSocket at `path`, with further headers.
    ///
    /// # Errors
    ///
    /// The HTTP status of the refusal.
    pub async fn open(
        address: SocketAddr,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, UpgradeRefused> {
        let mut request = format!("ws://{address}{path}").into_client_request().expect("a URL");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        let socket = soon("a connection", TcpStream::connect(address)).await.expect("a listener");
        socket.set_nodelay(true).expect("a TCP socket");
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        match soon("an upgrade", client_async_with_config(request, socket, Some(config))).await {
            Ok((stream, response)) => {
                let protocol = response.headers().get("sec-websocket-protocol");
                let protocol = protocol.map(|value| value.to_str().expect("ASCII").to_owned());
                Ok(Self { stream, protocol })
            }
            Err(Error::Http(response)) => Err(UpgradeRefused { status: response.status().into() }),
            Err(error) => panic!("the upgrade failed: {error}"),
        }
    }

    /// Sends a message; one that cannot be sent shows when the socket is read.
    pub async fn send(&mut self, message: Message) {
        soon("the server reads", self.stream.send(message)).await.ok();
    }

    /// Sends a binary message.
    pub async fn send_bytes(&mut self, bytes: impl Into<Bytes>) {
        self.send(Message::Binary(bytes.into())).await;
    }

    /// Sends a close frame.
    pub async fn close(&mut self) {
        self.send(Message::Close(None)).await;
    }

    /// Sends bytes that are no frame.
    pub async fn send_garbage(&mut self, bytes: &[u8]) {
        use tokio::io::AsyncWriteExt as _;
        self.stream.get_mut().write_all(bytes).await.ok();
    }

    /// What comes next.
    pub async fn next(&mut self) -> Told {
        soon("a message from the server", async {
            loop {
                return match self.stream.next().await {
                    Some(Ok(Message::Binary(message))) => Told::Message(message),
                    Some(Ok(Message::Ping(_))) => {
                        self.stream.flush().await.ok();
                        Told::Ping
                    }
                    Some(Ok(Message::Close(frame))) => {
                        self.stream.flush().await.ok();
                        let code = frame.as_ref().map_or(CloseCode::Status, |frame| frame.code);
                        let reason = frame.map(|frame| frame.reason.to_string());
                        Told::Closed(code.into(), reason.unwrap_or_default())
                    }
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => Told::Lost,
                };
            }
        })
        .await
    }

    /// The next binary message. Pings are answered.
    pub async fn message(&mut self) -> Bytes {
        loop {
            match self.next().await {
                Told::Message(message) => return message,
                Told::Ping => {}
                end @ (Told::Closed(..) | Told::Lost) => panic!("the socket ended: {end:?}"),
            }
        }
    }

    /// Reads to the end: the code and the reason of the close frame.
    pub async fn end(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Told::Message(_) | Told::Ping => {}
                Told::Closed(code, reason) => return (code, reason),
                Told::Lost => panic!("the connection was lost without a close frame"),
            }
        }
    }
}

/// Reads the numbers and byte strings of lib0.
#[derive(Clone, Debug)]
pub struct Lib0(pub Bytes);

impl Lib0 {
    /// A number.
    pub fn number(&mut self) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.0.get_u8();
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return value;
            }
            shift += 7;
        }
    }

    /// Bytes after their length.
    pub fn bytes(&mut self) -> Bytes {
        let length = usize::try_from(self.number()).expect("a length");
        self.0.split_to(length)
    }

    /// Text after its length.
    pub fn text(&mut self) -> String {
        String::from_utf8(self.bytes().to_vec()).expect("UTF-8")
    }
}

/// Messages of lib0.
pub mod lib0 {
    use bytes::{BufMut as _, Bytes, BytesMut};

    /// Writes a number.
    pub fn put_number(out: &mut BytesMut, mut value: u64) {
        while value >= 0x80 {
            out.put_u8(u8::try_from(value & 0x7f).expect("7 bits") | 0x80);
            value >>= 7;
        }
        out.put_u8(u8::try_from(value).expect("7 bits"));
    }

    /// Writes bytes after their length.
    pub fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
        put_number(out, bytes.len() as u64);
        out.put_slice(bytes);
    }

    /// These numbers, and then bytes after their length.
    #[must_use]
    pub fn message(kinds: &[u64], bytes: &[u8]) -> Bytes {
        let mut out = BytesMut::new();
        for kind in kinds {
            put_number(&mut out, *kind);
        }
        put_bytes(&mut out, bytes);
        out.freeze()
    }

    /// An awareness update of these states: client id, clock, JSON.
    #[must_use]
    pub fn awareness(states: &[(u64, u64, &str)]) -> Bytes {
        let mut out = BytesMut::new();
        put_number(&mut out, states.len() as u64);
        for (client, clock, state) in states {
            put_number(&mut out, *client);
            put_number(&mut out, *clock);
            put_bytes(&mut out, state.as_bytes());
        }
        out.freeze()
    }
}

/// A copy of a document, and what it was told, over y-websocket.
#[derive(Debug)]
pub struct YClient {
    /// The socket.
    pub socket: RawSocket,
    doc: Doc,
    clock: u64,
    /// The state vector that the server has sent.
    pub server_state: Option<Bytes>,
    /// Differences that answered ours.
    pub differences: usize,
    /// Updates that came.
    pub updates: usize,
    /// The awareness of others: clock and JSON.
    pub awareness: BTreeMap<u64, (u64, String)>,
    /// Awareness messages without a state.
    pub keepalives: usize,
    /// What a refusal said.
    pub denied: Vec<String>,
}

impl YClient {
    /// Opens `/yjs/<document>` and asks for what it lacks, as a provider does.
    pub async fn open(address: SocketAddr, document: &str) -> Self {
        Self::come_back(address, document, Doc::new()).await
    }

    /// As [`Self::open`], with a copy from before.
    pub async fn come_back(address: SocketAddr, document: &str, doc: Doc) -> Self {
        let path = format!("/yjs/{document}");
        let mut socket = RawSocket::open(address, &path, &[]).await.expect("an upgrade");
        let state_vector = doc.transact().state_vector().encode_v1();
        socket.send_bytes(lib0::message(&[0, 0], &state_vector)).await;
        Self {
            socket,
            doc,
            clock: 0,
            server_state: None,
            differences: 0,
            updates: 0,
            awareness: BTreeMap::new(),
            keepalives: 0,
            denied: Vec::new(),
        }
    }

    /// Its Yjs client id.
    #[must_use]
    pub fn client_id(&self) -> u64 {
        self.doc.client_id().get()
    }

    /// Its copy of the document.
    #[must_use]
    pub fn doc(&self) -> &Doc {
        &self.doc
    }

    /// What it has.
    #[must_use]
    pub fn text(&self) -> String {
        let text = self.doc.get_or_insert_text("text");
        text.get_string(&self.doc.transact())
    }

    /// Types at the end and keeps it.
    pub fn append_unsent(&mut self, text: &str) -> Bytes {
        let root = self.doc.get_or_insert_text("text");
        let mut txn = self.doc.transact_mut();
        let end = root.len(&txn);
        root.insert(&mut txn, end, text);
        txn.encode_update_v1().into()
    }

    /// Types at the end.
    pub async fn type_text(&mut self, text: &str) {
        let update = self.append_unsent(text);
        self.socket.send_bytes(lib0::message(&[0, 2], &update)).await;
    }

    /// Announces an awareness state: JSON, or `null`.
    pub async fn announce(&mut self, state: &str) {
        let update = lib0::awareness(&[(self.client_id(), self.clock, state)]);
        self.clock += 1;
        self.socket.send_bytes(lib0::message(&[1], &update)).await;
    }

    /// Takes the next message.
    pub async fn step(&mut self) {
        let message = self.socket.message().await;
        self.receive(message).await;
    }

    /// Takes a message that was read.
    pub async fn receive(&mut self, message: Bytes) {
        let answer = self.take(message);
        if let Some(answer) = answer {
            self.socket.send_bytes(answer).await;
        }
    }

    fn take(&mut self, message: Bytes) -> Option<Bytes> {
        let mut reader = Lib0(message);
        match reader.number() {
            0 => match reader.number() {
                0 => {
                    let state_vector = reader.bytes();
                    let theirs = yrs::StateVector::decode_v1(&state_vector).expect("valid");
                    self.server_state = Some(state_vector);
                    let diff = self.doc.transact().encode_diff_v1(&theirs);
                    return Some(lib0::message(&[0, 1], &diff));
                }
                kind => {
                    let update = Update::decode_v1(&reader.bytes()).expect("an update");
                    self.doc.transact_mut().apply_update(update).expect("it applies");
                    if kind == 1 {
                        self.differences += 1;
                    } else {
                        self.updates += 1;
                    }
                }
            },
            1 => {
                let mut update = Lib0(reader.bytes());
                let count = update.number();
                self.keepalives += usize::from(count == 0);
                for _ in 0..count {
                    let (client, clock, state) = (update.number(), update.number(), update.text());
                    let known = self.awareness.get(&client).map_or(0, |(clock, _)| *clock);
                    // As y-protocols does.
                    if known < clock {
                        self.awareness.insert(client, (clock, state));
                    }
                }
            }
            2 => {
                assert_eq!(reader.number(), 0, "a refusal");
                self.denied.push(reader.text());
            }
            other => panic!("a message of kind {other}"),
        }
        assert!(reader.0.is_empty(), "bytes after the message");
        None
    }

    /// Takes messages until `condition` holds.
    pub async fn wait_until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        soon(what, async {
            while !condition(self) {
                self.step().await;
            }
        })
        .await;
    }

    /// Waits for the server's state vector and the answer to ours.
    pub async fn wait_for_sync(&mut self) {
        self.wait_until("sync", |c| c.server_state.is_some() && c.differences > 0).await;
    }

    /// Waits until it has this text.
    pub async fn wait_for_text(&mut self, text: &str) {
        self.wait_until(&format!("the text {text:?}"), |client| client.text() == text).await;
    }

    /// What it knows of the awareness of `client`; `None` if nothing, or that it is gone.
    #[must_use]
    pub fn sees(&self, client: u64) -> Option<&str> {
        let state = self.awareness.get(&client).map(|(_, state)| &state[..]);
        state.filter(|state| *state != "null")
    }
}
