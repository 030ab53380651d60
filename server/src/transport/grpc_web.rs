//! Sessions of clients that cannot stream upwards: each Publish finds the session of its Subscribe.

use std::sync::Arc;

use bytes::Bytes;
use dashmap::DashMap;
use subtle::ConstantTimeEq as _;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use super::status;
use crate::session::{CloseReason, Delivery, Frame, Inbound, SessionId};

/// Calls of Publish that wait for one session at most. A client makes one at a time.
const CALLS_MAX: usize = 16;

/// The sessions that are fed by Publish. Cheap to clone; clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Feeds {
    sessions: Arc<DashMap<SessionId, Entry>>,
}

#[derive(Debug)]
struct Entry {
    secret: [u8; 16],
    deliveries: mpsc::Sender<Delivery>,
}

/// The right to feed a session. Dropped, nothing can be published to it any more.
#[derive(Debug)]
pub(super) struct Fed {
    feeds: Feeds,
    session: SessionId,
    secret: [u8; 16],
}

/// What was published to a session.
#[derive(Debug)]
pub(super) struct Published {
    deliveries: mpsc::Receiver<Delivery>,
}

impl Feeds {
    /// Makes `session` one that can be published to, beginning with `join`.
    #[must_use]
    pub(super) fn open(&self, session: SessionId, join: Frame) -> (Published, Fed) {
        let (deliveries, receiver) = mpsc::channel(CALLS_MAX);
        // Nothing is in the channel yet, so that there is room.
        drop(deliveries.try_send(Delivery { frames: vec![join], reply: None }));
        let secret: [u8; 16] = rand::random();
        self.sessions.insert(session, Entry { secret, deliveries });
        (Published { deliveries: receiver }, Fed { feeds: self.clone(), session, secret })
    }

    /// Brings frames to a session, and returns when it has taken them.
    ///
    /// # Errors
    ///
    /// There is no such session, the secret is not its, or it ended because of the frames.
    ///
    /// # Cancellation
    ///
    /// The frames may have been taken.
    pub(super) async fn deliver(
        &self,
        session: &str,
        secret: &[u8],
        frames: Vec<Frame>,
    ) -> Result<(), Status> {
        let session = SessionId::parse(session).ok_or_else(status::unknown_session)?;
        let deliveries = {
            let entry = self.sessions.get(&session).ok_or_else(status::unknown_session)?;
            // In constant time, so that a secret cannot be found out byte by byte.
            if !bool::from(entry.secret[..].ct_eq(secret)) {
                return Err(status::unknown_session());
            }
            entry.deliveries.clone()
        };
        let (reply, outcome) = oneshot::channel();
        match deliveries.try_send(Delivery { frames, reply: Some(reply) }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                return Err(status::closed(&CloseReason::Busy, None));
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(status::unknown_session()),
        }
        match outcome.await {
            Ok(outcome) => outcome.map_err(|reason| status::closed(&reason, None)),
            Err(_) => Err(status::unknown_session()),
        }
    }
}

impl Fed {
    /// The secret of the session.
    #[must_use]
    pub(super) fn secret(&self) -> Bytes {
        Bytes::copy_from_slice(&self.secret)
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        self.feeds.sessions.remove(&self.session);
    }
}

impl Inbound for Published {
    const WAITS: bool = true;

    async fn next(&mut self) -> Option<Result<Delivery, CloseReason>> {
        self.deliveries.recv().await.map(Ok)
    }
}
