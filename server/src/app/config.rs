//! The configuration: a file, then the environment, then flags; each key once, each with a default.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::{auth, log, room, session, transport};

/// What environment variables begin with that are keys: `COWRITE_SESSION__HEARTBEAT_INTERVAL` is
/// `session.heartbeat_interval`.
const ENVIRONMENT_PREFIX: &str = "COWRITE_";

/// Environment variables that are not keys: flags of the command line and the seed of tests.
const NOT_KEYS: [&str; 4] = ["COWRITE_CONFIG", "COWRITE_SERVER", "COWRITE_SEED", "COWRITE_TOKEN"];

/// The whole configuration: the sum of those of the layers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The doors.
    pub transport: transport::Config,
    /// Sessions.
    pub session: session::Config,
    /// What sessions may send.
    pub limits: session::limits::Config,
    /// Rooms.
    pub room: room::Config,
    /// The log.
    pub log: log::Config,
    /// Who may do what.
    pub auth: auth::Config,
    /// How the server ends.
    pub shutdown: Shutdown,
    /// What the server says.
    pub telemetry: Telemetry,
    /// What the server runs on.
    pub runtime: Runtime,
}

/// How the server ends: the table `[shutdown]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// From the signal to the end, at most.
    #[serde(with = "humantime_serde")]
    pub grace: Duration,
    /// From "not ready" to the end of the first session: as long as a load balancer takes to notice.
    /// At most half of the grace is used for it.
    #[serde(with = "humantime_serde")]
    pub delay: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { grace: Duration::from_secs(10), delay: Duration::ZERO }
    }
}

