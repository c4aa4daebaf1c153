//! Live connections when what they hang on goes, or is renewed.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::node::{Wish, registry};
use super::rules::{allow, allow_plaintext, policy, to_peer};
use super::{A, B, LONG, Two, is_reset};
use crate::audit::Record;
use crate::policy::{Denied, DenyItem};
use crate::proxy::{Modes, ProxySettings};
use crate::registry::{RegistrationEntry, Registry};
use crate::spiffe::{BundleSet, parse_id};
use crate::workload::{Mode, ScopeId, Selector};

/// The entry of the node as it was, and one that fits the process better.
fn registry_with_a_better_entry() -> Arc<Registry> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let better = RegistrationEntry::new(
        "better",
        parse_id("spiffe://one.test/better").unwrap(),
        [Selector::new("unix", format!("uid:{uid}")), Selector::new("unix", format!("gid:{gid}"))]
            .into(),
        "test",
    );
    let mut all = registry(B).entries().to_vec();
    all.push(Arc::new(better));
    Arc::new(Registry::new(all).unwrap())
}

fn cut(record: &Record) -> &str {
    assert_eq!(record.outcome.as_deref(), Some("cut"), "{record:?}");
    record.reason.as_deref().unwrap()
}

async fn talk(app: &mut TcpStream, server: &mut TcpStream) {
    app.write_all(b"ping").await.unwrap();
    let mut heard = [0; 4];
    tokio::time::timeout(LONG, server.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"ping");
}

#[tokio::test]
async fn a_policy_that_allows_it_no_longer_cuts_it() {
    let mut two = Two::start().await;
    let (mut app, mut server) = two.connected().await;
    let mut same = policy([to_peer(B)], []);
    same.epoch = 2;
    two.client.policy.send_replace(Arc::new(same));
    tokio::time::sleep(Duration::from_millis(200)).await;
    talk(&mut app, &mut server).await;
    let mut other = policy([to_peer("spiffe://one.test/other")], []);
    other.epoch = 3;
    two.client.policy.send_replace(Arc::new(other));
    assert!(is_reset(&mut app).await && is_reset(&mut server).await);
    assert_eq!(cut(&two.client.record().await), "policy_changed");

    let mut two = Two::start().await;
    let (mut app, mut server) = two.connected().await;
    let mut other = policy([], [allow(&["spiffe://one.test/other"])]);
    other.epoch = 2;
    two.server.policy.send_replace(Arc::new(other));
    assert!(is_reset(&mut app).await && is_reset(&mut server).await);
    assert_eq!(cut(&two.server.record().await), "policy_changed");
}

#[tokio::test]
async fn a_scope_that_turns_strict_cuts_what_is_in_the_clear() {
    let permissive = Wish { mode: Mode::Permissive, ..Wish::default() };
    let two = Two::wish(permissive, Wish::default()).await;
    two.client.policy.send_replace(Arc::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut app = two.client.dial(listener.local_addr().unwrap()).await;
    let (mut peer, _) = listener.accept().await.unwrap();
    talk(&mut app, &mut peer).await;
    two.client.modes.send_replace(Arc::new(Modes::from([(ScopeId(1), Mode::Strict)])));
    assert!(is_reset(&mut app).await && is_reset(&mut peer).await);
    assert_eq!(cut(&two.client.record().await), "scope_changed");
}

/// Entries, rules and modes of two configurations never decide together.
#[tokio::test]
async fn while_a_configuration_is_taken_up_nobody_is_admitted() {
    let mut two = Two::start().await;
    two.client.settled.send_replace(false);
    let mut app = two.client.dial(two.server.listen).await;
    app.write_all(b"ping").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(two.server.accepted_nothing(), "decided by half of a configuration");
    let mut other = policy([], []);
    other.epoch = 2;
    two.client.policy.send_replace(Arc::new(other));
    two.client.settled.send_replace(true);
    assert!(is_reset(&mut app).await);
    assert_eq!(two.client.record().await.reason.as_deref(), Some("no_rule"));
}

/// A configuration is taken up between decision and admission, and names the workload otherwise.
#[tokio::test]
async fn who_was_named_by_entries_of_before_is_not_admitted() {
    let settings = ProxySettings { first_byte_timeout: LONG, ..ProxySettings::default() };
    let wish = Wish { mode: Mode::Permissive, settings, ..Wish::default() };
    let mut two = Two::wish(Wish::default(), wish).await;
    two.server.policy.send_replace(Arc::new(policy([], [allow_plaintext(&[A])])));
    let mut client = TcpStream::connect(two.server.listen).await.unwrap();
    // It is asked who listens, and waited for the client's first byte.
    while two.server.identified() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    two.server.settled.send_replace(false);
    client.write_all(b"GET /").await.unwrap();
    let mut app = two.server.accept().await;
    two.server.registry.send_replace(registry_with_a_better_entry());
    two.server.settled.send_replace(true);
    assert!(is_reset(&mut app).await && is_reset(&mut client).await);
    assert_eq!(cut(&two.server.record().await), "identity_changed");
}

#[tokio::test]
async fn the_daemon_that_stops_waits_and_then_cuts() {
    let settings =
        ProxySettings { drain_timeout: Duration::from_millis(500), ..ProxySettings::default() };
    let wish = Wish { settings, ..Wish::default() };
    let mut two = Two::wish(wish, Wish::default()).await;
    let (mut app, mut server) = two.connected().await;
    let (mut reader, mut writer) = app.split();
    let mut nothing = [0; 1];
    let goes_on = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        writer.write_all(b"still").await.unwrap();
        server.read_exact(&mut [0; 5]).await.unwrap();
    };
    let ((), (), end) = tokio::join!(two.client.stop(), goes_on, reader.read(&mut nothing));
    assert!(end.is_err());
    assert_eq!(cut(&two.client.record().await), "drained");
}

