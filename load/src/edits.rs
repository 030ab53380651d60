//! People type into documents, others watch: how long does it take, and what does it cost?

use std::{sync::Arc, time::Duration};

use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use serde::Serialize;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    door::Entrance,
    error::{Error, SessionError},
    measure::{Board, LatencySummary, Measure},
    process::Process,
    report::{Progress, Row, mib, row, with_causes},
    scenario::{Edits, Pace},
    sessions::{self, Session},
    typist::{Own, Reader, Rhythm, Typist},
};

/// How long the last edits may take to arrive while they keep arriving.
const QUIET: Duration = Duration::from_secs(5);
/// How long they may take at all.
const QUIET_MAX: Duration = Duration::from_secs(60);
/// How often the server's memory is looked at.
const SAMPLE: Duration = Duration::from_millis(250);

/// What came out.
#[derive(Debug, Serialize)]
pub(crate) struct EditsReport {
    pub(crate) sessions: u64,
    pub(crate) stalled_readers: u32,
    /// Edits sent in the measured span.
    pub(crate) offered: u64,
    pub(crate) offered_per_second: f64,
    /// Offered edits times the receivers of each.
    pub(crate) deliveries_expected: u64,
    pub(crate) deliveries: u64,
    pub(crate) lost: u64,
    pub(crate) deliveries_per_second: f64,
    pub(crate) delivery: LatencySummary,
    pub(crate) ack: LatencySummary,
    /// `None` without the server's process.
    pub(crate) server: Option<ServerCost>,
    /// Of one core, by this process in the measured span: near 1, this side was the limit.
    pub(crate) load_cpu_share: f64,
    pub(crate) received_bytes: u64,
    /// Receivers that were given a difference because they had been too slow.
    pub(crate) resyncs: u64,
    /// Edits that the server did not take.
    pub(crate) refused: u64,
    /// Sessions that ended before the run did, and why the first of them did.
    pub(crate) sessions_failed: u64,
    pub(crate) first_failure: Option<String>,
}

/// What the run cost the server.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct ServerCost {
    /// In the measured span.
    pub(crate) cpu_us_per_delivery: f64,
    /// Of one core, in the measured span.
    pub(crate) cpu_share: f64,
    /// Before the first session.
    pub(crate) rss_bytes_before: u64,
    /// What it grew by until all sessions were open, by their number.
    pub(crate) rss_bytes_per_session: f64,
    pub(crate) rss_bytes_after: u64,
    /// The largest of samples taken during the run.
    pub(crate) rss_bytes_peak: u64,
    /// Since the server was started.
    pub(crate) rss_bytes_max: u64,
}

/// A document being typed into, and the one who counts.
struct Run<'a> {
    edits: &'a Edits,
    measure: Arc<Measure>,
    boards: Vec<Arc<Board>>,
    readers: JoinSet<SessionError>,
    failures: Vec<SessionError>,
    server: Option<Process>,
    rss_bytes_peak: u64,
    progress: &'a Progress,
    /// The door tells what was taken.
    acknowledges: bool,
}

