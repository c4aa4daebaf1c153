//! Connecting: to the peer on behalf of a local workload, and to a local listener on behalf of a
//! client. Says truly why it could not.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::AsFd as _;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout_at};

use super::FlowSource;
use super::relay::ResetOnDrop;
use super::state::ProxySettings;
use crate::audit::{LocalFailure, Outcome, PeerFailure};
use crate::policy::DenyReason;
use crate::sys::sockopt;
use crate::workload::{ClientAddr, Flow, ListenAddr, Listener, ProcessClaim};

/// Time between two keepalive probes. Chosen: with [`PROBES`], a dead peer is noticed in 150 s.
const PROBE_INTERVAL: Duration = Duration::from_secs(30);
/// Unanswered probes after which the connection ends.
const PROBES: u32 = 5;
/// First pause before the kernel is asked again who has accepted; it doubles.
const ACCEPTED_PAUSE: Duration = Duration::from_micros(100);

/// Sets what every socket of a connection has. A socket that refuses is carried on without.
pub(super) fn tune(socket: &TcpStream, settings: &ProxySettings) {
    let timeout = settings.user_timeout;
    let tuned = sockopt::send_at_once(socket)
        .and_then(|()| timeout.map_or(Ok(()), |it| sockopt::set_user_timeout(socket, it)))
        .and_then(|()| sockopt::set_keepalive(socket, settings.keepalive, PROBE_INTERVAL, PROBES));
    if let Err(error) = tuned {
        tracing::debug!(%error, "a socket option could not be set");
    }
}

/// Dials where the workload wanted to go, from where it would have come: from the port of its own
/// socket if that can be had, so that the peer sees what the workload sees; from its own address
/// only if the workload bound it itself. Otherwise routing chooses, as it would have.
///
/// # Errors
/// How the connection ended, for the record.
///
/// # Cancel safety
/// Dropped, it gives the dial up.
pub(super) async fn dial_peer(
    flow: &Flow,
    settings: &ProxySettings,
) -> Result<ResetOnDrop, Outcome> {
    let deadline = Instant::now() + settings.connect_timeout;
    let to = scoped(flow.original_dst.get(), flow.bound_ifindex);
    let bound = (flow.source_bound && !flow.source.ip().is_unspecified())
        .then(|| scoped(canonical(flow.source), flow.bound_ifindex));
    let any_port = bound.map(|mut addr| {
        addr.set_port(0);
        addr
    });
    let exact = match flow.source.port() {
        0 => None,
        port => Some(bound.map_or(From::Port(port), From::Address)),
    };
    if let Some(from) = exact {
        match dial(to, from, flow.bound_ifindex, deadline).await {
            Err(error) if is_taken(&error) => {}
            done => return settle(done, settings).map_err(|error| peer_failed(&error)),
        }
    }
    let from = any_port.map_or(From::Anywhere, From::Address);
    let dialled = dial(to, from, flow.bound_ifindex, deadline).await;
    settle(dialled, settings).map_err(|error| peer_failed(&error))
}

/// Dials the local listener at the address that the client dialled, marked as the daemon's own.
///
/// # Errors
/// How the connection ended, for the record.
pub(super) async fn dial_listener(
    flows: &dyn FlowSource,
    listen: ListenAddr,
    client: ClientAddr,
    settings: &ProxySettings,
) -> Result<ResetOnDrop, Outcome> {
    let deadline = Instant::now() + settings.connect_timeout;
    let dialled = async {
        let socket = new_socket(listen.get())?;
        flows.mark_last_mile(socket.as_fd(), client)?;
        connect(socket, listen.get(), deadline).await
    };
    settle(dialled.await, settings).map_err(|error| listener_failed(&error))
}

