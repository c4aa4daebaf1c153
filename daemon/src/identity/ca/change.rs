//! Changes of the authorities in a CA directory that is in use, one at a time: whoever makes one holds
//! the directory, be it the daemon or a command. Which roots are trusted is `trust.rs`. Each is made of steps that a crash may part; [`Held::of`] finishes
//! what was begun. Nothing signs before it is trusted, and nothing that signs is trusted no more.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::error::CaError;
use super::files::{
    BUNDLE, GONE, NEXT, NODE, NodeAuthority, REQUEST_KEY, ROOT_CERTIFICATE, ROOT_KEY, check_name,
    has_root_key, own_root, read_authority, read_bundle, read_node, read_root, root_above,
    write_node, write_root,
};
use super::request::make_request;
use super::rotation::{GRACE, Retirement, Rotation};
use super::signing::{ROOT_TTL, SigningAuthority};
use crate::spiffe::{BundleError, TrustBundle, TrustDomain, pem_block};
use crate::sys::private_files::{
    DirLock, FileError, PRIVATE, create_private_dir, lock_dir, place_dir, prepare_dir,
    read_private, write_atomic,
};

/// How long a command waits for another to be done.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// A CA directory, held against other changes until dropped.
#[derive(Debug)]
pub struct Held {
    pub(super) directory: PathBuf,
    now: SystemTime,
    _lock: DirLock,
}

/// When the stages of a rotation are to come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Terms {
    /// How long the new root is published before it signs.
    pub activate_after: Duration,
    /// How long the old root stays trusted after that.
    pub retire_after: Duration,
}

impl Held {
    /// Waits for its turn, and finishes what an interrupted change has begun.
    ///
    /// # Errors
    /// See [`CaError`].
    pub fn of(directory: &Path, patience: Duration, now: SystemTime) -> Result<Self, CaError> {
        let lock = lock_dir(directory, patience).map_err(|error| {
            if error.is_missing() { CaError::Missing(directory.to_owned()) } else { error.into() }
        })?;
        let lock = lock.ok_or_else(|| CaError::Busy(directory.to_owned()))?;
        let held = Self { directory: directory.to_owned(), now, _lock: lock };
        held.finish_activation()?;
        Ok(held)
    }

    /// As [`Held::of`], of a directory that is made if it is absent.
    ///
    /// # Errors
    /// See [`CaError`].
    pub fn begin(directory: &Path, patience: Duration, now: SystemTime) -> Result<Self, CaError> {
        create_private_dir(directory)?;
        Self::of(directory, patience, now)
    }

    /// Renews this node's authority under the root that is kept beside it, with a new key.
    pub(super) fn renew(&self, name: &str) -> Result<(), CaError> {
        let root = read_root(&self.directory)?;
        write_node(&self.directory, &root.node(name, self.now)?)
    }

    /// Makes the next root of a node that keeps its own, and has it trusted; it signs nothing yet.
    /// Where one is prepared already, only the times change. Gives its key id.
    ///
    /// # Errors
    /// See [`CaError`].
    pub fn prepare(&self, terms: Terms) -> Result<String, CaError> {
        let node = self.node()?;
        if !node.has_root_key {
            return Err(CaError::RootElsewhere);
        }
        let next = if let Some(prepared) = self.next()? {
            prepared
        } else {
            let root = SigningAuthority::root(node.signing.trust_domain(), self.now)?;
            let prepared = prepare_dir(&self.directory.join(NEXT))?;
            write_root(&prepared, &root)?;
            place_dir(&prepared, &self.directory.join(NEXT))?;
            root
        };
        self.add_roots(&[next.authority().certificate.clone()])?;
        let mut rotation = node.rotation;
        // No wait is longer than a root lives.
        rotation.activate_at = Some(self.now + terms.activate_after.min(ROOT_TTL));
        rotation.retire_after = terms.retire_after.min(ROOT_TTL).as_secs();
        rotation.write(&self.directory)?;
        Ok(next.authority().key_id.clone())
    }

