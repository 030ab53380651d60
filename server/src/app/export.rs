//! The command `export`: documents as files with a Yjs v1 update each.

use std::{
    error::Error,
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use cowrite_client::{Access, Client};

use super::{
    place::{self, Place},
    remote::Address,
};
use crate::{exchange, ids::DocumentId, log::UpdateLog};

/// How many documents are asked for at a time.
const PAGE: u32 = 1000;

/// Write documents to files, which any Yjs program can read.
///
/// A file has one Yjs v1 update, the whole document, and is whole whenever it is there under its
/// name. Files that are there are never overwritten. `cowrite import --from export` reads them.
#[derive(Debug, Args)]
pub(super) struct Export {
    /// The document.
    #[arg(long, value_name = "ID", required_unless_present = "all")]
    document: Option<String>,
    /// All documents, into the directory --out: notes/7 as notes,7.yjs.
    #[arg(long, conflicts_with = "document", requires = "out")]
    all: bool,
    /// The file for the document [default: standard output], or the directory for all of them,
    /// created if it does not exist.
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// Where documents come from.
enum From {
    Log(Arc<dyn UpdateLog>),
    Server(Address, Box<Client>),
}

impl Export {
    pub(super) async fn run(self) -> Result<(), Box<dyn Error>> {
        let from = match self.place.server() {
            Some(address) => {
                let client = address.connect().await?;
                From::Server(address, Box::new(client))
            }
            None => {
                let config = self.place.config()?;
                let log = place::open(&config, false)?.ok_or_else(|| {
                    format!("{} is no data directory", config.log.directory.display())
                })?;
                From::Log(log)
            }
        };
        let result = self.export(&from).await;
        if let From::Log(log) = &from {
            log.close().await;
        }
        result
    }

    async fn export(&self, from: &From) -> Result<(), Box<dyn Error>> {
        match (&self.document, &self.out) {
            (Some(document), out) => {
                let document = DocumentId::parse(document)?;
                let state = from.state(&document).await?;
                // A server shows a document that does not exist as an empty one.
                if matches!(from, From::Server(..)) && *state == [0, 0] {
                    return Err(format!("there is no document {document}, or it is empty").into());
                }
                match out {
                    Some(path) => {
                        save(path, &state)?;
                        let directory = path.parent().filter(|p| !p.as_os_str().is_empty());
                        Ok(exchange::sync(directory.unwrap_or(Path::new(".")))?)
                    }
                    None if io::stdout().is_terminal() => {
                        Err("the update is no text: give --out FILE".into())
                    }
                    None => Ok(io::stdout().write_all(&state)?),
                }
            }
            (None, Some(directory)) => all(from, directory).await,
            (None, None) => Err("give --document or --all".into()),
        }
    }
}

async fn all(from: &From, directory: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let (mut exported, mut failed) = (0_usize, 0_usize);
    let mut page = from.page(None).await?;
    loop {
        for document in &page.documents {
            let path = directory.join(exchange::file_name(document));
            let saved = match from.state(document).await {
                Ok(state) => save(&path, &state),
                Err(error) => Err(error),
            };
            match saved {
                Ok(()) => exported += 1,
                Err(error) => {
                    failed += 1;
                    writeln!(io::stderr(), "failed     {document}: {error}")?;
                }
            }
        }
        let Some(next) = page.next else { break };
        page = from.page(Some(next)).await?;
    }
    exchange::sync(directory)?;
    writeln!(io::stdout(), "{exported} exported, {failed} failed")?;
    match failed {
        0 => Ok(()),
        failed => Err(format!("documents that were not exported: {failed}").into()),
    }
}

fn save(path: &Path, state: &[u8]) -> Result<(), Box<dyn Error>> {
    exchange::write(path, state)
        .map_err(|error| format!("write {}: {error}", path.display()).into())
}

/// Some of the documents.
struct Page {
    documents: Vec<DocumentId>,
    /// What gives the next ones.
    next: Option<Next>,
}

enum Next {
    After(DocumentId),
    Token(String),
}

impl From {
    async fn page(&self, next: Option<Next>) -> Result<Page, Box<dyn Error>> {
        match self {
            Self::Log(log) => {
                let after = match &next {
                    Some(Next::After(document)) => Some(document),
                    Some(Next::Token(_)) | None => None,
                };
                let listed = log.list(after, PAGE as usize);
                let documents: Vec<_> =
                    listed.into_iter().map(|summary| summary.document).collect();
                let next = documents.last().cloned().map(Next::After);
                Ok(Page { documents, next })
            }
            Self::Server(_, client) => {
                let token = match next {
                    Some(Next::Token(token)) => token,
                    Some(Next::After(_)) | None => String::new(),
                };
                let listed = client.list_documents(PAGE, token).await?;
                let ids = listed.documents.iter().map(|document| DocumentId::parse(&document.id));
                let documents = ids.collect::<Result<_, _>>()?;
                let next = Some(listed.next_page_token).filter(|token| !token.is_empty());
                Ok(Page { documents, next: next.map(Next::Token) })
            }
        }
    }

    /// The whole document as one Yjs v1 update.
    async fn state(&self, document: &DocumentId) -> Result<Vec<u8>, Box<dyn Error>> {
        match self {
            Self::Log(log) => {
                let loaded = log.load(document).await?;
                let loaded = loaded.ok_or_else(|| format!("there is no document {document}"))?;
                Ok(exchange::open(&loaded)?.state()?.into())
            }
            Self::Server(address, _) => {
                let opened = address.open(document.as_str(), Access::Read).await?;
                let state = opened.encode();
                opened.leave().await?;
                Ok(state)
            }
        }
    }
}
