//! The loopback port: `/metrics`, `/live` and `/ready`. Tells nothing that a local user may not
//! know, and takes no orders.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};

use super::bounded::{Bound, Bounded, pause};
use super::{Readiness, routes};
use crate::metrics::Metrics;
use crate::shutdown::Stop;

/// The port, bound.
#[derive(Debug)]
pub struct HealthListener {
    listener: TcpListener,
}

impl HealthListener {
    /// Binds the port.
    ///
    /// # Errors
    /// If the address is taken, or is not a loopback address: metrics name identities and rules,
    /// which are nobody's business outside of the host.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        if !address.ip().is_loopback() {
            let what = format!("{address} is not a loopback address");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        Ok(Self { listener: TcpListener::bind(address).await? })
    }

    /// Takes over one that a daemon before this one has bound.
    ///
    /// # Errors
    /// When the runtime cannot wait on it.
    pub fn take_over(listener: std::net::TcpListener) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::from_std(listener)? })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until told to stop.
    pub async fn serve(self, metrics: Arc<Metrics>, readiness: Readiness, mut stop: Stop) {
        let listener = Loopback { listener: self.listener, bound: Bound::new() };
        let serving = axum::serve(listener, routes::health(metrics, readiness));
        let stopped = async move { stop.draining().await };
        if let Err(error) = serving.with_graceful_shutdown(stopped).await {
            tracing::error!(%error, "the health port failed");
        }
    }
}

impl AsFd for HealthListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

struct Loopback {
    listener: TcpListener,
    bound: Bound,
}

impl Listener for Loopback {
    type Io = Bounded<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let room = self.bound.room().await;
            match self.listener.accept().await {
                Ok((stream, peer)) => return (Bounded::new(stream, room), peer),
                Err(error) => pause(&error).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
