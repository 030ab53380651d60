//! The doors of a server, and one kind of session for all of them: a run does the same whichever it
//! comes in through.

mod grpc_web;
mod socket;
pub(crate) mod wire;

use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use cowrite_client::{Client, ErrorReason, FrameReceiver, FrameSender, JoinOptions};
use serde::Serialize;
use tokio::time::timeout;

pub(crate) use self::wire::BadFrame;
use crate::error::{Error, SessionError};

/// Room for a server that is busy with many joins.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);

/// A protocol that a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Door {
    /// Edit: one stream both ways over HTTP/2.
    Grpc,
    /// Subscribe and Publish over HTTP/1.1, as a page does it without TLS.
    GrpcWeb,
    /// The protocol of y-websocket: a connection for each document.
    YWebsocket,
    /// The protocol of Hocuspocus.
    Hocuspocus,
}

impl Door {
    /// The server says by itself which updates it has taken.
    pub(crate) fn acknowledges(self) -> bool {
        !matches!(self, Self::YWebsocket)
    }
}

/// A server, and the door to go in through.
#[derive(Debug, Clone)]
pub(crate) struct Entrance {
    /// As a client of the door takes it; for the WebSocket doors also `http://`, which means the
    /// path where Cowrite has the door.
    pub(crate) url: String,
    pub(crate) door: Door,
}

/// What a session receives.
#[derive(Debug)]
pub(crate) enum Event {
    /// What the document has and the session lacks. `sequence` is 0 where the door has none.
    State {
        update: Bytes,
        sequence: u64,
    },
    Update(Bytes),
    /// All own updates up to this one were taken.
    Ack {
        update_id: u64,
    },
    /// An own update was not.
    Refused(ErrorReason),
    /// Nothing that a run looks at.
    Other,
}

/// What the server has at the beginning of a session.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) state_vector: Bytes,
    /// Empty where the door has none.
    pub(crate) epoch: Bytes,
    pub(crate) sync_sequence: u64,
    /// No state follows.
    pub(crate) resumed: bool,
}

impl From<cowrite_client::Joined> for Joined {
    fn from(joined: cowrite_client::Joined) -> Self {
        Self {
            state_vector: joined.state_vector,
            epoch: joined.epoch,
            sync_sequence: joined.sync_sequence,
            resumed: joined.resumed,
        }
    }
}

/// The way up of a session.
#[derive(Debug, Clone)]
pub(crate) enum Sender {
    Grpc(FrameSender),
    GrpcWeb(grpc_web::Sender),
    Socket(socket::Sender),
}

impl Sender {
    /// Sends an update, which may wait for [`Self::flush`]. `update_id` counts from 1.
    pub(crate) async fn update(&self, update_id: u64, update: Bytes) -> Result<(), SessionError> {
        match self {
            Self::Grpc(sender) => Ok(sender.update(update_id, update).await?),
            Self::GrpcWeb(sender) => sender.update(update_id, update).await,
            Self::Socket(sender) => sender.update(update_id, &update).await,
        }
    }

    /// Everything that was sent goes out.
    pub(crate) async fn flush(&self) -> Result<(), SessionError> {
        match self {
            Self::Grpc(_) | Self::GrpcWeb(_) => Ok(()),
            Self::Socket(sender) => sender.flush().await,
        }
    }

    /// The server says what it has taken when it is asked: [`Self::request_ack`].
    pub(crate) fn must_be_asked(&self) -> bool {
        match self {
            Self::Grpc(_) | Self::GrpcWeb(_) => false,
            Self::Socket(sender) => sender.must_be_asked(),
        }
    }

    /// Has the server say that it has taken everything up to `update_id`, at a door that does not
    /// do so by itself. The answer holds what `state_vector` lacks.
    pub(crate) async fn request_ack(
        &self,
        update_id: u64,
        state_vector: &[u8],
    ) -> Result<(), SessionError> {
        match self {
            Self::Grpc(_) | Self::GrpcWeb(_) => Ok(()),
            Self::Socket(sender) => sender.request_ack(update_id, state_vector).await,
        }
    }
}

/// The way down of a session. The session ends with it.
#[derive(Debug)]
pub(crate) enum Receiver {
    Grpc {
        receiver: Box<FrameReceiver>,
        /// Holds the connection.
        _client: Client,
    },
    GrpcWeb(Box<grpc_web::Receiver>),
    Socket(Box<socket::Receiver>),
}

