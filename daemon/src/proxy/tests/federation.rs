//! Peers of another trust domain: who is believed by whose authorities, and until when.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::node::{Node, Wish, federated};
use super::rules::{allow, allow_plaintext, policy, to_peer};
use super::{LONG, TestCa, is_reset};
use crate::audit::Record;
use crate::spiffe::{BundleSet, TrustBundle, parse_id};

const ONE: &str = "spiffe://one.test/a";
const TWO: &str = "spiffe://two.test/b";
const SERVER: &str = "spiffe://one.test/server";

/// A node of each of two trust domains, both with the bundles of both.
struct Federation {
    ca: [Arc<TestCa>; 2],
    client: Node,
    server: Node,
}

impl Federation {
    async fn start() -> Self {
        let ca = ["one.test", "two.test"].map(|name| Arc::new(TestCa::new(name)));
        let both = || Wish { trusts: Some(all(&ca)), ..Wish::default() };
        let client = Node::start(&ca[0], ONE, policy([to_peer(TWO)], []), both()).await;
        let server = Node::start(&ca[1], TWO, policy([], [allow(&[ONE])]), both()).await;
        client.registry.send_replace(federated(ONE, &["two.test"]));
        server.registry.send_replace(federated(TWO, &["one.test"]));
        Self { ca, client, server }
    }

    async fn connected(&mut self) -> (TcpStream, TcpStream) {
        let app = self.client.dial(self.server.listen).await;
        (app, self.server.accept().await)
    }

    async fn is_refused(&self) -> bool {
        is_reset(&mut self.client.dial(self.server.listen).await).await
    }
}

fn all(ca: &[Arc<TestCa>; 2]) -> BundleSet {
    ca.iter().map(|ca| ca.bundle()).collect()
}

fn reason(record: &Record) -> &str {
    record.reason.as_deref().unwrap_or_default()
}

async fn talk(app: &mut TcpStream, server: &mut TcpStream) {
    app.write_all(b"ping").await.unwrap();
    let mut heard = [0; 4];
    timeout(LONG, server.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"ping");
}

#[tokio::test]
async fn two_federated_trust_domains_talk_and_both_ids_are_recorded() {
    let mut two = Federation::start().await;
    let (mut app, mut server) = two.connected().await;
    talk(&mut app, &mut server).await;
    drop((app, server));
    for (node, local, peer) in [(&two.client, ONE, TWO), (&two.server, TWO, ONE)] {
        let record = node.record().await;
        assert_eq!(record.local.unwrap().spiffe_id.as_deref(), Some(local));
        assert_eq!(record.peer.unwrap().spiffe_id.as_deref(), Some(peer));
    }
}

#[tokio::test]
async fn an_entry_that_is_not_federated_trusts_nobody_else_though_the_bundle_is_known() {
    let two = Federation::start().await;
    two.client.registry.send_replace(federated(ONE, &[]));
    assert!(two.is_refused().await);
    let record = two.client.record().await;
    assert_eq!(reason(&record), "peer_unverified");
    assert!(record.detail.unwrap().contains("the entry is not federated with it"));

    let two = Federation::start().await;
    two.server.registry.send_replace(federated(TWO, &["three.test"]));
    assert!(two.is_refused().await);
    assert_eq!(reason(&two.server.record().await), "peer_unverified");
}

#[tokio::test]
async fn a_federation_or_a_bundle_that_ends_cuts_at_the_end_where_it_does() {
    let mut two = Federation::start().await;
    let (mut app, mut server) = two.connected().await;
    // Of another trust domain: nothing happens.
    two.client.registry.send_replace(federated(ONE, &["two.test", "three.test"]));
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    talk(&mut app, &mut server).await;
    two.client.registry.send_replace(federated(ONE, &["three.test"]));
    assert!(is_reset(&mut app).await && is_reset(&mut server).await);
    assert_eq!(reason(&two.client.record().await), "authority_gone");
    assert_eq!(reason(&two.server.record().await), "reset");

    for emptied in [false, true] {
        let mut two = Federation::start().await;
        let (mut app, mut server) = two.connected().await;
        let empty = TrustBundle::new(two.ca[0].trust_domain.clone(), Vec::new()).unwrap();
        let others: Vec<_> = emptied.then_some(empty).into_iter().collect();
        let left = BundleSet::from_iter([two.ca[1].bundle()]).with(others);
        two.server.bundles.send_replace(Arc::new(left));
        assert!(is_reset(&mut app).await && is_reset(&mut server).await);
        assert_eq!(reason(&two.server.record().await), "authority_gone");
        assert!(two.is_refused().await);
        assert_eq!(reason(&two.server.records(2).await[1]), "peer_unverified");
    }
}

/// SPIFFE Federation §4.2, §7.3: an authority vouches for its own trust domain and for no other.
#[tokio::test]
async fn a_foreign_authority_vouches_neither_for_us_nor_for_a_third() {
    let [one, two] = ["one.test", "two.test"].map(|name| Arc::new(TestCa::new(name)));
    let three = TestCa::new("three.test");
    let third = "spiffe://three.test/c";
    for (signer, shown) in [(&two, ONE), (&two, third), (&one, third)] {
        // Whoever lies believes itself: its node takes either authority for those of both domains.
        let certificates: Vec<_> = [&one, &two]
            .iter()
            .flat_map(|ca| ca.bundle().certificates().cloned().collect::<Vec<_>>())
            .collect();
        let domain = parse_id(shown).unwrap().trust_domain().clone();
        let gullible = [domain, one.trust_domain.clone()]
            .map(|domain| TrustBundle::new(domain, certificates.clone()).unwrap());
        let wish = Wish { trusts: Some(BundleSet::from_iter(gullible)), ..Wish::default() };
        let client = Node::start(signer, shown, policy([to_peer(SERVER)], []), wish).await;
        client.registry.send_replace(federated(shown, &["one.test"]));
        let known = BundleSet::from_iter([one.bundle(), two.bundle(), three.bundle()]);
        let wish = Wish { trusts: Some(known), ..Wish::default() };
        let mut server =
            Node::start(&one, SERVER, policy([], [allow(&[ONE, third, TWO])]), wish).await;
        server.registry.send_replace(federated(SERVER, &["two.test", "three.test"]));
        let mut app = client.dial(server.listen).await;
        let mut rest = Vec::new();
        let _ended = timeout(LONG, app.read_to_end(&mut rest)).await.unwrap();
        let record = server.record().await;
        assert_eq!(reason(&record), "peer_unverified", "{shown}: {record:?}");
        // All of these authorities bear one name: the signature tells them apart.
        let detail = record.detail.unwrap();
        let unsigned =
            ["no authority of the ID's trust domain", "a signature in the chain is wrong"];
        assert!(unsigned.iter().any(|what| detail.contains(what)), "{shown}: {detail}");
        assert!(server.accepted_nothing());
    }
}

#[tokio::test]
async fn a_foreign_peer_is_admitted_by_name_only() {
    let two = Federation::start().await;
    two.server.policy.send_replace(Arc::new(policy([], [allow_plaintext(&[])])));
    assert!(two.is_refused().await);
    assert_eq!(reason(&two.server.record().await), "peer_not_allowed");
}
