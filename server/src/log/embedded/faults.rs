//! Disks that fail and disks that are full, at every call: nothing acknowledged is lost, and nothing
//! refused is kept.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;

use super::{
    EmbeddedLog, read,
    script::{open, state},
    sim::{Fault, SimDisk},
};
use crate::{
    ids::{DocumentId, Epoch, Principal, Sequence, SessionId},
    log::{Append, AppendError, Checkpoint, LogState, NewRecord, UpdateLog as _},
};

const DOCUMENTS: usize = 3;

fn id(n: usize) -> DocumentId {
    DocumentId::parse(&format!("doc/{n}")).unwrap()
}

/// Updates that end in zeros: cut off and extended with zeros they would be whole again.
fn append(document: usize, name: &str) -> Append {
    let mut update = name.as_bytes().to_vec();
    update.resize(200, 0);
    let (principal, session) = (Principal::anonymous(), SessionId::from_u64(1));
    let updates = vec![NewRecord { principal, session, update: update.into() }];
    Append { document: id(document), time_ms: 1, updates }
}

/// What was acknowledged of each document.
type Acked = BTreeMap<usize, Vec<Bytes>>;

async fn created(disk: &SimDisk) -> (EmbeddedLog, Acked) {
    let log = open(disk).unwrap();
    for n in 0..DOCUMENTS {
        log.create(&id(n), Epoch([n as u8; 16])).await.unwrap();
    }
    (log, (0..DOCUMENTS).map(|n| (n, Vec::new())).collect())
}

/// Appends to every document at once, in `rounds`; returns the errors.
async fn rounds(log: &EmbeddedLog, acked: &mut Acked, rounds: usize) -> Vec<AppendError> {
    let mut errors = Vec::new();
    for round in 0..rounds {
        let appends: Vec<_> =
            (0..DOCUMENTS).map(|n| append(n, &format!("{round} of {n}"))).collect();
        let updates = appends.iter().map(|append| append.updates[0].update.clone());
        let updates: Vec<_> = updates.collect();
        let results = join_all(appends.into_iter().map(|append| log.append(append))).await;
        for (n, (result, update)) in results.into_iter().zip(updates).enumerate() {
            let known = acked.get_mut(&n).unwrap();
            match result {
                Ok(sequence) => {
                    known.push(update);
                    assert_eq!(sequence, Sequence(known.len() as u64));
                }
                Err(error) => errors.push(error),
            }
        }
    }
    errors
}

/// Waits for the log to find out by itself that there is room.
async fn until_writable(log: &EmbeddedLog) {
    let mut state = log.state();
    let writable = state.wait_for(|state| *state == LogState::Writable);
    drop(tokio::time::timeout(Duration::from_secs(20), writable).await.unwrap().unwrap());
}

/// What a document has, by the log that has it open.
fn stored(log: &EmbeddedLog, document: usize) -> Vec<Bytes> {
    let loaded = read::load(&log.shared, &id(document)).unwrap().unwrap();
    loaded.tail.into_iter().map(|record| record.update).collect()
}

