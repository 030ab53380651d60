//! A server for tests, with every door: it passes updates on, keeps nothing, and loses what it is
//! told to lose.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
};

use bytes::Bytes;
use cowrite_proto::v1::{
    Ack, ClientFrame, EditRequest, EditResponse, Joined, PublishRequest, PublishResponse,
    ServerFrame, ServerUpdate, SubscribeRequest, SubscribeResponse, SyncChunk,
    client_frame::Frame as Up,
    collaboration_service_server::{CollaborationService, CollaborationServiceServer},
    server_frame::Frame as Down,
};
use futures_util::{SinkExt as _, StreamExt as _, stream::BoxStream};
use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message as Frame,
        handshake::server::{Request as Upgrade, Response as Upgraded},
    },
};
use tonic::{Request, Response, Status, Streaming};
use tonic_web::GrpcWebLayer;

use crate::door::{
    Door, Entrance,
    wire::{Framing, Message},
};

type Responses<T> = BoxStream<'static, Result<T, Status>>;

/// A running relay; ends when it is dropped.
pub(crate) struct Relay {
    entrance: Entrance,
    _serving: JoinSet<()>,
}

/// The way down to a session.
type Session = mpsc::Sender<Down>;

#[derive(Default)]
struct Hub {
    documents: Mutex<HashMap<String, Vec<Session>>>,
    /// Of Subscribe, by id.
    subscribed: Mutex<HashMap<String, (String, Session)>>,
    sequence: AtomicU64,
    tasks: Mutex<JoinSet<()>>,
    /// Every so many updates, one is passed on to all but the first session.
    lose_every: Option<u64>,
}

impl Relay {
    /// Serves on a free port.
    pub(crate) async fn start(door: Door, lose_every: Option<u64>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("http://{}", listener.local_addr().expect("has an address"));
        let hub = Arc::new(Hub { lose_every, ..Hub::default() });
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            match door {
                Door::Grpc | Door::GrpcWeb => tonic::transport::Server::builder()
                    .accept_http1(true)
                    .layer(GrpcWebLayer::new())
                    .add_service(CollaborationServiceServer::new(Service(hub)))
                    .serve_with_incoming(TcpListenerStream::new(listener))
                    .await
                    .expect("serves"),
                Door::YWebsocket | Door::Hocuspocus => loop {
                    let (stream, _) = listener.accept().await.expect("accepts");
                    hub.tasks.lock().spawn(web_socket(Arc::clone(&hub), stream));
                },
            }
        });
        Self { entrance: Entrance { url, door }, _serving: serving }
    }

    pub(crate) fn entrance(&self) -> &Entrance {
        &self.entrance
    }
}

impl Hub {
    /// Opens a session; what it is sent begins with Joined and an empty state.
    async fn join(&self, document: &str) -> (Session, mpsc::Receiver<Down>) {
        let (session, down) = mpsc::channel(1024);
        let session_id = self.sequence.fetch_add(1, Ordering::Relaxed).to_string();
        let chunk = SyncChunk { bytes: vec![0, 0].into(), last: true, sequence: 0 };
        let joined = Joined { session_id: session_id.clone(), ..Joined::default() };
        for frame in [Down::Joined(joined), Down::SyncChunk(chunk)] {
            session.send(frame).await.expect("there is room");
        }
        self.documents.lock().entry(document.to_owned()).or_default().push(session.clone());
        self.subscribed.lock().insert(session_id, (document.to_owned(), session.clone()));
        (session, down)
    }

    async fn update(&self, document: &str, from: &Session, update_id: u64, update: &Bytes) {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let sessions = self.documents.lock()[document].clone();
        let lost = self.lose_every.is_some_and(|every| sequence.is_multiple_of(every));
        for session in sessions.iter().skip(usize::from(lost)) {
            let frame = if session.same_channel(from) {
                Down::Ack(Ack { update_id, sequence })
            } else {
                Down::Update(ServerUpdate { sequence, update: update.clone() })
            };
            // One that has left needs nothing.
            session.send(frame).await.ok();
        }
    }
}

