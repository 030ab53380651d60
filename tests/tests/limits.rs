//! Promise: what one client sends costs the others nothing. An honest editor never meets a limit; whoever
//! sends more is held back, loses nothing by it, and is ended only if he never stops.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

use std::time::Duration;

use bytes::Bytes;
use cowrite_proto::v1::{Join, server_frame::Frame as Down};
use cowrite_server::{auth::Access, session::limits, shutdown::Tasks};
use cowrite_tests::{
    Door, Issuer, Participant, RawSession, RawSocket, TestServer, channel, join, lib0, pacemaker,
    refused, soon, text_update, up,
};
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use yrs::{Text as _, Transact as _, WriteTxn as _};

/// Updates of one keystroke each.
fn keystrokes(count: usize) -> Vec<Bytes> {
    let doc = yrs::Doc::new();
    let one = |_| {
        let mut txn = doc.transact_mut();
        txn.get_or_insert_text("text").push(&mut txn, "k");
        txn.encode_update_v1().into()
    };
    (0..count).map(one).collect()
}

/// When a client is told to come back, in seconds.
fn retry_seconds(status: &Status) -> f64 {
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    retry.expect("a delay").as_secs_f64()
}

fn throttled(server: &TestServer) -> u64 {
    server.metrics().session.throttled.get()
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_types_100_edits_a_second_and_pastes_a_mebibyte_meets_no_limit() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let server = TestServer::start().await;
    for door in Door::ALL {
        let mut agent = Participant::join(&server, door, &format!("{door:?}")).await;
        let start = Instant::now();
        for i in 0..1500 {
            sleep_until(start + Duration::from_millis(10 * i)).await;
            let update = agent.append_unsent("k");
            agent.send_update(update).await.unwrap();
            if i % 5 == 0 {
                agent.announce(r#"{"cursor": 1}"#).await;
            }
        }
        // As much as one update may have.
        agent.type_text(&"x".repeat((1 << 20) - 100)).await;
        agent.wait_for_acks().await;
    }
    assert_eq!(throttled(&server), 0);
    tasks.cancel();
}

#[tokio::test(start_paused = true)]
async fn who_sends_more_than_he_may_is_held_back_and_loses_nothing() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let server = TestServer::start().await;
    for door in Door::ALL {
        let document = format!("{door:?}");
        let (mut session, _) =
            RawSession::open(server.channel(), door, join(&document)).await.unwrap();
        let start = Instant::now();
        for (i, update) in keystrokes(2000).into_iter().enumerate() {
            let id = i as u64 + 1;
            session.send([up::update(id, update)]).await.unwrap();
        }
        while !matches!(session.next().await, Ok(Some(Down::Ack(ack))) if ack.update_id == 2000) {}
        let took = start.elapsed().as_secs_f64();
        // 1000 at once, and the rest at 200/s.
        assert!((4.9..7.0).contains(&took), "{door:?}: {took}");
    }
    assert_eq!(throttled(&server), 2);
    tasks.cancel();
}

