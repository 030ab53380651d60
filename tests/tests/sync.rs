//! Promise: all who are in a document have the same content, through whichever door they came.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

use bytes::Bytes;
use cowrite_proto::v1::{
    Access, ListDocumentsRequest, document_service_client::DocumentServiceClient,
    server_frame::Frame as Down,
};
use cowrite_tests::{
    Door, FaultyLog, Participant, RawSession, TestServer, assert_converged, channel, join,
    text_update, up,
};
use futures_util::future::join_all;
use yrs::{Text as _, WriteTxn as _};

/// The largest part of a difference, as the protocol promises.
const CHUNK_BYTES_MAX: usize = 256 << 10;

#[tokio::test]
async fn two_writers_at_the_same_time_converge() {
    for (one, other) in [(Door::Edit, Door::Edit), (Door::Edit, Door::Publish)] {
        let server = TestServer::start().await;
        let mut alice = Participant::join(&server, one, "notes").await;
        let mut bob = Participant::join(&server, other, "notes").await;
        for i in 0..50 {
            alice.type_text(&format!("a{i} ")).await;
            bob.type_text(&format!("b{i} ")).await;
        }
        alice.wait_for_acks().await;
        bob.wait_for_acks().await;
        let all_there = |p: &Participant| {
            let text = p.text();
            (0..50).all(|i| text.contains(&format!("a{i} ")) && text.contains(&format!("b{i} ")))
        };
        alice.wait_until("all that Bob wrote", all_there).await;
        bob.wait_until("all that Alice wrote", all_there).await;
        let mut carol = Participant::join(&server, Door::Edit, "notes").await;
        carol.wait_for_sync().await;
        assert_converged([("Alice", alice.doc()), ("Bob", bob.doc()), ("Carol", carol.doc())]);
    }
}

