//! Sessions of frames, through either door, without anything that understands them.

use std::{collections::VecDeque, net::SocketAddr, pin::Pin};

use bytes::Bytes;
use cowrite_proto::v1::{
    ClientAwareness, ClientFrame, ClientUpdate, EditRequest, Join, Joined, Leave, Pong,
    PublishRequest, RefreshToken, ServerFrame, SubscribeRequest, client_frame::Frame as Up,
    collaboration_service_client::CollaborationServiceClient, server_frame::Frame as Down,
};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

use crate::soon;

/// How many messages a session holds that the connection has not taken.
const MESSAGES_MAX: usize = 64;

/// The largest message that a test takes.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A way into the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// One stream both ways.
    Edit,
    /// Subscribe, and Publish for what goes up.
    Publish,
}

impl Door {
    /// Each of them.
    pub const ALL: [Self; 2] = [Self::Edit, Self::Publish];
}

/// Connects to a server, with windows that let a test read as it likes.
pub async fn channel(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let endpoint = endpoint
        .tcp_nodelay(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(64 << 20);
    soon("a connection", endpoint.connect()).await.expect("the server takes the connection")
}

/// Frames up and down.
pub struct RawSession {
    up: UpWay,
    down: Pin<Box<dyn Stream<Item = Result<Vec<ServerFrame>, Status>> + Send>>,
    received: VecDeque<Down>,
}

enum UpWay {
    Edit(Option<mpsc::Sender<EditRequest>>),
    Publish { client: Box<CollaborationServiceClient<Channel>>, session: String, secret: Bytes },
}

impl std::fmt::Debug for RawSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawSession").field("received", &self.received).finish_non_exhaustive()
    }
}

/// A Join of `document` with nothing, for everything.
#[must_use]
pub fn join(document: &str) -> Join {
    Join {
        protocol_version: cowrite_proto::PROTOCOL_VERSION,
        document: document.to_owned(),
        ..Join::default()
    }
}

/// A Join of `document` that announces awareness under `client_id`.
#[must_use]
pub fn join_as(document: &str, client_id: u64) -> Join {
    Join { awareness_client_id: client_id, ..join(document) }
}

/// Frames that clients send.
pub mod up {
    use super::{
        Bytes, ClientAwareness, ClientFrame, ClientUpdate, Join, Leave, Pong, RefreshToken, Up,
    };

    fn frame(frame: Up) -> ClientFrame {
        ClientFrame { frame: Some(frame) }
    }

    /// A Join.
    #[must_use]
    pub fn join(join: Join) -> ClientFrame {
        frame(Up::Join(join))
    }

    /// An edit.
    #[must_use]
    pub fn update(update_id: u64, update: impl Into<Bytes>) -> ClientFrame {
        frame(Up::Update(ClientUpdate { update_id, update: update.into() }))
    }

    /// An awareness state.
    #[must_use]
    pub fn awareness(state: impl Into<Bytes>) -> ClientFrame {
        frame(Up::Awareness(ClientAwareness { state: state.into() }))
    }

    /// The answer to a ping.
    #[must_use]
    pub fn pong(nonce: u64) -> ClientFrame {
        frame(Up::Pong(Pong { nonce }))
    }

    /// A new token.
    #[must_use]
    pub fn refresh_token(token: impl Into<String>) -> ClientFrame {
        frame(Up::RefreshToken(RefreshToken { token: token.into() }))
    }

    /// A Leave.
    #[must_use]
    pub fn leave() -> ClientFrame {
        frame(Up::Leave(Leave {}))
    }
}

impl RawSession {
    /// Opens an Edit stream on which nothing has been sent.
    pub async fn edit(channel: Channel) -> Self {
        let (sender, messages) = mpsc::channel(MESSAGES_MAX);
        let mut client = CollaborationServiceClient::new(channel)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let stream = client.edit(ReceiverStream::new(messages)).await;
        let stream = stream.expect("the server answers before it reads").into_inner();
        let down = stream.map(|message| message.map(|message| message.frames));
        let (up, received) = (UpWay::Edit(Some(sender)), VecDeque::new());
        Self { up, down: Box::pin(down), received }
    }

