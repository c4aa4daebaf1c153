//! The daemon's small tasks of its own: signs of life, source addresses, numbers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::audit::Audit;
use crate::bpf::{BEAT, Kernel, KernelCounters};
use crate::identity::Identities;
use crate::metrics::Metrics;
use crate::shutdown::Stop;
use crate::sys::{route_changes::RouteChanges, routes};

use super::events::LostEvents;

/// How often numbers are taken over into the metrics.
const COUNT: Duration = Duration::from_secs(1);
/// Label of the counter of events that found no room in the ring.
const EVENTS_LOST: &str = "events_lost";
/// Pause after the routes could not be read.
const AGAIN: Duration = Duration::from_secs(5);

/// Tells the programs that the daemon is alive, until it takes no more connections.
pub(super) async fn beat(kernel: Arc<Kernel>, mut stop: Stop) {
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
    if let Err(error) = kernel.fall_silent() {
        tracing::error!(%error, "open scopes stay closed for some seconds");
    }
}

/// Tells the programs which source address routing would choose, whenever that changes.
pub(super) async fn follow_routes(kernel: Arc<Kernel>, mut changes: RouteChanges, mut stop: Stop) {
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

/// Whose numbers are taken over, and whom they are told.
#[derive(Debug)]
pub(super) struct Numbers {
    pub(super) counters: Arc<KernelCounters>,
    pub(super) identities: Identities,
    pub(super) metrics: Arc<Metrics>,
    pub(super) audit: Audit,
    pub(super) lost: LostEvents,
}

impl Numbers {
    /// Takes the numbers of kernel and identities over into the metrics, until the daemon stops.
    pub(super) async fn run(mut self, mut stop: Stop) {
        let mut tick = interval(COUNT);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.draining() => return,
                _ = tick.tick() => self.take_over(),
            }
        }
    }

    fn take_over(&mut self) {
        for (decision, total) in self.counters.read() {
            self.metrics.kernel_decision(decision, total);
            if decision == EVENTS_LOST {
                self.lost.tell(total, &self.audit);
            }
        }
        let svids = self.identities.svids();
        let held: Vec<_> = svids.iter().filter_map(|status| status.svid.as_ref()).collect();
        self.metrics.svids(held.len(), held.iter().map(|svid| svid.not_after).min());
    }
}
