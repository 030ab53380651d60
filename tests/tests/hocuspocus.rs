//! Promise: a Hocuspocus provider is served as any other client is, and its badge is true.
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
    Door, FaultyLog, HClient, Participant, RawSocket, ServerProcess, TestServer, Told, YClient,
    addressed, assert_converged, channel, lib0, pacemaker, text_update,
};
use yrs::Doc;

/// "hi" by client 7.
const HI: [u8; 12] = [1, 1, 7, 0, 4, 1, 1, b't', 2, b'h', b'i', 0];

/// "A" by client 1, in front of it.
const A: [u8; 10] = [1, 1, 1, 0, 0x44, 7, 0, 1, b'A', 0];

#[tokio::test]
async fn edits_pass_between_all_doors() {
    let server = TestServer::start().await;
    let mut alice = HClient::open(server.address(), "notes").await;
    let mut bob = YClient::open(server.address(), "notes").await;
    let mut carol = Participant::join(&server, Door::Edit, "notes").await;
    let mut dave = HClient::open(server.address(), "notes\0session").await;
    alice.wait_for_sync("notes").await;
    bob.wait_for_sync().await;
    dave.wait_for_sync("notes\0session").await;
    alice.type_text("notes", "Hello").await;
    bob.wait_for_text("Hello").await;
    carol.wait_for_text("Hello").await;
    dave.wait_for_text("notes\0session", "Hello").await;
    dave.type_text("notes\0session", ", world").await;
    alice.wait_for_text("notes", "Hello, world").await;
    bob.wait_for_text("Hello, world").await;
    carol.wait_for_text("Hello, world").await;
    assert_converged([
        ("alice", alice.document("notes").doc()),
        ("bob", bob.doc()),
        ("carol", carol.doc()),
        ("dave", dave.document("notes\0session").doc()),
    ]);
}

#[tokio::test]
async fn the_sequence_is_that_of_the_reference_byte_for_byte() {
    let server = TestServer::start().await;
    let mut writer = Participant::join(&server, Door::Edit, "doc").await;
    writer.send_update(HI.to_vec().into()).await.unwrap();
    writer.wait_for_acks().await;
    let mut socket = RawSocket::open(server.address(), "/hocuspocus", &[]).await.unwrap();
    let doc = |body: &[u8]| addressed("doc", body);
    // The state vector and the awareness come first, and wait.
    socket.send_bytes(doc(&[0, 0, 1, 0])).await;
    socket.send_bytes(doc(&[1, 6, 1, 1, 0, 2, b'{', b'}'])).await;
    socket.send_bytes(doc(&[2, 0, 3, b't', b'o', b'k', 5, b'4', b'.', b'8', b'.', b'0'])).await;
    assert_eq!(socket.message().await, doc(b"\x02\x02\x0aread-write"));
    assert_eq!(socket.message().await, doc(&[0, 0, 3, 1, 7, 2]));
    assert_eq!(socket.message().await, doc(&lib0::message(&[0, 1], &HI)));
    socket.send_bytes(doc(&[0, 1, 2, 0, 0])).await;
    assert_eq!(socket.message().await, doc(&[8, 1]));
    socket.send_bytes(doc(&lib0::message(&[0, 2], &A))).await;
    assert_eq!(socket.message().await, doc(&[8, 1]));
    socket.send_bytes(doc(&[5, 4, b'p', b'i', b'n', b'g'])).await;
    socket.send_bytes(doc(&[3])).await;
    socket.send_bytes(&[9][..]).await;
    assert_eq!(&socket.message().await[..], [10]);
    socket.send_bytes(&[10][..]).await;
    // A later state vector is answered with a question too: what was typed since is not "saved"
    // before that answer is.
    socket.send_bytes(doc(&[0, 0, 1, 0])).await;
    let question = socket.message().await;
    let orders = [[0, 0, 5, 2, 1, 1, 7, 2], [0, 0, 5, 2, 7, 2, 1, 1]];
    assert!(orders.iter().any(|order| question == doc(order)), "{question:?}");
}

