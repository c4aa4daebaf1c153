//! Envoy's SDS: names, versions, what makes the next message, and how trust is really removed.

use std::collections::HashMap;

use futures_util::stream::{self, StreamExt as _};
use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use proto::envoy::config::core::v3::data_source::Specifier;
use proto::envoy::config::core::v3::node::UserAgentVersionType;
use proto::envoy::config::core::v3::{BuildVersion, DataSource, Node};
use proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, SpiffeCertValidatorConfig, TlsCertificate,
};
use proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse,
};
use proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use proto::envoy::r#type::v3::SemanticVersion;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::stage::{Stage, foreign_bundle, next, own};
use crate::registry::RegistrationEntry;
use crate::spiffe::parse_trust_domain;

const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

async fn client(stage: &Stage) -> SecretDiscoveryServiceClient<Channel> {
    SecretDiscoveryServiceClient::new(stage.channel().await)
}

fn asked(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(|&name| name.to_owned()).collect(),
        type_url: SECRET.to_owned(),
        ..DiscoveryRequest::default()
    }
}

fn secrets(response: &DiscoveryResponse) -> HashMap<String, Type> {
    assert_eq!(response.type_url, SECRET);
    let read = |any: &prost_types::Any| {
        assert_eq!(any.type_url, SECRET);
        let secret = Secret::decode(any.value.as_slice()).unwrap();
        (secret.name, secret.r#type.unwrap())
    };
    response.resources.iter().map(read).collect()
}

fn text(source: Option<&DataSource>) -> String {
    let Some(Specifier::InlineBytes(bytes)) = &source.unwrap().specifier else {
        panic!("not inline");
    };
    String::from_utf8(bytes.clone()).unwrap()
}

fn certificate(secret: &Type) -> &TlsCertificate {
    let Type::TlsCertificate(certificate) = secret else { panic!("no certificate") };
    certificate
}

fn context(secret: &Type) -> &CertificateValidationContext {
    let Type::ValidationContext(context) = secret else { panic!("no validation context") };
    context
}

/// Trust domains and their authorities.
fn trusted(secret: &Type) -> Vec<(String, Vec<CertificateDer<'static>>)> {
    let custom = context(secret).custom_validator_config.as_ref().unwrap();
    assert_eq!(custom.name, "envoy.tls.cert_validator.spiffe");
    let any = custom.typed_config.as_ref().unwrap();
    assert!(any.type_url.ends_with(".SPIFFECertValidatorConfig"));
    let config = SpiffeCertValidatorConfig::decode(any.value.as_slice()).unwrap();
    let read = |it: proto::envoy::extensions::transport_sockets::tls::v3::spiffe_cert_validator_config::TrustDomain| {
        let pem = text(it.trust_bundle.as_ref());
        let found = CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect();
        (it.name, found)
    };
    config.trust_domains.into_iter().map(read).collect()
}

fn names(secret: &Type) -> Vec<String> {
    trusted(secret).into_iter().map(|(name, _)| name).collect()
}

fn federated(id: &str, domains: &[&str]) -> RegistrationEntry {
    let domains = domains.iter().map(|name| parse_trust_domain(name).unwrap());
    RegistrationEntry { federates_with: domains.collect(), ..own(id) }
}

async fn fetch(stage: &Stage, request: DiscoveryRequest) -> Result<HashMap<String, Type>, Status> {
    let response = client(stage).await.fetch_secrets(request).await?;
    Ok(secrets(response.get_ref()))
}

#[tokio::test]
async fn each_name_is_its_secret() {
    let stage = Stage::new(vec![federated("a", &["other.test"]), own("b")]);
    stage.trust(vec![foreign_bundle("other.test"), foreign_bundle("third.test")]);
    let wanted = [
        "default",
        "spiffe://td.test/b",
        "ROOTCA",
        "ALL",
        "spiffe://td.test",
        "spiffe://other.test",
    ];
    let found = fetch(&stage, asked(&wanted)).await.unwrap();
    assert_eq!(found.len(), wanted.len());
    let key = text(certificate(&found["default"]).private_key.as_ref());
    assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"), "PKCS#8 in PEM");
    let chain = text(certificate(&found["spiffe://td.test/b"]).certificate_chain.as_ref());
    assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 2);
    assert_ne!(chain, text(certificate(&found["default"]).certificate_chain.as_ref()));
    assert_eq!(names(&found["ROOTCA"]), ["td.test"]);
    assert_eq!(names(&found["ALL"]), ["other.test", "td.test"], "and not those of others");
    assert_eq!(names(&found["spiffe://other.test"]), ["other.test"]);
    assert_eq!(trusted(&found["ROOTCA"]), trusted(&found["spiffe://td.test"]));
    let all = fetch(&stage, asked(&[])).await.unwrap();
    let mut all: Vec<_> = all.keys().map(String::as_str).collect();
    all.sort_unstable();
    let want =
        ["spiffe://other.test", "spiffe://td.test", "spiffe://td.test/a", "spiffe://td.test/b"];
    assert_eq!(all, want);
    let record = stage.audited("svid_handed_over").await;
    assert!(record.contains("spiffe://td.test/b"), "{record}");
}

