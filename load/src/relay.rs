//! A server for tests: it passes updates on, keeps nothing, and loses what it is told to lose.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use cowrite_proto::v1::{
    Ack, ClientFrame, EditRequest, EditResponse, Joined, PublishRequest, PublishResponse,
    ServerFrame, ServerUpdate, SubscribeRequest, SubscribeResponse, SyncChunk,
    client_frame::Frame as Up,
    collaboration_service_server::{CollaborationService, CollaborationServiceServer},
    server_frame::Frame as Down,
};
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::door::{Door, Entrance};

type Responses = mpsc::Sender<Result<EditResponse, Status>>;

/// A running relay; ends when it is dropped.
pub(crate) struct Relay {
    pub(crate) url: String,
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct Service {
    documents: Arc<Mutex<HashMap<String, Vec<Responses>>>>,
    tasks: Arc<Mutex<JoinSet<()>>>,
    /// Every so many updates, one is passed on to all but the first session.
    lose_every: Option<u64>,
}

impl Relay {
    /// Serves on a free port.
    pub(crate) async fn start(lose_every: Option<u64>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address: SocketAddr = listener.local_addr().expect("has an address");
        let service = Service { lose_every, ..Service::default() };
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            tonic::transport::Server::builder()
                .add_service(CollaborationServiceServer::new(service))
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .expect("serves");
        });
        Self { url: format!("http://{address}"), _serving: serving }
    }
}

impl Relay {
    pub(crate) fn entrance(&self) -> Entrance {
        Entrance { url: self.url.clone(), door: Door::Grpc }
    }
}

fn message(frame: Down) -> Result<EditResponse, Status> {
    Ok(EditResponse { frames: vec![ServerFrame { frame: Some(frame) }] })
}

#[tonic::async_trait]
impl CollaborationService for Service {
    type EditStream = ReceiverStream<Result<EditResponse, Status>>;
    type SubscribeStream = ReceiverStream<Result<SubscribeResponse, Status>>;

    async fn edit(
        &self,
        request: Request<Streaming<EditRequest>>,
    ) -> Result<Response<Self::EditStream>, Status> {
        let mut up = request.into_inner();
        let (down, stream) = mpsc::channel(1024);
        let (documents, lose_every) = (Arc::clone(&self.documents), self.lose_every);
        self.tasks.lock().spawn(async move {
            let (mut document, mut sequence) = (String::new(), 0);
            while let Ok(Some(EditRequest { frames })) = up.message().await {
                for ClientFrame { frame } in frames {
                    if let Some(Up::Join(join)) = frame {
                        document = join.document;
                        let chunk = SyncChunk { bytes: vec![0, 0].into(), last: true, sequence };
                        for frame in [Down::Joined(Joined::default()), Down::SyncChunk(chunk)] {
                            down.send(message(frame)).await.expect("the session is there");
                        }
                        documents.lock().entry(document.clone()).or_default().push(down.clone());
                    } else if let Some(Up::Update(update)) = frame {
                        sequence += 1;
                        let sessions = documents.lock()[&document].clone();
                        let lost = lose_every.is_some_and(|every| sequence % every == 0);
                        for session in sessions.iter().skip(usize::from(lost)) {
                            if session.same_channel(&down) {
                                let ack = Ack { update_id: update.update_id, sequence };
                                session.send(message(Down::Ack(ack))).await.ok();
                            } else {
                                let update = update.update.clone();
                                let update = ServerUpdate { sequence, update };
                                session.send(message(Down::Update(update))).await.ok();
                            }
                        }
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn subscribe(
        &self,
        _: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        Err(Status::unimplemented("for browsers"))
    }

    async fn publish(
        &self,
        _: Request<PublishRequest>,
    ) -> Result<Response<PublishResponse>, Status> {
        Err(Status::unimplemented("for browsers"))
    }
}
