//! Bytes that rot: a document loads what was acknowledged, or is refused; never anything else.

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
    script::{Random, TUNING, config, open},
    segment::{HEADER_BYTES, Scanner, path},
    sim::{Image, SimDisk},
};
use crate::{
    ids::{DocumentId, Epoch, Principal, Sequence, SessionId},
    log::{
        Append, AppendError, Checkpoint, Config, LoadError, Loaded, NewRecord, OpenError, UpdateLog,
    },
    metrics::Metrics,
    time::wall_ms,
};

fn id(name: &str) -> DocumentId {
    DocumentId::parse(name).unwrap()
}

fn append(document: &DocumentId, text: &str, size: usize) -> Append {
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
type Expected = BTreeMap<DocumentId, Vec<Option<Loaded>>>;

/// Documents in several segments: with and without checkpoints, in the catalogue and in files, one
/// that was deleted, one without updates.
async fn fill(log: &EmbeddedLog, retain: bool) -> Expected {
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
fn refused(log: &EmbeddedLog, expected: &Expected, what: &str) -> BTreeSet<DocumentId> {
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
fn assert_counted(log: &EmbeddedLog, refused: &BTreeSet<DocumentId>) {
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

fn flip(random: &mut Random, bytes: &mut [u8]) {
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

/// A frame of a log that was not closed: its bytes, and its documents.
struct Frame {
    segment: u32,
    start: usize,
    end: usize,
    documents: BTreeSet<DocumentId>,
}

fn frames(image: &Image, salt: u64) -> Vec<Frame> {
    let disk = SimDisk::of(image.clone());
    let mut found = Vec::new();
    for segment in 1.. {
        let path = path(Path::new("log/segments"), segment);
        let Ok(file) = super::disk::Disk::open(&disk, &path) else { return found };
        let mut scanner = Scanner::new(file, segment, salt).unwrap();
        let mut offset = HEADER_BYTES;
        while let Some(frame) = scanner.frame(offset, 1).unwrap() {
            let mut left = frame.entries;
            let mut documents = BTreeSet::new();
            while let Some(entry) = super::entry::decode(left) {
                left = &left[entry.length as usize..];
                documents.insert(entry.document);
            }
            let (start, end) = (offset as usize, (offset + frame.bytes) as usize);
            found.push(Frame { segment, start, end, documents });
            offset += frame.bytes;
        }
    }
    found
}

fn damaged(image: &Image, segment: u32, change: impl FnOnce(&mut Vec<u8>)) -> SimDisk {
    let mut image = image.clone();
    let file = image.names[&path(Path::new("log/segments"), segment)];
    change(Arc::make_mut(&mut image.files[file]));
    SimDisk::of(image)
}

#[tokio::test]
async fn damage_after_a_crash_hits_the_documents_of_the_damaged_frame_alone() {
    let disk = SimDisk::recording();
    let log = open(&disk).unwrap();
    let expected = fill(&log, false).await;
    let image = disk.image();
    let frames = frames(&image, log.shared.salt);
    assert!(frames.len() > 40 && frames.last().unwrap().segment > 2);
    let (mut hit, mut refused_in_all) = (0, 0);
    for (n, frame) in frames.iter().enumerate().take(frames.len() - 1) {
        for seed in 0..20 {
            let random = &mut Random(seed * 1000 + n as u64);
            let disk = damaged(&image, frame.segment, |bytes| {
                flip(random, &mut bytes[frame.start..frame.end]);
            });
            let log = open(&disk).unwrap();
            let refused = refused(&log, &expected, &format!("frame {n}, seed {seed}"));
            assert!(refused.is_subset(&frame.documents), "{n}: {refused:?} {:?}", frame.documents);
            hit += usize::from(!refused.is_empty());
            refused_in_all += refused.len();
            assert_counted(&log, &refused);
            // The damage is still seen when the log was closed in between, and opened again.
            if seed == 0 {
                log.close().await;
                let again = super::corruption::refused(&open(&disk).unwrap(), &expected, "again");
                assert_eq!(again, refused);
            }
        }
    }
    assert!(hit > 300 && refused_in_all == hit, "{hit} {refused_in_all}");
}

#[tokio::test]
async fn a_damaged_page_after_a_crash_never_serves_less_than_was_acknowledged() {
    let disk = SimDisk::recording();
    let log = open(&disk).unwrap();
    let expected = fill(&log, false).await;
    let image = disk.image();
    let frames = frames(&image, log.shared.salt);
    let last = frames.last().unwrap();
    for segment in 1..=last.segment {
        let end = if segment == last.segment { last.start } else { TUNING.segment_bytes as usize };
        for start in (0..end).step_by(64) {
            for size in [64, 512, 4096] {
                let disk = damaged(&image, segment, |bytes| {
                    let end = (start + size).min(end).min(bytes.len());
                    bytes[start.min(end)..end].fill(0);
                });
                let log = open(&disk).unwrap();
                refused(&log, &expected, &format!("segment {segment}, {size} at {start}"));
            }
        }
    }
}

#[tokio::test]
async fn the_last_frame_is_lost_whole_when_it_is_torn_and_the_log_goes_on() {
    let disk = SimDisk::recording();
    let log = open(&disk).unwrap();
    let mut expected = fill(&log, false).await;
    let name = id("doc/2");
    let before = expected[&name].clone();
    log.append(append(&name, "the last", 300)).await.unwrap();
    let after = read::load(&log.shared, &name).unwrap();
    let image = disk.image();
    let frames = frames(&image, log.shared.salt);
    let last = frames.last().unwrap();
    expected.insert(name.clone(), [before, vec![after]].concat());
    for seed in 0..300 {
        let random = &mut Random(seed);
        let disk = damaged(&image, last.segment, |bytes| {
            flip(random, &mut bytes[last.start..last.end]);
        });
        let log = open(&disk).unwrap();
        assert!(refused(&log, &expected, &format!("seed {seed}")).is_empty());
        let next = log.append(append(&name, "and on", 10)).await.unwrap();
        assert!(next == Sequence(13) || next == Sequence(14));
    }
}

#[tokio::test]
async fn a_document_whose_creation_was_lost_is_refused_and_not_created_over() {
    let disk = SimDisk::recording();
    let log = open(&disk).unwrap();
    log.create(&id("before"), Epoch([1; 16])).await.unwrap();
    log.create(&id("lost"), Epoch([2; 16])).await.unwrap();
    log.create(&id("after"), Epoch([3; 16])).await.unwrap();
    let image = disk.image();
    let frame = &frames(&image, log.shared.salt)[1];
    assert!(frame.documents.contains(&id("lost")));
    let disk = damaged(&image, frame.segment, |bytes| bytes[frame.start + 40] ^= 1);
    let log = open(&disk).unwrap();
    assert!(matches!(log.load(&id("lost")).await, Err(LoadError::Corrupt { .. })));
    let created = log.create(&id("lost"), Epoch([4; 16])).await;
    assert!(matches!(created, Err(AppendError::Exists(_))));
    assert!(log.load(&id("after")).await.unwrap().is_some());
    assert!(log.load(&id("unheard-of")).await.unwrap().is_none());
    // Its owner gives it up.
    log.delete(&id("lost")).await.unwrap();
    assert!(log.load(&id("lost")).await.unwrap().is_none());
    log.create(&id("lost"), Epoch([4; 16])).await.unwrap();
    drop(log);
    let log = open(&disk).unwrap();
    assert_eq!(log.load(&id("lost")).await.unwrap().unwrap().epoch, Epoch([4; 16]));
}

#[tokio::test]
async fn a_document_whose_recreation_was_lost_but_for_all_of_its_updates_is_whole() {
    let disk = SimDisk::recording();
    let log = open(&disk).unwrap();
    let name = id("doc");
    log.create(&name, Epoch([1; 16])).await.unwrap();
    log.append(append(&name, "old", 10)).await.unwrap();
    log.delete(&name).await.unwrap();
    log.create(&name, Epoch([2; 16])).await.unwrap();
    log.append(append(&name, "new", 10)).await.unwrap();
    log.append(append(&name, "newer", 10)).await.unwrap();
    let loaded = log.load(&name).await.unwrap();
    let image = disk.image();
    let frames = frames(&image, log.shared.salt);
    let disk = damaged(&image, 1, |bytes| {
        for frame in &frames[2..4] {
            bytes[frame.start + 40] ^= 1;
        }
    });
    assert_eq!(open(&disk).unwrap().load(&name).await.unwrap(), loaded);
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
