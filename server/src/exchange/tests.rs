//! Documents from elsewhere: what is sound is stored as a whole, what is not is refused by name.

use std::{collections::BTreeMap, fs, path::Path};

use bytes::Bytes;
use rusty_leveldb::{DB, Options, compressor};
use yrs::{Array, Doc, GetString, Map, ReadTxn, StateVector, Text, Transact, Update};
use yrs::{updates::decoder::Decode, updates::encoder::Encode};

use super::*;
use crate::{
    ids::{DocumentId, DocumentIdError, Epoch},
    log::{MemoryLog, UpdateLog},
    metrics::Metrics,
};

const BYTES_MAX: usize = 1 << 20;

fn id(text: &str) -> DocumentId {
    DocumentId::parse(text).unwrap()
}

/// A text typed by one client, letter by letter.
fn typed(client: u64, text: &str) -> Vec<Bytes> {
    let doc = Doc::with_client_id(client);
    let root = doc.get_or_insert_text("content");
    let letters = text.chars().enumerate();
    let updates = letters.map(|(at, letter)| {
        let mut txn = doc.transact_mut();
        root.insert(&mut txn, at as u32, &letter.to_string());
        txn.encode_update_v1().into()
    });
    updates.collect()
}

/// The whole of some updates as one.
fn whole(updates: &[Bytes]) -> Bytes {
    prepare(updates, BYTES_MAX).unwrap().state().clone()
}

fn content(state: &[u8]) -> String {
    let doc = Doc::new();
    let root = doc.get_or_insert_text("content");
    let mut txn = doc.transact_mut();
    txn.apply_update(Update::decode_v1(state).unwrap()).unwrap();
    root.get_string(&txn)
}

fn all(source: &mut dyn Source) -> Result<Vec<Found>, SourceError> {
    let mut found = Vec::new();
    while let Some(one) = source.next()? {
        found.push(one);
    }
    Ok(found)
}

/// The documents of a source, which are all sound, as text.
fn texts(source: &mut dyn Source) -> Result<BTreeMap<String, String>, SourceError> {
    let found = all(source)?.into_iter();
    let read = found.map(|one| (one.name, content(&whole(&one.content.unwrap()))));
    Ok(read.collect())
}

fn key(parts: &[&str], number: Option<u32>) -> Vec<u8> {
    let mut key = Vec::new();
    for part in parts {
        key.push(0);
        let mut length = part.len();
        while length >= 0x80 {
            key.push(length as u8 | 0x80);
            length >>= 7;
        }
        key.push(length as u8);
        key.extend_from_slice(part.as_bytes());
    }
    if let Some(number) = number {
        key.push(1);
        key.extend_from_slice(&number.to_be_bytes());
    }
    key
}

/// A directory as y-leveldb writes it, by another implementation of LevelDB.
struct Written {
    database: DB,
}

impl Written {
    fn new(path: &Path, packed: bool) -> Self {
        let mut options = Options { write_buffer_size: 64 << 10, ..Options::default() };
        if packed {
            options.compressor = 1;
        }
        options.max_file_size = 128 << 10;
        assert_eq!(<compressor::SnappyCompressor as rusty_leveldb::CompressorId>::ID, 1);
        Self { database: DB::open(path, options).unwrap() }
    }

    fn put(&mut self, name: &str, first: u32, updates: &[Bytes]) {
        for (number, update) in (first..).zip(updates) {
            self.database.put(&key(&["v1", name, "update"], Some(number)), update).unwrap();
        }
        self.database.put(&key(&["v1_sv", name], None), b"state vector").unwrap();
        self.database.put(&key(&["v1", name, "meta", "k"], None), b"meta").unwrap();
    }

    fn remove(&mut self, name: &str, numbers: std::ops::Range<u32>) {
        for number in numbers {
            self.database.delete(&key(&["v1", name, "update"], Some(number))).unwrap();
        }
    }

    fn close(mut self) {
        self.database.close().unwrap();
    }
}