/// Waits until the kernel has accepted our dial on behalf of the listener that was attested.
/// Closed: whoever else accepts on this address is not the one whose identity was shown.
///
/// # Errors
/// [`DenyReason::ListenerChanged`], or that the application does not accept.
pub(super) async fn check_accepted(
    flows: &dyn FlowSource,
    dialled: &TcpStream,
    attested: &ProcessClaim,
    settings: &ProxySettings,
) -> Result<(), Outcome> {
    let failed = |error: io::Error| listener_failed(&error);
    let (local, remote) =
        (dialled.local_addr().map_err(failed)?, dialled.peer_addr().map_err(failed)?);
    let deadline = Instant::now() + settings.connect_timeout;
    let mut pause = ACCEPTED_PAUSE;
    // Its final ACK may still be on its way, or the backlog full.
    loop {
        match flows.accepted_by(local, remote) {
            Some(listener) if is_same_owner(&listener, attested) => return Ok(()),
            Some(_) => return Err(Outcome::Denied(DenyReason::ListenerChanged)),
            None if Instant::now() >= deadline => {
                return Err(Outcome::LocalFailed(LocalFailure::ConnectTimedOut));
            }
            None => sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Runs `work`, which the application waits for, unless the application is gone first.
///
/// # Cancel safety
/// As cancel safe as `work`.
pub(super) async fn while_there<T>(
    app: &TcpStream,
    work: impl Future<Output = Result<T, Outcome>>,
) -> Result<T, Outcome> {
    let gone = async {
        match app.ready(Interest::ERROR).await {
            Ok(ready) if ready.is_error() => {}
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = gone => Err(Outcome::LocalFailed(LocalFailure::Abandoned)),
        done = work => done,
    }
}

/// Workers of one service are many processes; what makes them one is who they are and what runs.
fn is_same_owner(listener: &Listener, attested: &ProcessClaim) -> bool {
    let accepted = &listener.claim;
    accepted.uid == attested.uid
        && accepted.gid == attested.gid
        && accepted.real_uid == attested.real_uid
        && accepted.cgroup == attested.cgroup
        && accepted.netns == attested.netns
        && accepted.exe == attested.exe
}

fn settle(dialled: io::Result<TcpStream>, settings: &ProxySettings) -> io::Result<ResetOnDrop> {
    let socket = dialled?;
    tune(&socket, settings);
    Ok(ResetOnDrop::new(socket))
}

/// Where a dial comes from.
enum From {
    /// Wherever routing says.
    Anywhere,
    /// Wherever routing says, on this port.
    Port(u16),
    /// This address; on any port if it has none.
    Address(SocketAddr),
}

async fn dial(
    to: SocketAddr,
    from: From,
    ifindex: u32,
    deadline: Instant,
) -> io::Result<TcpStream> {
    let socket = new_socket(to)?;
    if ifindex != 0 {
        sockopt::bind_to_interface(&socket, ifindex)?;
    }
    match from {
        From::Anywhere => {}
        // Without binding: a bound port could not be shared with the workload's own socket.
        From::Port(port) => match sockopt::limit_local_ports(&socket, port, port) {
            Err(error) if error.kind() != io::ErrorKind::Unsupported => return Err(error),
            _ => {}
        },
        From::Address(from) => {
            if from.port() == 0 {
                sockopt::choose_port_at_connect(&socket)?;
            } else {
                // A workload may use one port for several destinations, in turn or at once.
                socket.set_reuseaddr(true)?;
            }
            socket.bind(from)?;
        }
    }
    connect(socket, to, deadline).await
}

fn new_socket(to: SocketAddr) -> io::Result<TcpSocket> {
    if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}

async fn connect(socket: TcpSocket, to: SocketAddr, deadline: Instant) -> io::Result<TcpStream> {
    match timeout_at(deadline, socket.connect(to)).await {
        Ok(connected) => connected,
        Err(_elapsed) => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// A link-local address means nothing without its interface.
fn scoped(addr: SocketAddr, ifindex: u32) -> SocketAddr {
    match addr.ip() {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => {
            SocketAddrV6::new(ip, addr.port(), 0, ifindex).into()
        }
        _ => addr,
    }
}

/// The address and port cannot be had; another port may do.
fn is_taken(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, InvalidInput, PermissionDenied};
    matches!(error.kind(), AddrInUse | AddrNotAvailable | InvalidInput | PermissionDenied)
}

fn peer_failed(error: &io::Error) -> Outcome {
    use io::ErrorKind as Kind;
    if is_exhausted(error) {
        return Outcome::LocalFailed(LocalFailure::Exhausted);
    }
    Outcome::PeerFailed(match error.kind() {
        Kind::TimedOut => PeerFailure::ConnectTimedOut,
        Kind::ConnectionRefused => PeerFailure::ConnectRefused,
        Kind::HostUnreachable | Kind::NetworkUnreachable => PeerFailure::Unreachable,
        _ => PeerFailure::ConnectFailed,
    })
}

fn listener_failed(error: &io::Error) -> Outcome {
    use io::ErrorKind as Kind;
    Outcome::LocalFailed(match error.kind() {
        _ if is_exhausted(error) => LocalFailure::Exhausted,
        Kind::TimedOut => LocalFailure::ConnectTimedOut,
        Kind::ConnectionRefused => LocalFailure::ConnectRefused,
        _ => LocalFailure::ConnectFailed,
    })
}

/// The node is out of descriptors, memory or local ports.
fn is_exhausted(error: &io::Error) -> bool {
    /// Source: `include/uapi/asm-generic/errno{-base,}.h`: ENOMEM, ENFILE, EMFILE, ENOBUFS.
    const NO_ROOM: [i32; 4] = [12, 23, 24, 105];
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error().is_some_and(|code| NO_ROOM.contains(&code))
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;

    use super::*;

    #[tokio::test]
    async fn what_is_dialled_and_accepted_notices_a_peer_that_is_gone() {
        let settings = ProxySettings {
            user_timeout: Some(Duration::from_secs(17)),
            keepalive: Duration::from_secs(23),
            ..ProxySettings::default()
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).await;
        let dialled = settle(dialled, &settings).unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        tune(&accepted, &settings);
        for socket in [SockRef::from(&*dialled), SockRef::from(&accepted)] {
            assert_eq!(socket.tcp_user_timeout().unwrap(), settings.user_timeout);
            assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), settings.keepalive);
        }
    }
}
