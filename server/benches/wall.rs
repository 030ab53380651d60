//! What the wall in front of yrs costs: for a keystroke, for a large update, and when a document is
//! loaded.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cowrite_server::crdt::{Author, Batch, Document, Quotas, Terms, validate};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use yrs::{Doc, GetString as _, ReadTxn as _, StateVector, Text as _, Transact as _};

const TERMS: Terms<'static> =
    Terms { author: Author::NOBODY, only_root: None, quotas: &Quotas::NONE, is_difference: false };

/// Keystrokes that are checked together, as a room does it.
const BATCH: usize = 100;

/// Client ids are 32 bits long, as those of Yjs.
const CLIENT: u64 = 3_141_592_653;

/// The keystrokes of somebody who types, and goes elsewhere in the text after each `run` of them.
fn keystrokes(count: u32, run: u32) -> Vec<Bytes> {
    let doc = Doc::with_client_id(CLIENT);
    let text = doc.get_or_insert_text("content");
    let mut at = 0;
    (0..count)
        .map(|i| {
            let mut txn = doc.transact_mut();
            if i % run == 0 {
                let length = text.get_string(&txn).len() as u32;
                at = i.wrapping_mul(2_654_435_761) % (length + 1);
            }
            text.insert(&mut txn, at, "x");
            at += 1;
            txn.encode_update_v1().into()
        })
        .collect()
}

/// How long it takes to check all updates, in batches that are applied outside of that time.
fn checked(updates: &[Bytes], rounds: u64) -> Duration {
    let mut spent = Duration::ZERO;
    for _ in 0..rounds {
        let mut document = Document::new();
        for updates in updates.chunks(BATCH) {
            let mut batch = Batch::default();
            #[allow(clippy::disallowed_methods, reason = "a benchmark")]
            let start = Instant::now();
            for update in updates {
                let scan = validate::update(update).unwrap();
                assert!(document.check(&mut batch, update, &scan, TERMS).unwrap().unwrap());
            }
            spent += start.elapsed();
            document.apply(&mut batch).unwrap();
        }
    }
    spent
}

fn wall(criterion: &mut Criterion) {
    let updates = keystrokes(10_000, 20);
    let mut group = criterion.benchmark_group("keystroke");
    group.throughput(Throughput::Elements(updates.len() as u64));
    group.bench_function("structure", |bencher| {
        bencher.iter(|| {
            for update in &updates {
                black_box(validate::update(black_box(update)).unwrap());
            }
        });
    });
    group.bench_function("structure and place", |bencher| {
        bencher.iter_custom(|rounds| checked(&updates, rounds));
    });
    group.finish();

    let doc = Doc::with_client_id(CLIENT);
    for update in &updates {
        let update = yrs::updates::decoder::Decode::decode_v1(update).unwrap();
        doc.transact_mut().apply_update(update).unwrap();
    }
    let state: Bytes = doc.transact().encode_diff_v1(&StateVector::default()).into();
    let mut group = criterion.benchmark_group("document of 10 000 keystrokes");
    group.throughput(Throughput::Bytes(state.len() as u64));
    group.bench_function("structure", |bencher| {
        bencher.iter(|| black_box(validate::update(black_box(&state)).unwrap()));
    });
    group.bench_function("load", |bencher| {
        bencher.iter(|| black_box(Document::of(black_box(&state)).unwrap()));
    });
    group.finish();

    let vector: Vec<u8> =
        [100].into_iter().chain((0..100).flat_map(|client| [0xff, client, 9])).collect();
    criterion.bench_function("state vector of 100 clients", |bencher| {
        bencher.iter(|| black_box(validate::state_vector(black_box(&vector)).unwrap()));
    });
    let awareness = br##"{"user":{"name":"Ada","color":"#30bced"},"cursor":{"anchor":{"type":null,"tname":"content","item":{"client":1,"clock":2},"assoc":0},"head":null}}"##;
    criterion.bench_function("awareness state", |bencher| {
        bencher.iter(|| validate::awareness_state(black_box(awareness)).unwrap());
    });
}

criterion_group!(benches, wall);
criterion_main!(benches);
