//! Stock verifiers of `OpenID` Connect: they find the keys of JWT-SVIDs by the discovery document.

use anyhow::{Context as _, Result, ensure};
use harness::{Lab, Rules, Web};
use serde_json::Value;

use crate::workload_api::{python, token_and_jwks};

/// The endpoint of node b, known by a certificate of the web.
fn rules(web: &Web) -> Rules {
    let root = format!("unix:uid:{}", nix::unistd::geteuid());
    Rules::none().entry("one", &[&root]).rule(&format!(
        "[oidc]\nissuer = \"https://10.77.0.2:8444/of/node-b\"\nlisten = \"0.0.0.0:8444\"\n{}",
        web.files()
    ))
}

const ISSUER: &str = "https://10.77.0.2:8444/of/node-b";

#[test]
fn py_jwt_finds_the_keys_by_discovery_and_validates_a_jwt_svid() -> Result<()> {
    Lab::prepared(&Rules::none(), |lab| {
        let web = Web::new(lab, lab.b.ip)?;
        lab.b.configure(&rules(&web))?;
        lab.b.start()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (token, _) =
            runtime.block_on(token_and_jwks(&lab.b.workload_api().to_string_lossy()))?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/interop/discover.py");
        let authority = web.authority();
        let authority = authority.to_string_lossy();
        let words = [script, ISSUER, &*authority, &token, "db"];
        let said = lab.a.in_netns(&python()?, &words)?.ok()?.to_owned();
        let want = "valid for spiffe://example.org/one\nrefused: InvalidAudienceError\n\
                    refused: InvalidIssuerError\n";
        ensure!(said == want, "{said}");
        Ok(())
    })
}

#[test]
fn curl_gets_the_documents_of_openid_connect() -> Result<()> {
    Lab::prepared(&Rules::none(), |lab| {
        let web = Web::new(lab, lab.b.ip)?;
        lab.b.configure(&rules(&web))?;
        lab.b.start()?;
        let get = |path: &str| {
            let (url, authority) = (format!("{ISSUER}{path}"), web.authority());
            let authority = authority.to_string_lossy();
            let format = "\n%{http_code} %{content_type}";
            let words = ["-sS", "-m", "20", "--cacert", &authority, "-w", format, &url];
            lab.a.in_netns("curl", &words)?.ok().map(str::to_owned)
        };
        let said = get("/.well-known/openid-configuration")?;
        let (text, how) = said.rsplit_once('\n').context("no status")?;
        ensure!(how == "200 application/json", "{said}");
        let metadata: Value = serde_json::from_str(text)?;
        ensure!(metadata["issuer"] == ISSUER, "{metadata}");
        ensure!(metadata["jwks_uri"] == format!("{ISSUER}/keys"), "{metadata}");
        let said = get("/keys")?;
        let (text, how) = said.rsplit_once('\n').context("no status")?;
        ensure!(how == "200 application/jwk-set+json", "{said}");
        let keys: Value = serde_json::from_str(text)?;
        let keys = keys["keys"].as_array().context("no keys")?;
        ensure!(!keys.is_empty(), "no keys");
        for key in keys {
            ensure!(key["use"] == "sig" && key["alg"] == "ES256" && key["d"].is_null(), "{key}");
        }
        ensure!(get("/")?.ends_with("404 "), "there is nothing else");
        Ok(())
    })
}
