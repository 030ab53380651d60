//! Sessions come all at once: what does one cost the server?

use std::{sync::Arc, time::Duration};

use cowrite_client::JoinOptions;
use serde::Serialize;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    door::Entrance,
    error::Error,
    measure::{Latencies, LatencySummary},
    process::Process,
    report::{Progress, Row, millis, row, with_causes},
    scenario::Connect,
    storm::come_back,
};

/// What came out.
#[derive(Debug, Serialize)]
pub(crate) struct ConnectReport {
    pub(crate) sessions: u32,
    pub(crate) documents: u32,
    /// From the start until the last session was in sync.
    pub(crate) all_synced_ms: f64,
    /// From the start until each session was in sync.
    pub(crate) synced: LatencySummary,
    /// Attempts that the server or the network turned away.
    pub(crate) attempts_failed: u64,
    /// `None` without the server's process.
    pub(crate) server_cpu_us_per_session: Option<f64>,
    /// The growth, documents included, by the number of sessions.
    pub(crate) rss_bytes_per_session: Option<f64>,
    /// Sessions that were not in in time, and why the first of them was not.
    pub(crate) sessions_failed: u64,
    pub(crate) first_failure: Option<String>,
}

/// Opens the sessions.
pub(crate) async fn run(
    connect: &Connect,
    entrance: &Entrance,
    server: Option<Process>,
    progress: &Progress,
) -> Result<ConnectReport, Error> {
    let name: u32 = rand::random();
    let entrance = Arc::new(entrance.clone());
    let memory_before = server.map(Process::memory).transpose()?;
    let cpu_before = server.map(Process::cpu_us).transpose()?;
    progress.begin("coming", connect.sessions.into());
    let mut coming = JoinSet::new();
    let began = Instant::now();
    for n in 0..connect.sessions {
        let options = JoinOptions::new(format!("load/{name:08x}/{}", n % connect.documents));
        coming.spawn(come_back(Arc::clone(&entrance), options, began + connect.deadline));
    }
    let (mut times, mut attempts_failed, mut failures) = (Latencies::new(), 0, Vec::new());
    let mut all_synced = Duration::ZERO;
    let mut held = Vec::new();
    while let Some(result) = coming.join_next().await {
        let (result, failed) = result?;
        attempts_failed += failed;
        match result {
            Ok((session, at)) => {
                all_synced = all_synced.max(at - began);
                times.record_ns(u64::try_from((at - began).as_nanos()).unwrap_or(u64::MAX));
                held.push(session);
            }
            Err(error) => failures.push(error),
        }
        progress.step(1);
    }
    let cpu_after = server.map(Process::cpu_us).transpose()?;
    let memory_after = server.map(Process::memory).transpose()?;
    let each = |value: f64| value / f64::from(connect.sessions);
    Ok(ConnectReport {
        sessions: connect.sessions,
        documents: connect.documents,
        all_synced_ms: millis(all_synced),
        synced: times.summary(),
        attempts_failed,
        server_cpu_us_per_session: cpu_after
            .zip(cpu_before)
            .map(|(after, before)| each((after - before) as f64)),
        rss_bytes_per_session: memory_after
            .zip(memory_before)
            .map(|(after, before)| each(after.rss_bytes as f64 - before.rss_bytes as f64)),
        sessions_failed: failures.len() as u64,
        first_failure: failures.first().map(|error| with_causes(error)),
    })
}

impl ConnectReport {
    /// The report for people.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows = vec![
            row("sessions", self.sessions),
            row("documents", self.documents),
            row("all in sync after", format!("{:.0} ms", self.all_synced_ms)),
            row("in sync after", self.synced),
            row("attempts that failed", self.attempts_failed),
        ];
        if let Some(us) = self.server_cpu_us_per_session {
            rows.push(row("server CPU per session", format!("{us:.0} us")));
        }
        if let Some(bytes) = self.rss_bytes_per_session {
            rows.push(row("server RSS per session", format!("{:.1} KiB", bytes / 1024.0)));
        }
        if let Some(failure) = &self.first_failure {
            rows.push(row("failed sessions", format!("{}: {failure}", self.sessions_failed)));
        }
        rows
    }
}
