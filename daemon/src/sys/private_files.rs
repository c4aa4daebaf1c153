//! Files that hold keys: read only if nobody else can, written so that a crash leaves the old file
//! or the new one and never a part. Knows nothing of what is in them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;
use zeroize::Zeroizing;

/// Mode of directories that hold keys.
pub const PRIVATE_DIR: u32 = 0o700;
/// Mode of files that hold keys.
pub const PRIVATE: u32 = 0o600;
/// Mode of files that anybody may read.
pub const PUBLIC: u32 = 0o644;
/// Largest file that is read. 10 000 live entries are below 4 MiB.
const LARGEST_BYTES: u64 = 16 << 20;

/// Why a file could not be used.
#[derive(Debug, Error)]
pub enum FileError {
    /// The system refused.
    #[error("{}: cannot {act} it", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What was tried.
        act: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Others could read the key, or put another in its place.
    #[error("{}: others can {what} it (mode {mode:o}); run: chmod {remedy:o} {}", path.display(), path.display())]
    Insecure {
        /// Which file or directory.
        path: PathBuf,
        /// `read` or `change`.
        what: &'static str,
        /// Its mode.
        mode: u32,
        /// What it should be.
        remedy: u32,
    },
    /// Too large to be what it should.
    #[error("{}: larger than {LARGEST_BYTES} bytes; it is no file of tacit", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
}

impl FileError {
    fn io<'a>(path: &'a Path, act: &'static str) -> impl Fn(io::Error) -> Self + 'a {
        move |source| Self::Io { path: path.to_owned(), act, source }
    }

    /// Whether the file does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Makes a directory that only its owner can enter; one that exists is only checked.
///
/// # Errors
/// See [`FileError`]; each says what the operator can do.
pub fn create_private_dir(path: &Path) -> Result<(), FileError> {
    match DirBuilder::new().recursive(true).mode(PRIVATE_DIR).create(path) {
        Ok(()) => check_private_dir(path),
        Err(error) => Err(FileError::io(path, "create")(error)),
    }
}

/// Refuses a directory in which others could replace a key. In a sticky one they cannot.
///
/// # Errors
/// See [`FileError`]; each says what the operator can do.
pub fn check_private_dir(path: &Path) -> Result<(), FileError> {
    let mode = fs::metadata(path).map_err(FileError::io(path, "look at"))?.mode() & 0o7777;
    if mode & 0o022 == 0 || mode & 0o1000 != 0 {
        return Ok(());
    }
    let (path, remedy) = (path.to_owned(), PRIVATE_DIR);
    Err(FileError::Insecure { path, what: "change", mode, remedy })
}

/// A directory, held against everybody else who holds it in the same way; let go when dropped, and
/// by the kernel when its holder dies.
#[derive(Debug)]
pub struct DirLock(#[expect(dead_code, reason = "held until it is dropped")] Flock<File>);

/// Holds a directory; `None` if somebody else does for longer than `patience`. Blocks as long.
///
/// # Errors
/// See [`FileError`].
pub fn lock_dir(path: &Path, patience: Duration) -> Result<Option<DirLock>, FileError> {
    const PAUSE: Duration = Duration::from_millis(20);
    let mut file = File::open(path).map_err(FileError::io(path, "open"))?;
    let mut left = patience;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(DirLock(lock))),
            Err((file, Errno::EWOULDBLOCK)) => file,
            Err((_, errno)) => return Err(FileError::io(path, "lock")(errno.into())),
        };
        match left.checked_sub(PAUSE) {
            Some(rest) => left = rest,
            None => return Ok(None),
        }
        thread::sleep(PAUSE);
    }
}

/// Reads a file that holds a key. The mode is that of the very file that is read.
///
/// # Errors
/// See [`FileError`]; each says what the operator can do.
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let file = File::open(path).map_err(FileError::io(path, "open"))?;
    let metadata = file.metadata().map_err(FileError::io(path, "look at"))?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let (path, remedy) = (path.to_owned(), PRIVATE);
        return Err(FileError::Insecure { path, what: "read", mode, remedy });
    }
    read(path, &file, metadata.len())
}

/// Reads a file that is no secret.
///
/// # Errors
/// See [`FileError`]; each says what the operator can do.
pub fn read_public(path: &Path) -> Result<Vec<u8>, FileError> {
    let file = File::open(path).map_err(FileError::io(path, "open"))?;
    let length = file.metadata().map_err(FileError::io(path, "look at"))?.len();
    read(path, &file, length).map(|text| text.to_vec())
}

