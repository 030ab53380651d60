//! Promise: the server does not run out of memory because many come at once, or to many documents. Rooms
//! in which nobody is give way; what is begun goes on; who has to wait is told for how long.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cowrite_proto::v1::{Join, server_frame::Frame as Down};
use cowrite_server::{app::Config, shutdown::Tasks};
use cowrite_tests::{
    Door, FaultyLog, Participant, RawSession, TestServer, YClient, channel, eventually, join,
    pacemaker, refused, soon, up,
};
use tokio::time::{Instant, sleep};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;
use yrs::{Doc, ReadTxn as _, Text as _, Transact as _, updates::encoder::Encode as _};

/// How often a document was loaded.
fn loads(server: &TestServer) -> u64 {
    let text = server.metrics().encode().unwrap();
    let line =
        text.lines().find(|line| line.starts_with("cowrite_room_load_duration_seconds_count"));
    line.unwrap().rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// Types into a document and leaves it.
async fn visit(server: &TestServer, document: &str) {
    let mut guest = Participant::join(server, Door::Edit, document).await;
    guest.type_text("x").await;
    guest.wait_for_acks().await;
    guest.leave().await;
}

#[tokio::test]
async fn rooms_in_which_nobody_is_give_way_and_those_first_that_were_left_first() {
    let server = TestServer::with_config(|config| {
        config.room.rooms_max = 3;
        config.room.idle_timeout = Duration::from_secs(3600);
    })
    .await;
    let rooms = &server.metrics().room;
    let mut stays = Participant::join(&server, Door::Edit, "open").await;
    for document in ["a", "b", "a", "c"] {
        visit(&server, document).await;
        // Each is left before the next one.
        sleep(Duration::from_millis(5)).await;
    }
    // There was no place for c beside a and b.
    assert_eq!((rooms.rooms.get(), rooms.evicted.get()), (3, 1));
    let before = loads(&server);
    visit(&server, "a").await;
    assert_eq!(loads(&server), before, "a was left after b");
    visit(&server, "b").await;
    assert_eq!(loads(&server), before + 1, "b had left");
    for i in 0..20 {
        visit(&server, &format!("many/{i}")).await;
    }
    assert!(rooms.rooms.get() <= 3);
    stays.type_text("still here").await;
    stays.wait_for_acks().await;
    // What gave way is all there.
    let mut again = Participant::join(&server, Door::Edit, "many/3").await;
    again.wait_for_text("x").await;
}

#[tokio::test]
async fn where_somebody_is_in_every_room_the_next_is_refused_and_comes_in_when_one_is_left() {
    let server = TestServer::with_config(|config| {
        config.room.rooms_max = 2;
        config.room.idle_timeout = Duration::from_secs(3600);
    })
    .await;
    let mut a = Participant::join(&server, Door::Edit, "a").await;
    let _b = Participant::join(&server, Door::Publish, "b").await;
    let refusal = RawSession::open(server.channel(), Door::Edit, join("c")).await.unwrap_err();
    assert_eq!(refused(&refusal).reason, "TOO_MANY_ROOMS");
    a.leave().await;
    RawSession::open(server.channel(), Door::Edit, join("c")).await.unwrap();
}

/// Memory for one document of the largest size of which nothing is known, and for some with a long text.
fn small(config: &mut Config) {
    config.room.document_bytes_max = 1 << 20;
    config.room.memory_bytes_max = 17 << 20;
    config.room.idle_timeout = Duration::from_secs(3600);
}

fn retry_seconds(status: &Status) -> f64 {
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    retry.expect("a delay").as_secs_f64()
}

#[tokio::test]
async fn without_memory_nothing_new_is_begun_and_what_there_is_goes_on() {
    let server = TestServer::with_config(small).await;
    let memory = &server.metrics().room.memory;
    let mut open = Vec::new();
    let refusal = loop {
        let document = format!("large/{}", open.len());
        match Participant::open(server.channel(), Door::Edit, &document).await {
            Ok(mut writer) => {
                writer.type_text(&"x".repeat(900_000)).await;
                writer.wait_for_acks().await;
                open.push(writer);
            }
            Err(refusal) => break refusal,
        }
        assert!(open.len() < 12, "memory for twelve: {}", memory.get());
    };
    assert_eq!(refused(&refusal).reason, "OVERLOADED");
    assert!((2.0..10.0).contains(&retry_seconds(&refusal)));
    // Those who are there go on, and others join them.
    let count = open.len();
    for (i, writer) in open.iter_mut().enumerate() {
        writer.type_text("y").await;
        writer.wait_for_acks().await;
        let mut reader = Participant::join(&server, Door::Edit, &format!("large/{i}")).await;
        reader.wait_for_text(&writer.text()).await;
        reader.leave().await;
    }
    // When they leave, their rooms give way; each also holds a copy for those who join.
    for mut writer in open.drain(count / 2..) {
        writer.leave().await;
    }
    let mut next = Participant::join(&server, Door::Edit, "next").await;
    next.type_text("x").await;
    next.wait_for_acks().await;
    assert!(server.metrics().room.evicted.get() >= 1, "{count}");
}

#[tokio::test]
async fn a_stored_document_for_which_there_is_no_memory_is_not_loaded() {
    let server = TestServer::with_config(small).await;
    for i in 0..16 {
        let mut writer = Participant::join(&server, Door::Edit, &format!("large/{i}")).await;
        writer.type_text(&"x".repeat(900_000)).await;
        writer.wait_for_acks().await;
        writer.leave().await;
    }
    let mut open = Vec::new();
    let mut refusals = 0;
    for i in 0..16 {
        let document = format!("large/{i}");
        match RawSession::open(server.channel(), Door::Edit, join(&document)).await {
            Ok(session) => open.push(session),
            Err(refusal) => {
                assert_eq!(refused(&refusal).reason, "OVERLOADED");
                refusals += 1;
            }
        }
    }
    assert!(open.len() >= 2 && refusals >= 4, "{} and {refusals}", open.len());
    let used = server.metrics().room.memory.get();
    assert!(used <= 18 << 20, "{used}");
}

/// A document of about this size, and what clients with a part of it have.
fn document(bytes: usize, parts: usize) -> (Bytes, Vec<Bytes>) {
    let doc = Doc::new();
    let text = doc.get_or_insert_text("text");
    let mut states = Vec::new();
    for _ in 0..parts {
        text.push(&mut doc.transact_mut(), &"x".repeat(bytes / parts));
        states.push(doc.transact().state_vector().encode_v1().into());
    }
    let all = doc.transact().encode_state_as_update_v1(&yrs::StateVector::default());
    (all.into(), states)
}

/// A connection on which little is under way.
async fn narrow_channel(server: &TestServer) -> Channel {
    let endpoint = Endpoint::from_shared(server.url()).unwrap();
    endpoint.initial_stream_window_size(65_535).connect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_joins_with_something_each_holds_no_more_than_it_may_and_lets_all_in() {
    const BYTES_MAX: usize = 8 << 20;
    let server = TestServer::with_config(|config| {
        config.session.update_bytes_max = 4 << 20;
        config.transport.message_bytes_max = 5 << 20;
        config.room.catch_up_bytes_max = BYTES_MAX;
        config.transport.streams_per_connection_max = 1000;
    })
    .await;
    let (mut writer, joined) =
        RawSession::open(server.channel(), Door::Edit, join("notes")).await.unwrap();
    // Each lacks from 1 to 2 MiB.
    let (update, states) = document(2 << 20, 200);
    writer.send([up::update(1, update.clone())]).await.unwrap();
    while !matches!(writer.next().await, Ok(Some(Down::Ack(_)))) {}
    let joins: Vec<_> = states[..100]
        .iter()
        .map(|state| Join {
            state_vector: state.clone(),
            epoch: joined.epoch.clone(),
            ..join("notes")
        })
        .collect();
    // Four never read, and hold almost all that there may be.
    let narrow = narrow_channel(&server).await;
    let mut deaf = Vec::new();
    for join in &joins[..4] {
        let mut session = RawSession::edit(narrow.clone()).await;
        session.send([up::join(join.clone())]).await.unwrap();
        deaf.push(session);
    }
    let waiting = server.metrics().room.catch_up.clone();
    eventually("the deaf to be in", || server.metrics().session.sessions.get() == 5).await;
    let tasks = Tasks::new();
    let honest: Vec<_> = joins
        .into_iter()
        .map(|join| {
            let channel = server.channel();
            tasks.spawn(async move {
                let mut tries = 0;
                loop {
                    tries += 1;
                    let session = RawSession::open(channel.clone(), Door::Edit, join.clone()).await;
                    let mut session = match session {
                        Ok((session, _)) => session,
                        Err(refusal) => {
                            assert_eq!(refused(&refusal).reason, "OVERLOADED");
                            // Sooner than it was told to: the test has not the time.
                            let wait = rand::random_range(100..300);
                            sleep(Duration::from_millis(wait)).await;
                            continue;
                        }
                    };
                    loop {
                        match session.next().await.unwrap() {
                            Some(Down::SyncChunk(chunk)) if chunk.last => return tries,
                            Some(_) => {}
                            None => panic!("the end"),
                        }
                    }
                }
            })
        })
        .collect();
    let most = Arc::new(std::sync::atomic::AtomicI64::new(0));
    let watching = {
        let (most, waiting) = (Arc::clone(&most), waiting.clone());
        let watch = async move {
            loop {
                most.fetch_max(waiting.get(), std::sync::atomic::Ordering::Relaxed);
                sleep(Duration::from_micros(500)).await;
            }
        };
        tasks.token().clone().run_until_cancelled_owned(watch)
    };
    tasks.spawn(watching);
    let mut refusals = 0;
    for one in honest {
        refusals += soon("all to be let in", one).await.unwrap() - 1;
    }
    tasks.cancel();
    let most = most.load(std::sync::atomic::Ordering::Relaxed);
    assert!(most as usize <= BYTES_MAX, "{most} bytes waited");
    assert!(refusals > 0, "there was no storm");
    // Those who did not read have given way, although their streams are still there.
    eventually("nothing to wait", || waiting.get() == 0).await;
    for mut session in deaf {
        let (_, status) = session.end().await;
        assert_eq!(refused(&status.unwrap()).reason, "TOO_SLOW");
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_take_the_state_that_he_joined_with_is_ended() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let server = TestServer::with_config(|config| {
        config.session.update_bytes_max = 4 << 20;
        config.transport.message_bytes_max = 5 << 20;
    })
    .await;
    let (mut writer, _) =
        RawSession::open(server.channel(), Door::Edit, join("notes")).await.unwrap();
    writer.send([up::update(1, document(3 << 20, 1).0)]).await.unwrap();
    while !matches!(writer.next().await, Ok(Some(Down::Ack(_)))) {}
    let start = Instant::now();
    let narrow = narrow_channel(&server).await;
    let mut deaf = RawSession::edit(narrow).await;
    deaf.send([up::join(join("notes"))]).await.unwrap();
    let closed = || {
        let metrics = server.metrics().encode().unwrap();
        metrics.contains("cowrite_sessions_closed_total{reason=\"too_slow\"} 1")
    };
    // It answers pings all the same.
    soon("the end of the session", async {
        while !closed() {
            deaf.send([up::pong(0)]).await.unwrap();
            sleep(Duration::from_millis(100)).await;
            if start.elapsed() > Duration::from_secs(29) {
                return;
            }
        }
    })
    .await;
    soon("the end of the session", async {
        while !closed() {
            deaf.send([up::pong(0)]).await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    let took = start.elapsed().as_secs_f64();
    assert!((29.9..41.0).contains(&took), "{took}");
    tasks.cancel();
}

#[tokio::test(start_paused = true)]
async fn documents_are_loaded_a_few_at_a_time_and_who_waits_too_long_is_told() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let log = FaultyLog::new();
    let server = TestServer::with_log(log.clone(), |config| config.room.catch_ups_max = 2).await;
    for door in Door::ALL {
        log.hold_loads();
        let before = log.loads();
        let channel = channel(server.address()).await;
        let waiting: Vec<_> = (0..5)
            .map(|i| {
                let (channel, join) = (channel.clone(), join(&format!("{door:?}/{i}")));
                tasks.spawn(async move {
                    let start = Instant::now();
                    let refusal = RawSession::open(channel, door, join).await.unwrap_err();
                    (refused(&refusal).reason, start.elapsed().as_secs_f64())
                })
            })
            .collect();
        for one in waiting {
            let (reason, took) = soon("the refusals", one).await.unwrap();
            assert_eq!(reason, "BUSY");
            assert!((9.5..11.5).contains(&took), "{took}");
        }
        assert_eq!(log.loads() - before, 2, "two at a time");
        log.release_loads();
        RawSession::open(channel, door, join(&format!("{door:?}/4"))).await.unwrap();
    }
    tasks.cancel();
}

#[tokio::test]
async fn a_yjs_client_waits_for_its_difference_until_there_is_room_for_it() {
    let server = TestServer::with_config(|config| {
        config.session.update_bytes_max = 4 << 20;
        config.transport.message_bytes_max = 5 << 20;
        // One alone always fits, and then nothing more.
        config.room.catch_up_bytes_max = 1;
    })
    .await;
    let (mut writer, joined) =
        RawSession::open(server.channel(), Door::Edit, join("notes")).await.unwrap();
    let (update, states) = document(3 << 20, 3);
    writer.send([up::update(1, update)]).await.unwrap();
    while !matches!(writer.next().await, Ok(Some(Down::Ack(_)))) {}
    let with = Join { state_vector: states[0].clone(), epoch: joined.epoch, ..join("notes") };
    let mut deaf = RawSession::edit(narrow_channel(&server).await).await;
    deaf.send([up::join(with.clone())]).await.unwrap();
    let waiting = &server.metrics().room.catch_up;
    eventually("the deaf to be in", || waiting.get() > 1 << 20).await;
    let refusal = RawSession::open(server.channel(), Door::Edit, with).await.unwrap_err();
    assert_eq!(refused(&refusal).reason, "OVERLOADED");
    // It has something, so that its difference is its own.
    let own = Doc::new();
    own.get_or_insert_text("text").push(&mut own.transact_mut(), "own");
    let mut yjs = YClient::come_back(server.address(), "notes", own).await;
    tokio::select! {
        () = yjs.wait_for_sync() => panic!("there was room"),
        () = sleep(Duration::from_millis(500)) => {}
    }
    drop(deaf);
    yjs.wait_for_sync().await;
    assert!(yjs.text().contains("own") && yjs.text().len() > 3 << 20);
}
