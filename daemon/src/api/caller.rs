//! One caller: the process at the other end of a connection, what it may still cost, and what it
//! is entitled to. Its facts are read anew for each answer: a process that has executed another
//! program or changed its user since is judged by what it is now.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tonic::transport::server::Connected;
use tonic::{Request, Status};

use super::authority::Authority;
use super::limits::Counted;
use super::status;
use crate::identity::{Entitlement, IdentityError, Subscription};
use crate::sys::cgroup::Cgroups;
use crate::sys::clock;
use crate::sys::unix_peer::UnixPeer;
use crate::workload::ProcessClaim;

/// The process at the other end of a connection.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) peer: UnixPeer,
    pub(super) cgroups: Cgroups,
    pub(super) counted: Counted,
}

impl Caller {
    /// The caller of a request, if its cgroup may ask for this method now.
    pub(super) fn of<T>(request: &Request<T>, method: &str) -> Result<Arc<Self>, Status> {
        let caller = request.extensions().get::<Arc<Self>>().ok_or_else(status::not_attested)?;
        if caller.counted.may_ask() {
            Ok(Arc::clone(caller))
        } else {
            Err(status::rate_limited(method))
        }
    }

    /// What it is entitled to now.
    ///
    /// # Errors
    /// What it is told.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn entitlement(
        &self,
        subscription: &mut Subscription,
    ) -> Result<Entitlement, Refusal> {
        let claim = self.facts().map_err(|error| Refusal::for_good(status::of_peer(&error)))?;
        let entitled = subscription.current(&claim).await;
        // What was just proved is of no use to whoever holds the socket after the caller.
        if !self.peer.is_alive() {
            return Err(Refusal::for_good(status::not_attested()));
        }
        entitled.map_err(|error| Refusal {
            status: status::of_identity(&error),
            passes: matches!(error, IdentityError::NoSvid { .. } | IdentityError::Doubtful { .. }),
        })
    }

    fn facts(&self) -> io::Result<ProcessClaim> {
        let seen_ns = u64::try_from(clock::since_boot().as_nanos()).unwrap_or(u64::MAX);
        self.peer.facts(&self.cgroups, seen_ns)
    }
}

/// Why a caller gets nothing.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: Status,
    /// Its entries are as they were, and it may keep what it has: the issuer, or what names users
    /// and groups, fails just now.
    pub(super) passes: bool,
}

impl Refusal {
    fn for_good(status: Status) -> Self {
        Self { status, passes: false }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        refusal.status
    }
}

/// A connection and who made it.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    caller: Arc<Caller>,
    authority: Authority,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, caller: Caller) -> Self {
        Self { stream, caller: Arc::new(caller), authority: Authority::new() }
    }
}

impl Connected for Connection {
    type ConnectInfo = Arc<Caller>;

    fn connect_info(&self) -> Self::ConnectInfo {
        Arc::clone(&self.caller)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if let Some(fresh) = buf.filled_mut().get_mut(before..) {
            self.authority.pass(fresh);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
