//! The task of one session: reads frames, keeps the heartbeat, and cleans up.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Access, CloseReason, Delivery, End, Event, Frame, Inbound, Join, Outbox, SessionId, Sessions,
    handshake,
    heartbeat::{Due, Heartbeat},
};
use crate::{
    room::{
        self, AwarenessState, CheckedUpdate, Presence, RoomHandle, Rules, UpdateKind, validate,
    },
    time,
};

/// How long the end of a session waits for its room.
const LEAVE_WAIT: Duration = Duration::from_secs(5);

/// Serves one session from its Join to its end. `gone` is cancelled when its reader has gone.
pub async fn run<I: Inbound>(
    sessions: Sessions,
    session: SessionId,
    mut inbound: I,
    outbox: Arc<Outbox>,
    gone: CancellationToken,
) {
    let draining = sessions.inner.tasks.token();
    let first = tokio::select! {
        biased;
        () = gone.cancelled() => return,
        () = draining.cancelled() => Err(CloseReason::Draining),
        first = Box::pin(first_frames(&sessions, &mut inbound)) => first,
    };
    let (join, rest) = match first {
        Ok(first) => first,
        Err(reason) => return finish(&sessions, &outbox, reason),
    };
    let rules = join.rules;
    // In a box, which does not last as long as the session.
    let mut joining = Box::pin(join_room(&sessions, session, *join, &outbox));
    let joined = tokio::select! {
        biased;
        joined = &mut joining => joined,
        ended = interrupted(&gone, draining) => {
            if let Ended::Draining = ended {
                finish(&sessions, &outbox, CloseReason::Draining);
            }
            // The room may have let the session in just now, and nobody else would take it out.
            if let Ok((room, _)) = joining.await {
                room.leave(session).await;
            }
            return;
        }
    };
    drop(joining);
    let open = match joined {
        Ok((room, access)) => Opened { room, access, rules, rest, heartbeat: heartbeat(&sessions) },
        Err(reason) => return finish(&sessions, &outbox, reason),
    };
    sessions.inner.metrics.opened.inc();
    sessions.inner.metrics.sessions.inc();
    let room = open.room.clone();
    let ended = Live { sessions: &sessions, session, outbox: &outbox, open }.serve(inbound, gone);
    let ended = ended.await;
    // Returns when what the session sent is durable and acknowledged, which the end must not
    // overtake. A room that hangs does not hold the end up.
    if timeout(LEAVE_WAIT, Box::pin(room.leave(session))).await.is_err() {
        tracing::warn!(%session, "the room did not let the session go in time");
    }
    match ended {
        Ended::Left => outbox.finish(End::Left),
        Ended::Draining => finish(&sessions, &outbox, CloseReason::Draining),
        Ended::Closed(reason) => {
            tracing::debug!(%session, %reason, "session closed");
            finish(&sessions, &outbox, reason);
        }
        Ended::Gone => {}
    }
    sessions.inner.metrics.sessions.dec();
}

/// A session that has joined.
struct Opened {
    room: RoomHandle,
    access: Access,
    rules: Rules,
    /// Frames that came in one message with the Join.
    rest: Vec<Frame>,
    heartbeat: Heartbeat,
}

enum Ended {
    /// The client said so, or sends nothing more.
    Left,
    /// The reader has gone, or the room has ended the session.
    Gone,
    /// The server shuts down.
    Draining,
    /// The client did something wrong, or nothing for too long.
    Closed(CloseReason),
}