/// What the server says: the table `[telemetry]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// What is logged: a level, or directives such as `info,cowrite_server::room=debug`.
    pub filter: String,
    /// How it is written.
    pub format: LogFormat,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Text }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What the server runs on: the table `[runtime]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Runtime {
    /// Threads that serve clients; 0 means as many as there are processors for this process.
    pub worker_threads: usize,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read the configuration file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration file {path} is not TOML: {source}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: toml::de::Error,
    },
    /// A key that does not exist.
    #[error("{from} has the key {key}, which does not exist{hint}")]
    UnknownKey {
        /// Where it stands.
        from: String,
        /// The key.
        key: String,
        /// What may have been meant.
        hint: String,
    },
    /// A value of the wrong kind.
    #[error("a value of the wrong kind: {0}")]
    Kind(String),
    /// A value that makes no sense, or not together with others.
    #[error("{0}")]
    Invalid(String),
}

/// Where values come from, later ones over earlier ones.
#[derive(Debug, Default)]
pub struct Sources<'a> {
    /// The configuration file.
    pub file: Option<&'a Path>,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// Keys that the command line sets.
    pub flags: Vec<(&'static str, Value)>,
}

impl Config {
    /// Reads the configuration and checks it.
    ///
    /// # Errors
    ///
    /// A sentence that names the key.
    pub fn load(sources: Sources<'_>) -> Result<Self, ConfigError> {
        let known =
            Table::try_from(Self::default()).map_err(|e| ConfigError::Kind(e.to_string()))?;
        let mut table = Table::new();
        if let Some(path) = sources.file {
            let text = fs::read_to_string(path)
                .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
            table = text
                .parse()
                .map_err(|source| ConfigError::Syntax { path: path.to_owned(), source })?;
            refuse_unknown(&table, &known, &path.display().to_string(), "")?;
        }
        for (name, text) in sources.environment {
            let Some(key) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            if NOT_KEYS.contains(&&name[..]) {
                continue;
            }
            let key = key.to_ascii_lowercase().replace("__", ".");
            set(&mut table, &key, parse_value(text));
            refuse_unknown(&table, &known, &format!("the environment variable {name}"), "")?;
        }
        for (key, value) in sources.flags {
            set(&mut table, key, value);
        }
        let config: Self = table.try_into().map_err(|error| {
            // The text has the key in its last line; both belong into one sentence.
            let text = error.to_string();
            let text: Vec<_> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
            ConfigError::Kind(text.join(" "))
        })?;
        config.validate()?;
        Ok(config)
    }

    /// Checks the values against each other.
    ///
    /// # Errors
    ///
    /// A sentence that names the key.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let checks = [
            self.transport.validate(self.session.update_bytes_max),
            self.session.validate(),
            self.limits.validate(),
            self.room.validate(),
            self.log.validate(),
            self.auth.validate(self.transport.listen),
            self.validate_own(),
        ];
        checks.into_iter().collect::<Result<(), String>>().map_err(ConfigError::Invalid)
    }

    fn validate_own(&self) -> Result<(), String> {
        if self.shutdown.grace < Duration::from_secs(1) {
            return Err("shutdown.grace must be at least 1s".to_owned());
        }
        if self.runtime.worker_threads > 1024 {
            return Err("runtime.worker_threads must be at most 1024".to_owned());
        }
        if self.room.document_bytes_max < self.session.update_bytes_max {
            return Err(
                "room.document_bytes_max must be at least session.update_bytes_max".to_owned()
            );
        }
        if tracing_subscriber::EnvFilter::try_new(&self.telemetry.filter).is_err() {
            return Err(format!(
                "telemetry.filter has {:?}: give a level such as info, or directives such as \
                 info,cowrite_server::room=debug",
                self.telemetry.filter
            ));
        }
        Ok(())
    }
}

/// A value as in the file; what does not read like one is a text.
fn parse_value(text: String) -> Value {
    let parsed = format!("value = {text}").parse::<Table>();
    match parsed.ok().and_then(|mut table| table.remove("value")) {
        Some(value) => value,
        None => Value::String(text),
    }
}

/// Puts `value` at `key`, in tables that are made where there are none.
pub(super) fn set(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => drop(table.insert(key.to_owned(), value)),
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Value::Table(Table::new()));
            if !inner.is_table() {
                *inner = Value::Table(Table::new());
            }
            if let Value::Table(inner) = inner {
                set(inner, rest, value);
            }
        }
    }
}

fn refuse_unknown(given: &Table, known: &Table, from: &str, at: &str) -> Result<(), ConfigError> {
    for (name, value) in given {
        let key = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        match (value, known.get(name)) {
            (Value::Table(inner), Some(Value::Table(known))) => {
                refuse_unknown(inner, known, from, &key)?;
            }
            (_, Some(_)) => {}
            (_, None) => {
                let near = nearest(name, known.keys());
                let prefix = if at.is_empty() { String::new() } else { format!("{at}.") };
                let hint = near.map(|near| format!(": did you mean {prefix}{near}?"));
                let hint = hint.unwrap_or_default();
                return Err(ConfigError::UnknownKey { from: from.to_owned(), key, hint });
            }
        }
    }
    Ok(())
}

/// The name that shares most with what was written, if that is a good part of it.
fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a String>) -> Option<&'a String> {
    let pairs =
        |text: &str| -> Vec<(char, char)> { text.chars().zip(text.chars().skip(1)).collect() };
    let given = pairs(wrong);
    let score = |name: &String| {
        let shared = pairs(name).iter().filter(|pair| given.contains(pair)).count();
        (200 * shared).checked_div(given.len() + name.len() - 1).unwrap_or(0)
    };
    names.map(|name| (score(name), name)).filter(|(score, _)| *score >= 50).max().map(|(_, n)| n)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        let environment =
            environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let sources = Sources { file: Some(file.path()), environment, flags: Vec::new() };
        Config::load(sources).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_at_all_is_a_valid_configuration() {
        assert_eq!(load("", &[]), Ok(Config::default()));
    }

    #[test]
    fn the_environment_goes_over_the_file_and_flags_over_both() {
        let text = "[session]\nheartbeat_interval = '5s'\n[room]\nsessions_max = 7\n";
        let environment = [
            ("COWRITE_ROOM__SESSIONS_MAX", "8"),
            ("COWRITE_TRANSPORT__LISTEN", "127.0.0.1:1"),
            ("COWRITE_TRANSPORT__ALLOWED_ORIGINS", r#"["https://a.example"]"#),
            ("COWRITE_CONFIG", "not a key"),
            ("PATH", "/bin"),
        ];
        let config = load(text, &environment).unwrap();
        assert_eq!(config.session.heartbeat_interval, Duration::from_secs(5));
        assert_eq!(config.room.sessions_max, 8);
        assert_eq!(config.transport.listen.port(), 1);
        assert_eq!(config.transport.allowed_origins, ["https://a.example"]);
        let flags = vec![("room.sessions_max", Value::Integer(9))];
        let environment = vec![("COWRITE_ROOM__SESSIONS_MAX".to_owned(), "8".to_owned())];
        let config = Config::load(Sources { file: None, environment, flags }).unwrap();
        assert_eq!(config.room.sessions_max, 9);
    }

    #[test]
    fn a_key_that_does_not_exist_is_refused_by_name() {
        let error = load("[session]\nheartbeat_intervall = '5s'\n", &[]).unwrap_err();
        assert!(error.contains("session.heartbeat_intervall"), "{error}");
        assert!(error.contains("did you mean session.heartbeat_interval?"), "{error}");
        let error = load("[sesion]\n", &[]).unwrap_err();
        assert!(error.contains("sesion"), "{error}");
        let error = load("", &[("COWRITE_ROOM_SESSIONS_MAX", "1")]).unwrap_err();
        assert!(error.contains("COWRITE_ROOM_SESSIONS_MAX"), "{error}");
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_refused_by_name() {
        for (text, key) in [
            ("[room]\nsessions_max = 'many'\n", "sessions_max"),
            ("[session]\nheartbeat_interval = 5\n", "heartbeat_interval"),
            ("[log]\ndurability = 'perhaps'\n", "durability"),
        ] {
            let error = load(text, &[]).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn values_that_cannot_be_are_refused_by_name() {
        for (text, key) in [
            (
                "[session]\nheartbeat_interval='20s'\nheartbeat_timeout='40s'\n",
                "session.heartbeat_timeout",
            ),
            ("[room]\nsessions_max = 0\n", "room.sessions_max"),
            ("[log]\nsegment_bytes = 1\n", "log.segment_bytes"),
            ("[transport]\nmessage_bytes_max = 1000\n", "transport.message_bytes_max"),
            ("[transport]\nallowed_origins = ['a.example']\n", "transport.allowed_origins"),
            ("[shutdown]\ngrace = '0s'\n", "shutdown.grace"),
            ("[telemetry]\nfilter = '=,='\n", "telemetry.filter"),
        ] {
            let error = load(text, &[]).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
    }

    /// What the example sets otherwise than it is without a configuration.
    const SET_IN_THE_EXAMPLE: [&str; 11] = [
        "auth.audience",
        "auth.issuer",
        "auth.keys",
        "auth.mode",
        "auth.revocations",
        "log.directory",
        "telemetry.format",
        "transport.allowed_origins",
        "transport.listen",
        "transport.tls.certificate",
        "transport.tls.key",
    ];

    /// Every key that is not a table, with its value.
    fn flat(table: &Table) -> BTreeMap<String, Value> {
        let mut keys = BTreeMap::new();
        for (name, value) in table {
            if let Value::Table(inner) = value {
                let inner = flat(inner).into_iter();
                keys.extend(inner.map(|(key, value)| (format!("{name}.{key}"), value)));
            } else {
                keys.insert(name.clone(), value.clone());
            }
        }
        keys
    }

    #[test]
    fn the_example_has_every_key_and_says_the_default_of_each_that_it_sets() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/cowrite.example.toml");
        let text = fs::read_to_string(path).unwrap();
        let example = flat(&text.parse().unwrap());
        let defaults = flat(&Table::try_from(Config::default()).unwrap());
        assert!(example.keys().eq(defaults.keys()), "{example:#?}");
        let set = example.iter().filter(|(key, value)| defaults[*key] != **value);
        let set: Vec<_> = set.map(|(key, _)| key.as_str()).collect();
        assert_eq!(set, SET_IN_THE_EXAMPLE);

        // Each of them, and no other, has its default in the line above.
        let (mut table, mut above, mut told) = ("", "", BTreeMap::new());
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('[') {
                table = name.trim_end_matches(']');
            } else if let Some(default) = above.strip_prefix("# default: ") {
                let key = line.split(" = ").next().unwrap();
                told.insert(format!("{table}.{key}"), parse_value(default.to_owned()));
            }
            above = line;
        }
        let set = set.into_iter().map(|key| (key.to_owned(), defaults[key].clone())).collect();
        assert_eq!(told, set);
        assert_eq!(told.len(), text.matches("# default: ").count());
        load(&text, &[]).unwrap();
    }
}
