//! Sending many updates in one session without waiting for each: a window of those not acknowledged.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::{
    door::{Event, Sender},
    error::{Error, SessionError},
    sessions::Session,
    update::{insertions, write_var},
};

/// Updates not acknowledged, at most: enough to keep the server busy, and few enough for its queues.
const WINDOW: usize = 128;
/// Where acknowledgements must be asked for, one is asked for this often: the next half of the window
/// goes out while the answer comes.
const ASK_EVERY: u64 = WINDOW as u64 / 2;

/// A session that sends updates.
#[derive(Debug)]
pub(crate) struct Pipeline {
    document: String,
    sender: Sender,
    window: Arc<Semaphore>,
    acknowledged: watch::Receiver<u64>,
    failure: Arc<Mutex<Option<SessionError>>>,
    sent: u64,
    /// At a door where acknowledgements are asked for.
    asking: Option<Asking>,
    _reading: JoinSet<()>,
}

/// What it takes to ask for acknowledgements.
#[derive(Debug)]
struct Asking {
    known: Known,
    /// The last update that one was asked for.
    requested: u64,
}

/// What this side has, by client, so that the answer holds no more than it must.
#[derive(Debug, Clone, Default)]
struct Known(Arc<Mutex<BTreeMap<u64, u32>>>);

impl Known {
    fn add(&self, update: &[u8]) -> Result<(), SessionError> {
        let mut clients = self.0.lock();
        insertions(update, |client, run| {
            let clock = clients.entry(client).or_default();
            *clock = run.end.max(*clock);
        })?;
        Ok(())
    }

    fn state_vector(&self) -> Vec<u8> {
        let clients = self.0.lock();
        let mut bytes = Vec::new();
        write_var(&mut bytes, clients.len() as u64);
        for (client, clock) in clients.iter() {
            write_var(&mut bytes, *client);
            write_var(&mut bytes, (*clock).into());
        }
        bytes
    }
}

impl Pipeline {
    /// Takes a session over. Updates and states that arrive are handed to `received`.
    pub(crate) fn new(
        document: &str,
        session: Session,
        mut received: impl FnMut(Bytes) + Send + 'static,
    ) -> Self {
        let Session { sender, mut receiver, .. } = session;
        let (acknowledged, acknowledged_rx) = watch::channel(0);
        let window = Arc::new(Semaphore::new(WINDOW));
        let failure = Arc::new(Mutex::new(None));
        let asking =
            sender.must_be_asked().then(|| Asking { known: Known::default(), requested: 0 });
        let known = asking.as_ref().map(|asking| asking.known.clone());
        let mut reading = JoinSet::new();
        let (room, why) = (Arc::clone(&window), Arc::clone(&failure));
        reading.spawn(async move {
            let error = loop {
                match receiver.next().await {
                    Ok(Event::Ack { update_id }) => {
                        let before = acknowledged.send_replace(update_id);
                        room.add_permits(update_id.saturating_sub(before) as usize);
                    }
                    Ok(Event::Update(update) | Event::State { update, .. }) => {
                        if let Some(Err(error)) = known.as_ref().map(|known| known.add(&update)) {
                            break error;
                        }
                        received(update);
                    }
                    Ok(Event::Refused(reason)) => break SessionError::Refused(reason),
                    Ok(Event::Other) => {}
                    Err(error) => break error,
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
            asking,
            _reading: reading,
        }
    }

    /// Sends an update, when the window has room; returns its id.
    pub(crate) async fn send(&mut self, update: Bytes) -> Result<u64, Error> {
        if let Some(asking) = &self.asking {
            asking.known.add(&update).map_err(|error| error.on(&self.document))?;
        }
        if self.window.available_permits() == 0 {
            self.checked(self.sender.flush().await).await?;
        }
        // Given back by the acknowledgement.
        self.window.acquire().await.map_err(|_| self.failed())?.forget();
        self.sent += 1;
        let sent = self.sender.update(self.sent, update).await;
        self.checked(sent).await?;
        if self.sent.is_multiple_of(ASK_EVERY) {
            self.ask().await?;
        }
        Ok(self.sent)
    }

    /// Has the server say what it has taken, where it does not do so by itself.
    async fn ask(&mut self) -> Result<(), Error> {
        if let Some(asking) = &mut self.asking
            && asking.requested < self.sent
        {
            asking.requested = self.sent;
            let state_vector = asking.known.state_vector();
            let asked = self.sender.request_ack(self.sent, &state_vector).await;
            self.checked(asked).await?;
        }
        Ok(())
    }

    /// What a failure to send means: the reading side is about to say why.
    async fn checked(&mut self, sent: Result<(), SessionError>) -> Result<(), Error> {
        if sent.is_err() {
            self.window.close();
            while self.acknowledged.changed().await.is_ok() {}
            return Err(self.failed());
        }
        Ok(())
    }

    /// Waits until the update `id` and all before it are durable.
    pub(crate) async fn acknowledged(&mut self, id: u64) -> Result<(), Error> {
        if *self.acknowledged.borrow() < id {
            self.ask().await?;
            self.checked(self.sender.flush().await).await?;
        }
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

#[cfg(test)]
mod tests {
    use cowrite_client::JoinOptions;

    use super::*;
    use crate::{door::Door, relay::Relay, sessions, update::append};

    #[tokio::test]
    async fn more_than_a_window_is_acknowledged_at_every_door() {
        for door in [Door::Grpc, Door::GrpcWeb, Door::YWebsocket, Door::Hocuspocus] {
            let relay = Relay::start(door, None).await;
            let session = sessions::open(relay.entrance(), JoinOptions::new("d")).await;
            let mut pipeline = Pipeline::new("d", session.expect("opens"), |_| {});
            let edits = WINDOW as u32 * 2 + 1;
            for edit in 0..edits {
                pipeline.send(append(5, edit, "e", 1)).await.expect("sends");
            }
            pipeline.flush().await.expect("is acknowledged");
            assert_eq!(*pipeline.acknowledged.borrow(), u64::from(edits), "{door:?}");
        }
    }

    #[test]
    fn what_is_known_is_a_state_vector() {
        let known = Known::default();
        for update in [append(7, 0, "e", 2), append(1, 300, "e", 1), append(7, 0, "e", 1)] {
            known.add(&update).expect("an update");
        }
        assert_eq!(known.state_vector(), [2, 1, 0xad, 2, 7, 2]);
    }
}
