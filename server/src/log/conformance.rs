//! What every log promises, as tests: the macro makes one suite per store.

use std::{any::Any, future::Future, sync::Arc};

use bytes::Bytes;
use futures_util::future::join_all;

use super::{
    Append, AppendError, Checkpoint, Config, LogState, MemoryLog, NewRecord, Record, UpdateLog,
    embedded::EmbeddedLog,
};
use crate::{
    ids::{DocumentId, Epoch, Principal, Sequence, SessionId},
    metrics::Metrics,
};

/// A log, and what it lives on.
pub(super) struct Store {
    log: Arc<dyn UpdateLog>,
    _home: Box<dyn Any>,
}

fn memory() -> Store {
    Store { log: Arc::new(MemoryLog::new(Metrics::new().log)), _home: Box::new(()) }
}

fn embedded() -> Store {
    let home = tempfile::tempdir().unwrap();
    Store { log: Arc::new(open(&config(home.path()))), _home: Box::new(home) }
}

fn config(directory: &std::path::Path) -> Config {
    Config { directory: directory.to_owned(), segment_bytes: 1 << 20, ..Config::default() }
}

fn open(config: &Config) -> EmbeddedLog {
    EmbeddedLog::open(config, Metrics::new().log).unwrap()
}

fn id(name: &str) -> DocumentId {
    DocumentId::parse(name).unwrap()
}

/// Updates that say their document and place.
fn append(document: &str, first: u64, count: u64) -> Append {
    let updates = (first..first + count).map(|n| NewRecord {
        principal: Principal::new(&format!("person {}", n % 3)).unwrap(),
        session: SessionId::from_u64(n),
        update: update(document, n),
    });
    Append { document: id(document), time_ms: 1000 + first, updates: updates.collect() }
}

fn update(document: &str, n: u64) -> Bytes {
    Bytes::from(format!("update {n} of {document}"))
}

/// The records that appends of [`append`] in one piece leave.
fn records(document: &str, first: u64, count: u64) -> Vec<Record> {
    let Append { time_ms, updates, .. } = append(document, first, count);
    let numbered = updates.into_iter().zip(first..);
    numbered
        .map(|(new, n)| Record {
            sequence: Sequence(n),
            time_ms,
            principal: new.principal,
            session: new.session,
            update: new.update,
        })
        .collect()
}

fn checkpoint(sequence: u64, state: &str) -> Checkpoint {
    Checkpoint { sequence: Sequence(sequence), state: Bytes::from(state.to_owned()) }
}

async fn create(log: &dyn UpdateLog, document: &str) -> Epoch {
    let epoch = Epoch::random();
    assert_eq!(log.create(&id(document), epoch).await.unwrap(), Sequence::ZERO);
    epoch
}

async fn a_created_document_is_empty_and_has_its_epoch(store: Store) {
    let epoch = create(&*store.log, "a").await;
    let loaded = store.log.load(&id("a")).await.unwrap().unwrap();
    assert_eq!((loaded.epoch, loaded.head()), (epoch, Sequence::ZERO));
    assert!(loaded.checkpoint.is_none() && loaded.tail.is_empty());
}

async fn a_document_that_was_never_created_does_not_exist(store: Store) {
    create(&*store.log, "a").await;
    assert!(store.log.load(&id("b")).await.unwrap().is_none());
    assert!(store.log.read(&id("b"), Sequence::ZERO, 1).await.unwrap().is_none());
    let refused = store.log.append(append("b", 1, 1)).await;
    assert!(matches!(refused, Err(AppendError::Unknown(b)) if b == id("b")));
    assert!(matches!(store.log.delete(&id("b")).await, Err(AppendError::Unknown(_))));
    let refused = store.log.put_checkpoint(&id("b"), checkpoint(0, "")).await;
    assert!(matches!(refused, Err(AppendError::Unknown(_))));
    assert_eq!(store.log.list(None, 10).len(), 1);
}

async fn a_document_is_not_created_twice(store: Store) {
    let epoch = create(&*store.log, "a").await;
    let refused = store.log.create(&id("a"), Epoch::random()).await;
    assert!(matches!(refused, Err(AppendError::Exists(a)) if a == id("a")));
    assert_eq!(store.log.load(&id("a")).await.unwrap().unwrap().epoch, epoch);
}

