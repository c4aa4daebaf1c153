//! Stock TLS peers with certificates that are no SVIDs, on either side, and such that speak an
//! older TLS.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::{NoClientAuth, ServerConfig};
use rustls::{ClientConnection, Connection, ServerConnection, version};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::{A, B, Shaken, credential, failure, sockets, trust};
use crate::audit::Outcome;
use crate::policy::DenyReason;
use crate::proxy::relay::Inbox;
use crate::proxy::tests::ca::{TestCa, Wanted};
use crate::proxy::tls::Offer;
use crate::proxy::tls::verifier::Verifier;
use crate::sys::clock;

/// Shakes hands as far as it goes, elsewhere.
fn shake_elsewhere(socket: TcpStream, mut tls: Connection) -> JoinHandle<std::net::TcpStream> {
    tokio::task::spawn_blocking(move || {
        let mut socket = socket.into_std().unwrap();
        socket.set_nonblocking(false).unwrap();
        while tls.is_handshaking() && tls.complete_io(&mut socket).is_ok() {}
        socket
    })
}

/// A stock client with this certificate, or none; says how the server of ours ended.
async fn stock_client(ca: &TestCa, shows: Option<&Wanted>, signer: &TestCa) -> Shaken {
    let b = credential(ca, B);
    let (near, far) = sockets().await;
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Verifier::new(trust(ca, B), &b.provider));
    let config = match shows.map(|wanted| signer.sign(wanted)) {
        None => builder.with_no_client_auth(),
        Some((leaf, key)) => {
            let key = PrivateKeyDer::try_from(key).unwrap();
            builder.with_client_auth_cert(vec![leaf], key).unwrap()
        }
    };
    let name = ServerName::try_from("localhost").unwrap();
    let tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let client = shake_elsewhere(near, tls.into());
    let shaken = b.accept(&far, Inbox::new(4096), trust(ca, A)).await;
    drop(client.await.unwrap());
    shaken
}

/// A stock server with this certificate; says how the client of ours ended.
async fn stock_server(ca: &TestCa, shows: &Wanted, signer: &TestCa) -> Shaken {
    let a = credential(ca, A);
    let (near, far) = sockets().await;
    let (leaf, key) = signer.sign(shows);
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(NoClientAuth))
        .with_single_cert(vec![leaf], PrivateKeyDer::try_from(key).unwrap())
        .unwrap();
    let server = shake_elsewhere(far, ServerConnection::new(Arc::new(config)).unwrap().into());
    let shaken = a.connect(&near, Inbox::new(4096), Offer::default(), trust(ca, B)).await;
    drop((near, server));
    shaken
}

/// What is wrong with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    WrongAuthority,
    TwoUris,
    NoUri,
    AuthorityAsLeaf,
    Expired,
    NotYetValid,
    Unlisted,
}

impl Fault {
    fn spoil(self, good: Wanted) -> Wanted {
        let (now, hour) = (clock::now(), Duration::from_hours(1));
        let uris = |uris: &[&str]| uris.iter().map(|&uri| uri.to_owned()).collect();
        match self {
            Self::WrongAuthority => good,
            Self::TwoUris => Wanted { uris: uris(&[A, B]), ..good },
            Self::NoUri => Wanted { uris: vec![], ..good },
            Self::AuthorityAsLeaf => Wanted { is_ca: true, ..good },
            Self::Expired => Wanted { not_before: now - 2 * hour, not_after: now - hour, ..good },
            Self::NotYetValid => {
                Wanted { not_before: now + hour, not_after: now + 2 * hour, ..good }
            }
            Self::Unlisted => Wanted { uris: uris(&["spiffe://one.test/z"]), ..good },
        }
    }
}

#[tokio::test]
async fn certificates_that_are_no_svids_are_refused_on_either_side() {
    let (ca, other) = (TestCa::new("one.test"), TestCa::new("two.test"));
    for (fault, expected) in [
        (Fault::WrongAuthority, DenyReason::PeerUnverified),
        (Fault::TwoUris, DenyReason::PeerUnverified),
        (Fault::NoUri, DenyReason::PeerUnverified),
        (Fault::AuthorityAsLeaf, DenyReason::PeerUnverified),
        (Fault::Expired, DenyReason::PeerExpired),
        (Fault::NotYetValid, DenyReason::PeerExpired),
        (Fault::Unlisted, DenyReason::PeerNotAllowed),
    ] {
        let signer = if fault == Fault::WrongAuthority { &other } else { &ca };
        let expected = Outcome::Denied(expected);
        let shaken = stock_client(&ca, Some(&fault.spoil(Wanted::id(A))), signer).await;
        assert_eq!(failure(shaken), expected, "client: {fault:?}");
        let shaken = stock_server(&ca, &fault.spoil(Wanted::id(B)), signer).await;
        assert_eq!(failure(shaken), expected, "server: {fault:?}");
    }
    let shaken = stock_client(&ca, None, &ca).await;
    assert_eq!(failure(shaken), Outcome::Denied(DenyReason::PeerUnverified), "no certificate");
    assert!(stock_client(&ca, Some(&Wanted::id(A)), &ca).await.is_ok());
    assert!(stock_server(&ca, &Wanted::id(B), &ca).await.is_ok());
}
