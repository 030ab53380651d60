//! All sessions are cut and come back at once: how long until the last of them is in sync?

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cowrite_client::JoinOptions;
use serde::Serialize;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    door::{Entrance, Event},
    error::{Error, SessionError},
    measure::{Latencies, LatencySummary},
    process::Process,
    report::{Progress, Row, mib, millis, row, with_causes},
    scenario::ReconnectStorm,
    seed::seed,
    sessions::{self, Session},
};

/// A returning client waits at most this after its first loss.
const RETRY_MAX: Duration = Duration::from_millis(250);

/// What came out.
#[derive(Debug, Serialize)]
pub(crate) struct StormReport {
    pub(crate) sessions: u32,
    pub(crate) documents: u32,
    /// From the cut until the last session was in sync.
    pub(crate) all_synced_ms: f64,
    /// From the cut until each session was in sync.
    pub(crate) synced: LatencySummary,
    /// Attempts that the server or the network turned away.
    pub(crate) attempts_failed: u64,
    /// `None` without the server's process.
    pub(crate) server_cpu_us_per_session: Option<f64>,
    pub(crate) server_rss_bytes_before: Option<u64>,
    pub(crate) server_rss_bytes_after: Option<u64>,
    /// Sessions that were not back in time, and why the first of them was not.
    pub(crate) sessions_failed: u64,
    pub(crate) first_failure: Option<String>,
}

/// Opens the sessions, cuts them and lets them come back.
pub(crate) async fn run(
    storm: &ReconnectStorm,
    entrance: &Entrance,
    server: Option<Process>,
    progress: &Progress,
) -> Result<StormReport, Error> {
    let name: u32 = rand::random();
    let document = |n: u32| format!("load/{name:08x}/{n}");
    let mut authors = Vec::new();
    for n in 0..storm.documents {
        let (id, random) = (document(n), storm.seed + u64::from(n));
        authors.push(seed(entrance, &id, storm.document_edits, random, progress).await?);
    }
    let documents = (0..storm.sessions).map(|n| document(n % storm.documents));
    let mut sessions = Vec::new();
    sessions::open_all(entrance, documents, progress, |session| sessions.push(session)).await?;
    progress.begin("receiving documents", sessions.len() as u64);
    let mut returns = Vec::new();
    for session in &mut sessions {
        let id = document(session.index as u32 % storm.documents);
        let sequence = synced(session).await.map_err(|error| error.on(&id))?;
        let nothing = JoinOptions::new(id);
        returns.push(if storm.resume {
            JoinOptions {
                state_vector: session.joined.state_vector.clone(),
                epoch: session.joined.epoch.clone(),
                resume_sequence: sequence,
                ..nothing
            }
        } else {
            nothing
        });
        progress.step(1);
    }

    let before = server.map(Process::memory).transpose()?.map(|memory| memory.rss_bytes);
    let cpu_before = server.map(Process::cpu_us).transpose()?;
    progress.begin("coming back", returns.len() as u64);
    let entrance = Arc::new(entrance.clone());
    let mut returning = JoinSet::new();
    // Their connections are cut with that.
    drop(sessions);
    let cut = Instant::now();
    for options in returns {
        returning.spawn(come_back(Arc::clone(&entrance), options, cut + storm.deadline));
    }
    let (mut times, mut attempts_failed, mut failures) = (Latencies::new(), 0, Vec::new());
    let mut all_synced = Duration::ZERO;
    let mut held = Vec::new();
    while let Some(result) = returning.join_next().await {
        let (result, failed) = result?;
        attempts_failed += failed;
        match result {
            Ok((session, at)) => {
                all_synced = all_synced.max(at - cut);
                times.record_ns(u64::try_from((at - cut).as_nanos()).unwrap_or(u64::MAX));
                held.push(session);
            }
            Err(error) => failures.push(error),
        }
        progress.step(1);
    }
    let cpu_after = server.map(Process::cpu_us).transpose()?;
    drop(authors);
    let after = server.map(Process::memory).transpose()?.map(|memory| memory.rss_bytes);
    Ok(StormReport {
        sessions: storm.sessions,
        documents: storm.documents,
        all_synced_ms: millis(all_synced),
        synced: times.summary(),
        attempts_failed,
        server_cpu_us_per_session: cpu_after
            .zip(cpu_before)
            .map(|(after, before)| (after - before) as f64 / f64::from(storm.sessions)),
        server_rss_bytes_before: before,
        server_rss_bytes_after: after,
        sessions_failed: failures.len() as u64,
        first_failure: failures.first().map(|error| with_causes(error)),
    })
}

/// Tries until it is in sync, with the short jittered delay of a first retry. Returns when that was,
/// and how many attempts failed.
pub(crate) async fn come_back(
    entrance: Arc<Entrance>,
    options: JoinOptions,
    deadline: Instant,
) -> (Result<(Session, Instant), Error>, u64) {
    let mut failed = 0;
    let document = options.document.clone();
    let trying = async {
        loop {
            let attempt = async {
                let mut session = sessions::open(&entrance, options.clone()).await?;
                synced(&mut session).await.map_err(|error| error.on(&options.document))?;
                Ok::<_, Error>((session, Instant::now()))
            };
            match attempt.await {
                Err(Error::Session { source, .. }) if source.is_lost() => {
                    failed += 1;
                    sleep(RETRY_MAX.mul_f64(rand::random())).await;
                }
                result => return result,
            }
        }
    };
    let result = timeout_at(deadline, trying).await;
    (result.unwrap_or_else(|_| Err(SessionError::Late.on(&document))), failed)
}

/// Receives until the initial state is there; returns the sequence it goes up to.
pub(crate) async fn synced(session: &mut Session) -> Result<u64, SessionError> {
    Ok(initial_state(session).await?.1)
}

/// Receives the initial state: the update, and the sequence it goes up to. Nothing after a resume.
pub(crate) async fn initial_state(session: &mut Session) -> Result<(Bytes, u64), SessionError> {
    let goal = session.joined.sync_sequence;
    if session.joined.resumed {
        return Ok((Bytes::new(), goal));
    }
    loop {
        if let Event::State { update, sequence } = session.receiver.next().await? {
            return Ok((update, sequence));
        }
    }
}

impl StormReport {
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
        if let Some((before, after)) = self.server_rss_bytes_before.zip(self.server_rss_bytes_after)
        {
            rows.push(row("server RSS before", mib(before)));
            rows.push(row("server RSS after", mib(after)));
        }
        if let Some(failure) = &self.first_failure {
            rows.push(row("failed sessions", format!("{}: {failure}", self.sessions_failed)));
        }
        rows
    }
}