async fn what_is_appended_is_loaded_in_every_field(store: Store) {
    create(&*store.log, "a").await;
    assert_eq!(store.log.append(append("a", 1, 3)).await.unwrap(), Sequence(3));
    assert_eq!(store.log.append(append("a", 4, 1)).await.unwrap(), Sequence(4));
    let loaded = store.log.load(&id("a")).await.unwrap().unwrap();
    assert_eq!(loaded.tail, [records("a", 1, 3), records("a", 4, 1)].concat());
}

async fn calls_take_effect_in_order_without_being_polled_and_when_dropped(store: Store) {
    let log = &store.log;
    drop(log.create(&id("a"), Epoch::random()));
    drop(log.append(append("a", 1, 1)));
    let second = log.append(append("a", 2, 2));
    let deleted = log.delete(&id("a"));
    let refused = log.append(append("a", 4, 1));
    let epoch = Epoch::random();
    let created = log.create(&id("a"), epoch);
    let again = log.append(append("a", 1, 2));
    assert_eq!(again.await.unwrap(), Sequence(2));
    assert_eq!(created.await.unwrap(), Sequence::ZERO);
    assert!(matches!(refused.await, Err(AppendError::Unknown(_))));
    assert_eq!(deleted.await.unwrap(), Sequence(3));
    assert_eq!(second.await.unwrap(), Sequence(3));
    let loaded = log.load(&id("a")).await.unwrap().unwrap();
    assert_eq!((loaded.epoch, loaded.tail), (epoch, records("a", 1, 2)));
}

async fn documents_do_not_share_sequences(store: Store) {
    let names: Vec<String> = (0..20).map(|n| format!("doc/{n}")).collect();
    join_all(names.iter().map(|name| create(&*store.log, name))).await;
    let mut appending = Vec::new();
    for n in 1..=25 {
        for name in &names {
            appending.push((n, store.log.append(append(name, n, 1))));
        }
    }
    for (n, appending) in appending {
        assert_eq!(appending.await.unwrap(), Sequence(n));
    }
    for name in &names {
        let loaded = store.log.load(&id(name)).await.unwrap().unwrap();
        let expected: Vec<Record> = (1..=25).flat_map(|n| records(name, n, 1)).collect();
        assert_eq!(loaded.tail, expected);
    }
}

async fn a_deleted_document_is_gone_and_can_be_created_with_a_new_history(store: Store) {
    let log = &store.log;
    create(&**log, "a").await;
    log.append(append("a", 1, 9)).await.unwrap();
    log.put_checkpoint(&id("a"), checkpoint(5, "old")).await.unwrap();
    log.delete(&id("a")).await.unwrap();
    assert!(log.load(&id("a")).await.unwrap().is_none());
    assert!(log.list(None, 10).is_empty());
    let epoch = create(&**log, "a").await;
    assert_eq!(log.append(append("a", 1, 1)).await.unwrap(), Sequence(1));
    let loaded = log.load(&id("a")).await.unwrap().unwrap();
    assert_eq!((loaded.epoch, loaded.checkpoint, loaded.tail), (epoch, None, records("a", 1, 1)));
    assert_eq!(log.read(&id("a"), Sequence::ZERO, 9999).await.unwrap().unwrap().len(), 1);
}

async fn a_checkpoint_stands_for_the_updates_up_to_it(store: Store) {
    let log = &store.log;
    let epoch = create(&**log, "a").await;
    log.append(append("a", 1, 4)).await.unwrap();
    log.put_checkpoint(&id("a"), checkpoint(3, "abc")).await.unwrap();
    let loaded = log.load(&id("a")).await.unwrap().unwrap();
    assert_eq!((loaded.epoch, loaded.checkpoint), (epoch, Some(checkpoint(3, "abc"))));
    assert_eq!(loaded.tail, records("a", 1, 4)[3..]);
    log.put_checkpoint(&id("a"), checkpoint(4, "abcd")).await.unwrap();
    let loaded = log.load(&id("a")).await.unwrap().unwrap();
    assert_eq!((loaded.head(), loaded.tail.len()), (Sequence(4), 0));
    assert_eq!(log.append(append("a", 5, 1)).await.unwrap(), Sequence(5));
}

async fn a_big_checkpoint_is_stored_whole(store: Store) {
    let log = &store.log;
    create(&**log, "a").await;
    log.append(append("a", 1, 3)).await.unwrap();
    for (sequence, size) in [(1, 65_535), (2, 65_536), (3, 1 << 20)] {
        let state: Vec<u8> = (0..size).map(|n: u32| (n % 251) as u8).collect();
        let stored = Checkpoint { sequence: Sequence(sequence), state: state.into() };
        log.put_checkpoint(&id("a"), stored.clone()).await.unwrap();
        assert_eq!(log.load(&id("a")).await.unwrap().unwrap().checkpoint, Some(stored));
    }
}

