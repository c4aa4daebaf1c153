//! What the daemon tells of itself: the answers to the questions of the control surface.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use crate::admin::dump::{
    AuditDump, AuthorityDump, BundleDump, CaDump, CounterDump, DenyDump, DoctorDump, EndpointDump,
    EntryDump, ExplainDump, ReloadDump, ScopeDump, StatusDump, SvidDump,
};
use crate::admin::{Answer, ExplainTarget, Readiness, Snapshots};
use crate::audit::{Audit, Record, format_time};
use crate::bpf::{Kernel, KernelCounters};
use crate::config::{Relationship, ReloadHandle};
use crate::federation::{FetchStatus, Fetcher};
use crate::identity::Identities;
use crate::policy::Policy;
use crate::registry::RegistrationEntry;
use crate::spiffe::{BundleDocument, TrustDomain};
use crate::state::{BundleSource, ForeignBundles, LiveEntries, LiveEntry};
use crate::sys::cgroup::Cgroups;
use crate::sys::clock;
use crate::workload::NetnsCookie;

use super::authorities::Authorities;
use super::bypasses::Bypasses;
use super::denials::Denials;
use super::doctor;
use super::drains::Drains;
use super::scopes::{Placed, ScopeTable};
use super::tasks::Loaded;

/// Everything that can be asked.
#[derive(Debug)]
pub(super) struct Daemon {
    pub(super) started: SystemTime,
    pub(super) loaded: Loaded,
    pub(super) path: PathBuf,
    pub(super) kernel: Arc<Kernel>,
    pub(super) counters: Arc<KernelCounters>,
    pub(super) audit: Audit,
    pub(super) identities: Identities,
    pub(super) authorities: Authorities,
    pub(super) denials: Denials,
    pub(super) entries: LiveEntries,
    pub(super) bundles: ForeignBundles,
    /// How looks at endpoints of others fare.
    pub(super) fetcher: Fetcher,
    /// The own bundle, as others get it.
    pub(super) published: watch::Receiver<Arc<str>>,
    pub(super) policy: watch::Receiver<Arc<Policy>>,
    pub(super) reload: ReloadHandle,
    pub(super) readiness: Readiness,
    pub(super) table: ScopeTable,
    pub(super) cgroups: Cgroups,
    pub(super) netns: NetnsCookie,
    pub(super) bypasses: Bypasses,
    pub(super) drains: Drains,
}

impl Snapshots for Daemon {
    fn status(&self) -> StatusDump {
        let config = Arc::clone(&self.reload.config().borrow());
        let health = self.audit.health();
        let svids = self.identities.svids();
        let expiries = svids.iter().filter_map(|status| Some(status.svid.as_ref()?.not_after));
        StatusDump {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            node: config.node.name.clone(),
            trust_domain: config.node.trust_domain.to_string(),
            started: format_time(self.started),
            ready: self.readiness.is_ready(),
            conditions: self.readiness.standings(),
            config: self.path.display().to_string(),
            policy_epoch: config.epoch,
            config_loaded: format_time(self.loaded.at()),
            config_warnings: self.config_warnings(),
            config_problem: self.reload.status().borrow().error.as_ref().map(ToString::to_string),
            connections: self.drains.connections(),
            draining: self.drains.all(),
            scopes: config.scopes.len(),
            entries: self.entries.registry().borrow().entries().len(),
            svids: svids.len(),
            svid_earliest_expiry: expiries.min().map(format_time),
            authorities: self.identities.authorities().iter().map(AuthorityDump::from).collect(),
            audit: AuditDump {
                path: config.audit.path.display().to_string(),
                problem: health.problem,
                queued: health.queued,
                queue: health.queue,
                lost: health.lost,
            },
            kernel: self.kernel_counts(),
        }
    }

    fn connections(&self) -> Vec<Record> {
        self.audit.open_connections()
    }

    fn scopes(&self) -> Vec<ScopeDump> {
        self.table.current().iter().map(scope_dump).collect()
    }