fn assert_stored(log: &EmbeddedLog, acked: &Acked) {
    for (n, updates) in acked {
        assert_eq!(stored(log, *n), *updates);
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_acknowledged_and_nothing_is_synced_again() {
    let mut failures = 0;
    for index in 0.. {
        let disk = SimDisk::recording();
        let (log, mut acked) = created(&disk).await;
        disk.set_fault(Fault::Sync(index));
        let errors = rounds(&log, &mut acked, 30).await;
        if !disk.has_failed() {
            assert!(errors.is_empty());
            break;
        }
        failures += 1;
        assert!(errors.iter().all(|error| matches!(error, AppendError::Unavailable)), "{errors:?}");
        assert_eq!(*log.state().borrow(), LogState::Failed);
        assert_eq!(log.shared.metrics.writable.get(), 0);
        // The first error was the last time that anything was acknowledged.
        let known = acked.clone();
        assert_eq!(rounds(&log, &mut acked, 2).await.len(), 2 * DOCUMENTS);
        assert_eq!(acked, known);
        let refused = log.put_checkpoint(&id(0), checkpoint(1)).await;
        assert!(matches!(refused, Err(AppendError::Unavailable)), "{refused:?}");
        assert_stored(&log, &acked);
        log.close().await;
        assert!(!disk.synced_again(), "at {index}");
        // What was written but not acknowledged may be there.
        let log = open(&SimDisk::of(disk.image())).unwrap();
        for (n, updates) in acked {
            assert!(stored(&log, n).starts_with(&updates));
        }
    }
    assert!(failures > 30, "{failures}");
}

#[tokio::test]
async fn a_full_disk_refuses_loses_nothing_and_recovers_by_itself() {
    let mut times_full = 0;
    for index in 0.. {
        let disk = SimDisk::recording();
        let (log, mut acked) = created(&disk).await;
        disk.set_fault(Fault::Full(index));
        let errors = rounds(&log, &mut acked, 25).await;
        if !disk.has_failed() {
            assert!(errors.is_empty());
            break;
        }
        times_full += 1;
        assert!(errors.iter().all(|error| matches!(error, AppendError::Full)), "{errors:?}");
        assert_eq!(*log.state().borrow(), LogState::Full);
        assert_eq!(log.shared.metrics.writable.get(), 0);
        assert_stored(&log, &acked);
        // Nothing of what was refused comes up after a crash, also when the file is extended.
        assert_stored(&open(&SimDisk::of(disk.image())).unwrap(), &acked);

        disk.set_fault(Fault::None);
        until_writable(&log).await;
        assert_eq!(log.shared.metrics.writable.get(), 1);
        assert!(rounds(&log, &mut acked, 20).await.is_empty());
        assert_stored(&log, &acked);
        assert_stored(&open(&SimDisk::of(disk.image())).unwrap(), &acked);
        log.close().await;
        assert_stored(&open(&SimDisk::of(disk.image())).unwrap(), &acked);
    }
    assert!(times_full > 25, "{times_full}");
}

#[tokio::test]
async fn a_full_disk_refuses_a_checkpoint_in_a_file_and_keeps_the_old_one() {
    let disk = SimDisk::recording();
    let (log, mut acked) = created(&disk).await;
    rounds(&log, &mut acked, 9).await;
    log.put_checkpoint(&id(0), checkpoint(4)).await.unwrap();
    disk.set_fault(Fault::FullNow);
    let refused = log.put_checkpoint(&id(0), checkpoint(9)).await;
    assert!(matches!(refused, Err(AppendError::Full)), "{refused:?}");
    let loaded = log.load(&id(0)).await.unwrap().unwrap();
    assert_eq!(loaded.checkpoint, Some(checkpoint(4)));
    disk.set_fault(Fault::None);
    log.put_checkpoint(&id(0), checkpoint(9)).await.unwrap();
}

#[tokio::test]
async fn a_log_opens_on_a_full_disk_for_reading() {
    let disk = SimDisk::recording();
    let (log, mut acked) = created(&disk).await;
    // The frame before the next segment: the last one is cut when the disk is full.
    disk.set_fault(Fault::Full(3));
    rounds(&log, &mut acked, 5).await;
    drop(log);
    let log = open(&disk).unwrap();
    assert_eq!(*log.state().borrow(), LogState::Full);
    assert_stored(&log, &acked);
    disk.set_fault(Fault::None);
    until_writable(&log).await;
    assert!(rounds(&log, &mut acked, 9).await.is_empty());
    assert_stored(&log, &acked);
}

#[tokio::test]
async fn what_is_served_after_a_restart_is_durable() {
    let disk = SimDisk::recording();
    let (log, mut acked) = created(&disk).await;
    rounds(&log, &mut acked, 2).await;
    disk.set_fault(Fault::Sync(0));
    // It is written, but not synced: so a process leaves it that is killed at that moment.
    rounds(&log, &mut acked, 1).await;
    drop(log);
    let log = open(&disk).unwrap();
    let served: Acked = (0..DOCUMENTS).map(|n| (n, stored(&log, n))).collect();
    assert_ne!(served, acked);
    assert_stored(&open(&SimDisk::of(synced(&disk))).unwrap(), &served);
}

/// What is on the disk after a loss of power.
fn synced(disk: &SimDisk) -> super::sim::Image {
    let mut crash = super::crash::Crash::default();
    disk.ops().iter().for_each(|op| crash.step(op, true));
    crash.into_durable()
}

#[tokio::test]
async fn the_last_frame_before_an_empty_segment_is_missed_when_it_rots() {
    for index in 0..60 {
        let disk = SimDisk::recording();
        let (log, mut acked) = created(&disk).await;
        disk.set_fault(Fault::Full(index));
        rounds(&log, &mut acked, 20).await;
        disk.set_fault(Fault::None);
        until_writable(&log).await;
        let segments = log.shared.metrics.segments.get() as u32;
        let mut image = disk.image();
        let path = |n| super::segment::path(std::path::Path::new("log/segments"), n);
        let header = super::segment::HEADER_BYTES as usize;
        if image.files[image.names[&path(segments)]][header..].iter().any(|&byte| byte != 0) {
            continue;
        }
        let full = &mut image.files[image.names[&path(segments - 1)]];
        let last = full.iter().rposition(|byte| *byte != 0).unwrap();
        Arc::make_mut(full)[last] ^= 1;
        let log = open(&SimDisk::of(image)).unwrap();
        assert!((0..DOCUMENTS).any(|n| read::load(&log.shared, &id(n)).is_err()));
        return;
    }
    panic!("no segment was empty");
}

/// Big enough for a file.
fn checkpoint(sequence: u64) -> Checkpoint {
    let sequence = Sequence(sequence);
    Checkpoint { sequence, state: state(Epoch([0; 16]), sequence) }
}

#[tokio::test]
async fn an_append_is_committed_at_once_after_a_pause_and_together_under_load() {
    let disk = SimDisk::recording();
    let interval = Duration::from_millis(300);
    let config = crate::log::Config { commit_interval: interval, ..super::script::config() };
    let tuning = super::Tuning { segment_bytes: 1 << 20, ..super::script::TUNING };
    let metrics = crate::metrics::Metrics::new().log;
    let log =
        EmbeddedLog::open_on(&config, tuning, Arc::new(disk.clone()), metrics.clone()).unwrap();
    let started = crate::time::now();
    log.create(&id(0), Epoch([0; 16])).await.unwrap();
    assert!(started.elapsed() < interval / 2, "{:?}", started.elapsed());
    // These find the writer asleep, and make one commit at the end of the interval.
    let appending: Vec<_> = (0..5).map(|n| log.append(append(0, &format!("{n}")))).collect();
    join_all(appending).await;
    let took = started.elapsed();
    assert!(took >= interval, "{took:?}");
    assert_eq!((metrics.commits.get(), metrics.records.get()), (2, 5));
}
