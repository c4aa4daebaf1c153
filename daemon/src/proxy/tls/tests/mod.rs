//! Handshakes over loopback sockets: who is admitted, what is negotiated, what is on the wire.

mod strangers;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::{NoClientAuth, ServerConfig};
use rustls::{ClientConnection, ServerConnection, version};
use tokio::net::{TcpListener, TcpStream};

use super::credential::{Credential, Offer, Tls};
use super::handshake::{Established, HandshakeError};
use super::marker::{is_marked, marked};
use super::verifier::{Trust, Verifier};
use crate::audit::{Outcome, PeerFailure};
use crate::policy::{
    DenyReason, InboundAction, InboundRule, Networks, Peer, PeerPattern, Policy, admit_inbound,
};
use crate::proxy::relay::Inbox;
use crate::proxy::tests::ca::{TestCa, Wanted};
use crate::spiffe::{BundleSet, PeerIdentity};
use crate::sys::clock;
use crate::workload::{ClientAddr, ListenAddr, Mode, PortSet};

const A: &str = "spiffe://one.test/a";
const B: &str = "spiffe://one.test/b";

/// A record with the first `ClientHello` that a client of ours would send, marked or not.
pub(in crate::proxy) fn client_hello(mark: bool) -> Vec<u8> {
    let ca = TestCa::new("one.test");
    let credential = credential(&ca, A);
    let verifier = Verifier::new(trust(&ca, B), &credential.provider);
    let config = Arc::new(credential.client(&verifier, Offer::default()));
    let name = ServerName::try_from("one.test").unwrap();
    let make = || ClientConnection::new(config, name).unwrap();
    let mut client = if mark { marked(make) } else { make() };
    let mut record = Vec::new();
    client.write_tls(&mut record).unwrap();
    record
}

fn credential(ca: &TestCa, id: &str) -> Arc<Credential> {
    let svid = Arc::new(ca.svid(id));
    Tls::default().credential(&svid, &ca.bundles(), clock::now()).unwrap()
}

/// Trusts the authority, and admits this identity only.
fn trust(ca: &TestCa, admitted: &str) -> Trust {
    trust_at(ca.bundles(), admitted, clock::now)
}