/// Runs it, with `stalled_readers` more sessions on the first document that never read.
pub(crate) async fn run(
    edits: &Edits,
    stalled_readers: u32,
    entrance: &Entrance,
    server: Option<Process>,
    progress: &Progress,
) -> Result<EditsReport, Error> {
    let name: u32 = rand::random();
    let document = |n| format!("load/{name:08x}/{n}");
    let board = |n| Board::new(document(n), edits.editors_per_document, edits.edit_chars);
    let memory_before = server.map(Process::memory).transpose()?;
    let mut run = Run {
        edits,
        measure: Arc::new(Measure::new()),
        boards: (0..edits.documents).map(|n| Arc::new(board(n))).collect(),
        readers: JoinSet::new(),
        failures: Vec::new(),
        server,
        rss_bytes_peak: 0,
        progress,
        acknowledges: entrance.door.acknowledges(),
    };
    let typists = run.open(entrance).await?;
    let memory_open = server.map(Process::memory).transpose()?;
    let mut stalled = Vec::new();
    let documents = (0..stalled_readers).map(|_| document(0));
    sessions::open_all(entrance, documents, progress, |session| stalled.push(session)).await?;

    let mut typing = JoinSet::new();
    for typist in typists {
        typing.spawn(typist.run());
    }
    run.pass("warming up", edits.warm_up).await?;
    let cpu_us_before = server.map(Process::cpu_us).transpose()?;
    let load = Process::new(std::process::id());
    let load_cpu_us_before = load.cpu_us()?;
    let arrivals_before = run.measure.counts().arrivals;
    let began = Instant::now();
    run.measure.begin();
    run.pass("measuring", edits.duration).await?;
    run.measure.end();
    let measured = began.elapsed().as_secs_f64();
    let cpu_us_after = server.map(Process::cpu_us).transpose()?;
    let load_cpu_us = load.cpu_us()? - load_cpu_us_before;
    let arrivals = run.measure.counts().arrivals - arrivals_before;
    run.settle(typing).await?;
    let memory_after = server.map(Process::memory).transpose()?;
    drop(stalled);

    let sessions = u64::from(edits.documents) * u64::from(edits.sessions_per_document);
    let memory = memory_before.zip(memory_open).zip(memory_after);
    let cpu_us = cpu_us_before.zip(cpu_us_after);
    let server =
        if let (Some(((before, open), after)), Some((cpu_before, cpu_after))) = (memory, cpu_us) {
            let cpu_us = (cpu_after - cpu_before) as f64;
            Some(ServerCost {
                cpu_us_per_delivery: cpu_us / arrivals.max(1) as f64,
                cpu_share: cpu_us / 1e6 / measured,
                rss_bytes_before: before.rss_bytes,
                rss_bytes_per_session: (open.rss_bytes as f64 - before.rss_bytes as f64)
                    / sessions as f64,
                rss_bytes_after: after.rss_bytes,
                rss_bytes_peak: run.rss_bytes_peak.max(after.rss_bytes),
                rss_bytes_max: after.rss_bytes_max,
            })
        } else {
            None
        };
    let (offered, deliveries_expected) = run.expected();
    let counts = run.measure.counts();
    Ok(EditsReport {
        sessions,
        stalled_readers,
        offered,
        offered_per_second: offered as f64 / measured,
        deliveries_expected,
        deliveries: counts.delivered,
        lost: deliveries_expected.saturating_sub(counts.delivered),
        deliveries_per_second: counts.delivered as f64 / measured,
        delivery: counts.delivery.summary(),
        ack: counts.ack.summary(),
        server,
        load_cpu_share: load_cpu_us as f64 / 1e6 / measured,
        received_bytes: counts.received_bytes,
        resyncs: counts.resyncs,
        refused: counts.refused,
        sessions_failed: run.failures.len() as u64,
        first_failure: run.failures.first().map(|error| with_causes(error)),
    })
}

