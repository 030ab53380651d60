//! The `cowrite` command once more, as a binary of this package: cargo then builds it before the
//! tests that run it as a process, from the same sources and with the same `main`.

use std::process::ExitCode;

use clap::Parser as _;
use cowrite_server::app::cli::{self, Cli};

fn main() -> ExitCode {
    cli::main(Cli::parse())
}
