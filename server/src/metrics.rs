//! Every metric of the server: name, help and labels, one struct a layer. Described for people in
//! `docs/metrics.md`; a test keeps the two equal.

use std::{
    fmt::{Debug, Write as _},
    sync::atomic::AtomicU64,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// 50 us to 3.3 s in steps of 2: from one fsync of a fast disk to "something is wrong".
fn duration_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 2.0, 17))
}

/// 1 to 4096 in steps of 2.
fn count_histogram() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 13))
}

/// All metrics, and how to print them.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// What the log does.
    pub log: LogMetrics,
    /// What the rooms do.
    pub room: RoomMetrics,
    /// What the sessions do.
    pub session: SessionMetrics,
    /// What the doors do.
    pub transport: TransportMetrics,
    /// What tokens are judged by.
    pub auth: AuthMetrics,
    /// Times that the configuration was read again, by result.
    pub config_reloads: Family<ResultLabels, Counter>,
}

/// What the log does. Cheap to clone; clones share their values.
#[derive(Clone, Debug)]
pub struct LogMetrics {
    /// Update records written.
    pub records: Counter,
    /// Bytes written to segments, frames and checksums included.
    pub written_bytes: Counter,
    /// Group commits.
    pub commits: Counter,
    /// Records in one group commit.
    pub commit_records: Histogram,
    /// From the start of the write to the end of its sync, in seconds.
    pub commit_duration: Histogram,
    /// Appends that failed.
    pub append_failures: Counter,
    /// Checkpoints stored.
    pub checkpoints: Counter,
    /// Segment files that exist.
    pub segments: Gauge,
    /// Segment files removed by compaction.
    pub segments_dropped: Counter,
    /// 1 while appends are taken, 0 while the disk is full or the log has failed.
    pub writable: Gauge,
    /// Documents whose records were found damaged.
    pub corrupt_documents: Gauge,
}

/// What the rooms do. Cheap to clone; clones share their values.
#[derive(Clone, Debug)]
pub struct RoomMetrics {
    /// Rooms in memory.
    pub rooms: Gauge,
    /// What the rooms take of the memory, about, in bytes.
    pub memory: Gauge,
    /// What they may take; 0 is no limit.
    pub memory_max: Gauge,
    /// Rooms that left memory early, to make place for others.
    pub evicted: Counter,
    /// Bytes of differences that wait for single sessions to take them.
    pub catch_up: Gauge,
    /// Documents that are refused because they fault when loaded.
    pub quarantined: Gauge,
    /// Rooms closed after a fault, by cause.
    pub restarts: Family<RestartLabels, Counter>,
    /// Updates taken from sessions.
    pub updates: Counter,
    /// Batches committed.
    pub batches: Counter,
    /// Updates in one batch.
    pub batch_updates: Histogram,
    /// Frames put into outboxes: batches times the sessions that get them.
    pub deliveries: Counter,
    /// From the arrival of an update in the room to its fan-out, in seconds.
    pub update_duration: Histogram,
    /// Loads of documents from the log, in seconds.
    pub load_duration: Histogram,
    /// Checkpoints that did not reproduce the document and were thrown away.
    pub checkpoint_mismatches: Counter,
    /// Times that a session's outbox was full.
    pub lagging: Counter,
    /// Updates refused while the session went on, by reason.
    pub refused: Family<ReasonLabels, Counter>,
    /// Sessions ended by the server, by reason: the same as [`SessionMetrics::closed`].
    pub closed: Family<ReasonLabels, Counter>,
}

/// What the sessions do. Cheap to clone; clones share their values.
#[derive(Clone, Debug)]
pub struct SessionMetrics {
    /// Sessions that are open.
    pub sessions: Gauge,
    /// Sessions opened.
    pub opened: Counter,
    /// Times that a session had sent more than it may, and was held back.
    pub throttled: Counter,
    /// Sessions ended by the server, by reason.
    pub closed: Family<ReasonLabels, Counter>,
}