fn trust_at(bundles: BundleSet, admitted: &str, clock: fn() -> SystemTime) -> Trust {
    let rule = InboundRule {
        name: "only".into(),
        workloads: vec![],
        ports: PortSet::all(),
        from: Networks::default(),
        peers: vec![PeerPattern::parse(admitted).unwrap()],
        action: InboundAction::Allow { plaintext: false, unmarked_tls: None },
        dry_run: false,
    };
    let policy = Policy { epoch: 7, inbound: vec![rule], ..Policy::default() };
    let local = crate::spiffe::parse_id(A).unwrap();
    let listen = ListenAddr::new("10.0.0.1:1".parse().unwrap());
    let client = ClientAddr::new("10.0.0.2:2".parse().unwrap());
    let judge = Box::new(move |peer: &PeerIdentity| {
        let peer = Peer::Verified(peer);
        admit_inbound(&policy, Some(&local), Mode::Strict, listen, client, peer)
    });
    Trust { bundles: Arc::new(bundles), clock, judge }
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

type Shaken = Result<Established, HandshakeError>;

/// Shakes hands; an end that fails closes, as it would in earnest.
async fn shake(
    client: (&Credential, Offer<'_>, Trust),
    server: (&Credential, Trust),
) -> (Shaken, Shaken) {
    let (near, far) = sockets().await;
    let connect = async move {
        let shaken = client.0.connect(&near, Inbox::new(4096), client.1, client.2).await;
        (shaken, near)
    };
    let accept = async move {
        let shaken = server.0.accept(&far, Inbox::new(4096), server.1).await;
        let socket = shaken.is_ok().then_some(far);
        (shaken, socket)
    };
    let ((client, _near), (server, _far)) = tokio::join!(connect, accept);
    (client, server)
}

#[tokio::test]
async fn both_ends_know_each_other_and_the_connection() {
    let ca = TestCa::new("one.test");
    let (a, b) = (credential(&ca, A), credential(&ca, B));
    let (client, server) = shake((&a, Offer::default(), trust(&ca, B)), (&b, trust(&ca, A))).await;
    let (client, server) = (client.unwrap(), server.unwrap());
    assert_eq!(client.peer.id().to_string(), B);
    assert_eq!(server.peer.id().to_string(), A);
    assert_eq!(&**server.permit.rule(), "only");
    assert_eq!(client.facts.version, "TLSv1.3");
    assert_eq!(client.facts.group, "X25519MLKEM768");
    assert_eq!(client.facts.cipher, "TLS13_AES_128_GCM_SHA256");
    let id = client.facts.connection_id.unwrap();
    assert_eq!(id.len(), 16);
    assert_eq!(Some(id), server.facts.connection_id);
    assert_eq!(client.facts.peer_serial.as_deref(), Some(server_serial(&client.peer)));
}

fn server_serial(peer: &PeerIdentity) -> &str {
    peer.serial()
}

fn failure(shaken: Shaken) -> Outcome {
    let error = shaken.err().unwrap();
    error.outcome()
}

#[tokio::test]
async fn a_server_that_is_not_expected_is_denied_and_told_so() {
    let ca = TestCa::new("one.test");
    let (a, b) = (credential(&ca, A), credential(&ca, B));
    let expects = trust(&ca, "spiffe://one.test/c");
    let (client, server) = shake((&a, Offer::default(), expects), (&b, trust(&ca, A))).await;
    assert_eq!(failure(client), Outcome::Denied(DenyReason::PeerNotAllowed));
    assert_eq!(failure(server), Outcome::PeerFailed(PeerFailure::CertificateRefused));
}

#[tokio::test]
async fn a_client_that_is_not_listed_is_denied() {
    let ca = TestCa::new("one.test");
    let (a, b) = (credential(&ca, A), credential(&ca, B));
    let (_, server) =
        shake((&a, Offer::default(), trust(&ca, B)), (&b, trust(&ca, "spiffe://one.test/c"))).await;
    let Err(HandshakeError::Denied(peer, denial)) = server else { panic!("{server:?}") };
    assert_eq!(peer.id().to_string(), A);
    assert_eq!(denial.reason(), DenyReason::PeerNotAllowed);
}

#[tokio::test]
async fn another_trust_domain_is_not_verified() {
    let (ca, other) = (TestCa::new("one.test"), TestCa::new("two.test"));
    let (a, b) = (credential(&other, "spiffe://two.test/a"), credential(&ca, B));
    let (_, server) =
        shake((&a, Offer::default(), trust(&ca, B)), (&b, trust(&ca, "spiffe://two.test/a"))).await;
    assert_eq!(failure(server), Outcome::Denied(DenyReason::PeerUnverified));
    // An authority of the same name with another key.
    let twin = TestCa::new("one.test");
    let a = credential(&twin, A);
    let (_, server) = shake((&a, Offer::default(), trust(&ca, B)), (&b, trust(&ca, A))).await;
    assert_eq!(failure(server), Outcome::Denied(DenyReason::PeerUnverified));
}

#[tokio::test]
async fn an_expired_peer_is_denied_as_such() {
    let ca = TestCa::new("one.test");
    let (a, b) = (credential(&ca, A), credential(&ca, B));
    let later = || clock::now() + Duration::from_hours(2);
    let (_, server) =
        shake((&a, Offer::default(), trust(&ca, B)), (&b, trust_at(ca.bundles(), A, later))).await;
    assert_eq!(failure(server), Outcome::Denied(DenyReason::PeerExpired));
}

#[tokio::test]
async fn an_svid_that_we_would_refuse_makes_no_credential() {
    let (ca, other) = (TestCa::new("one.test"), TestCa::new("one.test"));
    let svid = Arc::new(ca.svid(A));
    let tls = Tls::default();
    assert!(tls.credential(&svid, &other.bundles(), clock::now()).is_err());
    let later = clock::now() + Duration::from_hours(2);
    assert!(tls.credential(&svid, &ca.bundles(), later).is_err());
    let made = tls.credential(&svid, &ca.bundles(), clock::now()).unwrap();
    let again = tls.credential(&svid, &ca.bundles(), clock::now()).unwrap();
    assert!(Arc::ptr_eq(&made, &again));
    assert!(tls.credential(&svid, &ca.bundles(), later).is_err());
}

/// Splits a `ClientHello` into client random and session id.
fn random_and_session_id(record: &[u8]) -> (&[u8], &[u8]) {
    let body = &record[5 + 4 + 2..];
    (&body[..32], &body[33..33 + usize::from(body[32])])
}

#[test]
fn the_mark_is_in_the_session_id_and_nowhere_else() {
    let (first, second) = (client_hello(true), client_hello(true));
    let (random, session_id) = random_and_session_id(&first);
    assert!(is_marked(session_id));
    assert!(!is_marked(random));
    assert_ne!(session_id, random_and_session_id(&second).1);
    assert!(!is_marked(random_and_session_id(&client_hello(false)).1));
}

/// A stock server that knows nothing of SPIFFE, offering these groups; the hellos it was sent.
fn stock_server_hellos(groups: Vec<&'static dyn rustls::crypto::SupportedKxGroup>) -> Vec<u8> {
    let ca = TestCa::new("one.test");
    let a = credential(&ca, A);
    let verifier = Verifier::new(trust(&ca, B), &a.provider);
    let config = Arc::new(a.client(&verifier, Offer::default()));
    let name = ServerName::try_from("one.test").unwrap();
    let mut client = marked(|| ClientConnection::new(config, name).unwrap());
    let provider =
        rustls::crypto::CryptoProvider { kx_groups: groups, ..aws_lc_rs::default_provider() };
    let (leaf, key) = ca.sign(&Wanted::id(B));
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(NoClientAuth))
        .with_single_cert(vec![leaf], PrivateKeyDer::try_from(key).unwrap())
        .unwrap();
    let mut server = ServerConnection::new(Arc::new(config)).unwrap();
    let mut sent = Vec::new();
    for _ in 0..5 {
        let mut flight = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut flight).unwrap();
        }
        sent.extend_from_slice(&flight);
        let mut rest = &flight[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().unwrap();
        }
        let mut flight = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut flight).unwrap();
        }
        let mut rest = &flight[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    sent
}

