//! Promise: everybody gets exactly what their token grants, through every door, for as long as it
//! grants it; and nobody learns of a document that they may not read.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

use std::{sync::Arc, time::Duration};

use cowrite_client::{Client, DocumentOptions, TokenSource};
use cowrite_proto::v1::{
    Join, ListDocumentsRequest, ListDocumentsResponse,
    document_service_client::DocumentServiceClient, server_frame::Frame as Down,
};
use cowrite_server::{
    auth::Access,
    ids::{DocumentId, Epoch},
    log::{MemoryLog, UpdateLog},
    metrics::Metrics,
};
use cowrite_tests::{
    Door, Issuer, RawSession, TestServer, http_request, join, join_as, refused, text_update, up,
};
use tonic::{Request, Status};

/// What a token says about a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Nothing,
    Read,
    Comment,
    Write,
    Admin,
}

impl Role {
    const ALL: [Self; 5] = [Self::Nothing, Self::Read, Self::Comment, Self::Write, Self::Admin];

    fn grants(self, document: &str) -> Vec<(&str, Access)> {
        match self {
            Self::Nothing => vec![("elsewhere", Access::Admin)],
            Self::Read => vec![(document, Access::Read)],
            Self::Comment => vec![(document, Access::Comment)],
            Self::Write => vec![(document, Access::Write)],
            Self::Admin => vec![(document, Access::Admin)],
        }
    }
}

/// How it is with the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Good,
    Missing,
    Expired,
    /// Signed by somebody else.
    Forged,
    /// Of another audience.
    Foreign,
    /// Good, shown to a session that had begun with less.
    Raised,
    /// Good, shown to a session that had begun with more.
    Lowered,
}

impl State {
    const ALL: [Self; 7] = [
        Self::Good,
        Self::Missing,
        Self::Expired,
        Self::Forged,
        Self::Foreign,
        Self::Raised,
        Self::Lowered,
    ];
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Join,
    Update,
    Awareness,
    Pong,
    Refresh,
    RefreshAsSomebodyElse,
    JoinAgain,
    Leave,
    List,
}

impl Deed {
    const ALL: [Self; 9] = [
        Self::Join,
        Self::Update,
        Self::Awareness,
        Self::Pong,
        Self::Refresh,
        Self::RefreshAsSomebodyElse,
        Self::JoinAgain,
        Self::Leave,
        Self::List,
    ];
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// The call worked, and did not tell of the document.
    Hidden,
    Refused(&'static str),
}

fn expected(role: Role, state: State, deed: Deed) -> Outcome {
    use Outcome::{Done, Hidden, Refused};
    match state {
        State::Missing | State::Expired | State::Forged | State::Foreign => {
            return Refused("UNAUTHENTICATED");
        }
        State::Good | State::Raised | State::Lowered => {}
    }
    match (role, deed) {
        (Role::Nothing, Deed::List) => Hidden,
        (Role::Nothing, _) => Refused("FORBIDDEN"),
        // What is written here is no comment.
        (Role::Read | Role::Comment, Deed::Update) => Refused("WRITE_DENIED"),
        (_, Deed::RefreshAsSomebodyElse) => Refused("SUBJECT_CHANGED"),
        (_, Deed::JoinAgain) => Refused("ALREADY_JOINED"),
        (
            Role::Read | Role::Comment | Role::Write | Role::Admin,
            Deed::Join
            | Deed::Awareness
            | Deed::Pong
            | Deed::Refresh
            | Deed::Leave
            | Deed::List
            | Deed::Update,
        ) => Done,
    }
}

struct World {
    server: TestServer,
    issuer: Issuer,
    forger: Issuer,
}

impl World {
    async fn new() -> Self {
        let issuer = Issuer::new();
        let server = TestServer::with_config(|config| issuer.configure(config)).await;
        Self { server, issuer, forger: Issuer::new() }
    }

    fn token(&self, role: Role, state: State, document: &str) -> String {
        let grants = role.grants(document);
        match state {
            State::Good | State::Raised | State::Lowered => self.issuer.token("alice", &grants),
            State::Missing => String::new(),
            State::Expired => self.issuer.token_for(Duration::ZERO, "alice", &grants),
            State::Forged => self.forger.token("alice", &grants),
            State::Foreign => self.issuer.foreign_token("alice", &grants),
        }
    }

    async fn list(&self, token: &str) -> Result<ListDocumentsResponse, Status> {
        self.list_page(token, 1000, "").await
    }

