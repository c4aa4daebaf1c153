//! The embedded CA on disk, and the commands that work on it: `tacit ca init | issue-node | mint`.
//!
//! | file | holds | mode |
//! |---|---|---|
//! | `root.pem`, `root.key` | the root; the key may be moved offline, the daemon does not need it | 0644, 0600 |
//! | `node.pem` | certificate and key of the node's authority, in one file so that both change at once | 0600 |
//! | `jwt/` | this node's keys for JWT-SVIDs, one file each (`jwt_keys.rs`) | 0700, 0600 |
//! | `bundle.pem` | every root that this node trusts in its trust domain | 0644 |
//!
//! A directory appears whole or not at all; a file is replaced whole.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use zeroize::{Zeroize as _, Zeroizing};

use super::signing::SigningAuthority;
use crate::identity::issuer::{IssueError, IssueRequest};
use crate::spiffe::{TrustBundle, TrustDomain, VerifyError, X509Svid, parse_id, pem_block, verify};
use crate::sys::private_files::{
    FileError, PRIVATE, PUBLIC, check_private_dir, create_private_dir, place_dir, prepare_dir,
    read_private, read_public, write_atomic,
};

const ROOT_CERTIFICATE: &str = "root.pem";
const ROOT_KEY: &str = "root.key";
const NODE: &str = "node.pem";
const BUNDLE: &str = "bundle.pem";
/// Longest common name of a certificate, in characters. Source: RFC 5280 appendix A.1.
const MAX_NAME: usize = 64;

/// Why the embedded CA cannot be made or used. Each names the file and what to do.
#[derive(Debug, Error)]
pub enum CaError {
    /// A file could not be read, written or relied upon.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is an authority already.
    #[error("{}: holds an authority already; choose another directory", .0.display())]
    Exists(PathBuf),
    /// There is no authority.
    #[error("{}: holds no authority of a node; put one there (tacit ca issue-node) or make one (tacit ca init)", .0.display())]
    Missing(PathBuf),
    /// The root key is needed and is not there.
    #[error("{}: the root key is needed for this and is not there; run this where it is kept", .0.display())]
    NoRootKey(PathBuf),
    /// A file does not hold what it should.
    #[error("{}: does not hold {what}; restore it, or issue it again (tacit ca issue-node)", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// The authority is for another trust domain than the configuration says.
    #[error("{}: is of trust domain {found}, but the configuration says {expected} (node.trust_domain)", path.display())]
    ForeignTrustDomain {
        /// Which file.
        path: PathBuf,
        /// Of the file.
        found: TrustDomain,
        /// Of the configuration.
        expected: TrustDomain,
    },
    /// No root of the bundle has signed the node's authority, or one of them is not valid now.
    #[error("{}: its authority would be refused by every peer: {reason}; issue it again (tacit ca issue-node)", path.display())]
    Untrusted {
        /// Which file.
        path: PathBuf,
        /// What a peer would say.
        reason: VerifyError,
    },
    /// A name that cannot stand in a certificate.
    #[error(
        "`{0}` is no name for a node; use 1 to {MAX_NAME} of a-z, A-Z, 0-9, dot, dash and underscore"
    )]
    BadName(String),
    /// Signing failed.
    #[error(transparent)]
    Issue(#[from] IssueError),
}

/// The node's part of a CA directory, read and checked.
#[derive(Debug)]
pub(super) struct NodeAuthority {
    pub(super) signing: SigningAuthority,
    pub(super) bundle: TrustBundle,
}

/// Makes a root and, under it, the authority of this node, in a directory that does not exist yet.
///
/// # Errors
/// See [`CaError`]; then nothing has been made.
pub fn init_ca(
    directory: &Path,
    trust_domain: &TrustDomain,
    node: &str,
    now: SystemTime,
) -> Result<(), CaError> {
    check_name(node)?;
    refuse_existing(directory)?;
    let root = SigningAuthority::root(trust_domain, now)?;
    let prepared = prepare_dir(directory)?;
    let certificate = pem_block("CERTIFICATE", &root.authority().certificate);
    let key = pem_block("PRIVATE KEY", &root.key_pkcs8()?);
    write_atomic(&prepared.join(ROOT_KEY), key.as_bytes(), PRIVATE)?;
    write_atomic(&prepared.join(ROOT_CERTIFICATE), certificate.as_bytes(), PUBLIC)?;
    write_atomic(&prepared.join(BUNDLE), certificate.as_bytes(), PUBLIC)?;
    write_node(&prepared, &root.node(node, now)?)?;
    Ok(place_dir(&prepared, directory)?)
}

/// Makes the authority of another node: `output` is carried to it and becomes its CA directory.
///
/// # Errors
/// See [`CaError`]; then nothing has been made.
pub fn issue_node(
    directory: &Path,
    node: &str,
    output: &Path,
    now: SystemTime,
) -> Result<(), CaError> {
    check_name(node)?;
    refuse_existing(output)?;
    let root = read_root(directory)?;
    let bundle = read_bundle(directory, root.trust_domain())?;
    let prepared = prepare_dir(output)?;
    write_atomic(&prepared.join(BUNDLE), bundle.to_pem().as_bytes(), PUBLIC)?;
    write_node(&prepared, &root.node(node, now)?)?;
    Ok(place_dir(&prepared, output)?)
}

