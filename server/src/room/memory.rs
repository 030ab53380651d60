//! What rooms take of the memory, about, and which of them leave it when there is too little.
//!
//! A room says what it takes after each batch; the sum of all is held against `room.memory_bytes_max`.
//! Beyond it, rooms in which nobody is leave memory, those first in which nobody has been for longest.
//! Where that is not enough nothing new is begun, and what there is goes on.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::Notify;

use crate::{
    metrics::RoomMetrics,
    time::{self, Duration, Instant},
};

/// A room with an empty document and without sessions, in bytes.
const ROOM_BYTES: usize = 16 << 10;

/// A session, with its outbox and its task, in bytes; what waits in the outbox is not in it.
const SESSION_BYTES: usize = 4 << 10;

/// What yrs takes for each byte of a document as one yrs v1 update, where nothing else is known of it.
/// Measured as what the process grew by for each copy: 1 for a long text, 1.4 and 7 for recorded sessions
/// of people who write, 13 for single characters that do not follow each other. It is more for what
/// nobody writes: 30 for keys of a map, 36 for a client for each character, 60 for roots.
const PER_UNKNOWN_BYTE: usize = 16;

/// What the content takes for each byte of a document whose structs were counted.
const PER_BYTE: usize = 2;

/// What a struct takes in yrs and in the outline. Measured: 210 for an embed, 440 for a key of a map or a
/// shared type, 700 for a root, 1100 for a subdocument, and 60 in the outline.
const PER_STRUCT: usize = 400;

/// How long a room that is to be loaded waits for others to leave: they may have checkpoints to make.
pub(super) const PLACE_WAIT: Duration = Duration::from_secs(2);

/// What a room has, by which it is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weights {
    /// The document as one yrs v1 update, in bytes.
    pub(super) document_bytes: usize,
    /// Its structs, at most; `None` where they were not counted.
    pub(super) structs: Option<usize>,
    /// Copies of the document or parts of it, encoded: for those who join, and for those who come
    /// back.
    pub(super) encoded_bytes: usize,
    /// Sessions.
    pub(super) sessions: usize,
}

impl Weights {
    /// What the room takes of the memory, about, in bytes.
    pub(super) fn bytes(self) -> usize {
        let document = match self.structs {
            Some(structs) => {
                let content = self.document_bytes.saturating_mul(PER_BYTE);
                content.saturating_add(structs.saturating_mul(PER_STRUCT))
            }
            None => self.document_bytes.saturating_mul(PER_UNKNOWN_BYTE),
        };
        let sessions = self.sessions.saturating_mul(SESSION_BYTES);
        ROOM_BYTES + document.saturating_add(sessions).saturating_add(self.encoded_bytes)
    }
}

/// The memory of all rooms.
#[derive(Debug)]
pub(super) struct Memory {
    bytes_max: usize,
    used: AtomicUsize,
    metrics: RoomMetrics,
    made: Instant,
    /// Told whenever a room has left.
    freed: Notify,
}

impl Memory {
    /// At most `bytes_max`, about; 0 is no limit.
    pub(super) fn new(bytes_max: usize, metrics: RoomMetrics) -> Self {
        metrics.memory_max.set(i64::try_from(bytes_max).unwrap_or(i64::MAX));
        let used = AtomicUsize::new(0);
        Self { bytes_max, used, metrics, made: time::now(), freed: Notify::new() }
    }

    /// How much there is too much, with `more` on top of it.
    pub(super) fn excess(&self, more: usize) -> usize {
        if self.bytes_max == 0 {
            return 0;
        }
        self.used.load(Ordering::Relaxed).saturating_add(more).saturating_sub(self.bytes_max)
    }

    /// Told whenever a room has left.
    pub(super) fn freed(&self) -> &Notify {
        &self.freed
    }

    fn ms(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.made).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }
}

/// The place of one room in the memory, as those see it who look for one to leave.
#[derive(Debug)]
pub(super) struct Place {
    memory: Arc<Memory>,
    used: AtomicUsize,
    /// Since when nobody is in the room, in milliseconds and one more; 0 while somebody is.
    empty_ms: AtomicU64,
    /// It was asked to leave.
    is_asked: AtomicBool,
    asked: Notify,
}

