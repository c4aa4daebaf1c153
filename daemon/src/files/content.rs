//! What is in the files: PEM, as every TLS program reads it.

use zeroize::Zeroizing;

use crate::spiffe::{TrustBundle, X509Svid, pem_block};
use crate::workload::FileSet;

/// One file to be.
pub(super) struct Content {
    pub(super) name: String,
    pub(super) text: Zeroizing<Vec<u8>>,
}

/// The files of a set.
pub(super) fn of(set: &FileSet, svid: &X509Svid, bundle: &TrustBundle) -> Vec<Content> {
    let chain: Vec<_> = svid.chain.iter().map(|der| pem_block("CERTIFICATE", der)).collect();
    let key = pem_block("PRIVATE KEY", &svid.key);
    let is_joint = set.key == set.certificate;
    // Sized at once: growing would leave copies of a key behind in freed memory.
    let size = chain.iter().map(|block| block.len()).sum::<usize>() + key.len();
    let mut joint = Zeroizing::new(Vec::with_capacity(size));
    for block in &chain {
        joint.extend_from_slice(block.as_bytes());
    }
    let mut files = Vec::new();
    if is_joint {
        joint.extend_from_slice(key.as_bytes());
    } else {
        let text = Zeroizing::new(key.as_bytes().to_vec());
        files.push(Content { name: set.key.clone(), text });
    }
    files.push(Content { name: set.certificate.clone(), text: joint });
    let bundle = Zeroizing::new(bundle.to_pem().into_bytes());
    files.push(Content { name: set.bundle.clone(), text: bundle });
    files
}

/// The names of a set's files.
pub(super) fn names(set: &FileSet) -> Vec<String> {
    let mut names = vec![set.key.clone(), set.certificate.clone(), set.bundle.clone()];
    names.dedup();
    names
}
