#![expect(unsafe_code, reason = "open_by_handle_at has no safe wrapper")]
//! The cgroup2 hierarchy: ids to paths and back, membership, creation.
//! Paths are below the mount, with a leading `/`; an id is the inode number of the directory and is
//! never given to another one while the host runs, so a path once learnt stays true.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use procfs::ProcessCGroups;
use procfs::process::Process;
use thiserror::Error;

use super::mounts::find_cgroup2;
use super::task::path_text;
use crate::workload::CgroupId;

/// `FILEID_KERNFS`: the handle is the 64-bit id. Source: `include/linux/exportfs.h`.
const HANDLE_KIND: i32 = 0xfe;
/// How many paths are kept before the cache starts anew. Chosen.
const CACHED_PATHS: usize = 8192;

/// The mounted cgroup2 hierarchy. Cheap to clone; clones share the cache.
#[derive(Debug, Clone)]
pub struct Cgroups(Arc<Tree>);

#[derive(Debug)]
struct Tree {
    mount: PathBuf,
    root: File,
    paths: Mutex<HashMap<CgroupId, Arc<str>>>,
}

/// Why there is no cgroup hierarchy to work with.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// No cgroup2 file system in `/proc/self/mountinfo`.
    #[error("no cgroup2 hierarchy is mounted; mount one: mount -t cgroup2 none /sys/fs/cgroup")]
    NotMounted,
    /// It cannot be read.
    #[error("cannot read the cgroup2 hierarchy")]
    Unreadable(#[source] io::Error),
}

/// Argument of `open_by_handle_at`. Source: `open_by_handle_at(2)`.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    id: [u8; 8],
}

impl Cgroups {
    /// The hierarchy that is mounted on this host.
    pub fn find() -> Result<Self, CgroupError> {
        let text = fs::read("/proc/self/mountinfo").map_err(CgroupError::Unreadable)?;
        let mount = find_cgroup2(&text).ok_or(CgroupError::NotMounted)?.point;
        let root = File::open(&mount).map_err(CgroupError::Unreadable)?;
        Ok(Self(Arc::new(Tree { mount, root, paths: Mutex::default() })))
    }

    /// Where it is mounted.
    pub fn mount(&self) -> &Path {
        &self.0.mount
    }

    /// The path of a cgroup, also of one that was removed after its path was last asked for.
    pub fn path_of(&self, id: CgroupId) -> Option<Arc<str>> {
        if let Some(path) = self.paths().get(&id) {
            return Some(Arc::clone(path));
        }
        let path: Arc<str> = self.look_up(id)?.into();
        let mut paths = self.paths();
        if paths.len() >= CACHED_PATHS {
            paths.clear();
        }
        paths.insert(id, Arc::clone(&path));
        Some(path)
    }

    /// The id of the cgroup with this path.
    pub fn id_of(&self, path: &str) -> io::Result<CgroupId> {
        fs::metadata(self.directory(path)?).map(|meta| CgroupId(meta.ino()))
    }

    /// The cgroup of this process.
    pub fn own(&self) -> io::Result<String> {
        let groups = Process::myself().and_then(|own| own.cgroups());
        let path = membership(groups.map_err(io::Error::other)?);
        path.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Makes a cgroup and those above it; no error if it is there.
    pub fn create(&self, path: &str) -> io::Result<CgroupId> {
        fs::create_dir_all(self.directory(path)?)?;
        self.id_of(path)
    }

    /// Moves this process into a cgroup.
    pub fn enter(&self, path: &str) -> io::Result<()> {
        fs::write(self.directory(path)?.join("cgroup.procs"), "0")
    }

    /// Removes a cgroup that has no processes and no children.
    pub fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_dir(self.directory(path)?)
    }

    /// Removes a cgroup with those right below it, as far as there are any; none may have processes.
    pub fn remove_below(&self, path: &str) -> io::Result<()> {
        let directory = self.directory(path)?;
        let Ok(entries) = fs::read_dir(&directory) else { return Ok(()) };
        for entry in entries.flatten().filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir())) {
            fs::remove_dir(entry.path())?;
        }
        fs::remove_dir(directory)
    }

    /// The pids of the processes in a cgroup, those below it not included.
    pub fn processes(&self, path: &str) -> io::Result<Vec<u32>> {
        let text = fs::read_to_string(self.directory(path)?.join("cgroup.procs"))?;
        // Processes of other pid namespaces are shown as 0.
        Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect())
    }

    /// The pids of the processes in a cgroup and in those below it. What is removed meanwhile has
    /// none.
    pub fn processes_below(&self, path: &str) -> io::Result<Vec<u32>> {
        let (mut found, mut open) = (Vec::new(), vec![path.to_owned()]);
        while let Some(path) = open.pop() {
            let Ok(entries) = fs::read_dir(self.directory(&path)?) else { continue };
            found.extend(self.processes(&path).unwrap_or_default());
            for entry in entries.flatten() {
                if let (true, Ok(name)) = (
                    entry.file_type().is_ok_and(|kind| kind.is_dir()),
                    entry.file_name().into_string(),
                ) {
                    open.push(format!("{}/{name}", path.trim_end_matches('/')));
                }
            }
        }
        Ok(found)
    }

    fn paths(&self) -> std::sync::MutexGuard<'_, HashMap<CgroupId, Arc<str>>> {
        self.0.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn directory(&self, path: &str) -> io::Result<PathBuf> {
        let below = path.strip_prefix('/').ok_or(io::ErrorKind::InvalidInput)?;
        if Path::new(below).components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(self.0.mount.join(below))
    }

    fn look_up(&self, id: CgroupId) -> Option<String> {
        match self.open(id) {
            Ok(fd) => {
                let name = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
                let path = self.relative(&name)?;
                // A directory removed meanwhile has a suffix, and its path may be another's.
                (self.id_of(&path).ok()? == id).then_some(path)
            }
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => None,
            // Without CAP_DAC_READ_SEARCH, or in a container: look at every directory.
            Err(_) => self.relative(&walk(&self.0.mount, id, 0)?),
        }
    }

    fn open(&self, id: CgroupId) -> io::Result<OwnedFd> {
        let mut handle = Handle { bytes: 8, kind: HANDLE_KIND, id: id.0.to_ne_bytes() };
        // SAFETY: the handle lives through the call and its first field says how long it is.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                self.0.root.as_raw_fd(),
                &raw mut handle,
                libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC,
            )
        };
        let fd = i32::try_from(fd).map_err(io::Error::other)?;
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor, nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn relative(&self, path: &Path) -> Option<String> {
        let below = path_text(path.strip_prefix(&self.0.mount).ok()?.to_owned())?;
        Some(format!("/{below}"))
    }
}

