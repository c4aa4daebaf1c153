//! Accepting: one loop for each direction. A fault of `accept` pauses the loop and never ends it;
//! at drain it stops accepting, and connections go on until the deadline.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::sleep;

use super::dial::tune;
use super::relay::ResetOnDrop;
use super::state::{Proxy, ProxySettings};
use super::{inbound, outbound};
use crate::shutdown::{Stop, Tasks};

/// First pause after `accept` has failed; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// How many that wait for `accept` are served at drain: as many as the backlog holds.
const WAITING: usize = 4096;
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Serves captured connections of local workloads until the daemon stops.
pub async fn serve_outbound(listener: TcpListener, proxy: Arc<Proxy>, stop: Stop) {
    let serve = |socket, stop| outbound::serve(socket, Arc::clone(&proxy), stop);
    accept(listener, &proxy.settings, stop, "outbound connection", serve).await;
}

/// Serves connections to local workloads until the daemon stops.
pub async fn serve_inbound(listener: TcpListener, proxy: Arc<Proxy>, stop: Stop) {
    let serve = |socket, stop| inbound::serve(socket, Arc::clone(&proxy), stop);
    accept(listener, &proxy.settings, stop, "inbound connection", serve).await;
}

async fn accept<F>(
    listener: TcpListener,
    settings: &ProxySettings,
    mut stop: Stop,
    name: &'static str,
    serve: impl Fn(ResetOnDrop, Stop) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = Tasks::new();
    let mut pause = FIRST_PAUSE;
    loop {
        tokio::select! {
            biased;
            () = stop.draining() => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    pause = FIRST_PAUSE;
                    tune(&socket, settings);
                    let stop = connections.stop();
                    connections.spawn(name, serve(ResetOnDrop::new(socket), stop));
                }
                Err(error) => {
                    tracing::warn!(%error, ?pause, "accept failed; going on after a pause");
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            },
        }
    }
    // What has been established already is served, too; nothing new comes, or a successor takes it.
    for _ in 0..WAITING {
        let waiting = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            () = std::future::ready(()) => break,
        };
        let Ok((socket, _)) = waiting else { break };
        tune(&socket, settings);
        let stop = connections.stop();
        connections.spawn(name, serve(ResetOnDrop::new(socket), stop));
    }
    drop(listener);
    tokio::select! {
        biased;
        () = stop.cancelled() => connections.drain(Duration::ZERO).await,
        left = connections.drain(settings.drain_timeout) => left,
    };
}
