#![expect(unsafe_code, reason = "what a child does to itself before it becomes the program")]
//! Runs a program for somebody else: as that user, with nothing of ours. It has no network and no way
//! to more rights, stands in a cgroup of its own, and whatever it has started ends with it.
//!
//! No network, because its cgroup lies in no scope: a program that is kept to mutual TLS must not get
//! out by having its own command say things for it.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};
use thiserror::Error;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr, Command};

use crate::workload::Owner;

/// Where programs are looked for by the one that is run, and all that it finds in its environment.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Open files of a program: the usual limit, not the daemon's.
const OPEN_FILES: u64 = 1024;
/// So much of what it says on standard error is told when it fails.
const SAID_BYTES: usize = 512;
/// How long its last words are waited for, which others may hold the pipe of.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Why a command did not do its work.
#[derive(Debug, Error)]
pub enum CommandError {
    /// It could not be started.
    #[error("cannot be run: {0}")]
    Start(#[from] io::Error),
    /// It was ended.
    #[error("ran for longer than {0:?} and was killed")]
    TimedOut(Duration),
    /// It said that it failed.
    #[error("failed ({status}){}{said}", if said.is_empty() { "" } else { ": " })]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// What it said on standard error: one line.
        said: String,
    },
}

/// A cgroup for one command at a time.
#[derive(Debug, Clone)]
pub struct CommandCgroup(PathBuf);

/// A command that runs. However this is dropped, all of it ends.
struct Running<'a> {
    cgroup: &'a CommandCgroup,
    child: Child,
}

impl CommandCgroup {
    /// The cgroup in this directory, which need not be there yet.
    pub fn at(directory: PathBuf) -> Self {
        Self(directory)
    }

    fn procs(&self) -> io::Result<File> {
        fs::create_dir_all(&self.0)?;
        OpenOptions::new().write(true).open(self.0.join("cgroup.procs"))
    }

    /// Ends everything in it, and in those below it. `cgroup.kill` is Linux 5.14; before it, what forks meanwhile or
    /// is below may escape.
    pub fn kill(&self) {
        if fs::write(self.0.join("cgroup.kill"), "1").is_ok() {
            return;
        }
        let pids = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0) {
            // Already gone is as good.
            let _sent = kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok();
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.cgroup.kill();
    }
}

/// Runs a program as this owner, for so long at most. Only its group comes with it, no others.
///
/// # Errors
/// See [`CommandError`].
///
/// # Cancel safety
/// When it is dropped, the program and all that it has started are killed.
pub async fn run(
    argv: &[String],
    owner: Owner,
    cgroup: &CommandCgroup,
    timeout: Duration,
) -> Result<(), CommandError> {
    let mut running = Running { cgroup, child: start(argv, owner, cgroup)? };
    let mut said = pin!(last_words(running.child.stderr.take()));
    let mut heard = None;
    let ended = async {
        loop {
            tokio::select! {
                status = running.child.wait() => return status,
                text = &mut said, if heard.is_none() => heard = Some(text),
            }
        }
    };
    let status = match tokio::time::timeout(timeout, ended).await {
        Ok(status) => status?,
        Err(_elapsed) => return Err(CommandError::TimedOut(timeout)),
    };
    if status.success() {
        return Ok(());
    }
    let said = match heard {
        Some(text) => text,
        // What it has started may hold the pipe on.
        None => tokio::time::timeout(LAST_WORDS, said).await.unwrap_or_default(),
    };
    Err(CommandError::Failed { status, said })
}

fn start(argv: &[String], owner: Owner, cgroup: &CommandCgroup) -> io::Result<Child> {
    let (program, arguments) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut procs = cgroup.procs()?;
    let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
    let mut command = Command::new(OsStr::new(program));
    command.args(arguments).env_clear().env("PATH", PATH).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let become_theirs = move || {
        // 0 means the writer. Rights go last: the steps before need them.
        procs.write_all(b"0")?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        close_the_rest();
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES.min(hard), hard)?;
        setgroups(&[gid])?;
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)?;
        prctl::set_no_new_privs()?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls only, on what was opened before;
    // it allocates nothing and takes no lock.
    unsafe { command.pre_exec(become_theirs) };
    command.spawn()
}

