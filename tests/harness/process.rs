//! Processes that a test starts: run to the end with what they said, or ended by their pid.

use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::soon;

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// What it printed, provided that it ended well.
    ///
    /// # Errors
    /// When it did not; the error holds what it said.
    pub fn ok(&self) -> Result<&str> {
        if !self.status.success() {
            bail!("{}\nstdout: {}\nstderr: {}", self.status, self.stdout, self.stderr);
        }
        Ok(&self.stdout)
    }

    /// Whether it ended with a failure.
    pub fn failed(&self) -> bool {
        !self.status.success()
    }
}

/// The daemon's binary, which the task runner names in `TACIT_BIN`.
///
/// # Errors
/// When it does not.
pub fn tacit() -> Result<PathBuf> {
    named_or_beside("TACIT_BIN", "tacit")
}

/// The test build of the daemon whose countermeasures can be switched off one by one.
///
/// # Errors
/// When the task runner does not name it in `TACIT_TEST_SWITCHED`.
pub(crate) fn switched() -> Result<PathBuf> {
    named_or_beside("TACIT_TEST_SWITCHED", "tacit-switched")
}

/// The probe, built with the tests.
///
/// # Errors
/// When it cannot be found.
pub fn probe() -> Result<PathBuf> {
    named_or_beside("TACIT_TEST_PROBE", "probe")
}

/// The conformance suite, built with the tests.
///
/// # Errors
/// When it cannot be found.
pub fn conformance() -> Result<PathBuf> {
    named_or_beside("TACIT_TEST_CONFORMANCE", "conformance")
}

/// The recorder, built with the tests.
///
/// # Errors
/// When it cannot be found.
pub fn recorder() -> Result<PathBuf> {
    named_or_beside("TACIT_TEST_RECORDER", "recorder")
}

/// The load of the benchmarks, built with them.
///
/// # Errors
/// When it cannot be found.
pub fn load() -> Result<PathBuf> {
    named_or_beside("TACIT_BENCH_LOAD", "load")
}

#[expect(clippy::disallowed_methods, reason = "tests are told by their runner where binaries are")]
fn named_or_beside(variable: &str, name: &str) -> Result<PathBuf> {
    if let Ok(path) = env::var(variable) {
        return Ok(path.into());
    }
    // Test binaries lie in target/<profile>/deps, others in target/<profile>.
    let own = env::current_exe()?;
    own.ancestors()
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .with_context(|| format!("no `{name}` beside the tests; run them with `cargo xtask test`"))
}

/// Longer than any program of a test runs; one that hangs is a failure, not a halt.
const PATIENCE: Duration = Duration::from_mins(3);

/// Runs a command to its end and takes what it says.
///
/// # Errors
/// When it cannot be started, or does not end.
pub(crate) fn finish(command: &mut Command) -> Result<Finished> {
    let name = command.get_program().display().to_string();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let (stdout, stderr) = (gather(child.stdout.take()), gather(child.stderr.take()));
    let status = soon(PATIENCE, "the end of a program", || child.try_wait().ok().flatten());
    if status.is_err() {
        end(&mut child, Signal::SIGKILL, Duration::from_secs(1));
    }
    let read =
        |thread: JoinHandle<Vec<u8>>| thread.join().map(|bytes| text(&bytes)).unwrap_or_default();
    let (stdout, stderr) = (read(stdout), read(stderr));
    match status {
        Ok(status) => Ok(Finished { status, stdout, stderr }),
        Err(_) => bail!("{command:?} did not end\nstdout: {stdout}\nstderr: {stderr}"),
    }
}

/// Reads a pipe to its end beside everything else, so that nobody waits on a full one.
fn gather(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // A pipe that breaks has said all that it will.
            let _read = pipe.read_to_end(&mut bytes).is_ok();
        }
        bytes
    })
}

/// Runs a command that must end well; gives its standard output.
///
/// # Errors
/// When it does not.
pub(crate) fn must(command: &mut Command) -> Result<String> {
    let finished = finish(command)?;
    let said = finished.ok().with_context(|| format!("{command:?}"))?;
    Ok(said.to_owned())
}

/// Runs a program with arguments that must end well.
pub(crate) fn must_run(program: &str, arguments: &[&str]) -> Result<String> {
    must(Command::new(program).args(arguments))
}

/// Starts a command that writes all it says into a file.
pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Child> {
    let out = File::options().create(true).append(true).open(log)?;
    command
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))
}

/// The pid as the kernel's calls take it.
pub(crate) fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

/// Ends a process: asks it, and after a while makes it.
pub(crate) fn end(child: &mut Child, ask: Signal, patience: Duration) {
    if matches!(child.try_wait(), Ok(Some(_))) {
        return;
    }
    let asked = kill(pid(child), ask).is_ok();
    let gone = || child.try_wait().ok().flatten();
    if !asked || soon(patience, "the end of a process", gone).is_err() {
        // Already gone, or deaf: either way nothing is left to do about an error.
        let _killed = child.kill().is_ok();
        let _reaped = child.wait().is_ok();
    }
}

/// The last lines of a file, for a failure report.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let all = fs::read(path).map(|bytes| text(&bytes)).unwrap_or_default();
    let skip = all.lines().count().saturating_sub(lines);
    all.lines().skip(skip).collect::<Vec<_>>().join("\n")
}

/// Bytes as text, whatever they hold.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
