//! What is counted while a scenario runs.

use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;
use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use tokio::time::Instant;

/// 2 minutes; what takes longer counts as that.
const LATENCY_US_MAX: u64 = 120_000_000;

/// Latencies in microseconds.
#[derive(Debug)]
pub(crate) struct Latencies(Histogram<u64>);

/// What is told of latencies, in microseconds. All 0 where nothing was counted.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct LatencySummary {
    pub(crate) count: u64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p999_us: u64,
    pub(crate) max_us: u64,
}

impl Latencies {
    #[expect(clippy::expect_used, reason = "the bounds are constants that are allowed")]
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_max(LATENCY_US_MAX, 3).expect("bounds"))
    }

    pub(crate) fn record_ns(&mut self, ns: u64) {
        self.0.saturating_record(ns / 1000);
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn summary(&self) -> LatencySummary {
        LatencySummary {
            count: self.0.len(),
            p50_us: self.0.value_at_quantile(0.5),
            p99_us: self.0.value_at_quantile(0.99),
            p999_us: self.0.value_at_quantile(0.999),
            max_us: self.0.max(),
        }
    }
}

/// The clock and the counters that all sessions of a run share.
#[derive(Debug)]
pub(crate) struct Measure {
    start: Instant,
    /// Edits sent in this span count, in nanoseconds since the start.
    from_ns: AtomicU64,
    to_ns: AtomicU64,
    counts: Mutex<Counts>,
}

/// What was counted.
#[derive(Debug)]
pub(crate) struct Counts {
    /// From an author's send to a receiver, of edits that count.
    pub(crate) delivery: Latencies,
    /// From an author's send to its acknowledgement, of edits that count.
    pub(crate) ack: Latencies,
    /// Arrivals of edits that count.
    pub(crate) delivered: u64,
    /// Arrivals of any edits.
    pub(crate) arrivals: u64,
    /// Payload bytes received.
    pub(crate) received_bytes: u64,
    /// State differences after the initial state: receivers that had been too slow.
    pub(crate) resyncs: u64,
    /// Edits that the server did not take.
    pub(crate) refused: u64,
}

impl Measure {
    /// A measurement in which nothing counts yet.
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            from_ns: AtomicU64::new(u64::MAX),
            to_ns: AtomicU64::new(u64::MAX),
            counts: Mutex::new(Counts {
                delivery: Latencies::new(),
                ack: Latencies::new(),
                delivered: 0,
                arrivals: 0,
                received_bytes: 0,
                resyncs: 0,
                refused: 0,
            }),
        }
    }

    /// Nanoseconds since the start.
    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// What is sent from now on counts.
    pub(crate) fn begin(&self) {
        self.from_ns.store(self.now_ns(), Ordering::Relaxed);
    }

    /// What is sent from now on does not count.
    pub(crate) fn end(&self) {
        self.to_ns.store(self.now_ns(), Ordering::Relaxed);
    }

    /// Nothing more is to be sent.
    pub(crate) fn has_ended(&self) -> bool {
        self.to_ns.load(Ordering::Relaxed) != u64::MAX
    }

    /// An edit that was sent then counts.
    pub(crate) fn counts_at(&self, sent_ns: u64) -> bool {
        sent_ns >= self.from_ns.load(Ordering::Relaxed)
            && sent_ns < self.to_ns.load(Ordering::Relaxed)
    }

    /// The counters, locked: not to be held over an await.
    pub(crate) fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock()
    }
}

/// Who types into one document, and when each edit was sent.
#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) document: String,
    pub(crate) edit_chars: u32,
    /// Editor `n` has the Yjs client id `client_base + n`.
    client_base: u64,
    /// When each edit was sent, by editor and edit, in nanoseconds since the start.
    sent_ns: Vec<Mutex<Vec<u64>>>,
}

impl Board {
    /// A document with `editors` who have not typed yet. The client ids are random, so that a
    /// document can be used by several runs.
    pub(crate) fn new(document: String, editors: u32, edit_chars: u32) -> Self {
        Self {
            document,
            edit_chars,
            client_base: (rand::random::<u64>() >> 32 << 16) + 1,
            sent_ns: (0..editors).map(|_| Mutex::default()).collect(),
        }
    }

    pub(crate) fn client(&self, editor: usize) -> u64 {
        self.client_base + editor as u64
    }

    pub(crate) fn editor(&self, client: u64) -> Option<usize> {
        let editor = usize::try_from(client.checked_sub(self.client_base)?).ok()?;
        (editor < self.sent_ns.len()).then_some(editor)
    }

    pub(crate) fn editors(&self) -> usize {
        self.sent_ns.len()
    }

    /// Notes that `editor` sends its next edit now; returns which one it is, from 0.
    pub(crate) fn send(&self, editor: usize, now_ns: u64) -> u32 {
        let mut sent = self.sent_ns[editor].lock();
        sent.push(now_ns);
        sent.len() as u32 - 1
    }

    /// When an edit was sent.
    pub(crate) fn sent_ns(&self, editor: usize, edit: u32) -> Option<u64> {
        self.sent_ns[editor].lock().get(edit as usize).copied()
    }

    /// How many edits count so far.
    pub(crate) fn offered(&self, measure: &Measure) -> u64 {
        let counted = |sent: &Mutex<Vec<u64>>| {
            sent.lock().iter().filter(|ns| measure.counts_at(**ns)).count() as u64
        };
        self.sent_ns.iter().map(counted).sum()
    }
}
