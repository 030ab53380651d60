//! How much a session and a principal may send: token buckets, paid once for each delivery.
//!
//! What cannot be paid is held, and nothing more is taken until it is paid: whoever sends over a
//! socket of its own feels back-pressure. Where many share a connection, what is not read would end
//! it for all of them, so there a little more is taken and held, and then the session ends.

use std::{
    collections::VecDeque,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use dashmap::DashMap;
use governor::{
    Quota, RateLimiter,
    clock::Clock,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::{CloseReason, Delivery, Frame};
use crate::{
    ids::Principal,
    metrics::SessionMetrics,
    time::{self, Duration, Instant},
};

/// Frames that are held at most where more may not wait in the connection.
const HELD_FRAMES_MAX: usize = 1024;

/// Bytes of frames from which on no more are held there.
const HELD_BYTES_MAX: usize = 1 << 20;

/// A session that was not held back for this long has caught up.
const CALM: Duration = Duration::from_secs(1);

/// Principals that are known from which on those are forgotten that have gone.
const SWEEP_MIN: usize = 1024;

/// What sessions and principals may send: the table `[limits]`. A rate of 0 is no limit.
///
/// An honest editor meets none of these. A key that is held down makes 30 edits/s, and an agent that
/// types 100; cursors and pongs add 20. A paste and what was typed offline are one update of at most
/// `session.update_bytes_max`, which always fits into what may be sent at once. Clients that keep a
/// window send one difference for all that did not fit into it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Frames that a session may send each second: twice what the fastest honest one does.
    pub session_frames_per_second: u32,
    /// Bytes of frames that a session may send each second.
    pub session_bytes_per_second: u32,
    /// Frames that all sessions of a principal may send each second: four sessions at their limit,
    /// or a person's ten tabs in use. Whoever has no credentials is nobody in particular, and is
    /// limited by session only.
    pub principal_frames_per_second: u32,
    /// Bytes that all sessions of a principal may send each second.
    pub principal_bytes_per_second: u32,
    /// How much may come at once: what may be sent in this time.
    #[serde(with = "humantime_serde")]
    pub burst: Duration,
    /// How long a session may be held back without catching up before it is ended.
    #[serde(with = "humantime_serde")]
    pub throttled_max: Duration,
    /// Sessions of a principal at most; 0 is no limit.
    pub sessions_per_principal_max: usize,
    /// Joins of a principal each second. With `burst`, all sessions that it may have come back at
    /// once after a restart.
    pub joins_per_second: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            session_frames_per_second: 200,
            session_bytes_per_second: 1 << 20,
            principal_frames_per_second: 800,
            principal_bytes_per_second: 4 << 20,
            burst: Duration::from_secs(5),
            throttled_max: Duration::from_secs(10),
            sessions_per_principal_max: 1000,
            joins_per_second: 200,
        }
    }
}

impl Config {
    /// No limit at all: for measurements of the server itself.
    #[must_use]
    pub fn none() -> Self {
        Self {
            session_frames_per_second: 0,
            session_bytes_per_second: 0,
            principal_frames_per_second: 0,
            principal_bytes_per_second: 0,
            sessions_per_principal_max: 0,
            joins_per_second: 0,
            ..Self::default()
        }
    }

    /// Checks the values against each other.
    ///
    /// # Errors
    ///
    /// A sentence that names the key.
    pub fn validate(&self) -> Result<(), String> {
        for (key, rate) in [
            ("session_frames_per_second", self.session_frames_per_second),
            ("session_bytes_per_second", self.session_bytes_per_second),
            ("principal_frames_per_second", self.principal_frames_per_second),
            ("principal_bytes_per_second", self.principal_bytes_per_second),
            ("joins_per_second", self.joins_per_second),
        ] {
            if rate > 1_000_000_000 {
                return Err(format!("limits.{key} must be at most 1000000000; 0 is no limit"));
            }
        }
        if self.burst < Duration::from_secs(1) || self.burst > Duration::from_secs(60) {
            return Err("limits.burst must be from 1s to 1m".to_owned());
        }
        if self.throttled_max.is_zero() {
            return Err("limits.throttled_max must be more than 0s".to_owned());
        }
        Ok(())
    }
}

/// The clock of a purse: the time that its user has read already, since the purse was made. Reading
/// the clock for each of four buckets would cost more than all else that they do.
#[derive(Clone, Debug, Default)]
struct Given(Arc<AtomicU64>);

