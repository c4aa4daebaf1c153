//! Whom a CA directory trusts: roots come and go, and what hangs on stolen keys is trusted no more.

use std::collections::BTreeSet;

use rustls_pki_types::CertificateDer;

use super::change::{Held, certificates, same_domain};
use super::error::CaError;
use super::files::{BUNDLE, NODE, NodeAuthority, read_bundle};
use super::rotation::Rotation;
use crate::spiffe::{TrustBundle, TrustDomain};
use crate::sys::private_files::{PUBLIC, read_public, write_atomic};

/// Longest key id that is taken, bytes. RFC 5280 §4.2.1.2 suggests 20; SHA-512 has 64.
const LONGEST_KEY_ID: usize = 64;

/// What a root that was brought in is to this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trusted {
    /// Key ids of roots that are trusted from now on.
    pub added: Vec<String>,
    /// Key ids of those that were trusted before.
    pub unchanged: Vec<String>,
}

impl Held {
    /// Trusts these roots, beside those that are trusted.
    ///
    /// # Errors
    /// See [`CaError`]; then nothing has changed.
    pub fn trust(&self, pem: &[u8]) -> Result<Trusted, CaError> {
        let roots = certificates(pem)?;
        if roots.is_empty() {
            return Err(CaError::Nothing);
        }
        self.add_roots(&roots)
    }

    /// Trusts a root no more, in order: one on which this node's own authority does not hang. Gives
    /// its key id, as do the following.
    ///
    /// # Errors
    /// See [`CaError`]; then nothing has changed.
    pub fn retire(&self, key_id: &str) -> Result<String, CaError> {
        let node = self.node()?;
        let key_id = read_key_id(key_id)?;
        if key_id == node.root {
            return Err(CaError::InUse(key_id));
        }
        if !node.bundle.authorities().iter().any(|root| root.key_id == key_id) {
            return Err(CaError::Unknown(key_id));
        }
        self.forget(&node, &BTreeSet::from([key_id.clone()]))?;
        Ok(key_id)
    }

    /// Trusts nothing any more that hangs on this authority, a root or a node's: for keys that are in
    /// wrong hands.
    ///
    /// # Errors
    /// See [`CaError`]; then nothing has changed.
    pub fn distrust(&self, key_id: &str) -> Result<String, CaError> {
        let mut node = self.node()?;
        let key_id = read_key_id(key_id)?;
        if key_id == node.root || key_id == node.signing.authority().key_id {
            return Err(CaError::InUse(key_id));
        }
        node.rotation.distrusted.insert(key_id.clone());
        self.forget(&node, &BTreeSet::from([key_id.clone()]))?;
        Ok(key_id)
    }

    /// Takes [`Held::distrust`] back. A root is not trusted by that: it is brought in again.
    ///
    /// # Errors
    /// See [`CaError`]; then nothing has changed.
    pub fn undo_distrust(&self, key_id: &str) -> Result<String, CaError> {
        let key_id = read_key_id(key_id)?;
        let mut rotation = Rotation::read(&self.directory)?;
        if !rotation.distrusted.remove(&key_id) {
            return Err(CaError::NotDistrusted(key_id));
        }
        rotation.write(&self.directory)?;
        Ok(key_id)
    }

    /// First the bundle, then what is due: after a crash in between it is due again.
    pub(super) fn forget(
        &self,
        node: &NodeAuthority,
        gone: &BTreeSet<String>,
    ) -> Result<(), CaError> {
        let mut rotation = node.rotation.clone();
        let roots = node.bundle.authorities().iter();
        let kept: Vec<_> = roots
            .filter(|root| !gone.contains(&root.key_id))
            .map(|root| root.certificate.clone())
            .collect();
        let bundle = TrustBundle::new(node.bundle.trust_domain().clone(), kept)?;
        self.write_bundle(&bundle)?;
        rotation.retiring.retain(|key_id, _| !gone.contains(key_id));
        rotation.write(&self.directory)?;
        if self.next()?.is_some_and(|next| gone.contains(&next.authority().key_id)) {
            rotation.activate_at = None;
            rotation.write(&self.directory)?;
            self.remove_next()?;
        }
        Ok(())
    }

    pub(super) fn add_roots(&self, roots: &[CertificateDer<'static>]) -> Result<Trusted, CaError> {
        let domain = self.trust_domain(roots)?;
        let known = read_bundle(&self.directory, &domain)?;
        let rotation = Rotation::read(&self.directory)?;
        let fresh = TrustBundle::new(domain.clone(), roots.to_vec())?;
        let mut all: Vec<_> = known.certificates().cloned().collect();
        let mut told = Trusted::default();
        for root in fresh.authorities() {
            if let Some(found) = TrustBundle::trust_domain_of(&root.certificate) {
                same_domain(&found, &domain)?;
            }
            if rotation.distrusted.contains(&root.key_id) {
                return Err(CaError::Distrusted(root.key_id.clone()));
            }
            if all.contains(&root.certificate) {
                told.unchanged.push(root.key_id.clone());
            } else {
                all.push(root.certificate.clone());
                told.added.push(root.key_id.clone());
            }
        }
        if !told.added.is_empty() {
            self.write_bundle(&TrustBundle::new(domain, all)?)?;
        }
        Ok(told)
    }

    /// That of the node; of a directory without a node's authority, that of its first root.
    fn trust_domain(&self, roots: &[CertificateDer<'static>]) -> Result<TrustDomain, CaError> {
        if self.directory.join(NODE).exists() {
            return Ok(self.node()?.signing.trust_domain().clone());
        }
        let known = read_public(&self.directory.join(BUNDLE))?;
        let known = certificates(&known)?;
        let named = known.iter().chain(roots).find_map(|root| TrustBundle::trust_domain_of(root));
        named.ok_or_else(|| CaError::Missing(self.directory.clone()))
    }

    pub(super) fn write_bundle(&self, bundle: &TrustBundle) -> Result<(), CaError> {
        Ok(write_atomic(&self.directory.join(BUNDLE), bundle.to_pem().as_bytes(), PUBLIC)?)
    }
}

/// A key id as certificates are compared by it; colons, as openssl prints them, are passed over.
fn read_key_id(text: &str) -> Result<String, CaError> {
    let plain: String = text.chars().filter(|char| *char != ':').collect();
    let is_hex = plain.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex && (2..=2 * LONGEST_KEY_ID).contains(&plain.len()) && plain.len().is_multiple_of(2) {
        Ok(plain.to_ascii_lowercase())
    } else {
        Err(CaError::BadKeyId(text.to_owned()))
    }
}