/// What the doors do. Cheap to clone; clones share their values.
#[derive(Clone, Debug)]
pub struct TransportMetrics {
    /// Connections that are open.
    pub connections: Gauge,
    /// Connections taken.
    pub accepted: Counter,
    /// Connections closed at once because there were too many, by which: "all", or those of their
    /// "address".
    pub refused: Family<ReasonLabels, Counter>,
    /// Connections that did not say in time which protocol they speak.
    pub silent: Counter,
    /// Connections closed because they had been without a stream for long.
    pub idle: Counter,
    /// TLS handshakes that failed.
    pub tls_failures: Counter,
    /// Times that changed TLS files were taken.
    pub tls_reloads: Counter,
    /// Times that changed TLS files could not be used.
    pub tls_reload_failures: Counter,
}

/// What tokens are judged by. Cheap to clone; clones share their values.
#[derive(Clone, Debug)]
pub struct AuthMetrics {
    /// Fetches of the issuer's keys, by result.
    pub jwks_fetches: Family<ResultLabels, Counter>,
    /// When the last fetch that was good ended, in seconds since 1970; 0 before the first.
    pub jwks_fetched: Gauge,
    /// Keys that tokens are verified with, of files and of the issuer.
    pub keys: Gauge,
    /// Entries in the list of revocations.
    pub revocations: Gauge,
    /// Times that a changed list of revocations could not be used.
    pub revocation_failures: Counter,
}

impl AuthMetrics {
    /// Counts a fetch.
    pub fn fetched(&self, result: Outcome) {
        self.jwks_fetches.get_or_create(&ResultLabels { result }).inc();
    }
}

/// What came of something that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was done.
    Ok,
    /// It was not, and everything is as it was.
    Failed,
}

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
        })
    }
}

/// The label of [`AuthMetrics::jwks_fetches`] and of [`Metrics::config_reloads`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabels {
    /// What came of it.
    pub result: Outcome,
}

/// Why a room was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RestartCause {
    /// The log could not be written.
    Append,
    /// yrs panicked or refused what the validator had let pass.
    Fault,
}

impl EncodeLabelValue for RestartCause {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(match self {
            Self::Append => "append",
            Self::Fault => "fault",
        })
    }
}

/// The label of [`RoomMetrics::restarts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RestartLabels {
    /// Why.
    pub cause: RestartCause,
}

/// The label of refusals and ends of sessions: the stable name of the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// The name of the error reason, in lower case.
    pub reason: &'static str,
}

