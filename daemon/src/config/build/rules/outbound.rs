//! Outbound rules: what `[[outbound]]` means.

use std::sync::Arc;

use ipnet::IpNet;

use crate::config::build::values::{is_host_name, list, networks, peers, ports, workloads};
use crate::config::build::whole::{Around, rule_name};
use crate::config::file::{Key, OutboundActionKind, OutboundTable};
use crate::config::problem::{Place, Reader};
use crate::policy::{Networks, OutboundAction, OutboundRule};

/// Reads one rule. `None` if it has no readable action, which is then told.
pub(in crate::config::build) fn rule(
    table: OutboundTable,
    place: &Place,
    prefix: &str,
    reader: &mut Reader<'_>,
    around: &mut Around<'_>,
) -> Option<OutboundRule> {
    let key = |name: &str| format!("{}.{name}", place.key);
    let own = around.trust_domain;
    let name = reader.given(key("name"), table.name);
    let name = rule_name(name, place, prefix, reader, around);
    let workloads = workloads(key("workloads"), table.workloads, own, reader);
    let to = destinations((key("to"), table.to), (key("hosts"), table.hosts), reader, around);
    let ports = ports(key("ports"), table.ports, reader);
    let peers = peers(key("peers"), table.peers.clone(), reader);
    let alpn = alpn(key("alpn"), table.alpn.clone(), reader);
    let sni = sni(key("sni"), table.sni.clone(), reader);
    let dry_run = reader.or(&key("dry_run"), table.dry_run, false);
    let remedy = "say action = \"mtls\", \"plaintext\" or \"refuse\"";
    let (kind, _) = reader.required("action", table.action, place, remedy)?;
    if kind.0 == OutboundActionKind::Mtls {
        if table.peers.0.is_none() {
            let what = "does not say whom the server must prove to be";
            let remedy = "list peers; all of a trust domain are spiffe://<trust domain>/*";
            reader.problem(place, what, remedy);
        }
    } else {
        only_for_mtls(&key("peers"), &table.peers, reader);
        only_for_mtls(&key("alpn"), &table.alpn, reader);
        only_for_mtls(&key("sni"), &table.sni, reader);
    }
    let action = match kind.0 {
        OutboundActionKind::Mtls => {
            OutboundAction::Mtls { peers: peers.into(), alpn: alpn.into(), sni: sni.map(Arc::from) }
        }
        OutboundActionKind::Plaintext => OutboundAction::Plaintext,
        OutboundActionKind::Refuse => OutboundAction::Refuse,
    };
    Some(OutboundRule { name, workloads, to, ports, action, dry_run })
}

fn only_for_mtls<T>(key: &str, field: &Key<T>, reader: &mut Reader<'_>) {
    if let Some(given) = &field.0 {
        let value = Some(given.text.clone());
        let place = Place { key: key.to_owned(), at: Some(given.at.clone()), value };
        let remedy = "remove the key, or say action = \"mtls\"";
        reader.problem(&place, "means nothing without mTLS", remedy);
    }
}

fn destinations(
    to: (String, Key<Vec<String>>),
    hosts: (String, Key<Vec<String>>),
    reader: &mut Reader<'_>,
    around: &mut Around<'_>,
) -> Networks {
    if to.1.0.is_none() && hosts.1.0.is_none() {
        return Networks::Any;
    }
    let mut all = networks(to.0, to.1, reader).unwrap_or_default();
    if let Some((names, place)) = list(hosts.0, hosts.1, reader) {
        for name in names {
            all.extend(addresses(&name, &place.quoting(&name), reader, around));
        }
    }
    Networks::of(all)
}

fn addresses(
    name: &str,
    place: &Place,
    reader: &mut Reader<'_>,
    around: &mut Around<'_>,
) -> Vec<IpNet> {
    if !is_host_name(name) {
        let remedy = "write a name such as db.example.org; addresses belong under `to`";
        reader.problem(place, "is not a host name", remedy);
        return Vec::new();
    }
    let found = around.addresses.get(name);
    if let Some(why) = around.failed.get(name) {
        let remedy = "check the name and this host's resolver, or write addresses under `to`";
        if found.is_none() && around.names.may_come_later(name) {
            let what = format!("cannot be looked up yet, the rule matches no address of it: {why}");
            around.warnings.push(reader.warning(place, what, remedy));
            around.unresolved.insert(name.to_owned());
        } else if found.is_none() {
            reader.problem(place, format!("cannot be looked up: {why}"), remedy);
        } else {
            let what = format!("cannot be looked up, its old addresses stay: {why}");
            around.warnings.push(reader.warning(place, what, remedy));
        }
    }
    found.into_iter().flatten().map(|address| IpNet::from(*address)).collect()
}

fn alpn(key: String, field: Key<Vec<String>>, reader: &mut Reader<'_>) -> Vec<Vec<u8>> {
    let Some((items, place)) = list(key, field, reader) else {
        return Vec::new();
    };
    for item in &items {
        // RFC 7301 section 3.1.
        if item.is_empty() || item.len() > 255 {
            let what = "is no ALPN protocol";
            reader.problem(&place.quoting(item), what, "write 1 to 255 bytes, such as h2");
        }
    }
    items.into_iter().map(String::into_bytes).collect()
}

fn sni(key: String, field: Key<String>, reader: &mut Reader<'_>) -> Option<String> {
    let (name, place) = reader.given(key, field)?;
    // RFC 6066 section 3: a host name, no address, no dot at the end.
    if !is_host_name(&name) || name.ends_with('.') {
        let remedy = "write a host name such as db.example.org";
        reader.problem(&place, "cannot be sent as a server name", remedy);
    }
    Some(name)
}