    async fn list_page(
        &self,
        token: &str,
        page_size: u32,
        page_token: &str,
    ) -> Result<ListDocumentsResponse, Status> {
        let page_token = page_token.to_owned();
        let mut request = Request::new(ListDocumentsRequest { page_size, page_token });
        if !token.is_empty() {
            let bearer = format!("Bearer {token}").parse().unwrap();
            request.metadata_mut().insert("authorization", bearer);
        }
        let mut client = DocumentServiceClient::new(self.server.channel());
        client.list_documents(request).await.map(tonic::Response::into_inner)
    }

    /// Creates `document` and stays in it.
    async fn owner(&self, document: &str) -> RawSession {
        let token = self.issuer.token("owner", &[(document, Access::Admin)]);
        let join = Join { token, ..join(document) };
        let (mut owner, _) =
            RawSession::open(self.server.channel(), Door::Edit, join).await.unwrap();
        owner.send([up::update(1, text_update("safe"))]).await.unwrap();
        while !matches!(owner.next().await.unwrap(), Some(Down::Ack(_))) {}
        owner
    }

    async fn outcome(&self, door: Door, role: Role, state: State, deed: Deed, id: &str) -> Outcome {
        match self.attempt(door, role, state, deed, id).await {
            Ok(outcome) => outcome,
            Err(status) => {
                let reason = refused(&status).reason;
                let known = [
                    "UNAUTHENTICATED",
                    "FORBIDDEN",
                    "WRITE_DENIED",
                    "SUBJECT_CHANGED",
                    "ALREADY_JOINED",
                ];
                let known = known.into_iter().find(|known| *known == reason);
                Outcome::Refused(known.unwrap_or_else(|| panic!("{status:?}")))
            }
        }
    }

