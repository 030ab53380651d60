//! The command line.

use std::{
    env,
    error::Error,
    future,
    io::{self, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    thread,
};

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use toml::Value;

use super::{
    Config, Live, Server,
    config::{ConfigError, Runtime, Sources},
    export::Export,
    import::Import,
    remote::{Cat, Documents, Type},
    repair::Repair,
    telemetry,
    token::Token,
};

/// A wrong use of the command or of the configuration: EX_USAGE of sysexits.h.
const EXIT_USAGE: u8 = 64;

/// A real-time collaborative editing server: an edit that was acknowledged is on disk.
#[derive(Debug, Parser)]
#[command(name = "cowrite", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve documents.
    Serve(Serve),
    /// Print the text of a document.
    Cat(Cat),
    /// Type standard input into a document as it comes, at the end of its text.
    Type(Type),
    /// List the documents of a server.
    Documents(Documents),
    /// Make a token for development, from the secret of a configuration; or make a secret.
    Token(Token),
    /// Take in documents that another Yjs server has stored.
    Import(Import),
    /// Write documents to files, which any Yjs program can read.
    Export(Export),
    /// Look at documents in quarantine, and let them out.
    Repair(Repair),
    /// Say whether a configuration can be used, and show it with all defaults.
    CheckConfig(CheckConfig),
}

/// Serve documents.
#[derive(Debug, Args)]
struct Serve {
    /// Where clients come in [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where operators look: metrics and health [default: 127.0.0.1:9090].
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// Where documents are kept; created if it does not exist [default: data].
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "ephemeral")]
    data: Option<PathBuf>,
    /// Keep documents in memory only: they are gone when the server ends.
    #[arg(long)]
    ephemeral: bool,
    /// Serve everybody who can connect, also on an address that others than this machine reach.
    #[arg(long)]
    insecure: bool,
    #[command(flatten)]
    file: File,
}

#[derive(Clone, Debug, Args)]
pub(super) struct File {
    /// The configuration file; deploy/cowrite.example.toml is one for production.
    #[arg(long, value_name = "FILE", env = "COWRITE_CONFIG")]
    config: Option<PathBuf>,
}

/// Say whether a configuration can be used.
#[derive(Debug, Args)]
struct CheckConfig {
    #[command(flatten)]
    file: File,
}

/// Does what the command line says.
pub fn main(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Serve(serve) => serve.run(),
        Command::Cat(cat) => block_on(cat.run()),
        Command::Type(r#type) => block_on(r#type.run()),
        Command::Documents(documents) => block_on(documents.run()),
        Command::Token(token) => token.run(),
        Command::Import(import) => block_on(import.run()),
        Command::Export(export) => block_on(export.run()),
        Command::Repair(repair) => block_on(repair.run()),
        Command::CheckConfig(check) => check.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let usage = error.is::<ConfigError>();
            complain(&*error);
            ExitCode::from(if usage { EXIT_USAGE } else { 1 })
        }
    }
}

/// An error and its causes on standard error, in one line.
fn complain(error: &dyn Error) {
    let mut line = format!("cowrite: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    // If standard error is gone there is nobody to tell.
    drop(writeln!(io::stderr(), "{line}"));
}

type Done = Result<(), Box<dyn Error>>;

impl File {
    pub(super) fn load(&self, flags: Vec<(&'static str, Value)>) -> Result<Config, ConfigError> {
        let text = |os: std::ffi::OsString| os.to_string_lossy().into_owned();
        let environment = env::vars_os().map(|(name, value)| (text(name), text(value))).collect();
        Config::load(Sources { file: self.config.as_deref(), environment, flags })
    }
}

impl CheckConfig {
    fn run(&self) -> Done {
        let config = self.file.load(Vec::new())?;
        io::stdout().write_all(toml::to_string(&config)?.as_bytes())?;
        Ok(())
    }
}

impl Serve {
    fn run(self) -> Done {
        let mut flags = Vec::new();
        let text = |text: String| Value::String(text);
        if let Some(address) = self.listen {
            flags.push(("transport.listen", text(address.to_string())));
        }
        if let Some(address) = self.admin {
            flags.push(("transport.admin_listen", text(address.to_string())));
        }
        if let Some(directory) = &self.data {
            flags.push(("log.kind", text("embedded".to_owned())));
            flags.push(("log.directory", text(directory.to_string_lossy().into_owned())));
        }
        if self.ephemeral {
            flags.push(("log.kind", text("memory".to_owned())));
        }
        if self.insecure {
            flags.push(("auth.insecure", Value::Boolean(true)));
        }
        let file = self.file;
        let load = move || file.load(flags.clone());
        let config = load()?;
        let filter = telemetry::start(&config.telemetry);
        let runtime = runtime(&config.runtime)?;
        runtime.block_on(async {
            let server = Server::bind(config).await?;
            // Before anybody is told that it serves, who may send a signal at once.
            let reloads = reload_on_hangup(server.live().with_filter(filter), load)?;
            let stop = signalled()?;
            let (address, admin) = (server.local_addr()?, server.admin_addr()?);
            tracing::info!(version = env!("CARGO_PKG_VERSION"), %address, %admin, "serving");
            // For people, and for scripts that let the system choose a port.
            let scheme = if server.tls().is_on() { "https" } else { "http" };
            writeln!(io::stdout(), "{scheme}://{address}")?;
            tokio::select! {
                _ = server.run(stop) => {}
                () = reloads => {}
            }
            Ok(())
        })
    }
}

/// Runs a command that talks to a server.
fn block_on(command: impl Future<Output = Done>) -> Done {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(command);
    // A read of standard input that is still under way holds nothing up.
    runtime.shutdown_background();
    done
}

/// One thread where there is one processor: that saves the work of sharing between threads.
fn runtime(config: &Runtime) -> io::Result<tokio::runtime::Runtime> {
    let threads = match config.worker_threads {
        0 => thread::available_parallelism()?.get(),
        threads => threads,
    };
    let mut builder = if threads == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    builder.worker_threads(threads).thread_name("cowrite").enable_all().build()
}

/// Reads the configuration anew whenever the process is told to with SIGHUP, which does nothing else;
/// never ready.
fn reload_on_hangup(
    live: Live,
    load: impl Fn() -> Result<Config, ConfigError> + Clone + Send + 'static,
) -> io::Result<impl Future<Output = ()>> {
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        while hangup.recv().await.is_some() {
            let (live, load) = (live.clone(), load.clone());
            // What is wrong was logged.
            drop(tokio::task::spawn_blocking(move || live.reload(load)).await);
        }
        future::pending().await
    })
}

/// Ready when the process is asked to end.
fn signalled() -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
