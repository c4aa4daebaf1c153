//! Every reason that the rules can give, and the sentences of the contract one by one.

use std::sync::Arc;

use super::spec::{self, Spec, client, dst, id, listen};
use crate::policy::*;
use crate::spiffe::PeerIdentity;
use crate::workload::Mode;

const WEB: &str = "spiffe://td/shop/web";
const DB: &str = "spiffe://td/shop/db";

/// How an outbound connection of `web` to 10.0.0.1:5432 ends with this peer, and by which rule.
fn outbound(specs: &[Spec], mode: Mode, peer: &str) -> (String, String) {
    outbound_of(Some(WEB), specs, mode, peer)
}

fn outbound_of(local: Option<&str>, specs: &[Spec], mode: Mode, peer: &str) -> (String, String) {
    let local = local.map(id);
    let policy = spec::outbound(specs);
    let peer = PeerIdentity::unproved(peer);
    let (how, decision) = match plan_outbound(&policy, local.as_ref(), mode, dst("10.0.0.1", 5432))
    {
        OutboundPlan::Mtls(expectation) => ("mtls", expectation.confirm(&peer)),
        OutboundPlan::Plaintext(permit) => ("plaintext", Ok(permit)),
        OutboundPlan::Deny(denial) => ("", Err(denial)),
    };
    said(how, decision)
}

/// How a connection from 10.0.0.2 to port 5432 of `db` ends.
fn inbound(specs: &[Spec], mode: Mode, peer: Peer<'_>) -> (String, String) {
    inbound_of(Some(DB), specs, mode, peer)
}

fn inbound_of(local: Option<&str>, specs: &[Spec], mode: Mode, peer: Peer<'_>) -> (String, String) {
    let (local, policy) = (local.map(id), spec::inbound(specs));
    let at = (listen(5432), client("10.0.0.2"));
    said("admitted", admit_inbound(&policy, local.as_ref(), mode, at.0, at.1, peer))
}

fn said(how: &str, decision: Result<Permit, Denial>) -> (String, String) {
    match decision {
        Ok(permit) => (how.to_owned(), permit.rule().to_string()),
        Err(denial) => {
            let rule = denial.rule().map(ToString::to_string).unwrap_or_default();
            (denial.reason().as_str().to_owned(), rule)
        }
    }
}

fn pair(how: &str, rule: &str) -> (String, String) {
    (how.to_owned(), rule.to_owned())
}

#[test]
fn outbound_reasons() {
    let mtls = Spec::new("mtls").peers(&["spiffe://td/shop/db"]);
    let check = |specs: &[Spec], mode, peer, how, rule| {
        assert_eq!(outbound(specs, mode, peer), pair(how, rule), "{specs:?}");
    };
    check(&[], Mode::Strict, DB, "no_rule", "");
    check(&[], Mode::Permissive, DB, "plaintext", "default");
    check(std::slice::from_ref(&mtls), Mode::Strict, DB, "mtls", "r0");
    check(std::slice::from_ref(&mtls), Mode::Strict, WEB, "peer_not_allowed", "r0");
    check(&[mtls.clone(), Spec::new("refuse")], Mode::Strict, DB, "rule_refuses", "r1");
    check(&[mtls.clone(), Spec::new("plaintext")], Mode::Strict, DB, "mtls", "r0");
    check(&[Spec::new("plaintext"), mtls.clone()], Mode::Strict, DB, "plaintext", "r0");
    check(&[mtls.clone().port(1)], Mode::Strict, DB, "no_rule", "");
    check(&[mtls.clone().networks(&["10.0.0.0/8"])], Mode::Strict, DB, "mtls", "r0");
    check(&[mtls.clone().networks(&["11.0.0.0/8"])], Mode::Strict, DB, "no_rule", "");
    check(&[mtls.clone().networks(&[])], Mode::Strict, DB, "no_rule", "");
    check(&[mtls.workloads(&["spiffe://td/other/*"])], Mode::Strict, DB, "no_rule", "");
    check(&[Spec::new("mtls")], Mode::Strict, DB, "peer_not_allowed", "r0");
    check(&[Spec::new("refuse")], Mode::Observe, DB, "plaintext", "default");
}

