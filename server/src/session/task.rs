//! The task of one session: reads frames, keeps the heartbeat, and cleans up.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Access, CloseReason, Delivery, End, Event, Frame, Inbound, Join, Outbox, Remedy, SessionId,
    Sessions, Token,
    handshake::{self, Credentials},
    heartbeat::{Due, Heartbeat},
    limits::{Taken, Throttle},
};
use crate::{
    auth::Changes,
    room::{
        self, AwarenessState, CheckedUpdate, Presence, RoomHandle, Rules, UpdateKind, validate,
    },
    time::{self, Instant},
};

/// How long the end of a session waits for its room.
const LEAVE_WAIT: Duration = Duration::from_secs(5);

/// A client that may come back is asked to after a random time up to this.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// Whoever was too much comes back after a random time between these, in seconds: at once, it would
/// be too much again.
const RETRY_LATER: std::ops::Range<f64> = 2.0..10.0;

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
            if let Ok((room, ..)) = joining.await {
                room.leave(session).await;
            }
            return;
        }
    };
    drop(joining);
    let open = match joined {
        Ok((room, credentials, throttle)) => {
            Opened { room, credentials, rules, rest, heartbeat: heartbeat(&sessions), throttle }
        }
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
    credentials: Credentials,
    rules: Rules,
    /// Frames that came in one message with the Join.
    rest: Vec<Frame>,
    heartbeat: Heartbeat,
    throttle: Box<Throttle>,
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
    let retry_after = retry_after(sessions, &reason);
    sessions.count_closed(&reason);
    outbox.finish(End::Closed { reason, retry_after });
}

/// When a client comes back, if that helps.
fn retry_after(sessions: &Sessions, reason: &CloseReason) -> Option<Duration> {
    if matches!(reason, CloseReason::RateLimited | CloseReason::Overloaded) {
        return Some(Duration::from_secs_f64(rand::random_range(RETRY_LATER)));
    }
    let retry_max = match reason.remedy() {
        Remedy::ComeBackElsewhere => sessions.inner.config.drain_retry_max,
        Remedy::ComeBack | Remedy::NewToken => RETRY_MAX,
        Remedy::AskOtherwise
        | Remedy::MendClient
        | Remedy::SendLess
        | Remedy::Authenticate
        | Remedy::GetPermission
        | Remedy::Fork
        | Remedy::AskOperator => Duration::ZERO,
    };
    (!retry_max.is_zero()).then(|| retry_max.mul_f64(rand::random_range(0.05..1.0)))
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
) -> Result<(RoomHandle, Credentials, Box<Throttle>), CloseReason> {
    let accepted = handshake::accept(join, &sessions.inner.authenticator).await?;
    let throttle = sessions.inner.limits.admit(time::now(), &accepted.grant.principal)?;
    let credentials = Credentials::new(time::now(), &accepted);
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
    let wait = sessions.inner.config.join_timeout;
    let room = sessions.inner.registry.join(&accepted.document, join, wait).await?;
    Ok((room, credentials, throttle))
}

/// Waits for the next change of what tokens are judged by.
async fn next_change(mut changes: Changes) -> Changes {
    changes.wait().await;
    changes
}

/// Waits for `work`; for ever if there is none.
async fn or_never<F: Future + Unpin>(work: Option<&mut F>) -> F::Output {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

struct Live<'a> {
    sessions: &'a Sessions,
    session: SessionId,
    outbox: &'a Arc<Outbox>,
    open: Opened,
}