    /// Has the prepared root sign from now on: a new authority for this node is made under it. Does
    /// nothing where none is prepared.
    ///
    /// # Errors
    /// See [`CaError`].
    pub fn activate(&self, name: &str) -> Result<(), CaError> {
        let Some(next) = self.next()? else {
            let mut rotation = Rotation::read(&self.directory)?;
            rotation.activate_at = None;
            return rotation.write(&self.directory);
        };
        // Also when somebody has put an older bundle there meanwhile.
        self.add_roots(&[next.authority().certificate.clone()])?;
        write_node(&self.directory, &next.node(name, self.now)?)?;
        self.finish_activation()
    }

    /// Makes a new root at once, and a new authority under it; what was there before is distrusted as
    /// soon as no SVID hangs on it, within seconds. Gives the key ids of what is compromised.
    ///
    /// # Errors
    /// See [`CaError`].
    pub fn replace(&self, name: &str) -> Result<BTreeSet<String>, CaError> {
        let node = self.node()?;
        if !node.has_root_key {
            return Err(CaError::RootElsewhere);
        }
        let mut compromised = BTreeSet::from([node.root, node.signing.authority().key_id.clone()]);
        // What was prepared lay beside what was stolen.
        let prepared = self.next()?;
        compromised.extend(prepared.as_ref().map(|it| it.authority().key_id.clone()));
        // First, so that it is known after a crash at any step from here on.
        self.compromise(&compromised)?;
        if prepared.is_some() {
            self.remove_next()?;
        }
        self.prepare(Terms { activate_after: Duration::ZERO, retire_after: GRACE })?;
        self.activate(name)?;
        Ok(compromised)
    }

    /// Makes a new key for this node's authority, and the request to have it signed elsewhere. It
    /// takes the place of an earlier one. PEM.
    ///
    /// # Errors
    /// See [`CaError`].
    pub fn request(&self, name: &str) -> Result<String, CaError> {
        check_name(name)?;
        let made = make_request(name)?;
        let key = pem_block("PRIVATE KEY", &made.key);
        write_atomic(&self.directory.join(REQUEST_KEY), key.as_bytes(), PRIVATE)?;
        Ok(made.request)
    }

    /// Takes the certificate that was signed for the last request: from now on it signs. A node that
    /// trusts nobody yet begins with the roots that are brought along. Gives its key id.
    ///
    /// # Errors
    /// See [`CaError`]; then nothing has changed.
    pub fn accept(&self, pem: &[u8], compromised: bool) -> Result<String, CaError> {
        let certificates = certificates(pem)?;
        let (certificate, roots) = certificates.split_first().ok_or(CaError::Nothing)?;
        let key = read_private(&self.directory.join(REQUEST_KEY));
        let key = key
            .map_err(|error| if error.is_missing() { CaError::NoRequest } else { error.into() })?;
        let path = self.directory.join(REQUEST_KEY);
        let text = pem_block("CERTIFICATE", certificate);
        let signing = read_authority(&path, text.as_bytes(), &key)
            .map_err(|_another| CaError::NotForRequest)?;
        let domain = signing.trust_domain().clone();
        let old = if self.directory.join(NODE).exists() { Some(self.node()?) } else { None };
        if let Some(old) = &old {
            same_domain(&domain, old.signing.trust_domain())?;
        }
        let is_first = !self.directory.join(BUNDLE).exists();
        let bundle = if is_first {
            TrustBundle::new(domain, roots.to_vec())?
        } else {
            read_bundle(&self.directory, &domain)?
                .with_distrusted(Rotation::read(&self.directory)?.distrusted)
        };
        root_above(&signing, &bundle, self.now)?.map_err(CaError::NotTrusted)?;
        if is_first {
            self.write_bundle(&bundle)?;
        }
        if let Some(old) = old.filter(|_| compromised) {
            self.compromise(&BTreeSet::from([old.signing.authority().key_id.clone()]))?;
        }
        // A root of its own that was to follow would take this node back.
        if self.next()?.is_some() {
            self.remove_next()?;
            let mut rotation = Rotation::read(&self.directory)?;
            rotation.activate_at = None;
            rotation.write(&self.directory)?;
        }
        write_node(&self.directory, &signing)?;
        remove(&self.directory.join(REQUEST_KEY))?;
        Ok(signing.authority().key_id.clone())
    }

