//! A directory that is held by descriptor and that was reached without following a symbolic link:
//! whatever becomes of its path, what is done in it is done there. On the whole way, nobody but root
//! and one user may put another directory in its place.
//!
//! That one user is not trusted either: it may change everything in a directory that is its own while
//! we work in it. So nothing here opens what exists but to look at it or to empty it, and what is
//! written is created afresh, in a directory made by us.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fsync, geteuid, symlinkat, unlinkat};
use thiserror::Error;

use crate::workload::Owner;

/// Mode of a directory that everybody may look into and only its owner may change.
const OPEN_DIR: Mode = Mode::from_bits_truncate(0o755);
const PRIVATE_DIR: Mode = Mode::from_bits_truncate(0o700);
const PRIVATE: Mode = Mode::from_bits_truncate(0o600);
/// So much of a file is overwritten at a time.
const ZEROS: [u8; 4096] = [0; 4096];

/// Why a directory is not used.
#[derive(Debug, Error)]
pub enum DirError {
    /// The system refused.
    #[error("{}: cannot {act} it: {source}", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What was tried.
        act: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A symbolic link, which could be made to point elsewhere.
    #[error("{}: is a symbolic link, and none is followed; write the path that it leads to", .0.display())]
    Link(PathBuf),
    /// Something else than a directory.
    #[error("{}: is not a directory", .0.display())]
    NotDirectory(PathBuf),
    /// Others could change what is in it.
    #[error("{}: others than its owner can write to it (mode {mode:o}); run: chmod go-w {}", path.display(), path.display())]
    Writable {
        /// Which directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It belongs to a third party, who could change what is in it.
    #[error("{}: belongs to user {uid}, who is neither root nor user {expected}", path.display())]
    Foreign {
        /// Which directory.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
        /// Whose it might be.
        expected: u32,
    },
}

/// A directory by an open descriptor.
#[derive(Debug)]
pub struct PinnedDir {
    fd: OwnedFd,
    path: PathBuf,
}

impl PinnedDir {
    /// Opens a directory that only root and this owner can change, on a path of which the same is
    /// true. If it is only the last part that is missing, that is made, as root's.
    ///
    /// # Errors
    /// See [`DirError`]; each names the part of the path that is to blame.
    pub fn open(path: &Path, owner: Owner) -> Result<Self, DirError> {
        Self::walk(path, owner, true)
    }

    /// The same, and never makes anything.
    ///
    /// # Errors
    /// See [`DirError`].
    pub fn open_existing(path: &Path, owner: Owner) -> Result<Self, DirError> {
        Self::walk(path, owner, false)
    }

    fn walk(path: &Path, owner: Owner, may_make: bool) -> Result<Self, DirError> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut seen = PathBuf::from("/");
        let mut at = open("/", flags | OFlag::O_DIRECTORY, Mode::empty())
            .map_err(DirError::io(&seen, "open"))?;
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            let Component::Normal(part) = part else { continue };
            let is_last = parts.peek().is_none();
            seen.push(part);
            let mut next = openat(&at, part, flags, Mode::empty());
            if matches!(next, Err(Errno::ENOENT)) && is_last && may_make {
                make_open_dir(&at, part).map_err(DirError::io(&seen, "make"))?;
                next = openat(&at, part, flags, Mode::empty());
            }
            at = next.map_err(DirError::io(&seen, "open"))?;
            let found = fstat(&at).map_err(DirError::io(&seen, "look at"))?;
            judge(&found, &seen, owner, is_last)?;
        }
        // The descriptor so far is one of the place only; this one can be read and synced.
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = openat(&at, ".", flags, Mode::empty()).map_err(DirError::io(path, "open"))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Makes a directory in it that is ours alone, until [`PinnedDir::show`].
    ///
    /// # Errors
    /// The system's; `AlreadyExists` if there is anything of that name.
    pub fn make(&self, name: &str) -> io::Result<Self> {
        mkdirat(&self.fd, name, PRIVATE_DIR)?;
        let made = self.enter(name)?.ok_or(io::ErrorKind::NotFound)?;
        // Whoever owns this directory may have put another of ours there meanwhile, such as one that
        // is nobody else's business.
        if !made.names()?.is_empty() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(made)
    }