impl Clock for Given {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.load(Ordering::Relaxed).into()
    }
}

/// A token bucket.
#[derive(Debug)]
struct Bucket {
    limiter: RateLimiter<NotKeyed, InMemoryState, Given>,
    capacity: NonZeroU32,
}

impl Bucket {
    /// A full bucket that gets `rate` each second, up to those of `burst`, but at least `least`;
    /// `None` for a rate of 0.
    fn new(rate: u32, burst: Duration, least: u32, clock: &Given) -> Option<Self> {
        let rate = NonZeroU32::new(rate)?;
        let capacity = (f64::from(rate.get()) * burst.as_secs_f64()) as u32;
        let capacity = NonZeroU32::new(capacity.max(least)).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(rate).allow_burst(capacity);
        let limiter = RateLimiter::direct_with_clock(quota, clock.clone());
        Some(Self { limiter, capacity })
    }

    /// Pays as much of what is owed as there is, in parts of the whole bucket where it is more than
    /// that; returns how long it takes until the next part is there, if something is left.
    fn pay(&self, now: Nanos, owed: &mut u32) -> Option<Duration> {
        while let Some(part) = NonZeroU32::new((*owed).min(self.capacity.get())) {
            match self.limiter.check_n(part) {
                Ok(Ok(())) => *owed -= part.get(),
                // The timer's steps are a millisecond.
                Ok(Err(not_until)) => {
                    return Some(not_until.wait_time_from(now).max(Duration::from_millis(1)));
                }
                // More than the bucket holds, which a part is not.
                Err(_) => return None,
            }
        }
        None
    }
}

/// What is to be paid, or may be in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cost {
    frames: u32,
    bytes: u32,
}

impl Cost {
    fn of(frames: &[Frame]) -> Self {
        // A message without a frame is work too.
        let count = u32::try_from(frames.len()).unwrap_or(u32::MAX).max(1);
        let bytes = frames.iter().map(bytes).sum::<usize>();
        Self { frames: count, bytes: u32::try_from(bytes).unwrap_or(u32::MAX) }
    }
}

fn bytes(frame: &Frame) -> usize {
    match frame {
        Frame::Update { update, .. } | Frame::Difference { update, .. } => update.len(),
        Frame::Sync(bytes) | Frame::Awareness(bytes) => bytes.len(),
        Frame::Presence(state) => state.state.len(),
        Frame::RefreshToken(token) => token.expose().len(),
        Frame::Join(_) | Frame::Pong | Frame::Leave => 0,
    }
}

/// The buckets of one who pays.
#[derive(Debug)]
struct Purse {
    clock: Given,
    made: Instant,
    frames: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl Purse {
    fn new(rates: Cost, burst: Duration, bytes_least: u32, now: Instant) -> Self {
        let clock = Given::default();
        let frames = Bucket::new(rates.frames, burst, 1, &clock);
        let bytes = Bucket::new(rates.bytes, burst, bytes_least, &clock);
        Self { clock, made: now, frames, bytes }
    }

    /// Pays as much as there is; returns when to try again, if something is left.
    fn pay(&self, now: Instant, owed: &mut Cost) -> Option<Instant> {
        if self.frames.is_none() && self.bytes.is_none() {
            return None;
        }
        let since = now.saturating_duration_since(self.made);
        let since = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        // Somebody else may have been here with a later time.
        let since = self.clock.0.fetch_max(since, Ordering::Relaxed).max(since).into();
        let frames = self.frames.as_ref().and_then(|bucket| bucket.pay(since, &mut owed.frames));
        let bytes = self.bytes.as_ref().and_then(|bucket| bucket.pay(since, &mut owed.bytes));
        frames.max(bytes).map(|wait| now + wait)
    }
}

/// What all sessions of a server may send. Changes reach them with the next thing that they take.
#[derive(Debug)]
pub(super) struct Limits {
    /// Held while principals are added, so that none is made with limits that have just changed.
    current: RwLock<Config>,
    /// Counts the changes.
    generation: AtomicU64,
    /// The largest update, which always fits.
    update_bytes_max: u32,
    principals: DashMap<Principal, Arc<Known>>,
    sweep_at: AtomicUsize,
    made: Instant,
    metrics: SessionMetrics,
}

/// A principal that has sessions, or had some a moment ago.
#[derive(Debug)]
struct Known {
    purse: RwLock<Arc<Purse>>,
    joins: RwLock<Purse>,
    sessions: AtomicUsize,
    /// When the last session ended, in milliseconds since the limits were made.
    left_ms: AtomicU64,
}

impl Limits {
    pub(super) fn new(config: Config, update_bytes_max: usize, metrics: SessionMetrics) -> Self {
        let update_bytes_max = u32::try_from(update_bytes_max).unwrap_or(u32::MAX);
        Self {
            current: RwLock::new(config),
            generation: AtomicU64::new(0),
            update_bytes_max,
            principals: DashMap::new(),
            sweep_at: AtomicUsize::new(SWEEP_MIN),
            made: time::now(),
            metrics,
        }
    }

