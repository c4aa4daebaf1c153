//! Does what `tacit ca` is told.

use std::fs;
use std::path::Path;

use super::args::{Ca, Node};
use super::{files, orders, progress, show};
use crate::admin::dump::{CaChanged, CaOrder};
use crate::audit::format_time;
use crate::cli::client;
use crate::cli::dispatch::present;
use crate::cli::fault::{Exit, Fault};
use crate::cli::output;
use crate::identity::{IssueRequest, init_ca, issue_node, mint, sign_request};
use crate::sys::clock;

pub(in crate::cli) fn obey(order: Ca) -> Result<Exit, Fault> {
    let now = clock::now();
    match order {
        Ca::Init { place, trust_domain, node } => {
            init_ca(&place.directory, &trust_domain, &node, now)?;
            let at = place.directory.display();
            output::text(&format!(
                "The authority of {trust_domain} and of node {node} is in {at}.\n\
                 Next: `tacit ca issue-node` for each other node, then move {at}/root.key to a \
                 safe place.\n",
            ))?;
        }
        Ca::IssueNode { place, node, out } => {
            issue_node(&place.directory, &node, &out, now)?;
            output::text(&format!(
                "The authority of node {node} is in {}. Carry it to {node}, where it becomes the \
                 CA directory.\n",
                out.display()
            ))?;
        }
        Ca::Mint { place, spiffe_id, ttl, out } => {
            let request = IssueRequest { spiffe_id, ttl, dns_names: Vec::new() };
            let svid = mint(&place.directory, &request, &out, now)?;
            output::text(&format!(
                "{} until {}: svid.pem, svid.key and bundle.pem are in {}.\n",
                svid.id,
                format_time(svid.not_after),
                out.display()
            ))?;
        }
        Ca::Sign { place, request, out } => {
            let signed = sign_request(&place.directory, &read(&request)?, &out, now)?;
            output::text(&format!(
                "The authority of node {} under root {} is in {}. Carry it to the node: tacit ca \
                 accept.\n",
                output::clean(&signed.node),
                signed.root,
                out.display()
            ))?;
        }
        Ca::Show { place, format } => {
            let found = files::read(&place.directory, now)?;
            present(format.output, &found, show::authorities)?;
        }
        Ca::Rotate(rotate) => return progress::rotate(&rotate),
        Ca::Request { node, name, out } => request(&node, name.as_deref(), out.as_deref())?,
        Ca::Accept { node, file, compromised } => {
            change(&node, &CaOrder::Accept { pem: text(&file)?, compromised })?;
        }
        Ca::Trust { node, file } => change(&node, &CaOrder::Trust { pem: text(&file)? })?,
        Ca::Retire { node, key_id } => change(&node, &CaOrder::Retire { key_id })?,
        Ca::Distrust { node, key_id, undo: false } => change(&node, &CaOrder::Distrust { key_id })?,
        Ca::Distrust { node, key_id, undo: true } => {
            change(&node, &CaOrder::UndoDistrust { key_id })?;
        }
    }
    Ok(Exit::Success)
}

fn request(node: &Node, name: Option<&str>, out: Option<&Path>) -> Result<(), Fault> {
    let done = order(node, name, &CaOrder::Request)?;
    let request = done.request.unwrap_or_default();
    match out {
        Some(path) => {
            fs::write(path, request).map_err(|error| Fault::Write(path.to_owned(), error))?;
            output::text(&format!(
                "The request is in {}. Carry it to where the root is: tacit ca sign.\n",
                path.display()
            ))?;
        }
        None => output::text(&request)?,
    }
    Ok(())
}

fn change(node: &Node, what: &CaOrder) -> Result<(), Fault> {
    let done = order(node, None, what)?;
    present(node.format.output, &done, |done| show::changed(what, done))
}

/// Of the daemon, or of files.
fn order(node: &Node, name: Option<&str>, order: &CaOrder) -> Result<CaChanged, Fault> {
    match &node.directory {
        Some(directory) => orders::obey(directory, name, order, clock::now()),
        None => client::post_json(&node.socket, "/v1/ca", order),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    fs::read(path).map_err(|error| Fault::Read(path.to_owned(), error))
}

fn text(path: &Path) -> Result<String, Fault> {
    Ok(String::from_utf8_lossy(&read(path)?).into_owned())
}
