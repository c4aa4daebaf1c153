//! Puts the parts together, and checks what no part can check alone: names that must be unique,
//! entries that clash, hosts that must be looked up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::rules::{denials, inbound, outbound};
use super::{entries, federation, files, scopes, settings};
use crate::config::file::{Document, Tables};
use crate::config::names::Addresses;
use crate::config::problem::{Place, Problem, Reader};
use crate::config::{Config, Names, Relationship, SystemResolver};
use crate::policy::{DEFAULT_RULE, DenyItem};
use crate::registry::{RegistrationEntry, Registry};
use crate::spiffe::TrustDomain;

/// What all files together know.
pub(super) struct Around<'a> {
    /// The node's trust domain; `None` if the file gives none that can be read.
    pub(super) trust_domain: Option<&'a TrustDomain>,
    /// Where the programs are attached: scopes must lie there.
    pub(super) capture: String,
    /// Addresses of hosts.
    pub(super) addresses: &'a Addresses,
    /// Why hosts could not be looked up.
    pub(super) failed: &'a BTreeMap<String, String>,
    /// How they were.
    pub(super) names: &'a Names,
    /// Those that have no addresses for now.
    pub(super) unresolved: BTreeSet<String>,
    /// Names of rules so far, and where they stand.
    pub(super) rule_names: BTreeMap<String, String>,
    /// What is worth telling and stops nobody.
    pub(super) warnings: Vec<Problem>,
}

/// Longest name of a rule or id of an entry, in bytes.
pub(super) const LONGEST_NAME: usize = 128;

/// Builds the configuration from the main file and those it includes, in their order. `None` if
/// there is a problem, which is then among `problems`. Also gives warnings.
pub(in crate::config) fn build(
    documents: Vec<Document>,
    names: &Names,
    problems: &mut Vec<Problem>,
) -> (Option<Config>, Vec<Problem>) {
    let (addresses, failed) = names.look_up(&hosts(&documents));
    let mut documents = documents.into_iter();
    let Some(main) = documents.next() else {
        return (None, Vec::new());
    };
    let mut reader = Reader::new(&main.path, &main.text, problems);
    let config = settings::settings(main.sections, &mut reader);
    let trust_domain = config.as_ref().map(|config| config.node.trust_domain.clone());
    let mut around = Around {
        trust_domain: trust_domain.as_ref(),
        capture: config.as_ref().map_or("/".to_owned(), |config| config.capture.cgroup.clone()),
        addresses: &addresses,
        failed: &failed,
        names,
        unresolved: BTreeSet::new(),
        rule_names: BTreeMap::new(),
        warnings: Vec::new(),
    };
    let mut parts = Parts::default();
    parts.take(main.tables, "", &mut reader, &mut around);
    for document in documents {
        let stem = document.path.file_stem().unwrap_or_default().to_string_lossy();
        let mut reader = Reader::new(&document.path, &document.text, problems);
        parts.take(document.tables, &format!("{stem}/"), &mut reader, &mut around);
    }
    let registry = parts.registry(problems);
    let files = files::settle(std::mem::take(&mut parts.files), registry.as_ref(), problems);
    let Around { mut warnings, unresolved, .. } = around;
    warnings.extend(registry.iter().flat_map(|registry| entries::twins(registry, &main.path)));
    warnings.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
    let (Some(mut config), Some(registry), true) = (config, registry, problems.is_empty()) else {
        return (None, warnings);
    };
    config.scopes = parts.scopes.into_iter().map(|(scope, _)| scope).collect();
    config.registry = Arc::new(registry);
    config.denied = parts.denied;
    config.relationships = parts.relationships.into_values().map(Arc::new).collect();
    config.outbound = parts.outbound;
    config.inbound = parts.inbound;
    config.files = files;
    config.addresses = addresses;
    config.unresolved = unresolved;
    (Some(config), warnings)
}

/// The entries of a document that stands outside of the configuration, and warnings about them.
pub(in crate::config) fn entries_alone(
    document: Document,
    trust_domain: &TrustDomain,
    problems: &mut Vec<Problem>,
) -> (Vec<RegistrationEntry>, Vec<Problem>) {
    let mut around = Around {
        trust_domain: Some(trust_domain),
        capture: "/".to_owned(),
        addresses: &Addresses::new(),
        failed: &BTreeMap::new(),
        // Entries have no host names: nobody is asked.
        names: &Names::new(Arc::new(SystemResolver)),
        unresolved: BTreeSet::new(),
        rule_names: BTreeMap::new(),
        warnings: Vec::new(),
    };
    let mut parts = Parts::default();
    let mut reader = Reader::new(&document.path, &document.text, problems);
    parts.take(document.tables, "", &mut reader, &mut around);
    parts.tell_clashes(problems);
    (parts.entries.into_iter().map(|read| read.entry).collect(), around.warnings)
}

