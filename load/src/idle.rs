//! Sessions that do nothing: how much memory does each take?

use serde::Serialize;
use tokio::{task::JoinSet, time::sleep};

use crate::{
    door::Entrance,
    error::{Error, SessionError},
    process::Process,
    report::{Progress, Row, mib, row, with_causes},
    scenario::Idle,
    sessions::{self, Session},
};

/// What came out.
#[derive(Debug, Serialize)]
pub(crate) struct IdleReport {
    pub(crate) sessions: u32,
    pub(crate) documents: u32,
    /// `None` without the server's process.
    pub(crate) rss_bytes_before: Option<u64>,
    pub(crate) rss_bytes_after: Option<u64>,
    /// The growth, documents included, by the number of sessions.
    pub(crate) rss_bytes_per_session: Option<f64>,
    /// Of one core, while nothing happened.
    pub(crate) server_cpu_share: Option<f64>,
    /// Sessions that ended before the run did, and why the first of them did.
    pub(crate) sessions_failed: u64,
    pub(crate) first_failure: Option<String>,
}

/// Opens the sessions, holds them and looks at the server's memory.
pub(crate) async fn run(
    idle: &Idle,
    entrance: &Entrance,
    server: Option<Process>,
    progress: &Progress,
) -> Result<IdleReport, Error> {
    let name: u32 = rand::random();
    let before = server.map(Process::memory).transpose()?.map(|memory| memory.rss_bytes);
    let documents = (0..idle.sessions).map(|n| format!("load/{name:08x}/{}", n % idle.documents));
    let mut held = JoinSet::new();
    sessions::open_all(entrance, documents, progress, |session| {
        held.spawn(hold(session));
    })
    .await?;
    progress.begin("holding sessions", 0);
    let cpu_before = server.map(Process::cpu_us).transpose()?;
    sleep(idle.hold).await;
    let cpu_after = server.map(Process::cpu_us).transpose()?;
    let after = server.map(Process::memory).transpose()?.map(|memory| memory.rss_bytes);
    let mut failures = Vec::new();
    while let Some(failure) = held.try_join_next() {
        failures.push(failure?);
    }
    let growth = after.zip(before).map(|(after, before)| after as f64 - before as f64);
    Ok(IdleReport {
        sessions: idle.sessions,
        documents: idle.documents,
        rss_bytes_before: before,
        rss_bytes_after: after,
        rss_bytes_per_session: growth.map(|bytes| bytes / f64::from(idle.sessions)),
        server_cpu_share: cpu_after
            .zip(cpu_before)
            .map(|(after, before)| (after - before) as f64 / 1e6 / idle.hold.as_secs_f64()),
        sessions_failed: failures.len() as u64,
        first_failure: failures.first().map(|error| with_causes(error)),
    })
}

/// Answers pings until the session ends.
async fn hold(mut session: Session) -> SessionError {
    loop {
        if let Err(error) = session.receiver.next().await {
            return error;
        }
    }
}

impl IdleReport {
    /// The report for people.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows = vec![row("sessions", self.sessions), row("documents", self.documents)];
        let memory = self.rss_bytes_before.zip(self.rss_bytes_after);
        if let (Some((before, after)), Some(each)) = (memory, self.rss_bytes_per_session) {
            rows.extend([
                row("server RSS before", mib(before)),
                row("server RSS after", mib(after)),
                row("server RSS per session", format!("{:.1} KiB", each / 1024.0)),
            ]);
        }
        if let Some(share) = self.server_cpu_share {
            rows.push(row("server CPU", format!("{:.1} % of a core", share * 100.0)));
        }
        if let Some(failure) = &self.first_failure {
            rows.push(row("failed sessions", format!("{}: {failure}", self.sessions_failed)));
        }
        rows
    }
}