    /// Takes `config` in the place of what was there. Buckets are full again.
    pub(super) fn set(&self, config: Config) {
        let now = time::now();
        let mut current = self.current.write();
        *current = config;
        for known in &self.principals {
            *known.purse.write() = self.principal_purse(&current, now);
            *known.joins.write() = joins(&current, now);
        }
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn session_purse(&self, config: &Config, now: Instant) -> Purse {
        let (frames, bytes) = (config.session_frames_per_second, config.session_bytes_per_second);
        Purse::new(Cost { frames, bytes }, config.burst, self.update_bytes_max, now)
    }

    fn principal_purse(&self, config: &Config, now: Instant) -> Arc<Purse> {
        let frames = config.principal_frames_per_second;
        let bytes = config.principal_bytes_per_second;
        Arc::new(Purse::new(Cost { frames, bytes }, config.burst, self.update_bytes_max, now))
    }

    /// Lets one more session of `principal` in.
    ///
    /// # Errors
    ///
    /// It has as many as it may have, or comes too often.
    pub(super) fn admit(
        self: &Arc<Self>,
        now: Instant,
        principal: &Principal,
    ) -> Result<Box<Throttle>, CloseReason> {
        let config = self.current.read();
        let known = (*principal != Principal::anonymous()).then(|| self.known(&config, principal));
        let member = match known {
            Some(known) => {
                let mut one = Cost { frames: 1, bytes: 0 };
                if known.joins.read().pay(now, &mut one).is_some() {
                    return Err(CloseReason::RateLimited);
                }
                // Counted first, so that of two at the same time one is refused at most. It is
                // uncounted when the member is dropped.
                let sessions = known.sessions.fetch_add(1, Ordering::Relaxed);
                let member = Member { known, limits: Arc::clone(self) };
                let max = config.sessions_per_principal_max;
                if max > 0 && sessions >= max {
                    return Err(CloseReason::TooManySessionsOfPrincipal(max));
                }
                Some(member)
            }
            None => None,
        };
        let generation = self.generation.load(Ordering::Acquire);
        let shared = member.as_ref().map(|member| Arc::clone(&member.known.purse.read()));
        // In a box: the task of a session has room for everything that it ever holds.
        Ok(Box::new(Throttle {
            own: self.session_purse(&config, now),
            shared,
            max: config.throttled_max,
            generation,
            member,
            limits: Arc::clone(self),
            held: VecDeque::new(),
            held_frames: 0,
            held_bytes: 0,
            owed: [Cost::default(); 2],
            until: None,
            since: None,
            resumed: None,
        }))
    }

    fn known(&self, config: &Config, principal: &Principal) -> Arc<Known> {
        if let Some(known) = self.principals.get(principal) {
            return Arc::clone(&known);
        }
        let now = time::now();
        if self.principals.len() >= self.sweep_at.load(Ordering::Relaxed) {
            self.sweep(config, now);
        }
        let entry = self.principals.entry(principal.clone()).or_insert_with(|| {
            Arc::new(Known {
                purse: RwLock::new(self.principal_purse(config, now)),
                joins: RwLock::new(joins(config, now)),
                sessions: AtomicUsize::new(0),
                left_ms: AtomicU64::new(self.ms(now)),
            })
        });
        Arc::clone(&entry)
    }

    /// Forgets principals without sessions whose buckets are full again: there is nothing to know of
    /// them. Done when there are twice as many as were left the last time.
    fn sweep(&self, config: &Config, now: Instant) {
        let burst = u64::try_from(config.burst.as_millis()).unwrap_or(u64::MAX);
        let now = self.ms(now);
        self.principals.retain(|_, known| {
            // Each session has it, and so has who is just about to be one.
            Arc::strong_count(known) > 1
                || known.left_ms.load(Ordering::Relaxed).saturating_add(burst) > now
        });
        let at = (2 * self.principals.len()).max(SWEEP_MIN);
        self.sweep_at.store(at, Ordering::Relaxed);
    }

    fn ms(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.made).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }
}

fn joins(config: &Config, now: Instant) -> Purse {
    Purse::new(Cost { frames: config.joins_per_second, bytes: 0 }, config.burst, 1, now)
}

/// A session of a principal. Dropped, it is one less.
#[derive(Debug)]
struct Member {
    known: Arc<Known>,
    limits: Arc<Limits>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.known.left_ms.store(self.limits.ms(time::now()), Ordering::Relaxed);
        self.known.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one session sends, against what it may send.
#[derive(Debug)]
pub(super) struct Throttle {
    limits: Arc<Limits>,
    generation: u64,
    own: Purse,
    shared: Option<Arc<Purse>>,
    max: Duration,
    member: Option<Member>,
    /// What is not paid yet, in order.
    held: VecDeque<Delivery>,
    held_frames: usize,
    held_bytes: usize,
    /// What the session and its principal still owe for the first that is held.
    owed: [Cost; 2],
    /// When to try again, while something is held.
    until: Option<Instant>,
    /// Since when the session has not caught up.
    since: Option<Instant>,
    /// When something was last held no longer.
    resumed: Option<Instant>,
}

/// What becomes of a delivery.
#[derive(Debug)]
pub(super) enum Taken {
    /// It is paid.
    Paid(Delivery),
    /// It waits, see [`Throttle::until`].
    Held,
    /// More is held than may be.
    Full,
}

impl Throttle {
    /// Whether more may be taken; `waits` says whether it would do no harm where it is.
    pub(super) fn takes(&self, waits: bool) -> bool {
        self.until.is_none() || !waits
    }

