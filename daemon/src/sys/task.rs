//! One process, pinned: its `/proc/PID` directory is held open, so that all that is read belongs to
//! one process even if the pid is used again meanwhile. Reads only; judges nothing.
//! Executables are named as the kernel names them (`s_dev`, `i_ino`), which `stat` does not do on
//! overlayfs and btrfs: the inode number comes from `fdinfo`, the device from the mount.
//! `procfs` reads what the files say. The directory is ours and not a `procfs::process::Process`:
//! that one lends no descriptor to open `exe` under without touching the file, nor bytes to be read
//! leniently where a process chooses its own name.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::Mode;
use procfs::process::{Stat, Status};
use procfs::{FromBufRead, FromRead, ProcessCGroups};

use super::{clock, mounts};
use crate::workload::FileId;

/// A process by an open descriptor of its directory in `/proc`.
#[derive(Debug)]
pub struct Task {
    pid: u32,
    dir: OwnedFd,
}

/// When a process started, in `USER_HZ` ticks as the daemon's time namespace counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartTicks(u64);

/// The ids of the thread group leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Effective user id.
    pub uid: u32,
    /// Real user id.
    pub real_uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Real group id.
    pub real_gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

/// The file that a process runs, by a descriptor of it (not of a path).
#[derive(Debug)]
pub struct Executable {
    file: File,
    ino: u64,
    mount: Option<u64>,
}

impl StartTicks {
    /// Converts a start time of the kernel (`start_boottime`).
    pub fn of_ns(start_ns: u64) -> Self {
        let shifted = i128::from(start_ns) + i128::from(clock::namespace_offset_ns());
        let ticks = shifted.max(0) / i128::from(ns_per_tick());
        Self(u64::try_from(ticks).unwrap_or(u64::MAX))
    }

    /// The earliest start time, in nanoseconds since boot, that this may stand for.
    pub fn floor_ns(self) -> u64 {
        let ns = i128::from(self.0) * i128::from(ns_per_tick())
            - i128::from(clock::namespace_offset_ns());
        u64::try_from(ns.max(0)).unwrap_or(u64::MAX)
    }
}

