//! The command `token`: tokens and secrets for development.

use std::{
    error::Error,
    io::{self, Write as _},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, ValueEnum};

use super::cli::File;
use crate::{
    auth::{self, Access, Right, Scope},
    ids::DocumentId,
};

/// Make a token for development.
#[derive(Debug, Args)]
pub(super) struct Token {
    /// A document that the token is for; may be given several times.
    #[arg(long, value_name = "ID", value_parser = document)]
    document: Vec<DocumentId>,
    /// The beginning of the ids of documents that the token is for: whole segments, ending with "/",
    /// or nothing for all documents; may be given several times.
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    prefix: Vec<Scope>,
    /// What may be done with them.
    #[arg(long, value_enum, default_value = "write")]
    access: Level,
    /// Who the token is for.
    #[arg(long, default_value = "dev")]
    sub: String,
    /// How long it is good.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    expires_in: Duration,
    /// Make a new secret for HS256 in this file, which must not exist, and no token.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["document", "prefix", "config"])]
    new_secret: Option<PathBuf>,
    #[command(flatten)]
    file: File,
}

/// A level of access by its name.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    /// To see everything.
    Read,
    /// To comment as well.
    Comment,
    /// To edit as well.
    Write,
    /// To decide about documents as a whole as well.
    Admin,
}

fn document(text: &str) -> Result<DocumentId, String> {
    DocumentId::parse(text).map_err(|error| error.to_string())
}

fn prefix(text: &str) -> Result<Scope, String> {
    Scope::prefix(text).ok_or_else(|| {
        "a prefix is one or more whole segments and ends with \"/\", or is empty".to_owned()
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime_serde::re::humantime::parse_duration(text).map_err(|error| error.to_string())
}

impl Token {
    pub(super) fn run(self) -> Result<(), Box<dyn Error>> {
        if let Some(path) = &self.new_secret {
            return auth::new_secret(path)
                .map_err(|error| format!("make the secret {}: {error}", path.display()).into());
        }
        let access = match self.access {
            Level::Read => Access::Read,
            Level::Comment => Access::Comment,
            Level::Write => Access::Write,
            Level::Admin => Access::Admin,
        };
        let scopes = self.document.into_iter().map(Scope::Document).chain(self.prefix);
        let rights: Vec<_> = scopes.map(|scope| Right { scope, access }).collect();
        if rights.is_empty() {
            return Err("say what the token is for: --document ID, or --prefix PREFIX".into());
        }
        let config = self.file.load(Vec::new())?;
        let token = auth::mint(&config.auth, &self.sub, &rights, self.expires_in)?;
        writeln!(io::stdout(), "{}", token.expose())?;
        Ok(())
    }
}
