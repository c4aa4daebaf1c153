//! Registration entries: what `[[entry]]` means.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rustls_pki_types::DnsName;

use super::selectors;
use super::values::list;
use super::whole::{Around, LONGEST_NAME};
use crate::config::file::{EntryTable, Interval, Key};
use crate::config::problem::{Place, Problem, Reader};
use crate::registry::{RegistrationEntry, Registry};
use crate::spiffe::{SpiffeId, TrustDomain, hex, parse_id, parse_trust_domain};
use crate::workload::{Selector, Selectors};

/// Shortest and longest lifetime of an SVID.
pub(super) const SVID_TTL: (Duration, Duration) =
    (Duration::from_secs(10), Duration::from_hours(7 * 24));

/// Shortest and longest lifetime of a JWT-SVID. The key that signed one stays published for as long.
pub(super) const JWT_SVID_TTL: (Duration, Duration) =
    (Duration::from_secs(10), Duration::from_hours(24));

/// Longest hint, in bytes. Source: SPIFFE Workload API §5.2.1.
const LONGEST_HINT: usize = 1024;

/// Bytes of the digest that make a derived id: enough that a clash never happens by chance.
const DERIVED_ID_BYTES: usize = 16;

/// An entry, and the problem to tell if its id turns out to be taken.
pub(super) struct Read {
    pub(super) entry: RegistrationEntry,
    pub(super) clash: Problem,
}

/// Reads one entry. `None` if there is a problem, which is then told.
pub(super) fn entry(
    table: EntryTable,
    place: &Place,
    reader: &mut Reader<'_>,
    around: &mut Around<'_>,
) -> Option<Read> {
    let key = |name: &str| format!("{}.{name}", place.key);
    let id = reader.given(key("id"), table.id);
    let is_bad =
        |id: &str| id.is_empty() || id.len() > LONGEST_NAME || id.contains(char::is_control);
    if let Some((_, place)) = id.as_ref().filter(|(id, _)| is_bad(id)) {
        let remedy = format!("write 1 to {LONGEST_NAME} bytes without control characters");
        reader.problem(place, "is no id", remedy);
    }
    let remedy = "say which identity it gives";
    let spiffe_id = reader
        .required("spiffe_id", table.spiffe_id, place, remedy)
        .and_then(|(text, place)| spiffe_id(&text, &place, around.trust_domain, reader));
    let remedy = "list at least one, such as \"systemd:id:redis.service\"";
    let selectors = reader
        .required("selectors", table.selectors, place, remedy)
        .and_then(|(items, place)| selectors_of(&items, &place, reader));
    let svid_ttl = ttl(key("svid_ttl"), table.svid_ttl, SVID_TTL, reader);
    let jwt_svid_ttl = ttl(key("jwt_svid_ttl"), table.jwt_svid_ttl, JWT_SVID_TTL, reader);
    let hint = hint(key("hint"), table.hint, reader);
    let dns_names = dns_names(key("dns_names"), table.dns_names, reader);
    let federates_with =
        federates_with(key("federates_with"), table.federates_with, around.trust_domain, reader);
    let (spiffe_id, selectors) = (spiffe_id?, selectors?);
    if !selectors.iter().any(selectors::is_firm) {
        let what = "any user can run a program to which these selectors apply";
        let remedy = "add a user, a digest, a systemd unit or a cgroup";
        around.warnings.push(reader.warning(place, what, remedy));
    }
    let line = place.at.as_ref().map_or(0, |at| reader.line(at.start));
    Some(Read {
        clash: Problem {
            file: reader.path.to_owned(),
            line: Some(line),
            key: place.key.clone(),
            value: None,
            what: String::new(),
            remedy: String::new(),
        },
        entry: RegistrationEntry {
            id: id.map_or_else(|| derived_id(&spiffe_id, &selectors), |(id, _)| id),
            spiffe_id,
            selectors,
            svid_ttl,
            jwt_svid_ttl,
            hint,
            dns_names,
            federates_with,
            origin: format!("{}:{line}", reader.path.display()),
        },
    })
}

/// What is said of entries with the very same selectors: the first by its id goes before all others.
pub(super) fn twins(registry: &Registry, main: &Path) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for group in registry.twins() {
        let [first, others @ ..] = group.as_slice() else { continue };
        for other in others {
            let what = format!(
                "entry at {} has the same selectors as the one at {}, which goes first by its id",
                other.origin, first.origin
            );
            warnings.push(Problem {
                file: main.to_owned(),
                line: None,
                key: other.id.clone(),
                value: None,
                what,
                remedy: "remove one of them, or add a selector".to_owned(),
            });
        }
    }
    warnings
}

