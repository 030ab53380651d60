//! The collaboration service: Edit for native clients, Subscribe and Publish for browsers.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use cowrite_proto::v1::{EditRequest, PublishRequest, PublishResponse, SubscribeRequest};
use futures_core::Stream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Request, Response, Status, Streaming};

use super::{
    codec::{CommonTerms, Frames, Terms},
    convert,
    grpc_web::{Fed, Feeds},
    status,
};
use crate::session::{CloseReason, Delivery, End, Frame, Inbound, Outbox, SessionId, Sessions};

/// The code that `tonic-build` makes of `build.rs`.
pub mod generated {
    #![allow(
        missing_docs,
        missing_debug_implementations,
        unreachable_pub,
        clippy::all,
        clippy::wildcard_enum_match_arm,
        reason = "generated code"
    )]
    include!(concat!(env!("OUT_DIR"), "/cowrite.v1.CollaborationService.rs"));
}

use generated::collaboration_service_server::CollaborationService;

/// The collaboration service.
#[derive(Clone, Debug)]
pub struct Collaboration {
    sessions: Sessions,
    feeds: Feeds,
    common: Arc<CommonTerms>,
    message_bytes_max: usize,
}

impl Collaboration {
    /// A service that opens sessions.
    #[must_use]
    pub fn new(sessions: Sessions, common: CommonTerms, message_bytes_max: usize) -> Self {
        Self { sessions, feeds: Feeds::default(), common: Arc::new(common), message_bytes_max }
    }

    fn terms(&self, secret: Option<Bytes>) -> Terms {
        Terms { secret, common: Arc::clone(&self.common) }
    }
}

#[tonic::async_trait]
impl CollaborationService for Collaboration {
    type EditStream = FrameStream;
    type SubscribeStream = FrameStream;

    async fn edit(
        &self,
        request: Request<Streaming<EditRequest>>,
    ) -> Result<Response<FrameStream>, Status> {
        let message_bytes_max = self.message_bytes_max;
        let inbound = Streamed { stream: request.into_inner(), message_bytes_max };
        let (outbox, gone) = self.sessions.open(SessionId::random(), inbound);
        Ok(Response::new(FrameStream::new(outbox, gone, self.terms(None), None)))
    }

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<FrameStream>, Status> {
        let join = request.into_inner().join;
        let join = join.ok_or(CloseReason::NotJoined).and_then(convert::join);
        let join = join.map_err(|reason| status::closed(&reason, None))?;
        let session = SessionId::random();
        let (fed, feed) = self.feeds.open(session, Frame::Join(Box::new(join)));
        let (outbox, gone) = self.sessions.open(session, fed);
        let terms = self.terms(Some(feed.secret()));
        Ok(Response::new(FrameStream::new(outbox, gone, terms, Some(feed))))
    }

    async fn publish(
        &self,
        request: Request<PublishRequest>,
    ) -> Result<Response<PublishResponse>, Status> {
        let PublishRequest { session_id, session_secret, frames } = request.into_inner();
        let frames = convert::frames(frames).map_err(|reason| status::closed(&reason, None))?;
        self.feeds.deliver(&session_id, &session_secret, frames).await?;
        Ok(Response::new(PublishResponse {}))
    }
}

/// The frames of an Edit stream.
struct Streamed {
    stream: Streaming<EditRequest>,
    message_bytes_max: usize,
}

impl Inbound for Streamed {
    // h2 ends a connection on which many small frames wait, with everybody's streams on it.
    const WAITS: bool = false;

    async fn next(&mut self) -> Option<Result<Delivery, CloseReason>> {
        let message = match self.stream.message().await {
            Ok(message) => message?,
            // What prost or tonic say of the message itself; the rest is a connection that broke.
            Err(status) if status.code() == Code::OutOfRange => {
                return Some(Err(CloseReason::MessageTooLarge(self.message_bytes_max)));
            }
            Err(status) if status.code() == Code::InvalidArgument => {
                return Some(Err(CloseReason::MalformedFrame(status.message().to_owned())));
            }
            Err(_) => return None,
        };
        Some(convert::frames(message.frames).map(|frames| Delivery { frames, reply: None }))
    }
}

/// The events of a session as a response stream. Dropped, the session ends: that is how a client
/// that went away shows.
#[derive(Debug)]
pub struct FrameStream {
    outbox: Arc<Outbox>,
    terms: Terms,
    ended: bool,
    _feed: Option<Fed>,
    _gone: DropGuard,
}

impl FrameStream {
    fn new(outbox: Arc<Outbox>, gone: CancellationToken, terms: Terms, feed: Option<Fed>) -> Self {
        Self { outbox, terms, ended: false, _feed: feed, _gone: gone.drop_guard() }
    }
}

impl Stream for FrameStream {
    type Item = Result<Frames, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut events = Vec::new();
        match self.outbox.poll_take(cx, &mut events) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                Poll::Ready(Some(Ok(Frames { events, terms: self.terms.clone() })))
            }
            Poll::Ready(Some(end)) => {
                self.ended = true;
                Poll::Ready(match end {
                    End::Left => None,
                    End::Closed { reason, retry_after } => {
                        Some(Err(status::closed(&reason, retry_after)))
                    }
                })
            }
        }
    }
}