impl Receiver {
    /// The next event; that the session has ended is an error. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Event, SessionError> {
        match self {
            Self::Grpc { receiver, .. } => match receiver.next().await? {
                Some(event) => Ok(event.into()),
                None => Err(SessionError::Ended),
            },
            Self::GrpcWeb(receiver) => receiver.next().await,
            Self::Socket(receiver) => receiver.next().await,
        }
    }

    /// The next event, if it came together with the one before.
    pub(crate) fn next_buffered(&mut self) -> Result<Option<Event>, SessionError> {
        match self {
            Self::Grpc { receiver, .. } => Ok(receiver.next_buffered()?.map(Event::from)),
            Self::GrpcWeb(receiver) => receiver.next_buffered(),
            Self::Socket(receiver) => receiver.next_buffered(),
        }
    }
}

impl From<cowrite_client::Event> for Event {
    fn from(event: cowrite_client::Event) -> Self {
        use cowrite_client::Event as Native;
        match event {
            Native::Sync { update, sequence } => Self::State { update, sequence },
            Native::Update { update, .. } => Self::Update(update),
            Native::Ack { update_id, .. } => Self::Ack { update_id },
            Native::Refused { reason, .. } => Self::Refused(reason),
            // Not an edit. What Closing announces, the status that follows tells as well.
            Native::Awareness { .. } | Native::AccessChanged(_) | Native::Closing { .. } | _ => {
                Self::Other
            }
        }
    }
}

impl Entrance {
    /// Opens a session over a connection of its own.
    pub(crate) async fn open(
        &self,
        options: JoinOptions,
    ) -> Result<(Sender, Receiver, Joined), Error> {
        let document = options.document.clone();
        let opened = async {
            match self.door {
                Door::Grpc => self.open_grpc(options).await,
                Door::GrpcWeb => {
                    let (sender, receiver, joined) = grpc_web::open(&self.url, options).await?;
                    Ok((Sender::GrpcWeb(sender), Receiver::GrpcWeb(Box::new(receiver)), joined))
                }
                Door::YWebsocket | Door::Hocuspocus => {
                    let (sender, receiver, joined) = socket::open(self, options).await?;
                    Ok((Sender::Socket(sender), Receiver::Socket(Box::new(receiver)), joined))
                }
            }
        };
        let opened = timeout(JOIN_TIMEOUT, opened).await.unwrap_or(Err(SessionError::Late));
        opened.map_err(|error| error.on(&document))
    }

    async fn open_grpc(
        &self,
        options: JoinOptions,
    ) -> Result<(Sender, Receiver, Joined), SessionError> {
        let client = Client::builder(&self.url)
            .first_message_timeout(JOIN_TIMEOUT)
            .connect_timeout(JOIN_TIMEOUT)
            .connect()
            .await?;
        let (sender, receiver, joined) = client.open(options).await?;
        let receiver = Receiver::Grpc { receiver: Box::new(receiver), _client: client };
        Ok((Sender::Grpc(sender), receiver, joined.into()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{task::yield_now, time::Instant};

    use super::*;
    use crate::{relay::Relay, update::append};

    #[tokio::test]
    async fn a_session_begins_with_the_state_at_every_door() {
        for door in [Door::Grpc, Door::GrpcWeb, Door::YWebsocket, Door::Hocuspocus] {
            let relay = Relay::start(door, None).await;
            let opened = relay.entrance().open(JoinOptions::new("d")).await;
            let (_, mut receiver, _) = opened.expect("opens");
            let first = timeout(Duration::from_secs(10), receiver.next()).await;
            let first = first.expect("in time").expect("an event");
            let Event::State { update, .. } = first else { panic!("{door:?}: {first:?}") };
            assert_eq!(update.as_ref(), [0, 0], "{door:?}");
        }
    }

    #[tokio::test]
    async fn what_arrives_together_over_a_websocket_is_taken_in_parts() {
        let relay = Relay::start(Door::YWebsocket, None).await;
        let open = || relay.entrance().open(JoinOptions::new("d"));
        let (sender, _author, _) = open().await.expect("opens");
        let (_, mut receiver, _) = open().await.expect("opens");
        receiver.next().await.expect("the state");
        let edits = 300;
        for edit in 0..edits {
            sender.update(u64::from(edit) + 1, append(5, edit, "e", 1)).await.expect("sends");
        }
        sender.flush().await.expect("sends");
        let limit = Instant::now() + JOIN_TIMEOUT;
        let (mut taken, mut parts) = (0, 0);
        while taken < edits && Instant::now() < limit {
            receiver.next().await.expect("an update");
            (taken, parts) = (taken + 1, parts + 1);
            let mut more = 0;
            while receiver.next_buffered().expect("reads").is_some() {
                more += 1;
            }
            assert!(more <= 64, "{more}");
            taken += more;
            yield_now().await;
        }
        assert_eq!(taken, edits);
        assert!(parts >= edits / 65, "{parts}");
    }
}
