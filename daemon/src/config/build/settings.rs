//! The tables that stand once: what their values mean and their ranges.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::entries::{JWT_SVID_TTL, SVID_TTL};
use super::federation::{bundle_endpoint, federation, oidc};
use super::values::{absolute, cgroup, include_dir_of};
use crate::config::file::Sections;
use crate::config::file::{
    AdminSection, AttestSection, AuditSection, CaptureSection, Interval, IssuerSection, Key,
    LogSection, NodeSection, ProxySection, Size, WorkloadApiSection,
};
use crate::config::problem::{Place, Reader};
use crate::config::{
    AdminConfig, AttestConfig, AuditConfig, CaptureConfig, Config, IssuerConfig, IssuerKind,
    LogConfig, NodeConfig, ProxyConfig, WorkloadApiConfig,
};
use crate::spiffe::{TrustDomain, parse_trust_domain};

/// Longest name of an instance, and the marks in it.
const INSTANCE: (usize, &str) = (32, "-");

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// The whole configuration but for scopes, entries and rules. `None` without a trust domain.
pub(super) fn settings(sections: Sections, reader: &mut Reader<'_>) -> Option<Config> {
    let node = node(sections.node, reader);
    let run_dir = node.as_ref().map_or(Path::new("/run/tacit"), |node| &node.run_dir);
    let admin = admin(sections.admin, run_dir, reader);
    let workload_api = workload_api(sections.workload_api, run_dir, reader);
    let own = node.as_ref().map(|node| &node.trust_domain);
    let bundle_endpoint = bundle_endpoint(sections.bundle_endpoint, own, reader);
    let federation = federation(sections.federation, reader);
    let oidc = oidc(sections.oidc, reader);
    let capture = capture(sections.capture, reader);
    let attest = attest(sections.attest, reader);
    let issuer = issuer(sections.issuer, reader);
    let proxy = proxy(sections.proxy, reader);
    let audit = audit(sections.audit, reader);
    let log = log(sections.log, reader);
    let node = node?;
    let default = Config::default_for(node.trust_domain.clone());
    let config = Config { node, capture, attest, issuer, proxy, audit, ..default };
    Some(Config { workload_api, bundle_endpoint, federation, oidc, admin, log, ..config })
}

/// The programs hold 262144 dials to local listeners, one for each inbound connection.
const MAX_CONNECTIONS: u32 = 250_000;

fn node(section: NodeSection, reader: &mut Reader<'_>) -> Option<NodeConfig> {
    let trust_domain = trust_domain(section.trust_domain, reader);
    // Any trust domain will do to learn the other defaults.
    let any = trust_domain.clone().or_else(|| parse_trust_domain("example.org").ok())?;
    let default = NodeConfig::default_for(any);
    let name = word("node.name", section.name, default.name, (64, "-_."), reader);
    let state_dir = absolute("node.state_dir", section.state_dir, default.state_dir, reader);
    let run_dir = absolute("node.run_dir", section.run_dir, default.run_dir, reader);
    let include_dir = reader.given("node.include_dir", section.include_dir);
    let include_dir = include_dir.map(|(dir, _)| include_dir_of(reader.path, &dir));
    Some(NodeConfig { trust_domain: trust_domain?, name, state_dir, run_dir, include_dir })
}

fn trust_domain(field: Key<String>, reader: &mut Reader<'_>) -> Option<TrustDomain> {
    let is_given = field.0.is_some();
    let Some((text, place)) = reader.given("node.trust_domain", field) else {
        if !is_given {
            let place = Place { key: "node.trust_domain".to_owned(), ..Place::default() };
            let remedy = "add a table [node] with trust_domain = \"example.org\"";
            reader.problem(&place, "is missing", remedy);
        }
        return None;
    };
    match parse_trust_domain(&text) {
        Ok(domain) => Some(domain),
        Err(error) => {
            let what = format!("is no trust domain: {error}");
            reader.problem(&place, what, "write a bare name such as example.org");
            None
        }
    }
}

