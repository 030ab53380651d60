//! The command `import`: documents of other Yjs servers, into the data of a server that is not
//! running, or into a running one.

use std::{
    error::Error,
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use cowrite_client::{Access, Client, Event, JoinOptions};
use tokio::time::timeout;

use super::{
    Config,
    place::{self, Place},
    remote::PATIENCE,
};
use crate::{
    crdt::{Document, validate},
    exchange::{
        ExportedFiles, Found, Hocuspocus, Naming, Outcome, Prepared, Refusal, Source, Store,
        StoreError, UpdateFile, YLevelDb, fit, prepare,
    },
    ids::DocumentId,
    log::UpdateLog,
};

/// What a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum From {
    /// A file with one Yjs v1 update, such as `Y.encodeStateAsUpdate` gives. Needs --document.
    Update,
    /// A directory of files as `cowrite export --all` writes them.
    Export,
    /// The directory of y-leveldb: YPERSISTENCE of y-websocket.
    #[value(name = "y-leveldb")]
    YLevelDb,
    /// The database file of the SQLite extension of Hocuspocus.
    Hocuspocus,
}

/// Take in documents that another Yjs server has stored.
///
/// Each document is checked, stored as a whole with an epoch of its own, and read again. A document
/// that is there already with other content is refused; one that has all of it is left as it is, so
/// that an import that was interrupted can be started again. Exit code 1 if anything was refused.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// What PATH is.
    #[arg(long, value_name = "KIND", default_value = "update")]
    from: From,
    /// Where the documents are. Only read. Stop the server that writes it.
    path: PathBuf,
    /// The document that an update file is.
    #[arg(long, value_name = "ID", required_if_eq("from", "update"))]
    document: Option<String>,
    #[command(flatten)]
    place: Place,
    /// Give documents that are there already what they do not have, as an edit. Only makes sense for
    /// another copy of the same document; of two documents that were typed apart, one with both
    /// contents is made.
    #[arg(long)]
    merge: bool,
    /// Only say what would become of each document.
    #[arg(long)]
    dry_run: bool,
    /// Stands before every name.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    prefix: String,
    /// Write `~` and two hexadecimal digits for each byte that an id cannot have, in names that are
    /// no ids: "my doc" becomes my~20doc. They are refused otherwise.
    #[arg(long)]
    escape_names: bool,
}

/// How many documents went which way.
#[derive(Debug, Default)]
struct Totals {
    imported: usize,
    merged: usize,
    unchanged: usize,
    refused: usize,
}

/// Where documents go.
enum Target {
    /// Into this log.
    Log(Arc<dyn UpdateLog>),
    /// Into this server.
    Server(Box<Client>),
    /// Nowhere: it would be made.
    Nothing,
}

impl Import {
    pub(super) async fn run(self) -> Result<(), Box<dyn Error>> {
        let config = self.place.config()?;
        if !self.prefix.is_empty() {
            DocumentId::parse(&format!("{}x", self.prefix))
                .map_err(|error| format!("--prefix {}: {error}", self.prefix))?;
        }
        // Before the target: a path that is wrong makes no data directory.
        let mut source = self.source(config.room.document_bytes_max)?;
        let target = match self.place.server() {
            Some(address) => {
                let client = address.connect().await?;
                Target::Server(Box::new(client))
            }
            None => place::open(&config, !self.dry_run)?.map_or(Target::Nothing, Target::Log),
        };
        let result = self.import(&config, &mut *source, &target).await;
        if let Target::Log(log) = &target {
            log.close().await;
        }
        let totals = result?;
        let Totals { imported, merged, unchanged, refused } = totals;
        let dry = if self.dry_run { " (dry run: nothing was written)" } else { "" };
        writeln!(
            io::stdout(),
            "{imported} imported, {merged} merged, {unchanged} unchanged, {refused} refused{dry}"
        )?;
        match refused {
            0 => Ok(()),
            1 => Err("1 document was refused".into()),
            refused => Err(format!("{refused} documents were refused").into()),
        }
    }

    fn source(&self, bytes_max: usize) -> Result<Box<dyn Source>, Box<dyn Error>> {
        let path = &self.path;
        if let (Some(document), true) = (&self.document, self.from != From::Update) {
            return Err(
                format!("--document {document}: only an update file is one document").into()
            );
        }
        Ok(match self.from {
            From::Update => {
                let document = self.document.clone().unwrap_or_default();
                Box::new(UpdateFile::new(document, path.clone(), bytes_max))
            }
            From::Export => Box::new(ExportedFiles::open(path, bytes_max)?),
            From::YLevelDb => Box::new(YLevelDb::open(path, bytes_max)?),
            From::Hocuspocus => Box::new(Hocuspocus::open(path, bytes_max)?),
        })
    }