fn ttl(
    key: String,
    field: Key<Interval>,
    (shortest, longest): (Duration, Duration),
    reader: &mut Reader<'_>,
) -> Option<Duration> {
    let (Interval(ttl), place) = reader.given(key, field)?;
    if ttl < shortest || ttl > longest {
        let show = humantime::format_duration;
        let remedy = format!("write a duration from {} to {}", show(shortest), show(longest));
        reader.problem(&place, "out of range", remedy);
    }
    Some(ttl)
}

fn hint(key: String, field: Key<String>, reader: &mut Reader<'_>) -> String {
    let Some((hint, place)) = reader.given(key, field) else {
        return String::new();
    };
    if hint.is_empty() || hint.len() > LONGEST_HINT || hint.contains(char::is_control) {
        let remedy = format!("write 1 to {LONGEST_HINT} bytes without control characters");
        reader.problem(&place, "is no hint", remedy);
    }
    hint
}

fn dns_names(key: String, field: Key<Vec<String>>, reader: &mut Reader<'_>) -> Vec<String> {
    let Some((names, place)) = list(key, field, reader) else {
        return Vec::new();
    };
    for name in &names {
        let is_name = DnsName::try_from(name.as_str()).is_ok() && !name.ends_with('.');
        if !is_name || name.contains(|c: char| c.is_ascii_uppercase()) {
            let remedy = "write a lower-case name such as web.example.org, without wildcards";
            reader.problem(&place.quoting(name), "is no DNS name", remedy);
        }
    }
    names
}

fn federates_with(
    key: String,
    field: Key<Vec<String>>,
    own: Option<&TrustDomain>,
    reader: &mut Reader<'_>,
) -> BTreeSet<TrustDomain> {
    let Some((names, place)) = list(key, field, reader) else {
        return BTreeSet::new();
    };
    let mut domains = BTreeSet::new();
    for name in names {
        match parse_trust_domain(&name) {
            Ok(domain) if own.is_some_and(|own| *own == domain) => {
                let remedy = "name other trust domains only: its workloads have its own bundle";
                reader.problem(&place.quoting(&name), "is the node's own trust domain", remedy);
            }
            Ok(domain) => {
                domains.insert(domain);
            }
            Err(error) => {
                let what = format!("is no trust domain: {error}");
                reader.problem(
                    &place.quoting(&name),
                    what,
                    "write a bare name such as partner.org",
                );
            }
        }
    }
    domains
}

fn spiffe_id(
    text: &str,
    place: &Place,
    own: Option<&TrustDomain>,
    reader: &mut Reader<'_>,
) -> Option<SpiffeId> {
    let id = match parse_id(text) {
        Ok(id) => id,
        Err(error) => {
            let remedy = "write a SPIFFE ID such as spiffe://example.org/shop/web";
            reader.problem(place, format!("is not a SPIFFE ID: {error}"), remedy);
            return None;
        }
    };
    let (what, remedy) = if own.is_some_and(|own| own != id.trust_domain()) {
        let own = own.map_or("", TrustDomain::as_str);
        ("is of another trust domain than this node", format!("begin it with spiffe://{own}/"))
    } else if id.path().is_empty() {
        ("names no workload", "add a path, such as /shop/web".to_owned())
    } else if id.path() == "/spire" || id.path().starts_with("/spire/") {
        // Source: SPIRE keeps this path for its own servers and agents.
        ("is reserved for SPIRE", "choose a path that does not begin with /spire".to_owned())
    } else {
        return Some(id);
    };
    reader.problem(place, what, remedy);
    None
}

fn selectors_of(items: &[String], place: &Place, reader: &mut Reader<'_>) -> Option<Selectors> {
    let mut read = Selectors::new();
    let mut failed = items.is_empty();
    if failed {
        let what = "an empty list would match every process";
        reader.problem(place, what, "list at least one, such as \"systemd:id:redis.service\"");
    }
    for item in items {
        match selectors::parse(item) {
            Ok(selector) => {
                read.insert(selector);
            }
            Err((what, remedy)) => {
                reader.problem(&place.quoting(item), what, remedy);
                failed = true;
            }
        }
    }
    (!failed).then_some(read)
}

/// An id that stays the same as long as the entry says the same.
fn derived_id(spiffe_id: &SpiffeId, selectors: &Selectors) -> String {
    let lines = selectors.iter().map(Selector::to_string);
    let text = std::iter::once(spiffe_id.to_string()).chain(lines).collect::<Vec<_>>().join("\n");
    let digest = digest(&SHA256, text.as_bytes());
    hex(digest.as_ref().get(..DERIVED_ID_BYTES).unwrap_or_default())
}
