//! Somebody who may write in one document, and sends everything that harms a careless server: the rows
//! of the threat model in docs/security.md, one after the other, for as long as it is let.

use std::net::SocketAddr;

use bytes::Bytes;
use cowrite_proto::v1::{Access, ClientFrame, Join};
use tokio_tungstenite::tungstenite::Message;
use tonic::transport::Channel;

use crate::{
    Door, RawSession, RawSocket, channel, http_request, join,
    lib0::{awareness, message},
    parts::{NULL, Parts, after, before, collected, in_root, number, within},
    up,
};

/// A row of the threat model, and what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// An update that the wall refuses for how it is made.
    Malformed(usize),
    /// An update that is well-formed, and harms a server that believes it.
    Misleading(usize),
    /// An update that may be written: one's own document, vandalised.
    Vandalism(usize),
    /// Frames other than updates, which a session bears or ends for.
    Frames(usize),
    /// Joins that are refused.
    Join(usize),
    /// Messages on a y-websocket.
    YWebsocket(usize),
    /// Messages on a Hocuspocus socket.
    Hocuspocus(usize),
    /// Bytes that are no WebSocket, and no gRPC.
    Bytes(usize),
}

/// Who sends it. Its token may write in `document`, its other token may read.
#[derive(Debug)]
pub struct Hostile {
    address: SocketAddr,
    document: String,
    token: String,
    reader: String,
    /// The Yjs client id of an honest participant, and its own.
    victim: u64,
    own: u64,
    clock: u32,
    channel: Channel,
    session: Option<RawSession>,
    /// A few sockets, which are not closed by themselves.
    socket: Option<RawSocket>,
}

fn malformed() -> Vec<Bytes> {
    let one = |item| Parts::default().client(77, 0, vec![item]).build();
    let deep = [vec![1], [117, 1].repeat(8000), vec![126]].concat();
    let mut lengths = vec![1];
    number(&mut lengths, 1 << 40);
    vec![
        // A1: text that is not UTF-8.
        one(in_root(4, "t", &[3, b'x', b'y', 0xf0])),
        // A2: values nested without end, clients without structs.
        one(in_root(8, "t", &deep)),
        (0..5000).fold(Parts::default(), |parts, n| parts.client(n, 0, vec![])).build(),
        // A3: what a run-length bomb of version 2 begins with.
        Bytes::from_static(&[0, 0, 5, 0x81, 0xff, 0xff, 0xff, 0x17, 0, 0, 0, 0]),
        // A4: more than there are bytes.
        Bytes::from(lengths),
        // A8: clocks that do not exist.
        Parts::default().client(77, u32::MAX, vec![collected(u32::MAX)]).build(),
        // Content of no kind, and nothing at all.
        one(in_root(31, "t", NULL)),
        Bytes::new(),
    ]
}

impl Hostile {
    /// Somebody who attacks `document`, in which `victim` is a Yjs client.
    pub async fn new(
        address: SocketAddr,
        document: &str,
        [token, reader]: [String; 2],
        victim: u64,
    ) -> Self {
        Self {
            address,
            document: document.to_owned(),
            token,
            reader,
            victim,
            own: u64::from(rand::random::<u32>()) | 1 << 40,
            clock: 0,
            channel: channel(address).await,
            session: None,
            socket: None,
        }
    }

    /// Everything that can be sent, in order.
    #[must_use]
    pub fn attacks() -> Vec<Attack> {
        let mut all = Vec::new();
        all.extend((0..malformed().len()).map(Attack::Malformed));
        all.extend((0..8).map(Attack::Misleading));
        all.extend((0..6).map(Attack::Vandalism));
        all.extend((0..7).map(Attack::Frames));
        all.extend((0..6).map(Attack::Join));
        all.extend((0..8).map(Attack::YWebsocket));
        all.extend((0..5).map(Attack::Hocuspocus));
        all.extend((0..5).map(Attack::Bytes));
        all
    }

    /// Sends one. Whatever comes of it is not looked at.
    pub async fn send(&mut self, attack: Attack) {
        match attack {
            Attack::Malformed(n) => self.update(malformed().swap_remove(n)).await,
            Attack::Misleading(n) => {
                let update = self.misleading(n);
                self.update(update).await;
            }
            Attack::Vandalism(n) => {
                let update = self.vandalism(n);
                self.update(update).await;
            }
            Attack::Frames(n) => {
                let frames = Self::frames(n);
                self.send_frames(frames).await;
            }
            Attack::Join(n) => self.join(n).await,
            Attack::YWebsocket(n) => {
                let path = format!("/yjs/{}?token={}", self.document, self.token);
                let messages = self.y_messages(n);
                self.socket(&path, messages).await;
            }
            Attack::Hocuspocus(n) => {
                let messages = self.hocuspocus_messages(n);
                self.socket("/hocuspocus", messages).await;
            }
            Attack::Bytes(n) => self.bytes(n).await,
        }
    }