fn finish(sessions: &Sessions, outbox: &Outbox, reason: CloseReason) {
    let config = &sessions.inner.config;
    let retry_max = match reason {
        CloseReason::Draining => config.drain_retry_max,
        CloseReason::HeartbeatTimeout(_)
        | CloseReason::JoinTimeout(_)
        | CloseReason::TooManySessions(_)
        | CloseReason::TooManyRooms(_)
        | CloseReason::TooSlow(_)
        | CloseReason::Busy
        | CloseReason::LogUnavailable
        | CloseReason::LogFull
        | CloseReason::RoomRestarted
        | CloseReason::IncompleteUpdate(_) => Duration::from_secs(2),
        CloseReason::BadDocumentId(_)
        | CloseReason::UnsupportedProtocolVersion(_)
        | CloseReason::NotJoined
        | CloseReason::AlreadyJoined
        | CloseReason::MalformedFrame(_)
        | CloseReason::MessageTooLarge(_)
        | CloseReason::MalformedUpdate(_)
        | CloseReason::PoisonousUpdate
        | CloseReason::UpdateTooLarge { .. }
        | CloseReason::WriteDenied
        | CloseReason::Unauthenticated
        | CloseReason::EpochMismatch
        | CloseReason::DocumentCorrupt
        | CloseReason::Quarantined => Duration::ZERO,
    };
    let retry_after =
        (!retry_max.is_zero()).then(|| retry_max.mul_f64(rand::random_range(0.05..1.0)));
    sessions.count_closed(&reason);
    outbox.finish(End::Closed { reason, retry_after });
}

/// Waits for the end of a session that has not joined yet.
async fn interrupted(gone: &CancellationToken, draining: &CancellationToken) -> Ended {
    tokio::select! {
        biased;
        () = gone.cancelled() => Ended::Gone,
        () = draining.cancelled() => Ended::Draining,
    }
}

/// Waits for the Join, and returns it with the frames that came in one message with it.
async fn first_frames<I: Inbound>(
    sessions: &Sessions,
    inbound: &mut I,
) -> Result<(Box<Join>, Vec<Frame>), CloseReason> {
    let join_timeout = sessions.inner.config.join_timeout;
    let first = timeout(join_timeout, inbound.next());
    let first = first.await.map_err(|_| CloseReason::JoinTimeout(join_timeout))?;
    let Delivery { frames, .. } = first.unwrap_or(Err(CloseReason::NotJoined))?;
    let mut frames = frames.into_iter();
    let Some(Frame::Join(join)) = frames.next() else { return Err(CloseReason::NotJoined) };
    Ok((join, frames.collect()))
}

fn heartbeat(sessions: &Sessions) -> Heartbeat {
    let config = &sessions.inner.config;
    let jitter = rand::random_range(0.0..1.0);
    Heartbeat::new(config.heartbeat_interval, config.heartbeat_timeout, time::now(), jitter)
}

async fn join_room(
    sessions: &Sessions,
    session: SessionId,
    join: Join,
    outbox: &Arc<Outbox>,
) -> Result<(RoomHandle, Access), CloseReason> {
    let accepted = handshake::accept(join, &sessions.inner.authenticator)?;
    let access = accepted.grant.access;
    let join = room::Join {
        session,
        grant: accepted.grant,
        outbox: Arc::clone(outbox),
        state_vector: accepted.state_vector,
        epoch: accepted.epoch,
        resume: accepted.resume,
        awareness_client_id: accepted.awareness_client_id,
        rules: accepted.rules,
    };
    let room = sessions.inner.registry.join(&accepted.document, join).await?;
    Ok((room, access))
}

struct Live<'a> {
    sessions: &'a Sessions,
    session: SessionId,
    outbox: &'a Arc<Outbox>,
    open: Opened,
}

