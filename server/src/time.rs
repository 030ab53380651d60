//! The only reader of the clock. Deadlines use the runtime's clock, which tests can pause; wall time
//! is only for records and people.

use std::time::{SystemTime, UNIX_EPOCH};

pub use tokio::time::{Duration, Instant};

/// The monotonic time now, on the clock of the runtime: virtual where a test has paused it.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// The wall time now in milliseconds since 1970, 0 for a clock set before that. For records, never
/// for deadlines: it may jump.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn wall_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}
