//! A session as a page has it: Subscribe on one HTTP/1.1 connection, Publish on another, one call at
//! a time.

use std::{mem, vec};

use bytes::{Bytes, BytesMut};
use cowrite_client::{JoinOptions, QUEUE_FRAMES_MAX};
use cowrite_proto::{
    PROTOCOL_VERSION,
    v1::{
        ClientFrame, ClientUpdate, Join, Pong, PublishRequest, ServerFrame, SubscribeRequest,
        SubscribeResponse, client_frame::Frame as Up,
        collaboration_service_client::CollaborationServiceClient, server_frame::Frame as Down,
    },
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tonic::{Status, Streaming, body::Body};
use tonic_web::{GrpcWebCall, GrpcWebClientService};

use super::{Event, Joined};
use crate::error::SessionError;

type Http = Client<HttpConnector, GrpcWebCall<Body>>;
type Service = CollaborationServiceClient<GrpcWebClientService<Http>>;

/// The way up of a session.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    frames: mpsc::Sender<ClientFrame>,
}

impl Sender {
    pub(crate) async fn update(&self, update_id: u64, update: Bytes) -> Result<(), SessionError> {
        let frame = ClientFrame { frame: Some(Up::Update(ClientUpdate { update_id, update })) };
        self.frames.send(frame).await.map_err(|_| SessionError::Ended)
    }
}

/// The way down of a session.
#[derive(Debug)]
pub(crate) struct Receiver {
    stream: Streaming<SubscribeResponse>,
    /// What is left of the last message.
    frames: vec::IntoIter<ServerFrame>,
    /// The parts of an unfinished state.
    state: BytesMut,
    pongs: mpsc::Sender<ClientFrame>,
    /// Says why a Publish has failed.
    failed: oneshot::Receiver<Status>,
    _publishing: JoinSet<()>,
}

/// Opens a session and waits for Joined.
pub(crate) async fn open(
    url: &str,
    options: JoinOptions,
) -> Result<(Sender, Receiver, Joined), SessionError> {
    let origin = url.parse().map_err(|_| SessionError::Address)?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let http = Client::builder(TokioExecutor::new()).build(connector);
    let mut service =
        CollaborationServiceClient::with_origin(GrpcWebClientService::new(http), origin)
            .max_decoding_message_size(usize::MAX);
    let join = Join {
        protocol_version: PROTOCOL_VERSION,
        document: options.document,
        token: options.token,
        state_vector: options.state_vector,
        epoch: options.epoch,
        resume_sequence: options.resume_sequence,
        awareness_client_id: options.awareness_client_id,
        access: options.access.into(),
    };
    let request = SubscribeRequest { join: Some(join) };
    let mut stream = service.subscribe(request).await?.into_inner();
    let first = stream.message().await?.ok_or(SessionError::Ended)?;
    let mut frames = first.frames.into_iter();
    let Some(Down::Joined(joined)) = frames.next().and_then(|frame| frame.frame) else {
        return Err(SessionError::Protocol("the first frame is not Joined"));
    };
    let (sender, up) = mpsc::channel(QUEUE_FRAMES_MAX);
    let (failing, failed) = oneshot::channel();
    let mut publishing = JoinSet::new();
    let request = PublishRequest {
        session_id: joined.session_id.clone(),
        session_secret: joined.session_secret.clone(),
        frames: Vec::new(),
    };
    publishing.spawn(async move {
        if let Err(status) = publish(service, request, up).await {
            failing.send(status).ok();
        }
    });
    let receiver = Receiver {
        stream,
        frames,
        state: BytesMut::new(),
        pongs: sender.clone(),
        failed,
        _publishing: publishing,
    };
    Ok((Sender { frames: sender }, receiver, joined.into()))
}

/// Publishes what is waiting, all at once, until the senders are gone.
async fn publish(
    mut service: Service,
    request: PublishRequest,
    mut up: mpsc::Receiver<ClientFrame>,
) -> Result<(), Status> {
    let mut frames = Vec::new();
    while up.recv_many(&mut frames, QUEUE_FRAMES_MAX).await > 0 {
        let frames = mem::take(&mut frames);
        service.publish(PublishRequest { frames, ..request.clone() }).await?;
    }
    Ok(())
}

impl Receiver {
    /// The next event.
    pub(crate) async fn next(&mut self) -> Result<Event, SessionError> {
        loop {
            if let Some(event) = self.next_buffered()? {
                return Ok(event);
            }
            let message = tokio::select! {
                biased;
                message = self.stream.message() => message?,
                Ok(status) = &mut self.failed => return Err(status.into()),
            };
            self.frames = message.ok_or(SessionError::Ended)?.frames.into_iter();
        }
    }

    /// The next event of the last message.
    pub(crate) fn next_buffered(&mut self) -> Result<Option<Event>, SessionError> {
        while let Some(frame) = self.frames.next() {
            if let Some(event) = self.event(frame)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    fn event(&mut self, frame: ServerFrame) -> Result<Option<Event>, SessionError> {
        Ok(match frame.frame {
            Some(Down::Update(update)) => Some(Event::Update(update.update)),
            Some(Down::Ack(ack)) => Some(Event::Ack { update_id: ack.update_id }),
            Some(Down::Refused(refused)) => Some(Event::Refused(refused.reason())),
            Some(Down::SyncChunk(chunk)) => {
                self.state.extend_from_slice(&chunk.bytes);
                chunk.last.then(|| Event::State {
                    update: self.state.split().freeze(),
                    sequence: chunk.sequence,
                })
            }
            Some(Down::Ping(ping)) => {
                let pong = ClientFrame { frame: Some(Up::Pong(Pong { nonce: ping.nonce })) };
                // Full: every frame is a sign of life. Closed: `failed` says why.
                self.pongs.try_send(pong).ok();
                None
            }
            Some(Down::Joined(_)) => return Err(SessionError::Protocol("a second Joined")),
            // Not an edit. What Closing announces, the status that follows tells as well.
            Some(Down::Awareness(_) | Down::AccessChanged(_) | Down::Closing(_)) | None => None,
        })
    }
}
