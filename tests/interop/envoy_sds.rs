//! A real Envoy that has its certificates, keys and authorities from the daemon alone, by SDS:
//! as a server for a captured client, and as a client of a captured server, through renewals and while
//! the root that both nodes share is replaced.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::{Group, Lab, Nginx, Node, Rules, client_id, server_id, uid};
use serde_json::{Value, json};

use crate::servers::envoy;
use crate::stock_peer::{MARKER, captured_curl};

/// How Envoy speaks HTTP to a cluster.
const HTTP: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// SVIDs live for ten seconds: whoever is served for longer has had a renewal.
const LIFE: Duration = Duration::from_secs(10);

fn rules() -> Rules {
    Rules::client_calls_server().issuer("svid_ttl = \"10s\"")
}

/// How Envoy asks for one secret.
fn secret(name: &str, api: &str) -> Value {
    json!({ "name": name, "sds_config": { "resource_api_version": "V3", "api_config_source": {
        "api_type": api,
        "transport_api_version": "V3",
        "grpc_services": [{ "envoy_grpc": { "cluster_name": "workload_api" } }]
    } } })
}

/// TLS with secrets by name, and the one peer that is expected.
fn tls(certificate: &str, authorities: &str, peer: &str, api: &str) -> Value {
    json!({
        "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
        "tls_certificate_sds_secret_configs": [secret(certificate, api)],
        "combined_validation_context": {
            "default_validation_context": { "match_typed_subject_alt_names": [
                { "san_type": "URI", "matcher": { "exact": peer } }
            ] },
            "validation_context_sds_secret_config": secret(authorities, api)
        }
    })
}

/// A listener that answers HTTP by this route.
fn listener(address: &str, port: u16, route: &Value, socket: Option<Value>) -> Value {
    const MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let mut chain = json!({ "filters": [{ "name": "http", "typed_config": {
        "@type": MANAGER,
        "stat_prefix": "http",
        "http_filters": [{ "name": "router", "typed_config": { "@type": ROUTER } }],
        "route_config": { "virtual_hosts": [
            { "name": "all", "domains": ["*"], "routes": [route] }
        ] }
    } }] });
    if let (Value::Object(fields), Some(socket)) = (&mut chain, socket) {
        fields.insert("transport_socket".to_owned(), socket);
    }
    json!({
        "address": { "socket_address": { "address": address, "port_value": port } },
        "filter_chains": [chain]
    })
}

/// The daemon of this node as Envoy's source of secrets.
fn workload_api(node: &Node) -> Value {
    json!({
        "name": "workload_api",
        "connect_timeout": "5s",
        "type": "STATIC",
        "typed_extension_protocol_options": { HTTP: {
            "@type": format!("type.googleapis.com/{HTTP}"),
            "explicit_http_config": { "http2_protocol_options": {} }
        } },
        "load_assignment": { "cluster_name": "workload_api", "endpoints": [{ "lb_endpoints": [
            { "endpoint": { "address": { "pipe": { "path": node.workload_api() } } } }
        ] }] }
    })
}

/// Starts Envoy on a node as a user, in no scope.
fn start(
    node: &Node,
    user: u32,
    port: u16,
    listener: &Value,
    more: Option<Value>,
) -> Result<harness::Server> {
    let pod = node.pod(Group::Outside, user);
    let clusters: Vec<_> = [workload_api(node)].into_iter().chain(more).collect();
    let config = json!({
        "node": { "id": "a", "cluster": "b" },
        "static_resources": { "listeners": [listener], "clusters": clusters }
    });
    let file = pod.folder("envoy")?.join("envoy.json");
    fs::write(&file, config.to_string())?;
    let file = file.to_string_lossy().into_owned();
    let words = [
        "--config-path",
        &file,
        "--concurrency",
        "1",
        "--log-level",
        "warning",
        "--disable-hot-restart",
    ];
    pod.serve(envoy()?, &words, port)
}

