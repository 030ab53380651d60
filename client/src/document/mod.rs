//! A local copy of a document that keeps itself in sync.
//!
//! One task owns the sessions, one after the other. Edits are made on the caller's side at once; the
//! copy's own update event hands them to [`Unconfirmed`], and the task sends them. Locks are taken in
//! one order: the copy first, then the state here.

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::Bytes;
use cowrite_proto::v1::{Access, Joined};
use serde_json::Value;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{Duration, Instant, sleep_until},
};
use yrs::{
    Doc, GetString as _, OffsetKind, Options, ReadTxn as _, StateVector, Transact as _,
    TransactionMut, Update,
    block::ClientID,
    updates::{decoder::Decode as _, encoder::Encode as _},
};

use crate::{
    Client, Error, Event, FrameReceiver, FrameSender, JoinOptions, Refusal, TokenSource,
    backoff::Backoff,
    connection::{awareness_frame, leave_frame, refresh_frame, update_frame},
    token::refresh_after,
    unconfirmed::Unconfirmed,
};

/// The origin of transactions with what the server sent, as against edits made here.
const REMOTE: &str = "cowrite-client/remote";
/// How long after a failure a new token is asked for again.
const REFRESH_RETRY: Duration = Duration::from_secs(5);
/// The key of this module's observer on the copy.
const OBSERVER: &str = "cowrite-client";

/// How to open a document.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DocumentOptions {
    /// The credentials: those of the client by default. A function is asked for each session, and for
    /// a new token before the one of a running session expires.
    pub token: TokenSource,
    /// The access wanted; unspecified for all that the credentials allow.
    pub access: Access,
    /// The Yjs client id of the copy, below 2^53; random by default. Two copies that are edited must
    /// never have the same.
    pub client_id: Option<u64>,
}

/// How a document stands with its server.
#[derive(Debug, Clone)]
pub enum Status {
    /// A session is being opened, or its initial state is being received.
    Connecting,
    /// The copy has everything that the server had when the session was opened, and edits of others
    /// come as they are made.
    Synced,
    /// The session was lost. Edits are kept here.
    Lost {
        /// Why.
        error: Error,
        /// When the next session is tried.
        retry_at: Instant,
    },
    /// There will be no further session. The copy can still be read.
    Closed {
        /// Why; `None` after [`Document::leave`].
        error: Option<Error>,
    },
}

/// What of the edits made here is not known to be durable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unsaved {
    /// How many transactions.
    pub edits: u64,
    /// Why they will not be saved in this session; `None` while they are on their way or wait for a
    /// session.
    pub refusal: Option<Refusal>,
}

/// An open document: a local copy that is in sync with the server whenever there is a session.
///
/// Dropping it ends the session at once; edits on their way may or may not arrive. [`Self::leave`]
/// waits for them.
pub struct Document {
    shared: Arc<Shared>,
    /// The one task; ends with this.
    _task: JoinSet<()>,
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("id", &self.shared.id)
            .field("status", &*self.shared.status.borrow())
            .finish_non_exhaustive()
    }
}

/// What the task and the handle share.
struct Shared {
    id: String,
    options: DocumentOptions,
    doc: Doc,
    state: Mutex<State>,
    /// The task has something to do.
    wake: Notify,
    status: watch::Sender<Status>,
    unsaved: watch::Sender<Unsaved>,
    /// Counts the changes of the copy.
    version: watch::Sender<u64>,
    awareness: watch::Sender<HashMap<u64, Value>>,
}

/// Locked for moments, never while the copy is being asked for.
#[derive(Debug, Default)]
struct State {
    unconfirmed: Unconfirmed,
    /// The history that the copy belongs to; empty before the first session.
    epoch: Bytes,
    /// The sequence of the last frame that was applied.
    sequence: u64,
    /// The own awareness state as JSON; empty for none.
    awareness: Bytes,
    awareness_changed: bool,
    awareness_bytes_max: Option<u64>,
    leaving: bool,
}

