//! Promise: leaving is clean. A server that is asked to end tells every client when to come back,
//! loses nothing, and ends in time whatever clients do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

use std::{collections::BTreeSet, time::Duration};

use cowrite_proto::v1::ErrorReason;
use cowrite_server::{app::Stopped, time};
use cowrite_tests::{
    Door, FaultyLog, Participant, RawSession, ServerProcess, TestServer, channel, eventually,
    http_get, join, refused, soon,
};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tonic::{Code, transport::Endpoint};
use yrs::{Text as _, WriteTxn as _};

const GRACE: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_tells_everybody_when_to_come_back_after_what_they_sent_is_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = ServerProcess::start(directory.path(), &[("SHUTDOWN__GRACE", "3s")]).await;
    let connection = channel(server.address()).await;
    let mut participants = Vec::new();
    for i in 0..20 {
        let (door, document) = (Door::ALL[i % 2], format!("notes/{}", i % 4));
        let joined = Participant::open(connection.clone(), door, &document).await;
        participants.push(joined.unwrap());
    }
    let mut last = Vec::new();
    for participant in &mut participants {
        for word in ["some ", "more ", "words"] {
            participant.type_text(word).await;
        }
        last.push(3);
    }
    // All of it has reached the server: its answer to something sent later says so.
    for participant in &mut participants {
        participant.wait_until("an acknowledgement", |p| p.acked > 0).await;
    }
    let asked = time::now();
    server.terminate().await;
    let mut delays = BTreeSet::new();
    for (participant, last) in participants.iter_mut().zip(last) {
        let status = participant.wait_for_end().await.expect("a status that is not OK");
        let refusal = refused(&status);
        assert_eq!((refusal.code, &refusal.reason[..]), (Code::Unavailable, "DRAINING"));
        let closing = participant.closing.as_ref().expect("an announcement");
        assert_eq!(closing.reason(), ErrorReason::Draining);
        let delay = closing.retry_after.expect("when to come back");
        let delay = Duration::try_from(delay).unwrap();
        assert!(delay > Duration::ZERO && delay <= Duration::from_secs(5), "{delay:?}");
        delays.insert(delay);
        assert!(participant.acked >= 1 && participant.acked <= last);
    }
    assert!(delays.len() > 10, "delays that differ: {delays:?}");
    assert_eq!(server.wait().await, Some(0));
    assert!(asked.elapsed() < GRACE, "nobody had to be waited for: {:?}", asked.elapsed());
}

