//! Promise: a y-websocket provider is served as any other client is, over its own protocol.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

use std::time::Duration;

use cowrite_server::shutdown::Tasks;
use cowrite_tests::{
    Door, Participant, RawSocket, TestServer, Told, UpgradeRefused, YClient, assert_converged,
    lib0, pacemaker,
};
use yrs::{Doc, Transact as _};

#[tokio::test]
async fn edits_pass_between_y_websocket_and_grpc_clients() {
    let server = TestServer::start().await;
    let mut alice = YClient::open(server.address(), "notes").await;
    let mut bob = YClient::open(server.address(), "notes").await;
    let mut carol = Participant::join(&server, Door::Edit, "notes").await;
    alice.wait_for_sync().await;
    bob.wait_for_sync().await;
    alice.type_text("Hello").await;
    bob.wait_for_text("Hello").await;
    carol.wait_for_text("Hello").await;
    carol.type_text(", world").await;
    alice.wait_for_text("Hello, world").await;
    bob.wait_for_text("Hello, world").await;
    assert_converged([("alice", alice.doc()), ("bob", bob.doc()), ("carol", carol.doc())]);
}

#[tokio::test]
async fn the_handshake_is_that_of_the_reference_byte_for_byte() {
    let server = TestServer::start().await;
    // "hi" by client 7.
    let mut writer = RawSocket::open(server.address(), "/yjs/doc", &[]).await.unwrap();
    assert_eq!(&writer.message().await[..], [0, 0, 1, 0]);
    let update = [1, 1, 7, 0, 4, 1, 1, b't', 2, b'h', b'i', 0];
    writer.send_bytes(lib0::message(&[0, 2], &update)).await;
    let mut socket = RawSocket::open(server.address(), "/yjs/doc", &[]).await.unwrap();
    let first = socket.message().await;
    if first[..] == [0, 0, 1, 0] {
        // It came before the edit was durable, and is told of it.
        assert_eq!(socket.message().await, lib0::message(&[0, 2], &update));
    } else {
        assert_eq!(&first[..], [0, 0, 3, 1, 7, 2]);
    }
    socket.send_bytes(&[0, 0, 1, 0][..]).await;
    assert_eq!(socket.message().await, lib0::message(&[0, 1], &update));
    // Two messages in one frame; an awareness state with clock 0; an empty difference.
    socket.send_bytes(&[0, 0, 3, 1, 7, 2, 1, 6, 1, 1, 0, 2, b'{', b'}'][..]).await;
    assert_eq!(&socket.message().await[..], [0, 1, 2, 0, 0]);
    socket.send_bytes(&[0, 1, 2, 0, 0][..]).await;
    socket.send_bytes(&[2, 0, 2, b'n', b'o'][..]).await;
    socket.send_bytes(lib0::message(&[0, 2], &[1, 1, 1, 0, 0x44, 7, 0, 1, b'A', 0])).await;
    assert_eq!(
        writer.message().await,
        lib0::message(&[0, 2], &[1, 1, 1, 0, 0x44, 7, 0, 1, b'A', 0])
    );
}

#[tokio::test]
async fn a_second_state_vector_in_a_session_is_answered_too() {
    let server = TestServer::start().await;
    let mut alice = YClient::open(server.address(), "notes").await;
    alice.wait_for_sync().await;
    for round in 2..10 {
        alice.socket.send_bytes(&[0, 0, 1, 0][..]).await;
        alice.wait_until("an answer", |client| client.differences >= round).await;
    }
}

#[tokio::test]
async fn what_was_typed_offline_may_arrive_after_what_is_typed_now() {
    let server = TestServer::start().await;
    let mut bob = YClient::open(server.address(), "notes").await;
    bob.wait_for_sync().await;
    let doc = Doc::new();
    let mut alice = YClient::come_back(server.address(), "notes", doc).await;
    let offline = alice.append_unsent("offline");
    alice.type_text(" and live").await;
    alice.type_text(", twice").await;
    // Nobody sees them without what they build on.
    alice.socket.send_bytes(lib0::message(&[0, 1], &offline)).await;
    bob.wait_for_text("offline and live, twice").await;
    bob.type_text("!").await;
    alice.wait_for_text("offline and live, twice!").await;
}

#[tokio::test(start_paused = true)]
async fn an_update_whose_past_never_comes_ends_the_session_and_nothing_else() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let server = TestServer::start().await;
    let mut bob = YClient::open(server.address(), "notes").await;
    bob.wait_for_sync().await;
    let mut alice = YClient::open(server.address(), "notes").await;
    alice.append_unsent("lost");
    alice.type_text(" and found").await;
    let (code, reason) = alice.socket.end().await;
    assert_eq!(code, 1013, "{reason}");
    bob.type_text("x").await;
    let mut carol = YClient::open(server.address(), "notes").await;
    carol.wait_for_text("x").await;
}

