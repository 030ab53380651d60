//! Promise: what was acknowledged is on disk, and nobody ever sees what is not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use cowrite_proto::v1::document_service_client::DocumentServiceClient;
use cowrite_proto::v1::{ErrorReason, ListDocumentsRequest, server_frame::Frame as Down};
use cowrite_server::shutdown::Tasks;
use cowrite_tests::{
    Door, FaultyLog, Participant, RawSession, ServerProcess, TestServer, assert_converged, channel,
    eventually, join, refused, setting, up,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tonic::{Code, transport::Channel};
use yrs::{Doc, Text as _, Transact as _, WriteTxn as _};

const DOCUMENTS: usize = 3;

/// What a typist knows in the end.
#[derive(Debug, Default)]
struct Typed {
    document: String,
    sent: Vec<String>,
    /// How many of them were acknowledged.
    acked: usize,
    /// The highest sequence that an acknowledgement named.
    sequence: u64,
}

/// Types words that nobody else types, as fast as they are taken, until the server is gone.
async fn typist(channel: Channel, door: Door, document: String, name: String) -> Typed {
    let mut typed = Typed { document, ..Typed::default() };
    let Ok((session, _)) = RawSession::open(channel, door, join(&typed.document)).await else {
        return typed;
    };
    let (mut sender, mut receiver) = session.split();
    let doc = Doc::new();
    loop {
        let frames: Vec<_> = (0..4)
            .map(|_| {
                let word = format!("<{name}.{}>", typed.sent.len());
                let mut txn = doc.transact_mut();
                txn.get_or_insert_text("text").push(&mut txn, &word);
                typed.sent.push(word);
                up::update(typed.sent.len() as u64, txn.encode_update_v1())
            })
            .collect();
        // When the server is killed, the stream tells.
        sender.send(frames).await.ok();
        while typed.sent.len() > typed.acked + 32 {
            match receiver.next().await {
                Ok(Some(Down::Ack(ack))) => {
                    typed.acked = usize::try_from(ack.update_id).unwrap();
                    typed.sequence = ack.sequence;
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return typed,
            }
        }
    }
}

/// The words of a text, each once.
fn words(text: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for word in text.split_inclusive('>') {
        assert!(word.starts_with('<') && word.ends_with('>'), "a part of a word: {word:?}");
        assert!(words.insert(word.to_owned()), "{word} is there twice");
    }
    words
}

/// What a server that has just been started has of each document.
async fn stored(server: &ServerProcess) -> BTreeMap<String, (BTreeSet<String>, u64)> {
    let connection = channel(server.address()).await;
    let mut client = DocumentServiceClient::new(connection.clone());
    let list = client.list_documents(ListDocumentsRequest::default()).await.unwrap();
    let mut stored = BTreeMap::new();
    for document in list.into_inner().documents {
        let mut reader =
            Participant::open(connection.clone(), Door::Edit, &document.id).await.unwrap();
        reader.wait_for_sync().await;
        stored.insert(document.id, (words(&reader.text()), document.sequence));
    }
    stored
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_edit_survives_a_kill_at_any_moment() {
    let seed = setting("COWRITE_SEED", u64::from(rand::random::<u32>()));
    let rounds = setting("COWRITE_KILL_ROUNDS", 60);
    eprintln!("seed={seed} rounds={rounds}: replay with COWRITE_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let settings = [("ROOM__CHECKPOINT_UPDATES", "50"), ("LOG__SEGMENT_BYTES", "1048576")];
    let mut sent: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut acked: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut sequences: BTreeMap<String, u64> = BTreeMap::new();
    let (mut count, mut unacked_kept) = (0, 0);
    for round in 0..=rounds {
        let server = ServerProcess::start(directory.path(), &settings).await;
        let stored = stored(&server).await;
        for (document, acked) in &acked {
            let (there, sequence) = stored.get(document).unwrap_or_else(|| {
                panic!("round {round}: {document} is gone, with {} words", acked.len())
            });
            let lost: Vec<_> = acked.difference(there).take(5).collect();
            assert!(lost.is_empty(), "round {round}: {document} has lost {lost:?}");
            assert!(*sequence >= sequences[document], "round {round}: {document} went back");
        }
        for (document, (there, _)) in &stored {
            let nobodys: Vec<_> = there.difference(&sent[document]).take(5).collect();
            assert!(nobodys.is_empty(), "round {round}: {document} has {nobodys:?} of nobody");
            // What is there now was seen, and has to stay.
            let known = acked.entry(document.clone()).or_default();
            unacked_kept += there.difference(known).count();
            known.extend(there.iter().cloned());
        }
        if round == rounds {
            server.kill().await;
            break;
        }
        let tasks = Tasks::new();
        let connections = [channel(server.address()).await, channel(server.address()).await];
        let typists: Vec<_> = (0..4)
            .map(|i| {
                // Some documents are there from the first round, and one is new.
                let fresh = format!("round/{round}");
                let document = if i == 3 { fresh } else { format!("old/{}", i % DOCUMENTS) };
                let (connection, door) = (connections[i % 2].clone(), Door::ALL[i / 2]);
                tasks.spawn(typist(connection, door, document, format!("{round}.{i}")))
            })
            .collect();
        tokio::time::sleep(Duration::from_micros(random.random_range(5_000..120_000))).await;
        server.kill().await;
        for typist in typists {
            let Typed { document, sent: words, acked: done, sequence } = typist.await.unwrap();
            count += done;
            let known = acked.entry(document.clone()).or_default();
            known.extend(words[..done].iter().cloned());
            if known.is_empty() {
                acked.remove(&document);
            }
            let highest = sequences.entry(document.clone()).or_default();
            *highest = sequence.max(*highest);
            sent.entry(document).or_default().extend(words);
        }
    }
    eprintln!("{count} acknowledged words, {unacked_kept} kept without, in {rounds} rounds");
    assert!(count as u64 > rounds * 4, "the typists typed: {count}");
}

/// Shows that what `of` sent before has passed its room: an announcement that goes the same way.
async fn passed_through_the_room(of: &mut Participant, watcher: &mut Participant, mark: &str) {
    of.announce(mark).await;
    let id = of.client_id();
    watcher.wait_until("the mark", |p| p.sees(id) == Some(mark)).await;
}

#[tokio::test]
async fn nobody_is_told_of_an_edit_before_it_is_durable() {
    let log = FaultyLog::new();
    let server = TestServer::with_log(log.clone(), |_| {}).await;
    for door in Door::ALL {
        let document = format!("{door:?}");
        let mut writer = Participant::join(&server, door, &document).await;
        let mut reader = Participant::join(&server, Door::Edit, &document).await;
        reader.wait_for_sync().await;
        writer.wait_for_sync().await;
        let appends = log.appends();
        log.hold_appends();
        writer.type_text("not yet").await;
        eventually("the append", || log.appends() > appends).await;
        // Through the same room and the same outboxes, behind what could have been told.
        passed_through_the_room(&mut writer, &mut reader, "1").await;
        passed_through_the_room(&mut reader, &mut writer, "2").await;
        assert_eq!((writer.acked, reader.updates, &reader.text()[..]), (0, 0, ""));
        // Nor is it shown to somebody who comes now.
        let (address, id) = (server.address(), document.clone());
        let tasks = Tasks::new();
        let late = tasks.spawn(async move {
            let connection = channel(address).await;
            let mut late = Participant::open(connection, Door::Edit, &id).await.unwrap();
            late.wait_for_sync().await;
            late.text()
        });
        passed_through_the_room(&mut writer, &mut reader, "3").await;
        assert!(!late.is_finished(), "a state that is not durable was shown");
        log.release_appends();
        writer.wait_for_acks().await;
        reader.wait_for_text("not yet").await;
        assert_eq!(late.await.unwrap(), "not yet");
    }
}

#[tokio::test]
async fn when_an_append_fails_sessions_come_back_and_nothing_is_lost_or_doubled() {
    for kept in [false, true] {
        for door in Door::ALL {
            let log = FaultyLog::new();
            let server = TestServer::with_log(log.clone(), |_| {}).await;
            let mut writer = Participant::join(&server, door, "notes").await;
            let mut reader = Participant::join(&server, Door::Edit, "notes").await;
            writer.type_text("one ").await;
            writer.wait_for_acks().await;
            reader.wait_for_text("one ").await;
            log.fail_appends(kept);
            let acked = writer.acked;
            let update = writer.append_unsent("two");
            writer.send_update(update.clone()).await.unwrap();
            for participant in [&mut writer, &mut reader] {
                let refusal = refused(&participant.wait_for_end().await.expect("a refusal"));
                assert_eq!(refusal.code, Code::Unavailable);
                assert_eq!(refusal.reason, "LOG_UNAVAILABLE");
                let closing = participant.closing.as_ref().unwrap();
                assert_eq!(closing.reason(), ErrorReason::LogUnavailable);
                assert!(closing.retry_after.is_some(), "coming back helps");
            }
            assert_eq!(writer.acked, acked, "what failed was not acknowledged");
            assert_eq!(reader.text(), "one ", "what failed was not shown");
            log.heal();
            let came = reader.come_back(server.channel(), Door::Edit, "notes", 1).await;
            let mut reader = came.unwrap();
            let came = writer.come_back(server.channel(), door, "notes", 1).await;
            let mut writer = came.unwrap();
            writer.send_update(update).await.unwrap();
            writer.wait_for_acks().await;
            reader.wait_for_text("one two").await;
            let mut newcomer = Participant::join(&server, Door::Edit, "notes").await;
            newcomer.wait_for_text("one two").await;
            assert_converged([
                ("the writer", writer.doc()),
                ("the reader", reader.doc()),
                ("somebody new", newcomer.doc()),
            ]);
            let metrics = server.metrics().encode().unwrap();
            assert!(
                metrics.contains("cowrite_room_restarts_total{cause=\"append\"} 1"),
                "{metrics}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn native_clients_ride_over_a_log_that_fails_again_and_again() {
    let log = FaultyLog::new();
    let server = TestServer::with_log(log.clone(), |_| {}).await;
    let client = cowrite_client::Client::connect(server.url()).await.unwrap();
    let writer = client.document("notes", cowrite_client::DocumentOptions::default());
    cowrite_tests::soon("the initial state", writer.wait_until_synced()).await.unwrap();
    let mut expected = String::new();
    for i in 0..4 {
        let appends = log.appends();
        log.fail_appends(i % 2 == 0);
        let word = format!("{i} ");
        writer.edit(|txn| txn.get_or_insert_text("text").push(txn, &word));
        expected.push_str(&word);
        eventually("an append that fails", || log.appends() > appends).await;
        log.heal();
        cowrite_tests::soon("the edit to be saved", writer.wait_until_saved()).await.unwrap();
    }
    let mut newcomer = Participant::join(&server, Door::Edit, "notes").await;
    newcomer.wait_for_text(&expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_documents_with_checkpoints_survive_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let start = async || {
        TestServer::embedded(directory.path(), |config| {
            config.room.checkpoint_updates = 5;
            config.room.idle_timeout = Duration::from_millis(20);
            config.log.segment_bytes = 1 << 20;
            config.log.history_retention = Duration::ZERO;
            config.log.compact_interval = Duration::from_secs(1);
        })
        .await
    };
    let mut expected: BTreeMap<String, String> = BTreeMap::new();
    for generation in 0..4 {
        let server = start().await;
        for (document, text) in &expected {
            let mut reader = Participant::join(&server, Door::Edit, document).await;
            reader.wait_for_sync().await;
            assert_eq!(&reader.text(), text, "{document} in generation {generation}");
        }
        for i in 0..30 {
            let document = format!("d/{i}");
            let mut writer = Participant::join(&server, Door::Edit, &document).await;
            writer.wait_for_sync().await;
            for key in 0..=i {
                writer.type_text(&format!("{generation}.{key} ")).await;
                if key % 3 == 0 {
                    writer.wait_for_acks().await;
                }
            }
            writer.wait_for_acks().await;
            expected.insert(document, writer.text());
            if i % 2 == 0 {
                writer.leave().await;
            }
        }
        let checkpoints = &server.metrics().log.checkpoints;
        eventually("checkpoints", || checkpoints.get() > 10).await;
        assert_eq!(server.metrics().room.checkpoint_mismatches.get(), 0);
        server.stop().await;
    }
}

#[tokio::test]
async fn an_edit_that_was_sent_twice_is_there_once() {
    let server = TestServer::start().await;
    let mut writer = Participant::join(&server, Door::Edit, "notes").await;
    let update: Bytes = writer.append_unsent("once");
    for _ in 0..5 {
        writer.send_update(update.clone()).await.unwrap();
    }
    writer.wait_for_acks().await;
    let mut reader = Participant::join(&server, Door::Edit, "notes").await;
    reader.wait_for_sync().await;
    assert_eq!(reader.text(), "once");
    let mut client = DocumentServiceClient::new(server.channel());
    let list = client.list_documents(ListDocumentsRequest::default()).await.unwrap();
    assert_eq!(list.into_inner().documents[0].sequence, 1, "nor is it stored twice");
}
