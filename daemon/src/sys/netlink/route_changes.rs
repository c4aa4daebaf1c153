#![expect(unsafe_code, reason = "tokio asks for a promise about the registered descriptor")]
//! Tells when the answer to "which source address?" may have changed: addresses, links, routes or
//! rules did. Says nothing of what changed; read [`super::routes::source_routes`] again.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

/// Links, addresses and routes of both families, IPv4 rules (those of IPv6 have no bit).
/// Source: `RTMGRP_*`, `include/uapi/linux/rtnetlink.h`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400;

/// Tells when addresses, links or routes change.
#[derive(Debug)]
pub struct RouteChanges {
    socket: AsyncFd<OwnedFd>,
    pending_since: Option<Instant>,
}

/// Changes come in bursts: word is given after a time without any.
const QUIET: Duration = Duration::from_millis(100);
/// But no later than this after the first.
const LATEST: Duration = Duration::from_secs(1);

impl RouteChanges {
    /// Starts to listen. Read the table after this, so that no change falls in between.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn listen() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        // SAFETY: an `OwnedFd` keeps its descriptor open, and ours is never replaced.
        let socket = unsafe { AsyncFd::register(socket)? };
        Ok(Self { socket, pending_since: None })
    }

    /// Resolves once something may have changed and a burst of changes is over.
    ///
    /// # Cancel safety
    /// Cancel safe: a change that was heard of is told by the next call.
    pub async fn changed(&mut self) -> io::Result<()> {
        if self.pending_since.is_none() {
            self.hear().await?;
        }
        let since = *self.pending_since.get_or_insert_with(Instant::now);
        loop {
            let until = (Instant::now() + QUIET).min(since + LATEST);
            match timeout_at(until, self.hear()).await {
                Ok(heard) => heard?,
                Err(_) => break,
            }
            if Instant::now() >= since + LATEST {
                break;
            }
        }
        self.pending_since = None;
        Ok(())
    }

    /// Waits for one message, and drops all that are there: only that they came matters.
    async fn hear(&self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let mut heard = false;
        loop {
            let mut ready = self.socket.readable().await?;
            loop {
                let fd = self.socket.get_ref().as_raw_fd();
                match recv(fd, &mut buffer, MsgFlags::MSG_TRUNC) {
                    // Messages were lost for want of room: that too is a change.
                    Ok(_) | Err(Errno::ENOBUFS) => heard = true,
                    Err(Errno::EINTR) => {}
                    Err(Errno::EAGAIN) => break,
                    Err(error) => return Err(error.into()),
                }
            }
            ready.clear_ready();
            if heard {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    /// A network namespace belongs to a thread: one of its own, so that no other test sees it.
    #[test]
    fn privileged_a_burst_of_changes_is_told_once() {
        let told_once = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(told_once());
        };
        std::thread::spawn(told_once).join().unwrap();
    }

    async fn told_once() {
        assert!(nix::unistd::geteuid().is_root(), "needs root: run it by `cargo xtask test`");
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let mut changes = RouteChanges::listen().unwrap();
        let quiet = tokio::time::timeout(QUIET * 2, changes.changed()).await;
        assert!(quiet.is_err(), "nothing has changed yet");
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(up.success());
        // Dropping a call half-way loses nothing.
        let halfway = tokio::time::timeout(QUIET / 2, changes.changed()).await;
        assert!(halfway.is_err());
        tokio::time::timeout(LATEST * 2, changes.changed()).await.unwrap().unwrap();
        let again = tokio::time::timeout(QUIET * 2, changes.changed()).await;
        assert!(again.is_err(), "one burst, one word");
    }
}
