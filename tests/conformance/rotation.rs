//! What a stream says when SVIDs are renewed.

use std::time::Duration;

use anyhow::Result;
use proto::X509svidRequest;

use crate::Arguments;
use crate::probe::{PATIENCE, client, next, request};
use crate::table::Table;
use crate::x509::{certificates, verified};

const SECTION: &str = "Workload API §4.3, §4.4";

pub(crate) async fn cases(arguments: &Arguments, table: &mut Table) -> Result<()> {
    let pushed = "a renewed SVID is pushed on the open stream";
    let full = "the new message holds the full set";
    let valid = "each new SVID is valid by the bundle that comes with it";
    let Some(seconds) = arguments.rotation else {
        for demand in [pushed, full, valid] {
            table.not_run(SECTION, demand, "no --rotation");
        }
        return Ok(());
    };
    let mut api = client(&arguments.socket).await?;
    let mut stream = api.fetch_x509svid(request(X509svidRequest {})).await?.into_inner();
    let before = next(&mut stream, PATIENCE).await?;
    let after = match next(&mut stream, Duration::from_secs(seconds)).await {
        Ok(after) => after,
        Err(error) => {
            table.note(SECTION, pushed, Err(format!("{error:#}")));
            return Ok(());
        }
    };
    let ids = |response: &proto::X509svidResponse| {
        response.svids.iter().map(|svid| svid.spiffe_id.clone()).collect::<Vec<_>>()
    };
    let renewed = before.svids.iter().zip(&after.svids).any(|(b, a)| b.x509_svid != a.x509_svid);
    table.holds(SECTION, pushed, renewed);
    table.holds(SECTION, full, ids(&before) == ids(&after));
    let judged = after.svids.iter().try_for_each(|svid| {
        verified(svid, &certificates(&svid.x509_svid)?, certificates(&svid.bundle)?)
    });
    table.note(SECTION, valid, judged.map_err(|error| format!("{error:#}")));
    Ok(())
}