/// Documents of which some are merged to one update, as y-leveldb does, in enough tables.
fn y_leveldb(path: &Path, packed: bool) -> BTreeMap<String, String> {
    let mut written = Written::new(path, packed);
    let mut expected = BTreeMap::new();
    let gone = typed(900, "gone");
    written.put("gone", 0, &gone);
    written.put("again", 0, &[whole(&typed(901, "old"))]);
    for n in 0..120 {
        // Names of more than 127 bytes have a length of two.
        let name = format!("notes/{n}{}", "x".repeat(n as usize % 140));
        let text = format!("document {n} {}", "abc ".repeat(n as usize % 40));
        let updates = typed(n + 1, &text);
        written.put(&name, 0, &updates);
        if n % 3 == 0 {
            let count = updates.len() as u32;
            written.put(&name, count, &[whole(&updates)]);
            written.remove(&name, 0..count);
        }
        expected.insert(name, text);
    }
    // What was removed is not there, and of what was written again only the newest.
    written.remove("gone", 0..gone.len() as u32);
    written.put("again", 0, &[whole(&typed(902, "new"))]);
    expected.insert("again".to_owned(), "new".to_owned());
    written.close();
    expected
}

#[test]
fn a_directory_of_y_leveldb_is_read_from_its_log_and_its_tables_and_left_as_it_is() {
    for packed in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let expected = y_leveldb(directory.path(), packed);
        let files = || {
            let entries = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap());
            entries
                .map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap()))
                .collect::<BTreeMap<_, _>>()
        };
        let before = files();
        let tables = before.keys().filter(|name| name.to_string_lossy().ends_with(".ldb"));
        assert!(tables.count() > 3, "{:?}", before.keys());
        let mut source = YLevelDb::open(directory.path(), BYTES_MAX).unwrap();
        assert_eq!(texts(&mut source).unwrap(), expected);
        assert!(before == files(), "a file has changed");
    }
}

#[test]
fn a_table_that_is_damaged_is_never_read_as_something_else() {
    let directory = tempfile::tempdir().unwrap();
    let expected = y_leveldb(directory.path(), true);
    let entries = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let table = entries.filter(|path| path.extension().is_some_and(|e| e == "ldb")).min().unwrap();
    let good = fs::read(&table).unwrap();
    let mut refused = 0;
    for at in (0..good.len()).step_by(good.len() / 50) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&table, &bad).unwrap();
        let read = YLevelDb::open(directory.path(), BYTES_MAX).and_then(|mut s| texts(&mut s));
        match read {
            // Some bytes have no meaning, such as those of filters.
            Ok(read) => assert_eq!(read, expected, "byte {at}"),
            Err(error) => {
                refused += 1;
                assert!(matches!(error, SourceError::Damaged { .. }), "{error:?}");
            }
        }
    }
    assert!(refused > 40, "{refused} of 50");
    fs::write(&table, &good[..good.len() - 1]).unwrap();
    let read = YLevelDb::open(directory.path(), BYTES_MAX).and_then(|mut s| texts(&mut s));
    assert!(matches!(read, Err(SourceError::Damaged { .. })), "{read:?}");
    fs::remove_file(&table).unwrap();
    let read = YLevelDb::open(directory.path(), BYTES_MAX).and_then(|mut s| texts(&mut s));
    assert!(matches!(read, Err(SourceError::Io { .. })), "{read:?}");
}

#[test]
fn what_is_no_directory_of_y_leveldb_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let opened = YLevelDb::open(directory.path(), BYTES_MAX);
    assert!(matches!(opened, Err(SourceError::Io { .. })), "{opened:?}");
    let mut other = Written::new(directory.path(), false);
    other.database.put(b"somebody", b"else").unwrap();
    other.close();
    let mut source = YLevelDb::open(directory.path(), BYTES_MAX).unwrap();
    let read = all(&mut source);
    assert!(matches!(read, Err(SourceError::Damaged { .. })), "{read:?}");
}

