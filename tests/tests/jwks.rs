//! Promise: the keys of an issuer are those that it publishes, whatever its web server does, and
//! nobody can make this server ask for them more often than it should.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

use std::time::Duration;

use cowrite_proto::v1::{Join, server_frame::Frame as Down};
use cowrite_server::{
    metrics::{Outcome, ResultLabels},
    shutdown::Tasks,
};
use cowrite_tests::{
    Answer, Authority, Door, KeyServer, RawSession, SigningKey, TestServer, eventually, http_get,
    join, pacemaker, refused, soon, text_update, up,
};
use tonic::Status;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

async fn server(keys: &KeyServer) -> TestServer {
    TestServer::with_config(|config| keys.configure(config)).await
}

async fn open(server: &TestServer, token: String) -> Result<RawSession, Status> {
    let join = Join { token, ..join("notes") };
    RawSession::open(server.channel(), Door::Edit, join).await.map(|(session, _)| session)
}

async fn reason(server: &TestServer, token: String) -> String {
    match open(server, token).await {
        Ok(_) => "joined".to_owned(),
        Err(status) => refused(&status).reason,
    }
}

fn fetches(server: &TestServer, result: Outcome) -> u64 {
    server.metrics().auth.jwks_fetches.get_or_create(&ResultLabels { result }).get()
}

/// Waits for the first fetch.
async fn ready(server: &TestServer) {
    eventually("the first keys", || fetches(server, Outcome::Ok) > 0).await;
}

async fn is_serving(server: &TestServer) -> ServingStatus {
    let request = HealthCheckRequest { service: String::new() };
    let health = HealthClient::new(server.channel()).check(request).await;
    health.unwrap().into_inner().status()
}

