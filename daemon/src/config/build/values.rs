//! Values that several tables have: patterns, networks, ports, paths, host names.

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use ipnet::IpNet;

use crate::config::file::Document;
use crate::config::file::{Key, Ports};
use crate::config::problem::{Place, Reader};
use crate::policy::PeerPattern;
use crate::spiffe::TrustDomain;
use crate::workload::PortSet;

/// A list that may be absent but not empty.
pub(super) fn list(
    key: String,
    field: Key<Vec<String>>,
    reader: &mut Reader<'_>,
) -> Option<(Vec<String>, Place)> {
    let (items, place) = reader.given(key, field)?;
    if items.is_empty() {
        let what = "an empty list could mean none or any";
        reader.problem(&place, what, "leave the key out, or list something");
        return None;
    }
    Some((items, place))
}

/// Patterns of SPIFFE IDs of peers, of whatever trust domain; empty if the key is absent.
pub(super) fn peers(
    key: String,
    field: Key<Vec<String>>,
    reader: &mut Reader<'_>,
) -> Vec<PeerPattern> {
    patterns(key, field, None, reader)
}

/// Patterns of SPIFFE IDs of local workloads: in the node's own trust domain; empty if the key is
/// absent.
pub(super) fn workloads(
    key: String,
    field: Key<Vec<String>>,
    own: Option<&TrustDomain>,
    reader: &mut Reader<'_>,
) -> Vec<PeerPattern> {
    patterns(key, field, own, reader)
}

fn patterns(
    key: String,
    field: Key<Vec<String>>,
    own: Option<&TrustDomain>,
    reader: &mut Reader<'_>,
) -> Vec<PeerPattern> {
    let Some((items, place)) = list(key, field, reader) else {
        return Vec::new();
    };
    let mut patterns = Vec::new();
    for item in items {
        match PeerPattern::parse(&item) {
            Ok(pattern) if own.is_some_and(|own| own != pattern.trust_domain()) => {
                let what = "is of another trust domain, and no workload of this node";
                let own = own.map_or("", TrustDomain::as_str);
                let remedy = format!("name an identity of spiffe://{own}/");
                reader.problem(&place.quoting(&item), what, remedy);
            }
            Ok(pattern) => patterns.push(pattern),
            Err(error) => {
                let remedy = "write a whole SPIFFE ID, or one ending in /*";
                reader.problem(&place.quoting(&item), error.to_string(), remedy);
            }
        }
    }
    patterns
}

/// Networks; `None` if the key is absent (or has a problem, which is then told).
pub(super) fn networks(
    key: String,
    field: Key<Vec<String>>,
    reader: &mut Reader<'_>,
) -> Option<Vec<IpNet>> {
    let (items, place) = list(key, field, reader)?;
    Some(items.iter().filter_map(|item| network(item, &place, reader)).collect())
}

/// A network, or an address as the network of it alone.
pub(super) fn network(item: &str, place: &Place, reader: &mut Reader<'_>) -> Option<IpNet> {
    if let Ok(address) = item.parse::<IpAddr>() {
        return Some(address.into());
    }
    let Ok(network) = item.parse::<IpNet>() else {
        let remedy = "write an address or a network such as 10.0.0.0/8; names belong under hosts";
        reader.problem(&place.quoting(item), "is neither an address nor a network", remedy);
        return None;
    };
    let whole = network.trunc();
    if whole != network {
        let what = "has bits set behind its prefix";
        let remedy = format!("write {whole} for the network or {} for the host", network.addr());
        reader.problem(&place.quoting(item), what, remedy);
        return None;
    }
    Some(network)
}

/// Ports; all if the key is absent.
pub(super) fn ports(key: String, field: Key<Ports>, reader: &mut Reader<'_>) -> PortSet {
    let Some((Ports(items), place)) = reader.given(key, field) else {
        return PortSet::all();
    };
    PortSet::parse(&items).unwrap_or_else(|error| {
        reader.problem(
            &place,
            error.to_string(),
            "write ports such as [443, \"8000-8100\"] or \"all\"",
        );
        PortSet::all()
    })
}

/// A path of a cgroup below the cgroup2 mount, without a slash at its end.
pub(super) fn cgroup(path: &str, place: &Place, reader: &mut Reader<'_>) -> Option<String> {
    let trimmed = path.strip_suffix('/').unwrap_or(path);
    let is_plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    let ok =
        path.starts_with('/') && !path.contains('\0') && trimmed.split('/').skip(1).all(is_plain);
    if !ok {
        let what = "is not a path of a cgroup";
        let remedy = "write it from the cgroup2 mount on, such as /system.slice/redis.service, \
                      without `.`, `..` or empty parts";
        reader.problem(place, what, remedy);
        return None;
    }
    Some(if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() })
}

/// An absolute path without `..`.
pub(super) fn absolute(
    key: &str,
    field: Key<PathBuf>,
    default: PathBuf,
    reader: &mut Reader<'_>,
) -> PathBuf {
    let Some((path, place)) = reader.given(key, field) else {
        return default;
    };
    let climbs = path.components().any(|part| part == Component::ParentDir);
    if path.is_absolute() && !climbs {
        return path;
    }
    reader.problem(&place, "is not an absolute path", "write it from / on, without `..`");
    default
}

/// An absolute path without `..`, if the file gives one.
pub(super) fn absolute_if_given(
    key: &str,
    field: Key<PathBuf>,
    reader: &mut Reader<'_>,
) -> Option<PathBuf> {
    field.0.is_some().then(|| absolute(key, field, PathBuf::new(), reader))
}

/// The directory that the main file includes, if it names one.
pub(in crate::config) fn include_dir(main: &Document) -> Option<PathBuf> {
    let dir = main.sections.node.include_dir.0.as_ref()?.value.as_ref().ok()?;
    Some(include_dir_of(&main.path, dir))
}

/// A directory as the main file means it: relative to where that file is.
pub(super) fn include_dir_of(main: &Path, dir: &Path) -> PathBuf {
    main.parent().unwrap_or(Path::new("")).join(dir)
}

/// Whether the text can be a host name (RFC 1123 section 2.1), with at most 253 bytes.
pub(super) fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let hyphen = label.starts_with('-') || label.ends_with('-');
        !label.is_empty() && label.len() <= 63 && label.bytes().all(plain) && !hyphen
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= 253 && name.parse::<IpAddr>().is_err() && name.split('.').all(is_label)
}