/// Where the programs are attached.
pub(in crate::config) fn capture(
    section: CaptureSection,
    reader: &mut Reader<'_>,
) -> CaptureConfig {
    let default = CaptureConfig::default();
    let root = match reader.given("capture.cgroup", section.cgroup) {
        Some((path, place)) => cgroup(&path, &place, reader).unwrap_or(default.cgroup),
        None => default.cgroup,
    };
    let instance = word("capture.instance", section.instance, default.instance, INSTANCE, reader);
    let bpffs = absolute("capture.bpffs", section.bpffs, default.bpffs, reader);
    CaptureConfig { cgroup: root, instance, bpffs }
}

fn attest(section: AttestSection, reader: &mut Reader<'_>) -> AttestConfig {
    let default = AttestConfig::default();
    let limit = (0, 8 << 30);
    AttestConfig {
        digest_limit_bytes: size(
            "attest.digest_limit",
            section.digest_limit,
            default.digest_limit_bytes,
            limit,
            reader,
        ),
        deadline: interval(
            "attest.deadline",
            section.deadline,
            default.deadline,
            (Duration::from_millis(100), MINUTE),
            reader,
        ),
    }
}

fn issuer(section: IssuerSection, reader: &mut Reader<'_>) -> IssuerConfig {
    let default = IssuerConfig::default();
    let kind = match reader.given("issuer.kind", section.kind) {
        None => default.kind,
        Some((kind, _)) if kind == "embedded" => IssuerKind::Embedded,
        Some((kind, place)) => {
            let is_planned = ["spire-server", "spire-agent"].contains(&kind.as_str());
            let what = if is_planned {
                "is an issuer that this version does not have"
            } else {
                "is no issuer"
            };
            reader.problem(&place, what, "write \"embedded\", or leave the key out");
            default.kind
        }
    };
    let (ttl, backdate) = (default.svid_ttl, default.backdate);
    IssuerConfig {
        kind,
        svid_ttl: interval("issuer.svid_ttl", section.svid_ttl, ttl, SVID_TTL, reader),
        jwt_svid_ttl: interval(
            "issuer.jwt_svid_ttl",
            section.jwt_svid_ttl,
            default.jwt_svid_ttl,
            JWT_SVID_TTL,
            reader,
        ),
        backdate: interval(
            "issuer.backdate",
            section.backdate,
            backdate,
            (Duration::ZERO, HOUR),
            reader,
        ),
    }
}

