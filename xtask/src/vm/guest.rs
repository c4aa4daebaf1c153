//! One guest: emulated in software, with the machine's files shared into it, running one script.
//! Never KVM: what it tells must not depend on what kind of machine this is.
//!
//! Its clock counts instructions, one a nanosecond, while it computes, and real time only while it
//! waits. So no deadline in it depends on how fast or how busy this machine is. That takes a single
//! thread, and kernels before 6.5 then wait for ever for a second processor: it has one.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::provision::packages;
use crate::run;

use super::image::{Image, tool};
use super::initramfs;

/// Memory of a guest: databases run in it, and what it writes stays there.
const MEMORY: &str = "3G";
/// The last line that a guest says.
const ENDED: &str = "guest ended with ";
/// How much of the kernel's console a failure shows.
const TAIL: usize = 40;

/// What runs guests, from the distribution's packages.
const NEEDED: [(&str, &str); 6] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("xz", "xz-utils"),
    ("depmod", "kmod"),
    ("/usr/share/seabios/bios-256k.bin", "seabios"),
];
/// Where the program that shares files is, by version of QEMU.
const SHARERS: [&str; 2] = ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"];

/// Installs what is missing.
pub(super) fn ready() -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("guests are known here for x86_64 only");
    }
    let there = |name: &str| Path::new(name).is_file() || run::find(name).is_some();
    let missing: Vec<&str> =
        NEEDED.iter().filter(|(name, _)| !there(name)).map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        packages::install(&missing, "guests for other kernels")?;
    }
    if sharer().is_none() {
        packages::install(&["virtiofsd"], "the machine's files in guests")?;
    }
    Ok(())
}

fn sharer() -> Option<&'static str> {
    SHARERS.into_iter().find(|file| Path::new(file).is_file())
}

/// Runs a script in a guest and hands on each line that it says as it comes.
///
/// # Errors
/// When the guest does not boot, panics or does not end in time; the error shows the last lines of
/// its console. How the script ended is the answer.
pub(super) fn run(
    image: &Image,
    script: &str,
    work: &Path,
    limit: Duration,
    mut hear: impl FnMut(&str),
) -> Result<i32> {
    if work.exists() {
        fs::remove_dir_all(work)?;
    }
    fs::create_dir_all(work)?;
    let archive = initramfs::write(image, script, work)?;
    let console = work.join("console.log");
    let _files = Ending(share(&work.join("files.sock"), &work.join("files.log"))?);
    let mut qemu = Ending(start(image, &archive, work)?);
    let stdout = qemu.0.stdout.take().context("QEMU has no output")?;
    let (say, said) = mpsc::channel();
    let reader = thread::spawn(move || {
        // A reader that has gone away ends this too.
        BufReader::new(stdout)
            .split(b'\n')
            .flatten()
            .take_while(|line| say.send(text(line)).is_ok())
            .count()
    });
    let until = Instant::now() + limit;
    let mut ended = None;
    let why = loop {
        match said.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => match line.strip_prefix(ENDED) {
                Some(status) => ended = status.parse().ok(),
                None => hear(&line),
            },
            Err(RecvTimeoutError::Disconnected) => break "it ended without a word",
            Err(RecvTimeoutError::Timeout) => break "it did not end in time",
        }
    };
    drop(qemu);
    let _read = reader.join().is_ok();
    ended.with_context(|| format!("the guest failed: {why}; its console:\n{}", tail(&console)))
}

/// Shares the machine's files; the guest mounts them read-only.
fn share(socket: &Path, log: &Path) -> Result<Child> {
    let log = fs::File::create(log)?;
    let mut command = politely(Path::new(sharer().context("there is no virtiofsd")?));
    command.arg(format!("--socket-path={}", socket.display()));
    command.args(["-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot"]);
    command.stdout(log.try_clone()?).stderr(log);
    let child = command.spawn().context("cannot start virtiofsd")?;
    let until = Instant::now() + Duration::from_secs(10);
    while !socket.exists() && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
    Ok(child)
}

fn start(image: &Image, archive: &Path, work: &Path) -> Result<Child> {
    let mut command = politely(&tool("qemu-system-x86_64")?);
    command.args(["-machine", "q35", "-cpu", "max", "-smp", "1", "-m", MEMORY]);
    command.args(["-accel", "tcg,thread=single", "-icount", "shift=0"]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.arg("-serial").arg(format!("file:{}", work.join("console.log").display()));
    command.args(["-serial", "stdio"]);
    command.arg("-object").arg(format!("memory-backend-memfd,id=memory,size={MEMORY},share=on"));
    command.args(["-numa", "node,memdev=memory"]);
    let socket = work.join("files.sock");
    command.arg("-chardev").arg(format!("socket,id=files,path={}", socket.display()));
    command.args(["-device", "vhost-user-fs-pci,queue-size=1024,chardev=files,tag=machine"]);
    command.arg("-kernel").arg(&image.kernel).arg("-initrd").arg(archive);
    command.args(["-append", "console=ttyS0 loglevel=5 panic=-1 random.trust_cpu=on"]);
    let errors = fs::File::create(work.join("qemu.log"))?;
    command.stdout(Stdio::piped()).stderr(errors);
    command.spawn().context("cannot start QEMU")
}

/// A command that leaves the processors to everybody else.
fn politely(program: &Path) -> Command {
    let mut command = run::command("nice", &["-n", "15"]);
    command.arg(program).stdin(Stdio::null());
    command
}

/// A process that does not outlive its owner.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _killed = self.0.kill().is_ok();
        let _reaped = self.0.wait().is_ok();
    }
}

fn tail(file: &Path) -> String {
    let all = fs::read(file).map(|bytes| text(&bytes)).unwrap_or_default();
    let skip = all.lines().count().saturating_sub(TAIL);
    all.lines().skip(skip).collect::<Vec<_>>().join("\n")
}

/// A line as a serial line carries it: ends with a carriage return, may hold anything.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\r').to_owned()
}
