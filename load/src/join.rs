//! Joining a document with content: one session at a time, then many at once.

use std::{sync::Arc, time::Duration};

use cowrite_client::JoinOptions;
use serde::Serialize;
use tokio::{sync::Barrier, task::JoinSet, time::Instant};
use yrs::{Doc, Transact as _, Update, updates::decoder::Decode as _};

use crate::{
    door::Entrance,
    error::{Error, SessionError},
    measure::{Latencies, LatencySummary},
    process::Process,
    report::{Progress, Row, mib, millis, row},
    scenario::Join,
    seed::seed,
    sessions,
    storm::initial_state,
    update::Malformed,
};

/// What came out.
#[derive(Debug, Serialize)]
pub(crate) struct JoinReport {
    pub(crate) document: String,
    /// The size of the initial state.
    pub(crate) state_bytes: u64,
    /// The first join, from the start of the connection until the state was received.
    pub(crate) first_received_ms: f64,
    /// The same until the state was also applied to a document.
    pub(crate) first_applied_ms: f64,
    pub(crate) received: LatencySummary,
    pub(crate) applied: LatencySummary,
    pub(crate) at_once: u32,
    /// Of those who joined at once, on top of which each waits for the others' work on this side.
    pub(crate) at_once_received: LatencySummary,
    pub(crate) server_cpu_us_per_join_at_once: Option<f64>,
}

/// What is joined, and how often.
pub(crate) struct Joins {
    pub(crate) document: String,
    pub(crate) joins: u32,
    pub(crate) at_once: u32,
}

/// Makes a document and joins it.
pub(crate) async fn run(
    join: &Join,
    entrance: &Entrance,
    server: Option<Process>,
    progress: &Progress,
) -> Result<JoinReport, Error> {
    let document = format!("load/{:08x}/0", rand::random::<u32>());
    let _author = seed(entrance, &document, join.document_edits, join.seed, progress).await?;
    let joins = Joins { document, joins: join.joins, at_once: join.at_once };
    measure(joins, entrance, server, progress).await
}

/// Joins a document that is there.
pub(crate) async fn measure(
    joins: Joins,
    entrance: &Entrance,
    server: Option<Process>,
    progress: &Progress,
) -> Result<JoinReport, Error> {
    let Joins { document, joins, at_once } = joins;
    progress.begin("joining one by one", joins.into());
    let (mut received, mut applied) = (Latencies::new(), Latencies::new());
    let mut first = None;
    for _ in 0..joins {
        let one = join_once(entrance, &document, true).await?;
        received.record_ns(nanos(one.received));
        applied.record_ns(nanos(one.applied));
        first.get_or_insert(one);
        progress.step(1);
    }

    progress.begin("joining at once", at_once.into());
    let barrier = Arc::new(Barrier::new(at_once as usize));
    let mut joining = JoinSet::new();
    let cpu_before = server.map(Process::cpu_us).transpose()?;
    for _ in 0..at_once {
        let (entrance, document) = (entrance.clone(), document.clone());
        let barrier = Arc::clone(&barrier);
        joining.spawn(async move {
            barrier.wait().await;
            join_once(&entrance, &document, false).await
        });
    }
    let mut at_once_received = Latencies::new();
    while let Some(one) = joining.join_next().await {
        at_once_received.record_ns(nanos(one??.received));
        progress.step(1);
    }
    let cpu_after = server.map(Process::cpu_us).transpose()?;
    let first = first.unwrap_or_default();
    Ok(JoinReport {
        document,
        state_bytes: first.state_bytes,
        first_received_ms: millis(first.received),
        first_applied_ms: millis(first.applied),
        received: received.summary(),
        applied: applied.summary(),
        at_once,
        at_once_received: at_once_received.summary(),
        server_cpu_us_per_join_at_once: cpu_after
            .zip(cpu_before)
            .map(|(after, before)| (after - before) as f64 / f64::from(at_once)),
    })
}

#[derive(Debug, Default)]
struct One {
    state_bytes: u64,
    received: Duration,
    applied: Duration,
}

async fn join_once(entrance: &Entrance, document: &str, apply: bool) -> Result<One, Error> {
    let began = Instant::now();
    let mut session = sessions::open(entrance, JoinOptions::new(document)).await?;
    let (state, _) = initial_state(&mut session).await.map_err(|error| error.on(document))?;
    let received = began.elapsed();
    if apply {
        let malformed = || SessionError::from(Malformed).on(document);
        let update = Update::decode_v1(&state).map_err(|_| malformed())?;
        Doc::new().transact_mut().apply_update(update).map_err(|_| malformed())?;
    }
    Ok(One { state_bytes: state.len() as u64, received, applied: began.elapsed() })
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl JoinReport {
    /// The report for people.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows = vec![
            row("document", &self.document),
            row("state", mib(self.state_bytes)),
            row("first join, received", format!("{:.2} ms", self.first_received_ms)),
            row("first join, applied", format!("{:.2} ms", self.first_applied_ms)),
            row("joins, received", self.received),
            row("joins, applied", self.applied),
            row(format!("{} at once, received", self.at_once), self.at_once_received),
        ];
        if let Some(us) = self.server_cpu_us_per_join_at_once {
            rows.push(row("server CPU per join", format!("{us:.0} us")));
        }
        rows
    }
}
