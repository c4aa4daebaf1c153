//! The embedded CA on disk, and the commands that make things beside it: `tacit ca init |
//! issue-node | sign | mint`. What changes a directory that is in use is `change.rs`.
//!
//! | file | holds | mode |
//! |---|---|---|
//! | `root.pem`, `root.key` | the root; the key may be moved offline, the daemon does not need it | 0644, 0600 |
//! | `next/` | the root that is to follow it, both files, while one is prepared | 0700, as above |
//! | `node.pem` | certificate and key of the node's authority, in one file so that both change at once | 0600 |
//! | `request.key` | the key of a node's authority whose certificate is yet to be signed elsewhere | 0600 |
//! | `jwt/` | this node's keys for JWT-SVIDs, one file each (`jwt_keys.rs`) | 0700, 0600 |
//! | `bundle.pem` | every root that this node trusts in its trust domain | 0644 |
//! | `rotation.json` | what is due to the authorities, and when (`rotation.rs`) | 0600 |
//!
//! A directory appears whole or not at all; a file is replaced whole.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::{Zeroize as _, Zeroizing};

use super::error::CaError;
use super::request::read_request;
use super::rotation::Rotation;
use super::signing::SigningAuthority;
use crate::identity::issuer::{IssueError, IssueRequest};
use crate::spiffe::{TrustBundle, TrustDomain, VerifyError, X509Svid, parse_id, pem_block, verify};
use crate::sys::private_files::{
    PRIVATE, PUBLIC, check_private_dir, create_private_dir, place_dir, prepare_dir, read_private,
    read_public, write_atomic,
};

pub(super) const ROOT_CERTIFICATE: &str = "root.pem";
pub(super) const ROOT_KEY: &str = "root.key";
pub(super) const NODE: &str = "node.pem";
/// Where the root that is to follow is kept.
pub(super) const NEXT: &str = "next";
/// Where what was prepared is moved to be removed.
pub(super) const GONE: &str = ".next.gone";
pub(super) const REQUEST_KEY: &str = "request.key";
pub(super) const BUNDLE: &str = "bundle.pem";
/// Longest common name of a certificate, in characters. Source: RFC 5280 appendix A.1.
pub(super) const MAX_NAME: usize = 64;

