//! Every metric of the daemon, in one list. Labels are `&'static str`: nothing from outside ever
//! becomes a label, so the number of series is bounded. Names and labels are public.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds, seconds: a handshake on one host takes about 1 ms, a lost packet costs 1 s.
const HANDSHAKE_SECONDS: [f64; 12] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Labels of closed connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ClosedLabels {
    direction: &'static str,
    outcome: &'static str,
    reason: &'static str,
}

/// One label: which direction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DirectionLabel {
    direction: &'static str,
}

/// Labels of byte counters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByteLabels {
    direction: &'static str,
    flow: &'static str,
}

/// One label: which decision of the kernel programs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DecisionLabel {
    decision: &'static str,
}

/// One label: how it went.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabel {
    result: &'static str,
}

/// Every metric. Shared by `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    connections: Family<ClosedLabels, Counter>,
    open: Family<DirectionLabel, Gauge>,
    bytes: Family<ByteLabels, Counter>,
    handshake: Family<DirectionLabel, Histogram>,
    svids: Gauge,
    svid_expiry: Gauge<f64, AtomicU64>,
    renewals: Family<ResultLabel, Counter>,
    bundle_fetches: Family<ResultLabel, Counter>,
    bundles_failing: Gauge,
    audit_records: Counter,
    audit_lost: Counter,
    audit_summed_up: Counter,
    audit_failures: Counter,
    audit_queue: Gauge,
    kernel: Family<DecisionLabel, Counter>,
    listeners_corrected: Counter,
    reloads: Family<ResultLabel, Counter>,
    policy_epoch: Gauge<u64, AtomicU64>,
}

impl Metrics {
    /// All metrics at zero. Each of `deny_reasons` has its series from the start, for both
    /// directions, so that an alert on a rate needs no special case for the first denial.
    pub fn new(directions: &[&'static str], deny_reasons: &[&'static str]) -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("tacit"),
            connections: Family::default(),
            open: Family::default(),
            bytes: Family::default(),
            handshake: Family::new_with_constructor(|| Histogram::new(HANDSHAKE_SECONDS)),
            svids: Gauge::default(),
            svid_expiry: Gauge::default(),
            renewals: Family::default(),
            bundle_fetches: Family::default(),
            bundles_failing: Gauge::default(),
            audit_records: Counter::default(),
            audit_lost: Counter::default(),
            audit_summed_up: Counter::default(),
            audit_failures: Counter::default(),
            audit_queue: Gauge::default(),
            kernel: Family::default(),
            listeners_corrected: Counter::default(),
            reloads: Family::default(),
            policy_epoch: Gauge::default(),
        };
        for &direction in directions {
            for &reason in deny_reasons {
                metrics.closed_series(direction, "denied", reason).inc_by(0);
            }
            metrics.closed_series(direction, "completed", "").inc_by(0);
            metrics.open.get_or_create(&DirectionLabel { direction }).set(0);
        }
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        self.register_connections();
        self.register_identities();
        self.register_the_rest();
        self
    }

    fn register_connections(&mut self) {
        let r = &mut self.registry;
        r.register("connections", "Connections closed", self.connections.clone());
        r.register("connections_open", "Connections open now", self.open.clone());
        let help = "Bytes of closed connections, as applications saw them";
        r.register("bytes", help, self.bytes.clone());
        let help = "TLS handshakes that succeeded";
        r.register_with_unit("handshake", help, Unit::Seconds, self.handshake.clone());
    }

    fn register_identities(&mut self) {
        let r = &mut self.registry;
        r.register("svids", "X.509-SVIDs held for workloads", self.svids.clone());
        let expiry = self.svid_expiry.clone();
        let help = "Unix time at which the first of the SVIDs held expires; 0 for none";
        r.register_with_unit("svid_earliest_expiry_timestamp", help, Unit::Seconds, expiry);
        r.register("svid_renewals", "SVIDs asked of the issuer", self.renewals.clone());
        let help = "Looks at bundle endpoints of other trust domains";
        r.register("bundle_fetches", help, self.bundle_fetches.clone());
        let help = "Trust domains whose bundle endpoint failed at the last look";
        r.register("bundle_endpoints_failing", help, self.bundles_failing.clone());
    }

    fn register_the_rest(&mut self) {
        let r = &mut self.registry;
        r.register("audit_records", "Lines written to the audit log", self.audit_records.clone());
        r.register("audit_lost", "Audit records that could not be kept", self.audit_lost.clone());
        let help = "Connections that the audit log sums up instead of recording each";
        r.register("audit_summed_up", help, self.audit_summed_up.clone());
        let help = "Writes to the audit log that failed";
        r.register("audit_write_failures", help, self.audit_failures.clone());
        let help = "Records that wait to be written";
        r.register("audit_queue_depth", help, self.audit_queue.clone());
        let help = "Decisions taken by the kernel programs";
        r.register("kernel_decisions", help, self.kernel.clone());
        let help =
            "Entries of the table of listeners that did not agree with the kernel's own list";
        r.register("listeners_corrected", help, self.listeners_corrected.clone());
        r.register("config_reloads", "Configuration reloads", self.reloads.clone());
        r.register("policy_epoch", "Generation of the rules in force", self.policy_epoch.clone());
    }

    fn closed_series(
        &self,
        direction: &'static str,
        outcome: &'static str,
        reason: &'static str,
    ) -> Counter {
        let labels = ClosedLabels { direction, outcome, reason };
        self.connections.get_or_create_owned(&labels)
    }

    /// A connection began.
    pub fn opened(&self, direction: &'static str) {
        self.open.get_or_create(&DirectionLabel { direction }).inc();
    }

    /// A connection ended. `reason` is empty where the outcome says it all.
    pub fn closed(&self, direction: &'static str, outcome: &'static str, reason: &'static str) {
        self.closed_series(direction, outcome, reason).inc();
        self.open.get_or_create(&DirectionLabel { direction }).dec();
    }

    /// Bytes of a connection that ended.
    pub fn carried(&self, direction: &'static str, sent: u64, received: u64) {
        self.bytes.get_or_create(&ByteLabels { direction, flow: "sent" }).inc_by(sent);
        self.bytes.get_or_create(&ByteLabels { direction, flow: "received" }).inc_by(received);
    }

    /// A TLS handshake succeeded.
    pub fn handshake(&self, direction: &'static str, took: Duration) {
        self.handshake.get_or_create(&DirectionLabel { direction }).observe(took.as_secs_f64());
    }

    /// What SVIDs are held, and when the first of them expires.
    pub fn svids(&self, held: usize, earliest_expiry: Option<SystemTime>) {
        self.svids.set(i64::try_from(held).unwrap_or(i64::MAX));
        let since_epoch =
            earliest_expiry.and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok());
        self.svid_expiry.set(since_epoch.map_or(0.0, |t| t.as_secs_f64()));
    }

    /// How often the issuer has been asked for an SVID, with success and in vain: identities count
    /// by themselves.
    pub fn asked_issuer(&self, issued: u64, failed: u64) {
        for (succeeded, total) in [(true, issued), (false, failed)] {
            let counter = self.renewals.get_or_create_owned(&result(succeeded));
            counter.inner().store(total, Ordering::Relaxed);
        }
    }

    /// An endpoint of another trust domain was looked at.
    pub fn bundle_fetched(&self, succeeded: bool) {
        self.bundle_fetches.get_or_create(&result(succeeded)).inc();
    }

    /// How many trust domains' endpoints failed at the last look.
    pub fn bundles_failing(&self, count: usize) {
        self.bundles_failing.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Lines were written to the audit log.
    pub fn audit_wrote(&self, lines: u64) {
        self.audit_records.inc_by(lines);
    }

    /// Audit records could not be kept.
    pub fn audit_lost(&self, records: u64) {
        self.audit_lost.inc_by(records);
    }

    /// A connection is summed up in the audit log.
    pub fn audit_summed_up(&self) {
        self.audit_summed_up.inc();
    }

    /// A write to the audit log failed; it will be tried again.
    pub fn audit_failed(&self) {
        self.audit_failures.inc();
    }

    /// How many records wait to be written.
    pub fn audit_queue(&self, depth: usize) {
        self.audit_queue.set(i64::try_from(depth).unwrap_or(i64::MAX));
    }

    /// What a counter of the kernel programs stands at: these count by themselves.
    pub fn kernel_decision(&self, decision: &'static str, total: u64) {
        let counter = self.kernel.get_or_create_owned(&DecisionLabel { decision });
        counter.inner().store(total, Ordering::Relaxed);
    }

    /// The table of listeners did not agree with the kernel's own list.
    pub fn listener_corrected(&self) {
        self.listeners_corrected.inc();
    }

    /// The configuration was reloaded, or could not be.
    pub fn reloaded(&self, succeeded: bool) {
        self.reloads.get_or_create(&result(succeeded)).inc();
    }

    /// Which generation of the rules is in force.
    pub fn policy_epoch(&self, epoch: u64) {
        self.policy_epoch.set(epoch);
    }

    /// Everything, in the `OpenMetrics` text format.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        match text::encode(&mut out, &self.registry) {
            Ok(()) => out,
            // Formatting into a string has no way to fail but a metric's own; show none of them.
            Err(std::fmt::Error) => String::new(),
        }
    }
}

