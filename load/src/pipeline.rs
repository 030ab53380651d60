//! Sending many updates in one session without waiting for each: a window of those not acknowledged.

use std::sync::Arc;

use bytes::Bytes;
use cowrite_client::{Client, Event, FrameSender};
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::{
    error::{Error, SessionError},
    sessions::Session,
};

/// Updates not acknowledged, at most: enough to keep the server busy, and few enough for its queues.
const WINDOW: usize = 128;

/// A session that sends updates.
#[derive(Debug)]
pub(crate) struct Pipeline {
    document: String,
    sender: FrameSender,
    window: Arc<Semaphore>,
    acknowledged: watch::Receiver<u64>,
    failure: Arc<Mutex<Option<SessionError>>>,
    sent: u64,
    _client: Client,
    _reading: JoinSet<()>,
}

impl Pipeline {
    /// Takes a session over. Updates and states that arrive are handed to `received`.
    pub(crate) fn new(
        document: &str,
        session: Session,
        mut received: impl FnMut(Bytes) + Send + 'static,
    ) -> Self {
        let Session { sender, mut receiver, client, .. } = session;
        let (acknowledged, acknowledged_rx) = watch::channel(0);
        let window = Arc::new(Semaphore::new(WINDOW));
        let failure = Arc::new(Mutex::new(None));
        let mut reading = JoinSet::new();
        let (room, why) = (Arc::clone(&window), Arc::clone(&failure));
        reading.spawn(async move {
            let error = loop {
                match receiver.next().await {
                    Ok(Some(Event::Ack { update_id, .. })) => {
                        let before = acknowledged.send_replace(update_id);
                        room.add_permits(update_id.saturating_sub(before) as usize);
                    }
                    Ok(Some(Event::Update { update, .. } | Event::Sync { update, .. })) => {
                        received(update);
                    }
                    Ok(Some(Event::Refused { reason, .. })) => break SessionError::Refused(reason),
                    Ok(Some(_)) => {}
                    Ok(None) => break SessionError::Ended,
                    Err(error) => break error.into(),
                }
            };
            *why.lock() = Some(error);
            room.close();
        });
        Self {
            document: document.to_owned(),
            sender,
            window,
            acknowledged: acknowledged_rx,
            failure,
            sent: 0,
            _client: client,
            _reading: reading,
        }
    }

    /// Sends an update, when the window has room; returns its id.
    pub(crate) async fn send(&mut self, update: Bytes) -> Result<u64, Error> {
        // Given back by the acknowledgement.
        self.window.acquire().await.map_err(|_| self.failed())?.forget();
        self.sent += 1;
        if self.sender.update(self.sent, update).await.is_err() {
            // The reading side is about to say why.
            self.window.close();
            while self.acknowledged.changed().await.is_ok() {}
            return Err(self.failed());
        }
        Ok(self.sent)
    }

    /// Waits until the update `id` and all before it are durable.
    pub(crate) async fn acknowledged(&mut self, id: u64) -> Result<(), Error> {
        if self.acknowledged.wait_for(|acknowledged| *acknowledged >= id).await.is_err() {
            return Err(self.failed());
        }
        Ok(())
    }

    /// Waits until everything that was sent is durable.
    pub(crate) async fn flush(&mut self) -> Result<(), Error> {
        self.acknowledged(self.sent).await
    }

    fn failed(&self) -> Error {
        self.failure.lock().take().unwrap_or(SessionError::Ended).on(&self.document)
    }
}
