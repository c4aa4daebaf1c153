//! Connections that are not let through: each with its reason, and nothing reaches anybody.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::node::{Wish, federated, registry, somebody_else};
use super::rules::{allow, allow_plaintext, outbound, policy, to_peer, unmarked};
use super::{A, B, LONG, Node, TestCa, Two, is_reset};
use crate::audit::Record;
use crate::policy::{InboundRule, OutboundAction, Policy, UnmarkedTls};
use crate::proxy::ProxySettings;
use crate::proxy::tls::client_hello;
use crate::workload::{ListenerLookup, Mode};

fn reason(record: &Record) -> (&str, &str) {
    (record.outcome.as_deref().unwrap_or(""), record.reason.as_deref().unwrap_or(""))
}

fn denied(record: &Record) -> &str {
    assert_eq!(record.outcome.as_deref(), Some("denied"), "{record:?}");
    record.reason.as_deref().unwrap()
}

/// Starts a server with these rules and mode.
async fn server(ca: &Arc<TestCa>, rules: Vec<InboundRule>, mode: Mode) -> Node {
    Node::start(ca, B, policy([], rules), Wish { mode, ..Wish::default() }).await
}

fn ca() -> Arc<TestCa> {
    Arc::new(TestCa::new("one.test"))
}

#[tokio::test]
async fn who_dials_the_proxy_is_not_relayed() {
    let two = Two::start().await;
    let mut app = two.client.dial_uncaptured().await;
    assert!(is_reset(&mut app).await);
    assert_eq!(denied(&two.client.record().await), "unknown_flow");
}

#[tokio::test]
async fn what_the_rules_refuse_outbound() {
    let ca = ca();
    for (rules, expected) in [
        (policy([], []), "no_rule"),
        (policy([outbound(OutboundAction::Refuse)], []), "rule_refuses"),
    ] {
        let client = Node::start(&ca, A, rules, Wish::default()).await;
        let mut app = client.dial("127.0.0.1:9".parse().unwrap()).await;
        assert!(is_reset(&mut app).await);
        assert_eq!(denied(&client.record().await), expected);
    }
}

#[tokio::test]
async fn a_program_without_identity_is_refused_in_strict_only() {
    let mut two = Two::start().await;
    two.client.registry.send_replace(Arc::new(crate::registry::Registry::default()));
    let mut app = two.client.dial(two.server.listen).await;
    assert!(is_reset(&mut app).await);
    assert_eq!(denied(&two.client.record().await), "no_identity");
    assert!(two.server.accepted_nothing());
}

#[tokio::test]
async fn a_peer_that_is_not_the_expected_one_hears_nothing() {
    let ca = ca();
    let other = to_peer("spiffe://one.test/other");
    let client = Node::start(&ca, A, policy([other], []), Wish::default()).await;
    let mut server = server(&ca, vec![allow(&[A])], Mode::Strict).await;
    let mut app = client.dial(server.listen).await;
    assert!(is_reset(&mut app).await);
    let record = client.record().await;
    assert_eq!(denied(&record), "peer_not_allowed");
    assert_eq!(record.peer.unwrap().spiffe_id.as_deref(), Some(B));
    let far = server.record().await;
    assert_eq!(reason(&far), ("peer_failed", "handshake: certificate refused"));
    assert!(server.accepted_nothing());
}

#[tokio::test]
async fn a_client_that_is_not_listed_reaches_nobody() {
    let ca = ca();
    let client = Node::start(&ca, A, policy([to_peer(B)], []), Wish::default()).await;
    let mut server = server(&ca, vec![allow(&["spiffe://one.test/c"])], Mode::Strict).await;
    let mut app = client.dial(server.listen).await;
    assert!(is_reset(&mut app).await);
    let far = server.record().await;
    assert_eq!(denied(&far), "peer_not_allowed");
    assert_eq!(far.peer.unwrap().spiffe_id.as_deref(), Some(A));
    assert!(far.detail.is_some());
    let near = client.record().await;
    assert_eq!(reason(&near), ("peer_failed", "handshake: certificate refused"));
    assert!(server.accepted_nothing());
}

