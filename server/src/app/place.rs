//! Where `import` and `export` find documents: a running server, or the data of one that is not
//! running.

use std::{error::Error, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use toml::Value;

use super::{Config, cli::File, remote::Address};
use crate::{
    auth::Token,
    log::{self, Kind, UpdateLog},
    metrics::Metrics,
};

/// A running server, or the data of one that is not running.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The data directory of a server that is not running [default: that of the configuration].
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "server")]
    data: Option<PathBuf>,
    /// The URL of a running server.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// The credentials, where the server asks for them.
    #[arg(long, value_name = "TOKEN", env = "COWRITE_TOKEN", hide_env_values = true)]
    token: Option<Token>,
    /// Roots that the certificate of the server may lead to, besides those of the system: a PEM
    /// file.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    file: File,
}

impl Place {
    /// The configuration, with the data directory of the command line.
    pub(super) fn config(&self) -> Result<Config, Box<dyn Error>> {
        let mut flags = Vec::new();
        if let Some(directory) = &self.data {
            flags.push(("log.kind", Value::String("embedded".to_owned())));
            let directory = directory.to_string_lossy().into_owned();
            flags.push(("log.directory", Value::String(directory)));
        }
        Ok(self.file.load(flags)?)
    }

    /// The running server, if one is meant.
    pub(super) fn server(&self) -> Option<Address> {
        let server = self.server.clone()?;
        Some(Address::new(server, self.token.clone(), self.ca.clone()))
    }
}

/// Opens the log of a server that is not running; `None` if there is none and `create` is not set.
pub(super) fn open(
    config: &Config,
    create: bool,
) -> Result<Option<Arc<dyn UpdateLog>>, Box<dyn Error>> {
    let directory = &config.log.directory;
    if config.log.kind == Kind::Memory {
        return Err("log.kind is memory, which ends with the process: give --data".into());
    }
    if !create && !directory.is_dir() {
        return Ok(None);
    }
    let mut config = config.log.clone();
    // Nobody else writes, so that there is nothing to wait for.
    config.commit_interval = Duration::ZERO;
    let (log, _) = log::open(&config, Metrics::new().log)?;
    Ok(Some(log))
}
