//! Keeps what tokens are judged by up to date: the keys that the issuer publishes, and the list of
//! tokens that are taken back.
//!
//! One task fetches keys, so that there is one fetch at a time, whoever asks for it. What cannot be
//! fetched or read leaves everything as it was, for as long as it takes.

use std::{path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::{sleep, sleep_until, timeout},
};

use super::{
    Jwt,
    fetch::{FETCH_TIMEOUT, FetchError, Source},
    jwks::{KeySet, SetError},
    policy::Policy,
    revocations::{self, Revocations, Stamp},
};
use crate::{
    metrics::Outcome,
    time::{self, Duration, Instant},
};

/// A token with a `kid` that no key has makes the keys be fetched once in this time at most.
const ASK_INTERVAL: Duration = Duration::from_secs(60);

/// The first pause after a fetch that failed; it doubles with each, up to the interval.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// How often the list of revocations is looked at. Their effect is promised within 5 s.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Fetches that somebody waits for.
#[derive(Debug)]
pub(super) struct Asks {
    state: Mutex<Asked>,
    /// The last number that was served.
    served: watch::Sender<u64>,
    bell: Notify,
}

#[derive(Debug)]
struct Asked {
    /// The last number that was given out.
    number: u64,
    at: Option<Instant>,
}

impl Asks {
    /// The first fetch is waited for, as if somebody had asked for it.
    pub(super) fn new() -> Self {
        let state = Mutex::new(Asked { number: 1, at: None });
        Self { state, served: watch::Sender::new(0), bell: Notify::new() }
    }

    /// Waits for a fetch that begins now, or the one that others wait for. Returns whether there was
    /// one: not, if somebody has asked less than [`ASK_INTERVAL`] ago.
    ///
    /// # Cancellation
    ///
    /// The fetch goes on.
    pub(super) async fn ask(&self, now: Instant) -> bool {
        let Some(number) = self.number(now) else { return false };
        let mut served = self.served.subscribe();
        // One may be under way that began before.
        let wait = 2 * FETCH_TIMEOUT + Duration::from_secs(1);
        matches!(timeout(wait, served.wait_for(|served| *served >= number)).await, Ok(Ok(_)))
    }

    fn number(&self, now: Instant) -> Option<u64> {
        let mut asked = self.state.lock();
        if *self.served.borrow() < asked.number {
            return Some(asked.number);
        }
        if asked.at.is_some_and(|at| now.saturating_duration_since(at) < ASK_INTERVAL) {
            return None;
        }
        asked.number += 1;
        asked.at = Some(now);
        self.bell.notify_one();
        Some(asked.number)
    }

    fn begin(&self) -> u64 {
        self.state.lock().number
    }

    fn end(&self, number: u64) {
        self.served.send_replace(number);
    }
}

