//! The settings of sessions.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The settings of sessions: the table `[session]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a new stream may take to say whom it joins.
    #[serde(with = "humantime_serde")]
    pub join_timeout: Duration,
    /// A ping is sent after this long without a frame from the client. 15 s: half of the 30 s after
    /// which common proxies and clients take a silent connection for dead.
    #[serde(with = "humantime_serde")]
    pub heartbeat_interval: Duration,
    /// A session is ended after this long without a frame from the client.
    #[serde(with = "humantime_serde")]
    pub heartbeat_timeout: Duration,
    /// The largest update, in bytes.
    pub update_bytes_max: usize,
    /// The most structs and ranges of deletions in an update. What is applied at once takes up to 2 us
    /// for each; one MiB of edits of an editor has some ten thousand.
    pub update_parts_max: usize,
    /// The largest awareness state, in bytes.
    pub awareness_bytes_max: usize,
    /// When the server shuts down, clients are told to come back after a random time up to this.
    #[serde(with = "humantime_serde")]
    pub drain_retry_max: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            join_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(15),
            heartbeat_timeout: Duration::from_secs(45),
            update_bytes_max: 1 << 20,
            update_parts_max: 100_000,
            awareness_bytes_max: 4 << 10,
            drain_retry_max: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// Checks the values against each other.
    ///
    /// # Errors
    ///
    /// A sentence that names the key.
    pub fn validate(&self) -> Result<(), String> {
        if self.heartbeat_interval < Duration::from_millis(100) {
            return Err("session.heartbeat_interval must be at least 100ms".to_owned());
        }
        if self.heartbeat_timeout <= 2 * self.heartbeat_interval {
            return Err("session.heartbeat_timeout must be more than twice \
                        session.heartbeat_interval: one lost answer must not end a session"
                .to_owned());
        }
        if self.join_timeout.is_zero() {
            return Err("session.join_timeout must be more than 0s".to_owned());
        }
        if self.update_bytes_max < 1024 || self.update_bytes_max > 64 << 20 {
            return Err(
                "session.update_bytes_max must be from 1024 to 67108864 (64 MiB)".to_owned()
            );
        }
        if self.update_parts_max < 1000 {
            return Err("session.update_parts_max must be at least 1000".to_owned());
        }
        if self.awareness_bytes_max > 64 << 10 {
            return Err("session.awareness_bytes_max must be at most 65536: it goes to everybody"
                .to_owned());
        }
        Ok(())
    }
}
