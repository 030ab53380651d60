//! What a scenario file says.

use std::{fs, path::Path, time::Duration};

use serde::Deserialize;

use crate::error::{Error, ScenarioError};

/// A scenario. Unknown keys are errors.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Scenario {
    /// People type into documents, others watch.
    Edits(Edits),
    /// The same twice: without and with sessions that never read what they are sent.
    SlowReaders(SlowReaders),
    /// Sessions that do nothing.
    Idle(Idle),
    /// All sessions are cut and come back at once.
    ReconnectStorm(ReconnectStorm),
    /// Sessions come all at once.
    Connect(Connect),
    /// One session joins a document with content, then many do at once.
    Join(Join),
}

/// People type into documents, others watch.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Edits {
    /// How many documents, all alike.
    pub(crate) documents: u32,
    /// How many sessions each has, editors included. Every session receives.
    pub(crate) sessions_per_document: u32,
    /// How many of them type.
    pub(crate) editors_per_document: u32,
    /// How fast they do.
    pub(crate) pace: Pace,
    /// How many characters an edit inserts.
    pub(crate) edit_chars: u32,
    /// How long they type before anything counts.
    #[serde(with = "humantime_serde")]
    pub(crate) warm_up: Duration,
    /// How long what they type counts.
    #[serde(with = "humantime_serde")]
    pub(crate) duration: Duration,
    /// Chooses the moments at which they begin.
    #[serde(default)]
    pub(crate) seed: u64,
}

/// How fast an editor types.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pace {
    /// At this rate, whatever the server does.
    EditsPerSecond(f64),
    /// As fast as the server goes, with this many edits not acknowledged.
    InFlight(u32),
}

/// The same run twice, without and with stalled readers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SlowReaders {
    /// How many sessions open the stream and never read it, on top of the others.
    pub(crate) stalled_readers: u32,
    /// What the others do.
    pub(crate) edits: Edits,
}

/// Sessions that do nothing.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Idle {
    /// How many.
    pub(crate) sessions: u32,
    /// On how many documents, evenly.
    pub(crate) documents: u32,
    /// How long they stay before the server's memory is looked at.
    #[serde(with = "humantime_serde")]
    pub(crate) hold: Duration,
}

/// All sessions are cut and come back at once.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReconnectStorm {
    /// How many.
    pub(crate) sessions: u32,
    /// On how many documents, evenly.
    pub(crate) documents: u32,
    /// How many keystrokes each document has.
    pub(crate) document_edits: u32,
    /// They come back with what they had; otherwise with nothing, and receive everything.
    pub(crate) resume: bool,
    /// They must be back after this long.
    #[serde(with = "humantime_serde")]
    pub(crate) deadline: Duration,
    /// Chooses where is typed.
    #[serde(default)]
    pub(crate) seed: u64,
}

/// Sessions come all at once.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Connect {
    /// How many.
    pub(crate) sessions: u32,
    /// On how many documents, evenly. They are new.
    pub(crate) documents: u32,
    /// They must be in after this long.
    #[serde(with = "humantime_serde")]
    pub(crate) deadline: Duration,
}

/// One session joins a document with content, then many do at once.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Join {
    /// How many keystrokes the document has.
    pub(crate) document_edits: u32,
    /// How many single joins, one after the other.
    pub(crate) joins: u32,
    /// How many joins at once after that.
    pub(crate) at_once: u32,
    /// Chooses where is typed.
    #[serde(default)]
    pub(crate) seed: u64,
}

impl Scenario {
    /// Reads and checks a file.
    pub(crate) fn read(path: &Path) -> Result<Self, Error> {
        let fail = |source: ScenarioError| Error::Scenario { path: path.to_owned(), source };
        let text = fs::read_to_string(path).map_err(|error| fail(error.into()))?;
        let scenario: Self = toml::from_str(&text).map_err(|error| fail(error.into()))?;
        scenario.check().map_err(|what| fail(ScenarioError::Value(what)))?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Edits(edits) => edits.check(),
            Self::SlowReaders(slow) => slow.edits.check(),
            Self::Idle(Idle { sessions, documents, .. })
            | Self::ReconnectStorm(ReconnectStorm { sessions, documents, .. })
            | Self::Connect(Connect { sessions, documents, .. }) => {
                if *sessions == 0 || *documents == 0 {
                    return Err("sessions and documents are at least 1");
                }
                Ok(())
            }
            Self::Join(join) => {
                if join.joins == 0 || join.at_once == 0 {
                    return Err("joins and at_once are at least 1");
                }
                Ok(())
            }
        }
    }
}

impl Edits {
    fn check(&self) -> Result<(), &'static str> {
        if self.documents == 0 || self.editors_per_document == 0 || self.edit_chars == 0 {
            return Err("documents, editors_per_document and edit_chars are at least 1");
        }
        if self.editors_per_document > self.sessions_per_document {
            return Err("editors are sessions: sessions_per_document is at least as large");
        }
        if self.duration.is_zero() {
            return Err("duration is longer than nothing");
        }
        match self.pace {
            Pace::EditsPerSecond(rate) if !(rate.is_finite() && rate > 0.0) => {
                Err("edits_per_second is more than 0")
            }
            Pace::InFlight(0) => Err("in_flight is at least 1"),
            Pace::EditsPerSecond(_) | Pace::InFlight(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_of_the_repository_can_be_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        for file in fs::read_dir(folder).expect("the folder") {
            Scenario::read(&file.expect("a file").path()).expect("a scenario");
        }
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        let text = "kind = \"idle\"\nsessions = 1\ndocuments = 1\nhold = \"1s\"\nhodl = 1";
        assert!(toml::from_str::<Scenario>(text).is_err());
    }
}
