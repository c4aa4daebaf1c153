//! The embedded CA from outside: a root that stays offline, an intermediate for each node, and
//! SVIDs for peers that are no Tacit node.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process::{must, tacit};

/// The trust domain of every test.
pub(crate) const TRUST_DOMAIN: &str = "example.org";

/// One SVID in files, for `openssl` and go-spiffe.
#[derive(Debug, Clone)]
pub struct Minted {
    /// Leaf first, then intermediates; PEM.
    pub chain: PathBuf,
    /// Private key; PEM.
    pub key: PathBuf,
    /// The trust bundle; PEM.
    pub bundle: PathBuf,
}

/// Makes a root in a directory that does not exist yet.
pub(crate) fn init(root: &Path, trust_domain: &str) -> Result<()> {
    must(
        Command::new(tacit()?)
            .args([
                "ca",
                "init",
                "--node",
                "offline",
                "--trust-domain",
                trust_domain,
                "--directory",
            ])
            .arg(root),
    )?;
    Ok(())
}

/// Gives a node its authority, in the directory where the daemon looks for it.
pub(crate) fn issue_node(root: &Path, name: &str, state: &Path) -> Result<()> {
    must(
        Command::new(tacit()?)
            .args(["ca", "issue-node", "--node", name, "--directory"])
            .arg(root)
            .arg("--out")
            .arg(directory(state)),
    )?;
    Ok(())
}

/// Where a node keeps its authority.
fn directory(state: &Path) -> PathBuf {
    state.join("ca")
}

/// Writes an SVID, its key and the bundle into a directory.
pub(crate) fn mint(state: &Path, id: &str, out: &Path, more: &[&str]) -> Result<Minted> {
    must(
        Command::new(tacit()?)
            .args(["ca", "mint", "--spiffe-id", id, "--directory"])
            .arg(directory(state))
            .arg("--out")
            .arg(out)
            .args(more),
    )?;
    Ok(Minted {
        chain: out.join("svid.pem"),
        key: out.join("svid.key"),
        bundle: out.join("bundle.pem"),
    })
}