#[test]
fn outbound_without_identity() {
    let check = |specs: &[Spec], mode, how, rule| {
        assert_eq!(outbound_of(None, specs, mode, DB), pair(how, rule), "{specs:?}");
    };
    let everyone = ["spiffe://td/*"];
    check(&[Spec::new("plaintext")], Mode::Strict, "no_identity", "");
    check(&[Spec::new("plaintext")], Mode::Permissive, "plaintext", "r0");
    check(&[Spec::new("refuse")], Mode::Permissive, "rule_refuses", "r0");
    check(&[Spec::new("refuse").workloads(&everyone)], Mode::Permissive, "plaintext", "default");
    check(&[Spec::new("mtls").peers(&everyone)], Mode::Permissive, "plaintext", "default");
}

#[test]
fn inbound_reasons() {
    let (web, other) = (PeerIdentity::unproved(WEB), PeerIdentity::unproved("spiffe://td/x"));
    let (web, other) = (Peer::Verified(&web), Peer::Verified(&other));
    let allow = Spec::new("allow").peers(&["spiffe://td/shop/*"]);
    let plain = Spec { plaintext: true, ..Spec::new("allow") };
    let pass = Spec { unmarked: Some(UnmarkedTls::Passthrough), ..Spec::new("allow") };
    let check = |specs: &[Spec], mode, peer, how, rule| {
        assert_eq!(inbound(specs, mode, peer), pair(how, rule), "{specs:?} {peer:?}");
    };
    check(&[], Mode::Strict, web, "no_rule", "");
    check(&[], Mode::Strict, Peer::Plaintext, "no_rule", "");
    check(&[], Mode::Permissive, web, "admitted", "default");
    check(&[], Mode::Permissive, Peer::Plaintext, "admitted", "default");
    check(&[], Mode::Permissive, Peer::Passthrough, "admitted", "default");
    check(std::slice::from_ref(&allow), Mode::Strict, web, "admitted", "r0");
    check(std::slice::from_ref(&allow), Mode::Strict, other, "peer_not_allowed", "r0");
    check(std::slice::from_ref(&allow), Mode::Permissive, other, "peer_not_allowed", "r0");
    check(std::slice::from_ref(&allow), Mode::Strict, Peer::Plaintext, "plaintext_refused", "r0");
    check(
        std::slice::from_ref(&allow),
        Mode::Permissive,
        Peer::Plaintext,
        "plaintext_refused",
        "r0",
    );
    check(
        std::slice::from_ref(&allow),
        Mode::Strict,
        Peer::Passthrough,
        "unmarked_tls_refused",
        "r0",
    );
    check(&[allow.clone(), plain.clone()], Mode::Strict, Peer::Plaintext, "admitted", "r1");
    check(&[allow.clone(), pass], Mode::Strict, Peer::Passthrough, "admitted", "r1");
    check(
        &[plain.networks(&["10.1.0.0/16"])],
        Mode::Strict,
        Peer::Plaintext,
        "plaintext_refused",
        "r0",
    );
    check(&[allow.clone(), Spec::new("deny")], Mode::Strict, web, "rule_refuses", "r1");
    check(&[allow.port(1)], Mode::Strict, web, "no_rule", "");
    assert_eq!(inbound_of(None, &[Spec::new("allow")], Mode::Strict, web), pair("no_identity", ""));
}

#[test]
fn a_rule_about_identities_never_matches_an_anonymous_peer() {
    let deny = Spec::new("deny").peers(&["spiffe://td/*"]);
    let plain = Spec { plaintext: true, ..Spec::new("allow") };
    for peer in [Peer::Plaintext, Peer::Passthrough] {
        let allow = Spec::new("allow").peers(&["spiffe://td/*"]);
        assert_ne!(inbound(&[allow], Mode::Strict, peer).0, "admitted");
        assert_eq!(inbound(std::slice::from_ref(&deny), Mode::Permissive, peer).0, "admitted");
    }
    assert_eq!(inbound(&[deny, plain], Mode::Strict, Peer::Plaintext), pair("admitted", "r1"));
}

#[test]
fn a_denying_rule_alone_closes_nothing_else_in_permissive() {
    let deny = Spec::new("deny").networks(&["10.1.0.0/16"]);
    assert_eq!(inbound(&[deny], Mode::Permissive, Peer::Plaintext), pair("admitted", "default"));
}

