//! A deliberately naive evaluator on the text of rules, and the real one held against it.

use std::net::{IpAddr, Ipv6Addr};

use proptest::prelude::*;
use proptest::sample::select;

use super::spec::{self, Spec, client, dst, id, listen};
use crate::policy::inbound::{Arrival, judge};
use crate::policy::*;
use crate::workload::Mode;

/// What comes out: `mtls`, `plaintext`, `passthrough` or a reason; the rule; the dry-run rule.
type Outcome = (String, Option<String>, Option<String>);

/// Before dry runs are compared: how it ends and the rule.
type Ruling<'a> = (String, Option<(usize, &'a Spec)>);

fn matches(pattern: &str, id: &str) -> bool {
    let pattern: Vec<_> = pattern.split('/').collect();
    let id: Vec<_> = id.split('/').collect();
    match pattern.split_last() {
        Some((&"*", fixed)) => id.len() > fixed.len() && id[..fixed.len()] == *fixed,
        _ => pattern == id,
    }
}

fn any(patterns: &[&str], id: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, id))
}

/// The address as 128 bits; IPv4 as `::ffff:a.b.c.d`.
fn bits(ip: &str) -> u128 {
    match ip.parse::<IpAddr>().unwrap() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn is_ipv4(bits: u128) -> bool {
    Ipv6Addr::from_bits(bits).to_ipv4_mapped().is_some()
}

fn holds(network: &str, ip: &str) -> bool {
    let (address, length) = network.split_once('/').unwrap();
    let length: u32 = length.parse::<u32>().unwrap() + if address.contains(':') { 0 } else { 96 };
    let (network, ip) = (bits(address), bits(ip));
    let same = (0..length).all(|bit| (network >> (127 - bit)) & 1 == (ip >> (127 - bit)) & 1);
    same && is_ipv4(ip) == (is_ipv4(network) && length >= 96)
}

fn about(spec: &Spec, local: Option<&str>, ip: &str, port: u16) -> (bool, bool) {
    let workload = spec.workloads.is_empty() || local.is_some_and(|id| any(&spec.workloads, id));
    let at = spec.networks.as_ref().is_none_or(|all| all.iter().any(|network| holds(network, ip)));
    (workload && spec.port.is_none_or(|only| only == port), at)
}

fn rule_outbound<'a>(
    specs: &'a [Spec],
    (local, mode, ip, port): (Option<&str>, Mode, &str, u16),
    peer: Option<&str>,
    dry_runs: bool,
) -> Ruling<'a> {
    if mode == Mode::Observe {
        return ("plaintext".into(), None);
    }
    if mode == Mode::Strict && local.is_none() {
        return ("no_identity".into(), None);
    }
    let mut matching = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let possible = spec.action != "mtls" || local.is_some();
        let considered = dry_runs || !spec.dry_run;
        if considered && possible && about(spec, local, ip, port) == (true, true) {
            matching.push((index, spec));
        }
    }
    let refusing = matching.iter().find(|(_, spec)| spec.action == "refuse");
    match refusing.or(matching.first()).copied() {
        None if mode == Mode::Permissive => ("plaintext".into(), None),
        None => ("no_rule".into(), None),
        Some((index, spec)) => {
            let how = match spec.action {
                "refuse" => "rule_refuses",
                "plaintext" => "plaintext",
                _ if peer.is_none_or(|peer| any(&spec.peers, peer)) => "mtls",
                _ => "peer_not_allowed",
            };
            (how.into(), Some((index, spec)))
        }
    }
}

