//! The `cowrite` command.

use std::process::ExitCode;

use clap::Parser as _;
use cowrite_server::app::cli::{self, Cli};

fn main() -> ExitCode {
    cli::main(Cli::parse())
}
