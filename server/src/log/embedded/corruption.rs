//! Bytes of a closed log that rot: a document loads what was acknowledged, or is refused; never
//! anything else.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    EmbeddedLog,
    disk::OsDisk,
    read,
    script::{Random, TUNING, config},
    segment::path,
};
use crate::{
    ids::{DocumentId, Epoch, Principal, Sequence, SessionId},
    log::{Append, Checkpoint, Config, LoadError, Loaded, NewRecord, OpenError, UpdateLog},
    metrics::Metrics,
    time::wall_ms,
};

pub(super) fn id(name: &str) -> DocumentId {
    DocumentId::parse(name).unwrap()
}

pub(super) fn append(document: &DocumentId, text: &str, size: usize) -> Append {
    let mut update = text.as_bytes().to_vec();
    update.resize(size.max(text.len()), b'.');
    let (principal, session) = (Principal::anonymous(), SessionId::from_u64(7));
    let updates = vec![NewRecord { principal, session, update: update.into() }];
    Append { document: document.clone(), time_ms: wall_ms(), updates }
}

fn checkpoint(sequence: u64, size: usize) -> Checkpoint {
    let state = Bytes::from(vec![sequence as u8; size]);
    Checkpoint { sequence: Sequence(sequence), state }
}

/// What documents may load: the one state that was acknowledged, in one or two forms.
pub(super) type Expected = BTreeMap<DocumentId, Vec<Option<Loaded>>>;

/// Documents in several segments: with and without checkpoints, in the catalogue and in files, one
/// that was deleted, one without updates.
pub(super) async fn fill(log: &EmbeddedLog, retain: bool) -> Expected {
    let names: Vec<DocumentId> = (0..5).map(|n| id(&format!("doc/{n}"))).collect();
    for (n, name) in names.iter().enumerate() {
        log.create(name, Epoch([n as u8; 16])).await.unwrap();
    }
    let mut whole: BTreeMap<&DocumentId, Vec<_>> = BTreeMap::new();
    for round in 0..12_u64 {
        for (n, name) in names.iter().enumerate().take(4) {
            log.append(append(name, &format!("{round} of {n}"), 60 * (n + 1))).await.unwrap();
        }
        if round == 8 {
            for name in names.iter().take(4) {
                let all = read::load(&log.shared, name).unwrap().unwrap().tail;
                whole.insert(name, all);
            }
            log.put_checkpoint(&names[0], checkpoint(5, 100)).await.unwrap();
            log.put_checkpoint(&names[1], checkpoint(9, 900)).await.unwrap();
            if retain {
                log.compact().await.unwrap();
            }
        }
    }
    log.delete(&names[3]).await.unwrap();
    names
        .iter()
        .map(|name| {
            let loaded = read::load(&log.shared, name).unwrap();
            let mut forms = vec![loaded.clone()];
            // From all updates, when the checkpoint rots.
            if let Some(Loaded { epoch, checkpoint: Some(stored), tail }) = loaded {
                let all = whole[name].iter().take(stored.sequence.0 as usize).cloned();
                let tail = all.chain(tail).collect();
                forms.push(Some(Loaded { epoch, checkpoint: None, tail }));
            }
            (name.clone(), forms)
        })
        .collect()
}

/// The documents that are refused. Panics if one is neither refused nor what was acknowledged.
pub(super) fn refused(log: &EmbeddedLog, expected: &Expected, what: &str) -> BTreeSet<DocumentId> {
    let mut refused = BTreeSet::new();
    for (name, forms) in expected {
        match read::load(&log.shared, name) {
            Ok(loaded) => assert!(forms.contains(&loaded), "{what}: {name} loads {loaded:?}"),
            Err(LoadError::Corrupt { .. }) => drop(refused.insert(name.clone())),
            Err(error) => panic!("{what}: {name}: {error:?}"),
        }
    }
    refused
}

/// The metric counts those that are known to exist.
pub(super) fn assert_counted(log: &EmbeddedLog, refused: &BTreeSet<DocumentId>) {
    let listed = log.list(None, 99);
    let known = listed.iter().filter(|line| refused.contains(&line.document)).count();
    assert_eq!(log.shared.metrics.corrupt_documents.get(), known as i64, "{refused:?}");
}

fn real(directory: &Path, retain: bool) -> Result<EmbeddedLog, OpenError> {
    let history_retention =
        if retain { std::time::Duration::from_secs(3600) } else { std::time::Duration::ZERO };
    let config = Config { directory: directory.to_owned(), history_retention, ..config() };
    EmbeddedLog::open_on(&config, TUNING, Arc::new(OsDisk), Metrics::new().log)
}

