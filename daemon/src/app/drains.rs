//! Which daemons drain, and how far they are: this one, and those before it that are not over yet.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::admin::dump::{ConnectionCounts, DrainDump};
use crate::audit::{Audit, Direction, Protection, Record};

/// What is known of it. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Drains {
    audit: Audit,
    /// Until when this daemon drains, if it does.
    own: watch::Sender<Option<Instant>>,
    others: watch::Sender<Vec<DrainDump>>,
}

impl Drains {
    /// Nobody drains.
    pub(super) fn new(audit: Audit) -> Self {
        Self { audit, own: watch::Sender::default(), others: watch::Sender::default() }
    }

    /// This daemon drains, at most until then.
    pub(super) fn begin(&self, until: Instant) {
        self.own.send_replace(Some(until));
    }

    /// Whether this daemon drains.
    pub(super) fn begun(&self) -> bool {
        self.own.borrow().is_some()
    }

    /// Where daemons before this one are told of.
    pub(super) fn others(&self) -> watch::Sender<Vec<DrainDump>> {
        self.others.clone()
    }

    /// Pids of daemons before this one that still drain.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.others.borrow().iter().map(|drain| drain.pid).collect()
    }

    /// Resolves when none of them is left.
    pub(super) async fn others_gone(&self) {
        let mut others = self.others.subscribe();
        let _gone = others.wait_for(Vec::is_empty).await.is_ok();
    }

    /// All that drain, this daemon first.
    pub(super) fn all(&self) -> Vec<DrainDump> {
        let own = self.begun().then(|| self.dump());
        own.into_iter().chain(self.others.borrow().iter().cloned()).collect()
    }

    /// How far this daemon is.
    pub(super) fn dump(&self) -> DrainDump {
        let left = (*self.own.borrow()).map_or(Duration::ZERO, |until| until - Instant::now());
        DrainDump {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            connections: counts(&self.carried()),
            seconds_left: left.as_secs(),
        }
    }

    /// Open connections that this daemon knows of.
    pub(super) fn connections(&self) -> ConnectionCounts {
        counts(&self.audit.open_connections())
    }

    /// Those of them that end with it.
    fn carried(&self) -> Vec<Record> {
        let untouched = Protection::Untouched.as_str();
        let mut open = self.audit.open_connections();
        open.retain(|record| record.protection.as_deref() != Some(untouched));
        open
    }
}

fn counts(open: &[Record]) -> ConnectionCounts {
    let outbound = Some(Direction::Outbound.as_str());
    let outbound = open.iter().filter(|record| record.direction.as_deref() == outbound).count();
    ConnectionCounts { outbound, inbound: open.len() - outbound }
}
