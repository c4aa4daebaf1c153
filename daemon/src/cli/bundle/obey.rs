//! Does what `tacit bundle` is told: asks the daemon, and shows what it says.

use super::args::{Bundle, Delete, Format, Set, Show};
use crate::admin::dump::{BundleChanged, BundleDump, DeleteBundle, SetBundle};
use crate::cli::args::Listing;
use crate::cli::dispatch::present;
use crate::cli::fault::{Exit, Fault};
use crate::cli::{client, output, show};

pub(in crate::cli) fn obey(asked: Bundle) -> Result<Exit, Fault> {
    match asked {
        Bundle::List(listing) => list(&listing),
        Bundle::Show(asked) => show_one(&asked),
        Bundle::Set(asked) => set(&asked),
        Bundle::Delete(asked) => delete(&asked),
    }
}

fn known(listing: &Listing) -> Result<Vec<BundleDump>, Fault> {
    client::get(&listing.socket, "/v1/bundles")
}

fn list(listing: &Listing) -> Result<Exit, Fault> {
    present(listing.format.output, &known(listing)?, |it| show::bundle_list(it))?;
    Ok(Exit::Success)
}

fn show_one(asked: &Show) -> Result<Exit, Fault> {
    let mut bundles = known(&asked.listing)?;
    if let Some(wanted) = &asked.trust_domain {
        bundles.retain(|bundle| bundle.trust_domain == wanted.as_str());
        if !bundles.iter().any(|bundle| bundle.document.is_some()) {
            let what = format!("there is no bundle of {wanted}; see `tacit bundle list`");
            return Err(Fault::Refused(what));
        }
    }
    let Some(format) = asked.format else {
        present(asked.listing.format.output, &bundles, |it| show::bundles(it))?;
        return Ok(Exit::Success);
    };
    for BundleDump { pem, document, .. } in &bundles {
        match (format, document) {
            (Format::Pem, _) => output::text(pem)?,
            (Format::Spiffe, Some(document)) => output::text(&format!("{document}\n"))?,
            (Format::Spiffe, None) => {}
        }
    }
    Ok(Exit::Success)
}

fn set(asked: &Set) -> Result<Exit, Fault> {
    let order = SetBundle {
        trust_domain: asked.trust_domain.to_string(),
        text: client::read_file(&asked.file)?,
    };
    let Listing { socket, format } = &asked.listing;
    let done: BundleChanged = client::post_json(socket, "/v1/bundles/set", &order)?;
    present(format.output, &done, show::bundle_changed)?;
    Ok(Exit::Success)
}

fn delete(asked: &Delete) -> Result<Exit, Fault> {
    let order = DeleteBundle { trust_domain: asked.trust_domain.to_string() };
    let Listing { socket, format } = &asked.listing;
    let done: BundleChanged = client::post_json(socket, "/v1/bundles/delete", &order)?;
    present(format.output, &done, show::bundle_changed)?;
    Ok(Exit::Success)
}
