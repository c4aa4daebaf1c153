//! X.509-SVIDs and bundles, as they are served.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use proto::{X509BundlesRequest, X509svid, X509svidRequest, X509svidResponse};
use rustls_pki_types::CertificateDer;
use tacit::spiffe::{BundleSet, TrustBundle, parse_id, verify};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::probe::{Client, PATIENCE, client, next, request, x509_svids};
use crate::table::Table;

/// The longest that a first message may take to count as without delay. Chosen: the default
/// timeout of SPIRE's command line.
const AT_ONCE: Duration = Duration::from_secs(1);

pub(crate) async fn cases(socket: &Path, table: &mut Table) -> Result<()> {
    let mut api = client(socket).await?;
    let began = Instant::now();
    let response = x509_svids(&mut api).await.context("FetchX509SVID gave nothing to judge")?;
    table.holds(
        "Workload API §4.3",
        "the first response is sent without delay",
        began.elapsed() < AT_ONCE,
    );
    of_the_response(&response, table);
    for svid in &response.svids {
        of_one_svid(svid, table);
    }
    of_several_streams(&mut api, &response, table).await?;
    bundles(&mut api, &response, table).await
}

fn of_the_response(response: &X509svidResponse, table: &mut Table) {
    let section = "Workload API §5.2.1";
    table.holds(section, "at least one SVID", !response.svids.is_empty());
    let hints: Vec<_> =
        response.svids.iter().map(|svid| &svid.hint).filter(|hint| !hint.is_empty()).collect();
    let distinct: HashSet<_> = hints.iter().collect();
    table.holds(section, "hints are unique in a response", distinct.len() == hints.len());
    let short = hints.iter().all(|hint| hint.len() <= 1024);
    table.holds(section, "hints have at most 1024 bytes", short);
    let keyed = response.federated_bundles.keys().all(|key| is_trust_domain(key));
    table.holds(section, "federated bundles are keyed by `spiffe://` and trust domain", keyed);
}

fn is_trust_domain(id: &str) -> bool {
    parse_id(id).is_ok_and(|id| id.path().is_empty())
}

/// The demands on one SVID. `who` tells them apart in the table.
fn of_one_svid(svid: &X509svid, table: &mut Table) {
    let who = &svid.spiffe_id;
    let mut note = |section: &str, demand: &str, outcome: Result<()>| {
        let outcome = outcome.map_err(|error| format!("{error:#}"));
        table.note(section, &format!("{demand} ({who})"), outcome);
    };
    note("Workload API §5.2.1", "spiffe_id is a SPIFFE ID with a path", has_path(who));
    let chain = match certificates(&svid.x509_svid) {
        Ok(chain) => chain,
        Err(error) => {
            note("Workload API §5.2.1", "x509_svid is concatenated DER", Err(error));
            return;
        }
    };
    note("Workload API §5.2.1", "x509_svid is concatenated DER", Ok(()));
    let roots = certificates(&svid.bundle);
    note(
        "Workload API §5.2.1",
        "bundle is concatenated DER",
        roots.as_ref().map(drop).map_err(copy),
    );
    let roots = roots.unwrap_or_default();
    let no_root = !chain.iter().skip(1).any(|certificate| roots.contains(certificate));
    note("Workload API §5.2.1", "the chain does not hold the root", truth(no_root));
    note(
        "Workload API §5.2.1",
        "the key is unencrypted PKCS#8 of the leaf",
        key_fits(svid, &chain),
    );
    let verified = verified(svid, &chain, roots);
    note("X509-SVID §5.1", "the chain is valid by the bundle of its trust domain", verified);
    for (section, demand, outcome) in leaf_demands(who, &chain) {
        note(section, demand, outcome);
    }
}

fn copy(error: &anyhow::Error) -> anyhow::Error {
    anyhow::Error::msg(format!("{error:#}"))
}

fn truth(holds: bool) -> Result<()> {
    ensure!(holds, "does not hold");
    Ok(())
}

fn has_path(id: &str) -> Result<()> {
    let id = parse_id(id)?;
    truth(!id.path().is_empty())
}

type Demand = (&'static str, &'static str, Result<()>);

