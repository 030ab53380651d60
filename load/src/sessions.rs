//! Opening sessions, each over a connection of its own.

use std::sync::Arc;

use cowrite_client::JoinOptions;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    door::{Entrance, Joined, Receiver, Sender},
    error::Error,
    report::Progress,
};

/// How many sessions are being opened at a time, where no more is wanted: below what a listener
/// keeps waiting.
const OPENING_MAX: usize = 64;

/// A session that has been joined. Its connection ends with it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
    pub(crate) joined: Joined,
    /// Which one it is of those that were opened together, from 0.
    pub(crate) index: usize,
}

/// Opens one session over a new connection.
pub(crate) async fn open(entrance: &Entrance, options: JoinOptions) -> Result<Session, Error> {
    let (sender, receiver, joined) = entrance.open(options).await?;
    Ok(Session { sender, receiver, joined, index: 0 })
}

/// Opens a session for each of `documents`, in any order; each is handed to `opened`.
pub(crate) async fn open_all(
    entrance: &Entrance,
    documents: impl Iterator<Item = String>,
    progress: &Progress,
    mut opened: impl FnMut(Session),
) -> Result<(), Error> {
    let permits = Arc::new(Semaphore::new(OPENING_MAX));
    let mut opening = JoinSet::new();
    for (index, document) in documents.enumerate() {
        let (entrance, permits) = (entrance.clone(), Arc::clone(&permits));
        opening.spawn(async move {
            // Never closed.
            let _permit = permits.acquire_owned().await;
            let session = open(&entrance, JoinOptions::new(document)).await?;
            Ok::<_, Error>(Session { index, ..session })
        });
    }
    progress.begin("opening sessions", opening.len() as u64);
    while let Some(session) = opening.join_next().await {
        opened(session??);
        progress.step(1);
    }
    Ok(())
}