/// Asks again and again until the first SVID has long expired.
fn beyond_one_life(ask: impl Fn() -> Result<()>) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < LIFE + Duration::from_secs(4) {
        ask()?;
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

#[test]
fn envoy_serves_a_captured_client_with_secrets_of_the_daemon() -> Result<()> {
    const DOWNSTREAM: &str =
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    Lab::check(&rules(), |lab| {
        let socket = json!({ "name": "tls", "typed_config": {
            "@type": DOWNSTREAM,
            "require_client_certificate": true,
            "common_tls_context": tls("default", "ROOTCA", &client_id(), "GRPC")
        } });
        let route = json!({
            "match": { "prefix": "/" },
            "direct_response": { "status": 200, "body": { "inline_string": MARKER } }
        });
        let listener = listener("0.0.0.0", 8443, &route, Some(socket));
        let _envoy = start(&lab.b, uid::SERVER, 8443, &listener, None)?;
        let ask = || captured_curl(lab, 8443, &[], MARKER).map(drop);
        beyond_one_life(ask)?;
        lab.replace_root(ask)?;
        beyond_one_life(ask)?;
        let record = lab.a.audit().expect("outbound", |it| it.field("protection") == "mtls")?;
        ensure!(record.field("peer.spiffe_id") == server_id(), "{}", record.json());
        Ok(())
    })
}

#[test]
fn envoy_calls_a_captured_server_with_secrets_of_the_daemon_by_delta() -> Result<()> {
    const UPSTREAM: &str =
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
    Lab::check(&rules(), |lab| {
        let _nginx = Nginx::start(&lab.server(), 8080, MARKER)?;
        let server = json!({
            "name": "server",
            "connect_timeout": "5s",
            "type": "STATIC",
            // A connection for each request, or a renewal would show in none.
            "typed_extension_protocol_options": { HTTP: {
                "@type": format!("type.googleapis.com/{HTTP}"),
                "common_http_protocol_options": { "max_requests_per_connection": 1 },
                "explicit_http_config": { "http_protocol_options": {} }
            } },
            "transport_socket": { "name": "tls", "typed_config": {
                "@type": UPSTREAM,
                "common_tls_context": tls(&client_id(), "ALL", &server_id(), "DELTA_GRPC")
            } },
            "load_assignment": { "cluster_name": "server", "endpoints": [{ "lb_endpoints": [
                { "endpoint": { "address": { "socket_address": {
                    "address": lab.b.ip, "port_value": 8080
                } } } }
            ] }] }
        });
        let route = json!({ "match": { "prefix": "/" }, "route": { "cluster": "server" } });
        let listener = listener("127.0.0.1", 9000, &route, None);
        let envoy = start(&lab.a, uid::CLIENT, 9000, &listener, Some(server))?;
        let anybody = lab.a.pod(Group::Outside, uid::STRANGER);
        let ask = || {
            let words = ["-sS", "-m", "20", "http://127.0.0.1:9000/"];
            let said = anybody.must("curl", &words)?;
            ensure!(said.contains(MARKER), "curl got: {said}\nEnvoy said:\n{}", envoy.said());
            Ok(())
        };
        beyond_one_life(ask)?;
        lab.replace_root(ask)?;
        beyond_one_life(ask)?;
        let record = lab.b.audit().expect("inbound", |it| it.field("protection") == "mtls")?;
        ensure!(record.field("peer.spiffe_id") == client_id(), "{}", record.json());
        Ok(())
    })
}

/// A captured client of one trust domain, and Envoy in another that has its trust from the daemon of
/// that one alone: it believes the client from when the client's trust domain is federated, and no
/// longer than that.
#[test]
fn envoy_follows_a_federation_as_it_begins_and_ends() -> Result<()> {
    const DOWNSTREAM: &str =
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    const PARTNER: &str = "partner.org";
    let server = format!("spiffe://{PARTNER}/server");
    let client_rules = Rules::none()
        .entry("client", &[&format!("unix:uid:{}", uid::CLIENT)])
        .with("federates_with = [\"partner.org\"]")
        .rule(&format!("[[outbound]]\naction = \"mtls\"\npeers = [\"{server}\"]\n"));
    let server_rules = Rules::none()
        .in_domain(PARTNER)
        .entry("server", &[&format!("unix:uid:{}", uid::SERVER)])
        .with("federates_with = [\"example.org\"]");
    for api in ["GRPC", "DELTA_GRPC"] {
        Lab::apart(&client_rules, &server_rules, |lab| {
            let bundle = |node: &Node, domain: &str| {
                let file = lab.dir().join(format!("{domain}.json"));
                let text = node.ask(&["bundle", "show", domain, "--format", "spiffe"])?;
                fs::write(&file, text)?;
                Ok::<_, anyhow::Error>(file.to_string_lossy().into_owned())
            };
            lab.a.ask(&["bundle", "set", PARTNER, &bundle(&lab.b, PARTNER)?])?;
            let socket = json!({ "name": "tls", "typed_config": {
                "@type": DOWNSTREAM,
                "require_client_certificate": true,
                "common_tls_context": tls("default", "ALL", &client_id(), api)
            } });
            let route = json!({
                "match": { "prefix": "/" },
                "direct_response": { "status": 200, "body": { "inline_string": MARKER } }
            });
            let listener = listener("0.0.0.0", 8443, &route, Some(socket));
            let envoy = start(&lab.b, uid::SERVER, 8443, &listener, None)?;
            let url = format!("http://{}:8443/", lab.b.ip);
            let ask = || lab.client().run("curl", &["-sS", "-m", "20", &url]);
            let answers = || ask().is_ok_and(|it| it.stdout.contains(MARKER));
            let refused = |count: usize| {
                let records = lab.a.audit().closed("outbound");
                let is_so = |it: &&harness::Record| it.field("outcome") == "peer_failed";
                records.iter().filter(is_so).count() >= count
            };
            ensure!(!answers(), "{api}: Envoy believes whom it was not told of");
            harness::eventually("a refusal", || refused(1).then_some(()))
                .with_context(|| format!("{api}: {}\n{}", lab.a.audit().shown(), envoy.said()))?;

            lab.b.ask(&["bundle", "set", "example.org", &bundle(&lab.a, "example.org")?])?;
            harness::eventually("Envoy's trust", || answers().then_some(()))
                .with_context(|| format!("{api}: {}", envoy.said()))?;
            let record =
                lab.a.audit().expect("outbound", |it| it.field("peer.spiffe_id") == server)?;
            ensure!(record.field("local.spiffe_id") == client_id(), "{}", record.json());

            lab.b.ask(&["bundle", "delete", "example.org"])?;
            harness::eventually("the end of Envoy's trust", || (!answers()).then_some(()))
                .with_context(|| format!("{api}: {}", envoy.said()))?;
            let before = lab.a.audit().closed("outbound").len();
            ensure!(!answers() && !answers(), "{api}: Envoy believes again");
            let more = || (lab.a.audit().closed("outbound").len() >= before + 2).then_some(());
            harness::eventually("the records", more)?;
            Ok(())
        })?;
    }
    Ok(())
}