#[tokio::test]
async fn what_is_not_the_callers_is_refused_and_a_stranger_gets_nothing() {
    let stage = Stage::new(vec![own("a")]);
    for name in ["spiffe://td.test/other", "file-root:system", "nonsense"] {
        let refused = fetch(&stage, asked(&["ROOTCA", name])).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        let want = format!("workload is not authorized for the requested identities [{name}]");
        assert_eq!(refused.message(), want);
    }
    let mut other = asked(&["ROOTCA"]);
    other.type_url = "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned();
    assert_eq!(fetch(&stage, other).await.unwrap_err().code(), Code::InvalidArgument);
    let stage = Stage::new(Vec::new());
    let refused = fetch(&stage, asked(&["ROOTCA"])).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

/// Each name costs memory for as long as the stream lives, and a key where nothing is known of it.
#[tokio::test]
async fn nobody_names_secrets_without_end() {
    let stage = Stage::new(vec![own("a")]);
    let names: Vec<_> = (0..1001).map(|n| format!("spiffe://other-{n}.test")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    assert_eq!(fetch(&stage, asked(&names)).await.unwrap_err().code(), Code::InvalidArgument);
    let (say, requests) = requests();
    let mut stream =
        client(&stage).await.delta_secrets(requests.boxed()).await.unwrap().into_inner();
    let all = names.iter().map(|&name| name.to_owned()).collect();
    let first =
        DeltaDiscoveryRequest { resource_names_subscribe: all, ..DeltaDiscoveryRequest::default() };
    say.send(first).await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_envoy_without_the_validator_gets_a_plain_context() {
    let stage = Stage::new(vec![federated("a", &["other.test"])]);
    stage.trust(vec![foreign_bundle("other.test")]);
    let version = |minor_number| {
        let version = SemanticVersion { major_number: 1, minor_number, patch: 0 };
        let build = BuildVersion { version: Some(version) };
        Some(UserAgentVersionType::UserAgentBuildVersion(build))
    };
    let told = |kind| {
        let value = Value { kind: Some(kind) };
        Some(Struct { fields: [("disable_spiffe_cert_validation".to_owned(), value)].into() })
    };
    let node = |user_agent_version_type, metadata| {
        Some(Node { user_agent_version_type, metadata, ..Node::default() })
    };
    for (node, plain) in [
        (None, false),
        (node(version(17), None), true),
        (node(version(18), None), false),
        (node(version(30), told(Kind::BoolValue(true))), true),
        (node(version(30), told(Kind::StringValue("true".to_owned()))), true),
        (node(version(17), told(Kind::BoolValue(false))), false),
    ] {
        let request = |names: &[&str]| DiscoveryRequest { node: node.clone(), ..asked(names) };
        let found = fetch(&stage, request(&["ROOTCA"])).await.unwrap();
        let context = context(&found["ROOTCA"]);
        assert_eq!(context.trusted_ca.is_some(), plain, "{node:?}");
        assert_eq!(context.custom_validator_config.is_none(), plain);
        let all = fetch(&stage, request(&["ALL"])).await;
        assert_eq!(all.is_err_and(|status| status.code() == Code::Internal), plain);
    }
}

/// What Envoy says, one after the other.
fn requests<T: Send + 'static>() -> (mpsc::Sender<T>, impl stream::Stream<Item = T>) {
    let (sender, receiver) = mpsc::channel(8);
    let requests = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|request| (request, receiver))
    });
    (sender, requests)
}

