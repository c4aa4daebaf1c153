//! Programs that know SPIFFE: stock clients of the Workload API that the daemon serves, and what a
//! stock JWT library makes of its tokens.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use harness::{Group, Lab, Nginx, Pod, Rules, client_id, conformance, eventually, server_id, uid};
use proto::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use proto::{JwtBundlesRequest, JwtsvidRequest};

use crate::go_spiffe::workload;
use crate::stock_peer::{MARKER, captured_curl};

/// A program of the usual client's user on node a, in no scope: nothing of it is captured.
fn caller(lab: &Lab) -> Pod {
    lab.a.pod(Group::Outside, uid::CLIENT)
}

fn socket(lab: &Lab) -> String {
    lab.a.workload_api().to_string_lossy().into_owned()
}

/// The client has a second identity, by user and group; SVIDs are renewed every five seconds.
fn two_identities() -> Rules {
    Rules::client_calls_server()
        .issuer("svid_ttl = \"10s\"")
        .entry(
            "default",
            &[&format!("unix:uid:{}", uid::CLIENT), &format!("unix:gid:{}", uid::CLIENT)],
        )
        .with("hint = \"internal\"")
        .with("dns_names = [\"client.example.org\"]")
}

#[test]
fn go_spiffe_gets_x509_svids() -> Result<()> {
    Lab::check(&two_identities(), |lab| {
        let said = caller(lab).must(workload()?, &["x509", &socket(lab), "-"])?;
        for line in [
            "default=spiffe://example.org/default\n",
            "svid id=spiffe://example.org/default hint=\"internal\" dns=[client.example.org] chain=2\n",
            "svid id=spiffe://example.org/client hint=\"\" dns=[] chain=2\n",
            "one=spiffe://example.org/default all=2 bundles=example.org:1\n",
        ] {
            ensure!(said.contains(line), "no {line:?} in:\n{said}");
        }
        let log = lab.a.audit().shown();
        ensure!(log.contains("svid_handed_over"), "the log does not say so:\n{log}");
        Ok(())
    })
}

#[test]
fn go_spiffe_gets_and_validates_jwt_svids() -> Result<()> {
    Lab::check(&two_identities().with("jwt_svid_ttl = \"2m\""), |lab| {
        let said = caller(lab).must(workload()?, &["jwt", &socket(lab), "db"])?;
        for part in [
            "jwt id=spiffe://example.org/default validated=spiffe://example.org/default",
            "audience=[another db] hint=\"internal\" life=2m0s",
            "jwt id=spiffe://example.org/client validated=spiffe://example.org/client",
            "for somebody else: InvalidArgument",
            "with another signature: InvalidArgument",
            "one=spiffe://example.org/default",
            "another identity: PermissionDenied",
        ] {
            ensure!(said.contains(part), "no {part:?} in:\n{said}");
        }
        Ok(())
    })
}

#[test]
fn go_spiffe_watches_renewals_and_entries() -> Result<()> {
    let rules = two_identities();
    Lab::check(&rules, |lab| {
        let watching = caller(lab).spawn(workload()?, &["watch", &socket(lab), "60"])?;
        let updates = |what: &str, count: usize| {
            eventually(what, || {
                Some(watching.said().matches("update svids=").count()).filter(|n| *n >= count)
            })
            .with_context(|| watching.said())
        };
        updates("two renewals of both SVIDs", 4)?;
        lab.a.configure(&rules.clone().without("default"))?;
        eventually("an update without the withdrawn entry", || {
            let said = watching.said();
            let last = said.lines().rev().find(|line| line.starts_with("update "))?;
            (!last.contains("/default#")).then_some(())
        })
        .with_context(|| watching.said())?;
        lab.a.configure(&rules.clone().without("default").without("client"))?;
        watching.says("refused code=PermissionDenied")?;
        lab.a.configure(&rules)?;
        let before = watching.said().matches("update ").count();
        updates("an update once it has entries again", before + 1)?;
        Ok(())
    })
}

/// The next root is in the bundle before the first SVID hangs on it, and streams are told of each
/// step; who verifies by what it was told last never fails.
#[test]
fn go_spiffe_follows_a_root_that_is_replaced() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let watching = caller(lab).spawn(workload()?, &["watch", &socket(lab), "300"])?;
        watching.says("bundles=example.org:1")?;
        let _nginx = Nginx::start(&lab.server(), 8080, MARKER)?;
        let address = format!("{}:8080", lab.b.ip);
        let socket = socket(lab);
        let words = ["client", &socket, &address, &server_id()];
        lab.replace_root(|| {
            let answer = caller(lab).must(workload()?, &words)?;
            ensure!(answer.contains("200 OK") && answer.contains(MARKER), "it got: {answer}");
            Ok(())
        })?;
        let parts = |line: &str| {
            let (svid, bundles) = line.strip_prefix("update svids=")?.split_once(" bundles=")?;
            Some((svid.to_owned(), bundles.to_owned()))
        };
        let steps = || {
            let steps: Vec<_> = watching.said().lines().filter_map(parts).collect();
            (steps.last()?.1 == "example.org:1" && steps.len() >= 4).then_some(steps)
        };
        let steps = eventually("all steps", steps).with_context(|| watching.said())?;
        let bundles: Vec<_> = steps.iter().map(|step| step.1.as_str()).collect();
        ensure!(bundles.first() == Some(&"example.org:1"), "{steps:?}");
        let renewed =
            steps.windows(2).find(|two| two.first().map(|it| &it.0) != two.last().map(|it| &it.0));
        let both = |two: &[(String, String)]| two.iter().all(|step| step.1 == "example.org:2");
        ensure!(renewed.is_some_and(both), "the SVID changed before the bundle: {steps:?}");
        Ok(())
    })
}