#[tokio::test]
async fn a_stranger_from_another_trust_domain_is_not_verified() {
    let (ca, other) = (ca(), Arc::new(TestCa::new("two.test")));
    let trusts = Some([ca.bundle(), other.bundle()].into_iter().collect());
    let wish = Wish { trusts, ..Wish::default() };
    let id = "spiffe://two.test/a";
    let client = Node::start(&other, id, policy([to_peer(B)], []), wish).await;
    client.registry.send_replace(federated(id, &["one.test"]));
    let server = server(&ca, vec![allow(&[id])], Mode::Strict).await;
    let mut app = client.dial(server.listen).await;
    assert!(is_reset(&mut app).await);
    assert_eq!(denied(&server.record().await), "peer_unverified");
}

#[tokio::test]
async fn the_listener_must_be_known_and_be_the_one_that_accepts() {
    let mut two = Two::start().await;
    let ListenerLookup::Found(owner) = two.server.lookup() else { panic!() };
    for (lookup, expected) in [
        (ListenerLookup::Missing, "no_listener"),
        (ListenerLookup::Ambiguous(owner.clone()), "listener_ambiguous"),
    ] {
        two.server.table.listener_is(two.server.listen, lookup);
        let mut app = two.client.dial(two.server.listen).await;
        assert!(is_reset(&mut app).await);
        let records = two.server.records_so_far().await;
        assert_eq!(denied(records.last().unwrap()), expected);
    }
    two.server.table.listener_is(two.server.listen, ListenerLookup::Found(owner));
    two.server.table.accepts(somebody_else());
    let mut app = two.client.dial(two.server.listen).await;
    let mut stolen = two.server.accept().await;
    assert!(is_reset(&mut app).await);
    let records = two.server.records(3).await;
    assert_eq!(denied(&records[2]), "listener_changed");
    let mut nothing = Vec::new();
    assert!(stolen.read_to_end(&mut nothing).await.is_err() && nothing.is_empty());
}

#[tokio::test]
async fn a_peer_that_is_not_there_is_said_to_be_so() {
    let two = Two::start().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut app = two.client.dial(free).await;
    assert!(is_reset(&mut app).await);
    assert_eq!(reason(&two.client.record().await), ("peer_failed", "connect: refused"));
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_left_in_time() {
    let settings = ProxySettings {
        handshake_timeout: std::time::Duration::from_millis(300),
        ..ProxySettings::default()
    };
    let two = Two::wish(Wish { settings, ..Wish::default() }, Wish::default()).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut app = two.client.dial(silent.local_addr().unwrap()).await;
    assert!(is_reset(&mut app).await);
    assert_eq!(reason(&two.client.record().await), ("peer_failed", "handshake: timed out"));
}

#[tokio::test]
async fn an_application_that_gives_up_is_not_waited_for() {
    let two = Two::start().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = two.client.dial(silent.local_addr().unwrap()).await;
    let (_peer, _) = silent.accept().await.unwrap();
    crate::sys::sockopt::reset_on_close(&app).unwrap();
    drop(app);
    assert_eq!(reason(&two.client.record().await), ("local_failed", "abandoned"));
}

#[tokio::test]
async fn a_workload_has_its_limit_and_so_has_the_node() {
    for (workload_limit, node_limit, expected) in [(1, 9, "workload_limit"), (9, 1, "node_limit")] {
        let settings = ProxySettings { node_limit, workload_limit, ..ProxySettings::default() };
        let wish = Wish { settings, ..Wish::default() };
        let mut two = Two::wish(wish, Wish::default()).await;
        let first = two.connected().await;
        let mut second = two.client.dial(two.server.listen).await;
        assert!(is_reset(&mut second).await);
        assert_eq!(denied(&two.client.record().await), expected);
        drop(first);
        two.client.records(2).await;
        let (_app, _server) = two.connected().await;
    }
}

/// What becomes of a client that says this, or nothing, to a server with these rules.
async fn says(rules: Vec<InboundRule>, mode: Mode, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let ca = ca();
    let mut server = server(&ca, rules, mode).await;
    let mut client = TcpStream::connect(server.listen).await.unwrap();
    client.write_all(bytes).await.unwrap();
    let heard = async {
        let mut app = server.accept().await;
        app.write_all(b"hello").await.unwrap();
        let mut greeting = [0; 5];
        client.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"hello");
        client.shutdown().await.unwrap();
        let mut heard = Vec::new();
        app.read_to_end(&mut heard).await.unwrap();
        heard
    };
    match timeout(std::time::Duration::from_secs(2), heard).await {
        Ok(heard) => Ok(heard),
        Err(_elapsed) => Err(denied(&server.record().await).to_owned()),
    }
}

