//! When to ask for a sign of life, and when to give up.

use crate::time::{Duration, Instant};

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing before this time.
    At(Instant),
    /// A ping with this nonce.
    Ping(u64),
    /// The session is dead.
    Evict,
}

/// The heartbeat of one session.
#[derive(Debug)]
pub(super) struct Heartbeat {
    interval: Duration,
    timeout: Duration,
    heard: Instant,
    /// When the next ping is sent, if nothing is heard before.
    ping_at: Instant,
    nonce: u64,
}

impl Heartbeat {
    /// A session from which something was heard `now`. Its first ping comes earlier by
    /// `jitter`, from 0 to 1, times half the interval, so that sessions that were opened together do
    /// not beat together.
    pub(super) fn new(interval: Duration, timeout: Duration, now: Instant, jitter: f64) -> Self {
        let ping_at = now + interval.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0);
        Self { interval, timeout, heard: now, ping_at, nonce: 0 }
    }

    /// Something was heard.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard = now;
        // The first ping keeps its jitter; later ones follow what was heard.
        if self.nonce > 0 {
            self.ping_at = now + self.interval;
        }
    }

    /// What is due `now`. A ping counts as sent.
    pub(super) fn due(&mut self, now: Instant) -> Due {
        if now >= self.heard + self.timeout {
            return Due::Evict;
        }
        if now >= self.ping_at {
            self.ping_at = now + self.interval;
            self.nonce += 1;
            return Due::Ping(self.nonce);
        }
        Due::At(self.ping_at.min(self.heard + self.timeout))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(15);
    const TIMEOUT: Duration = Duration::from_secs(45);

    /// Runs the heartbeat from deadline to deadline and lists what happens, in seconds.
    fn run(heard: &[u64], until: u64) -> Vec<(u64, Due)> {
        let start = crate::time::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut heartbeat = Heartbeat::new(INTERVAL, TIMEOUT, start, 0.0);
        let mut events = Vec::new();
        for second in 0..=until {
            if heard.contains(&second) {
                heartbeat.heard(at(second));
            }
            match heartbeat.due(at(second)) {
                Due::At(_) => {}
                due @ (Due::Ping(_) | Due::Evict) => events.push((second, due)),
            }
            if matches!(events.last(), Some((_, Due::Evict))) {
                break;
            }
        }
        events
    }

    #[test]
    fn a_silent_client_is_asked_twice_and_then_evicted() {
        let events = run(&[], 100);
        assert_eq!(events, [(15, Due::Ping(1)), (30, Due::Ping(2)), (45, Due::Evict)]);
    }

    #[test]
    fn a_client_that_answers_stays() {
        let events = run(&[16, 32, 48, 64, 80, 96], 100);
        assert!(events.iter().all(|(_, due)| matches!(due, Due::Ping(_))), "{events:?}");
    }

    #[test]
    fn a_client_that_talks_is_asked_once_at_most() {
        let events = run(&(0..100).step_by(10).collect::<Vec<_>>(), 100);
        assert_eq!(events, [(15, Due::Ping(1))]);
    }

    #[test]
    fn jitter_brings_the_first_ping_forward_by_up_to_half_an_interval() {
        let start = crate::time::now() + Duration::from_secs(100);
        for (jitter, first) in [(0.0, 15.0), (0.5, 11.25), (1.0, 7.5)] {
            let mut heartbeat = Heartbeat::new(INTERVAL, TIMEOUT, start, jitter);
            let Due::At(at) = heartbeat.due(start) else { panic!("a ping at once") };
            assert_eq!((at - start).as_secs_f64(), first, "{jitter}");
        }
    }
}
