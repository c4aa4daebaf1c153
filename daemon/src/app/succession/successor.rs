//! How a daemon succeeds one that runs: asks it, takes what it gives, and writes down what it records
//! while it drains.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream as BlockingStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::admin::dump::{DrainDump, Replace};
use crate::app::StartError;
use crate::audit::Inheritance;
use crate::bpf::{ABI_VERSION, Kernel};
use crate::cli;
use crate::config::Config;
use crate::sys::pass_fds;
use crate::sys::service_manager::Passed;
use crate::workload::NetnsCookie;

use super::predecessor::PATIENCE;
use super::words::{Offer, ToPredecessor, ToSuccessor, hear, hear_blocking, meeting_place, say};

/// How long the daemon that runs may take for its offer.
const OFFER: Duration = Duration::from_secs(10);

/// A daemon that runs and is ready to be succeeded.
#[derive(Debug)]
pub(in crate::app) struct Predecessor {
    stream: BlockingStream,
    offer: Offer,
    sockets: Vec<Passed>,
}

/// Asks the daemon that runs. None if none does. Blocks, and needs no runtime: the process has yet
/// to move to the cgroup of its predecessor.
///
/// # Errors
/// It refuses, or is not of this instance; it goes on.
pub(in crate::app) fn ask(
    config: &Config,
    pins: &Path,
    netns: NetnsCookie,
) -> Result<Option<Predecessor>, StartError> {
    let at = meeting_place(&config.admin.socket);
    let place = Place::make(&at).map_err(StartError::Succession)?;
    let order = Replace { version: env!("CARGO_PKG_VERSION").to_owned(), abi_version: ABI_VERSION };
    let answer = cli::ask_to_replace(&config.admin.socket, &order);
    if answer.map_err(StartError::NotReplaced)?.is_none() {
        tracing::info!("no daemon runs that could be replaced");
        return Ok(None);
    }
    let (offer, sockets, stream) = place.meet().map_err(StartError::Succession)?;
    let other = |what| StartError::OtherInstance { pid: offer.pid, what };
    if offer.pins != pins {
        return Err(other("capture.instance or capture.bpffs"));
    }
    if offer.attached_at != config.capture.cgroup {
        return Err(other("capture.cgroup"));
    }
    if offer.netns != netns.0 {
        return Err(other("network namespace"));
    }
    Ok(Some(Predecessor { stream, offer, sockets }))
}

/// The successor's own socket; gone when it is dropped.
struct Place<'a> {
    listener: UnixListener,
    path: &'a Path,
}

impl<'a> Place<'a> {
    fn make(path: &'a Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// Who was asked has connected by now.
    fn meet(self) -> io::Result<(Offer, Vec<Passed>, BlockingStream)> {
        self.listener.set_nonblocking(true)?;
        let (mut stream, _) = self.listener.accept()?;
        pass_fds::trusted_peer(&stream)?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(OFFER))?;
        let offer: Offer = hear_blocking(&mut stream)?;
        let sockets = pass_fds::receive(&stream)?;
        let sockets = offer.sockets.iter().cloned().zip(sockets);
        let sockets = sockets.map(|(name, socket)| Passed { name, socket }).collect();
        Ok((offer, sockets, stream))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // What stays is replaced by the next.
        let _removed = fs::remove_file(self.path).is_ok();
    }
}

impl Predecessor {
    /// Path of its cgroup.
    pub(in crate::app) fn cgroup(&self) -> &str {
        &self.offer.cgroup
    }

    /// The sockets that it gave.
    pub(in crate::app) fn sockets(&mut self) -> Vec<Passed> {
        std::mem::take(&mut self.sockets)
    }

    /// Has it let go of what only one daemon can have. From here on, nothing may take long.
    pub(in crate::app) async fn yields(self) -> Result<Yielding, StartError> {
        let Self { stream, offer, .. } = self;
        let yields = async {
            stream.set_read_timeout(None)?;
            stream.set_nonblocking(true)?;
            let mut stream = UnixStream::from_std(stream)?;
            say(&mut stream, &ToPredecessor::Yield).await?;
            match timeout(PATIENCE, hear(&mut stream))
                .await
                .map_err(|_| io::ErrorKind::TimedOut)??
            {
                ToSuccessor::Yielded => Ok(stream),
                _ => Err(io::ErrorKind::InvalidData.into()),
            }
        };
        let stream = yields.await.map_err(StartError::Succession)?;
        Ok(Yielding { stream, offer })
    }
}

/// A daemon that has let go. If this is dropped, it goes on.
#[derive(Debug)]
pub(in crate::app) struct Yielding {
    stream: UnixStream,
    offer: Offer,
}

impl Yielding {
    /// Its pid.
    pub(in crate::app) fn pid(&self) -> u32 {
        self.offer.pid
    }

    /// Its pid, and those of daemons before it that still drain.
    pub(in crate::app) fn pids(&self) -> Vec<u32> {
        std::iter::once(self.offer.pid).chain(self.offer.draining.iter().copied()).collect()
    }

    /// Tells it to drain: this daemon serves.
    pub(in crate::app) async fn taken(mut self) -> Result<Draining, StartError> {
        let said = say(&mut self.stream, &ToPredecessor::Taken).await;
        said.map_err(StartError::Succession)?;
        Ok(Draining { stream: self.stream, offer: self.offer })
    }
}

/// A daemon that drains.
#[derive(Debug)]
pub(in crate::app) struct Draining {
    stream: UnixStream,
    offer: Offer,
}

impl Draining {
    /// What is known of it before it says more.
    fn dump(&self) -> DrainDump {
        let Offer { pid, version, .. } = &self.offer;
        DrainDump { pid: *pid, version: version.clone(), ..DrainDump::default() }
    }

    /// Writes down what it records until it is gone, and shows how far it is.
    pub(in crate::app) async fn follow(
        mut self,
        mut inheritance: Inheritance,
        kernel: Arc<Kernel>,
        shown: watch::Sender<Vec<DrainDump>>,
    ) {
        shown.send_modify(|all| all.push(self.dump()));
        let in_order = loop {
            match hear(&mut self.stream).await {
                Ok(ToSuccessor::Record(record)) => inheritance.record(record).await,
                Ok(ToSuccessor::Progress(progress)) => shown.send_modify(|all| {
                    all.retain(|one| one.pid != self.offer.pid);
                    all.push(progress);
                }),
                Ok(ToSuccessor::Drained) => break true,
                Ok(ToSuccessor::Yielded) => {}
                Err(_gone) => break false,
            }
        };
        let pid = self.offer.pid;
        tracing::info!(pid, in_order, "the daemon before this one is gone");
        inheritance.close(pid, in_order).await;
        for gone in std::iter::once(pid).chain(self.offer.draining) {
            if let Err(error) = kernel.forget_daemon(gone) {
                tracing::warn!(pid = gone, %error, "the programs still know a daemon that is gone");
            }
        }
        shown.send_modify(|all| all.retain(|one| one.pid != pid));
    }
}
