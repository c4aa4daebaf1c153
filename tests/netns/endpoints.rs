//! The bundle endpoint as anybody on the wire finds it, in both profiles.

use anyhow::{Context as _, Result, ensure};
use harness::{Lab, Rules, Web, eventually};
use serde_json::Value;

const URL: &str = "https://10.77.0.2:8443/";

/// `curl` on node a, which adds the status and the type of the answer.
fn curl(lab: &Lab, web: &Web, more: &[&str], url: &str) -> Result<(String, String)> {
    let authority = web.authority();
    let authority = authority.to_string_lossy();
    let words =
        ["-sS", "-m", "20", "--cacert", &*authority, "-w", "\n%{http_code} %{content_type}"];
    let said = lab.a.in_netns("curl", &[&words, more, &[url]].concat())?.ok()?.to_owned();
    let (text, how) = said.rsplit_once('\n').context("no status")?;
    Ok((text.to_owned(), how.to_owned()))
}

/// What the endpoint shows of itself, and whether the authorities in a file vouch for it.
fn shown(lab: &Lab, authorities: &str, more: &str) -> Result<String> {
    let line = format!(
        "openssl s_client -connect 10.77.0.2:8443 -CAfile {authorities} -verify_return_error {more} \
         </dev/null 2>/dev/null | openssl x509 -noout -serial -ext subjectAltName"
    );
    Ok(lab.a.in_netns("sh", &["-c", &line])?.ok()?.to_owned())
}

#[test]
fn anybody_gets_the_bundle_from_an_endpoint_of_the_web() -> Result<()> {
    Lab::prepared(&Rules::none(), |lab| {
        let web = Web::new(lab, lab.b.ip)?;
        let rules = Rules::none().rule(&format!(
            "[bundle_endpoint]\nlisten = \"0.0.0.0:8443\"\nprofile = \"https_web\"\n\
             refresh_hint = \"10m\"\n{}",
            web.files()
        ));
        lab.b.configure(&rules)?;
        lab.b.start()?;
        for version in ["1.2", "1.3"] {
            let more = ["--tlsv1.2", "--tls-max", version];
            let (text, how) = curl(lab, &web, &more, URL)?;
            ensure!(how == "200 application/json", "{how}: {text}");
            let bundle: Value = serde_json::from_str(&text)?;
            ensure!(bundle["spiffe_refresh_hint"] == 600, "{bundle}");
            let root = lab.b.ask(&["bundle", "show", "example.org", "--format", "spiffe"])?;
            ensure!(root.trim() == text, "served: {text}\nshown: {root}");
            let keys = bundle["keys"].as_array().context("no keys")?;
            let of = |purpose: &str| keys.iter().filter(|key| key["use"] == purpose).count();
            ensure!((of("x509-svid"), of("jwt-svid")) == (1, keys.len() - 1), "{bundle}");
            ensure!(of("jwt-svid") >= 1, "{bundle}");
        }
        let (before, _) = curl(lab, &web, &[], URL)?;
        ensure!(curl(lab, &web, &["-X", "POST"], URL)?.1.starts_with("405"));
        ensure!(curl(lab, &web, &[], &format!("{URL}else"))?.1.starts_with("404"));
        // Without a client certificate, and in no need of one; but not without TLS.
        let plain = lab.a.in_netns("curl", &["-sS", "-m", "20", "http://10.77.0.2:8443/"])?;
        ensure!(plain.failed(), "{plain:?}");

        lab.b.stop();
        lab.b.start()?;
        ensure!(curl(lab, &web, &[], URL)?.0 == before, "other contents, or another number");
        let authorities = web.authority().to_string_lossy().into_owned();
        let serial = shown(lab, &authorities, "")?;
        web.issue(lab.b.ip)?;
        let renewed = || shown(lab, &authorities, "").ok().filter(|now| *now != serial);
        eventually("the renewed certificate", renewed)?;
        Ok(())
    })
}

#[test]
fn an_endpoint_of_spiffe_shows_an_svid_and_renews_it() -> Result<()> {
    let rules = Rules::none()
        .issuer("svid_ttl = \"20s\"")
        .rule("[bundle_endpoint]\nlisten = \"0.0.0.0:8443\"\n");
    Lab::check(&rules, |lab| {
        let bundle = lab.dir().join("bundle.pem");
        std::fs::write(&bundle, lab.a.ask(&["bundle", "show", "example.org", "--format", "pem"])?)?;
        let bundle = bundle.to_string_lossy();
        let first = shown(lab, &bundle, "-tls1_3")?;
        ensure!(first.contains("URI:spiffe://example.org/tacit/bundle-endpoint"), "{first}");
        ensure!(shown(lab, &bundle, "-tls1_2")?.contains("bundle-endpoint"));
        let renewed = || shown(lab, &bundle, "").ok().filter(|now| *now != first);
        eventually("a renewed SVID", renewed)?;
        Ok(())
    })
}

#[test]
fn an_endpoint_that_cannot_be_is_refused_at_start() -> Result<()> {
    Lab::prepared(&Rules::none(), |lab| {
        let web = Web::new(lab, lab.b.ip)?;
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(web.certificate().with_extension("key"), open)?;
        let listen = "[bundle_endpoint]\nlisten = \"0.0.0.0:8443\"\n";
        let files = format!("{listen}profile = \"https_web\"\n{}", web.files());
        for (toml, why) in [
            (format!("{listen}profile = \"https_web\"\n"), "needs bundle_endpoint.certificate"),
            (files, "chmod 600"),
            (format!("{listen}spiffe_id = \"spiffe://other.org/x\"\n"), "another trust domain"),
            ("[oidc]\nlisten = \"0.0.0.0:8444\"\n".to_owned(), "needs oidc.issuer"),
            (
                "[oidc]\nissuer = \"https://a.test\"\nlisten = \"0.0.0.0:8444\"\n".to_owned(),
                "in the clear",
            ),
            ("[oidc]\nissuer = \"http://a.test\"\n".to_owned(), "is no issuer"),
        ] {
            lab.b.configure(&Rules::none().rule(&toml))?;
            ensure!(lab.b.start().is_err(), "it started: {toml}");
            ensure!(lab.b.logged().contains(why), "{toml}: {}", lab.b.logged());
        }
        Ok(())
    })
}