#[tokio::test]
async fn an_update_is_told_to_be_saved_only_when_it_is_durable() {
    let log = FaultyLog::new();
    let server = TestServer::with_log(log.clone(), |_| {}).await;
    let mut alice = HClient::open(server.address(), "notes").await;
    alice.wait_for_sync("notes").await;
    log.hold_appends();
    let before = log.appends();
    alice.type_text("notes", "x").await;
    cowrite_tests::eventually("the append", || log.appends() > before).await;
    // Whatever is said now is said before the append is done.
    alice.socket.send_bytes(&[9][..]).await;
    assert_eq!(&alice.socket.message().await[..], [10]);
    log.release_appends();
    alice.wait_for_statuses("notes", 2).await;
}

#[tokio::test]
async fn what_was_told_to_be_saved_survives_a_kill() {
    let data = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let server = ServerProcess::start(data.path(), &[]).await;
        let mut alice = HClient::open(server.address(), "notes").await;
        alice.wait_for_sync("notes").await;
        let before = alice.document("notes").text();
        assert_eq!(before, "x".repeat(20 * round));
        for _ in 0..20 {
            alice.type_text("notes", "x").await;
        }
        alice.wait_for_statuses("notes", 21).await;
        assert!(alice.document("notes").statuses.iter().all(|is_taken| *is_taken));
        server.kill().await;
    }
    let server = ServerProcess::start(data.path(), &[]).await;
    let participant = Participant::open(channel(server.address()).await, Door::Edit, "notes").await;
    participant.unwrap().wait_for_text(&"x".repeat(60)).await;
}

#[tokio::test]
async fn what_was_sent_before_a_goodbye_counts() {
    let server = TestServer::start().await;
    for round in 1..=20 {
        let mut alice = HClient::open(server.address(), "notes").await;
        alice.wait_for_sync("notes").await;
        alice.type_text("notes", "x").await;
        if round % 2 == 0 {
            alice.send("notes", &[7]).await;
        }
        alice.socket.close().await;
        let mut bob = YClient::open(server.address(), "notes").await;
        bob.wait_for_text(&"x".repeat(round)).await;
        bob.socket.close().await;
    }
}

#[tokio::test]
async fn many_documents_share_a_socket_and_one_that_ends_leaves_the_others() {
    let server = TestServer::start().await;
    let mut alice = HClient::connect(server.address()).await;
    let names: Vec<_> = (0..50).map(|i| format!("notes/{i}")).collect();
    for name in &names {
        alice.attach(name).await;
    }
    for name in &names {
        alice.wait_for_sync(name).await;
        alice.type_text(name, name).await;
    }
    let mut bob = Participant::join(&server, Door::Edit, "notes/49").await;
    bob.wait_for_text("notes/49").await;
    // Each of these ends its document and no other.
    let faults: [(&str, &[u8]); 8] = [
        ("notes/0", &[6, 1, b'x']),
        ("notes/1", &[11]),
        ("notes/2", &[0, 2, 1, 0]),
        ("notes/3", &[0, 0, 4, 0xff, 0xff, 0xff, 0x7f]),
        ("notes/4", &[0, 9, 0]),
        ("notes/5", &[2, 1, 0]),
        ("notes/6", &[1, 2, 9, 0]),
        ("notes/7", &[]),
    ];
    for (name, fault) in faults {
        alice.send(name, fault).await;
        alice.wait_until(name, "the end", |document| document.closed.is_some()).await;
    }
    for name in &names[8..] {
        alice.type_text(name, "!").await;
    }
    for name in &names[8..] {
        alice.wait_for_statuses(name, 3).await;
        assert!(alice.document(name).closed.is_none());
    }
    // A document that was closed can be opened again.
    alice.attach("notes/0").await;
    alice.wait_for_text("notes/0", "notes/0").await;
    // And one that the client leaves is left.
    alice.send("notes/10", &[7]).await;
    cowrite_tests::eventually("the session ends", || server.metrics().session.sessions.get() == 44)
        .await;
}

