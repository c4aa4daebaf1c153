//! A caller that no entry matches: asked by another process, which becomes that user.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use proto::{JwtBundlesRequest, JwtsvidRequest, X509BundlesRequest, X509svidRequest};
use tonic::Code;

use crate::Arguments;
use crate::probe::{client, first, refused, request};
use crate::table::Table;

const SECTION: &str = "Workload Endpoint App. A";
const METHODS: [&str; 4] = ["FetchX509SVID", "FetchX509Bundles", "FetchJWTSVID", "FetchJWTBundles"];

fn demand(method: &str) -> String {
    format!("{method} of a caller without identity: PermissionDenied")
}

/// Starts the stranger and takes over what it notes.
pub(crate) fn cases(arguments: &Arguments, table: &mut Table) -> Result<()> {
    let Some(user) = arguments.stranger else {
        for method in METHODS {
            table.not_run(SECTION, &demand(method), "no --stranger");
        }
        return Ok(());
    };
    let program = std::env::current_exe()?;
    let output = Command::new(program)
        .arg("--socket")
        .arg(&arguments.socket)
        .arg("--as-stranger")
        .uid(user)
        .gid(user)
        .output()
        .context("cannot become the stranger")?;
    let lines = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "the stranger: {lines}");
    table.read(&lines);
    Ok(())
}

/// Asks as the stranger.
pub(crate) async fn ask(socket: &Path, table: &mut Table) -> Result<()> {
    let mut api = client(socket).await?;
    let jwt = JwtsvidRequest { audience: vec!["conformance".to_owned()], ..Default::default() };
    let denied = Code::PermissionDenied;
    let outcomes = [
        refused(&first(api.fetch_x509svid(request(X509svidRequest {})).await).await, denied),
        refused(&first(api.fetch_x509_bundles(request(X509BundlesRequest {})).await).await, denied),
        refused(&api.fetch_jwtsvid(request(jwt)).await, denied),
        refused(&first(api.fetch_jwt_bundles(request(JwtBundlesRequest {})).await).await, denied),
    ];
    for (method, outcome) in METHODS.into_iter().zip(outcomes) {
        table.note(SECTION, &demand(method), outcome);
    }
    Ok(())
}
