//! Promise: through the doors for Yjs providers everybody gets exactly what their token grants, as
//! through the others (`identity.rs`), said in the words of the door.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

use std::time::Duration;

use cowrite_server::{app::Config, auth::Access};
use cowrite_tests::{
    AnyDoor, Farewell, Guest, HClient, HDocument, Issuer, TestServer, Told, YClient, lib0, soon,
    text_update, text_update_of,
};

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

    /// May change what is no comment.
    fn may_write(self) -> bool {
        matches!(self, Self::Write | Self::Admin)
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
    /// Good, shown to a session that had begun with less: Hocuspocus alone has words for it.
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

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    /// Nothing more.
    Join,
    /// A state vector.
    Question,
    /// An edit.
    Update,
    /// An edit, as if it had been asked for: where servers have let it through (CVE-2026-44564).
    Difference,
    Awareness,
    /// A question for awareness.
    Query,
    /// An authentication message with a refusal, which only servers send.
    Auth,
    /// The same token again.
    Refresh,
    RefreshAsSomebodyElse,
    /// A message for extensions of the server.
    Stateless,
    Leave,
}

impl Deed {
    const ALL: [Self; 11] = [
        Self::Join,
        Self::Question,
        Self::Update,
        Self::Difference,
        Self::Awareness,
        Self::Query,
        Self::Auth,
        Self::Refresh,
        Self::RefreshAsSomebodyElse,
        Self::Stateless,
        Self::Leave,
    ];

    fn writes(self) -> bool {
        matches!(self, Self::Update | Self::Difference)
    }
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// The session goes on, and the edit was taken if there was one.
    Done,
    /// The session goes on, and it was said that the edit was not taken.
    NotTaken,
    Ended(Farewell),
}

fn expected(door: AnyDoor, role: Role, state: State, deed: Deed) -> Outcome {
    let refused = |code, text: &str| {
        Outcome::Ended(match door {
            AnyDoor::YWebSocket => Farewell::Close(code, text.to_owned()),
            _ => Farewell::Denied(text.to_owned()),
        })
    };
    match state {
        State::Missing | State::Expired | State::Forged | State::Foreign => {
            return refused(4401, "the credentials are not valid");
        }
        State::Good | State::Raised | State::Lowered => {}
    }
    match (role, deed) {
        (Role::Nothing, _) => refused(4403, "the credentials give no access to this document"),
        (_, Deed::Update | Deed::Difference) if !role.may_write() => Outcome::NotTaken,
        (_, Deed::RefreshAsSomebodyElse) => {
            refused(4403, "the new token is for another subject than the session")
        }
        // It has no place in this protocol.
        (_, Deed::Auth) if door == AnyDoor::Hocuspocus => Outcome::Ended(Farewell::Denied(
            "an authentication message that only servers send".to_owned(),
        )),
        _ => Outcome::Done,
    }
}

/// What this door has no words for.
fn is_unsaid(door: AnyDoor, state: State, deed: Deed) -> bool {
    let refreshes = matches!(state, State::Raised | State::Lowered)
        || matches!(deed, Deed::Refresh | Deed::RefreshAsSomebodyElse | Deed::Stateless);
    door == AnyDoor::YWebSocket && refreshes
}

struct World {
    server: TestServer,
    issuer: Issuer,
    forger: Issuer,
}

