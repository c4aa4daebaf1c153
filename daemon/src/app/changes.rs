//! What operators change while the daemon runs, by its control socket: done here, and recorded with
//! who asked.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::admin::dump::{
    AddEntries, BundleChanged, CaChanged, CaOrder, DeleteBundle, DenyChanged, DenyOrder,
    EntriesChanged, NewEntry, Replace, Replacing, SetBundle,
};
use crate::admin::{Answer, Asker, Changes, Refused};
use crate::audit::Audit;
use crate::bpf::MAX_DAEMONS;
use crate::config::EntryDraft;
use crate::registry::RegistrationEntry;
use crate::spiffe::{TrustDomain, parse_trust_domain};
use crate::state::{BundleError, ChangeError, ForeignBundles, KnownBundle, LiveEntries};
use crate::sys::clock;
use crate::sys::private_files::FileError;

use super::authorities::Authorities;
use super::denials::Denials;
use super::drains::Drains;
use super::succession::{self, Candidate};

/// Does what is asked, and records it.
#[derive(Debug)]
pub(super) struct Operations {
    pub(super) audit: Audit,
    pub(super) entries: LiveEntries,
    pub(super) bundles: ForeignBundles,
    pub(super) authorities: Authorities,
    pub(super) denials: Denials,
    /// Set while a successor reads what there is.
    pub(super) frozen: Arc<AtomicBool>,
    /// The control socket.
    pub(super) socket: PathBuf,
    /// Where those who want to take over are let in, one at a time.
    pub(super) door: mpsc::Sender<Candidate>,
    pub(super) drains: Drains,
}

impl Changes for Operations {
    fn add_entries(&self, order: AddEntries, asker: Asker) -> Answer<'_, EntriesChanged> {
        Box::pin(async move {
            self.may_change()?;
            let entries = self.entries.clone();
            let drafts: Vec<_> = order.entries.into_iter().map(draft).collect();
            let add = move || entries.add(&order.source, &drafts, order.replace);
            let told = blocking(add).await?.map_err(refused)?;
            for entry in &told.added {
                self.record("entry_added", entry, asker).await;
            }
            Ok(EntriesChanged {
                added: told.added.iter().map(|entry| entry.id.clone()).collect(),
                unchanged: told.unchanged,
                removed: Vec::new(),
                warnings: told.warnings.iter().map(ToString::to_string).collect(),
            })
        })
    }

    fn remove_entries(&self, ids: Vec<String>, asker: Asker) -> Answer<'_, EntriesChanged> {
        Box::pin(async move {
            self.may_change()?;
            let entries = self.entries.clone();
            let removed = blocking(move || entries.remove(&ids)).await?.map_err(refused)?;
            for entry in &removed {
                self.record("entry_removed", entry, asker).await;
            }
            let removed = removed.iter().map(|entry| entry.id.clone()).collect();
            Ok(EntriesChanged { removed, ..EntriesChanged::default() })
        })
    }

    fn set_bundle(&self, order: SetBundle, asker: Asker) -> Answer<'_, BundleChanged> {
        Box::pin(async move {
            self.may_change()?;
            let (bundles, domain) = (self.bundles.clone(), domain(&order.trust_domain)?);
            let of = domain.clone();
            let set = move || bundles.set(&of, &order.text, clock::now());
            let known = blocking(set).await?.map_err(bundle_refused)?;
            let changed = self.bundle_changed(&domain, Some(&known));
            let (x509, jwt) = (changed.authorities.unwrap_or_default(), changed.jwt_authorities);
            let detail = format!("{domain}: {x509} X.509 and {jwt} JWT authorities, by {asker}");
            self.audit.order("bundle_set", detail).await;
            Ok(changed)
        })
    }

    fn delete_bundle(&self, order: DeleteBundle, asker: Asker) -> Answer<'_, BundleChanged> {
        Box::pin(async move {
            self.may_change()?;
            let (bundles, domain) = (self.bundles.clone(), domain(&order.trust_domain)?);
            let of = domain.clone();
            blocking(move || bundles.delete(&of)).await?.map_err(bundle_refused)?;
            self.audit.order("bundle_deleted", format!("{domain}, by {asker}")).await;
            Ok(self.bundle_changed(&domain, None))
        })
    }

    fn deny(&self, order: DenyOrder, asker: Asker) -> Answer<'_, DenyChanged> {
        Box::pin(async move {
            self.may_change()?;
            self.denials.add(order, asker).await
        })
    }

    fn undo_deny(&self, order: DenyOrder, asker: Asker) -> Answer<'_, DenyChanged> {
        Box::pin(async move {
            self.may_change()?;
            self.denials.remove(order, asker).await
        })
    }

    fn change_authorities(&self, order: CaOrder, asker: Asker) -> Answer<'_, CaChanged> {
        Box::pin(async move {
            self.may_change()?;
            self.authorities.obey(order, asker).await
        })
    }

    fn replace(&self, order: Replace, asker: Asker) -> Answer<'_, Replacing> {
        Box::pin(async move {
            let most = MAX_DAEMONS - 1;
            if self.drains.pids().len() >= most {
                let what = format!("{most} daemons before this one still drain; try again later");
                return Err(Refused::Wrong(what));
            }
            let room = self.door.try_reserve().map_err(|_full| {
                let what = "this daemon drains, or another process is about to take over already";
                Refused::Wrong(what.to_owned())
            })?;
            let candidate = succession::admit(&self.socket, order, asker).await?;
            let detail = format!("by tacit {}, process {}", candidate.version, candidate.pid);
            self.audit.order("replacement_asked", detail).await;
            room.send(candidate);
            Ok(Replacing { pid: std::process::id() })
        })
    }
}

