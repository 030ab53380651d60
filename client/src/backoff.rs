//! When to come back after a loss.

use std::time::Duration;

use rand::RngExt as _;

/// The first delay is at most this.
const FIRST_MAX: Duration = Duration::from_millis(250);
/// No delay of this side's own is longer: a person waits for it.
const DELAY_MAX: Duration = Duration::from_secs(30);
/// A session that lived this long was a good one: the next loss starts from the first delay. Shorter
/// ones do not count, or a server that accepts and drops would be asked four times a second.
pub(crate) const STABLE: Duration = Duration::from_secs(30);

/// Exponential backoff with full jitter: each delay is chosen evenly between nothing and a bound
/// that doubles, so that many clients of one server do not come back together.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    losses: u32,
}

impl Backoff {
    /// The delay after a loss. `lived` is how long the session was open, `None` if it never was.
    /// `retry_after` is what the server asks for: the delay is not shorter.
    pub(crate) fn after_loss(
        &mut self,
        lived: Option<Duration>,
        retry_after: Option<Duration>,
    ) -> Duration {
        if lived.is_some_and(|lived| lived >= STABLE) {
            self.losses = 0;
        }
        let bound = FIRST_MAX.saturating_mul(1_u32 << self.losses.min(16)).min(DELAY_MAX);
        self.losses = self.losses.saturating_add(1);
        let delay = bound.mul_f64(rand::rng().random_range(0.0..=1.0));
        delay.max(retry_after.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_delay_is_longer_than_its_bound() {
        for _ in 0..50 {
            let mut backoff = Backoff::default();
            for loss in 0..20 {
                let bound = (FIRST_MAX * 2_u32.pow(loss.min(10))).min(DELAY_MAX);
                assert!(backoff.after_loss(None, None) <= bound);
            }
        }
    }

    #[test]
    fn the_server_is_not_asked_before_it_wants_to_be() {
        let mut backoff = Backoff::default();
        let asked = Duration::from_secs(90);
        assert_eq!(backoff.after_loss(None, Some(asked)), asked);
    }

    #[test]
    fn only_a_stable_session_resets_the_bound() {
        let mut backoff = Backoff::default();
        for _ in 0..10 {
            backoff.after_loss(Some(STABLE / 2), None);
        }
        assert_eq!(backoff.losses, 10);
        assert!(backoff.after_loss(Some(STABLE), None) <= FIRST_MAX);
        assert_eq!(backoff.losses, 1);
    }
}