fn proxy(s: ProxySection, r: &mut Reader<'_>) -> ProxyConfig {
    let d = ProxyConfig::default();
    let outbound_port = port("proxy.outbound_port", s.outbound_port, d.outbound_port, r);
    let inbound_port = port("proxy.inbound_port", s.inbound_port, d.inbound_port, r);
    if inbound_port == outbound_port {
        let same = Place { key: "proxy.inbound_port".to_owned(), ..Place::default() };
        r.problem(&same, "is the same as proxy.outbound_port", "choose another port");
    }
    let mut number = |name: &str, field, usual: u32, most: u32| {
        count(&format!("proxy.{name}"), field, usual.min(most), most, r)
    };
    let most = number("max_connections", s.max_connections, d.max_connections, MAX_CONNECTIONS);
    let each = (s.max_connections_per_workload, d.max_connections_per_workload);
    let own = number("max_connections_per_workload", each.0, each.1, most);
    let max_handshakes = number("max_handshakes", s.max_handshakes, d.max_handshakes, 100_000);
    let rate = (s.max_handshake_rate, d.max_handshake_rate);
    let rate = number("max_handshake_rate", rate.0, rate.1, 1_000_000);
    let each = (s.max_handshake_rate_per_workload, d.max_handshake_rate_per_workload);
    let rate_each = number("max_handshake_rate_per_workload", each.0, each.1, rate);
    // Half of the places stay free for those who have proved who they are.
    let half = d.max_unproved.min(most.div_ceil(2));
    let unproved = number("max_unproved", s.max_unproved, half, most);
    let each = (s.max_unproved_per_client, d.max_unproved_per_client);
    let unproved_each = number("max_unproved_per_client", each.0, each.1, unproved);
    let buffer_bytes = size("proxy.buffer", s.buffer, d.buffer_bytes, (4 << 10, 4 << 20), r);
    let mut time = |name: &str, field, default, range| {
        interval(&format!("proxy.{name}"), field, default, range, r)
    };
    let from_zero = |longest| (Duration::ZERO, longest);
    let up_to_5m = |shortest| (Duration::from_millis(shortest), MINUTE * 5);
    let (idle, user) = (d.idle_timeout.unwrap_or_default(), d.user_timeout.unwrap_or_default());
    let idle = time("idle_timeout", s.idle_timeout, idle, from_zero(DAY * 30));
    let user = time("user_timeout", s.user_timeout, user, from_zero(HOUR));
    let (dial, hello, first) = (d.connect_timeout, d.handshake_timeout, d.first_byte_timeout);
    ProxyConfig {
        outbound_port,
        inbound_port,
        connect_timeout: time("connect_timeout", s.connect_timeout, dial, up_to_5m(100)),
        handshake_timeout: time("handshake_timeout", s.handshake_timeout, hello, up_to_5m(100)),
        first_byte_timeout: time("first_byte_timeout", s.first_byte_timeout, first, up_to_5m(10)),
        idle_timeout: (!idle.is_zero()).then_some(idle),
        user_timeout: (!user.is_zero()).then_some(user),
        keepalive: time("keepalive", s.keepalive, d.keepalive, (SECOND, HOUR * 2)),
        drain_timeout: time("drain_timeout", s.drain_timeout, d.drain_timeout, from_zero(DAY)),
        max_connections: most,
        max_connections_per_workload: own,
        max_handshakes,
        max_handshake_rate: rate,
        max_handshake_rate_per_workload: rate_each,
        max_unproved: unproved,
        max_unproved_per_client: unproved_each,
        buffer_bytes,
    }
}

fn workload_api(s: WorkloadApiSection, run_dir: &Path, r: &mut Reader<'_>) -> WorkloadApiConfig {
    let d = WorkloadApiConfig::default_for(run_dir);
    let (whole, each) = ("workload_api.max_connections", "workload_api.max_connections_per_cgroup");
    let most = count(whole, s.max_connections, d.max_connections, 100_000, r);
    let own = d.max_connections_per_cgroup.min(most);
    let rate = ("workload_api.requests_per_second", d.requests_per_second);
    WorkloadApiConfig {
        enabled: r.or("workload_api.enabled", s.enabled, d.enabled),
        socket: absolute("workload_api.socket", s.socket, d.socket, r),
        max_connections: most,
        max_connections_per_cgroup: count(each, s.max_connections_per_cgroup, own, most, r),
        requests_per_second: count(rate.0, s.requests_per_second, rate.1, 100_000, r),
    }
}

fn audit(section: AuditSection, r: &mut Reader<'_>) -> AuditConfig {
    let d = AuditConfig::default();
    let rotate = (64 << 10, 10 << 30);
    AuditConfig {
        path: absolute("audit.path", section.path, d.path, r),
        rotate_bytes: size("audit.rotate_bytes", section.rotate_bytes, d.rotate_bytes, rotate, r),
        keep: count("audit.keep", section.keep, d.keep, 10_000, r),
        queue: r.within("audit.queue", section.queue, d.queue, &(64, 1_000_000), u32::to_string),
        open_after: interval(
            "audit.open_after",
            section.open_after,
            d.open_after,
            (SECOND, DAY),
            r,
        ),
        observe: r.or("audit.observe", section.observe, d.observe),
    }
}