/// Waits until the server says that it drains.
async fn draining(server: &TestServer) {
    soon("the server to drain", async {
        loop {
            let answer = http_get(server.admin(), "/readyz").await;
            if answer.status == 503 {
                return assert_eq!(answer.text(), "draining\n");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_taken_before_the_drain_is_acknowledged_before_the_end() {
    for door in Door::ALL {
        let log = FaultyLog::new();
        let server = TestServer::with_log(log.clone(), |_| {}).await;
        let mut writer = Participant::join(&server, door, "notes").await;
        let mut idle = Participant::join(&server, Door::Edit, "other").await;
        writer.wait_for_sync().await;
        // In the room, and not yet durable, when the drain begins.
        log.hold_appends();
        let id = writer.type_text("on its way").await;
        eventually("the append", || log.appends() == 1).await;
        server.begin_drain();
        // Everybody is told at once: whoever has nothing on its way ends at once.
        assert_eq!(refused(&idle.wait_for_end().await.unwrap()).reason, "DRAINING");
        log.release_appends();
        let status = writer.wait_for_end().await.expect("a status that is not OK");
        assert_eq!(refused(&status).reason, "DRAINING");
        assert_eq!(writer.acked, id);
        assert_eq!(server.stop().await, Stopped::Cleanly);
    }
}

#[tokio::test]
async fn a_server_that_drains_is_not_ready_and_takes_nobody_in() {
    let server = TestServer::with_config(|config| {
        config.shutdown.delay = Duration::from_millis(500);
    })
    .await;
    let (address, admin) = (server.address(), server.admin());
    let mut early = Participant::join(&server, Door::Edit, "notes").await;
    server.begin_drain();
    draining(&server).await;
    assert_eq!(http_get(admin, "/livez").await.status, 200, "a drain is no reason to be killed");
    // Within the delay, those who are there are served.
    early.type_text("still served").await;
    early.wait_for_acks().await;
    assert_eq!(refused(&early.wait_for_end().await.unwrap()).reason, "DRAINING");
    assert_eq!(server.stop().await, Stopped::Cleanly);
    assert!(TcpStream::connect(address).await.is_err(), "the port is free");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_in_time_whatever_clients_do() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = ServerProcess::start(directory.path(), &[("SHUTDOWN__GRACE", "3s")]).await;
    let mut writer =
        Participant::open(channel(server.address()).await, Door::Edit, "notes").await.unwrap();
    // One that never reads its stream, while there is more to read than fits anywhere.
    let endpoint = Endpoint::from_shared(server.url()).unwrap();
    let narrow = endpoint.initial_stream_window_size(65_535).connect().await.unwrap();
    let (deaf, _) = RawSession::open(narrow, Door::Edit, join("notes")).await.unwrap();
    for _ in 0..20 {
        writer.type_text(&"x".repeat(50_000)).await;
    }
    writer.wait_for_acks().await;
    // Connections that say nothing, half a preface, and half a request.
    let mut silent = Vec::new();
    for beginning in ["", "PRI * HTTP/2.0\r\n\r\nSM", "GET / HTTP/1.1\r\n"] {
        let mut socket = TcpStream::connect(server.address()).await.unwrap();
        socket.write_all(beginning.as_bytes()).await.unwrap();
        silent.push(socket);
    }
    // A whole HTTP/2 connection whose owner is stopped like a laptop that was closed.
    let mut frozen = TcpStream::connect(server.address()).await.unwrap();
    let settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    frozen.write_all(settings).await.unwrap();
    let asked = time::now();
    server.terminate().await;
    assert_eq!(server.wait().await, Some(0));
    let took = asked.elapsed();
    assert!(took < GRACE + Duration::from_secs(2), "{took:?}");
    drop((deaf, silent, frozen));
    let again = ServerProcess::start(directory.path(), &[]).await;
    let connection = channel(again.address()).await;
    let mut reader = Participant::open(connection, Door::Edit, "notes").await.unwrap();
    reader.wait_for_text(&writer.text()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn native_clients_lose_nothing_over_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let start = async || {
        let settings = [("SHUTDOWN__GRACE", "3s"), ("SESSION__DRAIN_RETRY_MAX", "200ms")];
        ServerProcess::start(directory.path(), &settings).await
    };
    let mut server = start().await;
    let proxy = cowrite_tests::ChaosProxy::start(server.address()).await;
    let client = cowrite_client::Client::connect(proxy.url()).await.unwrap();
    let options = cowrite_client::DocumentOptions::default;
    let (alice, bob) = (client.document("notes", options()), client.document("notes", options()));
    soon("the initial state", alice.wait_until_synced()).await.unwrap();
    soon("the initial state", bob.wait_until_synced()).await.unwrap();
    let mut words = 0;
    for _ in 0..3 {
        let mut type_some = |document: &cowrite_client::Document| {
            for _ in 0..20 {
                let word = format!("<{words}>");
                words += 1;
                document.edit(|txn| txn.get_or_insert_text("text").push(txn, &word));
            }
        };
        type_some(&alice);
        server.terminate().await;
        type_some(&bob);
        assert_eq!(server.wait().await, Some(0));
        type_some(&alice);
        server = start().await;
        proxy.set_target(server.address());
    }
    soon("Alice's edits to be saved", alice.wait_until_saved()).await.unwrap();
    soon("Bob's edits to be saved", bob.wait_until_saved()).await.unwrap();
    let complete = |text: &str| (0..words).all(|i| text.matches(&format!("<{i}>")).count() == 1);
    eventually("both to have everything, once", || {
        complete(&alice.text("text")) && complete(&bob.text("text"))
    })
    .await;
    assert_eq!(alice.text("text"), bob.text("text"));
    let connection = channel(server.address()).await;
    let mut reader = Participant::open(connection, Door::Edit, "notes").await.unwrap();
    reader.wait_for_text(&alice.text("text")).await;
}