    /// When [`Self::resume`] has something to do.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Pays for a delivery, or holds it.
    pub(super) fn take(&mut self, now: Instant, delivery: Delivery) -> Taken {
        if self.until.is_none() {
            self.renew(now);
            self.owed = [Cost::of(&delivery.frames); 2];
            self.until = self.pay(now);
            if self.until.is_none() {
                return Taken::Paid(delivery);
            }
            self.begin(now);
        } else if self.held_frames >= HELD_FRAMES_MAX || self.held_bytes >= HELD_BYTES_MAX {
            // To be told the end with the others.
            self.held.push_back(delivery);
            return Taken::Full;
        }
        self.held_frames += delivery.frames.len().max(1);
        self.held_bytes += delivery.frames.iter().map(bytes).sum::<usize>();
        self.held.push_back(delivery);
        Taken::Held
    }

    /// The next delivery that is paid, of those that are held.
    pub(super) fn resume(&mut self, now: Instant) -> Option<Delivery> {
        self.until?;
        self.renew(now);
        let wait = self.pay(now);
        if wait.is_some() {
            self.until = self.since.map(|since| since + self.max).into_iter().chain(wait).min();
            return None;
        }
        let paid = self.held.pop_front()?;
        self.held_frames -= paid.frames.len().max(1);
        self.held_bytes -= paid.frames.iter().map(bytes).sum::<usize>();
        match self.held.front() {
            Some(next) => self.owed = [Cost::of(&next.frames); 2],
            None => {
                self.held = VecDeque::new();
                (self.until, self.resumed) = (None, Some(now));
            }
        }
        Some(paid)
    }

    /// Held back for longer than a session may be.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_some() && self.since.is_some_and(|since| since + self.max <= now)
    }

    /// Something is held.
    pub(super) fn is_holding(&self) -> bool {
        self.until.is_some()
    }

    /// Tells those who wait for what is held that the session has ended.
    pub(super) fn end(&mut self, reason: &CloseReason) {
        for Delivery { reply, .. } in self.held.drain(..) {
            if let Some(reply) = reply {
                // An error means that the caller has gone.
                drop(reply.send(Err(reason.clone())));
            }
        }
    }

    fn begin(&mut self, now: Instant) {
        if self.resumed.is_none_or(|resumed| resumed + CALM <= now) {
            self.since = Some(now);
            self.limits.metrics.throttled.inc();
        }
        let over = self.since.map(|since| since + self.max);
        self.until = self.until.into_iter().chain(over).min();
    }

