//! Log lines.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use super::config::{LogFormat, Telemetry};

/// Writes log lines to standard error from now on. Only the first call in a process counts.
pub(super) fn start(config: &Telemetry) {
    // The filter was checked with the configuration.
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_default();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    // An error means that there is a subscriber already.
    drop(match config.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    });
}