/// Looks for a directory by its inode number.
fn walk(directory: &Path, id: CgroupId, depth: u32) -> Option<PathBuf> {
    if fs::metadata(directory).is_ok_and(|meta| meta.ino() == id.0) {
        return Some(directory.to_owned());
    }
    if depth > 64 {
        return None;
    }
    let entries = fs::read_dir(directory).ok()?.flatten();
    let mut below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    below.find_map(|entry| {
        if entry.ino() == id.0 {
            return Some(entry.path());
        }
        walk(&entry.path(), id, depth + 1)
    })
}

/// The path in the cgroup2 hierarchy, which has no number and no controllers.
pub(super) fn membership(groups: ProcessCGroups) -> Option<String> {
    groups
        .into_iter()
        .find(|group| group.hierarchy == 0 && group.controllers.is_empty())
        .map(|group| group.pathname)
        .filter(|path| path.starts_with('/'))
}

/// How deep a cgroup lies: the root is 0, `/a.slice/b.service` is 2.
pub fn level(path: &str) -> usize {
    path.split('/').filter(|part| !part.is_empty()).count()
}

#[cfg(test)]
mod tests {
    use procfs::FromBufRead;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn membership_is_that_of_the_new_hierarchy() {
        let of = |text: &str| membership(ProcessCGroups::from_buf_read(text.as_bytes()).unwrap());
        let text = "9:name=systemd:/old\n1:cpu:/x\n0::/system.slice/a:b.service\n";
        assert_eq!(of(text).as_deref(), Some("/system.slice/a:b.service"));
        assert_eq!(of("1:cpu:/x\n"), None);
        assert_eq!(of("0::x\n"), None);
    }

    #[test]
    fn levels_count_directories() {
        for (path, expected) in [("/", 0), ("/a", 1), ("/a/b", 2), ("/a//b/", 2)] {
            assert_eq!(level(path), expected, "{path}");
        }
    }

    #[test]
    fn own_cgroup_goes_to_an_id_and_back() {
        let cgroups = Cgroups::find().unwrap();
        let own = cgroups.own().unwrap();
        let id = cgroups.id_of(&own).unwrap();
        assert_eq!(cgroups.path_of(id).as_deref(), Some(own.as_str()));
        assert_eq!(cgroups.path_of(CgroupId(u64::MAX)), None);
    }

    #[test]
    fn a_path_cannot_leave_the_hierarchy() {
        let cgroups = Cgroups::find().unwrap();
        for bad in ["", "a", "/../../etc", "/a/../../b", "//etc"] {
            assert!(cgroups.id_of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn privileged_a_cgroup_is_made_entered_and_removed() {
        assert!(nix::unistd::geteuid().is_root(), "needs root: run it by `cargo xtask test`");
        let cgroups = Cgroups::find().unwrap();
        let path = format!("/tacit-unit-{}/deep (deleted)", std::process::id());
        let id = cgroups.create(&path).unwrap();
        assert_eq!(cgroups.path_of(id).as_deref(), Some(path.as_str()));
        assert_eq!(walk(cgroups.mount(), id, 0), cgroups.directory(&path).ok());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let procs = cgroups.directory(&path).unwrap().join("cgroup.procs");
        fs::write(procs, child.id().to_string()).unwrap();
        assert_eq!(cgroups.processes(&path).unwrap(), [child.id()]);
        child.kill().unwrap();
        child.wait().unwrap();
        cgroups.remove(&path).unwrap();
        cgroups.remove(path.rsplit_once('/').unwrap().0).unwrap();
        // Known before, still known; a fresh look finds nothing.
        assert_eq!(cgroups.path_of(id).as_deref(), Some(path.as_str()));
        assert_eq!(Cgroups::find().unwrap().path_of(id), None);
    }

    proptest! {
        #[test]
        fn parsers_never_panic(text: String) {
            let groups = ProcessCGroups::from_buf_read(text.as_bytes());
            groups.ok().and_then(membership);
            level(&text);
        }
    }
}