#[tokio::test]
async fn more_documents_than_allowed_are_denied_and_the_socket_goes_on() {
    let server =
        TestServer::with_config(|config| config.transport.documents_per_socket_max = 2).await;
    let mut alice = HClient::open(server.address(), "a").await;
    alice.attach("b").await;
    alice.attach("c").await;
    alice.wait_until("c", "a refusal", |document| document.denied.is_some()).await;
    alice.wait_for_sync("a").await;
    alice.wait_for_sync("b").await;
    alice.send("a", &[7]).await;
    alice.type_text("b", "x").await;
    alice.wait_for_statuses("b", 2).await;
    alice.attach("c").await;
    alice.wait_for_sync("c").await;
}

#[tokio::test]
async fn a_name_that_is_no_document_is_denied_in_the_band() {
    let server = TestServer::start().await;
    let mut alice = HClient::open(server.address(), "notes").await;
    alice.wait_for_sync("notes").await;
    for name in ["not a document", "../x", "x\u{e9}", "a//b"] {
        alice.attach(name).await;
        alice.wait_until(name, "a refusal", |document| document.denied.is_some()).await;
        let denied = alice.document(name).denied.clone().unwrap();
        assert!(denied.contains("document id"), "{denied}");
    }
    alice.type_text("notes", "x").await;
    alice.wait_for_statuses("notes", 2).await;
}

#[tokio::test]
async fn an_update_above_the_limit_is_refused_in_its_turn_and_the_session_goes_on() {
    let server = TestServer::with_config(|config| config.session.update_bytes_max = 1024).await;
    let mut alice = HClient::open(server.address(), "notes").await;
    alice.wait_for_sync("notes").await;
    alice.type_text("notes", "a").await;
    let large = text_update(&"x".repeat(2000));
    alice.send("notes", &lib0::message(&[0, 2], &large)).await;
    alice.type_text("notes", "b").await;
    alice.wait_for_statuses("notes", 4).await;
    assert_eq!(alice.document("notes").statuses, [true, true, false, true]);
    let mut bob = YClient::open(server.address(), "notes").await;
    bob.wait_for_text("ab").await;
}

#[tokio::test]
async fn a_full_disk_is_a_refusal_and_no_end() {
    let log = FaultyLog::new();
    let server = TestServer::with_log(log.clone(), |_| {}).await;
    let mut alice = HClient::open(server.address(), "notes").await;
    alice.wait_for_sync("notes").await;
    log.set_state(cowrite_server::log::LogState::Full);
    alice.type_text("notes", "x").await;
    alice.wait_for_statuses("notes", 2).await;
    assert_eq!(alice.document("notes").statuses, [true, false]);
    log.set_state(cowrite_server::log::LogState::Writable);
    // What was refused is brought by the next difference.
    alice.send("notes", &[0, 0, 1, 0]).await;
    alice.wait_for_statuses("notes", 3).await;
    let mut bob = YClient::open(server.address(), "notes").await;
    bob.wait_for_text("x").await;
}

#[tokio::test]
async fn what_was_typed_offline_may_arrive_after_what_is_typed_now_and_is_told_about_in_order() {
    let server = TestServer::start().await;
    let mut alice = HClient::connect(server.address()).await;
    alice.attach_with("notes", Doc::new()).await;
    let offline = alice.append_unsent("notes", "offline");
    alice.type_text("notes", " and live").await;
    let mut bob = YClient::open(server.address(), "notes").await;
    bob.wait_for_sync().await;
    // Something complete in between is not told about before.
    alice.send("notes", &lib0::message(&[0, 2], &HI)).await;
    bob.wait_until("the other edit", |bob| bob.updates > 0).await;
    alice.socket.send_bytes(&[9][..]).await;
    loop {
        let message = alice.socket.message().await;
        if message[..] == [10] {
            break;
        }
        assert!(!message.starts_with(&addressed("notes", &[8])), "an earlier one is not saved");
    }
    alice.send("notes", &lib0::message(&[0, 2], &offline)).await;
    bob.wait_for_text("offline and live").await;
    alice.wait_for_statuses("notes", 3).await;
    assert!(alice.document("notes").statuses.iter().all(|is_taken| *is_taken));
}