impl Run<'_> {
    /// Opens all sessions and starts to receive; returns those who will type.
    async fn open(&mut self, entrance: &Entrance) -> Result<Vec<Typist>, Error> {
        let Edits { documents, sessions_per_document, editors_per_document, pace, .. } =
            *self.edits;
        let acknowledges = self.acknowledges;
        let windows: Vec<Vec<_>> = match pace {
            Pace::EditsPerSecond(_) => Vec::new(),
            Pace::InFlight(_) if !acknowledges && sessions_per_document == 1 => {
                return Err(Error::Door(
                    "without acknowledgements in_flight needs a second session",
                ));
            }
            Pace::InFlight(count) => {
                let window = |_| Arc::new(Semaphore::new(count as usize));
                let of_document = |_| (0..editors_per_document).map(window).collect();
                (0..documents).map(of_document).collect()
            }
        };
        let mut random = SmallRng::seed_from_u64(self.edits.seed);
        let mut typists = Vec::new();
        // Session n is on document n % documents; the first of each document are its editors.
        let ids: Vec<_> = self.boards.iter().map(|board| board.document.clone()).collect();
        let ids = ids.into_iter().cycle().take((documents * sessions_per_document) as usize);
        let started = Instant::now();
        let Self { measure, boards, readers, progress, .. } = self;
        sessions::open_all(entrance, ids, progress, |session| {
            let Session { sender, receiver, index, .. } = session;
            let document = index % documents as usize;
            let board = &boards[document];
            let editor = index / documents as usize;
            let mut own = None;
            if editor < editors_per_document as usize {
                let (rhythm, window) = match pace {
                    Pace::EditsPerSecond(rate) => {
                        let period = Duration::from_secs_f64(1.0 / rate);
                        let phase = period.mul_f64(random.random_range(0.0..1.0));
                        (Rhythm::Fixed { first: started + phase, period }, None)
                    }
                    Pace::InFlight(_) => {
                        let window = &windows[document][editor];
                        let own = acknowledges.then(|| Arc::clone(window));
                        (Rhythm::Window(Arc::clone(window)), own)
                    }
                };
                own = Some(Own { editor, window });
                let (board, measure) = (Arc::clone(board), Arc::clone(measure));
                typists.push(Typist { board, measure, editor, sender, rhythm });
            }
            let (board, measure) = (Arc::clone(board), Arc::clone(measure));
            // Without acknowledgements the next session in the document paces an editor.
            let paces = |of: usize| (of + 1) % sessions_per_document as usize == editor;
            let window = |of: usize| {
                let windows = windows.get(document).filter(|_| !acknowledges && paces(of))?;
                Some(Arc::clone(&windows[of]))
            };
            let windows = (0..editors_per_document as usize).map(window).collect();
            readers.spawn(Reader { board, measure, receiver, own, windows }.run());
        })
        .await?;
        // Only now: they are not to make up for the time that the others took to be opened.
        let opened = started.elapsed();
        for typist in &mut typists {
            if let Rhythm::Fixed { first, .. } = &mut typist.rhythm {
                *first += opened;
            }
        }
        Ok(typists)
    }

    /// Lets `duration` pass.
    async fn pass(&mut self, what: &'static str, duration: Duration) -> Result<(), Error> {
        let end = Instant::now() + duration;
        self.progress.begin(what, duration.as_millis() as u64);
        while Instant::now() < end {
            sleep(SAMPLE.min(end - Instant::now())).await;
            self.look()?;
            self.progress.step(SAMPLE.as_millis() as u64);
        }
        Ok(())
    }

    /// Looks at the server's memory, and for sessions that have ended.
    fn look(&mut self) -> Result<(), Error> {
        if let Some(server) = self.server {
            self.rss_bytes_peak = self.rss_bytes_peak.max(server.memory()?.rss_bytes);
        }
        while let Some(failure) = self.readers.try_join_next() {
            self.failures.push(failure?);
        }
        Ok(())
    }

    /// Waits until everything that was sent has arrived and is acknowledged, or nothing arrives any more.
    async fn settle(&mut self, mut typing: JoinSet<()>) -> Result<(), Error> {
        let limit = Instant::now() + QUIET_MAX;
        let mut arrived = (self.measure.counts().delivered, Instant::now());
        self.progress.begin("waiting for the last edits", 0);
        while Instant::now() < limit.min(arrived.1 + QUIET) {
            sleep(Duration::from_millis(20)).await;
            self.look()?;
            while typing.try_join_next().transpose()?.is_some() {}
            let (offered, deliveries) = self.expected();
            let (delivered, acknowledged) = {
                let counts = self.measure.counts();
                (counts.delivered, counts.ack.len())
            };
            let all = delivered >= deliveries && (acknowledged >= offered || !self.acknowledges);
            if typing.is_empty() && all {
                return Ok(());
            }
            if delivered > arrived.0 {
                arrived = (delivered, Instant::now());
            }
        }
        Ok(())
    }

    /// How many edits count, and how many deliveries that should make.
    fn expected(&self) -> (u64, u64) {
        let offered = self.boards.iter().map(|board| board.offered(&self.measure)).sum();
        (offered, offered * u64::from(self.edits.sessions_per_document - 1))
    }
}

