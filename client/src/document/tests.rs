//! The document against a server that is played by hand, over pipes in memory and on virtual time.

use std::{io, pin::pin, time::Duration};

use cowrite_proto::v1::{
    self as proto, ClientFrame, EditRequest, EditResponse, Join, PublishRequest, PublishResponse,
    ServerFrame, SubscribeRequest, SubscribeResponse,
    client_frame::Frame as Up,
    collaboration_service_server::{CollaborationService, CollaborationServiceServer},
    server_frame::Frame as Down,
};
use cowrite_proto::{ERROR_DOMAIN, v1::ErrorReason};
use hyper_util::rt::TokioIo;
use tokio::{io::DuplexStream, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status as RpcStatus, Streaming, transport::Endpoint};
use tonic_types::{ErrorDetails, StatusExt as _};
use yrs::{Text as _, WriteTxn as _};

use super::*;

const EPOCH: [u8; 16] = [7; 16];
const ROOT: &str = "content";

/// The side of the server: sessions as they arrive.
struct Server {
    sessions: mpsc::Receiver<Session>,
    _task: JoinSet<()>,
}

/// One session as the server has it.
struct Session {
    up: Streaming<EditRequest>,
    frames: Vec<Up>,
    down: mpsc::Sender<Result<EditResponse, RpcStatus>>,
}

struct Service(mpsc::Sender<Session>);

#[tonic::async_trait]
impl CollaborationService for Service {
    type EditStream = ReceiverStream<Result<EditResponse, RpcStatus>>;
    type SubscribeStream = ReceiverStream<Result<SubscribeResponse, RpcStatus>>;

