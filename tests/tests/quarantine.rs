//! Promise: a document that cannot be loaded harms nobody else, is refused with a reason, and comes
//! back with everything but the records that are to blame.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cowrite_server::{
    ids::{DocumentId, Epoch, Principal, SessionId},
    log::{self, Append, NewRecord},
    metrics::Metrics,
};
use cowrite_tests::{
    Door, Participant, RawSession, ServerProcess, channel, cowrite, http_get, join, refused, soon,
    text_update,
};

/// Puts records into the log of a server that is not running, as if the wall had let them in.
async fn forge(data: &Path, document: &str, records: &[(&str, Bytes)]) {
    let config = log::Config { directory: data.to_owned(), ..log::Config::default() };
    let (log, _) = log::open(&config, Metrics::new().log).unwrap();
    let document = DocumentId::parse(document).unwrap();
    log.create(&document, Epoch::random()).await.unwrap();
    let record = |(principal, update): &(&str, Bytes)| NewRecord {
        principal: Principal::new(principal).unwrap(),
        session: SessionId::from_u64(7),
        update: update.clone(),
    };
    let updates = records.iter().map(record).collect();
    log.append(Append { document, time_ms: 1_000_000, updates }).await.unwrap();
    log.close().await;
}

/// One struct of client 9 behind another one that is nowhere.
fn incomplete() -> Bytes {
    Bytes::from_static(&[1, 1, 9, 5, 0x84, 9, 4, 1, b'x', 0])
}

fn number(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Shared types in shared types, far deeper than the wall lets in, and their deletion, which no stack
/// bears.
fn bottomless() -> [Bytes; 2] {
    let levels = 200_000;
    let mut nested = vec![1];
    number(&mut nested, levels);
    nested.extend([9, 0]);
    for level in 0..levels {
        match level.checked_sub(1) {
            None => nested.extend([7, 1, 1, b'r', 0]),
            Some(outer) => {
                nested.extend([7, 0, 9]);
                number(&mut nested, outer);
                nested.push(0);
            }
        }
    }
    nested.push(0);
    [nested.into(), Bytes::from_static(&[0, 1, 9, 1, 0, 1])]
}

async fn run(words: &[&str]) -> (Option<i32>, String) {
    let output = soon("the end of the command", cowrite(words).output()).await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

async fn reason(server: &ServerProcess, document: &str) -> String {
    let channel = channel(server.address()).await;
    match RawSession::open(channel, Door::Edit, join(document)).await {
        Ok(_) => "joined".to_owned(),
        Err(status) => refused(&status).reason,
    }
}

async fn reader(server: &ServerProcess) -> Participant {
    Participant::open(channel(server.address()).await, Door::Edit, "notes/bad").await.unwrap()
}

async fn quarantined(server: &ServerProcess) -> bool {
    let metrics = http_get(server.admin(), "/metrics").await;
    metrics.text().lines().any(|line| line == "cowrite_rooms_quarantined 1")
}

#[tokio::test]
async fn a_poisoned_document_is_refused_alone_and_comes_back_without_the_bad_record() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    fs::create_dir(&data).unwrap();
    let good = [("alice", text_update("good ")), ("bob", text_update("words "))];
    let poison = ("mallory", incomplete());
    let records = [good[0].clone(), poison, good[1].clone()];
    forge(&data, "notes/bad", &records).await;
    forge(&data, "notes/fine", &good).await;

    #[expect(clippy::disallowed_methods, reason = "real time is what is asserted")]
    let started = Instant::now();
    let server = ServerProcess::start(&data, &[]).await;
    assert!(started.elapsed() < Duration::from_secs(5), "ready after {:?}", started.elapsed());
    assert_eq!(reason(&server, "notes/bad").await, "DOCUMENT_QUARANTINED");
    assert_eq!(reason(&server, "notes/fine").await, "joined");
    assert!(quarantined(&server).await, "an alarm");
    server.kill().await;

    // It is known at once the next time.
    let mut server = ServerProcess::start(&data, &[]).await;
    assert!(quarantined(&server).await);
    assert_eq!(reason(&server, "notes/bad").await, "DOCUMENT_QUARANTINED");
    let path = data.to_str().unwrap();
    let (code, said) = run(&["repair", "--data", path, "list"]).await;
    assert_eq!(code, Some(1), "the server has the data: {said}");
    server.terminate().await;
    assert_eq!(server.wait().await, Some(0));

    let (code, said) = run(&["repair", "--data", path, "list"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("notes/bad\tsince "), "{said}");
    let (code, said) = run(&["repair", "--data", path, "inspect", "notes/bad"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("2\t1970-01-01T00:16:40.000Z\t\"mallory\"\t0000000000000007"), "{said}");
    assert!(said.contains("1 of 3 records cannot be taken"), "{said}");
    let (code, said) = run(&["repair", "--data", path, "release", "notes/bad"]).await;
    assert_eq!(code, Some(1), "nothing is thrown away without being told: {said}");
    let words = ["repair", "--data", path, "release", "notes/bad", "--without-bad"];
    let (code, said) = run(&words).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("notes/bad is out of quarantine"), "{said}");

    let server = ServerProcess::start(&data, &[]).await;
    assert!(!quarantined(&server).await);
    let mut reader = reader(&server).await;
    let has_both =
        |reader: &Participant| reader.text().contains("good ") && reader.text().contains("words ");
    reader.wait_until("both good records", has_both).await;
    server.kill().await;
    // What was thrown away is in a file, from which the document can be made anew.
    let backup = fs::read_dir(data.join("repair")).unwrap().next().unwrap().unwrap().path();
    let words = ["repair", "--data", path, "restore", backup.to_str().unwrap()];
    let (code, said) = run(&words).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("made anew with 2 records"), "{said}");
}

#[tokio::test]
async fn a_document_that_ends_the_process_is_not_loaded_for_ever() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    fs::create_dir(&data).unwrap();
    let [nested, deletion] = bottomless();
    let records = [("alice", text_update("kept")), ("mallory", nested), ("mallory", deletion)];
    forge(&data, "notes/bad", &records).await;
    for attempt in 1..=3 {
        let mut server = ServerProcess::start(&data, &[]).await;
        assert_eq!(reason(&server, "notes/bad").await, "", "the connection breaks");
        assert_eq!(server.wait().await, None, "attempt {attempt}: a signal");
    }
    let server = ServerProcess::start(&data, &[]).await;
    assert!(quarantined(&server).await);
    assert_eq!(reason(&server, "notes/bad").await, "DOCUMENT_QUARANTINED");
    server.kill().await;
    let path = data.to_str().unwrap();
    let words = ["repair", "--data", path, "release", "notes/bad", "--without-bad"];
    let (code, said) = run(&words).await;
    assert_eq!(code, Some(0), "{said}");
    let server = ServerProcess::start(&data, &[]).await;
    reader(&server).await.wait_for_text("kept").await;
}