#[tokio::test(start_paused = true)]
async fn who_never_stops_is_ended_and_comes_back_after_2_to_10_seconds() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let server = TestServer::start().await;
    for door in Door::ALL {
        let (session, _) =
            RawSession::open(server.channel(), door, join(&format!("{door:?}"))).await.unwrap();
        let start = Instant::now();
        let (mut sender, mut receiver) = session.split();
        let sending = async {
            for (i, update) in keystrokes(20_000).into_iter().enumerate() {
                let id = i as u64 + 1;
                if sender.send([up::update(id, update)]).await.is_err() {
                    // Publish has heard of the end first.
                    std::future::pending::<()>().await;
                }
                sleep(Duration::from_millis(3)).await;
            }
        };
        let ending = async {
            let (_, status) = receiver.end().await;
            let status = status.unwrap();
            let refusal = refused(&status);
            assert_eq!(
                (refusal.code, &refusal.reason[..]),
                (Code::ResourceExhausted, "RATE_LIMITED"),
                "{door:?}"
            );
            let retry = retry_seconds(&status);
            assert!((2.0..10.0).contains(&retry), "{retry}");
            start.elapsed().as_secs_f64()
        };
        let took = tokio::select! {
            took = ending => took,
            () = sending => panic!("{door:?}: nobody said stop"),
        };
        // The burst lasts some seconds, and being held back 10.
        assert!(took > 12.0, "{door:?}: {took}");
    }
    tasks.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_floods_does_not_end_the_connection_of_those_beside_it() {
    let server = TestServer::start().await;
    let connection = channel(server.address()).await;
    let mut witness = Participant::open(connection.clone(), Door::Edit, "honest").await.unwrap();
    for i in 0..5 {
        let document = format!("flood/{i}");
        let (session, _) =
            RawSession::open(connection.clone(), Door::Edit, join(&document)).await.unwrap();
        let (mut sender, mut receiver) = session.split();
        let tasks = Tasks::new();
        let update = keystrokes(1).remove(0);
        tasks.spawn(async move {
            for id in 1..200_000 {
                // The stream may have ended.
                sender.send([up::update(id, update.clone())]).await.ok();
            }
        });
        let ended = soon("the end of the flood", receiver.end()).await.1.unwrap();
        assert_eq!(refused(&ended).reason, "RATE_LIMITED");
        // On the same connection, and at once.
        witness.type_text("still here").await;
        witness.wait_for_acks().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_on_a_socket_is_held_back_by_the_socket_and_then_ended() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let server = TestServer::start().await;
    let mut socket = RawSocket::open(server.address(), "/yjs/notes", &[]).await.unwrap();
    let start = Instant::now();
    let message = lib0::message(&[0, 2], &keystrokes(1)[0]);
    // Many more than there is room for on the way.
    for _ in 0..100_000 {
        socket.send_bytes(message.clone()).await;
    }
    let (code, _) = socket.end().await;
    assert_eq!(code, 1013, "the provider comes back");
    assert!(start.elapsed() >= Duration::from_secs(10), "{:?}", start.elapsed());
    // 1000 at once and 200/s, and what is under way in the socket's buffers.
    let taken = server.metrics().room.updates.get();
    assert!(taken < 5000, "{taken} of 100 000");
    tasks.cancel();
}

/// A server with tokens, and a Join with one for `subject`.
async fn with_tokens(change: impl FnOnce(&mut limits::Config)) -> (TestServer, Issuer) {
    let issuer = Issuer::new();
    let server = TestServer::with_config(|config| {
        issuer.configure(config);
        change(&mut config.limits);
    })
    .await;
    (server, issuer)
}

fn join_of(issuer: &Issuer, subject: &str) -> Join {
    let token = issuer.token(subject, &[("notes", Access::Write)]);
    Join { token, ..join("notes") }
}

#[tokio::test]
async fn a_subject_has_no_more_sessions_than_it_may_and_others_have_theirs() {
    let (server, issuer) = with_tokens(|limits| limits.sessions_per_principal_max = 2).await;
    let mut open = Vec::new();
    for door in Door::ALL {
        let join = join_of(&issuer, "alice");
        open.push(RawSession::open(server.channel(), door, join).await.unwrap());
    }
    for door in Door::ALL {
        let join = join_of(&issuer, "alice");
        let refusal = RawSession::open(server.channel(), door, join).await.unwrap_err();
        assert_eq!(refused(&refusal).reason, "TOO_MANY_SESSIONS");
        let join = join_of(&issuer, "bob");
        RawSession::open(server.channel(), door, join).await.unwrap();
    }
    let (mut first, _) = open.remove(0);
    first.send([up::leave()]).await.unwrap();
    first.end().await;
    RawSession::open(server.channel(), Door::Edit, join_of(&issuer, "alice")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_subject_that_joins_again_and_again_is_told_to_wait() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let (server, issuer) = with_tokens(|limits| limits.joins_per_second = 1).await;
    let mut joined = 0;
    let refusal = loop {
        let join = join_of(&issuer, "alice");
        match RawSession::open(server.channel(), Door::Edit, join).await {
            Ok(_) => joined += 1,
            Err(status) => break status,
        }
    };
    assert!((5..=7).contains(&joined), "a burst of 5 s: {joined}");
    assert_eq!(refused(&refusal).reason, "RATE_LIMITED");
    assert!((2.0..10.0).contains(&retry_seconds(&refusal)));
    let join = join_of(&issuer, "bob");
    RawSession::open(server.channel(), Door::Edit, join).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    let join = join_of(&issuer, "alice");
    RawSession::open(server.channel(), Door::Edit, join).await.unwrap();
    tasks.cancel();
}

#[tokio::test(start_paused = true)]
async fn many_sessions_of_one_subject_send_no_more_than_the_subject_may() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let (server, issuer) = with_tokens(|limits| {
        limits.principal_frames_per_second = 100;
        limits.throttled_max = Duration::from_secs(60);
    })
    .await;
    let mut open = Vec::new();
    for _ in 0..5 {
        let join = join_of(&issuer, "alice");
        open.push(RawSession::open(server.channel(), Door::Edit, join).await.unwrap().0);
    }
    let start = Instant::now();
    for session in &mut open {
        for (i, update) in keystrokes(200).into_iter().enumerate() {
            session.send([up::update(i as u64 + 1, update)]).await.unwrap();
        }
    }
    for session in &mut open {
        while !matches!(session.next().await, Ok(Some(Down::Ack(ack))) if ack.update_id == 200) {}
    }
    // 1000 edits: 500 at once, and the rest in 5 s.
    let took = start.elapsed().as_secs_f64();
    assert!((4.8..7.0).contains(&took), "{took}");
    // Bob is not held back by it.
    let (mut bob, _) =
        RawSession::open(server.channel(), Door::Edit, join_of(&issuer, "bob")).await.unwrap();
    bob.send([up::update(1, text_update("bob"))]).await.unwrap();
    let start = Instant::now();
    while !matches!(bob.next().await, Ok(Some(Down::Ack(_)))) {}
    assert!(start.elapsed() < Duration::from_secs(1));
    tasks.cancel();
}
