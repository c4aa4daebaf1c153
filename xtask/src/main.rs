//! Tacit's task runner: every command a developer or a CI job needs, and nothing else.
//!
//! Each verb lives in a file of its own. Start with `cargo xtask --help`.
#![expect(clippy::print_stdout, reason = "a task runner talks to the person who started it")]

mod attack;
mod bench;
mod build;
mod check;
mod conformance;
mod demo;
mod provision;
mod run;
mod switched;
mod test;
mod tidy;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, checks, tests and shows Tacit.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Compile the eBPF programs and the daemon.
    Build {
        /// As shipped: optimised, without debug assertions.
        #[arg(long)]
        release: bool,
    },
    /// Formatting, lints, tidy and documentation.
    Check {
        /// Only what takes seconds: formatting and tidy (the commit hook).
        #[arg(long)]
        fast: bool,
    },
    /// The rules of the house: imports, headers, sizes, maps of the documents.
    Tidy,
    /// Run the tests; without a tier, every tier but the long ones.
    Test {
        /// Tiers to run.
        tiers: Vec<test::Tier>,
        /// Only tests whose name contains this.
        #[arg(long)]
        only: Option<String>,
        /// Instead of here, on Debian's newest kernels of these series (6.1, 6.12, 7, …), in
        /// emulated guests.
        #[arg(long, num_args = 1.., value_name = "SERIES")]
        vm: Vec<String>,
    },
    /// Try every attack at full length, and publish docs/attacks.md.
    Attack {
        /// Only rows of tests whose name contains this; nothing is published then.
        #[arg(long)]
        only: Option<String>,
    },
    /// Ask the daemon all that the SPIFFE standards demand, and publish docs/conformance.md.
    Conformance,
    /// Kill the daemon under load for long, and count what was lost and what was seen on the wire.
    Survive {
        /// How often.
        #[arg(long, default_value_t = 2000)]
        kills: u64,
    },
    /// Measure Tacit, plain TCP and other relays; write `docs/benchmarks.md`.
    Bench {
        /// Options of the benchmarks, such as `--quick`, `--only bulk` or `--help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Run a command on Debian's newest kernel of a series, in an emulated guest.
    Guest {
        /// Such as 6.1.
        series: String,
        /// What to run, as a shell takes it.
        command: String,
    },
    /// Two nodes, a daemon on each, unmodified programs: see Tacit work.
    Demo,
    /// Install what building, testing and showing Tacit needs.
    Provision,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().verb {
        Verb::Build { release } => build::run(release),
        Verb::Check { fast } => check::run(fast),
        Verb::Tidy => tidy::run(),
        Verb::Attack { only } => attack::run(only.as_deref()),
        Verb::Conformance => conformance::run(),
        Verb::Survive { kills } => test::survive(kills),
        Verb::Bench { options } => bench::run(&options),
        Verb::Test { tiers, only, vm } if vm.is_empty() => test::run(&tiers, only.as_deref()),
        Verb::Test { tiers, only, vm } => vm::run(&vm, &tiers, only.as_deref()),
        Verb::Guest { series, command } => vm::command(&series, &command),
        Verb::Demo => demo::run(),
        Verb::Provision => provision::everything(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("FAIL: {error:#}");
            ExitCode::FAILURE
        }
    }
}
