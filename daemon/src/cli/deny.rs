//! `tacit deny`: whom nobody on this node talks to. Asks the daemon.

use clap::{Args, Subcommand};

use super::args::Listing;
use super::client;
use super::dispatch::present;
use super::fault::{Exit, Fault};
use super::output::{Columns, cell, maybe};
use crate::admin::dump::{DenyChanged, DenyDump, DenyOrder};

#[derive(Debug, Subcommand)]
pub(super) enum Deny {
    /// Deny an identity or a certificate, at once
    #[command(
        long_about = "Denies a SPIFFE ID, here or elsewhere, or a certificate by its serial number. \
            It is kept in deny.toml of the state directory. When this command returns, connections \
            of whoever is meant are cut and none are admitted; an identity of this node has its \
            SVID withdrawn and gets no other, nor a JWT-SVID. It holds on this node only: deny on \
            every node that is to refuse.",
        after_help = "Examples:\n  \
            tacit deny add --spiffe-id spiffe://example.org/web --reason \"incident 4711\"\n  \
            tacit deny add --serial 4f:00:a1"
    )]
    Add(Add),
    /// Deny it no more
    Remove(Remove),
    /// List who is denied
    List(Listing),
}

/// Who.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Whom {
    /// The identity
    #[arg(long, value_name = "ID")]
    spiffe_id: Option<String>,
    /// The certificate's serial number in hex, as `openssl x509 -serial` and the audit log have it
    #[arg(long, value_name = "HEX")]
    serial: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Add {
    #[command(flatten)]
    whom: Whom,
    /// Why; stands in the records
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    listing: Listing,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    #[command(flatten)]
    whom: Whom,
    #[command(flatten)]
    listing: Listing,
}

pub(super) fn obey(asked: Deny) -> Result<Exit, Fault> {
    match asked {
        Deny::Add(Add { whom, reason, listing }) => change(&listing, "add", whom, reason),
        Deny::Remove(Remove { whom, listing }) => change(&listing, "remove", whom, String::new()),
        Deny::List(listing) => {
            let list: Vec<DenyDump> = client::get(&listing.socket, "/v1/deny")?;
            present(listing.format.output, &list, |list| table(list))?;
            Ok(Exit::Success)
        }
    }
}

fn change(listing: &Listing, what: &str, whom: Whom, reason: String) -> Result<Exit, Fault> {
    let order = DenyOrder { spiffe_id: whom.spiffe_id, serial: whom.serial, reason };
    let path = format!("/v1/deny/{what}");
    let done: DenyChanged = client::post_json(&listing.socket, &path, &order)?;
    present(listing.format.output, &done, |done| {
        let what = if done.changed { "In force" } else { "Nothing has changed" };
        format!("{what}; {} connections cut.\n\n{}", done.cut, table(&done.list))
    })?;
    Ok(Exit::Success)
}

fn table(list: &[DenyDump]) -> String {
    let mut columns = Columns::new(&["SPIFFE ID", "SERIAL", "REASON", "ORIGIN"]);
    for item in list {
        let (id, serial) = (item.spiffe_id.as_ref(), item.serial.as_ref());
        columns.row([maybe(id), maybe(serial), cell(&item.reason), cell(&item.origin)]);
    }
    columns.render()
}
