//! Promise: an import takes each document as a whole or not at all, and says which; an export is
//! what an import takes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails where something is not as it should be"
)]

use std::{collections::BTreeMap, fs, path::Path};

use bytes::Bytes;
use cowrite_server::{
    exchange::{Outcome, Store, StoreError, file_name, prepare},
    ids::DocumentId,
    log::AppendError,
};
use cowrite_tests::{
    Door, FaultyLog, Participant, ServerProcess, channel, cowrite, eventually, soon, text_update,
};
use futures_util::FutureExt as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};

const BYTES_MAX: usize = 1 << 20;

/// Runs the command to its end: its exit code, what it wrote, and what it complained of.
async fn run(words: &[&str]) -> (Option<i32>, Vec<u8>, String) {
    let output = soon("the end of the command", cowrite(words).output()).await.unwrap();
    let complaints = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), output.stdout, complaints)
}

async fn succeed(words: &[&str]) -> String {
    let (code, said, complaints) = run(words).await;
    assert_eq!(code, Some(0), "{words:?}: {complaints}");
    String::from_utf8(said).unwrap()
}

async fn fail(words: &[&str]) -> String {
    let (code, said, complaints) = run(words).await;
    assert_eq!(code, Some(1), "{words:?}: {}", String::from_utf8_lossy(&said));
    complaints
}

fn id(text: &str) -> DocumentId {
    DocumentId::parse(text).unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A directory as an export makes it.
fn exported(directory: &Path, documents: usize) -> BTreeMap<String, Bytes> {
    fs::create_dir(directory).unwrap();
    let mut expected = BTreeMap::new();
    for n in 0..documents {
        let name = file_name(&id(&format!("notes/{n:04}")));
        let update = text_update(&format!("document {n} {}", "abc ".repeat(n % 500)));
        fs::write(directory.join(&name), &update).unwrap();
        expected.insert(name, update);
    }
    expected
}

fn files(directory: &Path) -> BTreeMap<String, Bytes> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let files = entries.map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read(entry.path()).unwrap().into())
    });
    files.collect()
}