    async fn update(&mut self, update: Bytes) {
        self.send_frames(vec![up::update(1, update)]).await;
    }

    async fn send_frames(&mut self, frames: Vec<ClientFrame>) {
        for _ in 0..2 {
            if self.session.is_none() {
                let wish = Join { token: self.token.clone(), ..join(&self.document) };
                let opened = RawSession::open(self.channel.clone(), Door::Edit, wish).await;
                self.session = opened.ok().map(|(session, _)| session);
            }
            let Some(session) = &mut self.session else { return };
            // A session that was ended by what came before is opened anew, once.
            if session.send(frames.clone()).await.is_ok() {
                return;
            }
            self.session = None;
        }
    }

    fn misleading(&self, n: usize) -> Bytes {
        let (own, victim) = (self.own + 1, self.victim);
        let one = |item| Parts::default().client(own, 0, vec![item]).build();
        match n {
            // A6: clocks of somebody else; A7: another content for those that are known.
            0 => Parts::default().client(victim, 1, vec![collected(1_000_000)]).build(),
            1 => {
                Parts::default().client(victim, 0, vec![in_root(4, "content", &[1, b'?'])]).build()
            }
            // A5, A8: what waits for what is not there, or for itself.
            2 => one(after(8, (own + 7, 9), NULL)),
            3 => Parts::default()
                .client(own + 2, 0, vec![after(8, (own, 0), NULL)])
                .client(own, 0, vec![after(8, (own + 2, 0), NULL)])
                .build(),
            4 => Parts::default().delete(own, 5, 1_000_000).build(),
            // Shared types in shared types, for a stack that overflows.
            5 => {
                let level = |n: u32| match n.checked_sub(1) {
                    None => in_root(7, "deep", &[0]),
                    Some(outer) => within(7, (own, outer), &[0]),
                };
                Parts::default().client(own, 0, (0..20_000).map(level).collect()).build()
            }
            // Items that all claim one place.
            6 => {
                let list = |n: u32| match n.checked_sub(1) {
                    None => in_root(8, "claimed", NULL),
                    Some(last) => before(8, (own, last), NULL),
                };
                Parts::default()
                    .client(own + 1, 0, vec![in_root(8, "claimed", NULL); 10_000])
                    .client(own, 0, (0..10_000).map(list).collect())
                    .build()
            }
            // An item in something that is no shared type.
            _ => Parts::default()
                .client(own, 0, vec![in_root(8, "no", NULL), within(8, (own, 0), NULL)])
                .build(),
        }
    }

    /// Under its own client id, one clock after the other.
    fn vandalism(&mut self, n: usize) -> Bytes {
        let (own, clock) = (self.own, self.clock);
        let (item, clocks) = match n {
            // A9: roots; A12: text where others expect something else; A13: subdocuments.
            0 => (in_root(8, &format!("r{clock}"), NULL), 1),
            1 => (in_root(4, "array", &[4, 0xf0, 0x9f, 0x99, 0x82]), 2),
            2 => (in_root(9, "docs", &[1, b'd', 118, 0]), 1),
            // A11: a paste.
            3 => {
                let mut content = Vec::new();
                number(&mut content, 64 << 10);
                content.resize(content.len() + (64 << 10), b'p');
                (in_root(4, "paste", &content), 64 << 10)
            }
            // A10: what is inserted and deleted again and again.
            4 => (in_root(4, "tomb", &[1, b'x']), 1),
            // A15: the same again and again, which is no news.
            _ => {
                return Parts::default().client(own, 0, vec![in_root(8, "r0", NULL)]).build();
            }
        };
        self.clock += clocks;
        let parts = Parts::default().client(own, clock, vec![item]);
        if n >= 3 { parts.delete(own, clock, clocks).build() } else { parts.build() }
    }

