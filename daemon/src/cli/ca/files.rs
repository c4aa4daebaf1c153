//! What a CA directory holds, read without relying on it: also what has ended is shown.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::admin::dump::{AuthorityDump, CaDump};
use crate::audit::format_time;
use crate::cli::fault::Fault;
use crate::identity::{AuthorityStage, CaError, Rotation};
use crate::spiffe::{Authority, TrustBundle, TrustDomain};

pub(super) fn read(directory: &Path, now: SystemTime) -> Result<CaDump, Fault> {
    let roots = certificates(directory, "bundle.pem")?;
    let unreadable = || CaError::Unreadable {
        path: directory.join("bundle.pem"),
        what: "the certificates of a trust domain",
    };
    let domain = roots.iter().find_map(|root| TrustBundle::trust_domain_of(root));
    let domain = domain.ok_or_else(unreadable)?;
    let read = |certificates| bundle(&domain, certificates).ok_or_else(unreadable);
    let node = read(certificates(directory, "node.pem")?)?;
    let roots = read(roots)?;
    let next = match certificates(&directory.join("next"), "root.pem") {
        Ok(next) => read(next)?.first().map(|root| root.key_id.clone()),
        Err(_not_prepared) => None,
    };
    let rotation = Rotation::read(directory)?;
    let above = node.first().and_then(|node| node.issuer_key_id.clone());
    let stage = |root: &Authority| match rotation.retiring.get(&root.key_id) {
        _ if above.as_ref() == Some(&root.key_id) => AuthorityStage::Signs,
        Some(end) => AuthorityStage::Retires(end.at),
        None => match rotation.activate_at.filter(|_| next.as_ref() == Some(&root.key_id)) {
            Some(at) => AuthorityStage::Prepared(at),
            None => AuthorityStage::Trusted,
        },
    };
    let node = node.iter().map(|own| dump("node", own, AuthorityStage::Signs, now));
    let roots = roots.iter().map(|root| dump("root", root, stage(root), now));
    Ok(CaDump {
        trust_domain: domain.to_string(),
        root_key_present: directory.join("root.key").exists(),
        authorities: node.chain(roots).collect(),
        distrusted: rotation.distrusted.into_iter().collect(),
        ..CaDump::default()
    })
}

fn dump(
    role: &'static str,
    authority: &Authority,
    stage: AuthorityStage,
    now: SystemTime,
) -> AuthorityDump {
    AuthorityDump {
        role: role.to_owned(),
        key_id: authority.key_id.clone(),
        not_after: format_time(authority.not_after),
        stage: stage.as_str().to_owned(),
        stage_until: stage.until().map(format_time),
        connections: None,
        warning: (authority.not_after <= now).then(|| "has ended".to_owned()),
    }
}

fn bundle(
    domain: &TrustDomain,
    certificates: Vec<CertificateDer<'static>>,
) -> Option<Vec<Authority>> {
    let bundle = TrustBundle::new(domain.clone(), certificates).ok()?;
    Some(bundle.authorities().to_vec())
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