    fn pay(&mut self, now: Instant) -> Option<Instant> {
        let [own, shared] = &mut self.owed;
        let own = self.own.pay(now, own);
        let shared = self.shared.as_ref().and_then(|purse| purse.pay(now, shared));
        own.max(shared)
    }

    /// Takes over limits that have changed.
    fn renew(&mut self, now: Instant) {
        let generation = self.limits.generation.load(Ordering::Acquire);
        if generation == self.generation {
            return;
        }
        let config = self.limits.current.read();
        self.generation = generation;
        self.own = self.limits.session_purse(&config, now);
        self.shared = self.member.as_ref().map(|member| Arc::clone(&member.known.purse.read()));
        self.max = config.throttled_max;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration as Span;

    use bytes::Bytes;

    use super::*;
    use crate::metrics::Metrics;

    fn limits(config: Config) -> Arc<Limits> {
        Arc::new(Limits::new(config, 1 << 20, Metrics::new().session))
    }

    fn alice() -> Principal {
        Principal::new("alice").unwrap()
    }

    fn delivery(frames: usize, bytes: usize) -> Delivery {
        let update = Bytes::from(vec![0; bytes]);
        let frame = |i| Frame::Update { update_id: i as u64, update: update.clone() };
        Delivery { frames: (0..frames).map(frame).collect(), reply: None }
    }

    /// Sends as fast as it is let, and returns how many frames got through in `span`.
    fn flood(throttle: &mut Throttle, start: Instant, span: Span, frames: usize) -> usize {
        let mut now = start;
        let mut through = 0;
        while now < start + span {
            match throttle.until() {
                None => match throttle.take(now, delivery(frames, 10)) {
                    Taken::Paid(delivery) => through += delivery.frames.len(),
                    Taken::Held => {}
                    Taken::Full => panic!("full"),
                },
                Some(until) => {
                    now = until.max(now);
                    while let Some(paid) = throttle.resume(now) {
                        through += paid.frames.len();
                    }
                }
            }
        }
        through
    }

    #[test]
    fn a_session_gets_its_burst_and_then_its_rate_and_no_more() {
        let start = time::now();
        for size in [1, 7, 64, 900] {
            let throttled_max = Span::from_secs(1000);
            let limits = limits(Config { throttled_max, ..Config::default() });
            let mut throttle = limits.admit(start, &Principal::anonymous()).unwrap();
            let through = flood(&mut throttle, start, Span::from_secs(60), size);
            // A burst of 5 s and 60 s at 200/s, and not more than one delivery from it.
            assert!((13_000 - size..=13_000 + size).contains(&through), "{size}: {through}");
        }
    }

    #[test]
    fn a_delivery_larger_than_the_bucket_is_paid_in_full_before_the_next() {
        let start = time::now();
        let throttled_max = Span::from_secs(1000);
        let limits = limits(Config { throttled_max, ..Config::default() });
        let mut throttle = limits.admit(start, &Principal::anonymous()).unwrap();
        // Three buckets: two of them take 10 s.
        assert!(matches!(throttle.take(start, delivery(3000, 1)), Taken::Held));
        let mut now = start;
        loop {
            now = throttle.until().unwrap().max(now);
            if throttle.resume(now).is_some() {
                break;
            }
        }
        let took = (now - start).as_secs_f64();
        assert!((9.9..10.1).contains(&took), "{took}");
        assert!(!throttle.is_holding());
    }

    #[test]
    fn one_update_of_the_largest_size_fits_whatever_the_rates_are() {
        let start = time::now();
        let config = Config { session_bytes_per_second: 1000, ..Config::default() };
        let limits = limits(config);
        let mut throttle = limits.admit(start, &alice()).unwrap();
        assert!(matches!(throttle.take(start, delivery(1, 1 << 20)), Taken::Paid(_)));
        assert!(matches!(throttle.take(start, delivery(1, 1 << 10)), Taken::Held));
    }

    #[test]
    fn the_sessions_of_a_principal_share_its_rate_and_those_of_nobody_do_not() {
        let start = time::now();
        for (principal, floods) in [(alice(), 1), (Principal::anonymous(), 10)] {
            let config = Config { session_frames_per_second: 0, ..Config::default() };
            let limits = limits(Config { principal_frames_per_second: 200, ..config });
            let mut all = 0;
            for _ in 0..10 {
                let mut throttle = limits.admit(start, &principal).unwrap();
                for _ in 0..1000 {
                    all +=
                        usize::from(matches!(throttle.take(start, delivery(1, 1)), Taken::Paid(_)));
                    if throttle.is_holding() {
                        break;
                    }
                }
            }
            assert_eq!(all, floods * 1000);
        }
    }

    #[test]
    fn a_principal_has_no_more_sessions_than_it_may_and_may_have_others_when_they_end() {
        let now = time::now();
        let limits = limits(Config { sessions_per_principal_max: 3, ..Config::default() });
        let mut open: Vec<_> = (0..3).map(|_| limits.admit(now, &alice()).unwrap()).collect();
        let refused = limits.admit(now, &alice()).unwrap_err();
        assert_eq!(refused, CloseReason::TooManySessionsOfPrincipal(3));
        assert!(limits.admit(now, &Principal::new("bob").unwrap()).is_ok());
        open.pop();
        assert!(limits.admit(now, &alice()).is_ok());
    }

    #[test]
    fn a_principal_that_comes_and_goes_is_limited_although_nothing_of_it_is_open() {
        let now = time::now();
        let limits = limits(Config { joins_per_second: 10, ..Config::default() });
        let joined = (0..1000).filter(|_| limits.admit(now, &alice()).is_ok()).count();
        assert_eq!(joined, 50);
        assert!(limits.admit(now + Span::from_millis(101), &alice()).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn principals_that_have_gone_are_forgotten() {
        let limits = limits(Config::default());
        let stays = limits.admit(time::now(), &alice()).unwrap();
        for round in 0..10 {
            tokio::time::advance(Span::from_secs(10)).await;
            for i in 0..1000 {
                let name = Principal::new(&format!("{round}/{i}")).unwrap();
                drop(limits.admit(time::now(), &name).unwrap());
            }
        }
        assert!(limits.principals.len() <= 3 * SWEEP_MIN, "{}", limits.principals.len());
        assert!(limits.principals.contains_key(&alice()));
        drop(stays);
    }

    #[test]
    fn other_limits_count_for_sessions_that_are_open() {
        let now = time::now();
        let limits = limits(Config::default());
        let mut throttle = limits.admit(now, &alice()).unwrap();
        assert!(matches!(throttle.take(now, delivery(2000, 1)), Taken::Held));
        limits.set(Config::none());
        assert!(throttle.resume(now).is_some());
        assert!(matches!(throttle.take(now, delivery(5000, 1)), Taken::Paid(_)));
        limits.set(Config { principal_frames_per_second: 1, ..Config::none() });
        assert!(matches!(throttle.take(now, delivery(6, 1)), Taken::Held));
    }

    #[test]
    fn what_is_held_is_bounded_in_frames_and_in_bytes() {
        for (frames, bytes, most) in [(1, 1, HELD_FRAMES_MAX), (1, 1 << 18, 4)] {
            let now = time::now();
            let config = Config { session_frames_per_second: 1, ..Config::default() };
            let limits = limits(config);
            let mut throttle = limits.admit(now, &Principal::anonymous()).unwrap();
            assert!(matches!(throttle.take(now, delivery(5, 1)), Taken::Paid(_)));
            let mut held = 0;
            while matches!(throttle.take(now, delivery(frames, bytes)), Taken::Held) {
                held += 1;
            }
            assert_eq!(held, most);
            assert!(throttle.takes(false) && !throttle.takes(true));
        }
    }

    #[test]
    fn a_session_that_never_catches_up_is_over_and_one_that_does_is_not() {
        let start = time::now();
        let limits = limits(Config::default());
        let mut throttle = limits.admit(start, &Principal::anonymous()).unwrap();
        let mut now = start;
        let mut paid = 0;
        while !throttle.is_over(now) {
            match throttle.until() {
                None => drop(throttle.take(now, delivery(10, 1))),
                Some(until) => {
                    now = until;
                    paid += usize::from(throttle.resume(now).is_some());
                }
            }
        }
        assert_eq!((now - start).as_secs(), 10, "{paid}");
        // Bursts with pauses between them.
        let mut throttle = limits.admit(start, &Principal::anonymous()).unwrap();
        let mut now = start;
        for _ in 0..20 {
            drop(throttle.take(now, delivery(999, 1)));
            drop(throttle.take(now, delivery(400, 1)));
            while let Some(until) = throttle.until() {
                assert!(!throttle.is_over(now));
                now = until;
                throttle.resume(now);
            }
            now += Span::from_secs(6);
        }
        assert_eq!(limits.metrics.throttled.get(), 21);
    }
}