impl Task {
    /// The process that has this pid now; `None` if there is none.
    pub fn open(pid: u32) -> io::Result<Option<Self>> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        match open(format!("/proc/{pid}").as_str(), flags, Mode::empty()) {
            Ok(dir) => Ok(Some(Self { pid, dir })),
            Err(Errno::ENOENT | Errno::ESRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Its pid, as long as it lives.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// When it started; `None` if it has exited, whether or not its parent has noticed.
    pub fn started(&self) -> io::Result<Option<StartTicks>> {
        let Some(line) = self.read("stat")? else {
            return Ok(None);
        };
        start_in(&line)
    }

    /// Its ids; `None` if it has exited.
    pub fn credentials(&self) -> io::Result<Option<Credentials>> {
        let Some(text) = self.read("status")? else {
            return Ok(None);
        };
        ids_in(&text).map(Some)
    }

    /// The path of its cgroup in the cgroup2 hierarchy; `None` if it has exited.
    pub fn cgroup(&self) -> io::Result<Option<String>> {
        let Some(text) = self.read("cgroup")? else {
            return Ok(None);
        };
        let groups = ProcessCGroups::from_buf_read(text.as_slice()).map_err(io::Error::other)?;
        Ok(super::cgroup::membership(groups))
    }

    /// The file that it runs; `None` if it has exited or is a kernel thread.
    pub fn executable(&self) -> io::Result<Option<Executable>> {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        match openat(&self.dir, "exe", flags, Mode::empty()) {
            Ok(fd) => Executable::of(File::from(fd)).map(Some),
            Err(Errno::ENOENT | Errno::ESRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What `/proc/PID/exe` says. A name only: it may be of another file, or carry ` (deleted)`.
    pub fn executable_name(&self) -> io::Result<Option<PathBuf>> {
        match readlinkat(&self.dir, "exe") {
            Ok(name) => Ok(Some(PathBuf::from(name))),
            Err(Errno::ENOENT | Errno::ESRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The kernel's name for an executable of this process.
    pub fn identify(&self, executable: &Executable) -> io::Result<FileId> {
        let dev = match (executable.mount, self.read("mountinfo")?) {
            (Some(id), Some(text)) => mounts::find(&text, id),
            _ => None,
        };
        let dev = match dev {
            Some(mount) => mount.dev,
            None => executable.metadata()?.dev(),
        };
        Ok(FileId { dev, ino: executable.ino })
    }

    /// Whether an executable of this process is the one that the kernel calls `id`.
    pub fn runs(&self, executable: &Executable, id: FileId) -> io::Result<bool> {
        if executable.ino != id.ino {
            return Ok(false);
        }
        // Most file systems have one device number; only the others need the list of mounts.
        // A user's FUSE file system refuses even `stat` to root; the mount tells nevertheless.
        let same_dev = executable.metadata().is_ok_and(|meta| meta.dev() == id.dev);
        Ok(same_dev || self.identify(executable)? == id)
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let file = match openat(&self.dir, name, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::ENOENT | Errno::ESRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut text = Vec::with_capacity(2048);
        match (&file).read_to_end(&mut text) {
            Ok(_) => Ok(Some(text)),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Executable {
    fn of(file: File) -> io::Result<Self> {
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
        // `ino` is there since Linux 5.14.
        let ino = match field(&text, "ino:") {
            Some(ino) => ino,
            None => file.metadata()?.ino(),
        };
        Ok(Self { ino, mount: field(&text, "mnt_id:"), file })
    }

    /// What `fstat` says of the running file.
    pub fn metadata(&self) -> io::Result<std::fs::Metadata> {
        self.file.metadata()
    }

    /// Opens the running file for reading, whatever its path now holds.
    pub fn reader(&self) -> io::Result<File> {
        File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }
}

/// A path of bytes as text, if it is text.
pub fn path_text(path: PathBuf) -> Option<String> {
    String::from_utf8(path.into_os_string().into_vec()).ok()
}

fn start_in(stat: &[u8]) -> io::Result<Option<StartTicks>> {
    let stat = Stat::from_read(stat).map_err(io::Error::other)?;
    Ok((!matches!(stat.state, 'Z' | 'X' | 'x')).then_some(StartTicks(stat.starttime)))
}

fn ids_in(status: &[u8]) -> io::Result<Credentials> {
    // The name of the process is in it, and need not be text.
    let text = String::from_utf8_lossy(status);
    let status = Status::from_buf_read(text.as_bytes()).map_err(io::Error::other)?;
    Ok(Credentials {
        uid: status.euid,
        real_uid: status.ruid,
        gid: status.egid,
        real_gid: status.rgid,
        groups: status.groups,
    })
}

/// A line of `fdinfo`, which `procfs` does not read.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

fn ns_per_tick() -> u64 {
    1_000_000_000 / procfs::ticks_per_second().max(1)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_itself() {
        let task = Task::open(std::process::id()).unwrap().unwrap();
        let started = task.started().unwrap().unwrap();
        for within_tick in [0, 9_999_999] {
            assert_eq!(StartTicks::of_ns(started.floor_ns() + within_tick), started);
        }
        let ids = task.credentials().unwrap().unwrap();
        assert_eq!(ids.uid, nix::unistd::geteuid().as_raw());
        let executable = task.executable().unwrap().unwrap();
        let id = task.identify(&executable).unwrap();
        assert!(task.runs(&executable, id).unwrap());
        assert!(!task.runs(&executable, FileId { ino: id.ino + 1, ..id }).unwrap());
        let mut magic = [0; 4];
        executable.reader().unwrap().read_exact(&mut magic).unwrap();
        assert_eq!(&magic, b"\x7fELF");
    }

    #[test]
    fn privileged_overlay_files_are_named_as_the_kernel_names_them() {
        assert!(nix::unistd::geteuid().is_root(), "needs root: run it by `cargo xtask test`");
        // Layers on two file systems: there `stat` gives a device that the kernel does not know.
        let script = "mount -t tmpfs none /mnt && cd /mnt && mkdir u w m && \
            mount -t overlay none -o lowerdir=/usr/bin,upperdir=u,workdir=w m && exec m/sleep 60";
        let mut shell = Command::new("unshare");
        let mut child = shell.args(["-m", "sh", "-ec", script]).spawn().unwrap();
        let maps = format!("/proc/{}/maps", child.id());
        let mapped = loop {
            // `s_dev` and `i_ino` of the running file, as the memory manager prints them.
            let text = std::fs::read_to_string(&maps).unwrap();
            match text.lines().find(|line| line.ends_with("/m/sleep")) {
                Some(line) => break line.to_owned(),
                None => assert!(child.try_wait().unwrap().is_none(), "the overlay did not mount"),
            }
        };
        let fields: Vec<_> = mapped.split_ascii_whitespace().collect();
        let (major, minor) = fields[3].split_once(':').unwrap();
        let hex = |digits| u64::from_str_radix(digits, 16).unwrap();
        let dev = nix::sys::stat::makedev(hex(major), hex(minor));
        let id = FileId { dev, ino: fields[4].parse().unwrap() };
        let task = Task::open(child.id()).unwrap().unwrap();
        let executable = task.executable().unwrap().unwrap();
        assert_ne!(executable.metadata().unwrap().dev(), dev);
        assert_eq!(task.identify(&executable).unwrap(), id);
        assert!(task.runs(&executable, id).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_pinned_process_that_exits_is_gone_for_good() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let task = Task::open(child.id()).unwrap().unwrap();
        assert!(task.started().unwrap().is_some());
        child.kill().unwrap();
        // A zombie has exited already, its parent just has not looked.
        while task.started().unwrap().is_some() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert_eq!(task.started().unwrap(), None);
        assert_eq!(task.credentials().unwrap(), None);
        assert!(task.executable().unwrap().is_none());
    }

    #[test]
    fn no_process_is_no_error() {
        // Above the highest possible pid.
        assert!(Task::open(1 << 23).unwrap().is_none());
    }

    #[test]
    fn a_process_name_cannot_forge_fields() {
        for (state, alive) in [("S", true), ("Z", false)] {
            let line = format!(
                "7 (a) R 1 (b) {state} 1 1 1 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 4711{}",
                " 9".repeat(15)
            );
            let expected = alive.then_some(StartTicks(4711));
            assert_eq!(start_in(line.as_bytes()).unwrap(), expected);
        }
    }

    #[test]
    fn a_process_name_need_not_be_text() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(OsStr::from_bytes(b"\xff) Z 1 (\xfe"));
        std::fs::copy("/bin/sleep", &path).unwrap();
        let mut child = Command::new(&path).arg("60").spawn().unwrap();
        let task = Task::open(child.id()).unwrap().unwrap();
        assert!(task.started().unwrap().is_some());
        let uid = nix::unistd::geteuid().as_raw();
        assert_eq!(task.credentials().unwrap().unwrap().uid, uid);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    proptest! {
        #[test]
        fn parsers_never_panic(bytes: Vec<u8>, text: String) {
            let _ids = ids_in(&bytes);
            field(&text, "ino:");
        }
    }
}