#[tokio::test]
async fn either_door_gives_acknowledgements_updates_and_awareness() {
    let server = TestServer::start().await;
    for writes in Door::ALL {
        for reads in Door::ALL {
            let document = format!("{writes:?}/{reads:?}");
            let mut writer = Participant::join(&server, writes, &document).await;
            let mut reader = Participant::join(&server, reads, &document).await;
            let id = writer.type_text("seen").await;
            writer.wait_for_acks().await;
            assert_eq!(writer.acked, id);
            reader.wait_for_text("seen").await;
            assert_eq!(writer.updates, 0, "nobody gets back what only he wrote");
            writer.announce(r#"{"user":"w"}"#).await;
            let client = writer.client_id();
            reader.wait_until("awareness", |p| p.sees(client) == Some(r#"{"user":"w"}"#)).await;
            assert_eq!(reader.joined.access, i32::from(Access::Write));
            let secret = match reads {
                Door::Edit => 0,
                Door::Publish => 16,
            };
            assert_eq!(reader.joined.session_secret.len(), secret);
            assert_eq!(reader.joined.epoch.len(), 16);
        }
    }
}

#[tokio::test]
async fn a_large_document_arrives_in_chunks_that_are_not_too_large() {
    let server = TestServer::start().await;
    let mut writer = Participant::join(&server, Door::Edit, "large").await;
    for i in 0..20 {
        writer.type_text(&format!("{i}:{}", "x".repeat(100_000))).await;
    }
    writer.wait_for_acks().await;
    for door in Door::ALL {
        let mut reader = Participant::join(&server, door, "large").await;
        reader.wait_for_sync().await;
        assert_converged([("the writer", writer.doc()), ("the reader", reader.doc())]);
        assert!(reader.chunk_sizes.len() >= 8, "{:?}", reader.chunk_sizes);
        assert!(reader.chunk_sizes.iter().all(|size| *size <= CHUNK_BYTES_MAX));
    }
}

#[tokio::test]
async fn who_comes_back_soon_gets_only_the_updates_that_it_missed() {
    let server = TestServer::start().await;
    for door in Door::ALL {
        let document = format!("{door:?}");
        let mut writer = Participant::join(&server, Door::Edit, &document).await;
        let mut other = Participant::join(&server, door, &document).await;
        writer.type_text("before ").await;
        other.wait_for_text("before ").await;
        // The only update of this document has the sequence 1.
        for word in ["while ", "away"] {
            writer.type_text(word).await;
            writer.wait_for_acks().await;
        }
        let returned = other.come_back(server.channel(), door, &document, 1).await;
        let mut other = returned.unwrap();
        assert!(other.joined.resumed);
        assert_eq!(other.joined.sync_sequence, 3);
        other.wait_for_text("before while away").await;
        writer.type_text("!").await;
        other.wait_for_text("before while away!").await;
        assert_eq!((other.updates, other.differences), (3, 0), "each missed update, no difference");
    }
}

#[tokio::test]
async fn who_comes_back_late_gets_a_difference() {
    let server = TestServer::with_config(|config| config.room.recent_bytes_max = 1000).await;
    let mut writer = Participant::join(&server, Door::Edit, "notes").await;
    let mut other = Participant::join(&server, Door::Edit, "notes").await;
    writer.type_text("before ").await;
    other.wait_for_text("before ").await;
    for _ in 0..20 {
        writer.type_text(&"x".repeat(100)).await;
        writer.wait_for_acks().await;
    }
    let mut other = other.come_back(server.channel(), Door::Edit, "notes", 1).await.unwrap();
    assert!(!other.joined.resumed);
    other.wait_for_sync().await;
    assert_converged([("the writer", writer.doc()), ("who came back", other.doc())]);
    assert!(other.chunk_sizes.iter().sum::<usize>() < 2200 + 200, "the difference, not the whole");
}

#[tokio::test]
async fn who_comes_back_after_a_restart_gets_a_difference() {
    let log = FaultyLog::new();
    let server = TestServer::with_log(log.clone(), |_| {}).await;
    let mut writer = Participant::join(&server, Door::Edit, "notes").await;
    let mut other = Participant::join(&server, Door::Edit, "notes").await;
    writer.type_text("before ").await;
    other.wait_for_text("before ").await;
    server.stop().await;
    let server = TestServer::with_log(log, |_| {}).await;
    let mut writer = writer.come_back(server.channel(), Door::Edit, "notes", 1).await.unwrap();
    writer.type_text("after").await;
    writer.wait_for_text("before after").await;
    // A sequence of which the new server has nothing, neither before nor after.
    for sequence in [1, 1000] {
        other = other.come_back(server.channel(), Door::Edit, "notes", sequence).await.unwrap();
        other.wait_for_text("before after").await;
    }
    assert!(!other.joined.resumed);
}

#[tokio::test]
async fn leave_ends_with_ok_after_everything_is_acknowledged() {
    let server = TestServer::start().await;
    for door in Door::ALL {
        let document = format!("{door:?}");
        let mut writer = Participant::join(&server, door, &document).await;
        let mut last = 0;
        for i in 0..200 {
            last = writer.type_text(&format!("{i} ")).await;
        }
        assert!(writer.leave().await.is_none(), "the stream ends with OK");
        assert_eq!(writer.acked, last);
        assert!(writer.closing.is_none(), "nobody is told to come back");
    }
}

#[tokio::test]
async fn a_client_that_finishes_its_stream_leaves() {
    let server = TestServer::start().await;
    let mut writer = Participant::join(&server, Door::Edit, "notes").await;
    let last = writer.type_text("bye").await;
    writer.session().finish();
    assert!(writer.wait_for_end().await.is_none());
    assert_eq!(writer.acked, last);
}

#[tokio::test]
async fn frames_of_one_message_take_effect_in_order() {
    let server = TestServer::start().await;
    let mut reader = Participant::join(&server, Door::Edit, "notes").await;
    let mut session = RawSession::edit(server.channel()).await;
    let doc = yrs::Doc::new();
    let update = |text: &str| -> Bytes {
        use yrs::Transact as _;
        let mut txn = doc.transact_mut();
        txn.get_or_insert_text("text").push(&mut txn, text);
        txn.encode_update_v1().into()
    };
    let frames = [
        up::join(join("notes")),
        up::update(5, update("one ")),
        up::awareness(&b"{}"[..]),
        up::pong(7),
        up::update(9, update("two")),
        up::leave(),
    ];
    session.send(frames).await.unwrap();
    let (frames, status) = session.end().await;
    assert!(status.is_none(), "{status:?}");
    assert!(matches!(frames[0], Down::Joined(_)));
    let acked = frames.iter().filter_map(|frame| match frame {
        Down::Ack(ack) => Some(ack.update_id),
        _ => None,
    });
    assert_eq!(acked.last(), Some(9));
    reader.wait_for_text("one two").await;
}

#[tokio::test]
async fn a_cold_document_that_many_join_at_once_is_loaded_once() {
    let log = FaultyLog::new();
    let server = TestServer::with_log(log.clone(), |_| {}).await;
    let mut writer = Participant::join(&server, Door::Edit, "notes").await;
    writer.type_text("loaded").await;
    writer.wait_for_acks().await;
    server.stop().await;
    let loads = log.loads();
    let server = TestServer::with_log(log.clone(), |_| {}).await;
    // Four connections, because one takes 100 streams at most.
    let mut channels = Vec::new();
    for _ in 0..4 {
        channels.push(channel(server.address()).await);
    }
    let joins = (0..100_usize).map(|i| {
        let door = Door::ALL[i % 2];
        let opened = Participant::open(channels[i % channels.len()].clone(), door, "notes");
        async {
            let mut participant = opened.await.unwrap();
            participant.wait_for_text("loaded").await;
            participant
        }
    });
    let participants = join_all(joins).await;
    assert_eq!(log.loads() - loads, 1);
    let copies = participants.iter().map(|participant| ("one of many", participant.doc()));
    assert_converged(copies);
}

#[tokio::test]
async fn documents_are_listed_in_order_a_page_at_a_time() {
    let server = TestServer::start().await;
    let mut ids: Vec<_> = (0..25).map(|i| format!("list/{i:02}")).collect();
    for id in ids.iter().rev() {
        let mut writer = Participant::join(&server, Door::Edit, id).await;
        writer.type_text("x").await;
        writer.wait_for_acks().await;
        writer.leave().await;
    }
    let stays = Participant::join(&server, Door::Edit, "list/07").await;
    let mut client = DocumentServiceClient::new(server.channel());
    let (mut page_token, mut found, mut pages) = (String::new(), Vec::new(), 0);
    loop {
        let request = ListDocumentsRequest { page_size: 10, page_token };
        let page = client.list_documents(request).await.unwrap().into_inner();
        assert!(page.documents.len() <= 10);
        pages += 1;
        found.extend(page.documents);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(pages, 3);
    assert!(found.iter().all(|document| document.sequence == 1));
    let with_sessions: Vec<_> =
        found.iter().filter(|d| d.sessions > 0).map(|d| &d.id[..]).collect();
    assert_eq!(with_sessions, ["list/07"]);
    let found: Vec<_> = found.into_iter().map(|document| document.id).collect();
    ids.sort();
    assert_eq!(found, ids);
    let request = ListDocumentsRequest { page_size: 0, page_token: "not an id".to_owned() };
    assert_eq!(
        client.list_documents(request).await.unwrap_err().code(),
        tonic::Code::InvalidArgument
    );
    drop(stays);
}

#[tokio::test]
async fn a_reader_of_a_document_that_does_not_exist_does_not_create_it() {
    let server = TestServer::start().await;
    let wish = cowrite_proto::v1::Join { access: Access::Read.into(), ..join("nothing") };
    let (mut session, joined) = RawSession::open(server.channel(), Door::Edit, wish).await.unwrap();
    assert!(joined.epoch.is_empty());
    assert_eq!(joined.access, i32::from(Access::Read));
    let mut client = DocumentServiceClient::new(server.channel());
    let page = client.list_documents(ListDocumentsRequest::default()).await.unwrap();
    assert!(page.into_inner().documents.is_empty());
    // When somebody writes it, the reader sees it.
    let mut writer = Participant::join(&server, Door::Edit, "nothing").await;
    writer.send_update(text_update("something")).await.unwrap();
    loop {
        if let Some(Down::Update(update)) = session.next().await.unwrap() {
            assert_eq!(update.sequence, 1);
            break;
        }
    }
}