/// All files of a directory and its directories.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// A log that was closed, and every bit of which is accounted for.
async fn every_change_shows(retain: bool, change: impl Fn(&mut Random, &mut Vec<u8>), runs: u64) {
    let home = tempfile::tempdir().unwrap();
    let log = real(home.path(), retain).unwrap();
    let expected = fill(&log, retain).await;
    log.close().await;
    drop(log);
    let good: BTreeMap<PathBuf, Vec<u8>> = files(home.path())
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    let damageable: Vec<&PathBuf> = good.keys().filter(|path| !path.ends_with("lock")).collect();
    let (mut whole, mut hit, mut unopened) = (0, 0, 0);
    for seed in 0..runs {
        let random = &mut Random(seed);
        let target = damageable[random.below(damageable.len())];
        let mut bytes = good[target].clone();
        change(random, &mut bytes);
        for path in files(home.path()).iter().filter(|path| !good.contains_key(*path)) {
            fs::remove_file(path).unwrap();
        }
        for (path, good) in &good {
            fs::write(path, if path == target { &bytes } else { good }).unwrap();
        }
        let what = format!("seed {seed}, {}", target.display());
        match real(home.path(), retain) {
            Ok(log) => {
                let refused = refused(&log, &expected, &what);
                if refused.is_empty() {
                    whole += 1
                } else {
                    hit += 1
                }
                // A damaged entry is of one document, and so is a checkpoint.
                let in_catalogue = target.extension().is_some_and(|extension| extension == "db");
                let cut = bytes.len() < good[target].len();
                assert!(refused.len() <= 1 || in_catalogue || cut, "{what}: {refused:?}");
                assert_counted(&log, &refused);
            }
            Err(
                OpenError::Damaged { .. } | OpenError::Catalogue { .. } | OpenError::Format { .. },
            ) => {
                unopened += 1;
            }
            Err(error) => panic!("{what}: {error:?}"),
        }
    }
    assert!(hit > runs / 20 && whole > runs / 20 && unopened > 0, "{whole}, {hit}, {unopened}");
}

pub(super) fn flip(random: &mut Random, bytes: &mut [u8]) {
    let at = random.below(bytes.len());
    bytes[at] ^= 1 << random.below(8);
}

#[tokio::test]
async fn a_flipped_bit_of_a_closed_log_is_never_served() {
    every_change_shows(false, |random, bytes| flip(random, bytes), 1500).await;
    every_change_shows(true, |random, bytes| flip(random, bytes), 1500).await;
}

#[tokio::test]
async fn a_truncated_file_of_a_closed_log_is_never_served() {
    let truncate = |random: &mut Random, bytes: &mut Vec<u8>| {
        let length = random.below(bytes.len());
        bytes.truncate(length);
    };
    every_change_shows(false, truncate, 600).await;
}

#[tokio::test]
async fn a_changed_row_of_the_catalogue_is_never_believed() {
    let home = tempfile::tempdir().unwrap();
    let log = real(home.path(), true).unwrap();
    let expected = fill(&log, true).await;
    log.close().await;
    drop(log);
    let catalogue = home.path().join("catalogue.db");
    let good = fs::read(&catalogue).unwrap();
    let (mut changed, mut refusals) = (0, 0);
    for change in [
        "UPDATE documents SET head = head - 1 WHERE document = 'doc/2'",
        "UPDATE documents SET epoch = zeroblob(16) WHERE document = 'doc/2'",
        "UPDATE documents SET document = 'doc/9' WHERE document = 'doc/4'",
        "DELETE FROM documents WHERE document = 'doc/4'",
        "DELETE FROM documents",
        "UPDATE checkpoints SET sequence = sequence - 1",
        "UPDATE checkpoints SET sequence = sequence + 1",
        "UPDATE checkpoints SET epoch = zeroblob(16)",
        "UPDATE checkpoints SET document = 'doc/2' WHERE document = 'doc/0'",
        "UPDATE checkpoints SET state_crc = state_crc + 1, bytes = bytes + 1",
        "UPDATE checkpoints SET state = zeroblob(length(state)) WHERE state IS NOT NULL",
        "DELETE FROM checkpoints",
        "UPDATE runs SET first = first + 1 WHERE document = 'doc/2'",
        "UPDATE runs SET last = last - 1",
        "UPDATE runs SET last = -1",
        "UPDATE runs SET segment = segment + 1",
        "UPDATE runs SET runs = zeroblob(length(runs))",
        "UPDATE runs SET runs = substr(runs, 13)",
        "UPDATE runs SET document = 'doc/4' WHERE document = 'doc/2'",
        "DELETE FROM runs WHERE first > 5",
        "DELETE FROM runs",
        "UPDATE segments SET number = number + 100",
        "UPDATE segments SET newest_ms = 0",
        "DELETE FROM segments",
        "UPDATE meta SET salt = salt + 1",
        "UPDATE meta SET segment = segment - 1",
        "UPDATE meta SET position = position + 8",
        "UPDATE meta SET frame = frame - 1",
        "UPDATE meta SET documents = 0, documents_sum = 0",
        "DELETE FROM meta",
        "PRAGMA user_version = 0",
    ] {
        let kept = fs::read(path(&home.path().join("segments"), 1)).unwrap();
        let connection = rusqlite::Connection::open(&catalogue).unwrap();
        connection.execute_batch(change).unwrap();
        drop(connection);
        changed += 1;
        match real(home.path(), true) {
            Ok(log) => {
                let refused = refused(&log, &expected, change);
                refusals += usize::from(!refused.is_empty());
                log.compact().await.unwrap_or_default();
            }
            Err(OpenError::Damaged { .. } | OpenError::Catalogue { .. }) => refusals += 1,
            Err(error) => panic!("{change}: {error:?}"),
        }
        // Nothing was thrown away for it: with the good catalogue all is well.
        assert_eq!(fs::read(path(&home.path().join("segments"), 1)).unwrap(), kept, "{change}");
        for file in files(home.path()) {
            if file.to_str().unwrap().contains("catalogue.db-") {
                fs::remove_file(file).unwrap();
            }
        }
        fs::write(&catalogue, &good).unwrap();
        let log = real(home.path(), true).unwrap();
        let unharmed = refused(&log, &expected, change);
        assert!(unharmed.is_empty(), "{change}: {unharmed:?}");
        drop(log);
        fs::write(&catalogue, &good).unwrap();
    }
    assert!(changed == 31 && refusals > 15, "{refusals}");
}