    /// Joins through `door` and waits for Joined.
    ///
    /// # Errors
    ///
    /// The status of the refusal.
    pub async fn open(channel: Channel, door: Door, join: Join) -> Result<(Self, Joined), Status> {
        let mut session = match door {
            Door::Edit => {
                let mut session = Self::edit(channel).await;
                session.send([up::join(join)]).await?;
                session
            }
            Door::Publish => {
                let mut client = CollaborationServiceClient::new(channel)
                    .max_encoding_message_size(MESSAGE_BYTES_MAX)
                    .max_decoding_message_size(MESSAGE_BYTES_MAX);
                let stream = client.subscribe(SubscribeRequest { join: Some(join) }).await?;
                let stream = stream.into_inner();
                let down = stream.map(|message| message.map(|message| message.frames));
                let (session, secret) = (String::new(), Bytes::new());
                let up = UpWay::Publish { client: Box::new(client), session, secret };
                Self { up, down: Box::pin(down), received: VecDeque::new() }
            }
        };
        let first = match session.next().await? {
            // A refusal: the status that follows says the same.
            Some(Down::Closing(_)) => session.next().await?,
            first => first,
        };
        match first {
            Some(Down::Joined(joined)) => {
                if let UpWay::Publish { session, secret, .. } = &mut session.up {
                    session.clone_from(&joined.session_id);
                    secret.clone_from(&joined.session_secret);
                }
                Ok((session, joined))
            }
            other => panic!("the first frame is not Joined: {other:?}"),
        }
    }

    /// Sends frames in one message.
    ///
    /// # Errors
    ///
    /// What Publish answers. An Edit stream that has ended takes everything, to tell why when it is
    /// read.
    pub async fn send(
        &mut self,
        frames: impl IntoIterator<Item = ClientFrame>,
    ) -> Result<(), Status> {
        let frames: Vec<_> = frames.into_iter().collect();
        match &mut self.up {
            UpWay::Edit(sender) => {
                let sender = sender.as_ref().expect("a stream that was not finished");
                // An error shows when the stream is read.
                sender.send(EditRequest { frames }).await.ok();
                Ok(())
            }
            UpWay::Publish { client, session, secret } => {
                let (session_id, session_secret) = (session.clone(), secret.clone());
                let request = PublishRequest { session_id, session_secret, frames };
                client.publish(request).await.map(drop)
            }
        }
    }

    /// Says that nothing more will be sent, which Publish cannot.
    pub fn finish(&mut self) {
        if let UpWay::Edit(sender) = &mut self.up {
            *sender = None;
        }
    }

    /// The next frame; `None` when the stream ended with OK.
    ///
    /// # Errors
    ///
    /// The status that the stream ended with.
    pub async fn next(&mut self) -> Result<Option<Down>, Status> {
        soon("a frame from the server", async {
            loop {
                if let Some(frame) = self.received.pop_front() {
                    return Ok(Some(frame));
                }
                match self.down.next().await {
                    Some(message) => {
                        let frames = message?.into_iter();
                        self.received.extend(frames.map(|f| f.frame.expect("a known frame")));
                    }
                    None => return Ok(None),
                }
            }
        })
        .await
    }

    /// The way up and the way down, for two who use them at the same time.
    #[must_use]
    pub fn split(self) -> (Self, Self) {
        let nothing = Box::pin(futures_util::stream::pending());
        let up = Self { up: self.up, down: nothing, received: VecDeque::new() };
        (up, Self { up: UpWay::Edit(None), down: self.down, received: self.received })
    }

    /// Reads to the end: the frames, and the status unless it was OK.
    pub async fn end(&mut self) -> (Vec<Down>, Option<Status>) {
        let mut frames = Vec::new();
        loop {
            match self.next().await {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, None),
                Err(status) => return (frames, Some(status)),
            }
        }
    }
}

/// What a client is told about a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The gRPC code.
    pub code: Code,
    /// `google.rpc.ErrorInfo.reason`.
    pub reason: String,
    /// `google.rpc.ErrorInfo.domain`.
    pub domain: String,
}

/// What `status` tells.
#[must_use]
pub fn refused(status: &Status) -> Refused {
    let info = status.get_details_error_info();
    let (reason, domain) = info.map(|info| (info.reason, info.domain)).unwrap_or_default();
    Refused { code: status.code(), reason, domain }
}
