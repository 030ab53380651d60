//! Opening sessions, each over a connection of its own.

use std::{sync::Arc, time::Duration};

use cowrite_client::{Client, FrameReceiver, FrameSender, JoinOptions, Joined};
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    error::{Error, SessionError},
    report::Progress,
};

/// How many sessions are being opened at a time, where no more is wanted: below what a listener
/// keeps waiting.
const OPENING_MAX: usize = 64;
/// Room for a server that is busy with many joins.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);

/// A session that has been joined. Its connection ends with it.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) sender: FrameSender,
    pub(crate) receiver: FrameReceiver,
    pub(crate) joined: Joined,
    /// Which one it is of those that were opened together, from 0.
    pub(crate) index: usize,
    /// Holds the connection.
    pub(crate) client: Client,
}

/// Opens one session over a new connection.
pub(crate) async fn open(url: &str, options: JoinOptions) -> Result<Session, Error> {
    let document = options.document.clone();
    let opened = async {
        let client =
            Client::builder(url).first_message_timeout(JOIN_TIMEOUT).connect_timeout(JOIN_TIMEOUT);
        let client = client.connect().await?;
        let (sender, receiver, joined) = client.open(options).await?;
        Ok(Session { sender, receiver, joined, index: 0, client })
    };
    opened.await.map_err(|error: SessionError| error.on(&document))
}

/// Opens a session for each of `documents`, in any order; each is handed to `opened`.
pub(crate) async fn open_all(
    url: &str,
    documents: impl Iterator<Item = String>,
    progress: &Progress,
    mut opened: impl FnMut(Session),
) -> Result<(), Error> {
    let permits = Arc::new(Semaphore::new(OPENING_MAX));
    let mut opening = JoinSet::new();
    for (index, document) in documents.enumerate() {
        let (url, permits) = (url.to_owned(), Arc::clone(&permits));
        opening.spawn(async move {
            // Never closed.
            let _permit = permits.acquire_owned().await;
            let session = open(&url, JoinOptions::new(document)).await?;
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
