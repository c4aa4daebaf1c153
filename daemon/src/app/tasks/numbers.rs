//! Numbers of kernel and identities, taken over into the metrics.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::app::events::LostEvents;
use crate::audit::Audit;
use crate::bpf::KernelCounters;
use crate::identity::Identities;
use crate::metrics::Metrics;
use crate::shutdown::Stop;

/// How often they are taken over.
const COUNT: Duration = Duration::from_secs(1);
/// Label of the counter of events that found no room in the ring.
const EVENTS_LOST: &str = "events_lost";

/// Whose numbers are taken over, and whom they are told.
#[derive(Debug)]
pub(in crate::app) struct Numbers {
    pub(in crate::app) counters: Arc<KernelCounters>,
    pub(in crate::app) identities: Identities,
    pub(in crate::app) metrics: Arc<Metrics>,
    pub(in crate::app) audit: Audit,
    pub(in crate::app) lost: LostEvents,
}

impl Numbers {
    /// Takes the numbers of kernel and identities over into the metrics, until the daemon stops.
    pub(in crate::app) async fn run(mut self, mut stop: Stop) {
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
        let (issued, failed) = self.identities.asked();
        self.metrics.asked_issuer(issued, failed);
        let svids = self.identities.svids();
        let held: Vec<_> = svids.iter().filter_map(|status| status.svid.as_ref()).collect();
        self.metrics.svids(held.len(), held.iter().map(|svid| svid.not_after).min());
    }
}