#[test]
fn ipv4_mapped_addresses_are_ipv4() {
    let policy = spec::outbound(&[Spec::new("refuse").networks(&["10.0.0.0/8"])]);
    for ip in ["10.0.0.1", "::ffff:10.0.0.1"] {
        let plan = plan_outbound(&policy, Some(&id(WEB)), Mode::Permissive, dst(ip, 1));
        assert!(matches!(plan, OutboundPlan::Deny(_)), "{ip}");
    }
    let policy = spec::inbound(&[Spec::new("deny").networks(&["10.0.0.0/8"])]);
    let from = client("::ffff:10.0.0.1");
    let peer = Peer::Plaintext;
    let decision = admit_inbound(&policy, Some(&id(DB)), Mode::Permissive, listen(1), from, peer);
    assert_eq!(decision.unwrap_err().reason(), DenyReason::RuleRefuses);
}

#[test]
fn plans_say_what_to_do_with_unmarked_tls() {
    let plan = |local: Option<&str>, specs: &[Spec], mode| {
        let local = local.map(id);
        let plan = plan_inbound(
            &spec::inbound(specs),
            local.as_ref(),
            mode,
            listen(5432),
            client("10.0.0.2"),
        );
        (plan.unmarked_tls, plan.plaintext)
    };
    let allow = Spec::new("allow").peers(&["spiffe://td/*"]);
    let pass = Spec { unmarked: Some(UnmarkedTls::Passthrough), ..allow.clone() };
    let elsewhere = pass.clone().networks(&["10.1.0.0/16"]);
    let (terminate, passthrough) = (UnmarkedTls::Terminate, UnmarkedTls::Passthrough);
    assert_eq!(plan(Some(DB), &[], Mode::Strict), (terminate, false));
    assert_eq!(plan(Some(DB), &[], Mode::Permissive), (passthrough, true));
    assert_eq!(plan(Some(DB), std::slice::from_ref(&allow), Mode::Permissive), (terminate, false));
    assert_eq!(plan(Some(DB), &[allow.clone(), pass.clone()], Mode::Strict), (passthrough, false));
    assert_eq!(plan(Some(DB), &[allow.clone(), elsewhere], Mode::Strict), (terminate, false));
    assert_eq!(plan(Some(DB), &[allow.clone(), pass.dry()], Mode::Strict), (terminate, false));
    assert_eq!(
        plan(None, std::slice::from_ref(&allow), Mode::Permissive),
        (UnmarkedTls::Refuse, false)
    );
    assert_eq!(
        plan(None, std::slice::from_ref(&allow), Mode::Strict),
        (UnmarkedTls::Refuse, false)
    );
    assert_eq!(plan(None, &[allow], Mode::Observe), (passthrough, true));
}

#[test]
fn a_dry_run_decides_nothing_and_is_told() {
    let specs = [Spec::new("refuse").dry(), Spec::new("plaintext")];
    let plan =
        plan_outbound(&spec::outbound(&specs), Some(&id(WEB)), Mode::Strict, dst("10.0.0.1", 1));
    let OutboundPlan::Plaintext(permit) = plan else { panic!("{plan:?}") };
    assert_eq!((&**permit.rule(), permit.dry_run().map(|rule| &**rule)), ("r1", Some("r0")));
    assert_eq!(permit.epoch(), 7);
}

#[test]
fn live_connections_are_asked_again() {
    let (web, local) = (PeerIdentity::unproved(DB), id(WEB));
    let recheck = |specs: &[Spec], peer| {
        let (local, dst) = (Some(&local), dst("10.0.0.1", 5432));
        let live = LiveOutbound { local, mode: Mode::Strict, dst, peer };
        said("stands", recheck_outbound(&spec::outbound(specs), &live))
    };
    let mtls = Spec::new("mtls").peers(&["spiffe://td/shop/db"]);
    assert_eq!(recheck(std::slice::from_ref(&mtls), Some(&web)), pair("stands", "r0"));
    assert_eq!(recheck(&[Spec::new("plaintext")], Some(&web)), pair("stands", "r0"));
    assert_eq!(recheck(&[mtls], None), pair("plaintext_refused", "r0"));
    assert_eq!(recheck(&[Spec::new("mtls")], Some(&web)), pair("peer_not_allowed", "r0"));
    assert_eq!(recheck(&[], Some(&web)), pair("no_rule", ""));
    let live = LiveInbound {
        local: Some(&local),
        mode: Mode::Strict,
        listen: listen(1),
        client: client("10.0.0.1"),
        peer: Peer::Plaintext,
    };
    assert_eq!(
        recheck_inbound(&spec::inbound(&[]), &live).unwrap_err().reason(),
        DenyReason::NoRule
    );
}