#[tokio::test]
async fn damage_in_front_of_the_checkpoints_makes_nothing_unavailable() {
    let home = tempfile::tempdir().unwrap();
    let log = real(home.path(), true).unwrap();
    let name = id("doc");
    log.create(&name, Epoch([1; 16])).await.unwrap();
    for n in 0..40 {
        log.append(append(&name, &format!("{n}"), 300)).await.unwrap();
    }
    log.put_checkpoint(&name, checkpoint(40, 10)).await.unwrap();
    log.compact().await.unwrap();
    log.append(append(&name, "last", 10)).await.unwrap();
    log.close().await;
    drop(log);
    let first = path(&home.path().join("segments"), 1);
    let zeros = vec![0; fs::read(&first).unwrap().len()];
    fs::write(&first, zeros).unwrap();
    let log = real(home.path(), true).unwrap();
    let loaded = log.load(&name).await.unwrap().unwrap();
    assert_eq!((loaded.head(), loaded.tail.len()), (Sequence(41), 1));
    assert!(matches!(log.read(&name, Sequence(0), 1).await, Err(LoadError::Corrupt { .. })));
    assert_eq!(log.shared.metrics.corrupt_documents.get(), 0);
    assert_eq!(log.append(append(&name, "on", 10)).await.unwrap(), Sequence(42));
}

#[tokio::test]
async fn a_bad_checkpoint_is_replaced_by_a_replay_and_then_by_the_next_one() {
    let home = tempfile::tempdir().unwrap();
    let log = real(home.path(), true).unwrap();
    let name = id("doc");
    log.create(&name, Epoch([1; 16])).await.unwrap();
    for n in 0..30 {
        log.append(append(&name, &format!("{n}"), 300)).await.unwrap();
    }
    log.put_checkpoint(&name, checkpoint(20, 1000)).await.unwrap();
    log.compact().await.unwrap();
    let file = files(&home.path().join("checkpoints")).remove(0);
    fs::write(&file, vec![9; 1000]).unwrap();
    let loaded = log.load(&name).await.unwrap().unwrap();
    assert_eq!((loaded.checkpoint, loaded.tail.len()), (None, 30));
    log.put_checkpoint(&name, checkpoint(20, 1000)).await.unwrap();
    let loaded = log.load(&name).await.unwrap().unwrap();
    assert_eq!((loaded.checkpoint, loaded.tail.len()), (Some(checkpoint(20, 1000)), 10));
}

#[tokio::test]
async fn compaction_frees_what_checkpoints_stand_for_and_keeps_what_they_do_not() {
    let home = tempfile::tempdir().unwrap();
    let log = real(home.path(), false).unwrap();
    let (busy, idle) = (id("busy"), id("idle"));
    log.create(&busy, Epoch([1; 16])).await.unwrap();
    log.create(&idle, Epoch([2; 16])).await.unwrap();
    for n in 0..40 {
        log.append(append(&busy, &format!("{n}"), 300)).await.unwrap();
    }
    log.append(append(&idle, "one", 10)).await.unwrap();
    for n in 0..40 {
        log.append(append(&busy, &format!("{n}"), 300)).await.unwrap();
    }
    let before = files(&home.path().join("segments")).len();
    assert_eq!(log.shared.metrics.segments.get(), before as i64);
    assert_eq!(log.compact().await.unwrap().segments_dropped, 0);
    log.put_checkpoint(&busy, checkpoint(80, 10)).await.unwrap();
    let dropped = log.compact().await.unwrap();
    // The newest one stays, and the one with the update of the other document.
    assert_eq!(dropped.segments_dropped, before - 2);
    assert!(dropped.bytes_freed > 20_000, "{dropped:?}");
    assert_eq!(files(&home.path().join("segments")).len(), 2);
    assert_eq!(log.shared.metrics.segments.get(), 2);
    assert_eq!(log.read(&busy, Sequence(3), 9).await.unwrap(), None);
    drop(log);
    let log = real(home.path(), false).unwrap();
    assert_eq!(log.load(&idle).await.unwrap().unwrap().tail.len(), 1);
    assert_eq!(log.load(&busy).await.unwrap().unwrap().head(), Sequence(80));
}
