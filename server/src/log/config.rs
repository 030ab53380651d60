//! The settings of the log.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// The settings of the log: the table `[log]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which store.
    pub kind: Kind,
    /// Where the embedded store keeps its files. Created if it does not exist.
    pub directory: PathBuf,
    /// What "durable" means.
    pub durability: Durability,
    /// The shortest time between the starts of two group commits. An append after a pause is
    /// committed at once; under load this gathers more appends into one sync. A sync costs about
    /// 0.1 ms of CPU, so that 4 ms bound what syncs cost to a fortieth of a core.
    #[serde(with = "humantime_serde")]
    pub commit_interval: Duration,
    /// The size of a segment file, in bytes. It is preallocated. At least 1 MiB.
    pub segment_bytes: u64,
    /// How long single updates are kept after a checkpoint stands for them.
    #[serde(with = "humantime_serde")]
    pub history_retention: Duration,
    /// How often space is freed.
    #[serde(with = "humantime_serde")]
    pub compact_interval: Duration,
}

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Segment files and an SQLite catalogue in `log.directory`.
    Embedded,
    /// Nothing outlives the process.
    Memory,
}

/// What "durable" means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// On the disk: survives a loss of power.
    Fsync,
    /// With the operating system: survives the end of the process, not a loss of power.
    Os,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kind: Kind::Embedded,
            directory: PathBuf::from("data"),
            durability: Durability::Fsync,
            commit_interval: Duration::from_millis(4),
            segment_bytes: 64 << 20,
            history_retention: Duration::from_secs(7 * 24 * 60 * 60),
            compact_interval: Duration::from_secs(60),
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
        if self.segment_bytes < 1 << 20 || self.segment_bytes > 1 << 30 {
            return Err(
                "log.segment_bytes must be from 1048576 (1 MiB) to 1073741824 (1 GiB)".to_owned()
            );
        }
        if self.commit_interval > Duration::from_secs(1) {
            return Err("log.commit_interval must be at most 1s: edits wait for it".to_owned());
        }
        if self.compact_interval < Duration::from_secs(1) {
            return Err("log.compact_interval must be at least 1s".to_owned());
        }
        if self.kind == Kind::Embedded && self.directory.as_os_str().is_empty() {
            return Err("log.directory must name a directory".to_owned());
        }
        Ok(())
    }
}