async fn a_checkpoint_that_is_not_newer_or_knows_too_much_is_refused(store: Store) {
    let log = &store.log;
    create(&**log, "a").await;
    log.append(append("a", 1, 4)).await.unwrap();
    log.put_checkpoint(&id("a"), checkpoint(3, "abc")).await.unwrap();
    for sequence in [0, 2, 3, 5] {
        let refused = log.put_checkpoint(&id("a"), checkpoint(sequence, "no")).await;
        match refused {
            Err(AppendError::Checkpoint { checkpoint, head, .. }) => {
                assert_eq!((checkpoint, head), (Sequence(sequence), Sequence(4)));
            }
            other => panic!("{sequence}: {other:?}"),
        }
    }
    let loaded = log.load(&id("a")).await.unwrap().unwrap();
    assert_eq!(loaded.checkpoint, Some(checkpoint(3, "abc")));
}

async fn reading_gives_the_updates_after_a_sequence(store: Store) {
    let log = &store.log;
    create(&**log, "a").await;
    log.append(append("a", 1, 3)).await.unwrap();
    log.append(append("a", 4, 2)).await.unwrap();
    let all = [records("a", 1, 3), records("a", 4, 2)].concat();
    for after in 0..=5 {
        let read = log.read(&id("a"), Sequence(after), 1 << 20).await.unwrap().unwrap();
        assert_eq!(read, all[after as usize..]);
    }
    assert_eq!(log.read(&id("a"), Sequence(9), 1).await.unwrap(), Some(Vec::new()));
}

async fn reading_is_bounded_in_bytes_but_gives_at_least_one(store: Store) {
    let log = &store.log;
    create(&**log, "a").await;
    log.append(append("a", 1, 5)).await.unwrap();
    let one = update("a", 1).len();
    for (bytes_max, expected) in
        [(0, 1), (1, 1), (one, 1), (2 * one - 1, 1), (2 * one, 2), (5 * one, 5)]
    {
        let read = log.read(&id("a"), Sequence::ZERO, bytes_max).await.unwrap().unwrap();
        assert_eq!(read, records("a", 1, 5)[..expected], "{bytes_max}");
    }
}

async fn reading_before_a_checkpoint_gives_the_updates_while_they_are_kept(store: Store) {
    let log = &store.log;
    create(&**log, "a").await;
    log.append(append("a", 1, 5)).await.unwrap();
    log.put_checkpoint(&id("a"), checkpoint(4, "abcd")).await.unwrap();
    let read = log.read(&id("a"), Sequence(1), 1 << 20).await.unwrap().unwrap();
    assert_eq!(read, records("a", 1, 5)[1..]);
    log.compact().await.unwrap();
    if let Some(read) = log.read(&id("a"), Sequence(1), 1 << 20).await.unwrap() {
        assert_eq!(read, records("a", 1, 5)[1..]);
    }
    let read = log.read(&id("a"), Sequence(4), 1 << 20).await.unwrap().unwrap();
    assert_eq!(read, records("a", 1, 5)[4..]);
}

async fn documents_are_listed_in_order_in_pages(store: Store) {
    let names = ["b", "a/2", "a/10", "c", "B"];
    for (n, name) in names.into_iter().enumerate() {
        create(&*store.log, name).await;
        if n > 0 {
            store.log.append(append(name, 1, n as u64)).await.unwrap();
        }
    }
    let lines = store.log.list(None, 10);
    let listed: Vec<(&str, u64)> =
        lines.iter().map(|line| (line.document.as_str(), line.head.0)).collect();
    assert_eq!(listed, [("B", 4), ("a/10", 2), ("a/2", 1), ("b", 0), ("c", 3)]);
    assert_eq!(store.log.list(None, 2), lines[..2]);
    assert_eq!(store.log.list(Some(&id("a/10")), 2), lines[2..4]);
    assert_eq!(store.log.list(Some(&id("a/3")), 9), lines[3..]);
    assert!(store.log.list(Some(&id("c")), 9).is_empty());
}