/// A compromised root: by the last message of a stream nothing of it is left.
#[test]
fn go_spiffe_is_told_of_a_compromised_root() -> Result<()> {
    Lab::alone(&Rules::client_calls_server(), |lab| {
        let watching = caller(lab).spawn(workload()?, &["watch", &socket(lab), "300"])?;
        watching.says("bundles=example.org:1")?;
        let tokens = caller(lab).spawn(workload()?, &["watch-jwt", &socket(lab), "300"])?;
        tokens.says("update ")?;
        let before = watching.said();
        let keys = tokens.said();
        lab.a.ask(&["ca", "rotate", "--compromised"])?;
        let said = caller(lab).must(workload()?, &["x509", &socket(lab), "-"])?;
        ensure!(said.contains("bundles=example.org:1\n"), "it verified by: {said}");
        eventually("another SVID and one root", || {
            let said = watching.said();
            let last = said.lines().rfind(|line| line.starts_with("update "))?.to_owned();
            (!before.contains(&last) && last.ends_with("bundles=example.org:1")).then_some(())
        })
        .with_context(|| watching.said())?;
        eventually("another key for tokens", || (tokens.said() != keys).then_some(()))?;
        caller(lab).must(workload()?, &["jwt", &socket(lab), "db"])?;
        Ok(())
    })
}

/// An identity that is denied: its stream ends, and it is told what a stranger is told.
#[test]
fn a_denied_identity_is_served_no_more() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let watching = caller(lab).spawn(workload()?, &["watch", &socket(lab), "300"])?;
        watching.says("update svids=")?;
        lab.a.ask(&["deny", "add", "--spiffe-id", &client_id()])?;
        watching.says("refused code=PermissionDenied")?;
        for verb in ["x509", "jwt"] {
            let ended = caller(lab).run(workload()?, &[verb, &socket(lab), "db"])?;
            ensure!(ended.failed() && ended.stdout.contains("PermissionDenied"), "{ended:?}");
        }
        lab.a.ask(&["deny", "remove", "--spiffe-id", &client_id()])?;
        caller(lab).must(workload()?, &["x509", &socket(lab), "-"])?;
        Ok(())
    })
}

#[test]
fn a_stranger_is_told_that_it_has_no_identity() -> Result<()> {
    Lab::check(&two_identities(), |lab| {
        let stranger = lab.a.pod(Group::Outside, uid::STRANGER);
        let ended = stranger.run(workload()?, &["x509", &socket(lab), "-"])?;
        ensure!(ended.failed(), "it got: {}", ended.stdout);
        ensure!(ended.stdout.contains("no identity issued"), "it was told: {}", ended.stdout);
        Ok(())
    })
}

#[test]
fn a_go_spiffe_client_calls_a_captured_server() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let _nginx = Nginx::start(&lab.server(), 8080, MARKER)?;
        let address = format!("{}:8080", lab.b.ip);
        let words = ["client", &socket(lab), &address, &server_id()];
        let answer = caller(lab).must(workload()?, &words)?;
        ensure!(answer.contains("200 OK") && answer.contains(MARKER), "it got: {answer}");
        let record = lab.b.audit().expect("inbound", |it| it.field("protection") == "mtls")?;
        ensure!(record.field("peer.spiffe_id") == client_id(), "{}", record.json());
        Ok(())
    })
}

#[test]
fn a_captured_client_calls_a_go_spiffe_server() -> Result<()> {
    Lab::check(&Rules::client_calls_server(), |lab| {
        let socket = lab.b.workload_api().to_string_lossy().into_owned();
        let address = format!("{}:8443", lab.b.ip);
        let server = lab.b.pod(Group::Outside, uid::SERVER);
        let _server =
            server.serve(workload()?, &["server", &socket, &address, &client_id()], 8443)?;
        captured_curl(lab, 8443, &[], &client_id())?;
        let record = lab.a.audit().expect("outbound", |it| it.field("protection") == "mtls")?;
        ensure!(record.field("peer.spiffe_id") == server_id(), "{}", record.json());
        Ok(())
    })
}

