//! Sessions that never read what they are sent: what do they cost the server and the others?

use serde::Serialize;

use crate::{
    door::Entrance,
    edits::{self, EditsReport},
    error::Error,
    process::Process,
    report::{Progress, Row, mib, row},
    scenario::SlowReaders,
};

/// What came out.
#[derive(Debug, Serialize)]
pub(crate) struct SlowReadersReport {
    pub(crate) without: EditsReport,
    pub(crate) with: EditsReport,
    /// How much more the server's memory grew; `None` without its process.
    pub(crate) rss_growth_difference_bytes: Option<i64>,
    /// Delivery latency with stalled readers by that without, at the 99th percentile.
    pub(crate) p99_ratio: f64,
}

/// Runs it twice.
pub(crate) async fn run(
    slow: &SlowReaders,
    entrance: &Entrance,
    server: Option<Process>,
    progress: &Progress,
) -> Result<SlowReadersReport, Error> {
    let without = edits::run(&slow.edits, 0, entrance, server, progress).await?;
    let with = edits::run(&slow.edits, slow.stalled_readers, entrance, server, progress).await?;
    let growth = |report: &EditsReport| {
        report.server.map(|cost| cost.rss_bytes_peak as i64 - cost.rss_bytes_before as i64)
    };
    Ok(SlowReadersReport {
        rss_growth_difference_bytes: growth(&with).zip(growth(&without)).map(|(w, wo)| w - wo),
        p99_ratio: with.delivery.p99_us as f64 / without.delivery.p99_us.max(1) as f64,
        without,
        with,
    })
}

impl SlowReadersReport {
    /// The report for people.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows = self.without.rows();
        rows.push(row("", ""));
        rows.extend(self.with.rows());
        rows.push(row("", ""));
        rows.push(row("p99 with / without", format!("{:.2}", self.p99_ratio)));
        if let Some(bytes) = self.rss_growth_difference_bytes {
            let sign = if bytes < 0 { "-" } else { "" };
            let difference = format!("{sign}{}", mib(bytes.unsigned_abs()));
            rows.push(row("RSS growth, with - without", difference));
        }
        rows
    }
}