    async fn import(
        &self,
        config: &Config,
        source: &mut dyn Source,
        target: &Target,
    ) -> Result<Totals, Box<dyn Error>> {
        let naming = Naming { prefix: self.prefix.clone(), escape: self.escape_names };
        let bytes_max = config.room.document_bytes_max;
        let mut totals = Totals::default();
        while let Some(Found { name, content }) = source.next()? {
            let prepared = naming.id(&name).map_err(Refusal::from).and_then(|document| {
                let prepared = prepare(&content?, bytes_max)?;
                Ok((document, prepared))
            });
            let stored = match prepared {
                Err(refusal) => Err(refusal),
                Ok((document, prepared)) => {
                    match self.put(bytes_max, target, &document, &prepared).await {
                        Ok(outcome) => Ok((document, outcome)),
                        Err(StoreError::Refused(refusal)) => Err(refusal),
                        Err(error @ StoreError::Log(_)) => {
                            return Err(format!("stopped at {document}: {error}").into());
                        }
                    }
                }
            };
            match stored {
                Ok((document, outcome)) => {
                    *totals.of(outcome) += 1;
                    if name == document.as_str() {
                        writeln!(io::stdout(), "{outcome:<9}  {document}")?;
                    } else {
                        writeln!(io::stdout(), "{outcome:<9}  {document}  (was {name:?})")?;
                    }
                }
                Err(refusal) => {
                    totals.refused += 1;
                    writeln!(io::stderr(), "{:<9}  {name:?}: {refusal}", "refused")?;
                }
            }
        }
        Ok(totals)
    }

    async fn put(
        &self,
        document_bytes_max: usize,
        target: &Target,
        document: &DocumentId,
        prepared: &Prepared,
    ) -> Result<Outcome, StoreError> {
        let (merge, dry_run) = (self.merge, self.dry_run);
        match target {
            Target::Log(log) => {
                let store = Store { log: &**log, document_bytes_max, merge, dry_run };
                store.store(document, prepared).await
            }
            Target::Server(client) => {
                let remote = Remote { client, document };
                Ok(remote.put(prepared, merge, dry_run).await?)
            }
            Target::Nothing => Ok(Outcome::Imported),
        }
    }
}

impl Totals {
    fn of(&mut self, outcome: Outcome) -> &mut usize {
        match outcome {
            Outcome::Imported => &mut self.imported,
            Outcome::Merged => &mut self.merged,
            Outcome::Unchanged => &mut self.unchanged,
        }
    }
}

/// A document of a running server.
struct Remote<'a> {
    client: &'a Client,
    document: &'a DocumentId,
}

impl Remote<'_> {
    /// Sends `prepared` as one edit, if that is wanted and brings anything. The server says when it
    /// is durable.
    async fn put(
        &self,
        prepared: &Prepared,
        merge: bool,
        dry_run: bool,
    ) -> Result<Outcome, Refusal> {
        let there = self.within(self.session(Access::Read, None)).await?;
        if fit(&there, prepared)?.is_none() {
            return Ok(Outcome::Unchanged);
        }
        let outcome = match (*there.state()? == [0, 0], merge) {
            (true, _) => Outcome::Imported,
            (false, true) => Outcome::Merged,
            (false, false) => return Err(Refusal::Exists),
        };
        if !dry_run {
            self.within(self.session(Access::Write, Some(prepared.state()))).await?;
            let there = self.within(self.session(Access::Read, None)).await?;
            if fit(&there, prepared)?.is_some() {
                return Err(Refusal::NotReproduced);
            }
        }
        Ok(outcome)
    }

    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, Refusal>>,
    ) -> Result<T, Refusal> {
        let patience = timeout(6 * PATIENCE, work).await;
        patience.unwrap_or_else(|_| Err(Refusal::Server("it does not answer in time".to_owned())))
    }

    /// One session: returns the document as it was found, after `update` is durable.
    async fn session(&self, access: Access, update: Option<&Bytes>) -> Result<Document, Refusal> {
        let refused = |error: &dyn Error| Refusal::Server(error.to_string());
        let mut options = JoinOptions::new(self.document.as_str());
        options.access = access;
        let opened = self.client.open(options).await;
        let (sender, mut events, joined) = opened.map_err(|error| refused(&error))?;
        let update_bytes_max = joined.limits.map_or(u64::MAX, |limits| limits.update_bytes_max);
        if let Some(update) = update
            && update.len() as u64 > update_bytes_max
        {
            let bytes_max = usize::try_from(update_bytes_max).unwrap_or(usize::MAX);
            let key = "session.update_bytes_max of the server; stop it and use --data";
            return Err(Refusal::TooLarge { bytes: update.len(), bytes_max, key });
        }
        let mut document = None;
        while let Some(event) = events.next().await.map_err(|error| refused(&error))? {
            match event {
                Event::Sync { update: state, .. } if document.is_none() => {
                    validate::update(&state)
                        .map_err(|source| Refusal::Malformed { source, hint: "" })?;
                    document = Some(Document::of(&state)?);
                    let sent = match update {
                        Some(update) => sender.update(1, update.clone()).await,
                        None => sender.leave().await,
                    };
                    sent.map_err(|error| refused(&error))?;
                }
                Event::Ack { update_id: 1, .. } => {
                    sender.leave().await.map_err(|error| refused(&error))?;
                }
                Event::Refused { message, .. } => return Err(Refusal::Server(message)),
                // Edits and cursors of others.
                Event::Sync { .. }
                | Event::Update { .. }
                | Event::Ack { .. }
                | Event::Awareness { .. }
                | Event::AccessChanged(_)
                | Event::Closing { .. }
                | _ => {}
            }
        }
        document.ok_or_else(|| Refusal::Server("it sent no document".to_owned()))
    }
}