impl Operations {
    fn bundle_changed(&self, domain: &TrustDomain, known: Option<&KnownBundle>) -> BundleChanged {
        let bundle = known.map(|known| &known.document.bundle);
        BundleChanged {
            trust_domain: domain.to_string(),
            authorities: bundle.map(|bundle| bundle.authorities().len()),
            jwt_authorities: bundle.map_or(0, |bundle| bundle.jwt_authorities().len()),
            entries: self.entries.registry().borrow().federated_with(domain),
        }
    }

    fn may_change(&self) -> Result<(), Refused> {
        if self.frozen.load(Ordering::SeqCst) {
            let what = "another daemon is taking over; ask again in a moment";
            return Err(Refused::Failed(what.to_owned()));
        }
        Ok(())
    }

    async fn record(&self, reason: &'static str, entry: &RegistrationEntry, asker: Asker) {
        let selectors: Vec<_> = entry.selectors.iter().map(ToString::to_string).collect();
        let (id, spiffe_id, selectors) = (&entry.id, &entry.spiffe_id, selectors.join(" "));
        let detail = format!("{id}: {spiffe_id} for {selectors}, by {asker}");
        self.audit.order(reason, detail).await;
    }
}

/// Work that waits for the disk. It goes on when nobody waits for the answer any more.
pub(super) async fn blocking<T, F>(work: F) -> Result<T, Refused>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_panicked| Refused::Failed("the change came to grief; see the log".to_owned()))
}

fn refused(error: ChangeError) -> Refused {
    match error {
        ChangeError::Invalid(_) | ChangeError::Conflicts(_) | ChangeError::TooLarge => {
            Refused::Wrong(error.to_string())
        }
        ChangeError::File(error) => not_kept(&error),
    }
}

fn bundle_refused(error: BundleError) -> Refused {
    match error {
        BundleError::File(error) => not_kept(&error),
        wrong => Refused::Wrong(wrong.to_string()),
    }
}

fn not_kept(error: &FileError) -> Refused {
    let cause = std::error::Error::source(error);
    let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
    Refused::Failed(format!("{error}{cause}"))
}

fn domain(text: &str) -> Result<TrustDomain, Refused> {
    parse_trust_domain(text)
        .map_err(|error| Refused::Wrong(format!("`{text}` is no trust domain: {error}")))
}

fn draft(entry: NewEntry) -> EntryDraft {
    EntryDraft {
        id: entry.id,
        spiffe_id: entry.spiffe_id,
        selectors: entry.selectors,
        svid_ttl: entry.svid_ttl.map(Duration::from_secs),
        jwt_svid_ttl: entry.jwt_svid_ttl.map(Duration::from_secs),
        hint: entry.hint,
        dns_names: entry.dns_names,
        federates_with: entry.federates_with,
    }
}
