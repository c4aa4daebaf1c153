//! X.509-SVIDs and bundles: who gets which, in which order, and what makes the next message.

use std::time::Duration;

use proto::{WitsvidRequest, X509BundlesRequest, X509svidRequest, X509svidResponse};
use rustls_pki_types::CertificateDer;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::stage::{Stage, entry, foreign_bundle, limits, next, own, request};
use crate::api::ApiLimits;
use crate::spiffe::{BundleSet, TrustBundle, parse_trust_domain, verify};
use crate::sys::clock;

async fn first(stage: &Stage) -> X509svidResponse {
    let mut client = stage.client().await;
    let mut stream = client.fetch_x509svid(request(X509svidRequest {})).await.unwrap().into_inner();
    next(&mut stream).await.unwrap()
}

fn ids(response: &X509svidResponse) -> Vec<&str> {
    response.svids.iter().map(|svid| svid.spiffe_id.as_str()).collect()
}

/// Certificates that stand one after the other.
fn certificates(mut der: &[u8]) -> Vec<CertificateDer<'static>> {
    let mut found = Vec::new();
    while !der.is_empty() {
        let (rest, _) = X509Certificate::from_der(der).unwrap();
        let (one, _) = der.split_at(der.len() - rest.len());
        found.push(CertificateDer::from(one.to_vec()));
        der = rest;
    }
    found
}

#[tokio::test]
async fn what_is_served_is_a_whole_x509_svid() {
    let stage = Stage::new(vec![own("web")]);
    let response = first(&stage).await;
    let svid = &response.svids[0];
    let (chain, roots) = (certificates(&svid.x509_svid), certificates(&svid.bundle));
    assert_eq!((chain.len(), roots.len()), (2, 1), "leaf and intermediate; the root apart");
    let bundle = TrustBundle::new(parse_trust_domain("td.test").unwrap(), roots).unwrap();
    let bundles: BundleSet = [bundle].into_iter().collect();
    let peer = verify(&chain, &bundles, clock::now()).unwrap();
    assert_eq!(peer.id().to_string(), svid.spiffe_id);
    let key = aws_lc_rs::signature::EcdsaKeyPair::from_pkcs8(
        &aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1_SIGNING,
        &svid.x509_svid_key,
    );
    assert!(key.is_ok(), "PKCS#8");
    assert!(response.crl.is_empty() && response.federated_bundles.is_empty());
    let shown = format!("{response:?}");
    assert!(shown.contains("<redacted>") && !shown.contains("x509_svid_key: ["), "{shown}");
    let record = stage.audited("svid_handed_over").await;
    assert!(record.contains(&format!("to pid {}", std::process::id())), "{record}");
}

#[tokio::test]
async fn the_default_identity_is_that_of_the_most_selectors_then_of_the_lowest_id() {
    let uid = format!("unix:uid:{}", nix::unistd::geteuid());
    let gid = format!("unix:gid:{}", nix::unistd::getegid());
    let entries = vec![
        entry("b", &[&uid]),
        entry("z", &[&uid, &gid]),
        entry("a", &[&gid]),
        entry("other", &["unix:uid:54321"]),
    ];
    let response = first(&Stage::new(entries)).await;
    assert_eq!(ids(&response), ["spiffe://td.test/z", "spiffe://td.test/a", "spiffe://td.test/b"]);
}

#[tokio::test]
async fn a_hint_stands_once() {
    let mut entries = vec![own("a"), own("b"), own("c"), own("d")];
    entries[0].hint = "internal".to_owned();
    entries[1].hint = "internal".to_owned();
    let response = first(&Stage::new(entries)).await;
    let hints: Vec<_> = response.svids.iter().map(|svid| svid.hint.as_str()).collect();
    assert_eq!(hints, ["internal", "", ""]);
    assert_eq!(ids(&response), ["spiffe://td.test/a", "spiffe://td.test/c", "spiffe://td.test/d"]);
}

#[tokio::test]
async fn entries_come_and_go_while_a_stream_is_open() {
    let stage = Stage::new(vec![own("web")]);
    let mut client = stage.client().await;
    let asked = client.fetch_x509svid(request(X509svidRequest {})).await.unwrap();
    let mut stream = asked.into_inner();
    assert_eq!(ids(&next(&mut stream).await.unwrap()), ["spiffe://td.test/web"]);
    stage.set(vec![own("web"), own("more")]);
    let both = next(&mut stream).await.unwrap();
    assert_eq!(ids(&both), ["spiffe://td.test/more", "spiffe://td.test/web"]);
    stage.set(vec![own("more"), entry("other", &["unix:uid:54321"])]);
    assert_eq!(ids(&next(&mut stream).await.unwrap()), ["spiffe://td.test/more"]);
    let mut hinted = own("more");
    hinted.hint = "new".to_owned();
    stage.set(vec![hinted]);
    assert_eq!(next(&mut stream).await.unwrap().svids[0].hint, "new");
    stage.set(Vec::new());
    let end = next(&mut stream).await.unwrap_err();
    assert_eq!((end.code(), end.message()), (Code::PermissionDenied, "no identity issued"));
    assert!(stream.message().await.unwrap().is_none(), "the stream is over");
}