/// Writes `svid.pem` (chain), `svid.key` (PKCS#8) and `bundle.pem` for a peer that is no Tacit
/// node, in place of older ones.
///
/// # Errors
/// See [`CaError`].
pub fn mint(
    directory: &Path,
    request: &IssueRequest,
    output: &Path,
    now: SystemTime,
) -> Result<X509Svid, CaError> {
    let node = NodeAuthority::read(directory, now)?;
    let svid = node.signing.svid(request, Duration::from_secs(10), now)?;
    create_private_dir(output)?;
    let chain: String =
        svid.chain.iter().map(|der| pem_block("CERTIFICATE", der).to_string()).collect();
    let key = pem_block("PRIVATE KEY", &svid.key);
    write_atomic(&output.join("svid.key"), key.as_bytes(), PRIVATE)?;
    write_atomic(&output.join("svid.pem"), chain.as_bytes(), PUBLIC)?;
    write_atomic(&output.join(BUNDLE), node.bundle.to_pem().as_bytes(), PUBLIC)?;
    Ok(svid)
}

/// Makes a new authority for this node with the root key that is kept beside it, and puts it in
/// place of the old one.
pub(super) fn renew_node(directory: &Path, node: &str, now: SystemTime) -> Result<(), CaError> {
    let root = read_root(directory)?;
    write_node(directory, &root.node(node, now)?)
}

/// Whether a directory holds anything of a CA.
pub(super) fn exists(directory: &Path) -> bool {
    [ROOT_CERTIFICATE, ROOT_KEY, NODE, BUNDLE].iter().any(|file| directory.join(file).exists())
}

/// Whether the root key is kept here, too.
pub(super) fn has_root_key(directory: &Path) -> bool {
    directory.join(ROOT_KEY).exists()
}

impl NodeAuthority {
    /// Reads what a node needs: its authority and the bundle; checks that peers will accept it.
    pub(super) fn read(directory: &Path, now: SystemTime) -> Result<Self, CaError> {
        let path = directory.join(NODE);
        if !path.exists() {
            return Err(CaError::Missing(directory.to_owned()));
        }
        check_private_dir(directory)?;
        let pem = read_private(&path)?;
        let signing = read_authority(&path, &pem, &pem)?;
        let bundle = read_bundle(directory, signing.trust_domain())?;
        let node = Self { signing, bundle };
        node.check(&path, now)?;
        Ok(node)
    }

    /// Verifies an SVID of this authority as a peer would, before anything depends on it.
    fn check(&self, path: &Path, now: SystemTime) -> Result<(), CaError> {
        let id = format!("{}/tacit/self-check", self.signing.trust_domain().id_string());
        let spiffe_id =
            parse_id(&id).map_err(VerifyError::BadSpiffeId).map_err(IssueError::Invalid)?;
        let request =
            IssueRequest { spiffe_id, ttl: Duration::from_mins(1), dns_names: Vec::new() };
        let svid = self.signing.svid(&request, Duration::ZERO, now)?;
        let bundles = [self.bundle.clone()].into_iter().collect();
        verify(&svid.chain, &bundles, now)
            .map(drop)
            .map_err(|reason| CaError::Untrusted { path: path.to_owned(), reason })
    }
}

fn write_node(directory: &Path, node: &SigningAuthority) -> Result<(), CaError> {
    let mut text = pem_block("PRIVATE KEY", &node.key_pkcs8()?);
    let certificate = pem_block("CERTIFICATE", &node.authority().certificate);
    let both = Zeroizing::new([text.as_bytes(), certificate.as_bytes()].concat());
    text.zeroize();
    Ok(write_atomic(&directory.join(NODE), &both, PRIVATE)?)
}

fn read_root(directory: &Path) -> Result<SigningAuthority, CaError> {
    let (certificate, key) = (directory.join(ROOT_CERTIFICATE), directory.join(ROOT_KEY));
    check_private_dir(directory)?;
    let key_pem = read_private(&key).map_err(|error| {
        if error.is_missing() { CaError::NoRootKey(key.clone()) } else { error.into() }
    })?;
    read_authority(&certificate, &read_public(&certificate)?, &key_pem)
}

fn read_authority(
    path: &Path,
    certificate: &[u8],
    key: &[u8],
) -> Result<SigningAuthority, CaError> {
    let unreadable = |what| CaError::Unreadable { path: path.to_owned(), what };
    let certificate = CertificateDer::from_pem_slice(certificate)
        .map_err(|_bad_pem| unreadable("a certificate in PEM"))?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_bad_pem| unreadable("a private key in PEM beside it"))?;
    let key = Zeroizing::new(key.secret_der().to_vec());
    SigningAuthority::read(&certificate, &key).ok_or_else(|| {
        unreadable("an authority of a trust domain, with the P-256 key that fits it")
    })
}

fn read_bundle(directory: &Path, trust_domain: &TrustDomain) -> Result<TrustBundle, CaError> {
    let path = directory.join(BUNDLE);
    let pem = read_public(&path)?;
    TrustBundle::from_pem(trust_domain.clone(), &pem)
        .ok()
        .filter(|bundle| !bundle.authorities().is_empty())
        .ok_or(CaError::Unreadable { path, what: "certificates of authorities in PEM" })
}

fn refuse_existing(directory: &Path) -> Result<(), CaError> {
    if exists(directory) { Err(CaError::Exists(directory.to_owned())) } else { Ok(()) }
}

fn check_name(name: &str) -> Result<(), CaError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(plain) {
        Ok(())
    } else {
        Err(CaError::BadName(name.to_owned()))
    }
}