#[test]
fn a_stock_server_ignores_the_mark() {
    stock_server_hellos(vec![aws_lc_rs::kx_group::X25519MLKEM768]);
}

#[test]
fn the_mark_survives_a_hello_retry_request() {
    let sent = stock_server_hellos(vec![aws_lc_rs::kx_group::SECP256R1]);
    let first = 5 + usize::from(u16::from_be_bytes([sent[3], sent[4]]));
    // The compatibility ChangeCipherSpec stands between the two (RFC 8446 §D.4).
    let second = &sent[first + 6..];
    assert_eq!(second[0], 22);
    assert_eq!(second[5], 1);
    assert!(is_marked(random_and_session_id(second).1));
}

#[test]
fn a_name_and_protocols_are_sent_only_where_asked_for() {
    let ca = TestCa::new("one.test");
    let a = credential(&ca, A);
    let verifier = Verifier::new(trust(&ca, B), &a.provider);
    let plain = a.client(&verifier, Offer::default());
    assert!(!plain.enable_sni && plain.alpn_protocols.is_empty());
    let alpn = [b"h2".to_vec()];
    let asked = a.client(&verifier, Offer { alpn: &alpn, sni: Some("db.test") });
    assert!(asked.enable_sni && asked.alpn_protocols == alpn);
}