/// Why there are no new keys.
#[derive(Debug, thiserror::Error)]
enum NoKeys {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Set(#[from] SetError),
}

/// Fetches the keys of the issuer now, at every interval, and when somebody asks. Never ready.
///
/// # Cancellation
///
/// Nothing is lost but a fetch.
pub(super) async fn keep_keys(jwt: &Jwt) {
    let mut policy = jwt.policy.subscribe();
    let mut ignored = Vec::new();
    let mut failures = 0;
    loop {
        let source = policy.borrow_and_update().source.clone();
        let Some(source) = source else {
            // An error means that the authenticator is gone, which the borrow rules out.
            policy.changed().await.ok();
            continue;
        };
        let number = jwt.asks.begin();
        let fetched = fetch(&source).await;
        let now = time::now();
        let next = match fetched {
            Ok(set) => {
                failures = 0;
                if ignored != set.ignored {
                    for what in &set.ignored {
                        tracing::warn!(url = %source, "{what}: it is passed over");
                    }
                    ignored.clone_from(&set.ignored);
                }
                jwt.publish(&source, set);
                now + source.interval
            }
            Err(error) => {
                jwt.fetch_failed();
                let pause = RETRY_MIN.saturating_mul(2_u32.saturating_pow(failures));
                let pause = pause.min(source.interval);
                failures = failures.saturating_add(1);
                tracing::error!(
                    url = %source,
                    error = &error as &dyn std::error::Error,
                    again_in = ?pause,
                    "the keys of the issuer cannot be fetched: the ones before stay"
                );
                now + pause
            }
        };
        jwt.asks.end(number);
        let is_other = |policy: &Arc<Policy>| {
            !policy.source.as_ref().is_some_and(|now| Arc::ptr_eq(now, &source))
        };
        tokio::select! {
            biased;
            _ = policy.wait_for(is_other) => failures = 0,
            () = jwt.asks.bell.notified() => {}
            () = sleep_until(next) => {}
        }
    }
}

async fn fetch(source: &Source) -> Result<KeySet, NoKeys> {
    Ok(KeySet::parse(&source.get().await?)?)
}

impl Jwt {
    /// Takes keys that were fetched from `source`, unless it is no longer the one.
    pub(super) fn publish(&self, source: &Arc<Source>, set: KeySet) {
        self.metrics.fetched(Outcome::Ok);
        let seconds = i64::try_from(time::wall_ms() / 1000).unwrap_or(i64::MAX);
        self.metrics.jwks_fetched.set(seconds);
        self.is_stale.store(false, std::sync::atomic::Ordering::Relaxed);
        let digests =
            |keys: &[super::Key]| -> Vec<_> { keys.iter().map(|key| key.digest).collect() };
        let keys: Arc<[super::Key]> = set.keys.into();
        let replaced = self.replace(|policy| {
            let is_current = policy.source.as_ref().is_some_and(|now| Arc::ptr_eq(now, source));
            let same = policy.fetched.as_ref().is_some_and(|old| digests(old) == digests(&keys));
            (is_current && !same)
                .then(|| Policy { fetched: Some(Arc::clone(&keys)), ..policy.clone() })
        });
        if replaced {
            tracing::info!(url = %source, keys = keys.len(), "new keys of the issuer");
        }
    }

    fn fetch_failed(&self) {
        self.metrics.fetched(Outcome::Failed);
        self.is_stale.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    fn take_list(&self, path: &Arc<PathBuf>, revocations: Revocations) {
        let entries = revocations.len();
        let revocations = Arc::new(revocations);
        let replaced = self.replace(|policy| {
            let is_current = policy.list.as_ref().is_some_and(|now| Arc::ptr_eq(now, path));
            (is_current && policy.revocations != revocations)
                .then(|| Policy { revocations: Arc::clone(&revocations), ..policy.clone() })
        });
        if replaced {
            tracing::info!(entries, "the list of revocations was read anew");
        }
    }
}

/// Reads the list of revocations whenever it has changed. Never ready.
///
/// # Cancellation
///
/// Nothing is lost.
pub(super) async fn keep_revocations(jwt: &Jwt) {
    let mut policy = jwt.policy.subscribe();
    let mut seen: Option<(Arc<PathBuf>, Stamp)> = None;
    loop {
        let list = policy.borrow_and_update().list.clone();
        let Some(list) = list else {
            policy.changed().await.ok();
            continue;
        };
        let before = seen.take().filter(|(path, _)| Arc::ptr_eq(path, &list));
        let before = before.map(|(_, stamp)| stamp);
        let path = Arc::clone(&list);
        let look = tokio::task::spawn_blocking(move || {
            // Before it is read, so that a change while it is is not missed.
            let now = revocations::stamp(&path);
            let changed = before != Some(now);
            (now, changed.then(|| Revocations::load(&path)))
        });
        if let Ok((now, read)) = look.await {
            match read {
                None => {}
                Some(Ok(revocations)) => jwt.take_list(&list, revocations),
                Some(Err(error)) => {
                    jwt.metrics.revocation_failures.inc();
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the list of revocations cannot be used: the one before stays"
                    );
                }
            }
            seen = Some((list, now));
        }
        sleep(LOOK_INTERVAL).await;
    }
}