#[tokio::test]
async fn an_entry_that_is_gone_cuts_at_either_end() {
    for at_client in [true, false] {
        let mut two = Two::start().await;
        let (mut app, mut server) = two.connected().await;
        let node = if at_client { &two.client } else { &two.server };
        node.registry.send_replace(Arc::new(Registry::default()));
        assert!(is_reset(&mut app).await && is_reset(&mut server).await);
        assert_eq!(cut(&node.record().await), "entry_gone");
    }
}

#[tokio::test]
async fn an_authority_that_is_gone_cuts() {
    let mut two = Two::start().await;
    let (mut app, mut server) = two.connected().await;
    // Another authority of the trust domain joins: nothing happens.
    let more = super::TestCa::new("one.test").bundle();
    let certificates: Vec<_> =
        two.ca.bundle().certificates().chain(more.certificates()).cloned().collect();
    let both = crate::spiffe::TrustBundle::new(two.ca.trust_domain.clone(), certificates).unwrap();
    two.server.bundles.send_replace(Arc::new(BundleSet::from_iter([both])));
    tokio::time::sleep(Duration::from_millis(200)).await;
    talk(&mut app, &mut server).await;
    two.server.bundles.send_replace(Arc::new(BundleSet::from_iter([more])));
    assert!(is_reset(&mut app).await && is_reset(&mut server).await);
    assert_eq!(cut(&two.server.record().await), "authority_gone");
}

#[tokio::test]
async fn a_deny_list_cuts_at_either_end() {
    for denied in ["spiffe://one.test/a", "spiffe://one.test/b"] {
        for at_client in [true, false] {
            let mut two = Two::start().await;
            let (mut app, mut server) = two.connected().await;
            let node = if at_client { &two.client } else { &two.server };
            node.policy.send_modify(|policy| {
                let item = DenyItem::new(Denied::id(denied).unwrap(), "", "a test").unwrap();
                Arc::make_mut(policy).denied = Arc::new([item].into_iter().collect());
            });
            assert!(is_reset(&mut app).await && is_reset(&mut server).await);
            assert_eq!(cut(&node.record().await), "deny_listed");
        }
    }
}

#[tokio::test]
async fn renewal_of_either_svid_is_survived() {
    let short = || Wish { lasts: Duration::from_secs(4), ..Wish::default() };
    let mut two = Two::wish(short(), short()).await;
    let (mut app, mut server) = two.connected().await;
    // Well past the end of the certificates that the handshake has seen.
    for _ in 0..14 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        talk(&mut app, &mut server).await;
    }
    drop((app, server));
    assert_eq!(two.client.record().await.outcome.as_deref(), Some("completed"));
}

#[tokio::test]
async fn an_svid_that_ran_out_unrenewed_cuts() {
    let once = Wish { lasts: Duration::from_secs(3), renews: false, ..Wish::default() };
    let mut two = Two::wish(once, Wish::default()).await;
    let (mut app, mut server) = two.connected().await;
    talk(&mut app, &mut server).await;
    assert!(is_reset(&mut app).await);
    assert_eq!(cut(&two.client.record().await), "svid_expired");
}

/// A connection costs this much as a future, whatever it does.
#[tokio::test]
async fn a_connection_is_small() {
    let two = Two::start().await;
    let (outbound, inbound) = two.client.future_sizes().await;
    println!("outbound {outbound}, inbound {inbound}");
    assert!(outbound <= 4096, "outbound: {outbound} bytes");
    assert!(inbound <= 4096, "inbound: {inbound} bytes");
}