impl World {
    async fn new(change: impl FnOnce(&mut Config)) -> Self {
        let issuer = Issuer::new();
        let server = TestServer::with_config(|config| {
            issuer.configure(config);
            change(config);
        })
        .await;
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

    async fn owner(&self, document: &str) -> YClient {
        let token = self.issuer.token("owner", &[(document, Access::Admin)]);
        let path = format!("{document}?token={token}");
        let mut owner = YClient::open(self.server.address(), &path).await;
        owner.wait_for_sync().await;
        owner
    }

    async fn outcome(
        &self,
        door: AnyDoor,
        role: Role,
        state: State,
        deed: Deed,
        id: &str,
    ) -> Outcome {
        let mut owner = self.owner(id).await;
        owner.type_text("safe").await;
        let outcome = match self.attempt(door, role, state, deed, id, &mut owner).await {
            Ok(outcome) => outcome,
            Err(farewell) => Outcome::Ended(farewell),
        };
        // What everybody who comes now reads.
        let mut reader = self.owner(id).await;
        let text = if deed.writes() && outcome == Outcome::Done { 8 } else { 4 };
        reader.wait_until("the text", |reader| reader.text().contains("safe")).await;
        assert_eq!(reader.text().len(), text, "{id}: {}", reader.text());
        outcome
    }

    async fn attempt(
        &self,
        door: AnyDoor,
        role: Role,
        state: State,
        deed: Deed,
        id: &str,
        owner: &mut YClient,
    ) -> Result<Outcome, Farewell> {
        let token = self.token(role, state, id);
        let first = match state {
            State::Raised => self.token(Role::Read, State::Good, id),
            State::Lowered => self.token(Role::Admin, State::Good, id),
            State::Good | State::Missing | State::Expired | State::Forged | State::Foreign => {
                token.clone()
            }
        };
        let mut guest = Guest::enter(&self.server, door, &first, id).await?;
        if first != token {
            guest.show(&token).await;
            if role == Role::Nothing {
                // Before anything else is sent, which would perhaps be read first.
                return Err(guest.end().await);
            }
        }
        let state_json = "{\"user\":1}";
        let body = match deed {
            Deed::Join | Deed::Leave => None,
            Deed::Question => Some(lib0::message(&[0, 0], &[0])),
            Deed::Update => Some(lib0::message(&[0, 2], &text_update("mine"))),
            Deed::Difference => Some(lib0::message(&[0, 1], &text_update("mine"))),
            Deed::Awareness => Some(lib0::message(&[1], &lib0::awareness(&[(7, 1, state_json)]))),
            Deed::Query => Some(vec![3].into()),
            Deed::Auth => Some(lib0::message(&[2, 1], b"no")),
            Deed::Stateless => Some(lib0::message(&[5], b"x")),
            Deed::Refresh => {
                guest.show(&token).await;
                None
            }
            Deed::RefreshAsSomebodyElse => {
                guest.show(&self.issuer.token("mallory", &role.grants(id))).await;
                None
            }
        };
        match &mut guest {
            Guest::Y(client) => {
                if let Some(body) = body {
                    client.socket.send_bytes(body).await;
                }
                if deed == Deed::Awareness {
                    owner.wait_until("the state", |o| o.sees(7) == Some(state_json)).await;
                }
                self.settle_y(client, deed).await
            }
            Guest::H(client, id) => {
                if let Some(body) = body {
                    client.send(id, &body).await;
                }
                if deed == Deed::Awareness {
                    owner.wait_until("the state", |o| o.sees(7) == Some(state_json)).await;
                }
                settle_h(client, id, deed).await
            }
            Guest::Frames(_) => panic!("another door"),
        }
    }

    /// Waits for the answer to a last question, by which everything before it is done.
    async fn settle_y(&self, client: &mut YClient, deed: Deed) -> Result<Outcome, Farewell> {
        if deed == Deed::Leave {
            client.socket.close().await;
            // The answer to a close frame without a code has none either.
            while !matches!(client.socket.next().await, Told::Closed(..) | Told::Lost) {}
            return Ok(Outcome::Done);
        }
        let answers = client.differences;
        client.socket.send_bytes(lib0::message(&[0, 0], &[0])).await;
        while client.differences == answers {
            match soon("an answer", client.socket.next()).await {
                Told::Message(message) => client.receive(message).await,
                Told::Ping => {}
                Told::Closed(code, reason) => return Err(Farewell::Close(code, reason)),
                Told::Lost => panic!("the connection was lost without a close frame"),
            }
        }
        Ok(if client.denied.is_empty() { Outcome::Done } else { Outcome::NotTaken })
    }
}

async fn settle_h(client: &mut HClient, id: &str, deed: Deed) -> Result<Outcome, Farewell> {
    if deed == Deed::Leave {
        client.send(id, &[7]).await;
        return Ok(Outcome::Done);
    }
    let before = client.document(id);
    let (answers, statuses) = (before.differences, before.statuses.len());
    client.send(id, &lib0::message(&[0, 0], &[0])).await;
    let is_over = |document: &HDocument| document.denied.is_some() || document.closed.is_some();
    let told = |document: &HDocument| {
        let answered = document.differences > answers
            && (!deed.writes() || document.statuses.len() > statuses);
        answered || is_over(document)
    };
    client.wait_until(id, "an answer", told).await;
    let document = client.document(id);
    match document.denied.clone().or_else(|| document.closed.clone()) {
        Some(why) => Err(Farewell::Denied(why)),
        None if deed.writes() && document.statuses.get(statuses) == Some(&false) => {
            Ok(Outcome::NotTaken)
        }
        None => Ok(Outcome::Done),
    }
}

#[tokio::test]
async fn every_role_may_send_what_it_may_through_every_websocket_with_every_kind_of_token() {
    let world = World::new(|_| {}).await;
    let mut wrong = Vec::new();
    for door in [AnyDoor::YWebSocket, AnyDoor::Hocuspocus] {
        for role in Role::ALL {
            for state in State::ALL {
                for deed in Deed::ALL {
                    if is_unsaid(door, state, deed) {
                        continue;
                    }
                    let id = format!("{door:?}/{role:?}/{state:?}/{deed:?}");
                    let outcome = world.outcome(door, role, state, deed, &id);
                    let outcome = soon(&id, outcome).await;
                    if outcome != expected(door, role, state, deed) {
                        wrong.push(format!("{id}: {outcome:?}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn who_may_comment_and_writes_something_else_is_refused_at_every_door() {
    let world = World::new(|_| {}).await;
    for door in AnyDoor::ALL {
        let id = format!("{door:?}");
        let mut owner = world.owner(&id).await;
        owner.type_text("safe").await;
        let token = world.token(Role::Comment, State::Good, &id);
        let mut guest = Guest::enter(&world.server, door, &token, &id).await.unwrap();
        let expected = match door {
            AnyDoor::Edit | AnyDoor::Publish => Err(Farewell::Status("WRITE_DENIED".to_owned())),
            AnyDoor::YWebSocket | AnyDoor::Hocuspocus => Ok(false),
        };
        assert_eq!(guest.write(1).await, expected, "{door:?}");
        let mut reader = world.owner(&id).await;
        reader.wait_for_text("safe").await;
    }
}

/// The shared type for comments, once the room has a setting for it.
fn comments_root() -> String {
    let defaults = toml::Table::try_from(Config::default()).unwrap();
    let root = defaults["room"].get("comments_root").and_then(toml::Value::as_str);
    root.expect("room.comments_root").to_owned()
}

#[tokio::test]
async fn who_may_comment_writes_comments_at_every_door() {
    let world = World::new(|_| {}).await;
    let root = comments_root();
    for door in AnyDoor::ALL {
        let id = format!("{door:?}");
        let mut owner = world.owner(&id).await;
        owner.type_text("safe").await;
        let token = world.token(Role::Comment, State::Good, &id);
        let mut guest = Guest::enter(&world.server, door, &token, &id).await.unwrap();
        let comment = text_update_of(&root, "a comment");
        assert_eq!(guest.write_update(1, comment).await, Ok(true), "{door:?}");
    }
}
