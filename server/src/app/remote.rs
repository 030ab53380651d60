//! The commands that talk to a server: `cat`, `type` and `documents`.

use std::{
    error::Error,
    fs,
    io::{self, Write as _},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use cowrite_client::{
    Access, Client, Document, DocumentOptions, Status,
    yrs::{GetString as _, Text as _, WriteTxn as _},
};
use tokio::{
    io::{AsyncReadExt as _, stdin},
    time::timeout,
};

use crate::auth::Token;

/// How long a command waits for a server that is not there.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

type Done = Result<(), Box<dyn Error>>;

/// Where the server is.
#[derive(Debug, Args)]
pub(super) struct Address {
    /// The URL of the server.
    #[arg(
        long,
        value_name = "URL",
        env = "COWRITE_SERVER",
        default_value = "http://127.0.0.1:8080"
    )]
    server: String,
    /// The credentials, where the server asks for them.
    #[arg(long, value_name = "TOKEN", env = "COWRITE_TOKEN", hide_env_values = true)]
    token: Option<Token>,
    /// Roots that the certificate of the server may lead to, besides those of the system: a PEM
    /// file.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// Print the text of a document.
#[derive(Debug, Args)]
pub(super) struct Cat {
    #[command(flatten)]
    address: Address,
    /// The document.
    document: String,
    /// The name of the root text.
    #[arg(long, default_value = "content")]
    root: String,
    /// Stay, and print the text anew whenever it changes.
    #[arg(long, short)]
    follow: bool,
}

/// Type standard input into a document as it comes, at the end of its text.
#[derive(Debug, Args)]
pub(super) struct Type {
    #[command(flatten)]
    address: Address,
    /// The document; created if it does not exist.
    document: String,
    /// The name of the root text.
    #[arg(long, default_value = "content")]
    root: String,
}

/// List the documents of a server.
#[derive(Debug, Args)]
pub(super) struct Documents {
    #[command(flatten)]
    address: Address,
}

impl Address {
    /// The server at this URL.
    pub(super) fn new(server: String, token: Option<Token>, ca: Option<PathBuf>) -> Self {
        Self { server, token, ca }
    }

    pub(super) async fn connect(&self) -> Result<Client, Box<dyn Error>> {
        let mut builder = Client::builder(&*self.server);
        if let Some(token) = &self.token {
            builder = builder.token(token.expose());
        }
        if let Some(ca) = &self.ca {
            let pem = fs::read(ca).map_err(|error| format!("read {}: {error}", ca.display()))?;
            builder = builder.ca(pem);
        }
        let connecting = timeout(PATIENCE, builder.connect()).await;
        let connected = connecting.map_err(|_| "it does not answer".into());
        connected.and_then(|client| client.map_err(Box::<dyn Error>::from)).map_err(|error| {
            let server = &self.server;
            format!("connect to {server}: {error}; is `cowrite serve` running there?").into()
        })
    }

    pub(super) async fn open(
        &self,
        document: &str,
        access: Access,
    ) -> Result<Document, Box<dyn Error>> {
        let mut options = DocumentOptions::default();
        options.access = access;
        let opened = self.connect().await?.document(document, options);
        timeout(PATIENCE, opened.wait_until_synced())
            .await
            .map_err(|_| format!("open {document}: the server did not send it in time"))?
            .map_err(|error| format!("open {document}: {error}"))?;
        Ok(opened)
    }
}

impl Cat {
    pub(super) async fn run(self) -> Done {
        let document = self.address.open(&self.document, Access::Read).await?;
        let mut changes = document.changes();
        let mut status = document.status();
        loop {
            changes.mark_unchanged();
            let text = document.text(&self.root);
            let mut out = io::stdout().lock();
            // A terminal shows the text as it is now; a file gets one version after the other.
            if self.follow && io::IsTerminal::is_terminal(&out) {
                out.write_all(b"\x1b[2J\x1b[H")?;
            }
            out.write_all(text.as_bytes())?;
            if !text.ends_with('\n') && !text.is_empty() {
                out.write_all(b"\n")?;
            }
            out.flush()?;
            drop(out);
            if !self.follow {
                document.leave().await?;
                return Ok(());
            }
            tokio::select! {
                _ = changes.changed() => {}
                closed = status.wait_for(|status| matches!(status, Status::Closed { .. })) => {
                    closed?;
                    return Err("the server ended the session for good".into());
                }
            }
        }
    }
}

impl Type {
    pub(super) async fn run(self) -> Done {
        let document = self.address.open(&self.document, Access::Write).await?;
        let mut input = stdin();
        let mut bytes = vec![0; 64 << 10];
        // What has come of a character whose last bytes have not.
        let mut partial = Vec::new();
        loop {
            let count = input.read(&mut bytes).await?;
            partial.extend_from_slice(bytes.get(..count).unwrap_or_default());
            let end = match std::str::from_utf8(&partial) {
                Ok(text) => text.len(),
                Err(error) if error.error_len().is_none() && count > 0 => error.valid_up_to(),
                Err(error) => {
                    document.leave().await?;
                    return Err(format!("standard input is not text in UTF-8: {error}").into());
                }
            };
            let rest = partial.split_off(end);
            let text = String::from_utf8(std::mem::replace(&mut partial, rest))?;
            if !text.is_empty() {
                document.edit(|txn| {
                    let root = txn.get_or_insert_text(&*self.root);
                    // Where the text ends, in UTF-16 code units, as everywhere in Yjs.
                    let end = root.get_string(txn).encode_utf16().count();
                    root.insert(txn, u32::try_from(end).unwrap_or(u32::MAX), &text);
                });
            }
            if count == 0 {
                break;
            }
        }
        // Not until everything is on the server's disk.
        document.wait_until_saved().await?;
        document.leave().await?;
        Ok(())
    }
}

impl Documents {
    pub(super) async fn run(self) -> Done {
        let client = self.address.connect().await?;
        let mut out = io::stdout();
        let mut page_token = String::new();
        writeln!(out, "{:>10}  {:>8}  document", "sequence", "sessions")?;
        loop {
            let page = client.list_documents(1000, page_token).await?;
            for document in page.documents {
                let (sequence, sessions) = (document.sequence, document.sessions);
                writeln!(out, "{sequence:>10}  {sessions:>8}  {}", document.id)?;
            }
            if page.next_page_token.is_empty() {
                return Ok(());
            }
            page_token = page.next_page_token;
        }
    }
}