impl EditsReport {
    /// The report for people.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows = vec![
            row("sessions", self.sessions),
            row("stalled readers", self.stalled_readers),
            row("offered", format!("{} edits ({:.1}/s)", self.offered, self.offered_per_second)),
            row("delivered", format!("{} of {}", self.deliveries, self.deliveries_expected)),
            row("lost", self.lost),
            row("deliveries/s", format!("{:.0}", self.deliveries_per_second)),
            row("delivery latency", self.delivery),
            match self.ack.count {
                0 => row("ack latency", "no acknowledgements"),
                _ => row("ack latency", self.ack),
            },
            row("received", mib(self.received_bytes)),
            row("resyncs", self.resyncs),
            row("load CPU", format!("{:.0} % of a core", self.load_cpu_share * 100.0)),
        ];
        if let Some(server) = self.server {
            rows.extend([
                row("server CPU per delivery", format!("{:.2} us", server.cpu_us_per_delivery)),
                row("server CPU", format!("{:.0} % of a core", server.cpu_share * 100.0)),
                row("server RSS before", mib(server.rss_bytes_before)),
                row(
                    "server RSS per session",
                    format!("{:.1} KiB", server.rss_bytes_per_session / 1024.0),
                ),
                row("server RSS after", mib(server.rss_bytes_after)),
                row("server RSS peak", mib(server.rss_bytes_peak)),
                row("server RSS since start", mib(server.rss_bytes_max)),
            ]);
        }
        if self.refused > 0 {
            rows.push(row("refused edits", self.refused));
        }
        if let Some(failure) = &self.first_failure {
            rows.push(row("failed sessions", format!("{}: {failure}", self.sessions_failed)));
        }
        rows
    }

    /// Something that was sent did not arrive, or a session ended.
    pub(crate) fn failed(&self) -> bool {
        self.lost > 0 || self.sessions_failed > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{door::Door, relay::Relay};

    const DOORS: [Door; 4] = [Door::Grpc, Door::GrpcWeb, Door::YWebsocket, Door::Hocuspocus];

    async fn report(door: Door, pace: Pace, lose_every: Option<u64>) -> EditsReport {
        let relay = Relay::start(door, lose_every).await;
        let edits = Edits {
            documents: 2,
            sessions_per_document: 4,
            editors_per_document: 2,
            pace,
            edit_chars: 3,
            warm_up: Duration::from_millis(100),
            duration: Duration::from_millis(500),
            seed: 7,
        };
        run(&edits, 0, relay.entrance(), None, &Progress::new()).await.expect("runs")
    }

    #[tokio::test]
    async fn every_edit_counts_once_for_each_other_session() {
        for door in DOORS {
            let report = report(door, Pace::EditsPerSecond(100.0), None).await;
            assert!(report.offered > 0, "{door:?} {report:?}");
            assert_eq!(report.deliveries, report.offered * 3, "{door:?} {report:?}");
            let acknowledged = if door.acknowledges() { report.offered } else { 0 };
            let counted = (report.delivery.count, report.ack.count);
            assert_eq!(counted, (report.deliveries, acknowledged), "{door:?}");
            assert!(!report.failed(), "{door:?} {report:?}");
        }
    }

    #[tokio::test]
    async fn a_window_of_edits_goes_on_with_what_comes_back() {
        for door in DOORS {
            let report = report(door, Pace::InFlight(2), None).await;
            assert!(report.offered > 4 * 2, "{door:?} {report:?}");
            assert!(!report.failed(), "{door:?} {report:?}");
        }
    }

    #[tokio::test]
    async fn an_update_that_a_session_did_not_get_is_found() {
        for door in [Door::Grpc, Door::YWebsocket] {
            let report = report(door, Pace::EditsPerSecond(100.0), Some(10)).await;
            assert!(report.lost > 0 && report.failed(), "{door:?} {report:?}");
        }
    }
}
