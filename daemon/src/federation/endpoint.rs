//! A port that anybody may ask: HTTP/1.1 over TLS, or in the clear on a loopback address behind
//! somebody else's TLS. Everything about a connection is bounded: how many there are, in all and of
//! one address, and how long each may last.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::server::ResolvesServerCert;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::certificate::Shown;
use super::tls;
use crate::shutdown::{Stop, Tasks};

/// Connections at one time. Chosen: whoever federates asks once in minutes.
const CONNECTIONS: usize = 512;
/// Connections of one address at one time.
const OF_ONE: usize = 32;
/// The longest that one may last, TLS included.
const LONGEST: Duration = Duration::from_secs(30);
/// The longest that one may take to say what it wants.
const HEADERS: Duration = Duration::from_secs(10);
/// How long to wait when `accept` fails, as it does without file descriptors.
const PAUSE: Duration = Duration::from_millis(200);
/// How long answers under way may take once the daemon stops.
const DRAIN: Duration = Duration::from_secs(2);

/// Why an endpoint cannot be served.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// The address.
    #[error("{name} cannot listen on {address}")]
    Listen {
        /// Which endpoint.
        name: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// TLS.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// What is answered on a port.
pub type EndpointRoutes = Router;

/// A port, bound.
pub struct Endpoint {
    name: &'static str,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    routes: Router,
}

impl AsFd for Endpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Endpoint {
    /// Binds the port. Without a certificate it speaks in the clear.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub async fn bind(
        name: &'static str,
        address: SocketAddr,
        shown: Option<Shown>,
        routes: Router,
    ) -> Result<Self, EndpointError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| EndpointError::Listen { name, address, source })?;
        Self::on(name, listener, shown, routes)
    }

    /// The same on a port that is bound.
    ///
    /// # Errors
    /// See [`EndpointError`].
    pub fn on(
        name: &'static str,
        listener: TcpListener,
        shown: Option<Shown>,
        routes: Router,
    ) -> Result<Self, EndpointError> {
        let tls = shown
            .map(|shown| {
                let shown: Arc<dyn ResolvesServerCert> = Arc::new(shown);
                tls::server(shown).map(|config| TlsAcceptor::from(Arc::new(config)))
            })
            .transpose()?;
        Ok(Self { name, listener, tls, routes })
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until the daemon drains.
    pub async fn serve(self, mut stop: Stop) {
        let Self { name, listener, tls, routes } = self;
        let (room, guests) = (Arc::new(Semaphore::new(CONNECTIONS)), Guests::default());
        let mut connections = Tasks::new();
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&room).acquire_owned().await else { break };
            let accepted = tokio::select! {
                biased;
                () = stop.draining() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    // Closed at once: whoever has so many open has no use for more.
                    let Some(guest) = guests.receive(peer.ip()) else { continue };
                    let (tls, routes) = (tls.clone(), routes.clone());
                    connections.spawn(name, async move {
                        let _held = (place, guest);
                        let served = tokio::time::timeout(LONGEST, converse(stream, tls, routes));
                        if let Ok(Err(error)) = served.await {
                            tracing::debug!(%peer, %error, name, "not served");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, name, "accept failed; going on after a pause");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        drop(listener);
        connections.drain(DRAIN).await;
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("name", &self.name).finish_non_exhaustive()
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn converse(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    routes: Router,
) -> Result<(), AnyError> {
    match tls {
        Some(tls) => answer(tls.accept(stream).await?, routes).await,
        None => answer(stream, routes).await,
    }
}

async fn answer<S>(stream: S, routes: Router) -> Result<(), AnyError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS);
    Ok(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes)).await?)
}

/// How many connections each address has.
#[derive(Debug, Clone, Default)]
struct Guests(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection of an address.
#[derive(Debug)]
struct Guest {
    guests: Guests,
    address: IpAddr,
}

/// Who is counted together: an address, of IPv6 its network of 64 bits.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & (u128::MAX << 64)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

impl Guests {
    fn receive(&self, address: IpAddr) -> Option<Guest> {
        let address = network_of(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= OF_ONE {
            return None;
        }
        *count += 1;
        Some(Guest { guests: self.clone(), address })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut counts = self.guests.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}