#[tokio::test]
async fn what_was_exported_is_imported_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let expected = exported(&at("first"), 20);
    let (first, second, data) = (at("first"), at("second"), at("data"));
    let words = ["import", "--from", "export", path(&first), "--data", path(&data)];
    let dry = succeed(&[&words[..], &["--dry-run"]].concat()).await;
    assert!(dry.contains("20 imported") && !data.exists(), "{dry}");
    let said = succeed(&words).await;
    assert!(said.contains("\n20 imported, 0 merged, 0 unchanged, 0 refused\n"), "{said}");
    succeed(&["export", "--all", "--data", path(&data), "--out", path(&second)]).await;
    assert_eq!(files(&second), expected);
    let said = succeed(&words).await;
    assert!(said.contains("\n0 imported, 0 merged, 20 unchanged, 0 refused\n"), "{said}");
    // Nothing that is there is overwritten.
    let failed = ["export", "--all", "--data", path(&data), "--out", path(&second)];
    assert!(fail(&failed).await.contains("notes/0007"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_server_takes_and_gives_documents_and_its_directory_is_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let update = text_update("hello");
    fs::write(at("update"), &update).unwrap();
    let server = ServerProcess::start(&at("data"), &[]).await;
    let (url, file) = (server.url(), at("update"));
    let into = ["import", "--document", "notes/1", path(&file), "--server", &url];
    let said = succeed(&[&into[..], &["--dry-run"]].concat()).await;
    assert!(said.starts_with("imported "), "{said}");
    assert!(succeed(&["documents", "--server", &url]).await.lines().count() == 1);
    assert!(succeed(&into).await.starts_with("imported "));
    assert!(succeed(&into).await.starts_with("unchanged "));
    let mut reader =
        Participant::open(channel(server.address()).await, Door::Edit, "notes/1").await.unwrap();
    reader.wait_for_text("hello").await;
    // A history of its own is not merged unasked.
    fs::write(at("other"), text_update("HELLO")).unwrap();
    let other = at("other");
    let into = ["import", "--document", "notes/1", path(&other), "--server", &url];
    assert!(fail(&into).await.contains("--merge"));
    assert!(succeed(&[&into[..], &["--merge"]].concat()).await.starts_with("merged "));
    reader.wait_until("both texts", |reader| reader.text().len() == 10).await;
    let from = ["export", "--document", "notes/1", "--server", &url];
    let (code, gave, complaints) = run(&from).await;
    assert_eq!(code, Some(0), "{complaints}");
    let from = ["export", "--document", "notes/2", "--server", &url];
    assert!(fail(&from).await.contains("no document notes/2"));
    // What is larger than an edit may be goes in when the server does not run.
    fs::write(at("large"), text_update(&"x".repeat(1 << 20))).unwrap();
    let large = at("large");
    let words = ["import", "--document", "large", path(&large)];
    assert!(fail(&[&words[..], &["--server", &url]].concat()).await.contains("update_bytes_max"));
    let data = at("data");
    let offline = [&words[..], &["--data", path(&data)]].concat();
    assert!(fail(&offline).await.contains("in use by another process"));
    server.kill().await;
    assert!(succeed(&offline).await.starts_with("imported "));
    let (_, kept, _) = run(&["export", "--document", "notes/1", "--data", path(&data)]).await;
    assert_eq!(kept, gave);
}

#[tokio::test]
async fn what_is_refused_is_named_and_the_others_are_imported() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("source");
    exported(&source, 3);
    fs::write(source.join("cut.yjs"), &text_update("hello")[..5]).unwrap();
    fs::write(source.join("my doc.yjs"), text_update("hello")).unwrap();
    let data = directory.path().join("data");
    let words = ["import", "--from", "export", path(&source), "--data", path(&data)];
    let (code, said, complaints) = run(&words).await;
    let said = String::from_utf8(said).unwrap();
    assert_eq!(code, Some(1));
    assert!(said.contains("\n3 imported, 0 merged, 0 unchanged, 2 refused\n"), "{said}");
    assert!(complaints.contains(r#""cut": not a Yjs v1 update"#), "{complaints}");
    assert!(complaints.contains(r#""my doc": the document id has a character"#), "{complaints}");
    let (code, said, _) = run(&[&words[..], &["--escape-names", "--prefix", "a/"]].concat()).await;
    let said = String::from_utf8(said).unwrap();
    assert!(code == Some(1) && said.contains("a/my~20doc "), "{said}");
    // A path that is wrong makes no directory.
    let nowhere = directory.path().join("nowhere");
    let words = ["import", "--from", "y-leveldb", path(&source), "--data", path(&nowhere)];
    assert!(fail(&words).await.contains("LOCK"));
    assert!(!nowhere.exists());
    let words = ["export", "--all", "--data", path(&nowhere), "--out", path(&source)];
    assert!(fail(&words).await.contains("is no data directory"));
}

#[tokio::test]
async fn an_import_that_is_killed_leaves_no_part_of_a_document_and_can_be_started_again() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let documents = 400;
    let expected = exported(&at("source"), documents);
    let (source, data, everything) = (at("source"), at("data"), at("all"));
    let words = ["import", "--from", "export", path(&source), "--data", path(&data)];
    let mut announced = 0;
    for (round, lines) in [1, 37, 90].into_iter().enumerate() {
        let mut child = cowrite(&words).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = Vec::new();
        while said.len() < announced + lines {
            said.extend(soon("a line", stdout.next_line()).await.unwrap());
        }
        child.kill().await.unwrap();
        while let Some(line) = soon("the last lines", stdout.next_line()).await.unwrap() {
            said.push(line);
        }
        announced = said.len();
        assert!(announced < documents, "it was not killed in the middle");
        let out = at(&format!("out{round}"));
        succeed(&["export", "--all", "--data", path(&data), "--out", path(&out)]).await;
        let kept = files(&out);
        for line in &said {
            let name = line.split_whitespace().last().unwrap();
            let name = file_name(&id(name));
            assert_eq!(kept.get(&name), Some(&expected[&name]), "{line}");
        }
        for (name, state) in &kept {
            // The name may be there already; of the content there is all or nothing.
            assert!(*state == expected[name] || state[..] == [0, 0], "{name}: {state:?}");
        }
    }
    let said = succeed(&words).await;
    let unchanged = said.lines().filter(|line| line.starts_with("unchanged ")).count();
    assert!(unchanged >= announced, "{unchanged} of {announced}: {said}");
    succeed(&["export", "--all", "--data", path(&data), "--out", path(&everything)]).await;
    assert_eq!(files(&everything), expected);
}

#[tokio::test]
async fn a_disk_that_fails_stops_the_import_and_the_next_one_finishes_it() {
    for kept in [false, true] {
        let log = FaultyLog::new();
        let hello = prepare(&[text_update("hello")], BYTES_MAX).unwrap();
        let store =
            Store { log: &*log, document_bytes_max: BYTES_MAX, merge: false, dry_run: false };
        assert_eq!(store.store(&id("one"), &hello).await.unwrap(), Outcome::Imported);
        log.fail_appends(kept);
        let failed = store.store(&id("two"), &hello).await;
        assert!(matches!(failed, Err(StoreError::Log(AppendError::Unavailable))), "{failed:?}");
        log.heal();
        assert_eq!(store.store(&id("one"), &hello).await.unwrap(), Outcome::Unchanged);
        assert_eq!(store.store(&id("two"), &hello).await.unwrap(), Outcome::Imported);
        assert_eq!(store.store(&id("two"), &hello).await.unwrap(), Outcome::Unchanged);
        // What is not durable is not said to be imported.
        log.hold_appends();
        let three = id("three");
        let mut storing = Box::pin(store.store(&three, &hello));
        eventually("the append", || {
            assert!((&mut storing).now_or_never().is_none(), "it did not wait");
            log.appends() > 0
        })
        .await;
        log.release_appends();
        assert_eq!(soon("the import", storing).await.unwrap(), Outcome::Imported);
    }
}
