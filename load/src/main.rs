//! Puts load on a Cowrite server and tells what it did: see `README.md`.

mod connect;
mod door;
mod edits;
mod error;
mod idle;
mod join;
mod measure;
mod pipeline;
mod process;
#[cfg(test)]
mod relay;
mod replay;
mod report;
mod scenario;
mod seed;
mod sessions;
mod slow_readers;
mod storm;
mod trace;
mod typist;
mod update;

use std::{num::NonZeroUsize, path::PathBuf, process::ExitCode, thread::available_parallelism};

use clap::{Args, Parser, Subcommand};
use tokio::runtime;

use crate::{
    door::{Door, Entrance},
    error::Error,
    join::Joins,
    process::Process,
    report::{Progress, Report},
    scenario::Scenario,
};

/// Puts load on a Cowrite server and tells what it did.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a scenario. Fails if an edit was lost.
    Run {
        /// The scenario, a TOML file.
        scenario: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// Joins a document that is there: one by one, then many at once.
    Join {
        /// The document.
        #[arg(long)]
        document: String,
        /// How many joins one by one.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        joins: u32,
        /// How many at once.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        at_once: u32,
        #[command(flatten)]
        common: Common,
    },
    /// Replays a recorded session. Fails if somebody ends up with another text.
    Replay {
        /// The recording, a .json.gz file.
        #[arg(long)]
        trace: PathBuf,
        /// The document to type it into: one that does not exist yet.
        #[arg(long)]
        document: String,
        /// The root text to type it into.
        #[arg(long, default_value = "content")]
        root: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// The server. For the WebSocket doors http:// means Cowrite's path, and ws:// what a provider
    /// would be given.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    server: String,
    /// The protocol.
    #[arg(long, value_enum, default_value_t = Door::Grpc)]
    door: Door,
    /// The server's process on this machine, to measure its processor time and memory.
    #[arg(long)]
    server_pid: Option<u32>,
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

impl Common {
    fn entrance(&self) -> Entrance {
        Entrance { url: self.server.clone(), door: self.door }
    }
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {}", report::with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// Runs a command and prints its report; returns whether the server did what it promises.
fn run(command: Command) -> Result<bool, Error> {
    process::raise_open_files_limit();
    // Pinned to one core, a second thread would only take turns with the first.
    let one_core = available_parallelism().is_ok_and(|cores| cores == NonZeroUsize::MIN);
    let mut builder = if one_core {
        runtime::Builder::new_current_thread()
    } else {
        runtime::Builder::new_multi_thread()
    };
    let runtime = builder.enable_all().build().map_err(Error::Runtime)?;
    let progress = Progress::new();
    let (common, report) = runtime.block_on(async {
        Ok::<_, Error>(match command {
            Command::Run { scenario, common } => {
                let scenario = Scenario::read(&scenario)?;
                let report = run_scenario(&scenario, &common, &progress).await?;
                (common, report)
            }
            Command::Join { document, joins, at_once, common } => {
                let joins = Joins { document, joins, at_once };
                let server = common.server_pid.map(Process::new);
                let report = join::measure(joins, &common.entrance(), server, &progress).await?;
                (common, Report::Join(report))
            }
            Command::Replay { trace, document, root, common } => {
                let entrance = common.entrance();
                let target =
                    replay::Target { entrance: &entrance, document: &document, root: &root };
                let report = replay::run(&trace, &target, &progress).await?;
                (common, Report::Replay(report))
            }
        })
    })?;
    drop(progress);
    report.print(common.door, common.json)?;
    Ok(!report.failed())
}

async fn run_scenario(
    scenario: &Scenario,
    common: &Common,
    progress: &Progress,
) -> Result<Report, Error> {
    let (entrance, server) = (&common.entrance(), common.server_pid.map(Process::new));
    Ok(match scenario {
        Scenario::Edits(edits) => {
            Report::Edits(edits::run(edits, 0, entrance, server, progress).await?)
        }
        Scenario::SlowReaders(slow) => {
            let report = slow_readers::run(slow, entrance, server, progress).await?;
            Report::SlowReaders(Box::new(report))
        }
        Scenario::Idle(idle) => Report::Idle(idle::run(idle, entrance, server, progress).await?),
        Scenario::ReconnectStorm(storm) => {
            Report::ReconnectStorm(storm::run(storm, entrance, server, progress).await?)
        }
        Scenario::Connect(connect) => {
            Report::Connect(connect::run(connect, entrance, server, progress).await?)
        }
        Scenario::Join(join) => Report::Join(join::run(join, entrance, server, progress).await?),
    })
}