#[tokio::test]
async fn without_any_key_the_server_is_not_ready_and_asks_clients_to_come_back() {
    let key = SigningKey::new("a");
    let keys = KeyServer::start(Answer::Status(503, "retry-after", "1".to_owned())).await;
    let server = server(&keys).await;
    eventually("a fetch that fails", || fetches(&server, Outcome::Failed) > 0).await;
    let answer = http_get(server.admin(), "/readyz").await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.text(), "the keys of the issuer are not there yet\n");
    assert_eq!(is_serving(&server).await, ServingStatus::NotServing);
    let status = open(&server, key.token("alice", "notes")).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert_eq!(refused(&status).reason, "KEYS_UNAVAILABLE");

    keys.answer(Answer::Keys(vec![key.jwk()]));
    ready(&server).await;
    assert_eq!(http_get(server.admin(), "/readyz").await.status, 200);
    soon("the health to say so", async {
        while is_serving(&server).await != ServingStatus::Serving {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(reason(&server, key.token("alice", "notes")).await, "joined");
    assert_eq!(server.metrics().auth.keys.get(), 1);
    assert!(server.metrics().auth.jwks_fetched.get() > 1_700_000_000);
}

#[tokio::test]
async fn who_comes_before_the_first_keys_waits_for_them() {
    let key = SigningKey::new("a");
    let keys = KeyServer::start(Answer::Keys(vec![key.jwk()])).await;
    let server = server(&keys).await;
    // At once: the fetch has perhaps not even begun.
    assert_eq!(reason(&server, key.token("alice", "notes")).await, "joined");
    assert_eq!(keys.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_unknown_keys_costs_one_fetch_a_minute() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let (old, new) = (SigningKey::new("old"), SigningKey::new("new"));
    let keys = KeyServer::start(Answer::Keys(vec![old.jwk()])).await;
    let server = server(&keys).await;
    ready(&server).await;
    // A key that was published a moment ago: its first token waits for it, at once.
    keys.answer(Answer::Keys(vec![old.jwk(), new.jwk()]));
    assert_eq!(reason(&server, new.token("alice", "notes")).await, "joined");
    assert_eq!(keys.asked(), 2);

    for asked in [2, 3] {
        let forged: Vec<_> = (0..200)
            .map(|number| SigningKey::new(&format!("forged-{asked}-{number}")))
            .map(|key| key.token("mallory", "notes"))
            .collect();
        let flood = forged.into_iter().map(|token| reason(&server, token));
        for reason in futures_util::future::join_all(flood).await {
            assert_eq!(reason, "UNAUTHENTICATED");
        }
        // A known name with another signature is no reason to ask either.
        assert_eq!(
            reason(&server, SigningKey::new("old").token("mallory", "notes")).await,
            "UNAUTHENTICATED"
        );
        assert_eq!(keys.asked(), asked, "fetches");
        tokio::time::sleep(Duration::from_secs(61)).await;
    }
    for key in [&old, &new] {
        assert_eq!(reason(&server, key.token("alice", "notes")).await, "joined");
    }
    tasks.cancel();
}

#[tokio::test(start_paused = true)]
async fn what_an_issuer_answers_badly_leaves_the_keys_that_were_there() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let (key, other) = (SigningKey::new("a"), SigningKey::new("b"));
    let elsewhere = KeyServer::start(Answer::Keys(vec![other.jwk()])).await;
    let keys = KeyServer::start(Answer::Keys(vec![key.jwk()])).await;
    let server = TestServer::with_config(|config| {
        keys.configure(config);
        config.auth.jwks_interval = Duration::from_secs(1);
    })
    .await;
    ready(&server).await;
    let mut session = open(&server, key.token("alice", "notes")).await.unwrap();
    let mut private = key.jwk();
    private["d"] = "c2VjcmV0".into();
    let huge = format!("{{\"keys\":[{}],\"x\":\"{}\"}}", other.jwk(), "x".repeat(64 << 10));
    for (what, answer) in [
        ("an error", Answer::Status(500, "x", String::new())),
        ("not modified", Answer::Status(304, "x", String::new())),
        ("a redirect", Answer::Status(302, "location", elsewhere.url())),
        ("a permanent redirect", Answer::Status(308, "location", elsewhere.url())),
        ("more than 64 KiB", Answer::Text(huge)),
        ("a body without an end", Answer::Endless),
        ("no answer", Answer::Nothing),
        ("a page", Answer::Text("<html>".to_owned())),
        ("no keys", Answer::Keys(Vec::new())),
        ("a private key", Answer::Keys(vec![private])),
    ] {
        let before = fetches(&server, Outcome::Failed);
        keys.answer(answer);
        eventually(what, || fetches(&server, Outcome::Failed) > before + 1).await;
        assert_eq!(reason(&server, key.token("alice", "notes")).await, "joined", "{what}");
        // It may be the issuer's newest; nobody can know now.
        assert_eq!(
            reason(&server, other.token("bob", "notes")).await,
            "KEYS_UNAVAILABLE",
            "{what}"
        );
        assert_eq!(http_get(server.admin(), "/readyz").await.status, 200);
    }
    assert_eq!(elsewhere.asked(), 0, "a redirect is not followed");
    // The session saw nothing of it.
    session.send([up::update(1, text_update("x"))]).await.unwrap();
    while !matches!(session.next().await.unwrap(), Some(Down::Ack(_))) {}
    keys.answer(Answer::Keys(vec![key.jwk(), other.jwk()]));
    let before = fetches(&server, Outcome::Ok);
    eventually("good keys", || fetches(&server, Outcome::Ok) > before).await;
    assert_eq!(reason(&server, other.token("bob", "notes")).await, "joined");
    tasks.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_published_no_longer_takes_its_sessions_with_it() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let (old, new) = (SigningKey::new("old"), SigningKey::new("new"));
    let keys = KeyServer::start(Answer::Keys(vec![old.jwk(), new.jwk()])).await;
    let server = TestServer::with_config(|config| {
        keys.configure(config);
        config.auth.jwks_interval = Duration::from_secs(10);
    })
    .await;
    ready(&server).await;
    let mut gone = open(&server, old.token("alice", "notes")).await.unwrap();
    let mut stays = open(&server, new.token("alice", "notes")).await.unwrap();
    keys.answer(Answer::Keys(vec![new.jwk()]));
    // By itself, at the next interval.
    let (_, status) = gone.end().await;
    assert_eq!(refused(&status.unwrap()).reason, "TOKEN_REVOKED");
    assert_eq!(keys.asked(), 2);
    stays.send([up::update(1, text_update("x"))]).await.unwrap();
    while !matches!(stays.next().await.unwrap(), Some(Down::Ack(_))) {}
    tasks.cancel();
}

#[tokio::test]
async fn over_tls_only_the_issuer_that_the_roots_vouch_for_is_heard() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let key = SigningKey::new("a");
    let acceptor = authority.issue("issuer").acceptor();
    let keys = KeyServer::with_tls(Answer::Keys(vec![key.jwk()]), acceptor).await;
    for (ca, expected) in [(authority.ca(), "joined"), (stranger.ca(), "KEYS_UNAVAILABLE")] {
        let server = TestServer::with_config(|config| {
            keys.configure(config);
            config.auth.jwks_ca = ca;
        })
        .await;
        assert_eq!(reason(&server, key.token("alice", "notes")).await, expected);
    }
    assert_eq!(keys.asked(), 1, "nobody is asked who cannot say who he is");
}
