//! From the command line to an exit code.

use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};
use serde::Serialize;

use super::args::{
    Check, Cli, Command, ConfigFile, Connections, Doctor, Explain, Listing, Output, Run, Uninstall,
};
use super::fault::{Exit, Fault};
use super::{audit, bundle, ca, client, deny, entries, output, show};
use crate::admin::dump::{
    DoctorDump, ExplainDump, ReloadDump, ScopeDump, StatusDump, SvidDump, Verdict,
};
use crate::audit::Record;
use crate::config::{self, Config, Given, Installation};

/// How often `--watch` looks.
const WATCH: Duration = Duration::from_secs(1);

/// What the commands need of the rest of the program.
#[derive(Debug, Clone, Copy)]
pub struct Program<E> {
    /// Runs the daemon until it is told to stop, in place of the one that runs if that is wanted.
    /// The path is that of the configuration file.
    pub run: fn(Config, PathBuf, bool) -> Result<(), E>,
    /// Checks what can be checked while no daemon runs. The path is that of the configuration file.
    pub doctor: fn(&Path) -> DoctorDump,
    /// Removes what an instance has left in the kernel; says whether there was anything.
    pub uninstall: fn(&Installation) -> Result<bool, E>,
}

/// Does what the command line says; its first word is the program's name.
pub fn main<E, A>(args: A, program: &Program<E>) -> ExitCode
where
    E: Error,
    A: IntoIterator<Item = OsString>,
{
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(usage) => {
            // Help and version go to standard output, and are no error.
            let told = usage.print().is_ok();
            let exit = if usage.use_stderr() || !told { Exit::Usage } else { Exit::Success };
            return exit.into();
        }
    };
    match &cli.command {
        Command::Run(Run { file, replace }) => {
            let run = |config| (program.run)(config, file.config.clone(), *replace);
            return with_config(file, run).into();
        }
        Command::Uninstall(asked) => return uninstall(asked, program.uninstall).into(),
        _ => {}
    }
    let done = obey(cli.command, program.doctor);
    done.unwrap_or_else(|fault| {
        let exit = fault.exit();
        if exit != Exit::Success {
            complain(&fault);
        }
        exit
    })
    .into()
}

/// Does something that needs the whole configuration.
fn with_config<E: Error>(file: &ConfigFile, act: impl FnOnce(Config) -> Result<(), E>) -> Exit {
    let config = match config::load(&file.config) {
        Ok(config) => config,
        Err(problems) => {
            let fault = Fault::Config(problems);
            complain(&fault);
            return fault.exit();
        }
    };
    match act(config) {
        Ok(()) => Exit::Success,
        Err(error) => {
            complain(&error);
            Exit::Failure
        }
    }
}

/// Needs of the configuration no more than where the programs are.
fn uninstall<E: Error>(asked: &Uninstall, remove: fn(&Installation) -> Result<bool, E>) -> Exit {
    let given = Given { bpffs: asked.bpffs.clone(), instance: asked.instance.clone() };
    let at = match Installation::read(&asked.file.config, given) {
        Ok(at) => at,
        Err(problems) => {
            let fault = Fault::Config(problems);
            complain(&fault);
            return fault.exit();
        }
    };
    match remove(&at) {
        Ok(was_there) => {
            let what = if was_there { "Removed" } else { "There was nothing of" };
            let (instance, bpffs) = (&at.capture.instance, at.capture.bpffs.display());
            let told = output::text(&format!("{what} instance {instance} in {bpffs}.\n"));
            if told.is_ok() { Exit::Success } else { Exit::Failure }
        }
        Err(error) => {
            complain(&error);
            Exit::Failure
        }
    }
}

/// An error and its causes, one line each.
fn complain(error: &dyn Error) {
    output::complain(&format!("tacit: {error}"));
    let mut cause = error.source();
    while let Some(error) = cause {
        output::complain(&format!("  because: {error}"));
        cause = error.source();
    }
}

