//! Two nodes of two trust domains that fetch each other's bundles: one by an endpoint of the web, the
//! other by one of SPIFFE.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use harness::{Lab, Nginx, Record, Rules, Web, eventually, probe, uid};
use serde_json::Value;

const MARKER: &str = "c0ffee-by-fetched-bundles";
const PARTNER: &str = "partner.org";

const CLIENT: &str = "spiffe://example.org/client";
const SERVER: &str = "spiffe://partner.org/server";
/// Looks at every second, whatever an endpoint says.
const OFTEN: &str = "[federation]\nshortest_refresh = \"1s\"\nlongest_refresh = \"1m\"\n";

/// Node a: known by an X.509-SVID; looks at an endpoint of the web.
fn client_rules(relationship: &str) -> Rules {
    Rules::none()
        .entry("client", &[&format!("unix:uid:{}", uid::CLIENT)])
        .with("federates_with = [\"partner.org\"]")
        .rule(&format!(
            "[[outbound]]\nname = \"to-partner\"\naction = \"mtls\"\npeers = [\"{SERVER}\"]\n\
             [bundle_endpoint]\nlisten = \"0.0.0.0:8443\"\nrefresh_hint = \"1s\"\n{OFTEN}{relationship}"
        ))
}

/// Node b: known by a certificate of the web; looks at an endpoint of SPIFFE.
fn server_rules(relationship: &str, web: &Web) -> Rules {
    Rules::none()
        .in_domain(PARTNER)
        .entry("server", &[&format!("unix:uid:{}", uid::SERVER)])
        .with("federates_with = [\"example.org\"]")
        .rule(&format!(
            "[[inbound]]\nname = \"from-example\"\naction = \"allow\"\npeers = [\"{CLIENT}\"]\n\
             [bundle_endpoint]\nlisten = \"0.0.0.0:8443\"\nrefresh_hint = \"1s\"\n\
             profile = \"https_web\"\n{}{OFTEN}{relationship}",
            web.files()
        ))
}

fn by_web(web: &Web) -> String {
    format!(
        "[[federates_with]]\ntrust_domain = \"{PARTNER}\"\nurl = \"https://10.77.0.2:8443/\"\n\
         profile = \"https_web\"\nauthorities = \"{}\"\n",
        web.authority().display()
    )
}

fn by_spiffe(bundle: &Path) -> String {
    format!(
        "[[federates_with]]\ntrust_domain = \"example.org\"\nurl = \"https://10.77.0.1:8443/\"\n\
         profile = \"https_spiffe\"\n\
         endpoint_spiffe_id = \"spiffe://example.org/tacit/bundle-endpoint\"\nbundle = \"{}\"\n",
        bundle.display()
    )
}

fn curl(lab: &Lab) -> Result<harness::Finished> {
    lab.client().run("curl", &["-sS", "-m", "20", &format!("http://{}:8080/", lab.b.ip)])
}

/// What `tacit bundle list` says of a trust domain.
fn listed(node: &harness::Node, domain: &str) -> Result<Value> {
    let all: Vec<Value> =
        serde_json::from_str(&node.ask(&["bundle", "list", "--output", "json"])?)?;
    all.into_iter().find(|one| one["trust_domain"] == domain).context("not listed")
}

fn is_fetched(node: &harness::Node, domain: &str) -> Result<Value> {
    let fetched = || listed(node, domain).ok().filter(|it| it["source"] == "fetched");
    eventually("a fetched bundle", fetched)
}