#[test]
fn explanations_name_the_first_difference() {
    let mtls = Spec::new("mtls").peers(&["spiffe://td/shop/db"]);
    let specs = [
        mtls.clone().workloads(&["spiffe://td/other"]),
        mtls.clone().port(1),
        mtls.clone().networks(&["11.0.0.0/8"]),
        Spec::new("refuse").dry(),
        mtls.clone(),
        mtls,
    ];
    let policy = spec::outbound(&specs);
    let (local, server) = (id(WEB), id("spiffe://td/x"));
    let told =
        explain_outbound(&policy, Some(&local), Mode::Strict, dst("10.0.0.1", 5432), Some(&server));
    let standings: Vec<_> = told.findings.iter().map(|finding| finding.standing).collect();
    assert_eq!(
        standings,
        [
            Standing::Differs(Mismatch::Workload),
            Standing::Differs(Mismatch::Port),
            Standing::Differs(Mismatch::Address),
            Standing::WouldDecide,
            Standing::Decides,
            Standing::Behind,
        ]
    );
    let Judgement::Denied(denial) = told.judgement else { panic!("{:?}", told.judgement) };
    assert_eq!(denial.reason(), DenyReason::PeerNotAllowed);

    let policy = spec::inbound(&[Spec::new("allow").peers(&["spiffe://td/shop/web"])]);
    let told = |peer| {
        let at = (listen(1), client("10.0.0.1"));
        explain_inbound(&policy, Some(&local), Mode::Strict, at.0, at.1, peer).findings[0].standing
    };
    assert_eq!(told(SupposedPeer::Plaintext), Standing::Differs(Mismatch::Anonymous));
    assert_eq!(told(SupposedPeer::Identity(&server)), Standing::Differs(Mismatch::Peer));
    assert_eq!(told(SupposedPeer::Identity(&local)), Standing::Decides);
}

#[test]
fn who_is_denied_is_refused_before_any_rule() {
    let item = |denied: Denied| DenyItem::new(denied, "", "a test").unwrap();
    let with = |denied: Denied, mut policy: Policy| {
        policy.denied = Arc::new([item(denied)].into_iter().collect());
        policy
    };
    let (a, b) = ("spiffe://td/a", "spiffe://td/b");
    let (id, other) = (id(a), id(b));
    let (dst, listen, client) = (dst("10.0.0.1", 80), listen(80), client("10.0.0.2"));
    for mode in [Mode::Permissive, Mode::Strict] {
        let is_refused = |plan: &OutboundPlan| matches!(plan, OutboundPlan::Deny(it) if it.reason() == DenyReason::DenyListed);
        let policy = with(Denied::id(a).unwrap(), Policy::default());
        assert!(is_refused(&plan_outbound(&policy, Some(&id), mode, dst)));
        assert!(!is_refused(&plan_outbound(&policy, Some(&other), mode, dst)));
        let peer = PeerIdentity::unproved(a);
        for denied in [Denied::id(a).unwrap(), Denied::serial("01").unwrap()] {
            let policy = with(denied, Policy::default());
            let found =
                admit_inbound(&policy, Some(&other), mode, listen, client, Peer::Verified(&peer));
            let found = found.unwrap_err();
            assert_eq!((found.reason(), found.rule()), (DenyReason::DenyListed, None));
            assert!(found.detail().unwrap().contains("on the deny list"));
        }
        let supposed = SupposedPeer::Identity(&id);
        let told = explain_inbound(&policy, Some(&other), mode, listen, client, supposed);
        assert!(
            matches!(told.judgement, Judgement::Denied(it) if it.reason() == DenyReason::DenyListed)
        );
    }
    let policy = with(Denied::id(a).unwrap(), Policy::default());
    let observed = plan_outbound(&policy, Some(&id), Mode::Observe, dst);
    assert!(matches!(observed, OutboundPlan::Plaintext(_)), "nothing is decided there");
}