impl Live<'_> {
    async fn serve<I: Inbound>(mut self, mut inbound: I, gone: CancellationToken) -> Ended {
        for frame in std::mem::take(&mut self.open.rest) {
            if let ControlFlow::Break(ended) = self.frame(frame).await {
                return ended;
            }
        }
        let draining = self.sessions.inner.tasks.token();
        let mut due = std::pin::pin!(sleep_until(time::now()));
        loop {
            // In order of priority: ends first, then frames, which also are signs of life.
            tokio::select! {
                biased;
                () = gone.cancelled() => return Ended::Gone,
                () = draining.cancelled() => return Ended::Draining,
                // By the room.
                () = self.outbox.finished() => return Ended::Gone,
                next = inbound.next() => match next {
                    None => return Ended::Left,
                    Some(Err(reason)) => return Ended::Closed(reason),
                    Some(Ok(Delivery { frames, reply })) => {
                        self.open.heartbeat.heard(time::now());
                        if let ControlFlow::Break(ended) = self.frames(frames, reply).await {
                            return ended;
                        }
                    }
                },
                () = &mut due => match self.open.heartbeat.due(time::now()) {
                    Due::Evict => {
                        let timeout = self.sessions.inner.config.heartbeat_timeout;
                        return Ended::Closed(CloseReason::HeartbeatTimeout(timeout));
                    }
                    Due::Ping(nonce) => self.outbox.push(Event::Ping { nonce }),
                    Due::At(at) => due.as_mut().reset(at),
                },
            }
        }
    }

    async fn frames(
        &mut self,
        frames: Vec<Frame>,
        reply: Option<tokio::sync::oneshot::Sender<Result<(), CloseReason>>>,
    ) -> ControlFlow<Ended> {
        let mut flow = ControlFlow::Continue(());
        for frame in frames {
            flow = self.frame(frame).await;
            if flow.is_break() {
                break;
            }
        }
        if let Some(reply) = reply {
            let outcome = match &flow {
                ControlFlow::Break(Ended::Closed(reason)) => Err(reason.clone()),
                ControlFlow::Break(Ended::Left | Ended::Gone | Ended::Draining)
                | ControlFlow::Continue(()) => Ok(()),
            };
            // An error means that the caller has gone.
            drop(reply.send(outcome));
        }
        flow
    }

    async fn frame(&mut self, frame: Frame) -> ControlFlow<Ended> {
        let outcome = match frame {
            Frame::Join(_) => Err(CloseReason::AlreadyJoined),
            Frame::Update { update_id, update } => self.update(update_id, update, false).await,
            Frame::Difference { update_id, update } => self.update(update_id, update, true).await,
            Frame::Sync(state_vector) => self.sync(state_vector).await,
            Frame::Awareness(state) => self.awareness(Presence::Own(state)),
            Frame::Presence(state) => self.presence(state),
            // Nobody's credentials are checked yet; any token is as good as the one before.
            Frame::Pong | Frame::RefreshToken(_) => Ok(()),
            Frame::Leave => return ControlFlow::Break(Ended::Left),
        };
        match outcome {
            Ok(()) => ControlFlow::Continue(()),
            Err(reason) => ControlFlow::Break(Ended::Closed(reason)),
        }
    }

    /// Permission before size, size before structure, structure before the room.
    async fn update(
        &self,
        update_id: u64,
        update: bytes::Bytes,
        is_difference: bool,
    ) -> Result<(), CloseReason> {
        let is_denied = self.open.access < Access::Write;
        // A Yjs client cannot know it, and answers our state vector in any case: the room looks
        // whether it brings anything.
        if is_denied && self.open.rules == Rules::Cowrite {
            return Err(CloseReason::WriteDenied);
        }
        let (bytes, bytes_max) = (update.len(), self.sessions.inner.config.update_bytes_max);
        if bytes > bytes_max {
            return Err(CloseReason::UpdateTooLarge { bytes, bytes_max });
        }
        let update = CheckedUpdate::new(update).map_err(CloseReason::MalformedUpdate)?;
        let kind = UpdateKind { is_difference, is_denied };
        self.open.room.update(self.session, update_id, update, kind).await
    }

    async fn sync(&self, state_vector: bytes::Bytes) -> Result<(), CloseReason> {
        validate::state_vector(&state_vector).map_err(|malformed| {
            CloseReason::MalformedFrame(format!("state vector: {malformed}"))
        })?;
        self.open.room.sync(self.session, state_vector).await
    }

    /// Yjs clients repeat what they hear of others, which is most of what they say.
    fn presence(&self, state: AwarenessState) -> Result<(), CloseReason> {
        match self.outbox.awareness_client_id() {
            Some(own) if own != state.client_id => Ok(()),
            _ => self.awareness(Presence::Yjs(state)),
        }
    }

    fn awareness(&self, presence: Presence) -> Result<(), CloseReason> {
        let (Presence::Own(state) | Presence::Yjs(AwarenessState { state, .. })) = &presence;
        let max = self.sessions.inner.config.awareness_bytes_max;
        if state.len() > max {
            let what = format!("an awareness state above {max} bytes");
            return Err(CloseReason::MalformedFrame(what));
        }
        validate::awareness_state(state)
            .map_err(|malformed| CloseReason::MalformedFrame(format!("awareness: {malformed}")))?;
        self.open.room.awareness(self.session, presence);
        Ok(())
    }
}