#[tokio::test]
async fn more_than_may_be_held_ends_the_session_at_once() {
    let server = TestServer::with_config(|config| config.room.held_items_max = 3).await;
    let mut alice = YClient::open(server.address(), "notes").await;
    alice.wait_for_sync().await;
    alice.append_unsent("lost");
    for _ in 0..4 {
        alice.type_text("x").await;
    }
    assert_eq!(alice.socket.end().await.0, 1013);
}

#[tokio::test]
async fn awareness_passes_to_all_doors_and_goes_when_it_is_set_to_null() {
    let server = TestServer::start().await;
    let mut alice = YClient::open(server.address(), "notes").await;
    alice.announce(r#"{"name":"alice"}"#).await;
    let mut bob = YClient::open(server.address(), "notes").await;
    bob.announce(r#"{"name":"bob"}"#).await;
    let mut carol = Participant::join(&server, Door::Edit, "notes").await;
    let (a, b) = (alice.client_id(), bob.client_id());
    carol.announce(r#"{"name":"carol"}"#).await;
    let c = carol.client_id();
    alice.wait_until("the others", |x| x.sees(b).is_some() && x.sees(c).is_some()).await;
    bob.wait_until("the others", |x| x.sees(a).is_some() && x.sees(c).is_some()).await;
    carol.wait_until("the others", |x| x.sees(a).is_some() && x.sees(b).is_some()).await;
    assert_eq!(bob.sees(a), Some(r#"{"name":"alice"}"#));
    assert!(!alice.awareness.contains_key(&a), "nobody is told of himself");
    alice.announce("null").await;
    bob.wait_until("alice is gone", |client| client.sees(a).is_none()).await;
    carol.wait_until("alice is gone", |client| client.sees(a).is_none()).await;
    alice.announce(r#"{"name":"back"}"#).await;
    bob.wait_until("alice is back", |client| client.sees(a).is_some()).await;
    drop(bob);
    carol.wait_until("bob is gone", |client| client.sees(b).is_none()).await;
}

#[tokio::test]
async fn what_a_client_repeats_of_others_is_not_believed() {
    let server = TestServer::start().await;
    let mut alice = YClient::open(server.address(), "notes").await;
    alice.announce(r#"{"n":1}"#).await;
    let (a, mut bob) = (alice.client_id(), YClient::open(server.address(), "notes").await);
    bob.announce("{}").await;
    bob.wait_until("alice", |client| client.sees(a).is_some()).await;
    let clock = bob.awareness[&a].0;
    // A forged state, and the removal that y-protocols sends for a client it takes for dead.
    for state in [r#"{"n":"forged"}"#, "null"] {
        let update = lib0::awareness(&[(a, clock + 9, state), (bob.client_id(), 5, r#"{"n":2}"#)]);
        bob.socket.send_bytes(lib0::message(&[1], &update)).await;
    }
    let b = bob.client_id();
    alice.wait_until("bob's second state", |c| c.sees(b) == Some(r#"{"n":2}"#)).await;
    let mut carol = YClient::open(server.address(), "notes").await;
    carol.announce("{}").await;
    carol.wait_until("both", |x| x.sees(a).is_some() && x.sees(b).is_some()).await;
    assert_eq!(carol.sees(a), Some(r#"{"n":1}"#));
    assert!(!alice.awareness.contains_key(&a));
}

#[tokio::test]
async fn a_client_that_comes_back_under_its_id_is_not_told_of_its_ghost_and_is_seen_at_once() {
    let server = TestServer::start().await;
    let mut bob = YClient::open(server.address(), "notes").await;
    bob.announce("{}").await;
    let mut ghost = YClient::open(server.address(), "notes").await;
    let a = ghost.client_id();
    ghost.announce(r#"{"n":"old"}"#).await;
    bob.wait_until("alice", |client| client.sees(a).is_some()).await;
    // The old connection is still there.
    let doc = ghost.doc().clone();
    let mut alice = YClient::come_back(server.address(), "notes", doc).await;
    alice.announce(r#"{"n":"new"}"#).await;
    bob.wait_until("alice anew", |client| client.sees(a) == Some(r#"{"n":"new"}"#)).await;
    let b = bob.client_id();
    alice.wait_until("bob", |client| client.sees(b).is_some()).await;
    drop(ghost);
    alice.type_text("x").await;
    bob.wait_for_text("x").await;
    assert_eq!(bob.sees(a), Some(r#"{"n":"new"}"#), "the end of the ghost changes nothing");
    assert!(!alice.awareness.contains_key(&a), "its own state would be overwritten");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_client_is_sent_something_every_twenty_seconds_and_others_stay_visible() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let server = TestServer::start().await;
    let mut alice = YClient::open(server.address(), "notes").await;
    alice.announce("{}").await;
    alice.wait_for_sync().await;
    let start = tokio::time::Instant::now();
    while start.elapsed() < Duration::from_secs(120) {
        let message = tokio::time::timeout(Duration::from_secs(21), alice.step());
        message.await.expect("a message within 20 s");
    }
    assert!(alice.keepalives >= 5);
    // A gRPC client that announces once is renewed for those who forget after 30 s.
    let mut carol = Participant::join(&server, Door::Edit, "notes").await;
    carol.announce(r#"{"name":"carol"}"#).await;
    let c = carol.client_id();
    alice.wait_until("carol", |client| client.sees(c).is_some()).await;
    let mut told = tokio::time::Instant::now();
    for _ in 0..4 {
        let clock = alice.awareness[&c].0;
        let renewed = async {
            loop {
                tokio::select! {
                    () = alice.step() => if alice.awareness[&c].0 > clock { return },
                    () = carol.step() => {}
                }
            }
        };
        renewed.await;
        assert!(told.elapsed() <= Duration::from_secs(26), "{:?}", told.elapsed());
        told = tokio::time::Instant::now();
    }
    assert!(alice.sees(c).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_pings_stays_and_one_that_does_not_is_evicted_with_1013() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let server = TestServer::start().await;
    let mut alice = RawSocket::open(server.address(), "/yjs/notes", &[]).await.unwrap();
    let start = tokio::time::Instant::now();
    while start.elapsed() < Duration::from_secs(200) {
        assert!(matches!(alice.next().await, Told::Message(_) | Told::Ping));
    }
    let mut dead = RawSocket::open(server.address(), "/yjs/notes", &[]).await.unwrap();
    assert_eq!(&dead.message().await[..], [0, 0, 1, 0]);
    // Reads nothing, and so answers nothing.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(dead.end().await.0, 1013);
}

#[tokio::test]
async fn what_cannot_be_right_closes_that_client_for_good_and_nobody_else() {
    let server = TestServer::start().await;
    let mut bob = YClient::open(server.address(), "notes").await;
    bob.wait_for_sync().await;
    let text = tokio_tungstenite::tungstenite::Message::Text("hello".into());
    let binary = |bytes: &[u8]| {
        tokio_tungstenite::tungstenite::Message::Binary(bytes::Bytes::copy_from_slice(bytes))
    };
    let large = vec![0; 2 << 20];
    let cases = [
        (text, 1003),
        (binary(&[9]), 4400),
        (binary(&[0, 7, 0]), 4400),
        (binary(&[0, 0, 5, 0]), 4400),
        (binary(&[0, 0, 4, 0xff, 0xff, 0xff, 0x7f]), 4400),
        (binary(&[0, 2, 1, 0]), 4400),
        (binary(&[0xff; 12]), 4400),
        (binary(&[1, 2, 5, 0]), 4400),
        (binary(&lib0::message(&[1], &lib0::awareness(&[(1, 1, "{")]))), 4400),
        (binary(&lib0::message(&[1], &lib0::awareness(&[(1, 1, &"1".repeat(5000))]))), 4400),
        (binary(&lib0::message(&[0, 2], &large)), 4413),
        (binary(&vec![0; 5 << 20]), 4413),
    ];
    for (message, code) in cases {
        let mut mallory = RawSocket::open(server.address(), "/yjs/notes", &[]).await.unwrap();
        let what = format!("{message:?}").chars().take(60).collect::<String>();
        mallory.send(message).await;
        assert_eq!(mallory.end().await.0, code, "{what}");
    }
    // No frame at all: a reserved opcode, masked and empty; then one that is not masked.
    for garbage in [&[0x8b, 0x80, 0, 0, 0, 0][..], &[0x82, 0x01, 0x00]] {
        let mut mallory = RawSocket::open(server.address(), "/yjs/notes", &[]).await.unwrap();
        mallory.send_garbage(garbage).await;
        assert_eq!(mallory.end().await.0, 1002);
    }
    bob.type_text("still here").await;
    let mut carol = YClient::open(server.address(), "notes").await;
    carol.wait_for_text("still here").await;
}

#[tokio::test]
async fn a_path_is_decoded_once_and_what_is_no_document_is_refused_for_good() {
    let server = TestServer::start().await;
    let mut alice = YClient::open(server.address(), "a/b%2Fc?x=1").await;
    alice.wait_for_sync().await;
    alice.type_text("here").await;
    let mut bob = Participant::join(&server, Door::Edit, "a/b/c").await;
    bob.wait_for_text("here").await;
    for path in ["/yjs/my%20room", "/yjs/", "/yjs/a//b", "/yjs/%252e", "/yjs/%ff", "/yjs/a%00b"] {
        let mut socket = RawSocket::open(server.address(), path, &[]).await.unwrap();
        let (code, reason) = socket.end().await;
        assert_eq!(code, 4400, "{path}");
        assert!(reason.contains("document id"), "{reason}");
    }
}

#[tokio::test]
async fn pages_of_other_origins_are_refused_and_a_sub_protocol_is_selected() {
    let server = TestServer::with_config(|config| {
        config.transport.allowed_origins = vec!["https://app.example.com".to_owned()];
    })
    .await;
    let own = format!("http://{}", server.address());
    for (origin, is_allowed) in [
        ("https://app.example.com", true),
        (&own[..], true),
        ("https://evil.example.com", false),
        ("null", false),
    ] {
        let opened = RawSocket::open(server.address(), "/yjs/notes", &[("origin", origin)]).await;
        match opened {
            Ok(_) => assert!(is_allowed, "{origin}"),
            Err(refused) => {
                assert!(!is_allowed, "{origin}");
                assert_eq!(refused, UpgradeRefused { status: 403 });
            }
        }
    }
    let offered = [("sec-websocket-protocol", "cowrite.token.abc, cowrite")];
    let socket = RawSocket::open(server.address(), "/yjs/notes", &offered).await.unwrap();
    assert_eq!(socket.protocol.as_deref(), Some("cowrite"));
    let answer = cowrite_tests::http_get(server.address(), "/yjs/notes").await;
    assert_eq!(answer.status, 426);
}

#[tokio::test]
async fn connections_are_counted_until_a_socket_closes() {
    let server = TestServer::start().await;
    let metrics = server.metrics();
    // The channel of the test.
    cowrite_tests::eventually("a connection", || metrics.transport.connections.get() == 1).await;
    let mut alice = YClient::open(server.address(), "notes").await;
    alice.wait_for_sync().await;
    assert_eq!(metrics.transport.connections.get(), 2);
    assert_eq!(metrics.session.sessions.get(), 1);
    alice.socket.close().await;
    cowrite_tests::eventually("nothing is left", || {
        metrics.transport.connections.get() == 1 && metrics.session.sessions.get() == 0
    })
    .await;
}

#[tokio::test]
async fn a_large_document_arrives_whole_over_a_small_buffer() {
    let server = TestServer::start().await;
    let mut alice = YClient::open(server.address(), "notes").await;
    alice.wait_for_sync().await;
    for _ in 0..5 {
        alice.type_text(&"0123456789".repeat(30_000)).await;
    }
    let text = alice.text();
    let mut bob = YClient::open(server.address(), "notes").await;
    bob.wait_for_text(&text).await;
    assert_eq!(bob.doc().transact().state_vector_len(), 1);
}

trait StateVectorLen {
    fn state_vector_len(&self) -> usize;
}

impl<T: yrs::ReadTxn> StateVectorLen for T {
    fn state_vector_len(&self) -> usize {
        self.state_vector().len()
    }
}

#[tokio::test]
async fn a_shutdown_tells_every_socket_to_come_back_after_its_edits_are_durable() {
    let server = TestServer::start().await;
    let mut clients = Vec::new();
    for i in 0..5 {
        let mut client = YClient::open(server.address(), &format!("notes/{i}")).await;
        client.wait_for_sync().await;
        clients.push(client);
    }
    let stopping = tokio::time::Instant::now();
    let ((), stopped) = tokio::join!(
        async {
            for client in &mut clients {
                assert_eq!(client.socket.end().await.0, 1012);
            }
        },
        server.stop()
    );
    assert_eq!(stopped, cowrite_server::app::Stopped::Cleanly);
    assert!(stopping.elapsed() < Duration::from_secs(8));
}

#[tokio::test]
async fn nobody_is_told_of_a_clock_with_which_an_echo_would_end_its_session() {
    let server = TestServer::start().await;
    let mut bob = YClient::open(server.address(), "notes").await;
    bob.announce("{}").await;
    let mut mallory = YClient::open(server.address(), "notes").await;
    let (m, largest) = (mallory.client_id(), (1 << 53) - 1);
    let update = lib0::awareness(&[(m, largest, r#"{"n":1}"#)]);
    mallory.socket.send_bytes(lib0::message(&[1], &update)).await;
    bob.wait_until("mallory", |client| client.sees(m).is_some()).await;
    // Providers say again what they were told of others.
    let echo = lib0::awareness(&[(m, bob.awareness[&m].0, r#"{"n":1}"#)]);
    bob.socket.send_bytes(lib0::message(&[1], &echo)).await;
    let update = lib0::awareness(&[(m, largest, r#"{"n":2}"#)]);
    mallory.socket.send_bytes(lib0::message(&[1], &update)).await;
    bob.wait_until("her next state", |client| client.sees(m) == Some(r#"{"n":2}"#)).await;
    bob.type_text("still here").await;
    mallory.wait_for_text("still here").await;
}
