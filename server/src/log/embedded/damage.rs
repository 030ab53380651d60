//! Bytes that rot after a crash: the witnesses bound what is refused, and only the last frame can be
//! taken for a torn one.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use super::{
    corruption::{append, assert_counted, fill, flip, id, refused},
    read,
    script::{Random, TUNING, open},
    segment::{HEADER_BYTES, Scanner, path},
    sim::{Image, SimDisk},
};
use crate::{
    ids::{DocumentId, Epoch, Sequence},
    log::{AppendError, LoadError, UpdateLog as _},
};

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