fn hocuspocus(path: &Path, rows: &[(&str, &dyn rusqlite::ToSql)]) {
    let database = rusqlite::Connection::open(path).unwrap();
    let schema =
        "CREATE TABLE documents (name varchar(255) NOT NULL, data blob NOT NULL, UNIQUE(name))";
    database.execute_batch(schema).unwrap();
    for (name, data) in rows {
        database.execute("INSERT INTO documents VALUES (?1, ?2)", (name, data)).unwrap();
    }
}

#[test]
fn a_database_of_hocuspocus_is_read_row_by_row() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db.sqlite");
    let (a, b) = (whole(&typed(1, "first")), whole(&typed(2, "second")));
    hocuspocus(&path, &[("b", &&b[..]), ("a", &&a[..]), ("c", &"text")]);
    let mut source = Hocuspocus::open(&path, BYTES_MAX).unwrap();
    let found = all(&mut source).unwrap();
    let names: Vec<_> = found.iter().map(|one| &one.name[..]).collect();
    assert_eq!(names, ["b", "a", "c"]);
    assert_eq!(found[0].content.as_ref().unwrap(), &[b]);
    assert_eq!(found[1].content.as_ref().unwrap(), &[a]);
    assert!(matches!(found[2].content, Err(Refusal::Wrong(_))), "{:?}", found[2]);
    // Of a document too much is stored.
    let mut source = Hocuspocus::open(&path, 1).unwrap();
    let found = all(&mut source).unwrap();
    assert!(matches!(found[0].content, Err(Refusal::TooLarge { .. })), "{:?}", found[0]);
}

#[test]
fn what_is_no_database_of_hocuspocus_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db.sqlite");
    let refused = |path: &Path| {
        let error = Hocuspocus::open(path, BYTES_MAX).unwrap_err();
        assert!(matches!(error, SourceError::Database { .. }), "{error:?}");
        std::error::Error::source(&error).unwrap().to_string()
    };
    refused(&path);
    assert!(!path.exists(), "it was made");
    fs::write(&path, "this is a text and no database, and it is long enough to be one").unwrap();
    assert!(refused(&path).contains("not a database"));
    fs::remove_file(&path).unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("CREATE TABLE notes (name, data)").unwrap();
    assert!(refused(&path).contains("no such table: documents"));
}

#[test]
fn updates_are_put_together_in_whatever_order_they_are_stored() {
    let mut updates = typed(1, "hello");
    updates.reverse();
    assert_eq!(content(&whole(&updates)), "hello");
}

#[test]
fn what_is_stored_is_refused_when_it_is_cut_incomplete_too_large_or_of_version_2() {
    let updates = typed(1, "hello");
    let state = whole(&updates);
    for cut in 0..state.len() {
        let refused = prepare(&[state.slice(..cut)], BYTES_MAX);
        assert!(matches!(refused, Err(Refusal::Malformed { .. })), "{cut}: {refused:?}");
    }
    let refused = prepare(&[&updates[..2], &updates[3..]].concat(), BYTES_MAX);
    assert!(matches!(refused, Err(Refusal::Incomplete(_))), "{refused:?}");
    // The same, as one update with what waits in it.
    let doc = Doc::with_client_id(9);
    let mut txn = doc.transact_mut();
    for update in [&updates[0], &updates[4]] {
        txn.apply_update(Update::decode_v1(update).unwrap()).unwrap();
    }
    let pending = yrs::merge_updates_v1([&updates[0][..], &updates[4][..]]).unwrap();
    let refused = prepare(&[pending.into()], BYTES_MAX);
    assert!(matches!(refused, Err(Refusal::Incomplete(_))), "{refused:?}");
    let refused = prepare(&updates, state.len() - 1);
    assert!(matches!(refused, Err(Refusal::TooLarge { .. })), "{refused:?}");
    assert!(prepare(&updates, state.len()).is_ok());
    let version_2 = Update::decode_v1(&state).unwrap().encode_v2();
    let refused = prepare(&[version_2.into()], BYTES_MAX).unwrap_err().to_string();
    assert!(refused.contains("convertUpdateFormatV2ToV1"), "{refused}");
}

