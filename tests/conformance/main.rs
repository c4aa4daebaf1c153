//! A conformance suite for the SPIFFE Workload API: asks any socket, tacit's or another's, what the
//! standards demand of it, one case for each demand, and prints a table of results.
//!
//! It runs as the workload: whoever starts it must be entitled to at least one identity. What one
//! caller cannot see for itself is asked only if it is told how (`--stranger`, `--rotation`), and
//! is otherwise named as not run.
#![expect(clippy::print_stdout, reason = "the table is the result")]

mod endpoint;
mod jwt;
mod probe;
mod rotation;
mod stranger;
mod table;
mod token;
mod x509;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use table::Table;

#[derive(Debug, Clone, Parser)]
pub(crate) struct Arguments {
    /// The socket of the Workload API.
    #[arg(long, default_value = "/run/tacit/public/api.sock")]
    socket: PathBuf,
    /// Numeric id of a user that no entry matches; needs root.
    #[arg(long)]
    stranger: Option<u32>,
    /// How many seconds to wait for a rotation of the SVIDs.
    #[arg(long)]
    rotation: Option<u64>,
    /// Ask as the stranger, and only that.
    #[arg(long, hide = true)]
    as_stranger: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut table = Table::default();
    if let Err(error) = run(&arguments, &mut table).await {
        println!("the suite itself failed: {error:#}");
        return ExitCode::FAILURE;
    }
    if arguments.as_stranger {
        println!("{}", table.lines());
        return ExitCode::SUCCESS;
    }
    println!("{}", table.shown(&arguments.socket));
    if table.failures() > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

async fn run(arguments: &Arguments, table: &mut Table) -> Result<()> {
    if arguments.as_stranger {
        return stranger::ask(&arguments.socket, table).await;
    }
    endpoint::cases(&arguments.socket, table).await?;
    x509::cases(&arguments.socket, table).await?;
    jwt::cases(&arguments.socket, table).await?;
    stranger::cases(arguments, table)?;
    rotation::cases(arguments, table).await
}
