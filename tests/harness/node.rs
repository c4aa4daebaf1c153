//! One node: a network namespace, a cgroup subtree, and the daemon as a process in both.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};

use crate::audit_log::AuditLog;
use crate::capture::{Capture, Load};
use crate::config::{Place, Rules};
use crate::pod::{Group, Pod};
use crate::process::{Finished, end, finish, must_run, pid, start, tacit, tail};
use crate::wait::{soon, stretched_seconds};
use crate::{ca, cgroup};

/// How long a daemon may take until it is ready. It compiles nothing and waits for nobody.
pub(crate) const READY: Duration = Duration::from_secs(30);

/// A node with a daemon.
#[derive(Debug)]
pub struct Node {
    pub(crate) name: String,
    pub(crate) netns: String,
    /// Below the cgroup2 mount, with a leading slash.
    cgroup: String,
    pub(crate) cgroup_dir: PathBuf,
    instance: String,
    dir: PathBuf,
    /// Its IPv4 address on the wire.
    pub ip: &'static str,
    /// Its IPv6 address on the wire.
    pub ip6: &'static str,
    pub(crate) daemon: Mutex<Option<Child>>,
    /// Daemons that others have taken the place of.
    pub(crate) replaced: Mutex<Vec<Child>>,
}

impl Node {
    /// Makes the places; the daemon does not run yet.
    pub(crate) fn new(lab: &str, side: usize, lab_dir: &Path) -> Result<Self> {
        let letter = ["a", "b"].get(side).copied().unwrap_or("x");
        let (ip, ip6) = [("10.77.0.1", "fd00:77::1"), ("10.77.0.2", "fd00:77::2")]
            .get(side)
            .copied()
            .context("a lab has two nodes")?;
        let group = format!("/{lab}/{letter}");
        let node = Self {
            name: format!("node-{letter}"),
            netns: format!("{lab}-{letter}"),
            cgroup_dir: cgroup::mount()?.join(group.trim_start_matches('/')),
            cgroup: group,
            instance: format!("{lab}-{letter}"),
            dir: lab_dir.join(letter),
            ip,
            ip6,
            daemon: Mutex::new(None),
            replaced: Mutex::default(),
        };
        for folder in ["state", "run", "pods"] {
            fs::create_dir_all(node.dir.join(folder))?;
        }
        // Programs of any user leave their logs and sockets here.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(node.dir.join("pods"), open)?;
        must_run("ip", &["netns", "add", &node.netns])?;
        for folder in ["daemon", "strict", "permissive", "observe", "outside"] {
            cgroup::make(&node.cgroup_dir.join(folder))?;
        }
        must_run("ip", &["-n", &node.netns, "link", "set", "lo", "up"])?;
        Ok(node)
    }

    /// Gives the node its intermediate and its configuration.
    pub(crate) fn provision(&self, root: &Path, rules: &Rules) -> Result<()> {
        ca::issue_node(root, &self.name, &self.dir.join("state"))?;
        self.configure(rules)
    }

