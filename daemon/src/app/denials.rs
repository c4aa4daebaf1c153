//! The deny list as operators change it: kept, put into force, recorded with who asked.

use std::sync::Arc;

use crate::admin::dump::{DenyChanged, DenyDump, DenyOrder};
use crate::admin::{Asker, Refused};
use crate::audit::Audit;
use crate::policy::{Denied, DenyError, DenyItem};
use crate::proxy::Proxy;
use crate::state::DenialsError;

use super::changes::blocking;
use super::in_force::InForce;

/// What changes the deny list. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Denials {
    pub(super) in_force: InForce,
    pub(super) proxy: Arc<Proxy>,
    pub(super) audit: Audit,
}

impl Denials {
    /// Denies somebody; what hangs on it is cut by the time of the answer.
    pub(super) async fn add(&self, order: DenyOrder, asker: Asker) -> Result<DenyChanged, Refused> {
        let wrong = |error: DenyError| Refused::Wrong(format!("the reason {error}"));
        let item = DenyItem::new(denied(&order)?, &order.reason, "").map_err(wrong)?;
        let (denials, added) = (self.in_force.denials.clone(), item.clone());
        let changed = blocking(move || denials.add(added)).await?.map_err(refused)?;
        let cut = self.enforce();
        if changed {
            let DenyItem { denied, reason, .. } = item;
            let detail = format!("{denied} ({reason}): {cut} connections cut, by {asker}");
            self.audit.order("deny_added", detail).await;
        }
        Ok(DenyChanged { changed, cut, list: self.list() })
    }

    /// Denies somebody no more.
    pub(super) async fn remove(
        &self,
        order: DenyOrder,
        asker: Asker,
    ) -> Result<DenyChanged, Refused> {
        let (denials, denied) = (self.in_force.denials.clone(), denied(&order)?);
        let removed = denied.clone();
        blocking(move || denials.remove(&removed)).await?.map_err(refused)?;
        let cut = self.enforce();
        self.audit.order("deny_removed", format!("{denied}, by {asker}")).await;
        Ok(DenyChanged { changed: true, cut, list: self.list() })
    }

    /// The whole list.
    pub(super) fn list(&self) -> Vec<DenyDump> {
        self.in_force.denials.list().items().map(DenyDump::from).collect()
    }

    /// Puts the list into force; says how many connections that cuts.
    fn enforce(&self) -> usize {
        self.in_force.deny(|list| self.proxy.connections_denied(list))
    }
}

fn denied(order: &DenyOrder) -> Result<Denied, Refused> {
    let (given, read) = match (&order.spiffe_id, &order.serial) {
        (Some(id), None) => (id, Denied::id(id)),
        (None, Some(serial)) => (serial, Denied::serial(serial)),
        _ => {
            return Err(Refused::Wrong(
                "say a SPIFFE ID or a serial number, one of them".to_owned(),
            ));
        }
    };
    read.map_err(|error| Refused::Wrong(format!("`{given}` {error}")))
}

fn refused(error: DenialsError) -> Refused {
    match error {
        DenialsError::Declared { .. } | DenialsError::Unknown(_) => {
            Refused::Wrong(error.to_string())
        }
        DenialsError::File(error) => {
            let cause = std::error::Error::source(&error);
            let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
            Refused::Failed(format!("{error}{cause}"))
        }
    }
}
