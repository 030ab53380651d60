//! Promise: who is here is shown, and who is gone disappears at once, however it went.
//!
//! On virtual time, so that the production timeouts are met to the millisecond.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

use std::time::Duration;

use cowrite_proto::v1::{ErrorReason, Join, server_frame::Frame as Down};
use cowrite_server::{auth::Access, session, shutdown::Tasks, time};
use cowrite_tests::{
    ChaosProxy, Door, Issuer, Participant, RawSession, TestServer, channel, join, join_as,
    pacemaker, refused, text_update, up,
};
use tonic::Code;

/// Longer than an answer takes on virtual time, and shorter than any timeout.
const AT_ONCE: Duration = Duration::from_millis(200);

fn timing() -> session::Config {
    session::Config::default()
}

/// Somebody who answers pings and looks at who is here, and somebody who announces itself.
async fn two(server: &TestServer, door: Door) -> (Participant, RawSession) {
    let mut alice = Participant::join(server, Door::Edit, "notes").await;
    let (mut bob, _) = RawSession::open(server.channel(), door, join_as("notes", 7)).await.unwrap();
    bob.send([up::awareness(&br#"{"user":"bob"}"#[..])]).await.unwrap();
    alice.wait_until("Bob", |p| p.sees(7) == Some(r#"{"user":"bob"}"#)).await;
    (alice, bob)
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_answering_is_evicted_after_heartbeat_timeout_and_disappears() {
    for door in Door::ALL {
        let tasks = Tasks::new();
        pacemaker(&tasks);
        let server = TestServer::start().await;
        let (mut alice, mut bob) = two(&server, door).await;
        let heard = time::now();
        // Bob reads, and does not answer.
        let reading = tasks.spawn(async move { (bob.end().await, time::now()) });
        let gone = async {
            while alice.sees(7).is_some() {
                alice.step().await;
            }
        };
        tokio::time::timeout(timing().heartbeat_timeout + AT_ONCE, gone).await.expect("Bob goes");
        let took = heard.elapsed();
        let ((frames, status), _) = reading.await.unwrap();
        let status = refused(&status.unwrap());
        assert_eq!(
            (status.code, &status.reason[..]),
            (Code::DeadlineExceeded, "HEARTBEAT_TIMEOUT")
        );
        let pings = frames.iter().filter(|frame| matches!(frame, Down::Ping(_))).count();
        assert!((2..=3).contains(&pings), "{pings} pings");
        let timeout = timing().heartbeat_timeout;
        assert!(took + AT_ONCE >= timeout && took <= timeout + AT_ONCE, "{took:?}");
        tasks.cancel();
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_with_an_edit_that_is_known_already_disappears_at_once() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let server = TestServer::start().await;
    let (mut alice, mut bob) = two(&server, Door::Publish).await;
    let edit = text_update("last words");
    bob.send([up::update(1, edit.clone())]).await.unwrap();
    alice.wait_for_text("last words").await;
    // What a page sends that does not know yet whether its last edit arrived.
    bob.send([up::update(2, edit), up::leave()]).await.unwrap();
    let gone = alice.wait_until("Bob to go", |p| p.sees(7).is_none());
    tokio::time::timeout(AT_ONCE, gone).await.expect("Bob goes at once");
    tasks.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_stays_for_an_hour() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let server = TestServer::start().await;
    let (mut alice, mut bob) = two(&server, Door::Edit).await;
    let end = time::now() + Duration::from_secs(60 * 60);
    let mut pings = 0;
    let answering = tasks.spawn(async move {
        while let Ok(Some(frame)) = bob.next().await {
            if let Down::Ping(ping) = frame {
                pings += 1;
                bob.send([up::pong(ping.nonce)]).await.unwrap();
            }
            if time::now() >= end {
                break;
            }
        }
        (bob, pings)
    });
    let mut bob = None;
    tokio::pin!(answering);
    while bob.is_none() {
        tokio::select! {
            () = alice.step() => assert!(alice.ended.is_none() && alice.sees(7).is_some()),
            answered = &mut answering => bob = Some(answered.unwrap()),
        }
    }
    let (_bob, pings) = bob.unwrap();
    assert!((200..=245).contains(&pings), "{pings} pings in an hour");
    assert!(time::now() >= end, "Bob stayed");
    assert!(alice.sees(7).is_some());
    tasks.cancel();
}

#[tokio::test(start_paused = true)]
async fn who_leaves_or_is_cut_off_disappears_at_once() {
    for door in Door::ALL {
        for way in ["leave", "drop", "cut"] {
            let tasks = Tasks::new();
            pacemaker(&tasks);
            let server = TestServer::start().await;
            let proxy = ChaosProxy::start(server.address()).await;
            let mut alice = Participant::join(&server, Door::Edit, "notes").await;
            let connection = channel(proxy.address()).await;
            let bob = RawSession::open(connection.clone(), door, join_as("notes", 7)).await;
            let mut bob = bob.unwrap().0;
            bob.send([up::awareness(&b"{}"[..])]).await.unwrap();
            alice.wait_until("Bob", |p| p.sees(7).is_some()).await;
            let going = time::now();
            match way {
                "leave" => bob.send([up::leave()]).await.unwrap(),
                "drop" => drop(bob),
                _ => proxy.cut(),
            }
            alice.wait_until("the end of Bob", |p| p.sees(7).is_none()).await;
            assert!(going.elapsed() <= AT_ONCE, "{door:?}, {way}: {:?}", going.elapsed());
            tasks.cancel();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_network_that_swallows_everything_is_noticed() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let server = TestServer::start().await;
    let proxy = ChaosProxy::start(server.address()).await;
    let mut alice = Participant::join(&server, Door::Edit, "notes").await;
    let connection = channel(proxy.address()).await;
    let bob = RawSession::open(connection, Door::Edit, join_as("notes", 7)).await;
    let mut bob = bob.unwrap().0;
    bob.send([up::awareness(&b"{}"[..])]).await.unwrap();
    alice.wait_until("Bob", |p| p.sees(7).is_some()).await;
    proxy.stall();
    let stalled = time::now();
    let gone = async {
        while alice.sees(7).is_some() {
            alice.step().await;
        }
    };
    let limit = timing().heartbeat_timeout + AT_ONCE;
    tokio::time::timeout(limit, gone).await.expect("Bob goes");
    assert!(alice.ended.is_none(), "Alice stays: {:?}", stalled.elapsed());
    tasks.cancel();
}

#[tokio::test(start_paused = true)]
async fn who_does_not_look_for_a_while_gets_only_the_latest_state() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let server = TestServer::start().await;
    let (mut alice, mut bob) = two(&server, Door::Edit).await;
    let before = alice.awareness_frames;
    for i in 0..1000 {
        bob.send([up::awareness(format!("{{\"at\":{i}}}"))]).await.unwrap();
    }
    alice.wait_until("the last state", |p| p.sees(7) == Some("{\"at\":999}")).await;
    let frames = alice.awareness_frames - before;
    assert!(frames < 100, "{frames} frames for 1000 states");
    // Somebody new gets one.
    let mut carol = Participant::join(&server, Door::Publish, "notes").await;
    carol.wait_until("the last state", |p| p.sees(7) == Some("{\"at\":999}")).await;
    assert_eq!(carol.awareness_frames, 1);
    tasks.cancel();
}

#[tokio::test(start_paused = true)]
async fn an_announcement_is_passed_on_at_once_after_a_pause_and_not_oftener_than_the_interval() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let server = TestServer::start().await;
    let (mut alice, mut bob) = two(&server, Door::Edit).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let said = time::now();
    bob.send([up::awareness(&b"1"[..])]).await.unwrap();
    alice.wait_until("the state", |p| p.sees(7) == Some("1")).await;
    assert!(said.elapsed() < Duration::from_millis(50), "{:?}", said.elapsed());
    bob.send([up::awareness(&b"2"[..])]).await.unwrap();
    alice.wait_until("the state", |p| p.sees(7) == Some("2")).await;
    assert!(said.elapsed() >= Duration::from_millis(45), "{:?}", said.elapsed());
    tasks.cancel();
}

#[tokio::test]
async fn nobody_speaks_for_another_client_id_than_the_one_of_its_join() {
    let server = TestServer::start().await;
    let (mut alice, _bob) = two(&server, Door::Edit).await;
    // Mallory joined without an id, Eve with her own.
    let mallory = RawSession::open(server.channel(), Door::Edit, join("notes")).await;
    let mut mallory = mallory.unwrap().0;
    mallory.send([up::awareness(&br#"{"user":"bob?"}"#[..])]).await.unwrap();
    let mut eve = Participant::join(&server, Door::Publish, "notes").await;
    eve.announce(r#"{"user":"eve"}"#).await;
    let id = eve.client_id();
    alice.wait_until("Eve", |p| p.sees(id).is_some()).await;
    assert_eq!(alice.sees(7), Some(r#"{"user":"bob"}"#));
    let ids: Vec<_> = alice.awareness.keys().copied().collect();
    let mut expected = vec![7, id];
    expected.sort_unstable();
    assert_eq!(ids, expected, "Mallory is nowhere");
    // The end of sessions that never had an id, or not this one, takes nobody away.
    mallory.send([up::leave()]).await.unwrap();
    assert!(mallory.end().await.1.is_none());
    eve.leave().await;
    alice.wait_until("the end of Eve", |p| p.sees(id).is_none()).await;
    assert_eq!(alice.sees(7), Some(r#"{"user":"bob"}"#));
}

#[tokio::test]
async fn nobody_takes_over_who_somebody_else_is() {
    let issuer = Issuer::new();
    let server = TestServer::with_config(|config| issuer.configure(config)).await;
    let enter = async |name: &str, access, id| {
        let token = issuer.token(name, &[("notes", access)]);
        let wish = Join { token, ..join_as("notes", id) };
        let doc = yrs::Doc::with_client_id(id);
        let entered = Participant::open_with(server.channel(), Door::Edit, wish, doc).await;
        entered.unwrap()
    };
    let mut alice = enter("alice", Access::Write, 7).await;
    alice.announce(r#"{"user":"alice"}"#).await;
    let mut carol = enter("carol", Access::Write, 8).await;
    carol.wait_until("Alice", |p| p.sees(7).is_some()).await;
    // Mallory, who may only read, says that she is Alice, and then that Alice is gone.
    let mut mallory = enter("mallory", Access::Read, 7).await;
    mallory.announce(r#"{"user":"forged"}"#).await;
    mallory.announce("").await;
    mallory.leave().await;
    carol.announce("1").await;
    alice.wait_until("Carol", |p| p.sees(8) == Some("1")).await;
    let mut dave = enter("dave", Access::Read, 9).await;
    dave.wait_until("Alice", |p| p.sees(7).is_some()).await;
    for one in [&carol, &dave] {
        assert_eq!(one.sees(7), Some(r#"{"user":"alice"}"#));
    }
    // She herself may come back before her old session ends.
    let mut again = enter("alice", Access::Write, 7).await;
    again.announce(r#"{"user":"alice","n":2}"#).await;
    carol.wait_until("her new session", |p| p.sees(7).is_some_and(|s| s.contains("2"))).await;
}

#[tokio::test]
async fn nobody_writes_first_under_the_client_id_that_somebody_else_has_announced() {
    let issuer = Issuer::new();
    let server = TestServer::with_config(|config| issuer.configure(config)).await;
    let enter = async |name: &str| {
        let token = issuer.token(name, &[("notes", Access::Write)]);
        let wish = Join { token, ..join_as("notes", 7) };
        let doc = yrs::Doc::with_client_id(7);
        Participant::open_with(server.channel(), Door::Edit, wish, doc).await.unwrap()
    };
    let mut alice = enter("alice").await;
    alice.announce("1").await;
    alice.wait_for_sync().await;
    let mut mallory = enter("mallory").await;
    mallory.wait_until("Alice", |p| p.sees(7).is_some()).await;
    mallory.type_text("forged").await;
    mallory.wait_until("the end", |p| p.closing.is_some()).await;
    let reason = mallory.closing.as_ref().unwrap().reason();
    assert_eq!(reason, ErrorReason::ClientIdTaken);
    alice.type_text("hers").await;
    alice.wait_for_acks().await;
    assert_eq!(alice.text(), "hers");
}

#[tokio::test]
async fn a_client_that_comes_back_before_its_old_session_ends_stays() {
    let server = TestServer::start().await;
    let (mut alice, mut old) = two(&server, Door::Edit).await;
    let new = RawSession::open(server.channel(), Door::Edit, join_as("notes", 7)).await;
    let mut new = new.unwrap().0;
    new.send([up::awareness(&b"\"new\""[..])]).await.unwrap();
    alice.wait_until("Bob's new session", |p| p.sees(7) == Some("\"new\"")).await;
    old.send([up::leave()]).await.unwrap();
    assert!(old.end().await.1.is_none());
    // What comes after the end of the old session is in order behind it.
    let mut carol = Participant::join(&server, Door::Edit, "notes").await;
    carol.announce("1").await;
    let id = carol.client_id();
    alice.wait_until("Carol", |p| p.sees(id).is_some()).await;
    assert_eq!(alice.sees(7), Some("\"new\""));
}

#[tokio::test(start_paused = true)]
async fn an_idle_room_leaves_memory_and_comes_back_with_its_content() {
    let tasks = Tasks::new();
    pacemaker(&tasks);
    let server = TestServer::start().await;
    let mut alice = Participant::join(&server, Door::Edit, "notes").await;
    alice.type_text("kept").await;
    assert!(alice.leave().await.is_none());
    let left = time::now();
    let metrics = server.metrics();
    while metrics.room.rooms.get() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(left.elapsed() < Duration::from_secs(40), "the room stays");
    }
    assert!(left.elapsed() >= Duration::from_secs(29), "{:?}", left.elapsed());
    let mut bob = Participant::join(&server, Door::Edit, "notes").await;
    bob.wait_for_text("kept").await;
    tasks.cancel();
}

#[tokio::test]
async fn joins_that_are_given_up_leave_nobody_behind() {
    let server = TestServer::with_config(|config| {
        config.room.idle_timeout = Duration::from_millis(50);
    })
    .await;
    let tasks = Tasks::new();
    for round in 0..200_u64 {
        let connection = server.channel();
        let document = format!("notes/{}", round % 4);
        let door = Door::ALL[(round % 2) as usize];
        let joining = RawSession::open(connection, door, join_as(&document, round + 1));
        // Given up after a part of what a join takes.
        let given_up = tokio::time::timeout(Duration::from_micros(round * 10), joining);
        tasks.spawn(async move { drop(given_up.await) });
    }
    tasks.wait().await;
    let rooms = &server.metrics().room.rooms;
    cowrite_tests::eventually("all rooms to end", || rooms.get() == 0).await;
    assert_eq!(server.metrics().session.sessions.get(), 0);
}
