//! One session on one document: frames up and down, without a document behind them.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
    vec,
};

use bytes::{Bytes, BytesMut};
use cowrite_proto::{
    PROTOCOL_VERSION,
    v1::{
        self, Access, ClientAwareness, ClientFrame, ClientUpdate, EditRequest, EditResponse,
        ErrorReason, Join, Joined, Leave, Pong, RefreshToken, ServerFrame, SyncChunk, client_frame,
        collaboration_service_client::CollaborationServiceClient, server_frame,
    },
};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::{Streaming, transport::Channel};

use crate::error::{Closing, Error, Loss};

/// How many frames wait for the stream at most. A full queue makes [`FrameSender::send`] wait.
pub const QUEUE_FRAMES_MAX: usize = 256;
/// Frames are joined to messages up to this size, 64 KiB, far below what any server takes. A larger
/// frame travels alone.
const MESSAGE_BYTES: usize = 64 << 10;
/// Room for the parts of a state difference that are not content, over what the server says is the
/// largest document.
const SYNC_SLACK_BYTES: u64 = 1 << 20;

/// How to join a document.
#[derive(Clone, Default)]
pub struct JoinOptions {
    /// The document's id.
    pub document: String,
    /// The credentials, empty for none.
    pub token: String,
    /// What this side has: a Yjs v1 state vector; empty for nothing.
    pub state_vector: Bytes,
    /// The epoch that this belongs to, 16 bytes; empty for a new client.
    pub epoch: Bytes,
    /// The sequence of the last frame that was applied; 0 for none.
    pub resume_sequence: u64,
    /// The Yjs client id under which awareness is announced; 0 for no awareness.
    pub awareness_client_id: u64,
    /// The access wanted; [`Access::Unspecified`] for all that the credentials allow.
    pub access: Access,
}

/// Without the token.
impl fmt::Debug for JoinOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinOptions")
            .field("document", &self.document)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

impl JoinOptions {
    /// Joins `document` with nothing, without credentials and without awareness.
    #[must_use]
    pub fn new(document: impl Into<String>) -> Self {
        Self { document: document.into(), ..Self::default() }
    }

    fn into_frame(self) -> ClientFrame {
        let join = Join {
            protocol_version: PROTOCOL_VERSION,
            document: self.document,
            token: self.token,
            state_vector: self.state_vector,
            epoch: self.epoch,
            resume_sequence: self.resume_sequence,
            awareness_client_id: self.awareness_client_id,
            access: self.access.into(),
        };
        frame(client_frame::Frame::Join(join))
    }
}

/// What a session receives after `Joined`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A complete state difference: the initial state, or what a session that was too slow missed.
    Sync {
        /// A Yjs v1 update.
        update: Bytes,
        /// The sequence that it goes up to.
        sequence: u64,
    },
    /// Edits of others, durable.
    Update {
        /// The sequence of the last edit in it.
        sequence: u64,
        /// A Yjs v1 update. May contain edits of this session.
        update: Bytes,
    },
    /// All updates of this session up to `update_id` are durable, except refused ones.
    Ack {
        /// The highest id that is durable.
        update_id: u64,
        /// The sequence of that update.
        sequence: u64,
    },
    /// An update was not taken.
    Refused {
        /// The update.
        update_id: u64,
        /// Why.
        reason: ErrorReason,
        /// For people.
        message: String,
        /// When trying again may help; `None` when it cannot.
        retry_after: Option<Duration>,
    },
    /// The awareness state of another session.
    Awareness {
        /// Its Yjs client id.
        client_id: u64,
        /// Grows with each state.
        clock: u64,
        /// A JSON value in UTF-8; empty when the session is gone.
        state: Bytes,
    },
    /// The session may do something else from now on.
    AccessChanged(Access),
    /// The server is about to end the stream.
    Closing {
        /// Why.
        reason: ErrorReason,
        /// How long to wait before coming back; `None` when that cannot help.
        retry_after: Option<Duration>,
    },
}