    fn frames(n: usize) -> Vec<ClientFrame> {
        match n {
            // C2: a flood; C3: too large, no JSON, too deep.
            0 => (0..50).map(|n| up::awareness(format!(r#"{{"n":{n}}}"#))).collect(),
            1 => vec![up::awareness(format!("{:?}", "x".repeat(100_000)))],
            2 => vec![up::awareness("{\"a\":")],
            3 => vec![up::awareness("[".repeat(4000))],
            4 => (0..100).map(up::pong).collect(),
            5 => vec![up::refresh_token("eyJhbGciOiJub25lIn0.e30.")],
            _ => vec![ClientFrame { frame: None }],
        }
    }

    async fn join(&mut self, n: usize) {
        let wish = match n {
            // A4, B5, F1, G1: a state vector that lies, no access, no token, names.
            0 => Join {
                state_vector: Bytes::from_static(&[0xff, 0xff, 0xff, 0x7f]),
                ..join(&self.document)
            },
            1 => join("somebody/elses"),
            2 => Join { token: "eyJhbGciOiJub25lIn0.e30.".to_owned(), ..join(&self.document) },
            3 => join("../../etc/passwd"),
            4 => join(&"x".repeat(10_000)),
            // B1: a reader that writes.
            _ => Join {
                token: self.reader.clone(),
                access: Access::Read.into(),
                ..join(&self.document)
            },
        };
        let wish = Join {
            token: if wish.token.is_empty() { self.token.clone() } else { wish.token.clone() },
            ..wish
        };
        if let Ok((mut session, _)) = RawSession::open(self.channel.clone(), Door::Edit, wish).await
        {
            let update = Parts::default().client(78, 0, vec![in_root(8, "r", NULL)]).build();
            session.send([up::update(1, update)]).await.ok();
        }
    }

    fn y_messages(&self, n: usize) -> Vec<Message> {
        let binary = |bytes: Bytes| Message::Binary(bytes);
        match n {
            // C1, C4: awareness of others, and of many.
            0 => vec![binary(message(&[1], &awareness(&[(self.victim, (1 << 53) - 1, "null")])))],
            1 => (0..100)
                .map(|n| binary(message(&[1], &awareness(&[(9000 + n, 1, "{}")]))))
                .collect(),
            // B1: an update in what looks like an answer; A1 in it.
            2 => vec![binary(message(&[0, 1], &malformed()[0]))],
            3 => (0..50).map(|_| binary(message(&[0, 0], &[0]))).collect(),
            // E3w: text, kinds that do not exist; E2w: pings.
            4 => vec![Message::Text("hello".into())],
            5 => vec![binary(Bytes::from_static(&[99, 1, 2]))],
            6 => (0..100).map(|_| Message::Ping(Bytes::from_static(b"p"))).collect(),
            _ => vec![binary(Bytes::from(vec![0, 2, 0xff, 0xff, 0xff, 0xff, 0x7f]))],
        }
    }

    fn hocuspocus_messages(&self, n: usize) -> Vec<Message> {
        let to = |address: &str, body: &[u8]| Message::Binary(crate::addressed(address, body));
        match n {
            // E8w: much before anybody says who it is.
            0 => (0..200).map(|_| to(&self.document, &[0, 0, 1, 0])).collect(),
            1 => (0..200).map(|n| to(&format!("d{n}"), &[0, 0, 1, 0])).collect(),
            // B4: what only servers send.
            2 => vec![to(&self.document, &[6, 1, b'x'])],
            3 => vec![to(&self.document, &[2, 0, 1, b't']), to(&self.document, &[0, 9])],
            _ => vec![Message::Binary(Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x7f]))],
        }
    }

    async fn socket(&mut self, path: &str, messages: Vec<Message>) {
        let Ok(mut socket) = RawSocket::open(self.address, path, &[]).await else { return };
        for message in messages {
            socket.send(message).await;
        }
        // The one before goes without a word.
        self.socket = Some(socket);
    }

    async fn bytes(&mut self, n: usize) {
        let publish = "/cowrite.v1.CollaborationService/Publish";
        let grpc_web = [("content-type", "application/grpc-web+proto"), ("x-grpc-web", "1")];
        match n {
            // D10: messages that are none, and that are longer than they are.
            0 => drop(http_request(self.address, "POST", publish, &grpc_web, &[0xff; 100]).await),
            1 => {
                let body = [0, 0x7f, 0xff, 0xff, 0xff, 1, 2, 3];
                drop(http_request(self.address, "POST", publish, &grpc_web, &body).await);
            }
            // B6: paths that mean something else to somebody.
            2 => {
                let path = "//cowrite.v1.CollaborationService/%50ublish";
                drop(http_request(self.address, "POST", path, &grpc_web, &[0; 5]).await);
            }
            // E3w, E6w: frames that lie about their length, or are not masked.
            _ => {
                let path = format!("/yjs/{}?token={}", self.document, self.token);
                let Ok(mut socket) = RawSocket::open(self.address, &path, &[]).await else {
                    return;
                };
                let garbage: &[u8] = if n == 3 {
                    &[0x82, 0x7f, 0x7f, 0xff, 0xff, 0xff]
                } else {
                    &[0x82, 3, 0, 1, 2]
                };
                socket.send_garbage(garbage).await;
            }
        }
    }
}