fn obey(command: Command, doctor: fn(&Path) -> DoctorDump) -> Result<Exit, Fault> {
    match command {
        // Done before.
        Command::Run(_) | Command::Uninstall(_) => Ok(Exit::Success),
        Command::Check(asked) => check(&asked),
        Command::Status(asked) => status(&asked),
        Command::Connections(asked) => connections(&asked),
        Command::Scopes(asked) => {
            list(&asked, "/v1/scopes", |it: &Vec<ScopeDump>| show::scopes(it))
        }
        Command::Entries(asked) => entries::obey(asked),
        Command::Svid(asked) => list(&asked, "/v1/svids", |it: &Vec<SvidDump>| show::svids(it)),
        Command::Bundle(asked) => bundle::obey(asked),
        Command::Explain(Explain { target, listing }) => {
            let path = format!("/v1/explain?target={}", client::quoted(&target.to_string()));
            list(&listing, &path, |it: &ExplainDump| show::explanation(it))
        }
        Command::Doctor(asked) => examine(&asked, doctor),
        Command::Reload(asked) => reload(&asked),
        Command::Ca(order) => ca::obey(order),
        Command::Deny(order) => deny::obey(order),
        Command::Audit(order) => audit::obey(order),
        Command::Completions { shell } => completions(shell),
    }
}

/// Shows a value in the way that was asked for.
pub(super) fn present<T: Serialize>(
    how: Output,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<(), Fault> {
    match how {
        Output::Json => output::json(value)?,
        Output::Table => output::text(&table(value))?,
    }
    Ok(())
}

fn list<T>(asked: &Listing, path: &str, table: fn(&T) -> String) -> Result<Exit, Fault>
where
    T: Serialize + serde::de::DeserializeOwned,
{
    let value: T = client::get(&asked.socket, path)?;
    present(asked.format.output, &value, table)?;
    Ok(Exit::Success)
}

fn status(asked: &Listing) -> Result<Exit, Fault> {
    let status: StatusDump = client::get(&asked.socket, "/v1/status")?;
    present(asked.format.output, &status, show::status)?;
    Ok(if status.ready { Exit::Success } else { Exit::Failure })
}

fn connections(asked: &Connections) -> Result<Exit, Fault> {
    loop {
        let listing = &asked.listing;
        let open: Vec<Record> = client::get(&listing.socket, "/v1/connections")?;
        if asked.watch && listing.format.output == Output::Table {
            output::clear()?;
        }
        present(listing.format.output, &open, |open| show::connections(open))?;
        if !asked.watch {
            return Ok(Exit::Success);
        }
        std::thread::sleep(WATCH);
    }
}

/// Asks the daemon; without one, looks for itself: that is how to see that nothing was left.
fn examine(asked: &Doctor, doctor: fn(&Path) -> DoctorDump) -> Result<Exit, Fault> {
    let Doctor { listing, config } = asked;
    let found = match client::get(&listing.socket, "/v1/doctor") {
        // Whoever may not ask the daemon may not look for himself either, and is told what of.
        Err(Fault::Unreachable { .. }) => doctor(config),
        found => found?,
    };
    present(listing.format.output, &found, show::examination)?;
    let failed = found.checks.iter().any(|check| check.verdict == Verdict::Failed);
    Ok(if failed { Exit::Failure } else { Exit::Success })
}

fn reload(asked: &Listing) -> Result<Exit, Fault> {
    let done: ReloadDump = client::post(&asked.socket, "/v1/reload")?;
    present(asked.format.output, &done, show::reload)?;
    Ok(if done.problems.is_empty() { Exit::Success } else { Exit::ConfigInvalid })
}

fn check(asked: &Check) -> Result<Exit, Fault> {
    let report = config::check(&asked.file.config);
    let seen = show::CheckDump::new(Path::new(&asked.file.config), &report);
    present(asked.format.output, &seen, show::check)?;
    Ok(if report.problems.is_empty() { Exit::Success } else { Exit::ConfigInvalid })
}

fn completions(shell: clap_complete::Shell) -> Result<Exit, Fault> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tacit", &mut script);
    output::text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}