async fn a_closed_log_takes_nothing_and_has_completed_everything(store: Store) {
    let log = &store.log;
    create(&**log, "a").await;
    assert_eq!(*log.state().borrow(), LogState::Writable);
    let appending: Vec<_> = (1..=50).map(|n| log.append(append("a", n, 1))).collect();
    log.close().await;
    for (appending, n) in appending.into_iter().zip(1..) {
        assert_eq!(appending.await.unwrap(), Sequence(n));
    }
    assert_eq!(*log.state().borrow(), LogState::Closed);
    assert!(matches!(log.append(append("a", 51, 1)).await, Err(AppendError::Unavailable)));
    assert!(matches!(log.delete(&id("a")).await, Err(AppendError::Unavailable)));
    let refused = log.put_checkpoint(&id("a"), checkpoint(1, "")).await;
    assert!(matches!(refused, Err(AppendError::Unavailable)));
    log.close().await;
}

macro_rules! conformance_suite {
    ($($store:ident)*; $tests:tt) => { $(conformance_suite!(@ $store $tests);)* };
    (@ $store:ident { $($test:ident)* }) => {
        mod $store {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test(super::$store()).await;
                }
            )*
        }
    };
}

conformance_suite!(memory embedded; {
    a_created_document_is_empty_and_has_its_epoch
    a_document_that_was_never_created_does_not_exist
    a_document_is_not_created_twice
    what_is_appended_is_loaded_in_every_field
    calls_take_effect_in_order_without_being_polled_and_when_dropped
    documents_do_not_share_sequences
    a_deleted_document_is_gone_and_can_be_created_with_a_new_history
    a_checkpoint_stands_for_the_updates_up_to_it
    a_big_checkpoint_is_stored_whole
    a_checkpoint_that_is_not_newer_or_knows_too_much_is_refused
    reading_gives_the_updates_after_a_sequence
    reading_is_bounded_in_bytes_but_gives_at_least_one
    reading_before_a_checkpoint_gives_the_updates_while_they_are_kept
    documents_are_listed_in_order_in_pages
    a_closed_log_takes_nothing_and_has_completed_everything
});

/// Runs `change` on a log that is then closed, or dropped as by a crash, and opened again.
async fn reopened<F: Future<Output = ()>>(
    clean: bool,
    change: impl Fn(Arc<EmbeddedLog>) -> F,
) -> (EmbeddedLog, tempfile::TempDir) {
    let home = tempfile::tempdir().unwrap();
    let log = Arc::new(open(&config(home.path())));
    change(Arc::clone(&log)).await;
    if clean {
        log.close().await;
    }
    drop(log);
    (open(&config(home.path())), home)
}

#[tokio::test]
async fn a_reopened_log_has_everything_and_goes_on() {
    for clean in [true, false] {
        let (log, home) = reopened(clean, |log| async move {
            create(&*log, "a").await;
            create(&*log, "empty").await;
            create(&*log, "gone").await;
            log.append(append("gone", 1, 2)).await.unwrap();
            log.append(append("a", 1, 5)).await.unwrap();
            log.put_checkpoint(&id("a"), checkpoint(2, "ab")).await.unwrap();
            log.append(append("a", 6, 1)).await.unwrap();
            log.delete(&id("gone")).await.unwrap();
        })
        .await;
        let check = |loaded: super::Loaded, more: Vec<Record>| {
            assert_eq!(loaded.checkpoint, Some(checkpoint(2, "ab")));
            let first = records("a", 1, 5)[2..].to_vec();
            assert_eq!(loaded.tail, [first, records("a", 6, 1), more].concat());
        };
        check(log.load(&id("a")).await.unwrap().unwrap(), Vec::new());
        assert!(log.load(&id("gone")).await.unwrap().is_none());
        assert_eq!(log.list(None, 9).len(), 2);
        assert_eq!(log.append(append("a", 7, 2)).await.unwrap(), Sequence(8));
        assert_eq!(log.append(append("empty", 1, 1)).await.unwrap(), Sequence(1));
        drop(log);
        let log = open(&config(home.path()));
        check(log.load(&id("a")).await.unwrap().unwrap(), records("a", 7, 2));
        let old = log.read(&id("a"), Sequence::ZERO, 1 << 20).await.unwrap();
        assert_eq!(old.unwrap().len(), 8);
    }
}

#[tokio::test]
async fn a_log_that_is_open_is_refused_to_a_second_one_until_it_is_closed() {
    let home = tempfile::tempdir().unwrap();
    let first = open(&config(home.path()));
    let second = EmbeddedLog::open(&config(home.path()), Metrics::new().log);
    assert!(matches!(second, Err(super::OpenError::InUse { .. })));
    first.close().await;
    open(&config(home.path()));
}
