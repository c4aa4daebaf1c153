//! The local workload of a connection: who it is, and with what it proves it.

use std::sync::Arc;

use super::limits::{Owner, Place};
use super::live::LocalIdentity;
use super::state::Proxy;
use super::tls::Credential;
use crate::audit::{Outcome, RecordBuilder};
use crate::identity::{IdentityError, Naming, WorkloadIdentity};
use crate::policy::DenyReason;
use crate::spiffe::{BundleSet, SpiffeId};
use crate::sys::clock;
use crate::workload::{Mode, ProcessClaim};

/// The local workload of one connection.
#[derive(Debug)]
pub(super) struct Local {
    identity: Option<WorkloadIdentity>,
    /// What the entries said of it, where it was attested.
    naming: Option<Naming>,
    /// Of the SVID that was shown to the peer.
    authorities: Arc<[String]>,
    /// Its serial number.
    serial: Option<Arc<str>>,
    owner: Owner,
    _place: Place,
}

/// Who the process is; somebody without identity is refused in a strict scope.
///
/// # Errors
/// In a strict scope, why there is no identity. Closed: who the program is cannot be said, and
/// strict means that only those who can be named may speak. In any, that it has its fill of
/// connections.
pub(super) async fn identify(
    proxy: &Proxy,
    claim: &ProcessClaim,
    mode: Mode,
    record: &mut RecordBuilder,
) -> Result<Local, Outcome> {
    match proxy.identities.of(claim).await {
        Ok(identity) => {
            record.evidence(&identity.attestation.evidence);
            record.local_id(&identity.entry.spiffe_id);
            Local::new(proxy, Some(identity), claim)
        }
        Err(error) => {
            if let Some(attestation) = error.attestation() {
                record.evidence(&attestation.evidence);
            }
            record.detail(&error);
            let denied = matches!(error, IdentityError::Denied { .. });
            if let IdentityError::Denied { entry, .. } = &error {
                record.local_id(&entry.spiffe_id);
            }
            match mode {
                Mode::Strict => Err(Outcome::Denied(error.reason())),
                // Closed: somebody who is denied is not let through as somebody unknown.
                Mode::Permissive if denied => Err(Outcome::Denied(error.reason())),
                Mode::Permissive | Mode::Observe => {
                    let nobody = Local::nobody(proxy, claim)?;
                    Ok(Local { naming: error.naming(), ..nobody })
                }
            }
        }
    }
}

impl Local {
    /// A program without identity.
    pub(super) fn nobody(proxy: &Proxy, claim: &ProcessClaim) -> Result<Self, Outcome> {
        Self::new(proxy, None, claim)
    }

    fn new(
        proxy: &Proxy,
        identity: Option<WorkloadIdentity>,
        claim: &ProcessClaim,
    ) -> Result<Self, Outcome> {
        let owner = Owner::of(identity.as_ref(), claim);
        let place = proxy.limits.of_workload(&owner)?;
        let naming = identity.as_ref().map(WorkloadIdentity::naming);
        let (authorities, serial) = (Arc::default(), None);
        Ok(Self { identity, naming, authorities, serial, owner, _place: place })
    }

    /// Its SPIFFE ID, if it has one.
    pub(super) fn id(&self) -> Option<&SpiffeId> {
        self.identity.as_ref().map(|identity| &identity.entry.spiffe_id)
    }

    /// Whether the entries in force now say of it what they said when it was identified.
    pub(super) fn is_still_named(&self, proxy: &Proxy) -> bool {
        self.naming.as_ref().is_none_or(|naming| proxy.identities.still_say(naming))
    }

    /// With whose connections its own are counted.
    pub(super) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// What it shows to a peer: its SVID as it is now.
    ///
    /// # Errors
    /// It has no identity, or no SVID that is valid now.
    pub(super) fn credential(
        &mut self,
        proxy: &Proxy,
        record: &RecordBuilder,
    ) -> Result<Arc<Credential>, Outcome> {
        // Closed: without an SVID there is nothing that could protect the connection.
        let identity = self.identity.as_ref().ok_or(Outcome::Denied(DenyReason::NoIdentity))?;
        let svid = Arc::clone(&identity.svid.borrow());
        let made = proxy.tls.credential(&svid, &proxy.bundles(), clock::now());
        let credential = made.map_err(|error| {
            record.detail(&error);
            Outcome::Denied(DenyReason::NoSvid)
        })?;
        self.authorities = Arc::clone(credential.authorities());
        self.serial = Some(svid.serial.as_str().into());
        Ok(credential)
    }

    /// Whom it trusts: its own trust domain, and those that its entry is federated with.
    pub(super) fn bundles(&self, proxy: &Proxy) -> Arc<BundleSet> {
        let Some(identity) = &self.identity else {
            return Arc::default();
        };
        let federates_with = Arc::clone(&identity.federates_with.borrow());
        let own = identity.entry.spiffe_id.trust_domain();
        Arc::new(proxy.bundles().within(own, &federates_with))
    }

    /// What its connection hangs on.
    pub(super) fn standing(&self) -> Option<LocalIdentity> {
        self.identity.as_ref().map(|identity| LocalIdentity {
            id: identity.entry.spiffe_id.clone(),
            svid: identity.svid.clone(),
            federates_with: identity.federates_with.clone(),
            authorities: Arc::clone(&self.authorities),
            serial: self.serial.as_ref().map(Arc::clone),
        })
    }
}