impl Metrics {
    /// All metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("cowrite");
        let r = &mut registry;
        let log = LogMetrics {
            records: counter(r, "log_records", "Update records written"),
            written_bytes: counter(r, "log_written_bytes", "Bytes written to segments"),
            commits: counter(r, "log_commits", "Group commits"),
            commit_records: add(
                r,
                "log_commit_records",
                "Records in one group commit",
                count_histogram(),
            ),
            commit_duration: seconds(r, "log_commit_duration", "Write and sync of a group commit"),
            append_failures: counter(r, "log_append_failures", "Appends that failed"),
            checkpoints: counter(r, "log_checkpoints", "Checkpoints stored"),
            segments: gauge(r, "log_segments", "Segment files that exist"),
            segments_dropped: counter(r, "log_segments_dropped", "Segment files removed"),
            writable: gauge(r, "log_writable", "1 while appends are taken, else 0"),
            corrupt_documents: gauge(
                r,
                "log_corrupt_documents",
                "Documents whose records were found damaged",
            ),
        };
        // Some are ended by their room, and some by themselves.
        let closed = add(
            r,
            "sessions_closed",
            "Sessions ended by the server",
            Family::<ReasonLabels, Counter>::default(),
        );
        let room = RoomMetrics {
            rooms: gauge(r, "rooms", "Rooms in memory"),
            memory: gauge(r, "rooms_memory_bytes", "What the rooms take of the memory, about"),
            memory_max: gauge(
                r,
                "rooms_memory_max_bytes",
                "What the rooms may take of the memory; 0 is no limit",
            ),
            evicted: counter(
                r,
                "rooms_evicted",
                "Rooms that left memory early, to make place for others",
            ),
            catch_up: gauge(
                r,
                "room_catch_up_bytes",
                "Bytes of differences that wait for single sessions to take them",
            ),
            quarantined: gauge(r, "rooms_quarantined", "Documents refused because they fault"),
            restarts: add(
                r,
                "room_restarts",
                "Rooms closed after a fault",
                Family::<RestartLabels, Counter>::default(),
            ),
            updates: counter(r, "room_updates", "Updates taken from sessions"),
            batches: counter(r, "room_batches", "Batches committed"),
            batch_updates: add(r, "room_batch_updates", "Updates in one batch", count_histogram()),
            deliveries: counter(r, "room_deliveries", "Frames put into outboxes"),
            update_duration: seconds(
                r,
                "room_update_duration",
                "From the arrival of an update in its room to its fan-out",
            ),
            load_duration: seconds(r, "room_load_duration", "Load of a document from the log"),
            checkpoint_mismatches: counter(
                r,
                "room_checkpoint_mismatches",
                "Checkpoints that did not reproduce the document and were thrown away",
            ),
            lagging: counter(r, "room_lagging", "Times that the outbox of a session was full"),
            refused: add(
                r,
                "room_refused",
                "Updates refused while the session went on",
                Family::<ReasonLabels, Counter>::default(),
            ),
            closed: closed.clone(),
        };
        let session = SessionMetrics {
            sessions: gauge(r, "sessions", "Sessions that are open"),
            opened: counter(r, "sessions_opened", "Sessions opened"),
            throttled: counter(
                r,
                "sessions_throttled",
                "Times that a session had sent more than it may, and was held back",
            ),
            closed,
        };
        let transport = TransportMetrics {
            connections: gauge(r, "connections", "Connections that are open"),
            accepted: counter(r, "connections_accepted", "Connections taken"),
            refused: add(
                r,
                "connections_refused",
                "Connections closed at once because there were too many",
                Family::<ReasonLabels, Counter>::default(),
            ),
            silent: counter(
                r,
                "connections_silent",
                "Connections closed because they did not begin to speak in time",
            ),
            idle: counter(
                r,
                "connections_idle",
                "Connections closed because they had no stream for long",
            ),
            tls_failures: counter(r, "tls_failures", "TLS handshakes that failed"),
            tls_reloads: counter(r, "tls_reloads", "Times that changed TLS files were taken"),
            tls_reload_failures: counter(
                r,
                "tls_reload_failures",
                "Times that changed TLS files could not be used",
            ),
        };
        let auth = AuthMetrics {
            jwks_fetches: add(
                r,
                "auth_jwks_fetches",
                "Fetches of the keys of the issuer",
                Family::<ResultLabels, Counter>::default(),
            ),
            jwks_fetched: {
                let metric = Gauge::default();
                let help = "When the keys of the issuer were fetched last";
                let name = "auth_jwks_fetched_timestamp";
                r.register_with_unit(name, help, Unit::Seconds, metric.clone());
                metric
            },
            keys: gauge(r, "auth_keys", "Keys that tokens are verified with"),
            revocations: gauge(r, "auth_revocations", "Entries in the list of revocations"),
            revocation_failures: counter(
                r,
                "auth_revocation_failures",
                "Times that a changed list of revocations could not be used",
            ),
        };
        let config_reloads = add(
            r,
            "config_reloads",
            "Times that the configuration was read again",
            Family::<ResultLabels, Counter>::default(),
        );
        Self { registry, log, room, session, transport, auth, config_reloads }
    }

    /// The metrics in the OpenMetrics text format, version 1.0.0.
    ///
    /// # Errors
    ///
    /// Only if formatting into a string fails, which it does not.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn add<M>(registry: &mut Registry, name: &str, help: &str, metric: M) -> M
where
    M: prometheus_client::registry::Metric + Clone,
{
    registry.register(name, help, metric.clone());
    metric
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    add(registry, name, help, Counter::<u64, AtomicU64>::default())
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    add(registry, name, help, Gauge::default())
}

fn seconds(registry: &mut Registry, name: &str, help: &str) -> Histogram {
    let metric = duration_histogram();
    registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
    metric
}