impl Place {
    /// The place of a room that is about to be loaded.
    pub(super) fn new(memory: &Arc<Memory>) -> Arc<Self> {
        let place = Self {
            memory: Arc::clone(memory),
            used: AtomicUsize::new(0),
            empty_ms: AtomicU64::new(0),
            is_asked: AtomicBool::new(false),
            asked: Notify::new(),
        };
        place.take(ROOM_BYTES);
        Arc::new(place)
    }

    /// The room takes this much now.
    pub(super) fn take(&self, bytes: usize) {
        let before = self.used.swap(bytes, Ordering::Relaxed);
        if bytes == before {
            return;
        }
        // Wraps around and back where it is less than before.
        self.memory.used.fetch_add(bytes.wrapping_sub(before), Ordering::Relaxed);
        let more = bytes as i64 - before as i64;
        self.memory.metrics.memory.inc_by(more);
    }

    /// What the room takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The room takes this much, if there is so much; returns whether there is.
    pub(super) fn try_take(&self, bytes: usize) -> bool {
        let (memory, before) = (&self.memory, self.bytes());
        let fits = |used: usize| {
            let after = used.saturating_sub(before).saturating_add(bytes);
            (memory.bytes_max == 0 || after <= memory.bytes_max).then_some(after)
        };
        if memory.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return false;
        }
        self.used.store(bytes, Ordering::Relaxed);
        memory.metrics.memory.inc_by(bytes as i64 - before as i64);
        true
    }

    /// Nobody has been in the room since then; `None` while somebody is.
    pub(super) fn empty_since(&self, since: Option<Instant>) {
        let ms = since.map_or(0, |since| self.memory.ms(since) + 1);
        if self.empty_ms.load(Ordering::Relaxed) != ms {
            self.empty_ms.store(ms, Ordering::Relaxed);
            // Who comes in counts for more than who asked the room to leave.
            self.is_asked.store(false, Ordering::Relaxed);
        }
    }

    /// When the room became empty, for one to be chosen; `None` while somebody is in it, or when it
    /// leaves already.
    pub(super) fn rank(&self) -> Option<u64> {
        let ms = self.empty_ms.load(Ordering::Relaxed);
        (ms > 0 && !self.is_asked.load(Ordering::Relaxed)).then_some(ms)
    }

    /// Whether the room leaves already.
    pub(super) fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::Relaxed)
    }

    /// Asks the room to leave memory as soon as it can, if nobody comes in before.
    pub(super) fn ask(&self) {
        self.is_asked.store(true, Ordering::Relaxed);
        self.memory.metrics.evicted.inc();
        self.asked.notify_one();
    }

    /// Returns when the room is asked to leave.
    ///
    /// # Cancellation
    ///
    /// Nothing is lost.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// The room has left.
    pub(super) fn leave(&self) {
        self.take(0);
        self.memory.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn the_sum_is_that_of_the_rooms_and_nothing_is_left_when_they_have_gone() {
        let metrics = Metrics::new().room;
        let memory = Arc::new(Memory::new(100_000, metrics.clone()));
        let places: Vec<_> = (0..3).map(|_| Place::new(&memory)).collect();
        assert_eq!(memory.excess(0), 0);
        for (place, bytes) in places.iter().zip([50_000, 60_000, 10_000]) {
            place.take(bytes);
        }
        assert_eq!((memory.excess(0), metrics.memory.get()), (20_000, 120_000));
        places[1].take(30_000);
        assert!(!places[1].try_take(40_001));
        assert!(places[1].try_take(40_000));
        assert_eq!((memory.excess(0), metrics.memory.get()), (0, 100_000));
        places.iter().for_each(|place| place.leave());
        assert_eq!((memory.used.load(Ordering::Relaxed), metrics.memory.get()), (0, 0));
    }

    #[test]
    fn a_room_that_somebody_has_come_into_is_not_asked_any_more() {
        let memory = Arc::new(Memory::new(0, Metrics::new().room));
        let place = Place::new(&memory);
        assert_eq!(place.rank(), None);
        place.empty_since(Some(time::now()));
        assert!(place.rank().is_some());
        place.ask();
        assert_eq!((place.rank(), place.is_asked()), (None, true));
        place.empty_since(None);
        assert!(!place.is_asked());
    }
}