fn rule_inbound<'a>(
    specs: &'a [Spec],
    (local, mode, ip, port): (Option<&str>, Mode, &str, u16),
    peer: &str,
    dry_runs: bool,
) -> Ruling<'a> {
    let how = if peer.starts_with("spiffe://") { "mtls" } else { peer };
    if mode == Mode::Observe {
        return (how.into(), None);
    }
    if mode == Mode::Strict && local.is_none() {
        return ("no_identity".into(), None);
    }
    let listed = |spec: &Spec| match how {
        "mtls" => spec.peers.is_empty() || any(&spec.peers, peer),
        _ => spec.peers.is_empty(),
    };
    // Of another trust domain only by name.
    let domain = |id: &str| id.split('/').nth(2).map(str::to_owned);
    let is_foreign = local.is_some_and(|local| domain(local) != domain(peer));
    let mut first = None;
    let mut denies = None;
    let mut admits = None;
    let mut said = None;
    for (index, spec) in specs.iter().enumerate() {
        let (here, from) = about(spec, local, ip, port);
        if !here || (spec.dry_run && !dry_runs) {
            continue;
        }
        if spec.action == "deny" {
            if from && listed(spec) {
                denies = denies.or(Some((index, spec)));
            }
            continue;
        }
        first = first.or(Some((index, spec)));
        if from {
            said = said.or(spec.unmarked.map(|word| (word, (index, spec))));
            let does = match how {
                "mtls" => listed(spec) && !(spec.peers.is_empty() && is_foreign),
                "plaintext" => spec.plaintext,
                _ => false,
            };
            if does {
                admits = admits.or(Some((index, spec)));
            }
        }
    }
    if let Some((UnmarkedTls::Passthrough, rule)) = said.filter(|_| how == "passthrough") {
        admits = Some(rule);
    }
    let reason = match how {
        "mtls" => "peer_not_allowed",
        "plaintext" => "plaintext_refused",
        _ => "unmarked_tls_refused",
    };
    match (denies, admits, first, mode) {
        (Some(rule), ..) => ("rule_refuses".into(), Some(rule)),
        (_, Some(rule), ..) => (how.into(), Some(rule)),
        (_, _, Some(_), _) if how == "passthrough" && said.is_some() => {
            (reason.into(), said.map(|(_, rule)| rule))
        }
        (_, _, Some(rule), _) => (reason.into(), Some(rule)),
        (_, _, None, Mode::Permissive) => (how.into(), None),
        _ => ("no_rule".into(), None),
    }
}

fn is_admission(how: &str) -> bool {
    ["mtls", "plaintext", "passthrough"].contains(&how)
}

fn outcome(live: Ruling<'_>, rehearsed: &Ruling<'_>) -> Outcome {
    let kind = |how: &str| {
        if is_admission(how) { how.to_owned() } else { "refused".to_owned() }
    };
    let differs = kind(&live.0) != kind(&rehearsed.0);
    let dry = rehearsed.1.filter(|(_, spec)| differs && spec.dry_run);
    let rule = match live.1 {
        Some((index, _)) => Some(format!("r{index}")),
        None => is_admission(&live.0).then(|| "default".to_owned()),
    };
    (live.0, rule, dry.map(|(index, _)| format!("r{index}")))
}

fn permitted(how: &str, permit: &Permit) -> Outcome {
    let dry = permit.dry_run().map(ToString::to_string);
    (how.to_owned(), Some(permit.rule().to_string()), dry)
}

fn denied(denial: &Denial) -> Outcome {
    let text = |name: &std::sync::Arc<str>| name.to_string();
    let reason = denial.reason().as_str().to_owned();
    (reason, denial.rule().map(text), denial.dry_run().map(text))
}

const IDS: [&str; 9] = [
    "spiffe://td/a",
    "spiffe://td/a.b",
    "spiffe://td/axb",
    "spiffe://td/a/b",
    "spiffe://td/a/b/c",
    "spiffe://td/a-b/..c",
    "spiffe://td/A_b",
    "spiffe://td.x/a",
    "spiffe://tdx/a",
];
const PATTERNS: [&str; 8] = [
    "spiffe://td/*",
    "spiffe://td/a",
    "spiffe://td/a.b",
    "spiffe://td/a/*",
    "spiffe://td/a/b/*",
    "spiffe://td/a-b/*",
    "spiffe://td.x/*",
    "spiffe://tdx/a",
];
const IPS: [&str; 6] =
    ["10.0.0.1", "10.1.0.1", "::ffff:10.0.0.1", "192.168.1.1", "2001:db8::1", "::1"];
const NETWORKS: [&str; 7] = [
    "10.0.0.0/8",
    "10.0.0.1/32",
    "::ffff:10.0.0.0/104",
    "2001:db8::/32",
    "::/0",
    "0.0.0.0/0",
    "::1/128",
];
const MODES: [Mode; 3] = [Mode::Observe, Mode::Permissive, Mode::Strict];
const UNMARKED: [UnmarkedTls; 3] =
    [UnmarkedTls::Terminate, UnmarkedTls::Passthrough, UnmarkedTls::Refuse];

fn some_of(all: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
    prop_oneof![Just(Vec::new()), prop::collection::vec(select(all), 1..3)]
}