/// Opens a session and waits for `Joined`.
pub(crate) async fn open(
    mut service: CollaborationServiceClient<Channel>,
    options: JoinOptions,
) -> Result<(FrameSender, FrameReceiver, Joined), Error> {
    let (sender, frames) = mpsc::channel(QUEUE_FRAMES_MAX);
    let sender = FrameSender { frames: sender };
    sender.send(options.into_frame()).await?;
    let response = service
        .edit(Upstream { frames, held: None })
        .await
        .map_err(|status| Error::from_status(status, None))?;
    let mut receiver = FrameReceiver {
        stream: response.into_inner(),
        frames: Vec::new().into_iter(),
        sync: Vec::new(),
        sync_bytes: 0,
        sync_bytes_max: u64::MAX,
        closing: None,
        pongs: sender.clone(),
    };
    let joined = loop {
        match receiver.next_frame().await? {
            Some(server_frame::Frame::Joined(joined)) => break joined,
            // A refusal: the status that follows says the same, and more.
            Some(server_frame::Frame::Closing(closing)) => receiver.closing(&closing),
            Some(_) => return Err(Error::Protocol { what: "the first frame is not Joined" }),
            None => return Err(Error::lost("the stream ended before Joined")),
        }
    };
    if let Some(limits) = &joined.limits
        && limits.document_bytes_max > 0
    {
        receiver.sync_bytes_max =
            limits.document_bytes_max.saturating_mul(2).saturating_add(SYNC_SLACK_BYTES);
    }
    Ok((sender, receiver, joined))
}

fn frame(frame: client_frame::Frame) -> ClientFrame {
    ClientFrame { frame: Some(frame) }
}

/// The way up of a session. Cheap to clone. The stream upwards ends when the [`FrameReceiver`] and
/// all senders are dropped.
#[derive(Debug, Clone)]
pub struct FrameSender {
    frames: mpsc::Sender<ClientFrame>,
}

impl FrameSender {
    /// Hands a frame to the stream; waits while [`QUEUE_FRAMES_MAX`] frames are waiting.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] when the session has ended: [`FrameReceiver::next`] tells why.
    ///
    /// # Cancellation
    ///
    /// The frame is not sent.
    pub async fn send(&self, frame: ClientFrame) -> Result<(), Error> {
        self.frames.send(frame).await.map_err(|_| Error::lost("the session has ended"))
    }

    /// Hands an update to the stream, as [`Self::send`]. `update_id` must grow within the session.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    ///
    /// # Cancellation
    ///
    /// The update is not sent.
    pub async fn update(&self, update_id: u64, update: Bytes) -> Result<(), Error> {
        self.send(update_frame(update_id, update)).await
    }

    /// Announces an awareness state, a JSON value in UTF-8; empty for none. As [`Self::send`].
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    ///
    /// # Cancellation
    ///
    /// The state is not sent.
    pub async fn awareness(&self, state: Bytes) -> Result<(), Error> {
        self.send(awareness_frame(state)).await
    }

    /// Shows the server a new token for the same subject, before the old one expires. As
    /// [`Self::send`].
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    ///
    /// # Cancellation
    ///
    /// The token is not sent.
    pub async fn refresh_token(&self, token: String) -> Result<(), Error> {
        self.send(refresh_frame(token)).await
    }

    /// Asks the server to end the session after everything sent so far is acknowledged. The
    /// receiver then ends with `None`.
    ///
    /// # Errors
    ///
    /// As [`Self::send`].
    ///
    /// # Cancellation
    ///
    /// Nothing is sent.
    pub async fn leave(&self) -> Result<(), Error> {
        self.send(leave_frame()).await
    }

    /// Hands a frame to the stream if there is room; returns whether there was.
    #[must_use]
    pub(crate) fn try_send(&self, frame: ClientFrame) -> bool {
        self.frames.try_send(frame).is_ok()
    }