/// One WebSocket connection with one session.
async fn web_socket(hub: Arc<Hub>, stream: TcpStream) {
    let mut path = String::new();
    #[expect(clippy::result_large_err, reason = "the library's type")]
    let note = |upgrade: &Upgrade, upgraded: Upgraded| {
        path = upgrade.uri().path().to_owned();
        Ok(upgraded)
    };
    let (mut sink, mut stream) = accept_hdr_async(stream, note).await.expect("upgrades").split();
    let document = match path.strip_prefix("/yjs/") {
        Some(document) => document.to_owned(),
        None => {
            assert_eq!(path, "/hocuspocus");
            let token = stream.next().await.expect("a token").expect("a frame").into_data();
            let name = &token[1..=usize::from(token[0])];
            String::from_utf8(name.to_vec()).expect("a name")
        }
    };
    let hocuspocus = path == "/hocuspocus";
    let framing = if hocuspocus { Framing::hocuspocus(&document) } else { Framing::YWebsocket };
    let taken = |framing: &Framing| [framing.address(), &[8, 1]].concat().into();
    let (session, mut down) = hub.join(&document).await;
    if hocuspocus {
        let authenticated = [framing.address(), b"\x02\x02\x0aread-write"].concat().into();
        sink.send(Frame::Binary(authenticated)).await.expect("sends");
    }
    sink.send(Frame::Binary(framing.step1(&[0]))).await.expect("sends");
    loop {
        let answer = tokio::select! {
            frame = stream.next() => {
                let Some(Ok(Frame::Binary(frame))) = frame else { return };
                let message = framing.read(&frame).expect("a message");
                if let Message::Update(update) = &message {
                    hub.update(&document, &session, 0, update).await;
                }
                if matches!(message, Message::Step1(_)) {
                    Some(framing.step2(&[0, 0]))
                } else {
                    // The other answer comes when the update has been passed on.
                    matches!(message, Message::Step2(_) if hocuspocus).then(|| taken(&framing))
                }
            }
            frame = down.recv() => {
                let frame = frame.expect("the hub is there");
                if let Down::Update(update) = &frame {
                    Some(framing.update(&update.update))
                } else {
                    matches!(frame, Down::Ack(_) if hocuspocus).then(|| taken(&framing))
                }
            }
        };
        if let Some(answer) = answer
            && sink.send(Frame::Binary(answer)).await.is_err()
        {
            return;
        }
    }
}

struct Service(Arc<Hub>);

fn frames(frame: Down) -> Vec<ServerFrame> {
    vec![ServerFrame { frame: Some(frame) }]
}

#[tonic::async_trait]
impl CollaborationService for Service {
    type EditStream = Responses<EditResponse>;
    type SubscribeStream = Responses<SubscribeResponse>;

    async fn edit(
        &self,
        request: Request<Streaming<EditRequest>>,
    ) -> Result<Response<Self::EditStream>, Status> {
        let mut up = request.into_inner();
        let first = up.message().await?.expect("a message").frames.remove(0);
        let Some(Up::Join(join)) = first.frame else { panic!("the first frame is Join") };
        let (session, down) = self.0.join(&join.document).await;
        let hub = Arc::clone(&self.0);
        self.0.tasks.lock().spawn(async move {
            while let Ok(Some(EditRequest { frames })) = up.message().await {
                for ClientFrame { frame } in frames {
                    if let Some(Up::Update(update)) = frame {
                        let id = update.update_id;
                        hub.update(&join.document, &session, id, &update.update).await;
                    }
                }
            }
        });
        let down = ReceiverStream::new(down);
        Ok(Response::new(down.map(|frame| Ok(EditResponse { frames: frames(frame) })).boxed()))
    }

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let join = request.into_inner().join.expect("a Join");
        let (_, down) = self.0.join(&join.document).await;
        let down = ReceiverStream::new(down);
        Ok(Response::new(down.map(|frame| Ok(SubscribeResponse { frames: frames(frame) })).boxed()))
    }

    async fn publish(
        &self,
        request: Request<PublishRequest>,
    ) -> Result<Response<PublishResponse>, Status> {
        let PublishRequest { session_id, frames, .. } = request.into_inner();
        let (document, session) = self.0.subscribed.lock()[&session_id].clone();
        for ClientFrame { frame } in frames {
            if let Some(Up::Update(update)) = frame {
                self.0.update(&document, &session, update.update_id, &update.update).await;
            }
        }
        Ok(Response::new(PublishResponse {}))
    }
}
