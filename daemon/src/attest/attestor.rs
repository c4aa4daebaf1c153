//! Turns claims into attestations: recorded facts, plus what a look at the process adds, plus the
//! digest of what it runs. Fresh results are taken again at the cost of one look whether the process
//! lives. Start at [`Attestor::attest`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::Semaphore;

use super::digest::Digests;
use super::evidence::{self, Attestation, Facts};
use super::look::{self, Seen};
use super::names::{Named, Names};
use super::store::Store;
use super::systemd;
use crate::sys::cgroup::Cgroups;
use crate::sys::task::Executable;
use crate::workload::{Doubts, ProcessClaim, ProcessKey};

/// How many processes are looked at at once; each takes a fraction of a millisecond. Chosen.
const LOOKS_AT_ONCE: usize = 8;
/// The same, for records alone. Chosen: whoever makes many of them is to wait, not others.
const GLANCES_AT_ONCE: usize = 2;
/// The longest that the names of one process's user and groups may take. Chosen.
const NAMES: Duration = Duration::from_secs(2);

/// What the attestor may spend and what it assumes of the host.
#[derive(Debug, Clone, Copy)]
pub struct AttestSettings {
    /// Executables larger than this many bytes have no digest; 0 switches digests off.
    pub digest_limit_bytes: u64,
    /// How many executables may be read at once.
    pub digest_workers: usize,
    /// The longest that one attestation may take.
    pub deadline: Duration,
    /// How long an attestation is taken again without a new look at the process.
    pub fresh_for: Duration,
    /// How many attestations and how many digests are kept, each.
    pub cache_entries: usize,
    /// Whether cgroup paths are those of a systemd host; `None` asks `/run/systemd/system`.
    pub systemd_host: Option<bool>,
}

impl Default for AttestSettings {
    fn default() -> Self {
        Self {
            digest_limit_bytes: 512 << 20,
            digest_workers: 2,
            deadline: Duration::from_secs(5),
            fresh_for: Duration::from_secs(5),
            cache_entries: 4096,
            systemd_host: None,
        }
    }
}

/// Why a process cannot be attested. Each of them means: no identity.
#[derive(Debug, Error)]
pub enum AttestError {
    /// The process of this pid started after the socket was opened: it is another one.
    #[error("{0}: this process started after the socket was opened; its pid was used again")]
    PidReused(ProcessKey),
    /// The process no longer bears out what a scan found.
    #[error("{process}: its {what} changed after its socket was found")]
    ProcessChanged {
        /// Which process.
        process: ProcessKey,
        /// Which fact, such as `executable`.
        what: &'static str,
    },
    /// `/proc` does not let the daemon look.
    #[error("{process}: cannot be looked at; does the daemon have CAP_SYS_PTRACE?")]
    Inspect {
        /// Which process.
        process: ProcessKey,
        /// What the kernel said.
        source: io::Error,
    },
    /// Not finished within [`AttestSettings::deadline`].
    #[error("{0}: not attested in time")]
    TimedOut(ProcessKey),
}

/// Attests processes. Cheap to clone; clones share their caches.
#[derive(Debug, Clone)]
pub struct Attestor(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    deadline: Duration,
    systemd_host: bool,
    cgroups: Option<Cgroups>,
    names: Names,
    digests: Digests,
    looks: Arc<Semaphore>,
    glances: Arc<Semaphore>,
    store: Store,
}

impl Attestor {
    /// An attestor with empty caches. On a host without cgroup2 it knows no cgroups, and says so.
    pub fn new(settings: AttestSettings) -> Self {
        let cgroups = Cgroups::find()
            .inspect_err(|error| tracing::warn!(%error, "no selectors of cgroups and units"))
            .ok();
        let entries = settings.cache_entries;
        Self(Arc::new(Parts {
            deadline: settings.deadline,
            systemd_host: settings.systemd_host.unwrap_or_else(systemd::is_booted),
            cgroups,
            // Half of what the whole may take: without names there is still an answer.
            names: Names::new(NAMES.min(settings.deadline / 2)),
            digests: Digests::new(settings.digest_limit_bytes, settings.digest_workers, entries),
            looks: Arc::new(Semaphore::new(LOOKS_AT_ONCE)),
            glances: Arc::new(Semaphore::new(GLANCES_AT_ONCE)),
            store: Store::new(entries, settings.fresh_for),
        }))
    }

