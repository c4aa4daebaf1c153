//! What is seen of a CA directory from outside: whether its files have changed, and how its
//! authorities stand.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::SystemTime;

use super::embedded::is_due;
use super::files::{BUNDLE, NODE, NodeAuthority, ROOT_KEY};
use super::rotation;
use crate::identity::issuer::{AuthorityStage, AuthorityStatus};
use crate::spiffe::Authority;

/// Which file a name stood for, and when it was written; files are replaced whole.
type FileState = Option<(u64, i64, i64, u64)>;

/// How the files of a node were at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileStates([FileState; 4]);

impl FileStates {
    pub(super) fn of(directory: &Path) -> Self {
        Self([NODE, BUNDLE, ROOT_KEY, rotation::FILE].map(|name| {
            let file = fs::metadata(directory.join(name)).ok()?;
            Some((file.ino(), file.mtime(), file.mtime_nsec(), file.len()))
        }))
    }
}

/// The authorities that a node signs with or under, and every root that it trusts.
pub(super) fn authorities(
    node: &NodeAuthority,
    keeps_root: bool,
    now: SystemTime,
) -> Vec<AuthorityStatus> {
    let own = AuthorityStatus {
        stage: AuthorityStage::Signs,
        ..status("node", node.signing.authority(), now, node_remedy(keeps_root))
    };
    let roots = node.bundle.authorities().iter().map(|root| AuthorityStatus {
        stage: stage(node, root),
        ..status("root", root, now, root_remedy(keeps_root && root.key_id == node.root))
    });
    std::iter::once(own).chain(roots).collect()
}

fn status(
    role: &'static str,
    authority: &Authority,
    now: SystemTime,
    remedy: &'static str,
) -> AuthorityStatus {
    AuthorityStatus {
        role,
        key_id: authority.key_id.clone(),
        not_after: authority.not_after,
        stage: AuthorityStage::Trusted,
        warning: is_due(authority, now).then_some(remedy),
    }
}

fn stage(node: &NodeAuthority, root: &Authority) -> AuthorityStage {
    let rotation = &node.rotation;
    if root.key_id == node.root {
        return AuthorityStage::Signs;
    }
    if let Some(end) = rotation.retiring.get(&root.key_id) {
        return AuthorityStage::Retires(end.at);
    }
    match rotation.activate_at {
        Some(at) if node.next.as_ref() == Some(&root.key_id) => AuthorityStage::Prepared(at),
        _ => AuthorityStage::Trusted,
    }
}

fn node_remedy(keeps_root: bool) -> &'static str {
    if keeps_root {
        "less than a third of its life is left, and it could not be renewed; see the log"
    } else {
        "less than a third of its life is left; have a new one signed (tacit ca request)"
    }
}

fn root_remedy(is_own: bool) -> &'static str {
    if is_own {
        "less than a third of its life is left; rotate it (tacit ca rotate)"
    } else {
        "less than a third of its life is left; make a new root and have every node trust it (tacit ca trust)"
    }
}