    /// Does what is due by now. `replaced`: no SVID of this node hangs on an authority of old.
    ///
    /// # Errors
    /// See [`CaError`].
    pub(super) fn proceed(&self, name: &str, replaced: bool) -> Result<(), CaError> {
        let activate_at = Rotation::read(&self.directory)?.activate_at;
        let activates = activate_at.is_some_and(|at| at <= self.now);
        if activates {
            self.activate(name)?;
        }
        let mut node = self.node()?;
        let due = node.rotation.due(self.now, replaced && !activates);
        if due.is_empty() {
            return Ok(());
        }
        let mut gone = BTreeSet::new();
        for (key_id, compromised) in due {
            node.rotation.retiring.remove(&key_id);
            // Somebody has put the old authority back; what signs stays trusted.
            if key_id == node.root || key_id == node.signing.authority().key_id {
                continue;
            }
            if compromised {
                node.rotation.distrusted.insert(key_id.clone());
            }
            gone.insert(key_id);
        }
        self.forget(&node, &gone)
    }

    pub(super) fn node(&self) -> Result<NodeAuthority, CaError> {
        NodeAuthority::read(&self.directory, self.now)
    }

    pub(super) fn next(&self) -> Result<Option<SigningAuthority>, CaError> {
        let next = self.directory.join(NEXT);
        if has_root_key(&next) { read_root(&next).map(Some) } else { Ok(None) }
    }

    /// Once the node's authority hangs on the next root, that is the root. Each step can be the last
    /// one before a crash.
    fn finish_activation(&self) -> Result<(), CaError> {
        let next = self.directory.join(NEXT);
        if !next.exists() || !self.directory.join(NODE).exists() {
            return Ok(());
        }
        let above = read_node(&self.directory)?.authority().issuer_key_id.clone();
        let following = own_root(&next)?;
        // None: both files have been moved.
        if following.is_some() && following != above {
            return Ok(());
        }
        let mut rotation = Rotation::read(&self.directory)?;
        let old = own_root(&self.directory)?.filter(|old| Some(old) != above.as_ref());
        if let Some(old) = old.filter(|old| !rotation.distrusted.contains(old)) {
            let at = self.now + Duration::from_secs(rotation.retire_after);
            rotation.retiring.entry(old).or_insert(Retirement { at, compromised: false });
        }
        rotation.activate_at = None;
        rotation.write(&self.directory)?;
        for file in [ROOT_KEY, ROOT_CERTIFICATE] {
            if next.join(file).exists() {
                fs::rename(next.join(file), self.directory.join(file))
                    .map_err(|source| io_error(&next.join(file), "put in place", source))?;
            }
        }
        self.remove_next()
    }

    pub(super) fn remove_next(&self) -> Result<(), CaError> {
        let (next, gone) = (self.directory.join(NEXT), self.directory.join(GONE));
        // In one step: half of it would look like half of an activation.
        if gone.exists() {
            fs::remove_dir_all(&gone).map_err(|source| io_error(&gone, "remove", source))?;
        }
        fs::rename(&next, &gone).map_err(|source| io_error(&next, "move away", source))?;
        fs::remove_dir_all(&gone).map_err(|source| io_error(&gone, "remove", source))
    }

    /// Marks authorities whose keys are in wrong hands; they go once they are replaced.
    fn compromise(&self, key_ids: &BTreeSet<String>) -> Result<(), CaError> {
        let mut rotation = Rotation::read(&self.directory)?;
        let end = Retirement { at: self.now + GRACE, compromised: true };
        rotation.retiring.extend(key_ids.iter().map(|key_id| (key_id.clone(), end)));
        rotation.write(&self.directory)
    }
}

/// Every certificate of a text in PEM.
pub(super) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let all = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>();
    all.map_err(|_bad_pem| CaError::NotRoots(BundleError::Pem))
}

pub(super) fn same_domain(found: &TrustDomain, expected: &TrustDomain) -> Result<(), CaError> {
    if found == expected {
        return Ok(());
    }
    Err(CaError::OtherDomain { found: found.clone(), expected: expected.clone() })
}

fn remove(path: &Path) -> Result<(), CaError> {
    fs::remove_file(path).map_err(|source| io_error(path, "remove", source))
}

fn io_error(path: &Path, act: &'static str, source: std::io::Error) -> CaError {
    FileError::Io { path: path.to_owned(), act, source }.into()
}
