//! What it takes to bring those up to date who join: loads of documents, and differences that one
//! session alone gets.
//!
//! After a restart everybody comes at once. The whole state of a document is encoded once for all who
//! have nothing, but what somebody lacks who has something is his own, and can be as large as the
//! document. So loads are bounded in number, and such differences in bytes, from when they are made
//! until their session has taken them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use crate::{
    metrics::RoomMetrics,
    time::{self, Duration, Instant},
};

/// What is being done to bring sessions up to date.
#[derive(Debug)]
pub(super) struct CatchUps {
    loads: Semaphore,
    bytes_max: usize,
    bytes: AtomicUsize,
    made: Instant,
    /// When a difference last found no room, in milliseconds since `made` and one more; 0 for never.
    wanted_ms: AtomicU64,
    metrics: RoomMetrics,
}

/// Bytes of a difference that wait for a session. Dropped, they wait no more.
#[derive(Debug)]
pub(super) struct Charge {
    catch_ups: Arc<CatchUps>,
    bytes: usize,
}

impl CatchUps {
    /// This many loads at the same time, and this many bytes of differences, at most.
    pub(super) fn new(loads_max: usize, bytes_max: usize, metrics: RoomMetrics) -> Self {
        let loads = Semaphore::new(loads_max.min(Semaphore::MAX_PERMITS));
        Self {
            loads,
            bytes_max,
            bytes: AtomicUsize::new(0),
            made: time::now(),
            wanted_ms: AtomicU64::new(0),
            metrics,
        }
    }

    /// Waits for one's turn to load a document; `None` if it does not come `within` this.
    pub(super) async fn load(&self, within: Duration) -> Option<SemaphorePermit<'_>> {
        timeout(within, self.loads.acquire()).await.ok()?.ok()
    }

    /// Whether a difference may be made at all: as large as it will be, it is not known before.
    pub(super) fn has_room(&self) -> bool {
        let has_room = self.bytes.load(Ordering::Relaxed) < self.bytes_max;
        if !has_room {
            self.note_wanted();
        }
        has_room
    }

    /// Whether a difference has found no room since `within` ago.
    pub(super) fn is_wanted(&self, now: Instant, within: Duration) -> bool {
        let wanted = self.wanted_ms.load(Ordering::Relaxed);
        let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        wanted > 0 && wanted.saturating_add(within) > self.ms(now)
    }

    fn note_wanted(&self) {
        self.wanted_ms.fetch_max(self.ms(time::now()) + 1, Ordering::Relaxed);
    }

    fn ms(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.made).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    /// Counts the bytes of a difference; `None` if there are too many. One alone always fits.
    pub(super) fn charge(self: &Arc<Self>, bytes: usize) -> Option<Arc<Charge>> {
        let fits = |before: usize| {
            (before == 0 || before + bytes <= self.bytes_max).then_some(before + bytes)
        };
        if self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            self.note_wanted();
            return None;
        }
        self.metrics.catch_up.inc_by(i64::try_from(bytes).unwrap_or(i64::MAX));
        Some(Arc::new(Charge { catch_ups: Arc::clone(self), bytes }))
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.catch_ups.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.catch_ups.metrics.catch_up.dec_by(i64::try_from(self.bytes).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn differences_are_counted_until_the_last_part_is_taken() {
        let metrics = Metrics::new().room;
        let catch_ups = Arc::new(CatchUps::new(1, 100, metrics.clone()));
        let first = catch_ups.charge(60).unwrap();
        assert!(catch_ups.has_room());
        assert!(catch_ups.charge(41).is_none());
        let second = catch_ups.charge(40).unwrap();
        assert!(!catch_ups.has_room());
        let part = Arc::clone(&first);
        drop(first);
        assert_eq!(metrics.catch_up.get(), 100);
        drop((part, second));
        assert_eq!(metrics.catch_up.get(), 0);
        assert!(catch_ups.charge(1000).is_some(), "one alone");
    }

    #[tokio::test(start_paused = true)]
    async fn loads_wait_for_their_turn_and_not_for_ever() {
        let catch_ups = CatchUps::new(1, 0, Metrics::new().room);
        let first = catch_ups.load(Duration::from_secs(1)).await.unwrap();
        assert!(catch_ups.load(Duration::from_secs(1)).await.is_none());
        drop(first);
        assert!(catch_ups.load(Duration::from_secs(1)).await.is_some());
    }
}