    async fn attempt(
        &self,
        door: Door,
        role: Role,
        state: State,
        deed: Deed,
        id: &str,
    ) -> Result<Outcome, Status> {
        let mut owner = self.owner(id).await;
        let token = self.token(role, state, id);
        if deed == Deed::List {
            let listed = self.list(&token).await?;
            let found = listed.documents.iter().any(|document| document.id == id);
            return Ok(if found { Outcome::Done } else { Outcome::Hidden });
        }
        let first = match state {
            State::Raised => self.token(Role::Read, State::Good, id),
            State::Lowered => self.token(Role::Admin, State::Good, id),
            State::Good | State::Missing | State::Expired | State::Forged | State::Foreign => {
                token.clone()
            }
        };
        let wish = Join { token: first.clone(), ..join_as(id, 7) };
        let (mut session, _) = RawSession::open(self.server.channel(), door, wish).await?;
        if first != token {
            session.send([up::refresh_token(&*token)]).await?;
        }
        match deed {
            Deed::Join | Deed::Leave | Deed::List => {}
            Deed::Update => session.send([up::update(1, text_update("mine"))]).await?,
            Deed::Awareness => session.send([up::awareness(&b"{\"user\":1}"[..])]).await?,
            Deed::Pong => session.send([up::pong(1)]).await?,
            Deed::Refresh => session.send([up::refresh_token(&*token)]).await?,
            Deed::RefreshAsSomebodyElse => {
                let other = self.issuer.token("mallory", &role.grants(id));
                session.send([up::refresh_token(&*other)]).await?;
            }
            Deed::JoinAgain => session.send([up::join(join(id))]).await?,
        }
        if deed == Deed::Awareness && role != Role::Nothing {
            let told = |frame: &Down| matches!(frame, Down::Awareness(a) if a.client_id == 7);
            while !told(&owner.next().await?.expect("the owner stays")) {}
        }
        // Whatever was refused says so before the session is left in peace.
        session.send([up::leave()]).await.ok();
        let (frames, status) = session.end().await;
        if let Some(status) = status {
            return Err(status);
        }
        let acked = frames.iter().any(|frame| matches!(frame, Down::Ack(_)));
        assert_eq!(acked, deed == Deed::Update, "{frames:?}");
        Ok(Outcome::Done)
    }
}

#[tokio::test]
async fn every_role_may_do_what_it_may_through_every_door_with_every_kind_of_token() {
    let world = World::new().await;
    let mut wrong = Vec::new();
    for door in Door::ALL {
        for role in Role::ALL {
            for state in State::ALL {
                for deed in Deed::ALL {
                    let id = format!("{door:?}/{role:?}/{state:?}/{deed:?}");
                    let outcome = world.outcome(door, role, state, deed, &id).await;
                    if outcome != expected(role, state, deed) {
                        wrong.push(format!("{id}: {outcome:?}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_document_that_is_forbidden_looks_like_one_that_does_not_exist() {
    let world = World::new().await;
    let _owner = world.owner("there").await;
    let token = world.issuer.token("alice", &[("mine/", Access::Admin)]);
    for door in Door::ALL {
        let mut answers = Vec::new();
        for document in ["there", "nowhere"] {
            let wish = Join { token: token.clone(), ..join(document) };
            let status = RawSession::open(world.server.channel(), door, wish).await.unwrap_err();
            let (code, message) = (status.code(), status.message().to_owned());
            answers.push((code, message, status.details().to_vec(), refused(&status).reason));
        }
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0].3, "FORBIDDEN");
    }
}

#[tokio::test]
async fn a_list_has_what_may_be_read_and_its_pages_tell_of_nothing_else() {
    let world = World::new().await;
    for id in ["a/1", "a/2", "a/3", "b/1", "b/2", "c", "d/1"] {
        world.owner(id).await;
    }
    let grants = [("a/", Access::Read), ("c", Access::Write), ("nowhere", Access::Admin)];
    let token = world.issuer.token("alice", &grants);
    let mut pages = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = world.list_page(&token, 2, &page_token).await.unwrap();
        let ids: Vec<_> = page.documents.into_iter().map(|document| document.id).collect();
        pages.push((ids, page.next_page_token.clone()));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let page = |ids: &[&str], next: &str| {
        (ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>(), next.to_owned())
    };
    assert_eq!(pages, [page(&["a/1", "a/2"], "a/2"), page(&["a/3", "c"], "")]);
    let all = world.issuer.token("alice", &[("", Access::Read)]);
    assert_eq!(world.list(&all).await.unwrap().documents.len(), 7);
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_may_send_its_token() {
    let server = TestServer::with_config(|config| {
        config.transport.allowed_origins = vec!["https://app.example.com".to_owned()];
    })
    .await;
    let headers = [
        ("origin", "https://app.example.com"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type,x-grpc-web"),
    ];
    let path = "/cowrite.v1.DocumentService/ListDocuments";
    let answer = http_request(server.address(), "OPTIONS", path, &headers, b"").await;
    assert!(answer.headers["access-control-allow-headers"].contains("authorization"));
}

#[tokio::test]
async fn the_log_says_who_wrote_an_update() {
    let metrics = Metrics::new();
    let log: Arc<dyn UpdateLog> = Arc::new(MemoryLog::new(metrics.log.clone()));
    let issuer = Issuer::new();
    let server = TestServer::with_log(Arc::clone(&log), |config| issuer.configure(config)).await;
    let token = issuer.token("alice@example.com", &[("notes", Access::Write)]);
    let join = Join { token, ..join("notes") };
    let (mut session, joined) =
        RawSession::open(server.channel(), Door::Publish, join).await.unwrap();
    assert_eq!(joined.epoch.len(), std::mem::size_of::<Epoch>());
    session.send([up::update(1, text_update("x"))]).await.unwrap();
    while !matches!(session.next().await.unwrap(), Some(Down::Ack(_))) {}
    let id = DocumentId::parse("notes").unwrap();
    let loaded = log.load(&id).await.unwrap().expect("the document");
    assert_eq!(loaded.tail[0].principal.as_str(), "alice@example.com");
}

#[tokio::test]
async fn a_client_gets_its_token_anew_for_each_session_and_stays_when_one_expires() {
    let issuer = Arc::new(Issuer::new());
    let server = TestServer::with_config(|config| issuer.configure(config)).await;
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let source = {
        let (asked, issuer) = (Arc::clone(&asked), Arc::clone(&issuer));
        TokenSource::from_fn(move || {
            asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            // Too short to be replaced in time, so that the session ends with it.
            let life = Duration::from_secs(2);
            let token = issuer.token_for(life, "alice", &[("notes", Access::Write)]);
            async move { Ok::<_, std::convert::Infallible>(token) }
        })
    };
    let client = Client::builder(server.url()).token(source).connect().await.unwrap();
    let document = client.document("notes", DocumentOptions::default());
    cowrite_tests::soon("the document", document.wait_until_synced()).await.unwrap();
    let count = || asked.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(count(), 1);
    cowrite_tests::eventually("another session", || count() >= 2).await;
    cowrite_tests::soon("the document", document.wait_until_synced()).await.unwrap();
    document.edit(|txn| {
        use cowrite_client::yrs::{Text as _, WriteTxn as _};
        txn.get_or_insert_text("content").push(txn, "still here");
    });
    cowrite_tests::soon("the edit", document.wait_until_saved()).await.unwrap();
    assert_eq!(client.list_documents(0, "").await.unwrap().documents.len(), 1);
    let nobody = Client::connect(server.url()).await.unwrap();
    assert!(nobody.list_documents(0, "").await.is_err());
}