fn specs(actions: &'static [&'static str]) -> impl Strategy<Value = Vec<Spec>> {
    let spec = (
        some_of(&PATTERNS),
        prop::option::of(prop::collection::vec(select(&NETWORKS[..]), 0..3)),
        prop::option::of(1..3_u16),
        select(actions),
        some_of(&PATTERNS),
        prop::option::of(select(&UNMARKED[..])),
        any_bool(),
        prop::bool::weighted(0.3),
    )
        .prop_map(
            |(workloads, networks, port, action, peers, unmarked, plaintext, dry_run)| Spec {
                workloads,
                networks,
                port,
                action,
                peers,
                unmarked,
                plaintext,
                dry_run,
            },
        );
    prop::collection::vec(spec, 0..6)
}

fn any_bool() -> impl Strategy<Value = bool> {
    proptest::bool::ANY
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn outbound_decides_as_the_reference(
        specs in specs(&["mtls", "plaintext", "refuse"]),
        local in prop::option::of(select(&IDS[..])),
        mode in select(&MODES[..]),
        ip in select(&IPS[..]),
        port in 1..3_u16,
        peer in select(&IDS[..]),
    ) {
        let about = (local, mode, ip, port);
        let plan = plan_outbound(&spec::outbound(&specs), local.map(id).as_ref(), mode, dst(ip, port));
        let (actual, known) = match plan {
            OutboundPlan::Mtls(expectation) => match expectation.judge(&id(peer)) {
                Ok(permit) => (permitted("mtls", &permit), Some(peer)),
                Err(denial) => (denied(&denial), Some(peer)),
            },
            OutboundPlan::Plaintext(permit) => (permitted("plaintext", &permit), None),
            OutboundPlan::Deny(denial) => (denied(&denial), None),
        };
        // Where the live rules ask for no mTLS, nobody learns who the peer is.
        let expected =
            outcome(rule_outbound(&specs, about, known, false), &rule_outbound(&specs, about, known, true));
        prop_assert_eq!(actual, expected);
    }

    #[test]
    fn inbound_decides_as_the_reference(
        specs in specs(&["allow", "allow", "deny"]),
        local in prop::option::of(select(&IDS[..])),
        mode in select(&MODES[..]),
        ip in select(&IPS[..]),
        port in 1..3_u16,
        peer in prop_oneof![select(&IDS[..]), Just("plaintext"), Just("passthrough")],
    ) {
        let about = (local, mode, ip, port);
        let (local_id, peer_id) = (local.map(id), peer.starts_with("spiffe://").then(|| id(peer)));
        let supposed = match (&peer_id, peer) {
            (Some(peer), _) => SupposedPeer::Identity(peer),
            (None, "plaintext") => SupposedPeer::Plaintext,
            _ => SupposedPeer::Passthrough,
        };
        let policy = spec::inbound(&specs);
        let arrival =
            Arrival { local: local_id.as_ref(), mode, listen: listen(port), client: client(ip) };
        let how = if peer_id.is_some() { "mtls" } else { peer };
        let decision = judge(&policy, arrival, supposed);
        let actual = match &decision {
            Ok(permit) => permitted(how, permit),
            Err(denial) => denied(denial),
        };
        let expected =
            outcome(rule_inbound(&specs, about, peer, false), &rule_inbound(&specs, about, peer, true));
        prop_assert_eq!(&actual, &expected);

        // The plan never turns away whom the decision would admit.
        let plan = plan_inbound(&policy, arrival.local, mode, listen(port), client(ip));
        match supposed {
            SupposedPeer::Plaintext => prop_assert!(plan.plaintext || decision.is_err()),
            SupposedPeer::Passthrough => prop_assert!(
                plan.unmarked_tls == UnmarkedTls::Passthrough || decision.is_err()
            ),
            SupposedPeer::Identity(_) => {}
        }
        // An explanation says what the decision says.
        let explained =
            explain_inbound(&policy, arrival.local, mode, listen(port), client(ip), supposed);
        prop_assert_eq!(matches!(explained.judgement, Judgement::Denied(_)), decision.is_err());
        prop_assert_eq!(explained.findings.len(), specs.len());
    }

    #[test]
    fn patterns_match_as_the_reference(pattern in select(&PATTERNS[..]), text in select(&IDS[..])) {
        prop_assert_eq!(PeerPattern::parse(pattern).unwrap().matches(&id(text)), matches(pattern, text));
    }
}