    fn entries(&self) -> Vec<EntryDump> {
        let config = Arc::clone(&self.reload.config().borrow());
        let ties = self.identities.ties();
        let dump = |entry: &Arc<RegistrationEntry>| EntryDump {
            tied_with: ties.of(&entry.id),
            ..EntryDump::from(entry.as_ref())
        };
        let declared = config.registry.entries().iter().map(dump);
        let live = self.entries.list().into_iter();
        let live = live.map(|LiveEntry { entry, shadowed }| EntryDump { shadowed, ..dump(&entry) });
        let mut all: Vec<_> = declared.chain(live).collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    fn svids(&self) -> Vec<SvidDump> {
        self.identities.svids().iter().map(SvidDump::from).collect()
    }

    fn denied(&self) -> Vec<DenyDump> {
        self.denials.list()
    }

    fn authorities(&self) -> CaDump {
        self.authorities.dump()
    }

    fn bundles(&self) -> Vec<BundleDump> {
        let now = clock::now();
        let registry = Arc::clone(&self.entries.registry().borrow());
        let mut bundles: BTreeMap<TrustDomain, BundleDump> = BTreeMap::new();
        for entry in registry.entries() {
            for domain in &entry.federates_with {
                bundles.entry(domain.clone()).or_insert_with(|| BundleDump::missing(domain));
            }
        }
        for (domain, known) in self.bundles.list() {
            let dump = BundleDump::new(known.source.as_str(), &known.document, now);
            let is_kept = known.source != BundleSource::Declared;
            let since = is_kept.then(|| format_time(known.since));
            bundles.insert(domain, BundleDump { since, ..dump });
        }
        let mut looks = self.fetcher.status();
        for (domain, relationship) in self.bundles.declared().borrow().iter() {
            let dump = bundles.entry(domain.clone());
            let dump = dump.or_insert_with(|| BundleDump::missing(domain));
            dump.endpoint = Some(endpoint_dump(relationship, looks.remove(domain)));
        }
        for (domain, dump) in &mut bundles {
            dump.entries = registry.federated_with(domain);
        }
        let own = self.reload.config().borrow().node.trust_domain.clone();
        let published = Arc::clone(&self.published.borrow());
        let own = BundleDocument::parse(&own, published.as_bytes()).ok();
        let own = own.map(|own| BundleDump::new("own", &own, now));
        own.into_iter().chain(bundles.into_values()).collect()
    }

    fn explain(&self, target: ExplainTarget) -> Answer<'_, ExplainDump> {
        Box::pin(async move { self.explain_target(&target).await })
    }

    fn doctor(&self) -> Answer<'_, DoctorDump> {
        Box::pin(async move {
            let looked = self.bypasses.look().await;
            let conditions = self.readiness.standings();
            let mut found = doctor::doctor(&self.kernel, &self.scopes(), conditions);
            found.checks.extend(doctor::bypasses(looked));
            Ok(found)
        })
    }

    fn reload(&self) -> Answer<'_, ReloadDump> {
        Box::pin(async move {
            let outcome = self.reload.reload_now().await;
            let policy_epoch = self.reload.config().borrow().epoch;
            Ok(match outcome {
                Ok(changed) => ReloadDump { changed, policy_epoch, problems: Vec::new() },
                Err(error) => {
                    let problems = error.to_string().lines().map(str::to_owned).collect();
                    ReloadDump { changed: false, policy_epoch, problems }
                }
            })
        })
    }
}

impl Daemon {
    /// What was said of the configuration in force, and what has come to light since.
    fn config_warnings(&self) -> Vec<String> {
        let told = self.reload.status().borrow().warnings.iter().map(ToString::to_string).collect();
        let seen = self.identities.ties().seen();
        let tie = |(first, other): &(String, String)| {
            format!(
                "entries {first} and {other} match a process equally well; the first goes first"
            )
        };
        [told, seen.iter().map(tie).collect::<Vec<_>>()].concat()
    }

    fn kernel_counts(&self) -> Vec<CounterDump> {
        let dump =
            |(decision, count): (&str, u64)| CounterDump { decision: decision.to_owned(), count };
        self.counters.read().into_iter().map(dump).collect()
    }
}

fn endpoint_dump(relationship: &Relationship, status: Option<FetchStatus>) -> EndpointDump {
    let (url, profile) = (relationship.url.clone(), relationship.profile.as_str().to_owned());
    let endpoint = EndpointDump { url, profile, ..EndpointDump::default() };
    let Some(FetchStatus { fetched, next, failures, last_error }) = status else {
        return endpoint;
    };
    let (fetched, next) = (fetched.map(format_time), Some(format_time(next)));
    EndpointDump { fetched, next, failures, last_error, ..endpoint }
}

pub(super) fn scope_dump(placed: &Placed) -> ScopeDump {
    ScopeDump::new(placed.id, &placed.scope, Some(placed.cgroup.is_some()))
}
