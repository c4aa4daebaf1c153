//! Two nodes of two trust domains: legacy programs that talk over mTLS as long as each side has the
//! other's bundle and its entry is federated with the other.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use harness::{Lab, Nginx, Node, Record, Rules, eventually, probe, uid};

const MARKER: &str = "c0ffee-between-trust-domains";
const PARTNER: &str = "partner.org";
const CLIENT: &str = "spiffe://example.org/client";
const SERVER: &str = "spiffe://partner.org/server";

fn client_rules() -> Rules {
    Rules::none()
        .entry("client", &[&format!("unix:uid:{}", uid::CLIENT)])
        .with("federates_with = [\"partner.org\"]")
        .rule(&format!(
            "[[outbound]]\nname = \"to-partner\"\naction = \"mtls\"\npeers = [\"{SERVER}\"]\n"
        ))
}

fn server_rules(federates_with: &str) -> Rules {
    Rules::none()
        .in_domain(PARTNER)
        .entry("server", &[&format!("unix:uid:{}", uid::SERVER)])
        .with(federates_with)
        .rule(&format!(
            "[[inbound]]\nname = \"from-example\"\naction = \"allow\"\npeers = [\"{CLIENT}\"]\n"
        ))
}

fn federated() -> Rules {
    server_rules("federates_with = [\"example.org\"]")
}

/// The bundle of a node's trust domain, in a file, as an operator carries it to the other side.
fn exported(lab: &Lab, node: &Node, domain: &str, format: &str) -> Result<PathBuf> {
    let text = node.ask(&["bundle", "show", domain, "--format", format])?;
    let file = lab.dir().join(format!("{domain}.{format}"));
    std::fs::write(&file, text)?;
    Ok(file)
}

fn set(node: &Node, domain: &str, file: &std::path::Path) -> Result<()> {
    node.ask(&["bundle", "set", domain, &file.to_string_lossy()]).map(drop)
}

/// One in SPIFFE's format, one as PEM: both are read.
fn exchange(lab: &Lab) -> Result<()> {
    set(&lab.a, PARTNER, &exported(lab, &lab.b, PARTNER, "spiffe")?)?;
    set(&lab.b, "example.org", &exported(lab, &lab.a, "example.org", "pem")?)
}

fn curl(lab: &Lab) -> Result<harness::Finished> {
    lab.client().run("curl", &["-sS", "-m", "20", &format!("http://{}:8080/", lab.b.ip)])
}

fn talk(lab: &Lab) -> Result<harness::Finished> {
    lab.client().run(probe()?, &["talk", &format!("{}:7000", lab.b.ip)])
}

/// A connection that stays open until it is cut at `node`; the cut must have this reason.
fn held_is_cut(
    lab: &Lab,
    node: &Node,
    direction: &str,
    end: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let echo = lab.echo(7000)?;
    let to = format!("{}:7000", lab.b.ip);
    let mut client = lab.client().spawn(probe()?, &["talk", &to, "--hold", "60000"])?;
    echo.says("accept=")?;
    client.says("sent=5")?;
    end()?;
    let cut = |it: &Record| it.field("outcome") == "cut";
    let record = node.audit().expect(direction, cut)?;
    ensure!(record.field("reason") == "authority_gone", "{}", record.json());
    client.kill();
    Ok(())
}

#[test]
fn programs_of_two_trust_domains_talk_while_they_are_federated() -> Result<()> {
    Lab::apart(&client_rules(), &federated(), |lab| {
        let _nginx = Nginx::start(&lab.server(), 8080, MARKER)?;
        ensure!(curl(lab)?.failed(), "it was let through without a bundle");
        let record = lab.a.audit().expect_denied("outbound", "peer_unverified")?;
        let detail = record.field("detail");
        ensure!(
            detail.contains("no trust bundle is known for trust domain partner.org"),
            "{detail}"
        );

        exchange(lab)?;
        let capture = lab.a.capture("wire")?;
        let said = curl(lab)?;
        ensure!(said.ok()?.contains(MARKER), "curl got: {said:?}");
        let packets = capture.stop()?;
        ensure!(packets.hold_tls() && !packets.contain(MARKER.as_bytes()), "in the clear");
        let is_mtls =
            |it: &Record| it.field("protection") == "mtls" && it.field("outcome") == "completed";
        for (node, direction, local, peer) in
            [(&lab.a, "outbound", CLIENT, SERVER), (&lab.b, "inbound", SERVER, CLIENT)]
        {
            let record = node.audit().expect(direction, is_mtls)?;
            ensure!(record.field("local.spiffe_id") == local, "{}", record.json());
            ensure!(record.field("peer.spiffe_id") == peer, "{}", record.json());
        }
        // A daemon that starts again has not forgotten.
        lab.b.stop();
        lab.b.start()?;
        ensure!(curl(lab)?.ok()?.contains(MARKER), "forgotten over a restart");
        Ok(())
    })
}

