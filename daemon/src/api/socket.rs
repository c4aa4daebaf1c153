//! The Unix socket of the Workload API: open to every user, since each caller is told only about
//! itself; its directory can be changed by the daemon's user alone, so that nobody else can stand
//! in its place.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as BlockingListener, UnixStream as BlockingStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;
use tokio::net::UnixListener;

/// Why the socket cannot be made.
#[derive(Debug, Error)]
pub enum ApiSocketError {
    /// The directory or the socket.
    #[error("the socket of the Workload API {0} cannot be made; see workload_api.socket")]
    Bind(PathBuf, #[source] io::Error),
    /// Others could put a socket of their own in its place.
    #[error(
        "directory {0} may be written by others than its owner: they could answer in the daemon's place; choose another for workload_api.socket"
    )]
    OpenDirectory(PathBuf),
    /// It answers.
    #[error("another daemon serves {0}; stop it, or set workload_api.socket")]
    InUse(PathBuf),
}

/// The socket, bound. Its file is removed when it is dropped.
#[derive(Debug)]
pub struct WorkloadSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Which file it is counts, not its name: a successor may have replaced it.
    inode: (u64, u64),
    bequest: Bequest,
}

/// Says that somebody else has the socket, too: its file stays when the daemon goes.
#[derive(Debug, Clone, Default)]
pub struct Bequest(Arc<AtomicBool>);

impl Bequest {
    /// From now on, or no longer.
    pub fn made(&self, made: bool) {
        self.0.store(made, Ordering::SeqCst);
    }
}

/// Whether a socket that was bound by this name is the one that clients find at `path`: it is
/// moved there once everybody may use it.
pub fn is_bound_at(bound: &Path, path: &Path) -> bool {
    (bound == path || bound == fresh_name(path)) && inode(path).is_ok()
}

impl WorkloadSocket {
    /// Takes over one that a daemon before this one has made. To be called on a runtime.
    ///
    /// # Errors
    /// When it is not at its path any more.
    pub fn take_over(path: &Path, listener: BlockingListener) -> Result<Self, ApiSocketError> {
        let failed = |error| ApiSocketError::Bind(path.to_owned(), error);
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        let inode = inode(path).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned(), inode, bequest: Bequest::default() })
    }

    /// To be told when somebody else has it, too.
    pub fn bequest(&self) -> Bequest {
        self.bequest.clone()
    }

    /// Makes the socket, and directories that everybody may pass through if they are absent.
    /// Replaces one that nobody serves. To be called on a runtime.
    ///
    /// # Errors
    /// Start-up errors: the operator has to mend the path or stop the other daemon.
    pub fn bind(path: &Path) -> Result<Self, ApiSocketError> {
        let failed = |error| ApiSocketError::Bind(path.to_owned(), error);
        let directory = path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(failed)?;
        if fs::metadata(directory).map_err(failed)?.mode() & 0o022 != 0 {
            return Err(ApiSocketError::OpenDirectory(directory.to_owned()));
        }
        if let Some(closed) = closed_directory(directory) {
            tracing::warn!(directory = %closed.display(), socket = %path.display(), "only root can reach the Workload API through this directory");
        }
        if BlockingStream::connect(path).is_ok() {
            return Err(ApiSocketError::InUse(path.to_owned()));
        }
        let listener = bind_open(path).map_err(failed)?;
        let inode = inode(path).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned(), inode, bequest: Bequest::default() })
    }
}

/// Binds under another name and moves the socket into place when everybody may use it: nobody
/// finds it missing, or without the right to connect.
fn bind_open(path: &Path) -> io::Result<UnixListener> {
    let fresh = fresh_name(path);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o666))?;
    fs::rename(&fresh, path)?;
    Ok(listener)
}

fn fresh_name(path: &Path) -> PathBuf {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    fresh.into()
}

/// The directory on the way that others may not pass through, if any.
fn closed_directory(directory: &Path) -> Option<&Path> {
    let is_closed = |path: &&Path| fs::metadata(path).is_ok_and(|it| it.mode() & 0o001 == 0);
    directory.ancestors().filter(|path| path.is_absolute()).find(is_closed)
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

impl AsFd for WorkloadSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for WorkloadSocket {
    fn drop(&mut self) {
        let bequeathed = self.bequest.0.load(Ordering::SeqCst);
        if bequeathed || !inode(&self.path).is_ok_and(|now| now == self.inode) {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the socket of the Workload API stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_may_connect_and_only_the_owner_may_replace() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("public/api.sock");
        let socket = WorkloadSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o666);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o755);
        assert!(matches!(WorkloadSocket::bind(&path), Err(ApiSocketError::InUse(_))));
        drop(socket);
        assert!(!path.exists());
        fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o777)).unwrap();
        let refused = WorkloadSocket::bind(&path);
        assert!(matches!(refused, Err(ApiSocketError::OpenDirectory(_))), "{refused:?}");
    }

    #[tokio::test]
    async fn a_successor_keeps_its_socket_when_the_predecessor_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        let first = WorkloadSocket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = WorkloadSocket::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }
}