#[test]
fn names_become_ids_by_the_rule_and_by_no_other() {
    let plain = Naming::default();
    assert_eq!(plain.id("notes/7").unwrap().as_str(), "notes/7");
    assert_eq!(plain.id("my doc"), Err(DocumentIdError::Character));
    let naming = Naming { prefix: "team/".to_owned(), escape: true };
    for (name, expected) in [
        ("notes/7", "team/notes/7"),
        ("my doc", "team/my~20doc"),
        // A name that is an id stays as it is.
        ("a~b", "team/a~b"),
        ("a~b é", "team/a~7Eb~20~C3~A9"),
    ] {
        assert_eq!(naming.id(name).unwrap().as_str(), expected);
    }
    assert_eq!(naming.id("a//b c"), Err(DocumentIdError::Segment));
    assert_eq!(naming.id(&" ".repeat(50)), Err(DocumentIdError::TooLong));
}

#[test]
fn the_name_of_a_file_tells_the_document_and_a_file_is_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let state = whole(&typed(1, "hello"));
    for name in ["a", "a/b", "a.yjs/b", "..a", &format!("{}x", "x/".repeat(63))] {
        write(&directory.path().join(file_name(&id(name))), &state).unwrap();
    }
    let again = write(&directory.path().join(file_name(&id("a"))), b"other").unwrap_err();
    assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
    fs::write(directory.path().join("README"), "not a document").unwrap();
    let mut source = ExportedFiles::open(directory.path(), BYTES_MAX).unwrap();
    let mut names: Vec<_> = all(&mut source).unwrap().into_iter().map(|one| one.name).collect();
    names.sort();
    let long = format!("{}x", "x/".repeat(63));
    assert_eq!(names, ["..a", "a", "a.yjs/b", "a/b", &long[..]]);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 6, "something is left over");
}

struct Target {
    log: MemoryLog,
}

impl Target {
    fn new() -> Self {
        Self { log: MemoryLog::new(Metrics::new().log) }
    }

    async fn store(
        &self,
        name: &str,
        prepared: &Prepared,
        merge: bool,
    ) -> Result<Outcome, Refusal> {
        let store = Store { log: &self.log, document_bytes_max: BYTES_MAX, merge, dry_run: false };
        store.store(&id(name), prepared).await.map_err(|error| match error {
            StoreError::Refused(refusal) => refusal,
            StoreError::Log(error) => panic!("{error}"),
        })
    }

    async fn text(&self, name: &str) -> String {
        let loaded = self.log.load(&id(name)).await.unwrap().unwrap();
        content(&whole(&loaded.tail.into_iter().map(|record| record.update).collect::<Vec<_>>()))
    }

    async fn epoch(&self, name: &str) -> Epoch {
        self.log.load(&id(name)).await.unwrap().unwrap().epoch
    }
}

fn prepared(updates: &[Bytes]) -> Prepared {
    prepare(updates, BYTES_MAX).unwrap()
}

#[tokio::test]
async fn a_document_is_stored_once_and_only_replaced_by_nothing() {
    let target = Target::new();
    let hello = typed(1, "hello");
    let stored = target.store("notes", &prepared(&hello[..3]), false).await;
    assert!(matches!(stored, Ok(Outcome::Imported)), "{stored:?}");
    let epoch = target.epoch("notes").await;
    let stored = target.store("notes", &prepared(&hello[..3]), false).await;
    assert!(matches!(stored, Ok(Outcome::Unchanged)), "{stored:?}");
    for other in [&hello[..], &typed(2, "other")] {
        let stored = target.store("notes", &prepared(other), false).await;
        assert!(matches!(stored, Err(Refusal::Exists)), "{stored:?}");
    }
    assert_eq!(target.text("notes").await, "hel");
    let stored = target.store("notes", &prepared(&hello), true).await;
    assert!(matches!(stored, Ok(Outcome::Merged)), "{stored:?}");
    assert_eq!(target.text("notes").await, "hello");
    assert_eq!(target.epoch("notes").await, epoch);
    // What is older has nothing new in it.
    let stored = target.store("notes", &prepared(&hello[..2]), false).await;
    assert!(matches!(stored, Ok(Outcome::Unchanged)), "{stored:?}");
    let stored = target.store("other", &prepared(&hello), false).await;
    assert!(matches!(stored, Ok(Outcome::Imported)), "{stored:?}");
    assert_ne!(target.epoch("other").await, epoch);
}