#[test]
fn a_deleted_bundle_cuts_and_refuses() -> Result<()> {
    Lab::apart(&client_rules(), &federated(), |lab| {
        exchange(lab)?;
        let listed = lab.a.ask(&["bundle", "list", "--output", "json"])?;
        ensure!(listed.contains("\"trust_domain\":\"partner.org\",\"source\":\"set\""), "{listed}");
        held_is_cut(lab, &lab.a, "outbound", || {
            lab.a.ask(&["bundle", "delete", PARTNER]).map(drop)
        })?;
        let _echo = lab.echo(7000)?;
        ensure!(talk(lab)?.failed(), "a deleted bundle is believed");
        lab.a.audit().expect_denied("outbound", "peer_unverified")?;
        for reason in ["bundle_set", "bundle_deleted"] {
            let is_it = |it: &Record| it.field("reason") == reason;
            let look = || lab.a.audit().records().into_iter().find(is_it);
            let detail = eventually("the record of the change", look)?.field("detail");
            ensure!(detail.contains(PARTNER) && detail.contains("by user 0 (pid "), "{detail}");
        }
        let listed = lab.a.ask(&["bundle", "list", "--output", "json"])?;
        ensure!(
            listed.contains("\"trust_domain\":\"partner.org\",\"source\":\"missing\""),
            "{listed}"
        );
        Ok(())
    })
}

#[test]
fn an_entry_that_is_no_longer_federated_cuts_and_refuses() -> Result<()> {
    Lab::apart(&client_rules(), &federated(), |lab| {
        exchange(lab)?;
        held_is_cut(lab, &lab.b, "inbound", || lab.b.configure(&server_rules("")))?;
        let _echo = lab.echo(7000)?;
        ensure!(talk(lab)?.failed(), "believed by an entry that is not federated");
        let record = lab.b.audit().expect_denied("inbound", "peer_unverified")?;
        ensure!(record.field("detail").contains("not federated"), "{}", record.json());
        Ok(())
    })
}

#[test]
fn what_cannot_be_a_bundle_is_refused_with_the_reason() -> Result<()> {
    Lab::apart(&client_rules(), &federated(), |lab| {
        let own = exported(lab, &lab.a, "example.org", "pem")?;
        let write = |name: &str, text: &str| {
            let file = lab.dir().join(name);
            std::fs::write(&file, text).map(|()| file)
        };
        let (empty, web) = (write("empty", "{\"keys\":[]}")?, write("web", "<html>")?);
        let broken = write("broken", "{\"keys\":[{\"kty\":\"EC\",\"use\":\"x509-svid\"}]}")?;
        let leaf = lab.mint(CLIENT, &[])?.chain;
        let socket = lab.a.socket().to_string_lossy().into_owned();
        for (domain, file, why) in [
            ("example.org", &own, "this node's own trust domain"),
            (PARTNER, &empty, "has no authorities"),
            (PARTNER, &web, "has no authorities"),
            (PARTNER, &broken, "x5c holds no certificate"),
            (PARTNER, &leaf, "is not that of an authority"),
            ("Partner.org", &own, "not in canonical form"),
        ] {
            let file = file.to_string_lossy();
            let said = lab.a.tacit(&["bundle", "set", domain, &file, "--socket", &socket])?;
            ensure!(said.failed() && said.stderr.contains(why), "{domain} {file}: {said:?}");
        }
        let said = lab.a.tacit(&["bundle", "delete", PARTNER, "--socket", &socket])?;
        ensure!(said.failed() && said.stderr.contains("no bundle of partner.org"), "{said:?}");
        ensure!(!lab.a.state().join("bundles.json").exists(), "something was kept");
        let shown = lab.a.ask(&["bundle", "show", "example.org"]).context("own")?;
        ensure!(shown.contains("BEGIN CERTIFICATE"), "{shown}");
        Ok(())
    })
}