impl Document {
    pub(crate) fn open(client: Client, id: String, options: DocumentOptions) -> Self {
        let mut doc_options = Options { offset_kind: OffsetKind::Utf16, ..Options::default() };
        if let Some(client_id) = options.client_id {
            doc_options.client_id = ClientID::new(client_id);
        }
        let shared = Arc::new(Shared {
            id,
            options,
            doc: Doc::with_options(doc_options),
            state: Mutex::default(),
            wake: Notify::new(),
            status: watch::Sender::new(Status::Connecting),
            unsaved: watch::Sender::new(Unsaved::default()),
            version: watch::Sender::new(0),
            awareness: watch::Sender::new(HashMap::new()),
        });
        // Weak, because the copy is a part of what is shared.
        let weak = Arc::downgrade(&shared);
        shared.doc.transact_mut().observe_update_v1(OBSERVER, move |txn, event| {
            if let Some(shared) = Weak::upgrade(&weak) {
                shared.changed(txn, &event.update);
            }
        });
        let mut task = JoinSet::new();
        task.spawn(Arc::clone(&shared).run(client));
        Self { shared, _task: task }
    }

    /// The id as it was opened.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// The local copy, for everything that `yrs` offers: observers, undo, transactions. Every
    /// transaction on it that is not the server's own is an edit and is sent, as with
    /// [`Self::edit`]. Do not hold a transaction over an await: it stops everything else.
    #[must_use]
    pub fn doc(&self) -> &Doc {
        &self.shared.doc
    }

    /// Edits the copy in one transaction, which is sent as one update. Edits are also taken while
    /// there is no session, and after the document was closed, where they are never sent. `edit` must
    /// not call the methods of this document: the copy is locked meanwhile.
    pub fn edit<T>(&self, edit: impl FnOnce(&mut TransactionMut<'_>) -> T) -> T {
        edit(&mut self.shared.doc.transact_mut())
    }

    /// The text of the root `root` of the copy; empty when there is no such root.
    #[must_use]
    pub fn text(&self, root: &str) -> String {
        let txn = self.shared.doc.transact();
        txn.get_text(root).map(|text| text.get_string(&txn)).unwrap_or_default()
    }

    /// The whole copy as one Yjs v1 update: what to keep when the document was closed with unsaved
    /// edits.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.shared.doc.transact().encode_diff_v1(&StateVector::default())
    }

    /// A number that grows with every change of the copy, by whomever. Only the latest one is kept.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.version.subscribe()
    }

    /// How the document stands with its server. Only the latest status is kept.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// How many edits are not known to be durable, and why. Only the latest value is kept.
    #[must_use]
    pub fn unsaved(&self) -> watch::Receiver<Unsaved> {
        self.shared.unsaved.subscribe()
    }

    /// Announces an awareness state, by custom an object with the key `user`; `None` takes it back.
    /// It is announced again with every new session.
    ///
    /// # Errors
    ///
    /// [`Error::AwarenessTooLarge`] when it is larger than the server takes.
    pub fn set_awareness(&self, state: Option<&Value>) -> Result<(), Error> {
        let json = state.map(Value::to_string).unwrap_or_default();
        let mut own = self.shared.state();
        if let Some(bytes_max) = own.awareness_bytes_max
            && json.len() as u64 > bytes_max
        {
            return Err(Error::AwarenessTooLarge { bytes: json.len() as u64, bytes_max });
        }
        own.awareness = json.into();
        own.awareness_changed = true;
        drop(own);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// The awareness states of the others by Yjs client id. Only the latest ones are kept; empty
    /// while there is no session.
    #[must_use]
    pub fn awareness(&self) -> watch::Receiver<HashMap<u64, Value>> {
        self.shared.awareness.subscribe()
    }

    /// Waits until the copy is in sync.
    ///
    /// # Errors
    ///
    /// The error that closed the document, [`Error::Closed`] after [`Self::leave`].
    ///
    /// # Cancellation
    ///
    /// Safe.
    pub async fn wait_until_synced(&self) -> Result<(), Error> {
        let mut status = self.status();
        loop {
            match &*status.borrow_and_update() {
                Status::Synced => return Ok(()),
                Status::Closed { error } => return Err(error.clone().unwrap_or(Error::Closed)),
                Status::Connecting | Status::Lost { .. } => {}
            }
            if status.changed().await.is_err() {
                return Err(Error::Closed);
            }
        }
    }

    /// Waits until every edit made so far is durable on the server, over as many sessions as it
    /// takes.
    ///
    /// # Errors
    ///
    /// [`Error::NotSaved`] when the server does not take an edit, or the error that closed the
    /// document with unsaved edits.
    ///
    /// # Cancellation
    ///
    /// Safe.
    pub async fn wait_until_saved(&self) -> Result<(), Error> {
        let (mut unsaved, mut status) = (self.unsaved(), self.status());
        loop {
            let now = unsaved.borrow_and_update().clone();
            if now.edits == 0 {
                return Ok(());
            }
            if let Some(refusal) = now.refusal {
                return Err(refusal.into());
            }
            if let Status::Closed { error } = &*status.borrow_and_update() {
                return Err(error.clone().unwrap_or(Error::Closed));
            }
            tokio::select! {
                changed = unsaved.changed() => if changed.is_err() { return Err(Error::Closed) },
                changed = status.changed() => if changed.is_err() { return Err(Error::Closed) },
            }
        }
    }

    /// Leaves the document in good order: sends what is unsaved, waits until it is durable, over as
    /// many sessions as it takes, and ends the session. Put a limit to it with
    /// [`tokio::time::timeout`].
    ///
    /// # Errors
    ///
    /// [`Error::NotSaved`] when the server does not take an edit, or the error that closed the
    /// document before.
    ///
    /// # Cancellation
    ///
    /// The document goes on leaving for as long as it is not dropped.
    pub async fn leave(&self) -> Result<(), Error> {
        self.shared.state().leaving = true;
        self.shared.wake.notify_one();
        let mut status = self.status();
        loop {
            if let Status::Closed { error } = &*status.borrow_and_update() {
                return error.clone().map_or(Ok(()), Err);
            }
            if status.changed().await.is_err() {
                return Err(Error::Closed);
            }
        }
    }
}