#[test]
fn two_trust_domains_federate_by_their_endpoints() -> Result<()> {
    let none = Rules::none();
    Lab::apart_prepared(&none, &none.clone().in_domain(PARTNER), |lab| {
        let web = Web::new(lab, lab.b.ip)?;
        lab.a.configure(&client_rules(&by_web(&web)))?;
        lab.a.start()?;
        let own = lab.dir().join("example.org.json");
        std::fs::write(&own, lab.a.ask(&["bundle", "show", "example.org", "--format", "spiffe"])?)?;
        lab.b.configure(&server_rules(&by_spiffe(&own), &web))?;
        lab.b.start()?;
        let of_b = is_fetched(&lab.a, PARTNER)?;
        ensure!(of_b["sequence"].as_u64() > Some(1_000_000_000), "{of_b}");
        ensure!(of_b["refresh_hint"] == 1 && of_b["endpoint"]["profile"] == "https_web", "{of_b}");
        let of_a = is_fetched(&lab.b, "example.org")?;
        ensure!(of_a["endpoint"]["profile"] == "https_spiffe", "{of_a}");

        let _nginx = Nginx::start(&lab.server(), 8080, MARKER)?;
        ensure!(curl(lab)?.ok()?.contains(MARKER), "federated, and it does not get through");
        let is_mtls = |it: &Record| it.field("protection") == "mtls";
        let record = lab.b.audit().expect("inbound", is_mtls)?;
        ensure!(record.field("peer.spiffe_id") == CLIENT, "{}", record.json());
        let record = lab
            .a
            .audit()
            .expect("outbound", |it| is_mtls(it) && it.field("peer.spiffe_id") == SERVER)?;
        ensure!(record.field("local.spiffe_id") == CLIENT, "{}", record.json());
        let fetched = |it: &Record| it.field("reason") == "bundle_fetched";
        let look = || lab.a.audit().records().into_iter().find(fetched);
        let detail = eventually("the record of the bundle", look)?.field("detail");
        ensure!(detail.contains(PARTNER) && detail.contains("https://10.77.0.2:8443/"), "{detail}");
        Ok(())
    })
}

#[test]
fn a_relationship_that_ends_cuts_and_an_endpoint_that_fails_does_not() -> Result<()> {
    let none = Rules::none();
    Lab::apart_prepared(&none, &none.clone().in_domain(PARTNER), |lab| {
        let web = Web::new(lab, lab.b.ip)?;
        lab.a.configure(&client_rules(&by_web(&web)))?;
        lab.a.start()?;
        let own = lab.dir().join("example.org.pem");
        std::fs::write(&own, lab.a.ask(&["bundle", "show", "example.org", "--format", "pem"])?)?;
        lab.b.configure(&server_rules(&by_spiffe(&own), &web))?;
        lab.b.start()?;
        is_fetched(&lab.a, PARTNER)?;
        is_fetched(&lab.b, "example.org")?;

        // Node a cannot be asked for a while: node b goes on with what it has, and says so.
        let echo = lab.echo(7000)?;
        let to = format!("{}:7000", lab.b.ip);
        lab.a.stop();
        let failing = || {
            let it = listed(&lab.b, "example.org").ok()?;
            it["endpoint"]["last_error"].as_str().map(str::to_owned)
        };
        let error = eventually("a failure", failing)?;
        ensure!(error.contains("10.77.0.1:8443 cannot be reached"), "{error}");
        ensure!(listed(&lab.b, "example.org")?["source"] == "fetched", "the last good one is gone");
        let status = lab.b.ask(&["status"])?;
        ensure!(status.contains("bundles of others") && status.contains(&error), "{status}");
        let ready = ["-sf", "-m", "20", "http://127.0.0.1:9464/ready"];
        lab.b.in_netns("curl", &ready)?.ok().context("degraded is not failing")?;
        let metrics = ["-sf", "-m", "20", "http://127.0.0.1:9464/metrics"];
        let metrics = lab.b.in_netns("curl", &metrics)?;
        ensure!(metrics.ok()?.contains("tacit_bundle_endpoints_failing 1"), "{metrics:?}");
        // And so it does over a restart.
        lab.b.stop();
        lab.b.start()?;
        ensure!(listed(&lab.b, "example.org")?["source"] == "fetched", "forgotten");
        lab.a.start()?;

        let mut client = lab.client().spawn(probe()?, &["talk", &to, "--hold", "60000"])?;
        client.says("sent=5")?;
        echo.says("accept=")?;
        lab.a.configure(&client_rules(""))?;
        let record = lab.a.audit().expect("outbound", |it| it.field("outcome") == "cut")?;
        ensure!(record.field("reason") == "authority_gone", "{}", record.json());
        client.kill();
        ensure!(lab.client().run(probe()?, &["talk", &to])?.failed(), "still believed");
        lab.a.audit().expect_denied("outbound", "peer_unverified")?;
        ensure!(listed(&lab.a, PARTNER)?["source"] == "missing", "{}", listed(&lab.a, PARTNER)?);
        Ok(())
    })
}
