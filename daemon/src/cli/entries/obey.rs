//! Does what `tacit entries` is told: asks the daemon, and shows what it says.

use super::args::{Add, Change, Entries, Export, Import, Remove};
use super::spire;

use crate::admin::dump::{AddEntries, EntriesChanged, EntryDump, NewEntry};
use crate::cli::args::Listing;
use crate::cli::dispatch::present;
use crate::cli::fault::{Exit, Fault};
use crate::cli::{client, output, show};

pub(in crate::cli) fn obey(asked: Entries) -> Result<Exit, Fault> {
    match asked.change {
        None => list(&asked.listing),
        Some(Change::List(listing)) => list(&listing),
        Some(Change::Add(add)) => add_one(add),
        Some(Change::Remove(remove)) => remove_some(&remove),
        Some(Change::Import(import)) => import_file(&import),
        Some(Change::Export(export)) => export_all(&export),
    }
}

fn list(asked: &Listing) -> Result<Exit, Fault> {
    let entries: Vec<EntryDump> = client::get(&asked.socket, "/v1/entries")?;
    present(asked.format.output, &entries, |it| show::entries(it))?;
    Ok(Exit::Success)
}

fn add_one(add: Add) -> Result<Exit, Fault> {
    let entry = NewEntry {
        id: add.id,
        spiffe_id: add.spiffe_id,
        selectors: add.selector,
        svid_ttl: add.svid_ttl.map(|ttl| ttl.as_secs()),
        jwt_svid_ttl: add.jwt_svid_ttl.map(|ttl| ttl.as_secs()),
        hint: add.hint,
        dns_names: add.dns_name,
        federates_with: add.federates_with,
    };
    let source = "command line".to_owned();
    change(&add.listing, &AddEntries { source, replace: add.replace, entries: vec![entry] })
}

fn import_file(import: &Import) -> Result<Exit, Fault> {
    let text = client::read_file(&import.file)?;
    let entries = spire::read(&text, import.parent_id.as_deref())
        .map_err(|error| Fault::Spire(import.file.clone(), error))?;
    let source = import.file.display().to_string();
    change(&import.listing, &AddEntries { source, replace: import.replace, entries })
}

fn change(listing: &Listing, order: &AddEntries) -> Result<Exit, Fault> {
    let done: EntriesChanged = client::post_json(&listing.socket, "/v1/entries/add", order)?;
    present(listing.format.output, &done, show::entries_changed)?;
    Ok(Exit::Success)
}

fn remove_some(remove: &Remove) -> Result<Exit, Fault> {
    let socket = &remove.listing.socket;
    let done: EntriesChanged = client::post_json(socket, "/v1/entries/remove", &remove.ids)?;
    present(remove.listing.format.output, &done, show::entries_changed)?;
    Ok(Exit::Success)
}

fn export_all(export: &Export) -> Result<Exit, Fault> {
    let mut entries: Vec<EntryDump> = client::get(&export.socket, "/v1/entries")?;
    entries.retain(|entry| !entry.shadowed && (export.all || entry.source == "live"));
    output::json(&spire::write(&entries, export.parent_id.as_deref()))?;
    Ok(Exit::Success)
}