impl Live<'_> {
    async fn serve<I: Inbound>(mut self, mut inbound: I, gone: CancellationToken) -> Ended {
        // The room may have taken its time.
        if !self.still_stands() {
            return Ended::Closed(CloseReason::TokenRevoked);
        }
        let rest = std::mem::take(&mut self.open.rest);
        if !rest.is_empty() {
            let now = time::now();
            match self.open.throttle.take(now, Delivery { frames: rest, reply: None }) {
                Taken::Paid(Delivery { frames, reply }) => {
                    let taken = Box::pin(self.frames(now, frames, reply));
                    if let ControlFlow::Break(ended) = taken.await {
                        return ended;
                    }
                }
                Taken::Held => {}
                Taken::Full => return self.too_much(),
            }
        }
        // The client sends nothing more.
        let mut is_last = false;
        let draining = self.sessions.inner.tasks.token();
        let mut due = std::pin::pin!(sleep_until(time::now()));
        // One future for all rounds: while nothing changes, a round looks at it and no more. In a box,
        // because where nobody shows a token there is none.
        let mut changed = self.open.credentials.changes().map(|it| Box::pin(next_change(it)));
        loop {
            // In order of priority: ends first, then frames, which also are signs of life.
            tokio::select! {
                biased;
                () = gone.cancelled() => return Ended::Gone,
                () = draining.cancelled() => return Ended::Draining,
                // By the room.
                () = self.outbox.finished() => return Ended::Gone,
                () = passed(self.open.throttle.until()), if self.open.throttle.is_holding() => {
                    let now = time::now();
                    // It waits for us, and not the other way round.
                    self.open.heartbeat.heard(now);
                    let expires = self.open.credentials.expires();
                    if let ControlFlow::Break(ended) = Box::pin(self.resume(now)).await {
                        return ended;
                    }
                    if self.open.credentials.expires() != expires {
                        due.as_mut().reset(now);
                    }
                    if is_last && !self.open.throttle.is_holding() {
                        return Ended::Left;
                    }
                }
                next = inbound.next(), if !is_last && self.open.throttle.takes(I::WAITS) => match next {
                    None if self.open.throttle.is_holding() => is_last = true,
                    None => return Ended::Left,
                    Some(Err(reason)) => return Ended::Closed(reason),
                    Some(Ok(delivery)) => {
                        let now = time::now();
                        self.open.heartbeat.heard(now);
                        let (frames, reply) = match self.open.throttle.take(now, delivery) {
                            Taken::Paid(Delivery { frames, reply }) => (frames, reply),
                            Taken::Held => continue,
                            Taken::Full => return self.too_much(),
                        };
                        let expires = self.open.credentials.expires();
                        if let ControlFlow::Break(ended) = self.frames(now, frames, reply).await {
                            return ended;
                        }
                        if self.open.credentials.expires() != expires {
                            // A new token may be good for less long.
                            due.as_mut().reset(now);
                        }
                    }
                },
                changes = or_never(changed.as_mut()) => {
                    if !self.still_stands() {
                        return Ended::Closed(CloseReason::TokenRevoked);
                    }
                    changed = Some(Box::pin(next_change(changes)));
                }
                () = &mut due => {
                    let now = time::now();
                    if self.open.credentials.expired(now) {
                        return Ended::Closed(CloseReason::TokenExpired);
                    }
                    if self.open.credentials.asks_now(now) && self.open.rules == Rules::Yjs {
                        self.outbox.push(Event::TokenExpiring);
                    }
                    match self.open.heartbeat.due(now) {
                        Due::Evict => {
                            let timeout = self.sessions.inner.config.heartbeat_timeout;
                            return Ended::Closed(CloseReason::HeartbeatTimeout(timeout));
                        }
                        Due::Ping(nonce) => self.outbox.push(Event::Ping { nonce }),
                        Due::At(at) => {
                            let credentials = &self.open.credentials;
                            let ends = [Some(at), credentials.expires(), credentials.asks()];
                            let next = ends.into_iter().flatten().min().unwrap_or(at);
                            due.as_mut().reset(next);
                        }
                    }
                }
            }
        }
    }

    /// Takes what has been paid meanwhile.
    async fn resume(&mut self, now: Instant) -> ControlFlow<Ended> {
        while let Some(Delivery { frames, reply }) = self.open.throttle.resume(now) {
            self.frames(now, frames, reply).await?;
        }
        if self.open.throttle.is_over(now) {
            return ControlFlow::Break(self.too_much());
        }
        ControlFlow::Continue(())
    }

    fn too_much(&mut self) -> Ended {
        self.open.throttle.end(&CloseReason::RateLimited);
        Ended::Closed(CloseReason::RateLimited)
    }

    async fn frames(
        &mut self,
        now: Instant,
        frames: Vec<Frame>,
        reply: Option<tokio::sync::oneshot::Sender<Result<(), CloseReason>>>,
    ) -> ControlFlow<Ended> {
        let mut flow = ControlFlow::Continue(());
        // The timer comes last, and a client that never stops sending must not outlive its token.
        if self.open.credentials.expired(now) {
            flow = ControlFlow::Break(Ended::Closed(CloseReason::TokenExpired));
        } else if !self.still_stands() {
            flow = ControlFlow::Break(Ended::Closed(CloseReason::TokenRevoked));
        }
        let mut frames = frames.into_iter();
        while flow.is_continue()
            && let Some(frame) = frames.next()
        {
            flow = self.frame(frame).await;
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
            Frame::Pong => Ok(()),
            // In a box: it comes seldom, and would make room for itself in every session.
            Frame::RefreshToken(token) => Box::pin(self.refresh(&token)).await,
            Frame::Leave => return ControlFlow::Break(Ended::Left),
        };
        match outcome {
            Ok(()) => ControlFlow::Continue(()),
            Err(reason) => ControlFlow::Break(Ended::Closed(reason)),
        }
    }

    fn still_stands(&mut self) -> bool {
        self.open.credentials.still_stand(&self.sessions.inner.authenticator)
    }

    /// What comes after is judged by the new token. What came before is on its way to the room.
    async fn refresh(&mut self, token: &Token) -> Result<(), CloseReason> {
        let changed = self
            .open
            .credentials
            .refresh(time::now(), token, &self.sessions.inner.authenticator)
            .await?;
        if let Some(access) = changed {
            self.outbox.access_changed(access);
        }
        Ok(())
    }

    /// Permission before size, size before structure, structure before the room.
    async fn update(
        &self,
        update_id: u64,
        update: bytes::Bytes,
        is_difference: bool,
    ) -> Result<(), CloseReason> {
        let access = self.open.credentials.access();
        let (is_denied, is_comment) = (access < Access::Comment, access == Access::Comment);
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
        let (parts, parts_max) = (update.parts(), self.sessions.inner.config.update_parts_max);
        if parts > parts_max {
            return Err(CloseReason::UpdateTooLong { parts, parts_max });
        }
        let kind = UpdateKind { is_difference, is_denied, is_comment };
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

/// When `at` has passed; never, if there is none.
async fn passed(at: Option<Instant>) {
    match at {
        // In a box: few sessions are ever held back.
        Some(at) => Box::pin(sleep_until(at)).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::{sync::mpsc, time::sleep};

    use super::*;
    use crate::{
        auth::{self, Algorithm, Authenticator, KeyConfig, Mode, Right, Scope},
        ids::DocumentId,
        log::{MemoryLog, Quarantine},
        metrics::Metrics,
        room::Registry,
        session::{Config, PROTOCOL_VERSION},
        shutdown::Tasks,
    };

    /// One struct of client 1: the text "x" in front of the root "r"; no deletions.
    const UPDATE: &[u8] = &[1, 1, 1, 0, 4, 1, 1, b'r', 1, b'x', 0];

    /// Sessions, and who makes their tokens.
    struct Server {
        sessions: Sessions,
        auth: auth::Config,
        directory: tempfile::TempDir,
    }

    fn server(leeway: u64) -> Server {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        auth::new_secret(&file).unwrap();
        let key = KeyConfig { algorithm: Algorithm::HS256, file, kid: String::new() };
        let auth = auth::Config {
            mode: Mode::Jwt,
            issuer: "i".to_owned(),
            audience: "a".to_owned(),
            keys: vec![key],
            leeway: Duration::from_secs(leeway),
            ..auth::Config::default()
        };
        let metrics = Metrics::new();
        let log = Arc::new(MemoryLog::new(metrics.log.clone()));
        // Nobody here answers pings, or reads all the time.
        let lagging_max = Duration::from_secs(100_000);
        let config = room::Config { lagging_max, ..room::Config::default() };
        let quarantine = Quarantine::in_memory();
        let registry = Registry::new(config, log, quarantine, metrics.room, Tasks::new());
        let config =
            Config { heartbeat_timeout: Duration::from_secs(100_000), ..Config::default() };
        let authenticator = Authenticator::new(&auth, metrics.auth).unwrap();
        let (metrics, tasks) = (metrics.session, Tasks::new());
        let sessions = Sessions::new(config, registry, authenticator, metrics, tasks);
        Server { sessions, auth, directory }
    }

    impl Server {
        /// A token of `subject` that is good for `life` seconds and the leeway.
        fn token(&self, subject: &str, access: Option<Access>, life: u64) -> Token {
            let scope = || Scope::Document(DocumentId::parse("doc").unwrap());
            let rights: Vec<_> =
                access.map(|access| Right { scope: scope(), access }).into_iter().collect();
            auth::mint(&self.auth, subject, &rights, Duration::from_secs(life)).unwrap()
        }

        fn alice(&self, access: Access, life: u64) -> Token {
            self.token("alice", Some(access), life)
        }

        async fn open(&self, token: Token) -> Client {
            self.join(token, None).await
        }

        async fn join(&self, token: Token, access: Option<Access>) -> Client {
            let (frames, inbound) = mpsc::channel(16);
            let (outbox, gone) = self.sessions.open(SessionId::random(), Frames(inbound));
            let client = Client { frames, outbox, _gone: gone.drop_guard() };
            let document = "doc".to_owned();
            let protocol_version = PROTOCOL_VERSION;
            let join = Join { protocol_version, document, token, access, ..Join::default() };
            client.send(Frame::Join(Box::new(join))).await;
            client
        }
    }

    struct Frames(mpsc::Receiver<Frame>);

    impl Inbound for Frames {
        const WAITS: bool = true;

        async fn next(&mut self) -> Option<Result<Delivery, CloseReason>> {
            let frame = self.0.recv().await?;
            Some(Ok(Delivery { frames: vec![frame], reply: None }))
        }
    }

    struct Client {
        frames: mpsc::Sender<Frame>,
        outbox: Arc<Outbox>,
        _gone: tokio_util::sync::DropGuard,
    }

    /// What came, and how it ended if it did.
    type Seen = (Vec<Event>, Option<End>);

    impl Client {
        async fn send(&self, frame: Frame) {
            self.frames.send(frame).await.unwrap();
        }

        /// What is there when nothing more happens within `seconds`.
        async fn after(&self, seconds: u64) -> Seen {
            sleep(Duration::from_secs(seconds)).await;
            let mut all = Vec::new();
            loop {
                let mut events = Vec::new();
                let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                match self.outbox.poll_take(&mut cx, &mut events) {
                    std::task::Poll::Ready(None) => all.append(&mut events),
                    std::task::Poll::Ready(end) => return (all, end),
                    std::task::Poll::Pending => return (all, None),
                }
            }
        }

        async fn refresh(&self, token: Token) -> Seen {
            self.after(0).await;
            self.send(Frame::RefreshToken(token)).await;
            self.after(1).await
        }

        async fn update(&self) -> Seen {
            self.after(0).await;
            let update = Bytes::from_static(UPDATE);
            self.send(Frame::Update { update_id: 1, update }).await;
            self.after(1).await
        }
    }

    fn reason((_, end): Seen) -> Option<CloseReason> {
        match end {
            Some(End::Closed { reason, .. }) => Some(reason),
            Some(End::Left) => panic!("the session left"),
            None => None,
        }
    }

    fn changes((events, end): &Seen) -> Vec<Access> {
        assert_eq!(*end, None);
        let access = |event: &Event| {
            if let Event::AccessChanged(access) = event { Some(*access) } else { None }
        };
        events.iter().filter_map(access).collect()
    }

    fn acked((events, _): &Seen) -> bool {
        events.iter().any(|event| matches!(event, Event::Ack { .. }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_when_its_token_does() {
        let server = server(30);
        let client = server.open(server.alice(Access::Write, 60)).await;
        let (events, end) = client.after(85).await;
        assert!(matches!(events.first(), Some(Event::Joined(_))), "{events:?}");
        assert_eq!(end, None);
        let (_, end) = client.after(10).await;
        let Some(End::Closed { reason, retry_after }) = end else { panic!("{end:?}") };
        assert_eq!(reason, CloseReason::TokenExpired);
        assert!(retry_after.is_some(), "a client is told to come back");
    }

    #[tokio::test]
    async fn a_client_that_never_stops_sending_does_not_outlive_its_token() {
        /// Always has a frame, until `0`.
        struct Flood(Instant, Option<Join>);
        impl Inbound for Flood {
            const WAITS: bool = true;

            async fn next(&mut self) -> Option<Result<Delivery, CloseReason>> {
                let join = self.1.take().map(|join| Frame::Join(Box::new(join)));
                let frames = vec![join.unwrap_or(Frame::Pong)];
                (time::now() < self.0).then_some(Ok(Delivery { frames, reply: None }))
            }
        }
        let server = server(0);
        let (token, document) = (server.alice(Access::Read, 2), "doc".to_owned());
        let protocol_version = PROTOCOL_VERSION;
        let join = Join { protocol_version, document, token, ..Join::default() };
        let inbound = Flood(time::now() + Duration::from_secs(20), Some(join));
        let (outbox, gone) = server.sessions.open(SessionId::random(), inbound);
        outbox.finished().await;
        let (frames, _) = mpsc::channel(1);
        let client = Client { frames, outbox, _gone: gone.drop_guard() };
        assert_eq!(reason(client.after(0).await), Some(CloseReason::TokenExpired));
    }

    #[tokio::test]
    async fn a_client_that_never_stops_sending_does_not_outlive_a_revocation() {
        /// Always has a frame; after the first hundred the token is taken back.
        struct Flood(Option<Join>, usize, Authenticator, auth::Config);
        impl Inbound for Flood {
            const WAITS: bool = true;

            async fn next(&mut self) -> Option<Result<Delivery, CloseReason>> {
                let Self(join, count, authenticator, config) = self;
                *count += 1;
                if *count == 100 {
                    authenticator.apply(Authenticator::prepare(config).unwrap());
                }
                let join = join.take().map(|join| Frame::Join(Box::new(join)));
                let frames = vec![join.unwrap_or(Frame::Pong)];
                (*count < 10_000).then_some(Ok(Delivery { frames, reply: None }))
            }
        }
        let server = server(0);
        let list = server.directory.path().join("revoked.toml");
        let text = "[[revoked]]\nsubject = 'alice'\nissued_before = 2100-01-01T00:00:00Z\n";
        std::fs::write(&list, text).unwrap();
        let config = auth::Config { revocations: list, ..server.auth.clone() };
        let (token, document) = (server.alice(Access::Read, 60), "doc".to_owned());
        let join = Join { protocol_version: PROTOCOL_VERSION, document, token, ..Join::default() };
        let authenticator = server.sessions.inner.authenticator.clone();
        let inbound = Flood(Some(join), 0, authenticator, config);
        let (outbox, gone) = server.sessions.open(SessionId::random(), inbound);
        outbox.finished().await;
        let (frames, _) = mpsc::channel(1);
        let client = Client { frames, outbox, _gone: gone.drop_guard() };
        assert_eq!(reason(client.after(0).await), Some(CloseReason::TokenRevoked));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_session_ends_when_its_token_is_taken_back_and_others_do_not() {
        let server = server(0);
        let (alice, bob) = (server.open(server.alice(Access::Read, 600)).await, {
            server.open(server.token("bob", Some(Access::Read), 600)).await
        });
        assert_eq!(alice.after(1).await.1, None);
        let list = server.directory.path().join("revoked.toml");
        let authenticator = &server.sessions.inner.authenticator;
        let config = auth::Config { revocations: list.clone(), ..server.auth.clone() };
        for (subject, expected) in
            [("carol", None), ("alice", Some(CloseReason::TokenRevoked)), ("carol", None)]
        {
            let entry = "issued_before = 2100-01-01T00:00:00Z\n";
            std::fs::write(&list, format!("[[revoked]]\nsubject = '{subject}'\n{entry}")).unwrap();
            authenticator.apply(Authenticator::prepare(&config).unwrap());
            if expected.is_some() {
                assert_eq!(reason(alice.after(1).await), expected);
            } else {
                assert_eq!(bob.after(1).await.1, None);
            }
        }
        assert_eq!(bob.after(1).await.1, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_token_counts_from_when_it_comes_for_longer_or_shorter() {
        let server = server(30);
        let client = server.open(server.alice(Access::Write, 60)).await;
        client.after(50).await;
        let seen = client.refresh(server.alice(Access::Write, 600)).await;
        assert_eq!(changes(&seen), [], "the access is the same");
        assert_eq!(client.after(500).await.1, None);
        client.refresh(server.alice(Access::Write, 10)).await;
        assert_eq!(client.after(30).await.1, None);
        assert_eq!(reason(client.after(15).await), Some(CloseReason::TokenExpired));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_new_token_grants_counts_from_then_on() {
        let server = server(30);
        let client = server.open(server.alice(Access::Write, 600)).await;
        assert!(acked(&client.update().await));
        let seen = client.refresh(server.alice(Access::Read, 600)).await;
        assert_eq!(changes(&seen), [Access::Read]);
        let seen = client.refresh(server.alice(Access::Admin, 600)).await;
        assert_eq!(changes(&seen), [Access::Write]);
        assert!(acked(&client.update().await));
        client.refresh(server.alice(Access::Read, 600)).await;
        assert_eq!(reason(client.update().await), Some(CloseReason::WriteDenied));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_token_gives_no_more_than_the_client_asked_for() {
        let server = server(30);
        let client = server.join(server.alice(Access::Read, 600), Some(Access::Read)).await;
        let seen = client.refresh(server.alice(Access::Write, 600)).await;
        assert_eq!(changes(&seen), []);
        assert_eq!(reason(client.update().await), Some(CloseReason::WriteDenied));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_token_that_is_not_good_ends_the_session() {
        let server = server(30);
        let other = server.token("bob", Some(Access::Write), 600);
        let nothing = server.token("alice", None, 600);
        let mut expired = server.alice(Access::Write, 600);
        // Signed by nobody, which is the same to a client.
        expired = format!("{}x", expired.expose()).into();
        for (token, expected) in [
            (other, CloseReason::SubjectChanged),
            (nothing, CloseReason::Forbidden),
            (expired, CloseReason::Unauthenticated),
            (Token::default(), CloseReason::Unauthenticated),
        ] {
            let client = server.open(server.alice(Access::Write, 600)).await;
            assert_eq!(reason(client.refresh(token).await), Some(expected));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_of_nothing_that_may_write_now_comes_back_to_create_the_document() {
        let server = server(30);
        let client = server.open(server.alice(Access::Read, 600)).await;
        let seen = client.refresh(server.alice(Access::Write, 600)).await;
        assert_eq!(changes(&seen), [Access::Write]);
        let (_, end) = client.update().await;
        let Some(End::Closed { reason: CloseReason::RoomRestarted, retry_after: Some(_) }) = end
        else {
            panic!("{end:?}")
        };
        let client = server.open(server.alice(Access::Write, 600)).await;
        assert!(acked(&client.update().await));
    }

    #[tokio::test(start_paused = true)]
    async fn who_changes_tokens_and_does_not_read_is_told_once() {
        let server = server(30);
        let client = server.open(server.alice(Access::Write, 600)).await;
        client.after(1).await;
        for _ in 0..50 {
            for access in [Access::Read, Access::Write, Access::Read] {
                client.send(Frame::RefreshToken(server.alice(access, 600))).await;
            }
        }
        let seen = client.after(1).await;
        assert_eq!(changes(&seen), [Access::Read]);
    }
}
