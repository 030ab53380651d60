//! Takes a configuration that was read again, while the server runs: all of what can change, or
//! nothing.

use std::sync::Arc;

use parking_lot::Mutex;
use toml::{Table, Value};

use super::{
    Config,
    config::{ConfigError, set},
    telemetry::Filter,
};
use crate::{
    auth::{self, Authenticator, Mode},
    metrics::{Metrics, Outcome, ResultLabels},
    session::Sessions,
    transport::{Origins, Tls, TlsError, tls},
};

/// The keys that change while the server runs: these, and those below them. Everything else needs a
/// restart, and is named in a warning when it differs.
///
/// A key that is added here is applied in `Live::apply`, and listed in docs/configuration.md.
pub const LIVE: [&str; 12] = [
    "auth.audience",
    "auth.issuer",
    "auth.jwks_ca",
    "auth.jwks_interval",
    "auth.jwks_url",
    "auth.keys",
    "auth.leeway",
    "auth.revocations",
    "limits",
    "telemetry.filter",
    "transport.allowed_origins",
    "transport.tls",
];

/// Why everything stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Tokens cannot be checked with the files that it names.
    #[error(transparent)]
    Auth(#[from] auth::SettingsError),
    /// TLS cannot be spoken with the files that it names.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The parts of a server that take other settings while it runs. Cheap to clone; clones are the
/// same.
#[derive(Clone, Debug)]
pub struct Live {
    /// What counts now: at first what the server was started with.
    current: Arc<Mutex<Config>>,
    authenticator: Authenticator,
    sessions: Sessions,
    tls: Tls,
    origins: Origins,
    filter: Option<Filter>,
    metrics: Arc<Metrics>,
}

/// Everything that was read before anything is changed.
struct Ready {
    config: Config,
    auth: Option<auth::Prepared>,
    tls: tls::Prepared,
}

impl Live {
    /// The parts of a server that was started with `config`.
    pub(super) fn new(
        config: Config,
        authenticator: Authenticator,
        sessions: Sessions,
        tls: Tls,
        origins: Origins,
        metrics: Arc<Metrics>,
    ) -> Self {
        let current = Arc::new(Mutex::new(config));
        Self { current, authenticator, sessions, tls, origins, filter: None, metrics }
    }

    /// The same, for a process whose log has this filter.
    #[must_use]
    pub(super) fn with_filter(self, filter: Filter) -> Self {
        Self { filter: Some(filter), ..self }
    }

    /// Takes what can change of `config`, which `load` reads, and reads the files that it names again.
    /// Returns the keys that differ and need a restart. Blocks.
    ///
    /// # Errors
    ///
    /// The configuration or a file cannot be used. Everything is as it was, and the error was logged.
    pub fn reload(
        &self,
        load: impl FnOnce() -> Result<Config, ConfigError>,
    ) -> Result<Vec<String>, ReloadError> {
        let mut current = self.current.lock();
        let reloaded = load().map_err(ReloadError::from).and_then(|wanted| {
            let (config, others) = merge(&current, &wanted)?;
            Ok((self.read(config)?, others))
        });
        let result = if reloaded.is_ok() { Outcome::Ok } else { Outcome::Failed };
        self.metrics.config_reloads.get_or_create(&ResultLabels { result }).inc();
        match reloaded {
            Ok((ready, others)) => {
                *current = self.apply(ready);
                tracing::info!("the configuration was read anew");
                if !others.is_empty() {
                    tracing::warn!("needs a restart: {}", others.join(", "));
                }
                Ok(others)
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the configuration cannot be used: everything stays as it was"
                );
                Err(error)
            }
        }
    }

    fn read(&self, config: Config) -> Result<Ready, ReloadError> {
        let auth = match config.auth.mode {
            Mode::None => None,
            Mode::Jwt => Some(Authenticator::prepare(&config.auth)?),
        };
        let tls = tls::Prepared::load(&config.transport.tls);
        let tls = tls.inspect_err(|error| self.tls.refused(error))?;
        Ok(Ready { config, auth, tls })
    }

    fn apply(&self, ready: Ready) -> Config {
        let Ready { config, auth, tls } = ready;
        if let Some(filter) = &self.filter {
            filter.set(&config.telemetry.filter);
        }
        if let Some(auth) = auth {
            self.authenticator.apply(auth);
        }
        self.sessions.set_limits(config.limits.clone());
        self.tls.apply(tls);
        self.origins.replace(&config.transport.allowed_origins);
        config
    }
}

/// What counts when `wanted` comes in the place of `current`, and the keys in which that is not what
/// was wanted.
fn merge(current: &Config, wanted: &Config) -> Result<(Config, Vec<String>), ConfigError> {
    let kind = |error: toml::ser::Error| ConfigError::Kind(error.to_string());
    let wanted = Table::try_from(wanted).map_err(kind)?;
    let mut merged = Table::try_from(current).map_err(kind)?;
    for key in LIVE {
        if let Some(value) = get(&wanted, key) {
            set(&mut merged, key, value.clone());
        }
    }
    let mut others = Vec::new();
    differences(&merged, &wanted, "", &mut others);
    let config: Config = merged
        .try_into()
        .map_err(|error: toml::de::Error| ConfigError::Kind(error.message().to_owned()))?;
    // What is kept and what is new may not go together.
    config.validate()?;
    Ok((config, others))
}

fn get<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((first, rest)) => get(table.get(first)?.as_table()?, rest),
    }
}

/// The keys in which two tables with the same keys differ.
fn differences(one: &Table, other: &Table, at: &str, found: &mut Vec<String>) {
    for (name, value) in one {
        let key = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        match (value, other.get(name)) {
            (Value::Table(one), Some(Value::Table(other))) => {
                differences(one, other, &key, found);
            }
            (value, other) if other != Some(value) => found.push(key),
            (_, _) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_live_is_taken_and_what_is_not_is_named() {
        let current = Config::default();
        let mut wanted = Config::default();
        wanted.telemetry.filter = "debug".to_owned();
        wanted.transport.allowed_origins = vec!["https://a.example".to_owned()];
        wanted.transport.tls.certificate = "a".into();
        wanted.transport.tls.key = "b".into();
        wanted.auth.issuer = "i".to_owned();
        let (merged, others) = merge(&current, &wanted).unwrap();
        assert_eq!((merged, others), (wanted.clone(), Vec::new()));

        wanted.room.rooms_max = 7;
        wanted.auth.insecure = true;
        wanted.transport.listen = "127.0.0.1:1".parse().unwrap();
        let (merged, others) = merge(&current, &wanted).unwrap();
        assert_eq!(others, ["auth.insecure", "room.rooms_max", "transport.listen"]);
        assert_eq!(merged.room, current.room);
        assert_eq!(merged.telemetry, wanted.telemetry);
    }

    #[test]
    fn what_does_not_go_with_what_is_kept_is_refused() {
        let mut current = Config::default();
        current.auth.mode = Mode::Jwt;
        current.auth.issuer = "i".to_owned();
        current.auth.audience = "a".to_owned();
        current.auth.jwks_url = "https://issuer.example/keys".to_owned();
        // Without tokens it would be good; but those who have some stay asked for them.
        let error = merge(&current, &Config::default()).unwrap_err().to_string();
        assert!(error.contains("auth.issuer"), "{error}");
    }

    #[test]
    fn every_live_key_exists() {
        let keys = Table::try_from(Config::default()).unwrap();
        for key in LIVE {
            assert!(get(&keys, key).is_some(), "{key}");
        }
        assert!(LIVE.is_sorted());
    }
}
