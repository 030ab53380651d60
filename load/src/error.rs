//! What can go wrong in a run.

use std::{io, path::PathBuf};

use tokio_tungstenite::tungstenite;
use tonic::{Code, Status};

use crate::{door::BadFrame, update::Malformed};

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The scenario cannot be used.
    #[error("scenario {}", path.display())]
    Scenario {
        path: PathBuf,
        #[source]
        source: ScenarioError,
    },
    /// The trace cannot be used.
    #[error("trace {}", path.display())]
    Trace {
        path: PathBuf,
        #[source]
        source: TraceError,
    },
    /// The server's process cannot be looked at.
    #[error("process {pid}")]
    Process {
        pid: u32,
        #[source]
        source: io::Error,
    },
    /// A session could not be had, or ended.
    #[error("session on {document}")]
    Session {
        document: String,
        #[source]
        source: SessionError,
    },
    /// The door cannot do what the scenario wants.
    #[error("{0}")]
    Door(&'static str),
    /// The runtime could not be started.
    #[error("start the runtime")]
    Runtime(#[source] io::Error),
    /// A part of the program broke.
    #[error("a task of the load generator broke")]
    Task(#[from] tokio::task::JoinError),
    /// The report cannot be written.
    #[error("write the report")]
    Report(#[source] serde_json::Error),
}

/// What is wrong with a scenario.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScenarioError {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error(transparent)]
    Parse(#[from] toml::de::Error),
    #[error("{0}")]
    Value(&'static str),
}

/// What is wrong with a trace.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TraceError {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error(transparent)]
    Parse(#[from] serde_json::Error),
    #[error("transaction {at}: {what}")]
    Transaction { at: usize, what: &'static str },
}

/// How a session failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error(transparent)]
    Client(#[from] cowrite_client::Error),
    #[error("the server ended the session")]
    Ended,
    #[error("the server refused an edit: {0:?}")]
    Refused(cowrite_client::ErrorReason),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    BadFrame(#[from] BadFrame),
    #[error("the server broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("the server denied the session: {0}")]
    Denied(String),
    #[error("the server closed the session with {code}: {reason}")]
    Closed { code: u16, reason: String },
    #[error("the door wants a URL that begins with http:// or ws://")]
    Address,
    #[error(transparent)]
    Connect(#[from] io::Error),
    #[error(transparent)]
    WebSocket(#[from] Box<tungstenite::Error>),
    #[error(transparent)]
    Status(Box<Status>),
    #[error("not in time")]
    Late,
}

impl SessionError {
    /// Adds the document.
    pub(crate) fn on(self, document: &str) -> Error {
        Error::Session { document: document.to_owned(), source: self }
    }

    /// Coming back may help.
    pub(crate) fn is_lost(&self) -> bool {
        match self {
            Self::Client(error) => error.is_lost(),
            Self::Ended | Self::Connect(_) | Self::WebSocket(_) => true,
            // Those that a y-websocket client does not come back after.
            Self::Closed { code, .. } => !(4400..4500).contains(code),
            Self::Status(status) => {
                use Code::{Aborted, DeadlineExceeded, ResourceExhausted, Unavailable, Unknown};
                matches!(
                    status.code(),
                    Aborted | DeadlineExceeded | ResourceExhausted | Unavailable | Unknown
                )
            }
            Self::Refused(_)
            | Self::Malformed(_)
            | Self::BadFrame(_)
            | Self::Protocol(_)
            | Self::Denied(_)
            | Self::Address
            | Self::Late => false,
        }
    }
}

impl From<Status> for SessionError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl From<tungstenite::Error> for SessionError {
    fn from(error: tungstenite::Error) -> Self {
        Self::WebSocket(Box::new(error))
    }
}