#[tokio::test]
async fn a_document_that_is_there_without_content_is_filled() {
    let target = Target::new();
    target.log.create(&id("notes"), Epoch::random()).await.unwrap();
    let epoch = target.epoch("notes").await;
    let stored = target.store("notes", &prepared(&typed(1, "hello")), false).await;
    assert!(matches!(stored, Ok(Outcome::Imported)), "{stored:?}");
    assert_eq!(target.text("notes").await, "hello");
    assert_eq!(target.epoch("notes").await, epoch);
    // An empty document is one as well.
    let stored = target.store("empty", &prepared(&[]), false).await;
    assert!(matches!(stored, Ok(Outcome::Imported)), "{stored:?}");
    let stored = target.store("empty", &prepared(&[]), false).await;
    assert!(matches!(stored, Ok(Outcome::Unchanged)), "{stored:?}");
}

#[tokio::test]
async fn a_merge_that_makes_a_document_too_large_is_refused() {
    let target = Target::new();
    let (one, other) = (prepared(&typed(1, "hello")), prepared(&typed(2, "hello")));
    let document_bytes_max = one.state().len() + other.state().len() / 2;
    let store = Store { log: &target.log, document_bytes_max, merge: true, dry_run: false };
    assert_eq!(store.store(&id("notes"), &one).await.unwrap(), Outcome::Imported);
    let refused = store.store(&id("notes"), &other).await;
    let refused = refused.map_err(|error| error.to_string()).unwrap_err();
    assert!(refused.contains("room.document_bytes_max"), "{refused}");
    assert_eq!(target.text("notes").await, "hello");
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_writes_nothing() {
    let target = Target::new();
    let store =
        Store { log: &target.log, document_bytes_max: BYTES_MAX, merge: false, dry_run: true };
    let hello = prepared(&typed(1, "hello"));
    assert_eq!(store.store(&id("notes"), &hello).await.unwrap(), Outcome::Imported);
    assert!(target.log.list(None, 10).is_empty());
}

#[tokio::test]
async fn a_document_with_objects_of_many_clients_is_stored_as_it_is() {
    let mut updates = Vec::new();
    for client in 1..40 {
        let doc = Doc::with_client_id(client * 7919);
        let (map, array) = (doc.get_or_insert_map("map"), doc.get_or_insert_array("array"));
        let mut txn = doc.transact_mut();
        let entries = (0..9).map(|key| (key.to_string(), yrs::Any::from(client as u32)));
        let object = yrs::Any::from(entries.collect::<std::collections::HashMap<_, _>>());
        map.insert(&mut txn, client.to_string(), object.clone());
        array.push_back(&mut txn, object);
        array.push_back(&mut txn, "deleted");
        array.remove(&mut txn, 1);
        updates.push(txn.encode_diff_v1(&StateVector::default()).into());
    }
    let target = Target::new();
    let stored = target.store("notes", &prepared(&updates), false).await;
    assert!(matches!(stored, Ok(Outcome::Imported)), "{stored:?}");
    for _ in 0..5 {
        let stored = target.store("notes", &prepared(&updates), false).await;
        assert!(matches!(stored, Ok(Outcome::Unchanged)), "{stored:?}");
    }
}
