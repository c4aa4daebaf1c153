//! What a daemon does for the one that succeeds it: lets it in, gives it its sockets, lets go, and
//! sends it what it records while it drains.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::admin::dump::{DrainDump, Replace};
use crate::admin::{Asker, Refused};
use crate::audit::Record;
use crate::bpf::ABI_VERSION;
use crate::sys::pass_fds;

use super::words::{Offer, ToPredecessor, ToSuccessor, hear, meeting_place, say};

/// Longer than a successor takes to load its programs, or to start, on a busy machine.
pub(in crate::app) const PATIENCE: Duration = Duration::from_secs(30);
/// How often the successor is told how far this daemon has drained.
const PROGRESS: Duration = Duration::from_millis(250);

/// A process that wants to take this one's place.
#[derive(Debug)]
pub(in crate::app) struct Candidate {
    stream: UnixStream,
    pub(in crate::app) pid: u32,
    pub(in crate::app) version: String,
}

/// Meets whoever asked over the control socket, at its own socket, and nobody else.
pub(in crate::app) async fn admit(
    control_socket: &Path,
    order: Replace,
    asker: Asker,
) -> Result<Candidate, Refused> {
    let Replace { version, abi_version } = order;
    if abi_version < ABI_VERSION {
        return Err(Refused::Wrong(format!(
            "version {version} speaks ABI version {abi_version}, which is older than {ABI_VERSION}, \
             in force now; to go back, stop the daemon, run `tacit uninstall`, and start the older one"
        )));
    }
    let at = meeting_place(control_socket);
    let failed = |error: io::Error| Refused::Failed(format!("{}: {error}", at.display()));
    let stream = UnixStream::connect(&at).await.map_err(failed)?;
    let pid = pass_fds::trusted_peer(&stream).map_err(failed)?;
    if asker.pid.is_some_and(|asked| asked != pid) {
        return Err(Refused::Wrong(format!("process {pid} is not the one that asked")));
    }
    Ok(Candidate { stream, pid, version })
}

/// Sockets that can be given away, by the names that the other side knows them by.
#[derive(Debug, Default)]
pub(in crate::app) struct Passable(Vec<(&'static str, OwnedFd)>);

impl Passable {
    pub(in crate::app) fn add(&mut self, name: &'static str, socket: &impl AsFd) -> io::Result<()> {
        self.0.push((name, socket.as_fd().try_clone_to_owned()?));
        Ok(())
    }

    fn names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| (*name).to_owned()).collect()
    }
}

/// A candidate that has been offered everything.
#[derive(Debug)]
pub(in crate::app) struct Successor {
    stream: UnixStream,
    pub(in crate::app) pid: u32,
}

impl Successor {
    /// Offers everything to a candidate, and waits until it is prepared.
    ///
    /// # Cancel safety
    /// Dropped, the candidate sees the end of it.
    pub(in crate::app) async fn prepare(
        candidate: Candidate,
        mut offer: Offer,
        sockets: &Passable,
    ) -> io::Result<Self> {
        let Candidate { mut stream, pid, .. } = candidate;
        offer.sockets = sockets.names();
        say(&mut stream, &offer).await?;
        let sockets: Vec<BorrowedFd<'_>> = sockets.0.iter().map(|(_, it)| it.as_fd()).collect();
        pass_fds::send(&stream, &sockets)?;
        let mut successor = Self { stream, pid };
        successor.expect(ToPredecessor::Yield).await?;
        Ok(successor)
    }

    /// Says that this daemon has let go, and waits until the successor serves.
    pub(in crate::app) async fn yields(&mut self) -> io::Result<()> {
        say(&mut self.stream, &ToSuccessor::Yielded).await?;
        self.expect(ToPredecessor::Taken).await
    }

    async fn expect(&mut self, word: ToPredecessor) -> io::Result<()> {
        let heard = timeout(PATIENCE, hear::<ToPredecessor>(&mut self.stream)).await;
        match heard.map_err(|_elapsed| io::ErrorKind::TimedOut)?? {
            heard if heard == word => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Sends all records, and how far the daemon has drained, until there are no more; then says so.
    ///
    /// # Errors
    /// The successor is gone: nobody records any more what this daemon does.
    pub(in crate::app) async fn report(
        mut self,
        mut records: mpsc::Receiver<Box<Record>>,
        progress: impl Fn() -> DrainDump,
    ) -> io::Result<()> {
        let mut tick = interval(PROGRESS);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let word = tokio::select! {
                biased;
                record = records.recv() => match record {
                    Some(record) => ToSuccessor::Record(record),
                    None => return say(&mut self.stream, &ToSuccessor::Drained).await,
                },
                _ = tick.tick() => ToSuccessor::Progress(progress()),
            };
            say(&mut self.stream, &word).await?;
        }
    }
}
