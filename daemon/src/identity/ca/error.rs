//! Why the embedded CA cannot be made, used or changed. Each error names the file and what to do.

use std::path::PathBuf;

use thiserror::Error;

use super::files::MAX_NAME;
use crate::identity::issuer::IssueError;
use crate::spiffe::{BundleError, TrustDomain, VerifyError};
use crate::sys::private_files::FileError;

/// Why the embedded CA cannot be made, used or changed.
#[derive(Debug, Error)]
pub enum CaError {
    /// A file could not be read, written or relied upon.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is an authority already.
    #[error("{}: holds an authority already; choose another directory", .0.display())]
    Exists(PathBuf),
    /// There is no authority.
    #[error("{}: holds no authority of a node; put one there (tacit ca issue-node, or tacit ca request and accept) or make one (tacit ca init)", .0.display())]
    Missing(PathBuf),
    /// The root key is needed and is not there.
    #[error("{}: the root key is needed for this and is not there; run this where it is kept", .0.display())]
    NoRootKey(PathBuf),
    /// The authority is to be rotated, and its root is elsewhere.
    #[error(
        "the root of this node is kept elsewhere: make a request (tacit ca request), have it signed where the root is (tacit ca sign), and bring the certificate back (tacit ca accept)"
    )]
    RootElsewhere,
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
    #[error("{}: its authority would be refused by every peer: {reason}; issue it again (tacit ca issue-node), and have its root trusted first (tacit ca trust)", path.display())]
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
    /// Another command, or the daemon, is at work.
    #[error("{}: another `tacit ca` command is at work in it; try again", .0.display())]
    Busy(PathBuf),
    /// What was given is no request.
    #[error(
        "what was given is no signing request of a node with a P-256 key, or was damaged on its way; make it anew (tacit ca request)"
    )]
    NotRequest,
    /// A certificate was brought back, and nothing was requested.
    #[error("no request is open here; make one (tacit ca request) and have it signed")]
    NoRequest,
    /// A certificate was brought back for another key.
    #[error(
        "what was given is no authority for the key that was requested last (each request makes a new one); have the last request signed"
    )]
    NotForRequest,
    /// A certificate was brought back that nobody here would believe.
    #[error(
        "the certificate would be refused by every peer of this node: {0}; have its root trusted first (tacit ca trust), on this node and on its peers"
    )]
    NotTrusted(VerifyError),
    /// The certificate or root that was given is of another trust domain.
    #[error("what was given is of trust domain {found}, and this node is of {expected}")]
    OtherDomain {
        /// Of what was given.
        found: TrustDomain,
        /// Of the node.
        expected: TrustDomain,
    },
    /// What was given is no root.
    #[error("what was given are no certificates of authorities in PEM: {0}")]
    NotRoots(#[from] BundleError),
    /// Nothing was given.
    #[error("what was given holds no certificate in PEM")]
    Nothing,
    /// It was distrusted before.
    #[error(
        "authority {0} was distrusted; if that was a mistake, run first: tacit ca distrust --undo {0}"
    )]
    Distrusted(String),
    /// No such authority.
    #[error("{0} is no root that this node trusts; see `tacit ca show`")]
    Unknown(String),
    /// It was never distrusted.
    #[error("{0} is not distrusted; see `tacit ca show`")]
    NotDistrusted(String),
    /// No key id.
    #[error("`{0}` is no key id; write it in hex, as `tacit ca show` does")]
    BadKeyId(String),
    /// The node itself hangs on it.
    #[error(
        "this node's own authority hangs on {0}; bring it under another first (tacit ca rotate, or tacit ca request and accept)"
    )]
    InUse(String),
    /// Signing failed.
    #[error(transparent)]
    Issue(#[from] IssueError),
}
