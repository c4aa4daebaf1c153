//! Inbound rules: what `[[inbound]]` means.

use crate::config::build::values::{networks, peers, ports, workloads};
use crate::config::build::whole::{Around, rule_name};
use crate::config::file::{InboundActionKind, InboundTable, Key};
use crate::config::problem::{Place, Reader};
use crate::policy::{InboundAction, InboundRule, Networks, UnmarkedTls};

/// Reads one rule. `None` if it has no readable action, which is then told.
pub(in crate::config::build) fn rule(
    table: InboundTable,
    place: &Place,
    prefix: &str,
    reader: &mut Reader<'_>,
    around: &mut Around<'_>,
) -> Option<InboundRule> {
    let key = |name: &str| format!("{}.{name}", place.key);
    let own = around.trust_domain;
    let name = reader.given(key("name"), table.name);
    let name = rule_name(name, place, prefix, reader, around);
    let workloads = workloads(key("workloads"), table.workloads, own, reader);
    let ports = ports(key("ports"), table.ports, reader);
    let from = networks(key("from"), table.from, reader).map_or(Networks::Any, Networks::of);
    let has_peers = table.peers.0.is_some();
    let peers = peers(key("peers"), table.peers, reader);
    let says = [
        place_of(key("unmarked_tls"), &table.unmarked_tls),
        place_of(key("plaintext"), &table.plaintext),
    ];
    let is_misread = is_misread(&table.plaintext) || is_misread(&table.unmarked_tls);
    let unmarked_tls = reader.given(key("unmarked_tls"), table.unmarked_tls).map(|(it, _)| it.0);
    let plaintext = reader.given(key("plaintext"), table.plaintext).is_some_and(|(it, _)| it.0);
    let dry_run = reader.or(&key("dry_run"), table.dry_run, false);
    let remedy = "say action = \"allow\" or \"deny\"";
    let (kind, _) = reader.required("action", table.action, place, remedy)?;
    let action = match kind.0 {
        InboundActionKind::Allow => {
            let anonymous = plaintext || unmarked_tls == Some(UnmarkedTls::Passthrough);
            if !has_peers && !anonymous && !is_misread {
                let what = "does not say whom it admits";
                let remedy = "list peers; all of a trust domain are spiffe://<trust domain>/*";
                reader.problem(place, what, remedy);
            }
            InboundAction::Allow { plaintext, unmarked_tls }
        }
        InboundActionKind::Deny => {
            for place in says.into_iter().flatten() {
                let remedy = "remove the key, or say action = \"allow\"";
                reader.problem(&place, "means nothing in a denying rule", remedy);
            }
            InboundAction::Deny
        }
    };
    Some(InboundRule { name, workloads, ports, from, peers, action, dry_run })
}

/// Whether the key is there but not understood, which is told anyway.
fn is_misread<T>(field: &Key<T>) -> bool {
    field.0.as_ref().is_some_and(|given| given.value.is_err())
}

fn place_of<T>(key: String, field: &Key<T>) -> Option<Place> {
    let given = field.0.as_ref()?;
    Some(Place { key, at: Some(given.at.clone()), value: Some(given.text.clone()) })
}