fn read(path: &Path, file: &File, length: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
    if length > LARGEST_BYTES {
        return Err(FileError::TooLarge { path: path.to_owned() });
    }
    // Sized at once: growing would leave copies of a key behind in freed memory.
    let capacity = usize::try_from(length).unwrap_or_default().saturating_add(1);
    let mut text = Zeroizing::new(Vec::with_capacity(capacity));
    file.take(LARGEST_BYTES).read_to_end(&mut text).map_err(FileError::io(path, "read"))?;
    Ok(text)
}

/// Puts a file in place of what is there, if anything: whole, durably, and never with a wider mode
/// than asked for.
///
/// # Errors
/// See [`FileError`]; then what was there before is still there.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let temporary = beside(path);
    let written = write_new(&temporary, content, mode)
        .and_then(|()| fs::rename(&temporary, path).map_err(FileError::io(path, "put in place")));
    if let Err(error) = written {
        // The first error is the one to tell.
        let _gone = fs::remove_file(&temporary).is_ok();
        return Err(error);
    }
    sync_dir(parent(path))
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    // What an interrupted predecessor left; nobody else writes here.
    let _stale = fs::remove_file(path).is_ok();
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(FileError::io(path, "create"))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(FileError::io(path, "write"))
}

/// Puts a whole directory in place: all of its files or none. What stands there must be absent or
/// an empty directory.
///
/// # Errors
/// See [`FileError`]; then what was there before is still there.
pub fn place_dir(prepared: &Path, path: &Path) -> Result<(), FileError> {
    sync_dir(prepared)?;
    fs::rename(prepared, path).map_err(FileError::io(path, "put in place"))?;
    sync_dir(parent(path))
}

/// Where a directory is prepared that is to become `path`: empty, private, on the same file system.
///
/// # Errors
/// See [`FileError`].
pub fn prepare_dir(path: &Path) -> Result<PathBuf, FileError> {
    let parent = parent(path);
    if !parent.exists() {
        create_private_dir(parent)?;
    }
    let prepared = beside(path);
    match fs::remove_dir_all(&prepared) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(FileError::io(&prepared, "remove")(error));
        }
        _ => create_private_dir(&prepared)?,
    }
    Ok(prepared)
}

/// `.name.new` in the same directory.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_dir(path: &Path) -> Result<(), FileError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(FileError::io(path, "sync"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn writes_whole_files_with_their_mode_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        for content in ["one", "another"] {
            fs::write(dir.path().join(".key.new"), "left by a crash").unwrap();
            write_atomic(&file, content.as_bytes(), PRIVATE).unwrap();
            assert_eq!(read_private(&file).unwrap().as_slice(), content.as_bytes());
            assert_eq!(mode(&file), PRIVATE);
            assert_eq!(names(dir.path()), ["key"]);
        }
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_state() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("taken");
        fs::create_dir_all(taken.join("inside")).unwrap();
        assert!(matches!(write_atomic(&taken, b"x", PUBLIC), Err(FileError::Io { .. })));
        assert_eq!(names(dir.path()), ["taken"]);
    }

    #[test]
    fn refuses_a_key_that_others_can_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        write_atomic(&file, b"x", PRIVATE).unwrap();
        for loose in [0o640, 0o604, 0o660, 0o610] {
            fs::set_permissions(&file, fs::Permissions::from_mode(loose)).unwrap();
            let error = read_private(&file).unwrap_err().to_string();
            assert!(error.contains(&format!("chmod 600 {}", file.display())), "{error}");
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(read_private(&file).is_ok());
    }

    #[test]
    fn refuses_a_directory_that_others_can_change() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o775)).unwrap();
        let error = check_private_dir(dir.path()).unwrap_err().to_string();
        assert!(error.contains("chmod 700"), "{error}");
    }

    #[test]
    fn a_directory_is_held_by_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let now = Duration::ZERO;
        let first = lock_dir(dir.path(), now).unwrap();
        assert!(first.is_some() && lock_dir(dir.path(), now).unwrap().is_none());
        drop(first);
        assert!(lock_dir(dir.path(), now).unwrap().is_some());
    }

    #[test]
    fn a_directory_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("state").join("ca");
        let prepared = prepare_dir(&place).unwrap();
        write_atomic(&prepared.join("key"), b"x", PRIVATE).unwrap();
        assert!(!place.exists());
        let prepared = prepare_dir(&place).unwrap();
        assert!(names(&prepared).is_empty(), "what a crash left is not used");
        write_atomic(&prepared.join("key"), b"y", PRIVATE).unwrap();
        place_dir(&prepared, &place).unwrap();
        assert_eq!((names(&place), mode(&place)), (vec!["key".to_owned()], PRIVATE_DIR));
        let second = prepare_dir(&place).unwrap();
        assert!(place_dir(&second, &place).is_err(), "never over one that is in use");
    }
}