    /// How many frames fit now.
    #[must_use]
    pub(crate) fn capacity(&self) -> usize {
        self.frames.capacity()
    }
}

pub(crate) fn update_frame(update_id: u64, update: Bytes) -> ClientFrame {
    frame(client_frame::Frame::Update(ClientUpdate { update_id, update }))
}

pub(crate) fn awareness_frame(state: Bytes) -> ClientFrame {
    frame(client_frame::Frame::Awareness(ClientAwareness { state }))
}

pub(crate) fn refresh_frame(token: String) -> ClientFrame {
    frame(client_frame::Frame::RefreshToken(RefreshToken { token }))
}

pub(crate) fn leave_frame() -> ClientFrame {
    frame(client_frame::Frame::Leave(Leave {}))
}

/// The way down of a session. Dropping it ends the session without a word.
#[derive(Debug)]
pub struct FrameReceiver {
    stream: Streaming<EditResponse>,
    /// What is left of the last message.
    frames: vec::IntoIter<ServerFrame>,
    /// The parts of an unfinished state difference.
    sync: Vec<Bytes>,
    sync_bytes: u64,
    sync_bytes_max: u64,
    closing: Option<Closing>,
    pongs: FrameSender,
}

impl FrameReceiver {
    /// The next event, or `None` when the server has ended the session in good order. Answers
    /// pings. Must be called all the time: a session that does not read is ended by the server, and
    /// may take all others of its connection with it.
    ///
    /// # Errors
    ///
    /// [`Error::Lost`] where a new session may help, [`Error::EpochMismatch`], [`Error::Rejected`]
    /// and [`Error::Protocol`] where not. The session has ended then.
    ///
    /// # Cancellation
    ///
    /// Safe: no event is lost.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        while let Some(frame) = self.next_frame().await? {
            if let Some(event) = self.event(frame)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// The next event if it has been received already, without looking at the connection.
    ///
    /// # Errors
    ///
    /// As [`Self::next`].
    pub fn next_buffered(&mut self) -> Result<Option<Event>, Error> {
        while let Some(frame) = self.frames.next().and_then(|frame| frame.frame) {
            if let Some(event) = self.event(frame)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    async fn next_frame(&mut self) -> Result<Option<server_frame::Frame>, Error> {
        loop {
            // A frame of a kind that this version does not know has nothing in it.
            for frame in self.frames.by_ref() {
                if let Some(frame) = frame.frame {
                    return Ok(Some(frame));
                }
            }
            match self.stream.message().await {
                Ok(Some(message)) => self.frames = message.frames.into_iter(),
                Ok(None) => return Ok(None),
                Err(status) => return Err(Error::from_status(status, self.closing.as_ref())),
            }
        }
    }

    /// What a frame means to the caller; `None` for what is dealt with here.
    fn event(&mut self, frame: server_frame::Frame) -> Result<Option<Event>, Error> {
        use server_frame::Frame;
        Ok(Some(match frame {
            Frame::Update(update) => {
                Event::Update { sequence: update.sequence, update: update.update }
            }
            Frame::Ack(ack) => Event::Ack { update_id: ack.update_id, sequence: ack.sequence },
            Frame::SyncChunk(chunk) => return self.sync_chunk(chunk),
            Frame::Awareness(awareness) => Event::Awareness {
                client_id: awareness.client_id,
                clock: awareness.clock,
                state: awareness.state,
            },
            Frame::Refused(refused) => Event::Refused {
                update_id: refused.update_id,
                reason: refused.reason(),
                retry_after: refused.retry_after.and_then(|delay| delay.try_into().ok()),
                message: refused.message,
            },
            Frame::Ping(ping) => {
                let pong = frame_pong(ping.nonce);
                if !self.pongs.try_send(pong) {
                    // Every frame is a sign of life, and the queue is full of them.
                    tracing::debug!("no room for a pong");
                }
                return Ok(None);
            }
            Frame::AccessChanged(changed) => Event::AccessChanged(changed.access()),
            Frame::Closing(closing) => {
                self.closing(&closing);
                let retry_after = closing.retry_after.and_then(|delay| delay.try_into().ok());
                Event::Closing { reason: closing.reason(), retry_after }
            }
            Frame::Joined(_) => return Err(Error::Protocol { what: "a second Joined" }),
        }))
    }

    /// Remembers the announcement of the end, for where the status itself says nothing.
    fn closing(&mut self, closing: &v1::Closing) {
        let retry_after = closing.retry_after.and_then(|delay| delay.try_into().ok());
        self.closing = Some(Closing { reason: closing.reason(), retry_after });
    }

    fn sync_chunk(&mut self, chunk: SyncChunk) -> Result<Option<Event>, Error> {
        self.sync_bytes += chunk.bytes.len() as u64;
        if self.sync_bytes > self.sync_bytes_max {
            return Err(Error::Protocol { what: "a state larger than the largest document" });
        }
        self.sync.push(chunk.bytes);
        if !chunk.last {
            return Ok(None);
        }
        self.sync_bytes = 0;
        let mut parts = std::mem::take(&mut self.sync);
        let update = match parts.pop() {
            Some(only) if parts.is_empty() => only,
            last => {
                let mut whole = BytesMut::new();
                parts.iter().chain(last.as_ref()).for_each(|part| whole.extend_from_slice(part));
                whole.freeze()
            }
        };
        Ok(Some(Event::Sync { update, sequence: chunk.sequence }))
    }

    /// What to say when the stream ended with status OK though this side did not leave.
    pub(crate) fn ended_early(&self) -> Error {
        let closing = self.closing.as_ref();
        Error::Lost(Loss {
            reason: closing.map(|closing| closing.reason).unwrap_or_default(),
            retry_after: closing.and_then(|closing| closing.retry_after),
            message: "the server ended the session".to_owned(),
            status: None,
        })
    }
}

fn frame_pong(nonce: u64) -> ClientFrame {
    frame(client_frame::Frame::Pong(Pong { nonce }))
}

/// The request stream: joins the frames that are waiting to one message.
#[derive(Debug)]
struct Upstream {
    frames: mpsc::Receiver<ClientFrame>,
    /// Did not fit into the message before.
    held: Option<ClientFrame>,
}

impl Stream for Upstream {
    type Item = EditRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<EditRequest>> {
        let mut frames = Vec::new();
        let mut message_bytes = 0;
        loop {
            let next = match self.held.take() {
                Some(frame) => Poll::Ready(Some(frame)),
                None => self.frames.poll_recv(cx),
            };
            match next {
                Poll::Ready(Some(frame)) => {
                    message_bytes += content_bytes(&frame);
                    if !frames.is_empty() && message_bytes > MESSAGE_BYTES {
                        self.held = Some(frame);
                        break;
                    }
                    frames.push(frame);
                    if frames.len() == QUEUE_FRAMES_MAX {
                        break;
                    }
                }
                Poll::Ready(None) if frames.is_empty() => return Poll::Ready(None),
                Poll::Pending if frames.is_empty() => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Poll::Ready(Some(EditRequest { frames }))
    }
}

/// The size of what may be large in a frame.
fn content_bytes(frame: &ClientFrame) -> usize {
    match &frame.frame {
        Some(client_frame::Frame::Update(update)) => update.update.len(),
        Some(client_frame::Frame::Awareness(awareness)) => awareness.state.len(),
        Some(client_frame::Frame::Join(join)) => join.state_vector.len() + join.token.len(),
        Some(client_frame::Frame::RefreshToken(refresh)) => refresh.token.len(),
        Some(client_frame::Frame::Pong(_) | client_frame::Frame::Leave(_)) | None => 0,
    }
}
