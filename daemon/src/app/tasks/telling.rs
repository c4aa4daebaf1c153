//! What the programs are told again and again: that the daemon is alive, and which source addresses
//! routing would choose.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::bpf::{BEAT, Kernel};
use crate::shutdown::Stop;
use crate::sys::{route_changes::RouteChanges, routes};

/// Pause after the routes could not be read.
const AGAIN: Duration = Duration::from_secs(5);

/// Tells the programs that the daemon is alive, until it is to stop. Then it falls silent at once,
/// unless what is dialled meanwhile is `kept` for the next daemon.
pub(in crate::app) async fn beat(kernel: Arc<Kernel>, kept: bool, mut stop: Stop) {
    let mut tick = interval(BEAT);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.draining() => break,
            _ = tick.tick() => {}
        }
        if let Err(error) = kernel.beat() {
            tracing::error!(%error, "no sign of life: strict scopes will close");
        }
    }
    if kept {
        return;
    }
    if let Err(error) = kernel.fall_silent() {
        tracing::error!(%error, "open scopes stay closed for some seconds");
    }
}

/// Tells the programs which source address routing would choose, whenever that changes.
pub(in crate::app) async fn follow_routes(
    kernel: Arc<Kernel>,
    mut changes: RouteChanges,
    mut stop: Stop,
) {
    loop {
        let again = match tell_sources(&kernel) {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(%error, "source addresses are unknown; clients may see 127.0.0.1 as their own");
                Some(AGAIN)
            }
        };
        let wait = async {
            match again {
                Some(pause) => sleep(pause).await,
                None => {
                    if changes.changed().await.is_err() {
                        sleep(AGAIN).await;
                    }
                }
            }
        };
        tokio::select! {
            biased;
            () = stop.draining() => return,
            () = wait => {}
        }
    }
}

/// Reads the routes and tells the programs.
fn tell_sources(kernel: &Kernel) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    Ok(kernel.set_sources(&routes::source_routes()?)?)
}