/// Has descriptors that somebody handed to the daemon without care end at exec; those of the daemon
/// itself do so anyway. A kernel that cannot (Linux 5.11) leaves them.
fn close_the_rest() {
    // SAFETY: takes three integers and touches no memory.
    let _done = unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
}

/// The first line of what a program says, made harmless. Reads on to the end, so that the program is
/// not held up.
async fn last_words(pipe: Option<ChildStderr>) -> String {
    let Some(mut pipe) = pipe else { return String::new() };
    let (mut start, mut some) = (Vec::new(), [0; 512]);
    while let Ok(count @ 1..) = pipe.read(&mut some).await {
        let room = SAID_BYTES.saturating_sub(start.len());
        start.extend_from_slice(some.get(..count.min(room)).unwrap_or_default());
    }
    let text = String::from_utf8_lossy(&start);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.chars().filter(|char| !char.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::sys::cgroup::Cgroups;

    /// A cgroup of its own, gone after the test.
    struct Place(CommandCgroup);

    impl Place {
        fn new(name: &str) -> Self {
            assert!(nix::unistd::geteuid().is_root(), "needs root: run it by `cargo xtask test`");
            let mount = Cgroups::find().unwrap().mount().to_owned();
            let path = mount.join(format!("tacit-command-{name}-{}", std::process::id()));
            Self(CommandCgroup::at(path))
        }

        async fn run(&self, script: &str, timeout: Duration) -> Result<(), CommandError> {
            let argv = ["/bin/sh", "-c", script].map(str::to_owned);
            run(&argv, Owner { uid: 21_002, gid: 21_005 }, &self.0, timeout).await
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            self.0.kill();
            let gone = || fs::remove_dir(&self.0.0).is_ok();
            let until = Instant::now() + Duration::from_secs(5);
            while !gone() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    #[tokio::test]
    async fn privileged_a_command_has_nothing_of_ours() {
        let place = Place::new("bare");
        // Whatever is not as it should be is said on standard error, and fails.
        let script = "
            check() { [ \"$2\" = \"$3\" ] || { echo \"$1: $2 instead of $3\" >&2; exit 1; }; }
            check user \"$(id -u):$(id -g):$(id -G)\" 21002:21005:21005
            check new_privs \"$(grep NoNewPrivs /proc/self/status)\" \"NoNewPrivs:\t1\"
            check rights \"$(grep -c -E '^Cap(Prm|Eff|Amb):.0000000000000000$' /proc/self/status)\" 3
            check interfaces \"$(tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ')\" lo
            check variables \"$(env | cut -d= -f1 | sort | xargs)\" 'PATH PWD'
            : 3 is where this shell reads what ls says
            check descriptors \"$(ls /proc/$$/fd | xargs)\" '0 1 2 3'
            check files \"$(ulimit -n)\" 1024
            check cgroup \"$(grep -c tacit-command-bare /proc/self/cgroup)\" 1";
        place.run(script, Duration::from_secs(20)).await.unwrap();
    }

    #[tokio::test]
    async fn privileged_a_command_that_hangs_is_killed_with_all_that_it_started() {
        let place = Place::new("hangs");
        let script = "setsid sleep 61 & sleep 62";
        let error = place.run(script, Duration::from_millis(500)).await.unwrap_err();
        assert!(matches!(error, CommandError::TimedOut(_)), "{error}");
        let procs = place.0.0.join("cgroup.procs");
        let until = Instant::now() + Duration::from_secs(5);
        while !fs::read_to_string(&procs).unwrap().is_empty() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(fs::read_to_string(&procs).unwrap(), "");
    }

    #[tokio::test]
    async fn privileged_a_command_that_fails_says_why_in_one_line() {
        let place = Place::new("fails");
        let script =
            "echo >&2; printf 'no \\033[31mway\\nmore\\n' >&2; yes | head -c 1000000 >&2; exit 3";
        let error = place.run(script, Duration::from_secs(20)).await.unwrap_err();
        assert_eq!(error.to_string(), "failed (exit status: 3): no [31mway");
        let error = place.run("exec /nowhere", Duration::from_secs(20)).await.unwrap_err();
        assert!(error.to_string().contains("127"), "{error}");
    }
}