    /// A directory in it, if it is one and ours.
    ///
    /// # Errors
    /// The system's.
    pub fn enter(&self, name: &str) -> io::Result<Option<Self>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let is_ours = fstat(&fd)?.st_uid == geteuid().as_raw();
        Ok(is_ours.then(|| Self { fd, path: self.path.join(name) }))
    }

    /// Lets everybody look into it; what is in it has modes of its own.
    ///
    /// # Errors
    /// The system's.
    pub fn show(&self) -> io::Result<()> {
        fchmod(&self.fd, OPEN_DIR)?;
        self.sync()
    }

    /// Forces the directory to the disk.
    ///
    /// # Errors
    /// The system's.
    pub fn sync(&self) -> io::Result<()> {
        Ok(fsync(&self.fd)?)
    }

    /// Creates a file of this owner, which nobody else can read; never into one that is there.
    ///
    /// # Errors
    /// The system's.
    pub fn create(&self, name: &str, content: &[u8], owner: Owner) -> io::Result<()> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&self.fd, name, flags, PRIVATE)?;
        fchown(&fd, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
        let mut file = File::from(fd);
        file.write_all(content)?;
        file.sync_all()
    }

    /// Where a symbolic link in it points; `Ok(None)` if there is nothing, an error of the kind
    /// `InvalidInput` if there is something else.
    ///
    /// # Errors
    /// The system's.
    pub fn link(&self, name: &str) -> io::Result<Option<OsString>> {
        match readlinkat(&self.fd, name) {
            Ok(target) => Ok(Some(target)),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a symbolic link point here, in one step for whoever follows it.
    ///
    /// # Errors
    /// The system's.
    pub fn point(&self, name: &str, target: &str) -> io::Result<()> {
        let new = format!("{name}.new");
        self.remove(&new)?;
        symlinkat(target, &self.fd, new.as_str())?;
        // Replaces what is there and never follows it.
        Ok(renameat(&self.fd, new.as_str(), &self.fd, name)?)
    }

    /// Removes what is no directory; no error if there is nothing.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Overwrites this owner's files in a directory of ours with zeros, and removes it with them. What
    /// is another's is left, and with it the directory: whoever owns the one above may have given
    /// the name to any directory of ours in it.
    ///
    /// # Errors
    /// The system's.
    pub fn wipe(&self, name: &str, owner: Owner) -> io::Result<()> {
        let Some(dir) = self.enter(name)? else { return Ok(()) };
        for file in dir.names()? {
            if let Some(file) = file.to_str().filter(|file| dir.blank(file, owner).unwrap_or(false))
            {
                dir.remove(file)?;
            }
        }
        match unlinkat(&self.fd, name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTEMPTY) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Overwrites a file of this owner. Says whether it is one.
    fn blank(&self, name: &str, owner: Owner) -> io::Result<bool> {
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&self.fd, name, flags, Mode::empty())?);
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.uid() != owner.uid {
            return Ok(false);
        }
        let mut left = metadata.len();
        while left > 0 {
            let size = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
            file.write_all(ZEROS.get(..size).unwrap_or(&ZEROS))?;
            left = left.saturating_sub(u64::try_from(size).unwrap_or(u64::MAX));
        }
        file.sync_all()?;
        Ok(true)
    }

    /// The start of a file that only root and this owner can change, or of none.
    ///
    /// # Errors
    /// The system's; `PermissionDenied` if others could have written it.
    pub fn read(&self, name: &OsStr, owner: Owner, most: usize) -> io::Result<Option<String>> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let fd = match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let found = fstat(&fd)?;
        let is_trusted = is_trusted(found.st_uid, owner) && found.st_mode & 0o022 == 0;
        if !is_trusted || kind(&found) != SFlag::S_IFREG {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut bytes = Vec::with_capacity(most);
        File::from(fd).take(u64::try_from(most).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// All names in it.
    ///
    /// # Errors
    /// The system's.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut dir = Dir::openat(self.fd.as_fd(), ".", flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in dir.iter() {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsStr::from_bytes(&name).to_owned());
            }
        }
        Ok(names)
    }
}

impl DirError {
    fn io<'a>(path: &'a Path, act: &'static str) -> impl Fn(Errno) -> Self + 'a {
        move |error| Self::Io { path: path.to_owned(), act, source: error.into() }
    }

    /// Whether there is no such directory.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// The umask does not count.
fn make_open_dir(parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    mkdirat(parent, name, PRIVATE_DIR)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = openat(parent, name, flags, Mode::empty())?;
    // What somebody put there meanwhile is not ours to change.
    if fstat(&made)?.st_uid == geteuid().as_raw() {
        fchmod(&made, OPEN_DIR)?;
    }
    Ok(())
}

fn judge(found: &FileStat, path: &Path, owner: Owner, is_last: bool) -> Result<(), DirError> {
    match kind(found) {
        SFlag::S_IFLNK => return Err(DirError::Link(path.to_owned())),
        SFlag::S_IFDIR => {}
        _ => return Err(DirError::NotDirectory(path.to_owned())),
    }
    if !is_trusted(found.st_uid, owner) {
        let (uid, expected) = (found.st_uid, owner.uid);
        return Err(DirError::Foreign { path: path.to_owned(), uid, expected });
    }
    // In a sticky directory others can add names, and neither rename nor remove the next part.
    let is_sticky = found.st_mode & 0o1000 != 0;
    if found.st_mode & 0o022 != 0 && (is_last || !is_sticky) {
        let mode = found.st_mode & 0o7777;
        return Err(DirError::Writable { path: path.to_owned(), mode });
    }
    Ok(())
}

fn is_trusted(uid: u32, owner: Owner) -> bool {
    uid == 0 || uid == geteuid().as_raw() || uid == owner.uid
}

fn kind(found: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT
}