/// The profile of a leaf, one demand for each.
fn leaf_demands(who: &str, chain: &[CertificateDer<'static>]) -> Vec<Demand> {
    let Some((_, leaf)) = chain.first().and_then(|der| X509Certificate::from_der(der).ok()) else {
        return vec![("X509-SVID §2", "the leaf can be read", truth(false))];
    };
    let names = leaf.subject_alternative_name().ok().flatten();
    let uris: Vec<_> = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    let critical = names.as_ref().is_some_and(|names| names.critical);
    let subject = leaf.subject().iter().next().is_some();
    let usage = leaf.key_usage().ok().flatten();
    let is = |test: &dyn Fn(&x509_parser::extensions::KeyUsage) -> bool| {
        truth(usage.as_ref().is_some_and(|usage| test(usage.value)))
    };
    let authority =
        leaf.basic_constraints().ok().flatten().is_some_and(|constraints| constraints.value.ca);
    let purposes = leaf.extended_key_usage().ok().flatten();
    let both = purposes.is_none_or(|it| it.value.server_auth && it.value.client_auth);
    vec![
        ("X509-SVID §2", "the leaf has exactly one URI SAN: the SPIFFE ID", truth(uris == [who])),
        ("X509-SVID §3.1", "an empty subject goes with a critical SAN", truth(subject || critical)),
        ("X509-SVID §4.1", "the leaf is no authority", truth(!authority)),
        (
            "X509-SVID §4.3",
            "key usage is present and critical",
            truth(usage.as_ref().is_some_and(|usage| usage.critical)),
        ),
        ("X509-SVID §4.3", "digitalSignature is set", is(&|usage| usage.digital_signature())),
        (
            "X509-SVID §4.3",
            "keyCertSign and cRLSign are not set",
            is(&|usage| !usage.key_cert_sign() && !usage.crl_sign()),
        ),
        ("X509-SVID §4.4", "extended key usage, if any, is for both sides", truth(both)),
    ]
}

async fn of_several_streams(
    api: &mut Client,
    response: &X509svidResponse,
    table: &mut Table,
) -> Result<()> {
    let again = x509_svids(api).await?;
    let ids = |response: &X509svidResponse| {
        response.svids.iter().map(|svid| svid.spiffe_id.clone()).collect::<Vec<_>>()
    };
    let same = ids(&again) == ids(response);
    table.holds("Workload API §4.3", "each stream is told the full set", same);
    let first = |response: &X509svidResponse| ids(response).first().cloned();
    table.holds(
        "Workload API §8",
        "the default identity stays first",
        first(&again) == first(response),
    );
    Ok(())
}

async fn bundles(api: &mut Client, response: &X509svidResponse, table: &mut Table) -> Result<()> {
    let section = "Workload API §5.2.2";
    let asked = api.fetch_x509_bundles(request(X509BundlesRequest {})).await?;
    let told = next(&mut asked.into_inner(), PATIENCE).await?;
    let own: Vec<_> = response
        .svids
        .iter()
        .filter_map(|svid| Some((parse_id(&svid.spiffe_id).ok()?.trust_domain().id_string(), svid)))
        .collect();
    let present = own.iter().all(|(domain, _)| told.bundles.contains_key(domain));
    table.holds(section, "FetchX509Bundles holds the caller's trust domain", present);
    let same = own.iter().all(|(domain, svid)| told.bundles.get(domain) == Some(&svid.bundle));
    table.holds(section, "it is the bundle that came with the SVIDs", same);
    let keyed = told.bundles.keys().all(|key| is_trust_domain(key));
    table.holds(section, "bundles are keyed by `spiffe://` and trust domain", keyed);
    let readable = told.bundles.values().all(|bundle| certificates(bundle).is_ok());
    table.holds(section, "bundles are concatenated DER", readable);
    let asked = api.fetch_x509svid(request(X509svidRequest {})).await?;
    let mut stream = asked.into_inner();
    next(&mut stream, PATIENCE).await?;
    let still = tokio::time::timeout(AT_ONCE, stream.message()).await;
    let open = still.is_err() || still.is_ok_and(|message| matches!(message, Ok(Some(_))));
    table.holds("Workload API §4.2", "a stream stays open after its first message", open);
    Ok(())
}

/// Certificates that stand one after the other.
pub(crate) fn certificates(mut der: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let mut found = Vec::new();
    while !der.is_empty() {
        let (rest, _) =
            X509Certificate::from_der(der).map_err(|error| anyhow::anyhow!("{error}"))?;
        let one = der.get(..der.len() - rest.len()).unwrap_or_default();
        found.push(CertificateDer::from(one.to_vec()));
        der = rest;
    }
    ensure!(!found.is_empty(), "it is empty");
    Ok(found)
}

pub(crate) fn verified(
    svid: &X509svid,
    chain: &[CertificateDer<'static>],
    roots: Vec<CertificateDer<'static>>,
) -> Result<()> {
    let id = parse_id(&svid.spiffe_id)?;
    let bundle = TrustBundle::new(id.trust_domain().clone(), roots)?;
    let bundles: BundleSet = [bundle].into_iter().collect();
    let peer = verify(chain, &bundles, tacit::sys::clock::now())?;
    ensure!(*peer.id() == id, "it is of {}", peer.id());
    Ok(())
}

/// OpenSSL judges, so that the suite does not depend on what made the key.
fn key_fits(svid: &X509svid, chain: &[CertificateDer<'static>]) -> Result<()> {
    let leaf = chain.first().context("no leaf")?;
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut openssl = Command::new("openssl")
        .args(["pkey", "-inform", "DER", "-pubout", "-outform", "DER"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start openssl")?;
    openssl.stdin.take().context("no pipe")?.write_all(&svid.x509_svid_key)?;
    let public = openssl.wait_with_output()?.stdout;
    ensure!(public == leaf.public_key().raw, "its public half is not that of the leaf");
    // PKCS#8: a sequence that begins with version 0 or 1 and names the algorithm in a sequence.
    let (_, version) = pkcs8_version(&svid.x509_svid_key).context("it is no PKCS#8")?;
    ensure!(version <= 1, "it is of version {version}");
    Ok(())
}

/// The rest and the version of a `PrivateKeyInfo`. Source: RFC 5958 §2.
fn pkcs8_version(der: &[u8]) -> Option<(&[u8], u8)> {
    let ([0x30, 0x82, _, _, body @ ..] | [0x30, 0x81, _, body @ ..] | [0x30, _, body @ ..]) = der
    else {
        return None;
    };
    match body {
        [0x02, 0x01, version, 0x30, rest @ ..] => Some((rest, *version)),
        _ => None,
    }
}