/// The node's part of a CA directory, read and checked.
#[derive(Debug)]
pub(super) struct NodeAuthority {
    pub(super) signing: SigningAuthority,
    /// Key id of the root above it.
    pub(super) root: String,
    /// Whether that root's key is kept here, too.
    pub(super) has_root_key: bool,
    /// Key id of the root that is prepared to follow, if one is.
    pub(super) next: Option<String>,
    pub(super) bundle: TrustBundle,
    pub(super) rotation: Rotation,
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
    write_root(&prepared, &root)?;
    let certificate = pem_block("CERTIFICATE", &root.authority().certificate);
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

/// Signs what a node has requested with the root that is kept here. What comes of it is carried back
/// to the node: its certificate, then every root that is trusted here.
///
/// # Errors
/// See [`CaError`]; then nothing has been made.
pub fn sign_request(
    directory: &Path,
    request_pem: &[u8],
    output: &Path,
    now: SystemTime,
) -> Result<SignedRequest, CaError> {
    let request = read_request(request_pem)?;
    check_name(&request.name)?;
    let root = read_root(directory)?;
    let bundle = read_bundle(directory, root.trust_domain())?;
    let certificate = root.certify(&request.name, &request.key, now)?;
    let pem = pem_block("CERTIFICATE", &certificate).to_string() + &bundle.to_pem();
    write_atomic(output, pem.as_bytes(), PUBLIC)?;
    Ok(SignedRequest { node: request.name, root: root.authority().key_id.clone() })
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedRequest {
    /// The node's name, as the request has it.
    pub node: String,
    /// Key id of the root that signed.
    pub root: String,
}

/// Whether a directory holds anything of a CA.
pub(super) fn exists(directory: &Path) -> bool {
    let files = [ROOT_CERTIFICATE, ROOT_KEY, NODE, REQUEST_KEY, BUNDLE];
    files.iter().any(|file| directory.join(file).exists())
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
        let signing = read_node(directory)?;
        let rotation = Rotation::read(directory)?;
        let bundle = read_bundle(directory, signing.trust_domain())?
            .with_distrusted(rotation.distrusted.clone());
        let root = root_above(&signing, &bundle, now)?
            .map_err(|reason| CaError::Untrusted { path, reason })?;
        let has_root_key = has_root_key(directory) && own_root(directory)?.as_ref() == Some(&root);
        let next = own_root(&directory.join(NEXT))?;
        Ok(Self { signing, root, has_root_key, next, bundle, rotation })
    }
}

/// The node's authority, whatever it is worth.
pub(super) fn read_node(directory: &Path) -> Result<SigningAuthority, CaError> {
    let path = directory.join(NODE);
    let pem = read_private(&path)?;
    read_authority(&path, &pem, &pem)
}

/// Verifies an SVID of this authority as a peer would, before anything depends on it. Gives the key
/// id of the root at the end of the path.
pub(super) fn root_above(
    signing: &SigningAuthority,
    bundle: &TrustBundle,
    now: SystemTime,
) -> Result<Result<String, VerifyError>, IssueError> {
    let id = format!("{}/tacit/self-check", signing.trust_domain().id_string());
    let spiffe_id = parse_id(&id).map_err(VerifyError::BadSpiffeId).map_err(IssueError::Invalid)?;
    let request = IssueRequest { spiffe_id, ttl: Duration::from_mins(1), dns_names: Vec::new() };
    let svid = signing.svid(&request, Duration::ZERO, now)?;
    let verified = verify(&svid.chain, &[bundle.clone()].into_iter().collect(), now);
    Ok(verified.map(|peer| peer.authorities().last().cloned().unwrap_or_default()))
}

/// Key id of the root whose certificate is kept here, if one is; whether its key is, too, is another
/// question.
pub(super) fn own_root(directory: &Path) -> Result<Option<String>, CaError> {
    let path = directory.join(ROOT_CERTIFICATE);
    let pem = match read_public(&path) {
        Err(error) if error.is_missing() => return Ok(None),
        read => read?,
    };
    let unreadable = || CaError::Unreadable { path: path.clone(), what: "the root's certificate" };
    let certificate = CertificateDer::from_pem_slice(&pem).map_err(|_bad_pem| unreadable())?;
    let trust_domain = TrustBundle::trust_domain_of(&certificate).ok_or_else(unreadable)?;
    let bundle = TrustBundle::new(trust_domain, vec![certificate]);
    let bundle = bundle.map_err(|_not_an_authority| unreadable())?;
    Ok(bundle.authorities().first().map(|root| root.key_id.clone()))
}

pub(super) fn write_root(directory: &Path, root: &SigningAuthority) -> Result<(), CaError> {
    let certificate = pem_block("CERTIFICATE", &root.authority().certificate);
    let mut key = pem_block("PRIVATE KEY", &root.key_pkcs8()?);
    write_atomic(&directory.join(ROOT_KEY), key.as_bytes(), PRIVATE)?;
    key.zeroize();
    Ok(write_atomic(&directory.join(ROOT_CERTIFICATE), certificate.as_bytes(), PUBLIC)?)
}

pub(super) fn write_node(directory: &Path, node: &SigningAuthority) -> Result<(), CaError> {
    let mut text = pem_block("PRIVATE KEY", &node.key_pkcs8()?);
    let certificate = pem_block("CERTIFICATE", &node.authority().certificate);
    let both = Zeroizing::new([text.as_bytes(), certificate.as_bytes()].concat());
    text.zeroize();
    Ok(write_atomic(&directory.join(NODE), &both, PRIVATE)?)
}

pub(super) fn read_root(directory: &Path) -> Result<SigningAuthority, CaError> {
    let (certificate, key) = (directory.join(ROOT_CERTIFICATE), directory.join(ROOT_KEY));
    check_private_dir(directory)?;
    let key_pem = read_private(&key).map_err(|error| {
        if error.is_missing() { CaError::NoRootKey(key.clone()) } else { error.into() }
    })?;
    read_authority(&certificate, &read_public(&certificate)?, &key_pem)
}

pub(super) fn read_authority(
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

pub(super) fn read_bundle(
    directory: &Path,
    trust_domain: &TrustDomain,
) -> Result<TrustBundle, CaError> {
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

pub(super) fn check_name(name: &str) -> Result<(), CaError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(plain) {
        Ok(())
    } else {
        Err(CaError::BadName(name.to_owned()))
    }
}
