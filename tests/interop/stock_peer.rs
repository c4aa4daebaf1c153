//! What a stock peer needs: an SVID in the files that such programs read.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use harness::{Finished, Group, Lab, Minted, Nginx, Pod, uid};

/// What the server behind the daemon answers with.
pub(crate) const MARKER: &str = "c0ffee-secret-of-the-interop";

/// The certificates of a PEM file, each with its own markers.
pub(crate) fn certificates(pem: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    pem.split_inclusive(END)
        .filter(|part| part.contains(END))
        .map(|part| format!("{}\n", part.trim()))
        .collect()
}

/// The chain without the leaf, for programs that want it apart.
pub(crate) fn intermediates(svid: &Minted) -> Result<PathBuf> {
    let all = certificates(&fs::read_to_string(&svid.chain)?);
    let path = beside(svid, "intermediates.pem");
    fs::write(&path, all.get(1..).context("an empty chain")?.concat())?;
    Ok(path)
}

/// A file in the directory of an SVID.
pub(crate) fn beside(svid: &Minted, name: &str) -> PathBuf {
    svid.chain.parent().unwrap_or(Path::new("/")).join(name)
}

/// Any user of the lab may read the files: a stock peer has no daemon to keep its key.
pub(crate) fn readable(svid: &Minted) -> Result<()> {
    let folder = svid.chain.parent().context("an SVID lies in a directory")?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    for file in [&svid.chain, &svid.key, &svid.bundle] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

/// An SVID of the lab that stock programs can read.
pub(crate) fn mint(lab: &Lab, id: &str, more: &[&str]) -> Result<Minted> {
    let svid = lab.mint(id, more)?;
    readable(&svid)?;
    Ok(svid)
}

/// Where a stock client runs: on node a, in no scope.
pub(crate) fn client_pod(lab: &Lab) -> Pod {
    lab.a.pod(Group::Outside, uid::STRANGER)
}

/// Where a stock server runs: on node b, in no scope.
pub(crate) fn server_pod(lab: &Lab) -> Pod {
    lab.b.pod(Group::Outside, uid::STRANGER)
}

/// A captured nginx on node b.
pub(crate) fn nginx(lab: &Lab) -> Result<Nginx> {
    Nginx::start(&lab.server(), 8080, MARKER)
}

/// An HTTP request by `openssl s_client`; `more` are its options.
pub(crate) fn s_client(lab: &Lab, more: &str) -> Result<Finished> {
    let line = format!(
        "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | \
         timeout 20 openssl s_client -connect {}:8080 -quiet -ign_eof {more}",
        lab.b.ip
    );
    client_pod(lab).run("sh", &["-c", &line])
}

/// The options by which `openssl` shows this SVID and verifies the other side's.
pub(crate) fn with_svid(svid: &Minted) -> Result<String> {
    Ok(format!(
        "-cert {} -key {} -cert_chain {} -CAfile {} -verify_return_error",
        svid.chain.display(),
        svid.key.display(),
        intermediates(svid)?.display(),
        svid.bundle.display()
    ))
}

/// The captured client of node a asks a server on node b; its answer must hold this.
pub(crate) fn captured_curl(lab: &Lab, port: u16, more: &[&str], expected: &str) -> Result<String> {
    let url = format!("http://{}:{port}/", lab.b.ip);
    let said = lab.client().must("curl", &[&["-sS", "-m", "20"], more, &[&url]].concat())?;
    ensure!(said.contains(expected), "curl got: {said}");
    Ok(said)
}
