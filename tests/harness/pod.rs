//! Unmodified programs on a node: in its network namespace, in a cgroup of one of its scopes,
//! under a user of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::process::{Finished, end, finish, must, start, tail, text};
use crate::wait::soon;

/// Users that programs run as. They need not exist in the user database.
pub mod uid {
    /// Has the identity `client`.
    pub const CLIENT: u32 = 21_001;
    /// Has the identity `server`.
    pub const SERVER: u32 = 21_002;
    /// Has the identity `other`, which no inbound rule allows.
    pub const OTHER: u32 = 21_003;
    /// Has no identity.
    pub const STRANGER: u32 = 21_004;
}

/// Which scope a program is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// mTLS or nothing.
    Strict,
    /// mTLS where a rule says so.
    Permissive,
    /// Recorded, never touched.
    Observe,
    /// In no scope.
    Outside,
}

impl Group {
    /// The name of its cgroup below the node's.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Permissive => "permissive",
            Self::Observe => "observe",
            Self::Outside => "outside",
        }
    }
}

/// A place to run programs.
#[derive(Debug, Clone)]
pub struct Pod {
    netns: String,
    cgroup: PathBuf,
    dir: PathBuf,
    uid: u32,
}

/// A program that listens. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Pod {
    pub(crate) fn new(netns: &str, cgroup: PathBuf, dir: PathBuf, uid: u32) -> Self {
        Self { netns: netns.to_owned(), cgroup, dir, uid }
    }

    /// Its cgroup, as a directory.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// A new directory that the programs of this pod own.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(format!("{}-{name}", self.uid));
        fs::create_dir_all(&path)?;
        std::os::unix::fs::chown(&path, Some(self.uid), Some(self.uid))?;
        Ok(path)
    }

    /// A command that will run in this pod. Nothing but `exec` lies between it and the program,
    /// so its pid is the program's.
    pub fn command(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns));
        // The shell writes its own pid (0 means the writer) and becomes the program.
        command.args(["--", "sh", "-c", "echo 0 >\"$1\" && shift && exec \"$@\"", "sh"]);
        command.arg(self.cgroup.join("cgroup.procs"));
        command.args(["setpriv", "--clear-groups"]);
        command.args([
            format!("--reuid={}", self.uid),
            format!("--regid={}", self.uid),
            "--".to_owned(),
        ]);
        command.arg(program.as_ref()).args(arguments);
        command.env("HOME", &self.dir).current_dir("/");
        command
    }

    /// Runs a program to its end.
    ///
    /// # Errors
    /// When it cannot be started; how it ended is in the answer.
    pub fn run(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Result<Finished> {
        finish(&mut self.command(program, arguments))
    }

    /// Runs a program that must end well; gives what it printed.
    ///
    /// # Errors
    /// When it does not.
    pub fn must(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Result<String> {
        must(&mut self.command(program, arguments))
    }

    /// Starts a program and leaves it running.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Result<Server> {
        static STARTED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = STARTED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = program.as_ref().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = self.dir.join(format!("{name}-{number}.log"));
        let child = start(&mut self.command(program, arguments), &log)?;
        Ok(Server { child, log })
    }

    /// Starts a program and waits until it listens on this TCP port.
    ///
    /// # Errors
    /// When it does not; the error shows what it said.
    pub fn serve(
        &self,
        program: impl AsRef<Path>,
        arguments: &[&str],
        port: u16,
    ) -> Result<Server> {
        let mut server = self.spawn(program, arguments)?;
        let listening = || {
            if matches!(server.child.try_wait(), Ok(Some(_))) {
                return Some(false);
            }
            self.listens(port).then_some(true)
        };
        let up = soon(Duration::from_mins(1), "a listener", listening);
        if !matches!(up, Ok(true)) {
            anyhow::bail!("nothing listens on port {port}; the server said:\n{}", server.said());
        }
        Ok(server)
    }

    /// Whether anything in this namespace listens on the port.
    pub fn listens(&self, port: u16) -> bool {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns));
        command.args(["ss", "-Hltn", &format!("sport = :{port}")]);
        finish(&mut command).is_ok_and(|said| !said.stdout.trim().is_empty())
    }
}

impl Server {
    /// What it has said so far.
    pub fn said(&self) -> String {
        tail(&self.log, 200)
    }

    /// All that it has said so far, however much.
    pub fn all_said(&self) -> String {
        fs::read(&self.log).map(|bytes| text(&bytes)).unwrap_or_default()
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has said something.
    ///
    /// # Errors
    /// When it never does.
    pub fn says(&self, what: &str) -> Result<String> {
        crate::wait::eventually(what, || Some(self.said()).filter(|said| said.contains(what)))
            .with_context(|| format!("it said:\n{}", self.said()))
    }

    /// The value behind `name=` in the last line that has one.
    ///
    /// # Errors
    /// When it never says so.
    pub fn value(&self, name: &str) -> Result<String> {
        let key = format!("{name}=");
        let said = self.says(&key)?;
        value(&said, name).with_context(|| format!("no {key} in:\n{said}"))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end.
    pub fn wait(&mut self) -> Result<std::process::ExitStatus> {
        let log = self.log.clone();
        let gone = || self.child.try_wait().ok().flatten();
        soon(Duration::from_mins(1), "the end of a program", gone)
            .with_context(|| format!("it said:\n{}", tail(&log, 50)))
    }

    /// Asks it to end, waits, and gives all that it said.
    ///
    /// # Errors
    /// When it does not end.
    pub fn finish(&mut self) -> Result<String> {
        end(&mut self.child, Signal::SIGTERM, Duration::from_mins(1));
        Ok(self.all_said())
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        end(&mut self.child, Signal::SIGKILL, Duration::from_secs(5));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child, Signal::SIGTERM, Duration::from_secs(3));
    }
}

/// The value behind `name=` in the last line that has one.
pub fn value(said: &str, name: &str) -> Option<String> {
    let key = format!("{name}=");
    let mut words = said.split_whitespace().rev();
    words.find_map(|word| word.strip_prefix(&key)).map(str::to_owned)
}
