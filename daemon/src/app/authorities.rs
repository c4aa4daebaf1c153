//! The authorities of this node: what operators order, done here and recorded with who asked; how they
//! stand; and a record of each change, whatever brought it about.

use std::sync::Arc;
use std::time::Duration;

use crate::admin::dump::{AuthorityDump, CaChanged, CaDump, CaOrder};
use crate::admin::{Asker, Refused};
use crate::audit::Audit;
use crate::identity::{CaError, Identities, Issuer as _, LocalCa};
use crate::proxy::Proxy;
use crate::shutdown::Stop;

use super::changes::blocking;

/// The embedded CA, and what hangs on it. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Authorities {
    pub(super) ca: Arc<LocalCa>,
    pub(super) identities: Identities,
    pub(super) proxy: Arc<Proxy>,
    pub(super) audit: Audit,
}

impl Authorities {
    /// Does what is ordered, and records it.
    pub(super) async fn obey(&self, order: CaOrder, asker: Asker) -> Result<CaChanged, Refused> {
        let reason = order.as_str();
        let ca = Arc::clone(&self.ca);
        let done = blocking(move || obey(&ca, &order)).await?.map_err(refused)?;
        let what = done.changed.join(", ");
        self.audit.order(reason, format!("{what} by {asker}").trim_start().to_owned()).await;
        Ok(CaChanged { ca: self.dump(), ..done })
    }

    /// How the authorities stand, and what hangs on each.
    pub(super) fn dump(&self) -> CaDump {
        let authorities = self.identities.authorities();
        let signing = authorities.first().map(|own| own.key_id.clone());
        let svids: Vec<_> = self.identities.svids().into_iter().filter_map(|it| it.svid).collect();
        let replaced = svids.iter().filter(|svid| Some(&svid.authority) == signing.as_ref());
        CaDump {
            trust_domain: self.ca.trust_domain().to_string(),
            root_key_present: self.ca.keeps_its_root(),
            distrusted: self.ca.rotation().distrusted.into_iter().collect(),
            svids_replaced: replaced.count(),
            svids: svids.len(),
            authorities: authorities
                .iter()
                .map(|status| AuthorityDump {
                    connections: Some(self.proxy.connections_under(&status.key_id)),
                    ..AuthorityDump::from(status)
                })
                .collect(),
        }
    }

    /// Records every change of the authorities, by command or because it was due.
    pub(super) async fn record(self, mut stop: Stop) {
        let mut told = self.ca.signs_with();
        let mut last = self.in_words();
        loop {
            tokio::select! {
                biased;
                () = stop.draining() => return,
                changed = told.changed() => if changed.is_err() { return },
            }
            let now = self.in_words();
            if now != last {
                self.audit.order("authorities_changed", now.clone()).await;
                last = now;
            }
        }
    }

    fn in_words(&self) -> String {
        let one = |status: &crate::identity::AuthorityStatus| {
            format!("{} {} {}", status.role, status.key_id, status.stage.as_str())
        };
        let distrusted = self.ca.rotation().distrusted;
        let distrusted = distrusted.iter().map(|key_id| format!("{key_id} distrusted"));
        let all = self.identities.authorities();
        all.iter().map(one).chain(distrusted).collect::<Vec<_>>().join(", ")
    }
}

fn obey(ca: &LocalCa, order: &CaOrder) -> Result<CaChanged, CaError> {
    let changed = |key_id: String| CaChanged { changed: vec![key_id], ..CaChanged::default() };
    match order {
        CaOrder::Rotate { activate_after, retire_after } => {
            let seconds = |it: &Option<u64>| it.map(Duration::from_secs);
            ca.rotate(seconds(activate_after), seconds(retire_after)).map(changed)
        }
        CaOrder::Replace => {
            let gone = ca.replace()?;
            Ok(CaChanged { changed: gone.into_iter().collect(), ..CaChanged::default() })
        }
        CaOrder::Request => {
            let request = Some(ca.request()?);
            Ok(CaChanged { request, ..CaChanged::default() })
        }
        CaOrder::Accept { pem, compromised } => {
            ca.accept(pem.as_bytes(), *compromised).map(changed)
        }
        CaOrder::Trust { pem } => {
            let told = ca.change(|held| held.trust(pem.as_bytes()))?;
            let (changed, unchanged) = (told.added, told.unchanged);
            Ok(CaChanged { changed, unchanged, ..CaChanged::default() })
        }
        CaOrder::Retire { key_id } => ca.change(|held| held.retire(key_id)).map(changed),
        CaOrder::Distrust { key_id } => ca.change(|held| held.distrust(key_id)).map(changed),
        CaOrder::UndoDistrust { key_id } => {
            ca.change(|held| held.undo_distrust(key_id)).map(changed)
        }
    }
}

fn refused(error: CaError) -> Refused {
    match error {
        CaError::File(_) | CaError::Busy(_) | CaError::Issue(_) | CaError::Unreadable { .. } => {
            let cause = std::error::Error::source(&error);
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            Refused::Failed(format!("{error}{cause}"))
        }
        wrong => Refused::Wrong(wrong.to_string()),
    }
}
