//! `tacit check`: everything that is wrong with a configuration, and what is right but probably
//! not meant.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::{Config, Names, Problem, SystemResolver, load_with};
use crate::policy::{InboundAction, InboundRule, OutboundAction, OutboundRule};
use crate::policy::{Networks, PeerPattern};
use crate::spiffe::TrustDomain;
use crate::workload::PortSet;

/// What there is to say about a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What is wrong; a daemon would not start.
    pub problems: Vec<Problem>,
    /// What is probably not meant.
    pub warnings: Vec<Problem>,
    /// What it holds; `None` if anything is wrong.
    pub summary: Option<Summary>,
}

/// What a configuration holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The trust domain.
    pub trust_domain: String,
    /// Name of the node.
    pub node: String,
    /// Number of scopes.
    pub scopes: usize,
    /// Number of registration entries.
    pub entries: usize,
    /// Number of outbound rules.
    pub outbound: usize,
    /// Number of inbound rules.
    pub inbound: usize,
}

/// Loads the configuration at this path and says everything about it. Blocks: it reads files and
/// looks up host names.
pub fn check(path: &Path) -> Report {
    check_with(path, &Names::new(Arc::new(SystemResolver)))
}

pub(super) fn check_with(path: &Path, names: &Names) -> Report {
    match load_with(path, names) {
        Err(problems) => Report { problems: problems.0, warnings: Vec::new(), summary: None },
        Ok((config, mut warnings)) => {
            warnings.extend(unmeant(&config, path));
            let summary = Summary {
                trust_domain: config.node.trust_domain.to_string(),
                node: config.node.name.clone(),
                scopes: config.scopes.len(),
                entries: config.registry.entries().len(),
                outbound: config.outbound.len(),
                inbound: config.inbound.len(),
            };
            Report { problems: Vec::new(), warnings, summary: Some(summary) }
        }
    }
}

fn unmeant(config: &Config, path: &Path) -> Vec<Problem> {
    let warning = |key: &str, what: String, remedy: &str| Problem {
        file: path.to_owned(),
        line: None,
        key: key.to_owned(),
        value: None,
        what,
        remedy: remedy.to_owned(),
    };
    let mut warnings = Vec::new();
    for (index, rule) in config.outbound.iter().enumerate() {
        if let Some(first) = outbound_before(&config.outbound, index) {
            let what = format!("the rule never decides: `{first}` goes before it");
            warnings.push(warning(&rule.name, what, "remove the rule, or narrow the other"));
        }
    }
    for rule in &config.inbound {
        if let Some(first) = inbound_before(&config.inbound, rule) {
            let what = format!("the rule never admits: `{first}` denies all that it speaks of");
            warnings.push(warning(&rule.name, what, "remove the rule, or narrow the other"));
        }
    }
    for (name, domain) in foreign_peers(config) {
        if config.registry.federated_with(domain) == 0 {
            let what = format!("names peers of {domain}, and no entry is federated with it");
            let remedy = "add it to federates_with of the workload's entry; else they are refused";
            warnings.push(warning(name, what, remedy));
        }
    }
    warnings
}

/// Rules that name peers of other trust domains, with each of these once.
fn foreign_peers(config: &Config) -> BTreeSet<(&str, &TrustDomain)> {
    let outbound = config.outbound.iter().filter_map(|rule| match &rule.action {
        OutboundAction::Mtls { peers, .. } => Some((&*rule.name, &peers[..])),
        OutboundAction::Plaintext | OutboundAction::Refuse => None,
    });
    let allowing = config.inbound.iter().filter(|rule| rule.action != InboundAction::Deny);
    let inbound = allowing.map(|rule| (&*rule.name, rule.peers.as_slice()));
    let named = outbound
        .chain(inbound)
        .flat_map(|(name, peers)| peers.iter().map(move |peer| (name, peer.trust_domain())));
    named.filter(|(_, domain)| **domain != config.node.trust_domain).collect()
}

/// The rule that leaves nothing to decide for the one at `index`.
fn outbound_before(rules: &[OutboundRule], index: usize) -> Option<&str> {
    let rule = rules.get(index)?;
    let refuses = |rule: &OutboundRule| rule.action == OutboundAction::Refuse;
    let mut before = rules.iter().enumerate().filter(|(at, other)| {
        // Refusing rules go first wherever they stand; else the order of the file counts.
        let goes_first = match (refuses(other), refuses(rule)) {
            (true, false) => true,
            (false, true) => false,
            (true, true) | (false, false) => *at < index,
        };
        // A rule for mTLS leaves programs without identity to the rules behind it.
        let leaves_some = matches!(other.action, OutboundAction::Mtls { .. })
            && rule.workloads.is_empty()
            && !matches!(rule.action, OutboundAction::Mtls { .. });
        *at != index && !other.dry_run && goes_first && !leaves_some && covers_outbound(other, rule)
    });
    before.next().map(|(_, rule)| &*rule.name)
}

fn covers_outbound(wide: &OutboundRule, narrow: &OutboundRule) -> bool {
    covers_patterns(&wide.workloads, &narrow.workloads)
        && covers_networks(&wide.to, &narrow.to)
        && covers_ports(&wide.ports, &narrow.ports)
}

/// The denying rule that leaves nobody to admit for an allowing one.
fn inbound_before<'r>(rules: &'r [InboundRule], rule: &InboundRule) -> Option<&'r str> {
    if rule.action == InboundAction::Deny {
        return None;
    }
    let denying = rules.iter().filter(|it| it.action == InboundAction::Deny && !it.dry_run);
    let mut covering = denying.filter(|wide| {
        // Whoever denies identities leaves those without one, so only "any" covers all.
        wide.peers.is_empty()
            && covers_patterns(&wide.workloads, &rule.workloads)
            && covers_networks(&wide.from, &rule.from)
            && covers_ports(&wide.ports, &rule.ports)
    });
    covering.next().map(|rule| &*rule.name)
}

fn covers_patterns(wide: &[PeerPattern], narrow: &[PeerPattern]) -> bool {
    wide.is_empty() || wide == narrow
}

fn covers_networks(wide: &Networks, narrow: &Networks) -> bool {
    *wide == Networks::Any || wide == narrow
}

fn covers_ports(wide: &PortSet, narrow: &PortSet) -> bool {
    wide.is_all() || wide == narrow
}