/// How a session ended without an error.
struct Left;

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and what it guards is whole at any time.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The copy has changed. Called with the copy locked.
    fn changed(&self, txn: &TransactionMut<'_>, update: &[u8]) {
        if txn.origin() != Some(&REMOTE.into()) {
            self.state().unconfirmed.edited(update, txn.before_state());
            self.report_unsaved();
            self.wake.notify_one();
        }
        self.version.send_modify(|version| *version += 1);
    }

    fn report_unsaved(&self) {
        // Under the lock, so that an older count never replaces a newer one.
        let state = self.state();
        let refusal = state.unconfirmed.refusal().cloned();
        let now = Unsaved { edits: state.unconfirmed.edits(), refusal };
        self.unsaved.send_if_modified(|unsaved| {
            let changed = *unsaved != now;
            *unsaved = now;
            changed
        });
    }

    /// The task: one session after the other.
    async fn run(self: Arc<Self>, client: Client) {
        let _end = TellEnd(&self);
        let mut backoff = Backoff::default();
        loop {
            self.status.send_replace(Status::Connecting);
            let mut opened_at = None;
            let ended = self.session(&client, &mut opened_at).await;
            self.state().unconfirmed.session_ended();
            self.report_unsaved();
            self.awareness.send_modify(HashMap::clear);
            let loss = match ended {
                Ok(Left) => return self.close(None),
                Err(Error::Lost(loss)) => loss,
                Err(error) => return self.close(Some(error)),
            };
            let lived = opened_at.map(|at: Instant| at.elapsed());
            let retry_at = Instant::now() + backoff.after_loss(lived, loss.retry_after);
            tracing::debug!(document = %self.id, reason = ?loss.reason, "session lost");
            self.status.send_replace(Status::Lost { error: loss.into(), retry_at });
            loop {
                if self.nothing_to_leave_for() {
                    return self.close(None);
                }
                tokio::select! {
                    () = sleep_until(retry_at) => break,
                    () = self.wake.notified() => {}
                }
            }
        }
    }

    fn close(&self, error: Option<Error>) {
        self.status.send_replace(Status::Closed { error });
    }

    /// The document is being left, and no further session is needed for it.
    fn nothing_to_leave_for(&self) -> bool {
        let state = self.state();
        state.leaving && state.unconfirmed.edits() == 0
    }

    /// One session from its opening to its end, which is always an error unless it was asked for.
    async fn session(
        &self,
        client: &Client,
        opened_at: &mut Option<Instant>,
    ) -> Result<Left, Error> {
        let token = self.options.token.get().await?;
        let mut refresh = self.refresh_at(&token);
        let mut fetching: Option<Fetching<'_>> = None;
        let (sender, mut receiver, joined) = client.open(self.join_options(token)).await?;
        *opened_at = Some(Instant::now());
        self.joined(&joined)?;
        if joined.resumed && self.state().sequence >= joined.sync_sequence {
            self.status.send_replace(Status::Synced);
        }
        let mut leave_sent = false;
        loop {
            self.send(&sender);
            let refusal = {
                let state = self.state();
                if state.leaving && !leave_sent && state.unconfirmed.is_sent() {
                    leave_sent = sender.try_send(leave_frame());
                }
                state.unconfirmed.refusal().cloned().filter(|_| state.leaving)
            };
            if let Some(refusal) = refusal {
                return Err(refusal.into());
            }
            let retry_at = self.state().unconfirmed.retry_at();
            tokio::select! {
                // The stream comes first: what it acknowledges makes room for what is to be sent.
                biased;
                event = receiver.next() => match event? {
                    Some(event) => self.received(event, &mut receiver, &joined)?,
                    None if leave_sent && self.state().unconfirmed.edits() == 0 => return Ok(Left),
                    None => return Err(receiver.ended_early()),
                },
                outcome = fetched(&mut fetching) => {
                    fetching = None;
                    // Without a new token the session goes on until the old one expires.
                    let again = Some(Instant::now() + REFRESH_RETRY);
                    refresh = match outcome {
                        Ok(token) => {
                            let next = self.refresh_at(&token);
                            if sender.try_send(refresh_frame(token)) { next } else { again }
                        }
                        Err(error) => {
                            tracing::debug!(document = %self.id, %error, "no new token");
                            again
                        }
                    };
                }
                () = sleep_until(refresh.unwrap_or_else(Instant::now)), if refresh.is_some() => {
                    refresh = None;
                    fetching = Some(Box::pin(self.options.token.get()));
                }
                () = self.wake.notified() => {}
                () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => {}
            }
        }
    }

    /// When a session that begins now with `token` needs another one.
    fn refresh_at(&self, token: &str) -> Option<Instant> {
        let after = refresh_after(token).filter(|_| self.options.token.can_refresh())?;
        Some(Instant::now() + after)
    }

    fn join_options(&self, token: String) -> JoinOptions {
        let state_vector = self.doc.transact().state_vector();
        let state = self.state();
        let known = !state.epoch.is_empty();
        JoinOptions {
            document: self.id.clone(),
            token,
            // What was typed before the first session is no reason to ask for a difference.
            state_vector: if known { state_vector.encode_v1().into() } else { Bytes::new() },
            epoch: state.epoch.clone(),
            resume_sequence: state.sequence,
            awareness_client_id: self.doc.client_id().get(),
            access: self.options.access,
        }
    }

    fn joined(&self, joined: &Joined) -> Result<(), Error> {
        let base = StateVector::decode_v1(&joined.state_vector)
            .map_err(|_| Error::Protocol { what: "a state vector that cannot be read" })?;
        // The copy is locked, so that no edit falls between the two states.
        let txn = self.doc.transact();
        let mut state = self.state();
        if !state.epoch.is_empty() && state.epoch != joined.epoch {
            return Err(Error::EpochMismatch);
        }
        state.epoch = joined.epoch.clone();
        let limits = joined.limits.unwrap_or_default();
        let or_any = |bytes| if bytes == 0 { u64::MAX } else { bytes };
        state.unconfirmed.session_began(base, or_any(limits.update_bytes_max));
        state.unconfirmed.may_write(joined.access() != Access::Read);
        state.awareness_bytes_max = Some(or_any(limits.awareness_bytes_max));
        state.awareness_changed = !state.awareness.is_empty();
        drop(state);
        drop(txn);
        self.report_unsaved();
        Ok(())
    }

    /// Hands what waits to the stream, as far as there is room.
    fn send(&self, sender: &FrameSender) {
        self.take_difference();
        let mut state = self.state();
        while sender.capacity() > 1
            && let Some((id, update)) = state.unconfirmed.next_ready()
        {
            // Cannot fail for want of room; that the session has ended is found out by receiving.
            if !sender.try_send(update_frame(id, update)) {
                return;
            }
        }
        let fits = state.awareness_bytes_max.is_none_or(|max| state.awareness.len() as u64 <= max);
        if state.awareness_changed && fits && sender.capacity() > 1 {
            state.awareness_changed = !sender.try_send(awareness_frame(state.awareness.clone()));
        }
    }

    /// Turns edits that wait into one update, when it is time to send them.
    fn take_difference(&self) {
        let now = Instant::now();
        if self.state().unconfirmed.wants_difference(now).is_none() {
            return;
        }
        let txn = self.doc.transact();
        // Asked again: edits may have come, but while the copy is locked none can.
        let Some(since) = self.state().unconfirmed.wants_difference(now).cloned() else { return };
        let update = txn.encode_diff_v1(&since);
        self.state().unconfirmed.difference(update);
        drop(txn);
        self.report_unsaved();
    }

    fn received(
        &self,
        event: Event,
        receiver: &mut FrameReceiver,
        joined: &Joined,
    ) -> Result<(), Error> {
        let mut next = Some(event);
        while let Some(event) = next {
            self.apply_event(event, joined)?;
            // All that came together is taken before anything else is done.
            next = receiver.next_buffered()?;
        }
        self.report_unsaved();
        Ok(())
    }

    fn apply_event(&self, event: Event, joined: &Joined) -> Result<(), Error> {
        match event {
            Event::Sync { update, sequence } => {
                self.apply(&update)?;
                self.reached(sequence);
                self.status.send_replace(Status::Synced);
            }
            Event::Update { update, sequence } => {
                self.apply(&update)?;
                self.reached(sequence);
            }
            Event::Ack { update_id, sequence } => {
                self.state().unconfirmed.acknowledged(update_id);
                self.reached(sequence);
            }
            Event::Refused { update_id, reason, message, retry_after } => {
                tracing::debug!(document = %self.id, ?reason, update_id, "update refused");
                let retry_at = retry_after.map(|delay| Instant::now() + delay);
                let refusal = Refusal { reason, message };
                self.state().unconfirmed.refused(update_id, refusal, retry_at);
            }
            Event::Awareness { client_id, state, .. } => self.awareness.send_modify(|others| {
                match serde_json::from_slice(&state) {
                    Ok(value) if !state.is_empty() => others.insert(client_id, value),
                    // What cannot be read is as good as no state.
                    Ok(_) | Err(_) => others.remove(&client_id),
                };
            }),
            Event::AccessChanged(access) => {
                self.state().unconfirmed.may_write(access != Access::Read);
            }
            Event::Closing { reason, .. } => {
                tracing::debug!(document = %self.id, ?reason, "the server closes the session");
            }
        }
        let status_is_connecting = matches!(*self.status.borrow(), Status::Connecting);
        if joined.resumed && status_is_connecting && self.state().sequence >= joined.sync_sequence {
            self.status.send_replace(Status::Synced);
        }
        Ok(())
    }

    fn reached(&self, sequence: u64) {
        let mut state = self.state();
        state.sequence = state.sequence.max(sequence);
    }

    fn apply(&self, update: &[u8]) -> Result<(), Error> {
        let update = Update::decode_v1(update)
            .map_err(|_| Error::Protocol { what: "an update that cannot be read" })?;
        let mut txn = self.doc.transact_mut_with(REMOTE);
        let applied = txn.apply_update(update);
        let missing = txn.has_missing_updates();
        drop(txn);
        if applied.is_err() {
            return Err(Error::Protocol { what: "an update that cannot be applied" });
        }
        if missing {
            // The next session asks for the difference instead of for what comes after a sequence.
            self.state().sequence = 0;
            return Err(Error::lost("an update is missing"));
        }
        Ok(())
    }
}

/// A token on its way.
type Fetching<'a> = Pin<Box<dyn Future<Output = Result<String, Error>> + Send + 'a>>;

/// The outcome of what is being fetched; never, if nothing is.
async fn fetched(fetching: &mut Option<Fetching<'_>>) -> Result<String, Error> {
    match fetching {
        Some(fetching) => fetching.await,
        None => std::future::pending().await,
    }
}

/// Tells those who wait when the task has ended by a panic, which `yrs` may have with a broken copy.
struct TellEnd<'a>(&'a Shared);

impl Drop for TellEnd<'_> {
    fn drop(&mut self) {
        self.0.status.send_if_modified(|status| {
            let ended_well = matches!(status, Status::Closed { .. });
            if !ended_well {
                let error = Error::Protocol { what: "an update that breaks the local copy" };
                *status = Status::Closed { error: Some(error) };
            }
            !ended_well
        });
    }
}

#[cfg(test)]
mod tests;
