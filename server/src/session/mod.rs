//! Sessions: one participant attached to one room, over any transport.
//!
//! A transport brings frames in through [`Inbound`] and takes events out of an
//! [`Outbox`]. Between the two, the session decides what a frame may do, keeps
//! the heartbeat, and takes itself out of the room however it ends.

mod config;
mod handshake;
mod heartbeat;
pub mod limits;
mod task;

use std::{future::Future, sync::Arc};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

pub use self::{config::Config, task::run};
pub use crate::{
    auth::{Access, Identity, Token},
    ids::{DocumentId, DocumentIdError, Epoch, Sequence, SessionId},
    room::{
        AwarenessState, Chunk, CloseReason, End, Event, Joined, Listed, LogState, Outbox,
        RefuseReason, Remedy, Rules, Shared, Update, WIRE_FORMATS,
    },
};
use crate::{
    auth::{AuthError, Authenticator},
    metrics::{ReasonLabels, SessionMetrics},
    room::Registry,
    shutdown::Tasks,
};

/// What fuzz targets call.
#[cfg(fuzzing)]
pub mod fuzzing {
    use futures_util::FutureExt as _;

    use super::{Authenticator, Join, handshake};

    /// Checks a join, with an authenticator that fetches no keys.
    pub fn accept(join: Join, authenticator: &Authenticator) {
        let accepted = handshake::accept(join, authenticator).now_or_never();
        drop(accepted.expect("nothing to be waited for"));
    }
}

/// The protocol version of frames.
pub const PROTOCOL_VERSION: u32 = 1;

async fn identify(authenticator: &Authenticator, token: &Token) -> Result<Identity, CloseReason> {
    authenticator.identify(token).await.map_err(|error| match error {
        AuthError::Unauthenticated => CloseReason::Unauthenticated,
        AuthError::Unavailable => CloseReason::KeysUnavailable,
    })
}

/// A frame from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Opens the session.
    Join(Box<Join>),
    /// An edit.
    Update {
        /// Chosen by the client, growing.
        update_id: u64,
        /// yrs v1 update, not checked yet.
        update: Bytes,
    },
    /// An edit that answers our state vector: what the client has and the document did not.
    Difference {
        /// As for an update.
        update_id: u64,
        /// As for an update.
        update: Bytes,
    },
    /// Asks for what a client with this state vector (yrs v1, not checked yet) lacks.
    Sync(Bytes),
    /// The awareness state of the session: JSON, not checked yet; empty for none.
    Awareness(Bytes),
    /// An awareness state that a Yjs client sends, its own or somebody else's.
    Presence(AwarenessState),
    /// The answer to a ping.
    Pong,
    /// A new token.
    RefreshToken(Token),
    /// The client goes.
    Leave,
}

/// What a client says to open a session. Nothing of it is checked yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Join {
    /// The protocol version that the client speaks.
    pub protocol_version: u32,
    /// The document id.
    pub document: String,
    /// The credentials.
    pub token: Token,
    /// What the client has (yrs v1 state vector); empty for nothing.
    pub state_vector: Bytes,
    /// Which history that belongs to: empty, or 16 bytes.
    pub epoch: Bytes,
    /// The last frame that the client has applied; 0 for none.
    pub resume_sequence: u64,
    /// The Yjs client id of its awareness state; 0 for none.
    pub awareness_client_id: u64,
    /// The access that the client wants at most; `None` for all that it may have.
    pub access: Option<Access>,
    /// Whose rules the client keeps.
    pub rules: Rules,
}

/// Frames that came in one message.
#[derive(Debug)]
pub struct Delivery {
    /// In order.
    pub frames: Vec<Frame>,
    /// Told what became of them, where somebody waits for it.
    pub reply: Option<oneshot::Sender<Result<(), CloseReason>>>,
}

/// Where the frames of a session come from.
pub trait Inbound: Send + 'static {
    /// Whether frames that are not taken may wait where they are, without harm to others: while the
    /// session has sent more than it may, nothing is taken then.
    const WAITS: bool;

    /// The next frames. `None`: there will be no more, which is as good as a Leave.
    ///
    /// # Errors
    ///
    /// What came cannot be read; the session ends.
    ///
    /// # Cancellation
    ///
    /// Nothing is lost: the frames come with the next call.
    fn next(&mut self) -> impl Future<Output = Option<Result<Delivery, CloseReason>>> + Send;
}

/// What sessions need. Cheap to clone; clones share everything.
#[derive(Clone, Debug)]
pub struct Sessions {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    registry: Registry,
    authenticator: Authenticator,
    limits: Arc<limits::Limits>,
    metrics: SessionMetrics,
    tasks: Tasks,
}

impl Sessions {
    /// Sessions in the rooms of `registry`, whose tasks are in `tasks`. When those are asked to end,
    /// every session ends after what it has sent is durable. What they may send are the defaults
    /// until [`Self::set_limits`].
    #[must_use]
    pub fn new(
        config: Config,
        registry: Registry,
        authenticator: Authenticator,
        metrics: SessionMetrics,
        tasks: Tasks,
    ) -> Self {
        let update_bytes_max = config.update_bytes_max;
        let limits = limits::Config::default();
        let limits = limits::Limits::new(limits, update_bytes_max, metrics.clone());
        let limits = Arc::new(limits);
        let inner = Inner { config, registry, authenticator, limits, metrics, tasks };
        Self { inner: Arc::new(inner) }
    }

    /// Limits what sessions and principals may send from now on, also those that are open.
    pub fn set_limits(&self, config: limits::Config) {
        self.inner.limits.set(config);
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Who somebody with `token` is, for calls that are no session.
    ///
    /// # Errors
    ///
    /// Why that is not known.
    ///
    /// # Cancellation
    ///
    /// Nothing is lost.
    pub async fn identify(&self, token: &Token) -> Result<Identity, CloseReason> {
        identify(&self.inner.authenticator, token).await
    }

    /// Whether anybody can be let in: there are keys to check credentials with.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.inner.authenticator.is_ready()
    }

    /// The rooms.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    /// Opens a session that reads from `inbound` and whose events go to the outbox that is returned,
    /// and ends when the token is cancelled, which the transport does when its reader has gone.
    pub fn open<I: Inbound>(
        &self,
        session: SessionId,
        inbound: I,
    ) -> (Arc<Outbox>, CancellationToken) {
        let outbox = Outbox::new(self.inner.registry.config().outbox_limits());
        let gone = CancellationToken::new();
        let task = run(self.clone(), session, inbound, Arc::clone(&outbox), gone.clone());
        self.inner.tasks.spawn(task);
        (outbox, gone)
    }

    /// Runs a task of a transport that outlives its sessions: it is waited for as they are.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.inner.tasks.spawn(task);
    }

    /// Cancelled when the server shuts down.
    #[must_use]
    pub fn draining(&self) -> &CancellationToken {
        self.inner.tasks.token()
    }

    fn count_closed(&self, reason: &CloseReason) {
        let label = ReasonLabels { reason: reason.label() };
        self.inner.metrics.closed.get_or_create(&label).inc();
    }
}