    async fn edit(
        &self,
        request: Request<Streaming<EditRequest>>,
    ) -> Result<Response<Self::EditStream>, RpcStatus> {
        let (down, stream) = mpsc::channel(64);
        let session = Session { up: request.into_inner(), frames: Vec::new(), down };
        self.0.send(session).await.map_err(|_| RpcStatus::unavailable("the test has ended"))?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn subscribe(
        &self,
        _: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, RpcStatus> {
        Err(RpcStatus::unimplemented("for browsers"))
    }

    async fn publish(
        &self,
        _: Request<PublishRequest>,
    ) -> Result<Response<PublishResponse>, RpcStatus> {
        Err(RpcStatus::unimplemented("for browsers"))
    }
}

fn server() -> (Server, Client) {
    let (pipes, incoming) = mpsc::channel::<io::Result<DuplexStream>>(4);
    let (arrived, sessions) = mpsc::channel(4);
    let mut task = JoinSet::new();
    task.spawn(async move {
        let service = CollaborationServiceServer::new(Service(arrived));
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(ReceiverStream::new(incoming))
            .await
            .expect("serves");
    });
    let connector = tower::service_fn(move |_: tonic::codegen::http::Uri| {
        let pipes = pipes.clone();
        async move {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            pipes.send(Ok(theirs)).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
            Ok::<_, io::Error>(TokioIo::new(ours))
        }
    });
    let channel = Endpoint::from_static("http://test").connect_with_connector_lazy(connector);
    (Server { sessions, _task: task }, Client::builder("http://test").with_channel(channel))
}

impl Server {
    async fn session(&mut self) -> (Session, Join) {
        let mut session = self.sessions.recv().await.expect("a session");
        let Up::Join(join) = session.next().await else { panic!("the first frame is not Join") };
        (session, join)
    }

    /// A session on an empty document, in sync.
    async fn synced_session(&mut self) -> Session {
        let (session, _) = self.session().await;
        session.join(joined(&Doc::new())).await;
        session.sync(&Doc::new(), 0).await;
        session
    }
}

impl Session {
    async fn next(&mut self) -> Up {
        while self.frames.is_empty() {
            let message = self.up.message().await.expect("a message").expect("no end");
            let frame = |frame: ClientFrame| frame.frame.expect("a frame");
            self.frames = message.frames.into_iter().map(frame).collect();
        }
        self.frames.remove(0)
    }

    async fn next_update(&mut self) -> proto::ClientUpdate {
        let frame = self.next().await;
        let Up::Update(update) = frame else { panic!("not an update: {frame:?}") };
        update
    }

    async fn send(&self, frame: Down) {
        let response = EditResponse { frames: vec![ServerFrame { frame: Some(frame) }] };
        self.down.send(Ok(response)).await.expect("the client is there");
    }

    async fn join(&self, joined: Joined) {
        self.send(Down::Joined(joined)).await;
    }

    /// Sends the whole of `doc`, in two parts.
    async fn sync(&self, doc: &Doc, sequence: u64) {
        let state = doc.transact().encode_diff_v1(&StateVector::default());
        let (first, rest) = state.split_at(state.len() / 2);
        for (part, last) in [(first, false), (rest, true)] {
            let bytes = Bytes::copy_from_slice(part);
            self.send(Down::SyncChunk(proto::SyncChunk { bytes, last, sequence })).await;
        }
    }

    async fn ack(&self, update_id: u64, sequence: u64) {
        self.send(Down::Ack(proto::Ack { update_id, sequence })).await;
    }

    async fn end(self, status: RpcStatus) {
        self.down.send(Err(status)).await.expect("the client is there");
    }
}

fn joined(doc: &Doc) -> Joined {
    Joined {
        session_id: "s".to_owned(),
        epoch: Bytes::from_static(&EPOCH),
        access: Access::Write.into(),
        state_vector: doc.transact().state_vector().encode_v1().into(),
        limits: Some(proto::Limits {
            message_bytes_max: 4 << 20,
            update_bytes_max: 1 << 20,
            awareness_bytes_max: 64,
            document_bytes_max: 64 << 20,
        }),
        ..Joined::default()
    }
}

fn status(code: Code, reason: &str, retry: Option<Duration>) -> RpcStatus {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, ERROR_DOMAIN, [("k".to_owned(), "v".to_owned())]);
    details.set_retry_info(retry);
    RpcStatus::with_error_details(code, "told so", details)
}

fn type_text(document: &Document, text: &str) {
    document.edit(|txn| txn.get_or_insert_text(ROOT).push(txn, text));
}

fn doc_with(text: &str) -> Doc {
    let doc = Doc::new();
    doc.get_or_insert_text(ROOT).push(&mut doc.transact_mut(), text);
    doc
}

fn text_after(doc: &Doc, update: &[u8]) -> String {
    let root = doc.get_or_insert_text(ROOT);
    let mut txn = doc.transact_mut();
    txn.apply_update(Update::decode_v1(update).expect("decodes")).expect("applies");
    assert!(!txn.has_missing_updates());
    root.get_string(&txn)
}

async fn until(document: &Document, mut is: impl FnMut(&Status) -> bool) -> Status {
    document.status().wait_for(|status| is(status)).await.expect("a status").clone()
}

#[tokio::test(start_paused = true)]
async fn the_initial_state_comes_in_parts_and_then_edits_come_as_they_are_made() {
    let (mut server, client) = server();
    let document = client.document("d", DocumentOptions::default());
    let (session, join) = server.session().await;
    assert_eq!((join.document.as_str(), join.state_vector.len()), ("d", 0));
    let doc = doc_with("Hello");
    session.join(joined(&doc)).await;
    session.sync(&doc, 3).await;
    document.wait_until_synced().await.expect("synced");
    assert_eq!(document.text(ROOT), "Hello");

    let mut changes = document.changes();
    changes.mark_unchanged();
    let before = doc.transact().state_vector();
    doc.get_or_insert_text(ROOT).push(&mut doc.transact_mut(), ", all");
    let update = doc.transact().encode_diff_v1(&before).into();
    session.send(Down::Update(proto::ServerUpdate { sequence: 4, update })).await;
    changes.changed().await.expect("changes");
    assert_eq!(document.text(ROOT), "Hello, all");
}

/// A JWT with this life in seconds, which nobody has signed.
fn token(life: u64) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let claims = format!(r#"{{"iat":1000,"exp":{}}}"#, 1000 + life);
    format!("e30.{}.", URL_SAFE_NO_PAD.encode(claims))
}

#[tokio::test(start_paused = true)]
async fn a_new_token_is_shown_in_the_session_before_the_old_one_expires() {
    let (mut server, client) = server();
    let asked = Arc::new(Mutex::new(0));
    let token_source = TokenSource::from_fn({
        let asked = Arc::clone(&asked);
        move || {
            let mut asked = asked.lock().expect("no panic");
            *asked += 1;
            let answer = match *asked {
                2 => Err("the login server sleeps"),
                count => Ok(token(100 * count)),
            };
            async move { answer }
        }
    });
    let options = DocumentOptions { token: token_source, ..DocumentOptions::default() };
    let document = client.document("d", options);
    let (mut session, join) = server.session().await;
    assert_eq!(join.token, token(100));
    session.join(joined(&Doc::new())).await;
    session.sync(&Doc::new(), 0).await;
    document.wait_until_synced().await.expect("synced");
    let began = Instant::now();
    let Up::RefreshToken(refresh) = session.next().await else { panic!("not a new token") };
    // At four fifths, and once more after a failure.
    assert_eq!(refresh.token, token(300));
    assert_eq!(began.elapsed().as_secs(), 85);
    let Up::RefreshToken(refresh) = session.next().await else { panic!("not a new token") };
    assert_eq!(refresh.token, token(400));
    assert_eq!(began.elapsed().as_secs(), 85 + 240);
}

#[tokio::test(start_paused = true)]
async fn an_edit_is_saved_when_it_is_acknowledged_and_not_before() {
    let (mut server, client) = server();
    let document = client.document("d", DocumentOptions::default());
    let mut session = server.synced_session().await;
    document.wait_until_synced().await.expect("synced");
    type_text(&document, "a");
    let update = session.next_update().await;
    {
        let mut saved = pin!(document.wait_until_saved());
        assert!(timeout(Duration::from_secs(5), saved.as_mut()).await.is_err());
        assert_eq!(document.unsaved().borrow().edits, 1);
        session.ack(update.update_id, 1).await;
        saved.await.expect("saved");
    }
    assert_eq!(text_after(&Doc::new(), &update.update), "a");
}

#[tokio::test(start_paused = true)]
async fn what_was_not_acknowledged_is_sent_again_as_one_difference() {
    let (mut server, client) = server();
    let document = client.document("d", DocumentOptions::default());
    let mut session = server.synced_session().await;
    document.wait_until_synced().await.expect("synced");
    type_text(&document, "a");
    let first = session.next_update().await;
    session.ack(first.update_id, 1).await;
    document.wait_until_saved().await.expect("saved");
    type_text(&document, "b");
    session.next_update().await;
    drop(session);
    until(&document, |status| matches!(status, Status::Lost { .. })).await;
    type_text(&document, "c");

    let on_server = Doc::new();
    text_after(&on_server, &first.update);
    let (mut session, join) = server.session().await;
    assert_eq!((join.resume_sequence, join.epoch.as_ref()), (1, EPOCH.as_slice()));
    session.join(Joined { resumed: true, sync_sequence: 1, ..joined(&on_server) }).await;
    let again = session.next_update().await;
    assert_eq!(text_after(&on_server, &again.update), "abc");
    assert_eq!(document.unsaved().borrow().edits, 2);
    session.ack(again.update_id, 2).await;
    document.wait_until_saved().await.expect("saved");
    document.wait_until_synced().await.expect("a resumed session without news is in sync");
}

#[tokio::test(start_paused = true)]
async fn edits_made_before_the_first_session_are_sent_in_it() {
    let (mut server, client) = server();
    let document = client.document("d", DocumentOptions::default());
    type_text(&document, "early");
    let (mut session, _) = server.session().await;
    session.join(joined(&Doc::new())).await;
    session.sync(&Doc::new(), 0).await;
    let update = session.next_update().await;
    assert_eq!(text_after(&Doc::new(), &update.update), "early");
}

#[tokio::test(start_paused = true)]
async fn the_server_is_not_asked_again_before_retry_after() {
    let (mut server, client) = server();
    let document = client.document("d", DocumentOptions::default());
    let session = server.synced_session().await;
    document.wait_until_synced().await.expect("synced");
    let wait = Duration::from_secs(20);
    let lost_at = Instant::now();
    session.end(status(Code::Unavailable, "DRAINING", Some(wait))).await;
    server.session().await;
    assert!(lost_at.elapsed() >= wait, "{:?}", lost_at.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_cut_connection_is_made_again() {
    let (mut server, client) = server();
    let document = client.document("d", DocumentOptions::default());
    for _ in 0..3 {
        drop(server.synced_session().await);
        until(&document, |status| matches!(status, Status::Lost { .. })).await;
    }
    let _session = server.synced_session().await;
    document.wait_until_synced().await.expect("synced");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_join_is_left_after_the_deadline() {
    let (mut server, client) = server();
    let document = client.document("d", DocumentOptions::default());
    let _silent = server.session().await;
    let opened_at = Instant::now();
    until(&document, |status| matches!(status, Status::Lost { .. })).await;
    assert_eq!(opened_at.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_fatal_status_stops_for_good() {
    let (mut server, client) = server();
    let document = client.document("d", DocumentOptions::default());
    let (session, _) = server.session().await;
    session.end(status(Code::Unauthenticated, "UNAUTHENTICATED", None)).await;
    let error = document.wait_until_synced().await.expect_err("refused");
    assert!(matches!(error, Error::Rejected { reason: ErrorReason::Unauthenticated, .. }));
    let another = timeout(Duration::from_secs(600), server.sessions.recv()).await;
    assert!(another.is_err(), "the client came back");
}

#[tokio::test(start_paused = true)]
async fn another_epoch_stops_and_keeps_the_copy() {
    let (mut server, client) = server();
    let document = client.document("d", DocumentOptions::default());
    let session = server.synced_session().await;
    document.wait_until_synced().await.expect("synced");
    type_text(&document, "mine");
    drop(session);
    let (session, _) = server.session().await;
    session.end(status(Code::FailedPrecondition, "EPOCH_MISMATCH", None)).await;
    let error = document.wait_until_saved().await.expect_err("another epoch");
    assert!(matches!(error, Error::EpochMismatch));
    assert_eq!(document.text(ROOT), "mine");
    assert_eq!(text_after(&Doc::new(), &document.encode()), "mine");
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_answered_with_its_nonce() {
    let (mut server, client) = server();
    let _document = client.document("d", DocumentOptions::default());
    let mut session = server.synced_session().await;
    session.send(Down::Ping(proto::Ping { nonce: 77 })).await;
    assert_eq!(session.next().await, Up::Pong(proto::Pong { nonce: 77 }));
}

fn refused(update_id: u64, reason: ErrorReason, retry: Option<Duration>) -> Down {
    Down::Refused(proto::Refused {
        update_id,
        reason: reason.into(),
        message: "no".to_owned(),
        retry_after: retry.map(|delay| delay.try_into().expect("fits")),
    })
}

#[tokio::test(start_paused = true)]
async fn a_refused_edit_is_sent_again_when_the_server_says_so() {
    let (mut server, client) = server();
    let document = client.document("d", DocumentOptions::default());
    let mut session = server.synced_session().await;
    type_text(&document, "a");
    let first = session.next_update().await;
    let delay = Duration::from_secs(2);
    let refused_at = Instant::now();
    session.send(refused(first.update_id, ErrorReason::Busy, Some(delay))).await;
    let again = session.next_update().await;
    assert!(refused_at.elapsed() >= delay);
    assert!(again.update_id > first.update_id);
    session.ack(again.update_id, 1).await;
    document.wait_until_saved().await.expect("saved");
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_is_refused_for_good_is_reported_as_not_saved() {
    let (mut server, client) = server();
    let document = client.document("d", DocumentOptions::default());
    let mut session = server.synced_session().await;
    type_text(&document, "a");
    let update = session.next_update().await;
    session.send(refused(update.update_id, ErrorReason::DocumentTooLarge, None)).await;
    let error = document.wait_until_saved().await.expect_err("not saved");
    let Error::NotSaved(refusal) = error else { panic!("{error:?}") };
    assert_eq!(refusal.reason, ErrorReason::DocumentTooLarge);
    assert_eq!(document.unsaved().borrow().edits, 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_may_only_read_sends_no_edits_until_it_may_write() {
    let (mut server, client) = server();
    let document = client.document("d", DocumentOptions::default());
    let (mut session, _) = server.session().await;
    session.join(Joined { access: Access::Read.into(), ..joined(&Doc::new()) }).await;
    session.sync(&Doc::new(), 0).await;
    document.wait_until_synced().await.expect("synced");
    type_text(&document, "a");
    let error = document.wait_until_saved().await.expect_err("read-only");
    assert_eq!(error.reason(), ErrorReason::WriteDenied);
    let access = Access::Write.into();
    session.send(Down::AccessChanged(proto::AccessChanged { access })).await;
    assert_eq!(text_after(&Doc::new(), &session.next_update().await.update), "a");
}

#[tokio::test(start_paused = true)]
async fn awareness_is_announced_in_every_session_and_that_of_others_is_seen() {
    let (mut server, client) = server();
    let document = client.document("d", DocumentOptions::default());
    let me = serde_json::json!({"user": "me"});
    document.set_awareness(Some(&me)).expect("small");
    for _ in 0..2 {
        let mut session = server.synced_session().await;
        let Up::Awareness(state) = session.next().await else { panic!("no awareness") };
        assert_eq!(state.state, me.to_string());
        let mut others = document.awareness();
        let state = Bytes::from_static(b"{\"user\":\"you\"}");
        let you = proto::ServerAwareness { client_id: 5, clock: 1, state };
        session.send(Down::Awareness(you.clone())).await;
        others.wait_for(|all| all.contains_key(&5)).await.expect("seen");
        session.send(Down::Awareness(proto::ServerAwareness { state: Bytes::new(), ..you })).await;
        others.wait_for(HashMap::is_empty).await.expect("gone");
    }
    let large = Value::String("x".repeat(100));
    let error = document.set_awareness(Some(&large)).expect_err("too large");
    assert!(matches!(error, Error::AwarenessTooLarge { bytes: 102, bytes_max: 64 }));
}

#[tokio::test(start_paused = true)]
async fn leaving_waits_for_the_acknowledgement() {
    let (mut server, client) = server();
    let document = client.document("d", DocumentOptions::default());
    let mut session = server.synced_session().await;
    type_text(&document, "a");
    let mut left = pin!(document.leave());
    assert!(timeout(Duration::from_secs(1), left.as_mut()).await.is_err());
    let update = session.next_update().await;
    assert!(matches!(session.next().await, Up::Leave(_)));
    session.ack(update.update_id, 1).await;
    drop(session);
    left.await.expect("left");
    assert!(matches!(*document.status().borrow(), Status::Closed { error: None }));
}

#[tokio::test(start_paused = true)]
async fn a_crowd_of_edits_is_bounded_on_its_way_and_arrives_whole() {
    let (mut server, client) = server();
    let document = client.document("d", DocumentOptions::default());
    let mut session = server.synced_session().await;
    document.wait_until_synced().await.expect("synced");
    for _ in 0..5000 {
        type_text(&document, "x");
    }
    let (on_server, mut updates) = (Doc::new(), 0);
    while text_after(&on_server, &[0, 0]).len() < 5000 {
        let update = session.next_update().await;
        text_after(&on_server, &update.update);
        updates += 1;
        session.ack(update.update_id, updates).await;
    }
    document.wait_until_saved().await.expect("saved");
    assert!(updates < 200, "{updates} updates");
}

#[tokio::test(start_paused = true)]
async fn an_update_with_a_gap_before_it_leads_to_a_difference() {
    let (mut server, client) = server();
    let document = client.document("d", DocumentOptions::default());
    let session = server.synced_session().await;
    document.wait_until_synced().await.expect("synced");
    let doc = doc_with("first");
    let before = doc.transact().state_vector();
    doc.get_or_insert_text(ROOT).push(&mut doc.transact_mut(), " second");
    let update = doc.transact().encode_diff_v1(&before).into();
    session.send(Down::Update(proto::ServerUpdate { sequence: 2, update })).await;
    let (session, join) = server.session().await;
    assert_eq!(join.resume_sequence, 0);
    session.join(joined(&doc)).await;
    session.sync(&doc, 2).await;
    document.wait_until_synced().await.expect("synced");
    assert_eq!(document.text(ROOT), "first second");
}

#[tokio::test]
async fn nobody_listening_is_a_loss_and_an_address_that_is_none_is_an_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("has an address"));
    drop(listener);
    assert!(Client::connect(url).await.expect_err("nobody").is_lost());
    let error = Client::connect("not a url").await.expect_err("no address");
    assert!(matches!(error, Error::Address { .. }));
}
