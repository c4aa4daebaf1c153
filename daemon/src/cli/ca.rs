//! `tacit ca`: the embedded CA's files. Needs no daemon.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Serialize;

use super::args::Ca;
use super::dispatch::present;
use super::fault::{Exit, Fault};
use super::output::{self, Columns, Tone, cell, toned};
use crate::admin::dump::AuthorityDump;
use crate::audit::format_time;
use crate::identity::{CaError, IssueRequest, init_ca, issue_node, mint};
use crate::spiffe::TrustBundle;
use crate::sys::clock;

pub(super) fn obey(order: Ca) -> Result<Exit, Fault> {
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
        Ca::Show { place, format } => {
            let found = read(&place.directory, now)?;
            present(format.output, &found, table)?;
        }
    }
    Ok(Exit::Success)
}

/// What a CA directory holds.
#[derive(Debug, Serialize)]
struct CaDump {
    trust_domain: String,
    /// Whether nodes can be given authorities from here.
    root_key_present: bool,
    authorities: Vec<AuthorityDump>,
}

fn read(directory: &Path, now: SystemTime) -> Result<CaDump, Fault> {
    let roots = certificates(directory, "bundle.pem")?;
    let node = certificates(directory, "node.pem")?;
    let unreadable = || CaError::Unreadable {
        path: directory.join("bundle.pem"),
        what: "the certificates of a trust domain",
    };
    let first = roots.first().ok_or_else(unreadable)?;
    let trust_domain = TrustBundle::trust_domain_of(first).ok_or_else(unreadable)?;
    let mut authorities = Vec::new();
    for (role, certificates) in [("root", roots), ("node", node)] {
        let bundle = TrustBundle::new(trust_domain.clone(), certificates)
            .map_err(|_not_authorities| unreadable())?;
        authorities.extend(bundle.authorities().iter().map(|authority| AuthorityDump {
            role: role.to_owned(),
            key_id: authority.key_id.clone(),
            not_after: format_time(authority.not_after),
            warning: (authority.not_after <= now).then(|| "has ended".to_owned()),
        }));
    }
    let root_key_present = directory.join("root.key").exists();
    Ok(CaDump { trust_domain: trust_domain.to_string(), root_key_present, authorities })
}

fn certificates(directory: &Path, name: &str) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let path = directory.join(name);
    let pem = fs::read(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Fault::Ca(CaError::Missing(directory.to_owned())),
        _ => Fault::Io(error),
    })?;
    let what = "certificates";
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_malformed| Fault::Ca(CaError::Unreadable { path, what }))
}

fn table(found: &CaDump) -> String {
    let mut columns = Columns::new(&["ROLE", "KEY ID", "NOT AFTER", "NOTE"]);
    for authority in &found.authorities {
        let note = authority.warning.as_deref().unwrap_or_default();
        let tone = if note.is_empty() { Tone::Plain } else { Tone::Bad };
        let (role, key_id, end) = (&authority.role, &authority.key_id, &authority.not_after);
        columns.row([cell(role), cell(key_id), cell(end), toned(note, tone)]);
    }
    let root = if found.root_key_present { "here" } else { "kept elsewhere" };
    format!(
        "Trust domain  {}\nRoot key      {root}\n\n{}",
        output::clean(&found.trust_domain),
        columns.render()
    )
}
