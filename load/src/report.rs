//! What a run says: progress while it goes on, then a table for people or JSON for programs.

use std::{error::Error as StdError, fmt, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::{
    connect::ConnectReport, door::Door, edits::EditsReport, error::Error, idle::IdleReport,
    join::JoinReport, measure::LatencySummary, replay::ReplayReport,
    slow_readers::SlowReadersReport, storm::StormReport,
};

/// The result of a run.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Report {
    Edits(EditsReport),
    SlowReaders(Box<SlowReadersReport>),
    Idle(IdleReport),
    ReconnectStorm(StormReport),
    Connect(ConnectReport),
    Join(JoinReport),
    Replay(ReplayReport),
}

/// A result, and how the sessions came in.
#[derive(Serialize)]
struct Through<'a> {
    door: Door,
    #[serde(flatten)]
    report: &'a Report,
}

/// A line of the table.
pub(crate) struct Row {
    name: String,
    value: String,
}

/// A line of the table.
pub(crate) fn row(name: impl Into<String>, value: impl fmt::Display) -> Row {
    Row { name: name.into(), value: value.to_string() }
}

impl Report {
    /// The server did not do what it promises.
    pub(crate) fn failed(&self) -> bool {
        match self {
            Self::Edits(report) => report.failed(),
            Self::SlowReaders(report) => report.without.failed() || report.with.failed(),
            Self::Idle(report) => report.sessions_failed > 0,
            Self::ReconnectStorm(report) => report.sessions_failed > 0,
            Self::Connect(report) => report.sessions_failed > 0,
            Self::Join(_) => false,
            Self::Replay(report) => !report.identical,
        }
    }

    /// Prints it: the only thing that goes to the standard output.
    #[expect(clippy::print_stdout, reason = "the one place that reports")]
    pub(crate) fn print(&self, door: Door, json: bool) -> Result<(), Error> {
        if json {
            let through = Through { door, report: self };
            println!("{}", serde_json::to_string_pretty(&through).map_err(Error::Report)?);
            return Ok(());
        }
        let rows = match self {
            Self::Edits(report) => report.rows(),
            Self::SlowReaders(report) => report.rows(),
            Self::Idle(report) => report.rows(),
            Self::ReconnectStorm(report) => report.rows(),
            Self::Connect(report) => report.rows(),
            Self::Join(report) => report.rows(),
            Self::Replay(report) => report.rows(),
        };
        let width = rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
        for Row { name, value } in rows {
            println!("{name:width$}  {value}");
        }
        Ok(())
    }
}

impl fmt::Display for LatencySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |us: u64| us as f64 / 1000.0;
        write!(
            f,
            "p50 {:.2} ms  p99 {:.2} ms  p99.9 {:.2} ms  max {:.2} ms",
            ms(self.p50_us),
            ms(self.p99_us),
            ms(self.p999_us),
            ms(self.max_us)
        )
    }
}

/// Bytes for people.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// A span for people.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// An error and what caused it, in one line.
pub(crate) fn with_causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Transparent errors repeat what they wrap.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// How far a run is, on the standard error where that is a terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let style = ProgressStyle::with_template("{msg:28} {wide_bar} {percent:>3} %")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        Self { bar: ProgressBar::new(0).with_style(style) }
    }

    /// A new part of `steps` steps begins.
    pub(crate) fn begin(&self, what: &'static str, steps: u64) {
        self.bar.set_length(steps);
        self.bar.set_position(0);
        self.bar.set_message(what);
    }

    pub(crate) fn step(&self, steps: u64) {
        self.bar.inc(steps);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
