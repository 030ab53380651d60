//! Promise: memory is bounded. Who does not read is not buffered without limit and loses nothing by
//! it; who sends faster than the server takes is held back, and no connection dies of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

use std::time::Duration;

use cowrite_proto::v1::{ErrorReason, server_frame::Frame as Down};
use cowrite_server::{app::Config, session::limits, shutdown::Tasks};
use cowrite_tests::{
    Door, FaultyLog, Participant, RawSession, TestServer, assert_converged, channel, eventually,
    join, pacemaker, refused, soon, up,
};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use yrs::{Text as _, Transact as _, WriteTxn as _};

/// What these tests send is far beyond what a session may: they are about what happens then to a server
/// that is asked for it.
fn unlimited(config: &mut Config) {
    config.limits = limits::Config::none();
}

/// A connection with the windows that HTTP/2 begins with, so that little is under way.
async fn narrow_channel(server: &TestServer) -> Channel {
    let endpoint = Endpoint::from_shared(server.url()).unwrap();
    endpoint.initial_stream_window_size(65_535).connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_is_not_buffered_for_and_catches_up_with_one_difference() {
    let directory = tempfile::tempdir().unwrap();
    let server = TestServer::embedded(directory.path(), unlimited).await;
    let mut writer = Participant::join(&server, Door::Edit, "flood").await;
    let mut peer = Participant::join(&server, Door::Publish, "flood").await;
    let narrow = narrow_channel(&server).await;
    let mut reader = Participant::open(narrow, Door::Edit, "flood").await.unwrap();
    reader.wait_for_sync().await;
    // From here on the reader does not read: 20 000 updates, of 40 MiB.
    let writing = async {
        let text = writer.doc().get_or_insert_text("text");
        for _ in 0..20_000 {
            // Written over and over, so that the document itself stays small.
            let update = writer.change(|txn| {
                use yrs::GetString as _;
                let length = u32::try_from(text.get_string(txn).len()).unwrap();
                text.remove_range(txn, 0, length);
                text.push(txn, &"x".repeat(2000));
            });
            let id = writer.send_update(update).await.unwrap();
            // Not far ahead: in one large batch, most of it would be gone before it is passed on.
            writer.wait_until("an acknowledgement", |p| p.acked + 32 >= id).await;
        }
        writer.type_text("end").await;
        writer.wait_for_acks().await;
    };
    let reading = async {
        // Somebody who reads all the time.
        while !peer.text().ends_with("end") {
            peer.step().await;
        }
    };
    tokio::join!(writing, reading);
    let last = writer.text();
    assert_eq!(peer.text(), last);
    assert!(server.metrics().room.lagging.get() >= 1);
    let seen = reader.updates;
    // It reads again.
    let differences = reader.differences;
    writer.type_text("!").await;
    let text = last + "!";
    reader.wait_for_text(&text).await;
    assert_converged([("the writer", writer.doc()), ("the reader", reader.doc())]);
    assert_eq!(reader.differences - differences, 1, "one difference");
    // What was kept for it: an outbox of 256 KiB, the windows of HTTP/2, and what was on its way.
    let kept = reader.updates - seen;
    assert!(kept < 500, "{kept} of 20 000 updates were kept for somebody who did not read");
    peer.wait_for_text(&text).await;
    assert_eq!(peer.differences, 1, "only the initial state: a peer that reads is not affected");
}

#[tokio::test]
async fn a_reader_that_lags_for_too_long_is_ended_and_told_so() {
    let server = TestServer::with_config(|config| {
        unlimited(config);
        config.room.lagging_max = Duration::from_millis(300);
    })
    .await;
    let mut writer = Participant::join(&server, Door::Edit, "flood").await;
    let narrow = narrow_channel(&server).await;
    let mut reader = Participant::open(narrow, Door::Edit, "flood").await.unwrap();
    reader.wait_for_sync().await;
    let closed = || {
        let metrics = server.metrics().encode().unwrap();
        metrics.contains("cowrite_sessions_closed_total{reason=\"too_slow\"} 1")
    };
    soon("the end of the reader", async {
        while !closed() {
            writer.type_text(&"x".repeat(10_000)).await;
            writer.wait_for_acks().await;
        }
    })
    .await;
    // Nothing of it lingers, although it still does not read.
    let sessions = &server.metrics().session.sessions;
    eventually("the reader's session to end", || sessions.get() == 1).await;
    let status = reader.wait_for_end().await.expect("a refusal");
    let refusal = refused(&status);
    assert_eq!((refusal.code, &refusal.reason[..]), (Code::ResourceExhausted, "TOO_SLOW"));
    assert_eq!(reader.closing.as_ref().unwrap().reason(), ErrorReason::TooSlow);
    // What it has is a prefix of the truth; it comes back and gets the rest.
    let mut reader = reader.come_back(server.channel(), Door::Edit, "flood", 0).await.unwrap();
    reader.wait_for_text(&writer.text()).await;
    assert_converged([("the writer", writer.doc()), ("the reader", reader.doc())]);
}

#[tokio::test]
async fn a_client_that_is_refused_and_does_not_read_is_ended() {
    let server = TestServer::with_config(|config| {
        unlimited(config);
        config.session.update_bytes_max = 1024;
        config.room.document_bytes_max = 1024;
    })
    .await;
    let narrow = narrow_channel(&server).await;
    let (mut session, _) = RawSession::open(narrow, Door::Edit, join("full")).await.unwrap();
    let update = cowrite_tests::text_update(&"x".repeat(1000));
    let update_2 = cowrite_tests::text_update(&"y".repeat(1000));
    session.send([up::update(1, update)]).await.unwrap();
    let ended = || {
        let metrics = server.metrics().encode().unwrap();
        metrics.contains("cowrite_sessions_closed_total{reason=\"too_slow\"} 1")
    };
    let mut id = 1;
    soon("the end of the session", async {
        while !ended() {
            let frames: Vec<_> =
                (0..16).map(|i| up::update(id + i + 1, update_2.clone())).collect();
            id += 16;
            // The session may have ended meanwhile.
            session.send(frames).await.ok();
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (_, status) = session.end().await;
    assert_eq!(refused(&status.unwrap()).reason, "TOO_SLOW");
}

/// Updates of one keystroke each, as they would come from somebody who types fast.
fn keystrokes(count: usize) -> Vec<bytes::Bytes> {
    let doc = yrs::Doc::new();
    let one = |_| {
        let mut txn = doc.transact_mut();
        txn.get_or_insert_text("text").push(&mut txn, "k");
        txn.encode_update_v1().into()
    };
    (0..count).map(one).collect()
}

/// Sends `count` keystrokes in a message each, and reads until all are acknowledged.
async fn type_fast(channel: Channel, document: String, count: usize) {
    let (session, _) = RawSession::open(channel, Door::Edit, join(&document)).await.unwrap();
    let (mut sender, mut receiver) = session.split();
    let sending = async {
        for (i, update) in keystrokes(count).into_iter().enumerate() {
            sender.send([up::update(i as u64 + 1, update)]).await.unwrap();
        }
    };
    let reading = async {
        loop {
            match receiver.next().await {
                Ok(Some(Down::Ack(ack))) if ack.update_id == count as u64 => return,
                Ok(Some(_)) => {}
                ended => panic!("{document}: the stream ended: {ended:?}"),
            }
        }
    };
    tokio::join!(sending, reading);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_tiny_frames_into_a_stalled_room_does_not_kill_the_connection() {
    let log = FaultyLog::new();
    let server = TestServer::with_log(log.clone(), unlimited).await;
    let connection = channel(server.address()).await;
    let mut witness = Participant::open(connection.clone(), Door::Edit, "other").await.unwrap();
    let tasks = Tasks::new();
    log.hold_appends();
    let flood = tasks.spawn(type_fast(connection.clone(), "flood".to_owned(), 20_000));
    eventually("the room to stall", || log.appends() >= 1).await;
    // As long as a slow disk takes: less than the 5 s that a session waits for its room.
    tokio::time::sleep(Duration::from_secs(2)).await;
    log.release_appends();
    flood.await.expect("all is acknowledged, on the same stream");
    witness.type_text("still here").await;
    witness.wait_for_acks().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_over_64_streams_of_one_connection_does_not_kill_it() {
    let log = FaultyLog::new();
    let server = TestServer::with_log(log.clone(), unlimited).await;
    let connection = channel(server.address()).await;
    let mut witness = Participant::open(connection.clone(), Door::Edit, "other").await.unwrap();
    let tasks = Tasks::new();
    log.hold_appends();
    let floods: Vec<_> = (0..64)
        .map(|i| {
            // Four to a room.
            let document = format!("flood/{}", i / 4);
            tasks.spawn(type_fast(connection.clone(), document, 20_000 / 64))
        })
        .collect();
    eventually("the rooms to stall", || log.appends() >= 16).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    log.release_appends();
    for flood in floods {
        flood.await.expect("all is acknowledged, on the same stream");
    }
    witness.type_text("still here").await;
    witness.wait_for_acks().await;
}

#[tokio::test(start_paused = true)]
async fn a_room_that_hangs_tells_its_writers_that_it_is_busy() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let log = FaultyLog::new();
    let server = TestServer::with_log(log.clone(), |config| {
        unlimited(config);
        config.room.mailbox_bytes_max = 1000;
    })
    .await;
    let (mut session, _) =
        RawSession::open(server.channel(), Door::Edit, join("notes")).await.unwrap();
    log.hold_appends();
    for (i, update) in keystrokes(2000).into_iter().enumerate() {
        session.send([up::update(i as u64 + 1, update)]).await.unwrap();
        if i % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let (frames, status) = session.end().await;
    let refusal = refused(&status.unwrap());
    assert_eq!((refusal.code, &refusal.reason[..]), (Code::ResourceExhausted, "BUSY"));
    assert!(!frames.iter().any(|frame| matches!(frame, Down::Ack(_))), "nothing was durable");
    tasks.cancel();
}

#[tokio::test]
async fn who_leaves_a_room_that_never_rests_is_let_go() {
    let log = FaultyLog::new();
    let server = TestServer::with_log(log.clone(), unlimited).await;
    let busy = TestServer::channel(&server);
    let tasks = Tasks::new();
    let typing = async move {
        // Each acknowledgement is answered by the next keystrokes: there is always something to write.
        let (session, _) = RawSession::open(busy, Door::Edit, join("notes")).await.unwrap();
        let (mut sender, mut receiver) = session.split();
        let send = async {
            for (i, update) in keystrokes(100_000).into_iter().enumerate() {
                sender.send([up::update(i as u64 + 1, update)]).await.unwrap();
            }
        };
        let read = async { while let Ok(Some(_)) = receiver.next().await {} };
        tokio::join!(send, read);
    };
    let typing = tasks.token().clone().run_until_cancelled_owned(typing);
    tasks.spawn(typing);
    eventually("the room to be busy", || log.appends() > 10).await;
    for _ in 0..5 {
        let mut guest = Participant::join(&server, Door::Edit, "notes").await;
        let left = tokio::time::timeout(Duration::from_secs(3), guest.leave()).await;
        assert!(left.expect("the guest is let go").is_none());
    }
    tasks.cancel();
}
