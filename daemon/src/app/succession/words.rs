//! What two daemons say to each other when one succeeds the other, in this order: [`Offer`] with
//! the sockets behind it, [`ToPredecessor::Yield`], [`ToSuccessor::Yielded`],
//! [`ToPredecessor::Taken`], then records and progress until [`ToSuccessor::Drained`]. Either may
//! hang up at any time: before `Taken` nothing has changed.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::admin::dump::DrainDump;
use crate::audit::Record;

/// Longest word. Chosen: a record of the audit log is some kilobytes long.
const LONGEST: u32 = 1 << 20;

/// Who the daemon is, and what it gives away.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::app) struct Offer {
    pub(in crate::app) pid: u32,
    pub(in crate::app) version: String,
    /// Path of its own cgroup: the successor joins it, since the programs know daemons by it.
    pub(in crate::app) cgroup: String,
    /// Where its programs are pinned.
    pub(in crate::app) pins: PathBuf,
    /// The cgroup that they are attached to.
    pub(in crate::app) attached_at: String,
    /// Cookie of its network namespace.
    pub(in crate::app) netns: u64,
    /// Pids of daemons before it that still drain.
    pub(in crate::app) draining: Vec<u32>,
    /// Names of the sockets that follow, in this order.
    pub(in crate::app) sockets: Vec<String>,
}

/// What the successor says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ToPredecessor {
    /// All is prepared: let go of what only one daemon can have.
    Yield,
    /// The successor serves.
    Taken,
}

/// What the predecessor says, after its [`Offer`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToSuccessor {
    /// It has let go.
    Yielded,
    /// A record for the log.
    Record(Box<Record>),
    /// How far it has drained.
    Progress(DrainDump),
    /// It has ended in order.
    Drained,
}

/// Where the successor waits for its predecessor: beside the control socket, where only root and
/// the daemon's own user come.
pub(super) fn meeting_place(control_socket: &Path) -> PathBuf {
    control_socket.with_extension("successor")
}

/// # Cancel safety
/// Not cancel safe: half a word may have been said.
pub(super) async fn say(
    to: &mut (impl AsyncWrite + Unpin),
    word: &impl Serialize,
) -> io::Result<()> {
    let bytes = serde_json::to_vec(word)?;
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= LONGEST);
    let length = length.ok_or(io::ErrorKind::InvalidData)?;
    to.write_all(&[&length.to_be_bytes()[..], &bytes].concat()).await
}

/// # Cancel safety
/// Not cancel safe: half a word may have been heard.
pub(super) async fn hear<T: DeserializeOwned>(
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await?;
    let mut bytes = vec![0; length_of(length)?];
    from.read_exact(&mut bytes).await?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// As [`hear`], where there is no runtime yet.
pub(super) fn hear_blocking<T: DeserializeOwned>(from: &mut impl io::Read) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut bytes = vec![0; length_of(length)?];
    from.read_exact(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn length_of(bytes: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(bytes);
    if length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    usize::try_from(length).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn words_arrive_whole_and_bounded() {
        let (mut one, mut other) = tokio::io::duplex(64);
        let record = Box::new(Record::daemon("drained", Some("x".repeat(500))));
        let said = record.clone();
        let (told, heard) = tokio::join!(
            async move { say(&mut one, &ToSuccessor::Record(said)).await.map(|()| one) },
            hear::<ToSuccessor>(&mut other)
        );
        assert!(matches!(heard.unwrap(), ToSuccessor::Record(heard) if heard == record));
        let mut one = told.unwrap();
        one.write_all(&[0xff; 4]).await.unwrap();
        assert!(hear::<ToSuccessor>(&mut other).await.is_err());
        drop(one);
        assert!(hear::<ToSuccessor>(&mut other).await.is_err());
    }
}
