//! Log lines.

use std::{
    fmt,
    io::{self, IsTerminal as _},
    sync::Arc,
};

use tracing_subscriber::{EnvFilter, reload};

use super::config::{LogFormat, Telemetry};

/// Changes what is logged while the server runs. Cheap to clone; clones are the same.
#[derive(Clone)]
pub(super) struct Filter {
    replace: Arc<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>,
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Filter")
    }
}

impl Filter {
    /// Logs what `directives` say from now on, which were checked with the configuration.
    pub(super) fn set(&self, directives: &str) {
        let filter = EnvFilter::try_new(directives).unwrap_or_default();
        if let Err(error) = (self.replace)(filter) {
            tracing::error!(%error, "the filter of the log cannot be replaced");
        }
    }
}

/// Writes log lines to standard error from now on. Only the first call in a process counts.
pub(super) fn start(config: &Telemetry) -> Filter {
    // The filter was checked with the configuration.
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_default();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    // An error of the second step means that there is a subscriber already.
    match config.format {
        LogFormat::Text => {
            let lines = lines.with_filter_reloading();
            let handle = lines.reload_handle();
            drop(lines.try_init());
            Filter { replace: Arc::new(move |filter| handle.reload(filter)) }
        }
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            let handle = lines.reload_handle();
            drop(lines.try_init());
            Filter { replace: Arc::new(move |filter| handle.reload(filter)) }
        }
    }
}