    /// Confirms a claim and extends it by what can be learnt about the process.
    ///
    /// # Errors
    /// See [`AttestError`]; the caller gives the process no identity.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn attest(&self, claim: &ProcessClaim) -> Result<Arc<Attestation>, AttestError> {
        if claim.process.start_ns > claim.seen_ns {
            return Err(AttestError::PidReused(claim.process));
        }
        let mut cell = self.0.store.cell(claim);
        if let Some(known) = cell.get() {
            if known.evidence.exited || confirmed_alive(claim) {
                return Ok(Arc::clone(known));
            }
            self.0.store.discard(claim.process, &cell);
            cell = self.0.store.cell(claim);
        }
        let work = cell.get_or_try_init(|| Box::pin(self.work_out(claim)));
        match tokio::time::timeout(self.0.deadline, work).await {
            Ok(done) => {
                let done = done.cloned()?;
                if done.doubts.any() {
                    // Who asks next may be told more.
                    self.0.store.discard(claim.process, &cell);
                }
                Ok(done)
            }
            Err(_) => Err(AttestError::TimedOut(claim.process)),
        }
    }

    /// What can be said of a process at little cost, for a record of what the daemon had no part in:
    /// anybody can cause many of those. Reads no executable, takes no place that an identity needs,
    /// and is not kept. Never to be the base of an identity.
    ///
    /// # Errors
    /// See [`AttestError`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn glance(&self, claim: &ProcessClaim) -> Result<Arc<Attestation>, AttestError> {
        if claim.process.start_ns > claim.seen_ns {
            return Err(AttestError::PidReused(claim.process));
        }
        if let Some(known) = self.0.store.peek(claim) {
            return Ok(known);
        }
        let work = self.blocking(&self.0.glances, claim, |parts, claim| {
            let (mut facts, live) = parts.gather(claim)?;
            if let Some(executable) = live {
                facts.hex = parts.digests.known(&executable);
                facts.doubts.digest = facts.hex.is_none();
            }
            Ok(facts)
        });
        let facts = work.await?;
        let named = self.named(&facts).await;
        Ok(Arc::new(evidence::attestation(facts, &named)))
    }

    /// Drops what is known about a process: the next question looks at it anew. Nothing is wrong
    /// without it, since whether it lives and what it runs is looked at in any case.
    pub fn forget(&self, process: ProcessKey) {
        self.0.store.forget(process);
    }

    async fn work_out(&self, claim: &ProcessClaim) -> Result<Arc<Attestation>, AttestError> {
        let (mut facts, live) = self.blocking(&self.0.looks, claim, Parts::gather).await?;
        if let Some(executable) = live {
            match self.0.digests.of(executable).await {
                Ok(hex) => facts.hex = hex,
                Err(error) => {
                    tracing::warn!(process = %claim.process, %error, "executable has no digest");
                    facts.doubts.digest = true;
                }
            }
        }
        let named = self.named(&facts).await;
        let conclude = move |parts: &Parts, _: &ProcessClaim| {
            parts.remember(&facts);
            Ok(Arc::new(evidence::attestation(facts, &named)))
        };
        self.blocking(&self.0.looks, claim, conclude).await
    }

    /// The names of its user and groups. Holds no place meanwhile: a directory service may hang.
    async fn named(&self, facts: &Facts) -> Named {
        let gids = std::iter::once(facts.claim.gid).chain(facts.groups.iter().copied());
        self.0.names.of(facts.claim.uid, gids).await
    }

    /// Runs what may block on a thread for that, a few at a time.
    async fn blocking<T: Send + 'static>(
        &self,
        places: &Arc<Semaphore>,
        claim: &ProcessClaim,
        work: impl FnOnce(&Parts, &ProcessClaim) -> Result<T, AttestError> + Send + 'static,
    ) -> Result<T, AttestError> {
        let failed = |error| AttestError::Inspect { process: claim.process, source: error };
        let permit = Arc::clone(places).acquire_owned().await;
        let permit = permit.map_err(|error| failed(io::Error::other(error)))?;
        let (parts, copy) = (Arc::clone(&self.0), claim.clone());
        let task = tokio::task::spawn_blocking(move || {
            let done = work(&parts, &copy);
            drop(permit);
            done
        });
        task.await.map_err(|error| failed(io::Error::other(error)))?
    }
}

impl Parts {
    /// The recorded facts and what a look adds to them, and the executable that is to be digested.
    fn gather(&self, claim: &ProcessClaim) -> Result<(Facts, Option<Executable>), AttestError> {
        let seen = look::look(claim)?;
        let mut facts = Facts {
            claim: claim.clone(),
            cgroup: self.cgroups.as_ref().and_then(|cgroups| cgroups.path_of(claim.cgroup)),
            systemd_host: self.systemd_host,
            path: None,
            hex: None,
            doubts: Doubts::default(),
            groups: Vec::new(),
            exited: matches!(seen, Seen::Exited),
        };
        let Seen::Live(live) = seen else {
            // A program must not shed an identity by ending or by execve() before it is looked at.
            facts.doubts.supplementary = true;
            if let Some(known) = self.digests.recall(claim.exe, claim.seen_ns) {
                facts.path = evidence::path_value(&known.path);
                facts.hex = known.hex;
            } else {
                (facts.doubts.path, facts.doubts.digest) = (true, true);
            }
            return Ok((facts, None));
        };
        facts.path = live.path.as_deref().and_then(evidence::path_value);
        facts.doubts.supplementary = live.groups.is_none();
        facts.groups = live.groups.unwrap_or_default();
        Ok((facts, Some(live.executable)))
    }

    /// Keeps path and digest for processes that run the same and are gone when they are looked at.
    fn remember(&self, facts: &Facts) {
        if let (Some(path), false) = (&facts.path, facts.doubts.digest) {
            self.digests.remember(facts.claim.exe, path.into(), facts.hex.clone());
        }
    }
}

fn confirmed_alive(claim: &ProcessClaim) -> bool {
    // In doubt the process is looked at again, and the doubt is reported there.
    look::is_alive(claim).unwrap_or(false)
}