#[tokio::test]
async fn a_renewal_is_pushed_and_nothing_else_is() {
    let mut short = own("web");
    short.svid_ttl = Some(Duration::from_secs(4));
    let stage = Stage::new(vec![short]);
    let mut client = stage.client().await;
    let asked = client.fetch_x509svid(request(X509svidRequest {})).await.unwrap();
    let mut stream = asked.into_inner();
    let before = next(&mut stream).await.unwrap();
    let after = next(&mut stream).await.unwrap();
    assert_ne!(before.svids[0].x509_svid, after.svids[0].x509_svid);
    assert_ne!(before.svids[0].x509_svid_key, after.svids[0].x509_svid_key);
    let bundles = client.fetch_x509_bundles(request(X509BundlesRequest {})).await.unwrap();
    let mut bundles = bundles.into_inner();
    let first = next(&mut bundles).await.unwrap();
    assert_eq!(first.bundles.keys().collect::<Vec<_>>(), ["spiffe://td.test"]);
    assert_eq!(first.bundles["spiffe://td.test"], after.svids[0].bundle);
    let silent = tokio::time::timeout(Duration::from_secs(4), bundles.message()).await;
    assert!(silent.is_err(), "renewals change no bundle: {silent:?}");
}

#[tokio::test]
async fn bundles_of_federated_trust_domains_come_and_go() {
    let mut entry = own("web");
    entry.federates_with = [parse_trust_domain("other.test").unwrap()].into();
    let stage = Stage::new(vec![entry.clone()]);
    let mut client = stage.client().await;
    let asked = client.fetch_x509svid(request(X509svidRequest {})).await.unwrap();
    let mut stream = asked.into_inner();
    assert!(next(&mut stream).await.unwrap().federated_bundles.is_empty(), "not known yet");
    stage.trust(vec![foreign_bundle("other.test"), foreign_bundle("third.test")]);
    let told = next(&mut stream).await.unwrap().federated_bundles;
    assert_eq!(told.keys().collect::<Vec<_>>(), ["spiffe://other.test"]);
    assert_eq!(certificates(&told["spiffe://other.test"]).len(), 1);
    let asked = client.fetch_x509_bundles(request(X509BundlesRequest {})).await.unwrap();
    let mut names: Vec<_> =
        next(&mut asked.into_inner()).await.unwrap().bundles.into_keys().collect();
    names.sort();
    assert_eq!(names, ["spiffe://other.test", "spiffe://td.test"]);
    stage.trust(Vec::new());
    assert!(next(&mut stream).await.unwrap().federated_bundles.is_empty());
}

#[tokio::test]
async fn dns_names_of_an_entry_are_in_its_svid() {
    let mut entry = own("web");
    entry.dns_names = vec!["web.example.org".to_owned(), "www".to_owned()];
    let stage = Stage::new(vec![entry]);
    let response = first(&stage).await;
    let der = certificates(&response.svids[0].x509_svid).remove(0);
    let (_, leaf) = X509Certificate::from_der(&der).unwrap();
    let names = format!("{:?}", leaf.subject_alternative_name().unwrap().unwrap().value);
    let want =
        ["URI(\"spiffe://td.test/web\")", "DNSName(\"web.example.org\")", "DNSName(\"www\")"];
    assert!(want.iter().all(|name| names.contains(name)), "{names}");
    let common: Vec<_> =
        leaf.subject().iter_common_name().map(|name| name.as_str().unwrap()).collect();
    assert_eq!(common, ["web.example.org"]);
}

#[tokio::test]
async fn a_stranger_gets_nothing() {
    let stage = Stage::new(vec![entry("other", &["unix:uid:54321"])]);
    let mut client = stage.client().await;
    let svids = client.fetch_x509svid(request(X509svidRequest {})).await.unwrap_err();
    let bundles = client.fetch_x509_bundles(request(X509BundlesRequest {})).await.unwrap_err();
    for refused in [svids, bundles] {
        let told = (refused.code(), refused.message());
        assert_eq!(told, (Code::PermissionDenied, "no identity issued"));
    }
}

#[tokio::test]
async fn a_request_without_its_header_is_refused_for_good() {
    let stage = Stage::new(vec![own("web")]);
    let mut client = stage.client().await;
    for values in [&[][..], &["True"], &["false"], &["true", "true"], &[""]] {
        let mut request = Request::new(X509svidRequest {});
        for value in values {
            let value = MetadataValue::try_from(*value).unwrap();
            request.metadata_mut().append("workload.spiffe.io", value);
        }
        let refused = client.fetch_x509svid(request).await.unwrap_err();
        let told = (refused.code(), refused.message());
        assert_eq!(told, (Code::InvalidArgument, "security header missing from request"));
    }
    let wit = client.fetch_witsvid(request(WitsvidRequest::default())).await.unwrap_err();
    assert_eq!(wit.code(), Code::Unimplemented);
}

#[tokio::test]
async fn who_asks_too_often_is_told_to_wait() {
    let stage = Stage::with(vec![own("web")], ApiLimits { requests_per_second: 1, ..limits() });
    let mut client = stage.client().await;
    let mut told = Vec::new();
    for _ in 0..3 {
        let asked = client.fetch_x509_bundles(request(X509BundlesRequest {})).await;
        told.push(asked.map_or_else(|status| status.message().to_owned(), |_| "served".to_owned()));
    }
    assert_eq!(told, ["served", "served", "rate limit exceeded for FetchX509Bundles"]);
}

#[tokio::test]
async fn streams_end_when_the_daemon_does() {
    let mut stage = Stage::new(vec![own("web")]);
    let mut client = stage.client().await;
    let asked = client.fetch_x509svid(request(X509svidRequest {})).await.unwrap();
    let mut stream = asked.into_inner();
    next(&mut stream).await.unwrap();
    let (left, end) = tokio::join!(stage.tasks.drain(Duration::from_secs(10)), next(&mut stream));
    assert_eq!((left, end.unwrap_err().code()), (0, Code::Unavailable));
    assert!(!stage.socket().exists());
}

#[tokio::test]
async fn health_and_reflection_answer_without_the_header() {
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let stage = Stage::new(Vec::new());
    let mut health = HealthClient::new(stage.channel().await);
    let answer = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer.status, i32::from(ServingStatus::Serving));
}