/// A program of the `spiffe` crate, built once, in a workspace of its own.
#[expect(clippy::disallowed_methods, reason = "the task runner names the folder of builds")]
fn rust_workload() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let build = || -> Result<PathBuf> {
        let target = std::env::var("TACIT_TEST_RUST_TARGET")
            .context("run these tests with `cargo xtask test interop`")?;
        let output = Command::new("cargo")
            .args(["build", "--locked", "--target-dir", &target])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/interop/rust"))
            .output()
            .context("cannot start cargo")?;
        ensure!(output.status.success(), "{}", harness::text(&output.stderr));
        Ok(PathBuf::from(target).join("debug/workload"))
    };
    BUILT
        .get_or_init(|| build().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}

#[test]
fn rust_spiffe_makes_every_call_and_sees_a_renewal() -> Result<()> {
    let program = rust_workload()?;
    Lab::check(&two_identities(), |lab| {
        let said = caller(lab).must(&program, &[&socket(lab), "db"])?;
        for line in [
            "x509 one=spiffe://example.org/default all=2 bundle=1 default=spiffe://example.org/default",
            "jwt id=spiffe://example.org/client here=spiffe://example.org/client there=spiffe://example.org/client",
            "another identity: true",
            "another audience: true",
            "rotated",
        ] {
            ensure!(said.contains(line), "no {line:?} in:\n{said}");
        }
        Ok(())
    })
}

#[expect(clippy::disallowed_methods, reason = "the task runner says where it put the libraries")]
pub(crate) fn python() -> Result<String> {
    std::env::var("TACIT_TEST_PYTHON")
        .context("no Python libraries: run these tests with `cargo xtask test interop`")
}

#[test]
fn py_spiffe_gets_svids_over_the_transport_of_grpc_core() -> Result<()> {
    Lab::check(&two_identities(), |lab| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/interop/fetch.py");
        let said = caller(lab).must(python()?, &[script, &socket(lab), "db"])?;
        let want = "x509 spiffe://example.org/default 2\njwt spiffe://example.org/default\n";
        ensure!(said == want, "{said}");
        Ok(())
    })
}

/// The test itself asks, as the user that it is: what is on the wire goes to the library unread.
#[test]
fn a_stock_jwt_library_validates_a_token_by_the_served_key_set() -> Result<()> {
    let python = python()?;
    let root = format!("unix:uid:{}", nix::unistd::geteuid());
    Lab::check(&Rules::none().entry("one", &[&root]), |lab| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (token, jwks) = runtime.block_on(token_and_jwks(&socket(lab)))?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/interop/validate.py");
        let said = lab.a.in_netns(&python, &[script, &token, &jwks, "db"])?.ok()?.to_owned();
        ensure!(
            said == "valid for spiffe://example.org/one\nrefused for somebody else\n",
            "{said}"
        );
        Ok(())
    })
}

pub(crate) async fn token_and_jwks(socket: &str) -> Result<(String, String)> {
    fn asked<T>(message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        let value = tonic::metadata::MetadataValue::from_static("true");
        request.metadata_mut().insert("workload.spiffe.io", value);
        request
    }
    let endpoint = tonic::transport::Endpoint::from_shared(format!("unix://{socket}"))?;
    let mut api = SpiffeWorkloadApiClient::new(endpoint.connect().await?);
    let wanted = JwtsvidRequest { audience: vec!["db".to_owned()], ..JwtsvidRequest::default() };
    let tokens = api.fetch_jwtsvid(asked(wanted)).await?.into_inner();
    let token = tokens.svids.into_iter().next().context("no token")?.svid;
    let mut stream = api.fetch_jwt_bundles(asked(JwtBundlesRequest {})).await?.into_inner();
    let mut told = stream.message().await?.context("no bundles")?;
    let jwks = told.bundles.remove("spiffe://example.org").context("no bundle of its own")?;
    Ok((token, String::from_utf8(jwks)?))
}

/// Every demand of the standards, by the table that the suite prints.
#[test]
fn every_demand_of_the_conformance_suite_is_met() -> Result<()> {
    let root = format!("unix:uid:{}", nix::unistd::geteuid());
    let rules = Rules::none()
        .issuer("svid_ttl = \"10s\"")
        .entry("one", &[&root])
        .with("hint = \"one\"")
        .entry("two", &[&root, &format!("unix:gid:{}", nix::unistd::getegid())])
        .with("dns_names = [\"two.example.org\"]");
    Lab::check(&rules, |lab| {
        let stranger = uid::STRANGER.to_string();
        let words = ["--socket", &socket(lab), "--stranger", &stranger, "--rotation", "30"];
        let ended = lab.a.in_netns(&conformance()?.to_string_lossy(), &words)?;
        println!("{}", ended.stdout);
        ended.ok()?;
        ensure!(ended.stdout.contains(" 0 fail, 0 not run"), "{}", ended.stdout);
        if let Some(table) = std::env::var_os("TACIT_CONFORMANCE_TABLE") {
            std::fs::write(table, &ended.stdout)?;
        }
        Ok(())
    })
}