/// The deny list of a document that stands outside of the configuration.
pub(in crate::config) fn denials_alone(
    document: Document,
    problems: &mut Vec<Problem>,
) -> Vec<DenyItem> {
    let mut reader = Reader::new(&document.path, &document.text, problems);
    let mut items = Vec::new();
    for (index, (at, table)) in document.tables.denials.into_iter().enumerate() {
        let place = Place::table(format!("deny[{index}]"), at);
        items.extend(denials::denial(table, &place, &mut reader));
    }
    items
}

#[derive(Default)]
struct Parts {
    scopes: Vec<(crate::workload::Scope, String)>,
    entries: Vec<entries::Read>,
    denied: Vec<DenyItem>,
    outbound: Vec<crate::policy::OutboundRule>,
    inbound: Vec<crate::policy::InboundRule>,
    files: Vec<files::Read>,
    relationships: BTreeMap<TrustDomain, Relationship>,
}

impl Parts {
    fn take(
        &mut self,
        tables: Tables,
        prefix: &str,
        reader: &mut Reader<'_>,
        around: &mut Around<'_>,
    ) {
        for (index, (at, table)) in tables.scopes.into_iter().enumerate() {
            let place = Place::table(format!("scope[{index}]"), at);
            scopes::scope(table, &place, reader, &mut self.scopes, around);
        }
        for (index, (at, table)) in tables.entries.into_iter().enumerate() {
            let place = Place::table(format!("entry[{index}]"), at);
            self.entries.extend(entries::entry(table, &place, reader, around));
        }
        for (index, (at, table)) in tables.denials.into_iter().enumerate() {
            let place = Place::table(format!("deny[{index}]"), at);
            self.denied.extend(denials::denial(table, &place, reader));
        }
        for (index, (at, table)) in tables.outbound.into_iter().enumerate() {
            let place = Place::table(format!("outbound[{index}]"), at);
            self.outbound.extend(outbound::rule(table, &place, prefix, reader, around));
        }
        for (index, (at, table)) in tables.inbound.into_iter().enumerate() {
            let place = Place::table(format!("inbound[{index}]"), at);
            self.inbound.extend(inbound::rule(table, &place, prefix, reader, around));
        }
        for (index, (at, table)) in tables.files.into_iter().enumerate() {
            let place = Place::table(format!("files[{index}]"), at);
            self.files.extend(files::file_set(table, &place, prefix, reader));
        }
        for (index, (at, table)) in tables.federates_with.into_iter().enumerate() {
            let place = Place::table(format!("federates_with[{index}]"), at);
            let Some(read) = federation::relationship(table, &place, reader, around) else {
                continue;
            };
            if let Some(first) = self.relationships.get(&read.trust_domain) {
                let what = format!("{} has one already at {}", read.trust_domain, first.origin);
                reader.problem(&place, what, "remove one of them");
                continue;
            }
            self.relationships.insert(read.trust_domain.clone(), read);
        }
    }

    /// Tells of entries that share an id.
    fn tell_clashes(&self, problems: &mut Vec<Problem>) {
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for read in &self.entries {
            if let Some(first) = seen.insert(&read.entry.id, &read.entry.origin) {
                let remedy = "remove one of them, or give it another id";
                let mut problem = read.clash.clone();
                problem.what = format!("entry id `{}` is already used at {first}", read.entry.id);
                remedy.clone_into(&mut problem.remedy);
                problems.push(problem);
            }
        }
    }

    /// The registry, unless two entries share an id.
    fn registry(&mut self, problems: &mut Vec<Problem>) -> Option<Registry> {
        let before = problems.len();
        self.tell_clashes(problems);
        if problems.len() > before {
            return None;
        }
        // Whatever the registry refuses was told above or when the entry was read.
        let entries = std::mem::take(&mut self.entries);
        Registry::new(entries.into_iter().map(|read| read.entry).collect()).ok()
    }
}

/// The name of a rule, which must be its own.
pub(super) fn rule_name(
    given: Option<(String, Place)>,
    place: &Place,
    prefix: &str,
    reader: &mut Reader<'_>,
    around: &mut Around<'_>,
) -> Arc<str> {
    let default = || (format!("{prefix}{}", place.key), place.clone());
    let (name, place) = given.unwrap_or_else(default);
    if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        let remedy = format!("write 1 to {LONGEST_NAME} bytes without control characters");
        reader.problem(&place, "is no name for a rule", remedy);
    } else if name == DEFAULT_RULE {
        let what = "stands for \"no rule\" in records";
        reader.problem(&place, what, "choose another name");
    }
    let line = place.at.as_ref().map_or(0, |at| reader.line(at.start));
    let here = format!("{}:{line}", reader.path.display());
    if let Some(first) = around.rule_names.get(&name) {
        let what = format!("the rule at {first} has the same name");
        reader.problem(&place, what, "choose another name");
    } else {
        around.rule_names.insert(name.clone(), here);
    }
    name.into()
}

/// All host names that rules speak of.
fn hosts(documents: &[Document]) -> BTreeSet<String> {
    let rules = documents.iter().flat_map(|document| &document.tables.outbound);
    let lists = rules.filter_map(|(_, rule)| rule.hosts.0.as_ref()?.value.as_ref().ok());
    lists.flatten().filter(|name| super::values::is_host_name(name)).cloned().collect()
}
