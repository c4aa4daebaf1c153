//! The Unix socket of the commands: its directory and itself closed to everybody but the daemon's
//! user and root, and each caller's user checked again by what the kernel says of the peer.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};

use super::bounded::{Bound, Bounded, pause};
use super::{Asker, Changes, Snapshots, routes};
use crate::shutdown::Stop;

/// Why the socket cannot be made.
#[derive(Debug, Error)]
pub enum SocketError {
    /// The directory or the socket.
    #[error("the control socket {0} cannot be made")]
    Bind(PathBuf, #[source] io::Error),
    /// Others could put a socket of their own in its place.
    #[error("directory {0} may be written by others than its owner; make its mode 0700")]
    OpenDirectory(PathBuf),
    /// It answers.
    #[error("another daemon serves {0}")]
    InUse(PathBuf),
}

/// The socket, bound. Its file is removed when it is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// The file of the socket. Which one it is counts, not its name: a successor may have replaced it.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
    /// The user that made it: the daemon's own.
    owner: u32,
}

impl AdminSocket {
    /// Makes the socket, and its directory if need be. Replaces one that nobody serves. To be
    /// called on a runtime.
    ///
    /// # Errors
    /// Start-up errors: the operator has to mend the path or stop the other daemon.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |error| SocketError::Bind(path.to_owned(), error);
        Self::closed_directory(path)?;
        if BlockingStream::connect(path).is_ok() {
            return Err(SocketError::InUse(path.to_owned()));
        }
        Self::of(bind_closed(path).map_err(failed)?, path)
    }

    /// Makes the socket in place of that of a daemon which drains. To be called on a runtime.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn supersede(path: &Path) -> Result<Self, SocketError> {
        Self::closed_directory(path)?;
        let listener = bind_closed(path);
        Self::of(listener.map_err(|error| SocketError::Bind(path.to_owned(), error))?, path)
    }

    fn closed_directory(path: &Path) -> Result<(), SocketError> {
        let failed = |error| SocketError::Bind(path.to_owned(), error);
        let directory = path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        if fs::metadata(directory).map_err(failed)?.mode() & 0o022 != 0 {
            return Err(SocketError::OpenDirectory(directory.to_owned()));
        }
        Ok(())
    }

    fn of(listener: UnixListener, path: &Path) -> Result<Self, SocketError> {
        let file =
            SocketFile::of(path).map_err(|error| SocketError::Bind(path.to_owned(), error))?;
        Ok(Self { listener, file })
    }

    /// Answers until told to stop, and then what has been asked until then.
    pub async fn serve(
        self,
        snapshots: Arc<dyn Snapshots>,
        changes: Arc<dyn Changes>,
        mut stop: Stop,
    ) {
        let Self { listener, file } = self;
        let listener = RootOnly { listener, owner: file.owner, bound: Bound::new() };
        let routes = routes::control(snapshots).merge(routes::changes(changes));
        let serving = axum::serve(listener, routes.into_make_service_with_connect_info::<Asker>());
        let stopped = async move { stop.draining().await };
        if let Err(error) = serving.with_graceful_shutdown(stopped).await {
            tracing::error!(%error, "the control socket failed");
        }
        drop(file);
    }
}

/// Binds under another name and moves the socket into place when its mode is right: at no time
/// can anybody else connect to it, and nobody finds it missing.
fn bind_closed(path: &Path) -> io::Result<UnixListener> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
    fs::rename(&fresh, path)?;
    Ok(listener)
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        let file = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), inode: inode(&file), owner: file.uid() })
    }
}

fn inode(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !fs::symlink_metadata(&self.path).is_ok_and(|now| inode(&now) == self.inode) {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the control socket stays behind");
        }
    }
}

/// Accepts connections of root and of the daemon's own user; closes all others.
struct RootOnly {
    listener: UnixListener,
    owner: u32,
    bound: Bound,
}

impl RootOnly {
    /// Closed is right where the kernel does not say who it is: nobody else has a right to ask.
    fn admits(&self, stream: &UnixStream) -> Option<Asker> {
        let peer = stream.peer_cred();
        let uid = peer.as_ref().map(tokio::net::unix::UCred::uid);
        if !uid.as_ref().is_ok_and(|uid| *uid == 0 || *uid == self.owner) {
            tracing::warn!(?uid, "a user without right to it tried the control socket");
            return None;
        }
        let pid = |pid: i32| u32::try_from(pid).ok();
        peer.ok().map(|peer| Asker { uid: peer.uid(), pid: peer.pid().and_then(pid) })
    }
}

impl Listener for RootOnly {
    type Io = Bounded<UnixStream>;
    type Addr = Asker;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let room = self.bound.room().await;
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    if let Some(asker) = self.admits(&stream) {
                        return (Bounded::new(stream, room), asker);
                    }
                }
                Err(error) => pause(&error).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(Asker { uid: self.owner, pid: Some(std::process::id()) })
    }
}

impl Connected<IncomingStream<'_, RootOnly>> for Asker {
    fn connect_info(stream: IncomingStream<'_, RootOnly>) -> Self {
        *stream.remote_addr()
    }
}