#[tokio::test]
async fn a_stream_says_what_is_new_and_nothing_else() {
    let mut short = own("a");
    short.svid_ttl = Some(std::time::Duration::from_secs(6));
    let stage = Stage::new(vec![short.clone()]);
    let (say, requests) = requests();
    let mut stream =
        client(&stage).await.stream_secrets(requests.boxed()).await.unwrap().into_inner();
    say.send(asked(&["default"])).await.unwrap();
    let first = next(&mut stream).await.unwrap();
    let ack = |names: &[&str], response: &DiscoveryResponse| DiscoveryRequest {
        version_info: response.version_info.clone(),
        response_nonce: response.nonce.clone(),
        ..asked(names)
    };
    say.send(ack(&["default"], &first)).await.unwrap();
    let second = next(&mut stream).await.unwrap();
    let chain = |it: &DiscoveryResponse| {
        text(certificate(&secrets(it)["default"]).certificate_chain.as_ref())
    };
    assert_ne!(chain(&first), chain(&second), "only the renewal made another message");
    assert_ne!((&first.nonce, &first.version_info), (&second.nonce, &second.version_info));
    say.send(ack(&["default", "ROOTCA"], &first)).await.unwrap();
    let silence =
        tokio::time::timeout(std::time::Duration::from_millis(300), stream.message()).await;
    assert!(silence.is_err(), "an answer to an older message is none: {silence:?}");
    let mut refusal = ack(&["default", "ROOTCA"], &second);
    refusal.error_detail = Some(proto::google::rpc::Status { code: 13, message: "no".to_owned() });
    say.send(refusal).await.unwrap();
    assert_eq!(secrets(&next(&mut stream).await.unwrap()).len(), 2);
    stage.set(Vec::new());
    let end = loop {
        if let Err(status) = next(&mut stream).await {
            break status;
        }
    };
    assert_eq!(end.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_trust_domain_that_is_removed_is_trusted_by_nobody() {
    let stage = Stage::new(vec![federated("a", &["other.test"])]);
    stage.trust(vec![foreign_bundle("other.test")]);
    let (say, requests) = requests();
    let mut stream =
        client(&stage).await.stream_secrets(requests.boxed()).await.unwrap().into_inner();
    say.send(asked(&["ALL", "spiffe://other.test"])).await.unwrap();
    let before = secrets(&next(&mut stream).await.unwrap());
    assert_eq!(names(&before["ALL"]), ["other.test", "td.test"]);
    stage.set(vec![own("a")]);
    let after = secrets(&next(&mut stream).await.unwrap());
    assert_eq!(names(&after["ALL"]), ["td.test"]);
    let (had, has) =
        (trusted(&before["spiffe://other.test"]), trusted(&after["spiffe://other.test"]));
    assert_eq!((has.len(), has[0].0.as_str(), has[0].1.len()), (1, "other.test", 1));
    assert_ne!(had, has, "an authority that has signed nothing");
    stage.set(vec![federated("a", &["other.test"])]);
    let again = secrets(&next(&mut stream).await.unwrap());
    assert_eq!(trusted(&again["spiffe://other.test"]), had);
    // Emptied by whoever publishes it: nobody of it is valid.
    let other = parse_trust_domain("other.test").unwrap();
    stage.trust(vec![crate::spiffe::TrustBundle::new(other, Vec::new()).unwrap()]);
    let emptied = secrets(&next(&mut stream).await.unwrap());
    assert_eq!(names(&emptied["ALL"]), ["td.test"]);
    let nobody = trusted(&emptied["spiffe://other.test"]);
    assert_eq!((nobody.len(), nobody[0].1.len()), (1, 1));
    assert_ne!(nobody, had, "an authority that has signed nothing");
}

#[tokio::test]
async fn a_delta_stream_sends_only_what_differs() {
    let stage = Stage::new(vec![federated("a", &["other.test"]), own("b")]);
    stage.trust(vec![foreign_bundle("other.test")]);
    let (say, requests) = requests();
    let mut stream =
        client(&stage).await.delta_secrets(requests.boxed()).await.unwrap().into_inner();
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let subscribe = DeltaDiscoveryRequest {
        resource_names_subscribe: names(&["spiffe://td.test/b", "ALL", "nonsense"]),
        ..DeltaDiscoveryRequest::default()
    };
    say.send(subscribe.clone()).await.unwrap();
    let first = next(&mut stream).await.unwrap();
    let told = |it: &proto::envoy::service::discovery::v3::DeltaDiscoveryResponse| {
        it.resources
            .iter()
            .map(|it| (it.name.clone(), it.version.clone()))
            .collect::<HashMap<_, _>>()
    };
    let had = told(&first);
    assert_eq!((had.len(), first.removed_resources), (2, names(&["nonsense"])));
    stage.set(vec![own("a"), own("b")]);
    let second = next(&mut stream).await.unwrap();
    assert_eq!(told(&second).keys().collect::<Vec<_>>(), ["ALL"]);
    stage.set(vec![own("a")]);
    let third = next(&mut stream).await.unwrap();
    assert_eq!(third.removed_resources, names(&["spiffe://td.test/b"]));
    let more = DeltaDiscoveryRequest {
        resource_names_subscribe: names(&["default"]),
        resource_names_unsubscribe: names(&["ALL"]),
        ..DeltaDiscoveryRequest::default()
    };
    say.send(more).await.unwrap();
    assert_eq!(told(&next(&mut stream).await.unwrap()).keys().collect::<Vec<_>>(), ["default"]);
    drop(say);
    assert!(stream.message().await.unwrap().is_none());

    // A client that comes back is not told again what it has.
    stage.set(vec![federated("a", &["other.test"]), own("b")]);
    let (say, requests) = self::requests();
    let mut stream =
        client(&stage).await.delta_secrets(requests.boxed()).await.unwrap().into_inner();
    let all = had.iter().filter(|(name, _)| *name == "ALL");
    let initial_resource_versions =
        all.map(|(name, version)| (name.clone(), version.clone())).collect();
    say.send(DeltaDiscoveryRequest { initial_resource_versions, ..subscribe }).await.unwrap();
    let back = next(&mut stream).await.unwrap();
    assert_eq!(told(&back).keys().collect::<Vec<_>>(), ["spiffe://td.test/b"]);
}

#[tokio::test]
async fn a_wildcard_follows_everything() {
    let stage = Stage::new(vec![own("a")]);
    let (say, requests) = requests();
    let mut stream =
        client(&stage).await.delta_secrets(requests.boxed()).await.unwrap().into_inner();
    say.send(DeltaDiscoveryRequest::default()).await.unwrap();
    let names = |it: proto::envoy::service::discovery::v3::DeltaDiscoveryResponse| {
        let mut names: Vec<_> = it.resources.into_iter().map(|it| it.name).collect();
        names.sort();
        names
    };
    assert_eq!(names(next(&mut stream).await.unwrap()), ["spiffe://td.test", "spiffe://td.test/a"]);
    stage.set(vec![own("a"), own("b")]);
    assert_eq!(names(next(&mut stream).await.unwrap()), ["spiffe://td.test/b"]);
}