/// How to talk to the daemon.
pub(in crate::config) fn admin(
    section: AdminSection,
    run_dir: &Path,
    reader: &mut Reader<'_>,
) -> AdminConfig {
    let default = AdminConfig::default_for(run_dir);
    let socket = absolute("admin.socket", section.socket, default.socket, reader);
    let enabled = reader.or("admin.metrics_enabled", section.metrics_enabled, true);
    let mut listen = default.metrics_listen;
    if let Some((text, place)) = reader.given("admin.metrics_listen", section.metrics_listen) {
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().is_loopback() => listen = Some(address),
            Ok(_) => {
                let remedy = "write 127.0.0.1 or [::1] and a port: metrics name workloads";
                reader.problem(&place, "is no loopback address", remedy);
            }
            Err(_error) => {
                let remedy = "write one such as 127.0.0.1:9464";
                reader.problem(&place, "is not an address and port", remedy);
            }
        }
    }
    AdminConfig { socket, metrics_listen: listen.filter(|_| enabled) }
}

fn log(section: LogSection, reader: &mut Reader<'_>) -> LogConfig {
    let default = LogConfig::default();
    LogConfig {
        level: reader.given("log.level", section.level).map_or(default.level, |(word, _)| word.0),
        format: reader
            .given("log.format", section.format)
            .map_or(default.format, |(word, _)| word.0),
    }
}

/// Whether this can be the name of an instance: part of paths, and never a way out of them.
pub(in crate::config) fn is_instance(name: &str) -> bool {
    is_word(name, INSTANCE)
}

fn is_word(name: &str, (longest, marks): (usize, &str)) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || marks.contains(c);
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    starts && name.len() <= longest && name.chars().all(plain)
}

/// A name of ASCII letters, digits and these marks, not beginning with a mark.
fn word(
    key: &str,
    field: Key<String>,
    default: String,
    (longest, marks): (usize, &str),
    reader: &mut Reader<'_>,
) -> String {
    let Some((name, place)) = reader.given(key, field) else {
        return default;
    };
    if is_word(&name, (longest, marks)) {
        return name;
    }
    let marks = marks.chars().map(String::from).collect::<Vec<_>>().join(" ");
    let remedy =
        format!("write 1 to {longest} letters, digits and {marks}, a letter or digit first");
    reader.problem(&place, "is no name", remedy);
    default
}

/// A duration that has a default and a range.
pub(super) fn interval(
    key: &str,
    field: Key<Interval>,
    default: Duration,
    range: (Duration, Duration),
    reader: &mut Reader<'_>,
) -> Duration {
    let range = (Interval(range.0), Interval(range.1));
    let show = |Interval(bound): &Interval| humantime::format_duration(*bound).to_string();
    reader.within(key, field, Interval(default), &range, show).0
}

fn size(
    key: &str,
    field: Key<Size>,
    default: u64,
    range: (u64, u64),
    reader: &mut Reader<'_>,
) -> u64 {
    let show = |Size(bytes): &Size| match bytes.trailing_zeros() / 10 {
        _ if *bytes == 0 => "0B".to_owned(),
        0 => format!("{bytes}B"),
        1 => format!("{}KiB", bytes >> 10),
        2 => format!("{}MiB", bytes >> 20),
        _ => format!("{}GiB", bytes >> 30),
    };
    reader.within(key, field, Size(default), &(Size(range.0), Size(range.1)), show).0
}

fn count(key: &str, field: Key<u32>, default: u32, most: u32, reader: &mut Reader<'_>) -> u32 {
    reader.within(key, field, default, &(1, most), u32::to_string)
}

fn port(key: &str, field: Key<u16>, default: u16, reader: &mut Reader<'_>) -> u16 {
    reader.within(key, field, default, &(1, u16::MAX), u16::to_string)
}