#[tokio::test]
async fn awareness_reaches_all_documents_of_its_name_and_goes_with_null() {
    let server = TestServer::start().await;
    let mut alice = HClient::open(server.address(), "notes").await;
    alice.attach("other").await;
    alice.announce("notes", r#"{"name":"alice"}"#).await;
    alice.announce("other", r#"{"name":"elsewhere"}"#).await;
    let mut bob = YClient::open(server.address(), "notes").await;
    bob.announce("{}").await;
    let (a, b) = (alice.document("notes").client_id(), bob.client_id());
    bob.wait_until("alice", |bob| bob.sees(a).is_some()).await;
    alice.wait_until("notes", "bob", |document| document.sees(b).is_some()).await;
    assert!(bob.sees(alice.document("other").client_id()).is_none());
    alice.announce("notes", "null").await;
    bob.wait_until("alice is gone", |bob| bob.sees(a).is_none()).await;
    alice.announce("notes", "{}").await;
    bob.wait_until("alice is back", |bob| bob.sees(a).is_some()).await;
    alice.send("notes", &[7]).await;
    bob.wait_until("alice has left", |bob| bob.sees(a).is_none()).await;
}

#[tokio::test]
async fn what_waits_for_a_token_is_bounded() {
    let server = TestServer::start().await;
    // Documents, messages, and bytes.
    let mut mallory = RawSocket::open(server.address(), "/hocuspocus", &[]).await.unwrap();
    for i in 0..101 {
        mallory.send_bytes(addressed(&format!("d{i}"), &[0, 0, 1, 0])).await;
    }
    assert_eq!(mallory.end().await.0, 4205);
    let mut mallory = RawSocket::open(server.address(), "/hocuspocus", &[]).await.unwrap();
    for _ in 0..1001 {
        mallory.send_bytes(addressed("doc", &[0, 0, 1, 0])).await;
    }
    assert_eq!(mallory.end().await.0, 4205);
    let mut mallory = RawSocket::open(server.address(), "/hocuspocus", &[]).await.unwrap();
    for _ in 0..6 {
        mallory.send_bytes(addressed("doc", &vec![0; 1 << 20])).await;
    }
    assert_eq!(mallory.end().await.0, 4205);
    // A goodbye makes room.
    let mut alice = HClient::connect(server.address()).await;
    for i in 0..500 {
        alice.send(&format!("d{i}"), &[0, 0, 1, 0]).await;
        alice.send(&format!("d{i}"), &[7]).await;
    }
    alice.attach("notes").await;
    alice.wait_for_sync("notes").await;
}

#[tokio::test(start_paused = true)]
async fn a_socket_whose_client_says_nothing_of_itself_ends_whatever_else_it_says() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let server = TestServer::start().await;
    let mut mallory = RawSocket::open(server.address(), "/hocuspocus", &[]).await.unwrap();
    let start = tokio::time::Instant::now();
    let end = loop {
        mallory.send_bytes(addressed("doc", &[3])).await;
        match tokio::time::timeout(Duration::from_secs(1), mallory.next()).await {
            Ok(Told::Closed(code, _)) => break code,
            Ok(other) => panic!("{other:?}"),
            Err(_) => {}
        }
    };
    assert_eq!(end, 4408);
    assert!(start.elapsed() < Duration::from_secs(70), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_quiet_socket_is_sent_something_and_a_dead_one_is_closed() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let server = TestServer::start().await;
    let mut alice = HClient::open(server.address(), "notes").await;
    alice.attach("other").await;
    alice.wait_for_sync("notes").await;
    alice.wait_for_sync("other").await;
    let start = tokio::time::Instant::now();
    while start.elapsed() < Duration::from_secs(200) {
        let before = alice.document("notes").keepalives + alice.document("other").keepalives;
        let told = tokio::time::Instant::now();
        while alice.document("notes").keepalives + alice.document("other").keepalives == before {
            // The pings of the connection are more frequent, and do not count for a provider.
            alice.step().await.unwrap();
            assert!(told.elapsed() <= Duration::from_secs(40), "nothing but pings");
        }
        assert!(told.elapsed() <= Duration::from_secs(21), "{:?}", told.elapsed());
    }
    // Reads nothing any more.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(matches!(alice.end().await, Told::Closed(4408, _)));
}

#[tokio::test]
async fn what_belongs_to_no_document_closes_the_socket_and_nothing_else() {
    let server = TestServer::start().await;
    let mut alice = HClient::open(server.address(), "notes").await;
    alice.wait_for_sync("notes").await;
    let binary = |bytes: &[u8]| {
        tokio_tungstenite::tungstenite::Message::Binary(bytes::Bytes::copy_from_slice(bytes))
    };
    let cases = [
        (tokio_tungstenite::tungstenite::Message::Text("notes".into()), 1003),
        (binary(&[]), 4400),
        (binary(&[0, 0, 0, 1, 0]), 4400),
        (binary(&[0xff, 0xff, 0xff]), 4400),
        (binary(&[2, 0xc3, 0x28, 7]), 4400),
        (binary(&vec![b'x'; 5 << 20]), 1009),
    ];
    for (message, code) in cases {
        let mut mallory = HClient::open(server.address(), "notes").await;
        mallory.wait_for_sync("notes").await;
        mallory.socket.send(message).await;
        assert!(matches!(mallory.end().await, Told::Closed(told, _) if told == code), "{code}");
    }
    alice.type_text("notes", "x").await;
    alice.wait_for_statuses("notes", 2).await;
}

#[tokio::test]
async fn a_room_that_fails_makes_its_clients_come_back_and_what_they_sent_is_there() {
    let log = FaultyLog::new();
    let server = TestServer::with_log(log.clone(), |_| {}).await;
    let mut alice = HClient::open(server.address(), "notes").await;
    alice.wait_for_sync("notes").await;
    log.fail_appends(false);
    alice.type_text("notes", "x").await;
    // A document that is closed in the band would be closed for good.
    assert!(matches!(alice.end().await, Told::Closed(4205, _)));
    assert_eq!(alice.document("notes").statuses, [true], "it was not saved");
    log.heal();
    let doc = alice.document("notes").doc().clone();
    let mut alice = HClient::connect(server.address()).await;
    alice.attach_with("notes", doc).await;
    alice.wait_for_sync("notes").await;
    let mut bob = YClient::open(server.address(), "notes").await;
    bob.wait_for_text("x").await;
}

#[tokio::test]
async fn a_shutdown_closes_every_socket_after_its_edits_are_durable() {
    let server = TestServer::start().await;
    let mut idle = HClient::connect(server.address()).await;
    let mut alice = HClient::open(server.address(), "notes").await;
    alice.attach("other").await;
    alice.wait_for_sync("notes").await;
    alice.wait_for_sync("other").await;
    alice.type_text("notes", "x").await;
    alice.wait_for_statuses("notes", 2).await;
    let (ends, stopped) =
        tokio::join!(async { [idle.end().await, alice.end().await] }, server.stop());
    assert!(ends.iter().all(|end| matches!(end, Told::Closed(1012, _))), "{ends:?}");
    assert_eq!(stopped, cowrite_server::app::Stopped::Cleanly);
}