    /// Writes the configuration; a running daemon takes it up by itself.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn configure(&self, rules: &Rules) -> Result<()> {
        let place = Place {
            name: &self.name,
            dir: &self.dir,
            cgroup: &self.cgroup,
            instance: &self.instance,
        };
        // In one step, as an editor or a configuration tool does it.
        let new = self.dir.join("config.toml.new");
        fs::write(&new, rules.file(&place))?;
        fs::rename(new, self.config()).context("cannot write the configuration")
    }

    /// Starts the daemon and waits until it is ready.
    ///
    /// # Errors
    /// When it is not ready in time; the error shows what it said.
    pub fn start(&self) -> Result<()> {
        self.start_until((&tacit()?, ""), "a ready daemon", || self.is_ready())
    }

    /// Starts a daemon that will not be ready, and waits until it answers.
    ///
    /// # Errors
    /// When it does not answer in time; the error shows what it said.
    pub fn start_unready(&self) -> Result<()> {
        let socket = self.socket();
        let answers = || {
            let asked = self.tacit(&["status", "--socket", &socket.to_string_lossy()]);
            asked.is_ok_and(|said| said.stdout.contains("NOT ready"))
        };
        self.start_until((&tacit()?, ""), "an answering daemon", answers)
    }

    /// Starts a daemon and waits until it answers, ready or not.
    ///
    /// # Errors
    /// When it does not answer in time; the error shows what it said.
    pub fn start_answering(&self) -> Result<()> {
        let socket = self.socket();
        let answers = || {
            let asked = self.tacit(&["status", "--socket", &socket.to_string_lossy()]);
            asked.is_ok_and(|said| said.stdout.contains("ready"))
        };
        self.start_until((&tacit()?, ""), "an answering daemon", answers)
    }

    pub(crate) fn start_until(
        &self,
        (daemon, switched_off): (&Path, &str),
        what: &str,
        is_up: impl Fn() -> bool,
    ) -> Result<()> {
        let mut command = self.run(daemon, &[]);
        if !switched_off.is_empty() {
            command.env("TACIT_SWITCHED_OFF", switched_off);
        }
        let mut child = start(&mut command, &self.log())?;
        let ready = || {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return Some(false);
            }
            is_up().then_some(true)
        };
        let up = matches!(soon(READY, what, ready), Ok(true));
        *self.daemon.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        if !up {
            bail!(
                "{what} was waited for in vain at {}; it said:\n{}",
                self.name,
                tail(&self.log(), 60)
            );
        }
        Ok(())
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.in_netns("curl", &["-sf", "-m", &stretched_seconds(2), "http://127.0.0.1:9464/ready"])
            .is_ok_and(|answer| answer.status.success())
    }

    /// Runs a program in the node's namespace, in no cgroup of the node: what the host sees.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn in_netns(&self, program: &str, arguments: &[&str]) -> Result<Finished> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns)).arg("--").arg(program);
        finish(command.args(arguments))
    }

    /// Asks the daemon a question by its command line; must succeed.
    ///
    /// # Errors
    /// When it does not.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(tacit()?);
        command.args(arguments).arg("--socket").arg(self.socket());
        Ok(finish(&mut command)?.ok()?.to_owned())
    }

    /// Runs the daemon's program with these words, whatever comes of it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn tacit(&self, arguments: &[&str]) -> Result<Finished> {
        finish(Command::new(tacit()?).args(arguments))
    }

    /// The cgroup of a scope, as a directory.
    pub fn group(&self, group: Group) -> PathBuf {
        self.cgroup_dir.join(group.folder())
    }

    /// The daemon's control socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("run/admin.sock")
    }

    /// The socket of the Workload API.
    pub fn workload_api(&self) -> PathBuf {
        self.dir.join("run/public/api.sock")
    }

    /// A place to run programs of a user.
    pub fn pod(&self, group: Group, uid: u32) -> Pod {
        Pod::new(&self.netns, self.cgroup_dir.join(group.folder()), self.dir.join("pods"), uid)
    }

    /// A place of its own for one program, in no scope: its cgroup holds nothing else.
    ///
    /// # Errors
    /// When the cgroup cannot be made.
    pub fn corner(&self, name: &str, uid: u32) -> Result<Pod> {
        let cgroup = self.cgroup_dir.join(name);
        cgroup::make(&cgroup)?;
        Ok(Pod::new(&self.netns, cgroup, self.dir.join("pods"), uid))
    }

    /// The daemon's own place, for a program that stands in for it.
    pub fn daemon_pod(&self) -> Pod {
        Pod::new(&self.netns, self.cgroup_dir.join("daemon"), self.dir.join("pods"), 0)
    }

    /// Where this node's programs and maps are pinned.
    pub fn pins(&self) -> PathBuf {
        Path::new("/sys/fs/bpf/tacit").join(&self.instance)
    }

    /// Starts capturing what crosses this end of the wire.
    ///
    /// # Errors
    /// When tcpdump cannot capture.
    pub fn capture(&self, name: &str) -> Result<Capture> {
        Capture::start(&self.netns, self.pcap(name), Load::Light)
    }

    /// The same, for megabytes at a time.
    ///
    /// # Errors
    /// When tcpdump cannot capture.
    pub fn capture_bulk(&self, name: &str) -> Result<Capture> {
        Capture::start(&self.netns, self.pcap(name), Load::Bulk)
    }

    /// Files of their own: what an earlier tcpdump said must not speak for a later one.
    fn pcap(&self, name: &str) -> PathBuf {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{name}-{number}.pcap"))
    }

    /// The audit log.
    pub fn audit(&self) -> AuditLog {
        AuditLog::new(&self.dir.join("audit.jsonl"))
    }

    /// Kills the daemon as a crash would.
    ///
    /// # Errors
    /// When it was not running.
    pub fn crash(&self) -> Result<()> {
        let mut daemon = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        let child = daemon.as_mut().context("no daemon to kill")?;
        end(child, Signal::SIGKILL, Duration::from_secs(5));
        *daemon = None;
        Ok(())
    }

    /// Asks the daemon to stop and waits for it.
    pub fn stop(&self) {
        let mut daemon = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = daemon.as_mut() {
            // A stopped process does not heed SIGTERM.
            let _resumed = kill(pid(child), Signal::SIGCONT).is_ok();
            end(child, Signal::SIGTERM, Duration::from_secs(10));
        }
        *daemon = None;
    }

    /// Asks the daemon to stop and does not wait for it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// Whether the daemon that was started has ended by itself.
    pub fn has_ended(&self) -> bool {
        let mut daemon = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        daemon.as_mut().is_none_or(|child| matches!(child.try_wait(), Ok(Some(_))))
    }

    /// Holds the daemon still: what happens now, it sees only later.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets the daemon go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let daemon = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        kill(pid(daemon.as_ref().context("no daemon")?), signal).context("cannot signal the daemon")
    }

    /// The pid of the daemon.
    ///
    /// # Errors
    /// When it does not run.
    pub fn daemon_pid(&self) -> Result<u32> {
        let daemon = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        daemon.as_ref().map(Child::id).context("no daemon")
    }

    /// What the daemon has logged.
    pub fn logged(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// The daemon's instance.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The node's own directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of the node's cgroup below the cgroup2 mount.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// The state directory, where the node's authority lives.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.join("config.toml")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("daemon.log")
    }

    /// What a failure report shows.
    pub(crate) fn report(&self) -> String {
        format!(
            "-- {} said:\n{}\n-- {} recorded:\n{}",
            self.name,
            tail(&self.log(), 40),
            self.name,
            self.audit().shown()
        )
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
        self.crash_draining();
        remove(&self.netns, &self.cgroup_dir, &self.pins());
    }
}

/// Removes what a node left in the kernel; each step goes on whatever became of the others.
pub(crate) fn remove(netns: &str, cgroup_dir: &Path, pins: &Path) {
    cgroup::remove(cgroup_dir);
    if pins.exists() {
        let _unpinned = fs::remove_dir_all(pins).is_ok();
    }
    let _deleted = must_run("ip", &["netns", "del", netns]).is_ok();
}