#[tokio::test]
async fn bytes_in_the_clear_are_admitted_only_where_a_rule_says_so() {
    let denied = |reason: &str| Err(reason.to_owned());
    let (strict, permissive) = (Mode::Strict, Mode::Permissive);
    for (case, rules, mode, bytes, expected) in [
        ("strict", vec![allow(&[A])], strict, &b"GET /"[..], denied("plaintext_refused")),
        ("silent", vec![allow(&[A])], strict, b"", denied("first_byte_timeout")),
        ("no rule", vec![], strict, b"GET /", denied("no_rule")),
        ("ruled", vec![allow_plaintext(&[A])], permissive, b"GET /", Ok(b"GET /".to_vec())),
        ("ruled, silent", vec![allow_plaintext(&[A])], permissive, b"", Ok(vec![])),
        ("default", vec![], permissive, b"GET /", Ok(b"GET /".to_vec())),
        ("default, silent", vec![], permissive, b"", Ok(vec![])),
        ("no word", vec![allow(&[A])], permissive, b"GET /", denied("plaintext_refused")),
    ] {
        assert_eq!(says(rules, mode, bytes).await, expected, "{case}");
    }
}

#[tokio::test]
async fn unmarked_tls_goes_where_the_rule_says() {
    let hello = client_hello(false);
    let through = unmarked(&[A], UnmarkedTls::Passthrough);
    let refuse = unmarked(&[A], UnmarkedTls::Refuse);
    let heard = says(vec![through.clone()], Mode::Strict, &hello).await;
    assert_eq!(heard, Ok(hello.clone()));
    let refused = Err("unmarked_tls_refused".to_owned());
    assert_eq!(says(vec![refuse], Mode::Strict, &hello).await, refused);
    // Marked TLS is the mesh's own: it is never passed through.
    let heard = timeout(LONG, says(vec![through], Mode::Strict, &client_hello(true))).await;
    assert!(heard.unwrap().is_err());
}

#[tokio::test]
async fn plaintext_out_is_relayed_and_recorded_as_such() {
    let rules = policy([outbound(OutboundAction::Plaintext)], []);
    let client = Node::start(&ca(), A, rules, Wish::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut app = client.dial(listener.local_addr().unwrap()).await;
    let (mut peer, _) = listener.accept().await.unwrap();
    app.write_all(b"clear").await.unwrap();
    let mut heard = [0; 5];
    peer.read_exact(&mut heard).await.unwrap();
    drop((app, peer));
    let record = client.record().await;
    assert_eq!(record.protection.as_deref(), Some("plaintext"));
    assert_eq!(record.outcome.as_deref(), Some("completed"));
    assert!(record.tls.is_none());
}

#[tokio::test]
async fn permissive_lets_a_nameless_program_out_in_the_clear_and_says_so() {
    let wish = Wish { mode: Mode::Permissive, ..Wish::default() };
    let client = Node::start(&ca(), A, Policy::default(), wish).await;
    client.registry.send_replace(Arc::new(crate::registry::Registry::default()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let app = client.dial(listener.local_addr().unwrap()).await;
    let (peer, _) = listener.accept().await.unwrap();
    drop((app, peer));
    let record = client.record().await;
    assert_eq!(record.rule.as_deref(), Some("default"));
    assert!(record.detail.unwrap().contains("no registration entry"));
    assert!(registry(A).entries().len() == 1);
}