fn result(succeeded: bool) -> ResultLabel {
    ResultLabel { result: if succeeded { "ok" } else { "failed" } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        Metrics::new(&["outbound", "inbound"], &["no_rule", "backstop"])
    }

    #[test]
    fn every_denial_has_its_series_from_the_start() {
        let text = metrics().encode();
        for line in [
            r#"tacit_connections_total{direction="outbound",outcome="denied",reason="no_rule"} 0"#,
            r#"tacit_connections_total{direction="inbound",outcome="denied",reason="backstop"} 0"#,
            r#"tacit_connections_open{direction="inbound"} 0"#,
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn counts_what_it_is_told() {
        let metrics = metrics();
        metrics.opened("outbound");
        metrics.opened("outbound");
        metrics.closed("outbound", "denied", "no_rule");
        metrics.carried("outbound", 3, 4);
        metrics.handshake("inbound", Duration::from_millis(2));
        metrics.kernel_decision("captured", 7);
        metrics.kernel_decision("captured", 9);
        let expiry = SystemTime::UNIX_EPOCH + Duration::from_mins(1);
        metrics.svids(2, Some(expiry));
        let text = metrics.encode();
        for line in [
            r#"tacit_connections_total{direction="outbound",outcome="denied",reason="no_rule"} 1"#,
            r#"tacit_connections_open{direction="outbound"} 1"#,
            r#"tacit_bytes_total{direction="outbound",flow="received"} 4"#,
            r#"tacit_handshake_seconds_count{direction="inbound"} 1"#,
            r#"tacit_kernel_decisions_total{decision="captured"} 9"#,
            "tacit_svids 2",
            "tacit_svid_earliest_expiry_timestamp_seconds 60.0",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
