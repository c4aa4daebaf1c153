//! The service manager: it is told how the daemon fares, and keeps the daemon's listening sockets
//! while there is no daemon. Sources: `sd_notify(3)`, `sd_listen_fds(3)`, `systemd.service(5)`
//! (`FileDescriptorStoreMax=`).
#![expect(
    unsafe_code,
    reason = "the descriptors that the service manager passed on are taken over"
)]

use std::env;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use sd_notify::NotifyState;

/// A socket that the service manager has passed on, under the name that it was given.
#[derive(Debug)]
pub struct Passed {
    /// `FDNAME=`, or `FileDescriptorName=` of a socket unit.
    pub name: String,
    /// The socket.
    pub socket: OwnedFd,
}

/// Takes over what was passed on to this process. The second call gives nothing.
///
/// # Errors
/// When the service manager's words about it are malformed.
pub fn passed() -> io::Result<Vec<Passed>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(Vec::new());
    }
    let take = |(fd, name)| {
        // SAFETY: the service manager opened this descriptor for this process alone
        // (`LISTEN_PID`), and the flag above lets nobody take it twice.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        Passed { name, socket }
    };
    Ok(sd_notify::listen_fds_with_names()?.map(take).collect())
}

/// Whether the service manager says that it keeps descriptors (systemd 254 and later; for older
/// ones the unit can say so: `Environment=FDSTORE=8`).
pub fn keeps_descriptors() -> bool {
    let max = env::var_os("FDSTORE").and_then(|max| max.into_string().ok());
    is_there() && max.and_then(|max| max.parse::<u32>().ok()).is_some_and(|max| max > 0)
}

/// Gives a socket into keeping: it is passed on to the next process of the service.
pub fn keep(name: &str, socket: &impl AsFd) -> io::Result<()> {
    let state = [NotifyState::FdStore, NotifyState::FdName(name)];
    sd_notify::notify_with_fds(&state, &[socket.as_fd()])
}

/// What was kept under this name need not be kept any more.
pub fn release(name: &str) -> io::Result<()> {
    sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)])
}

/// The daemon serves, and is this process: not the one that was started, if it took that one's
/// place.
pub fn ready(pid: u32) {
    tell(&[NotifyState::MainPid(pid), NotifyState::Ready]);
}

/// The daemon drains.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn is_there() -> bool {
    env::var_os("NOTIFY_SOCKET").is_some()
}

/// A service manager that does not listen changes nothing for the daemon.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
