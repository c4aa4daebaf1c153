//! Keys leave the daemon here and nowhere else: the audit log says which SVID was handed to which
//! process, once for each of both.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::attest::Attestation;
use crate::audit::Audit;
use crate::identity::HeldSvid;
use crate::workload::ProcessKey;

/// How many are remembered. Beyond that all are forgotten, and may be recorded a second time.
const REMEMBERED: usize = 8192;

/// What has been recorded.
#[derive(Debug)]
pub(super) struct Handovers {
    audit: Audit,
    known: Mutex<HashSet<(ProcessKey, String)>>,
}

impl Handovers {
    pub(super) fn new(audit: Audit) -> Self {
        Self { audit, known: Mutex::default() }
    }

    /// Records that a process is given its SVIDs with their keys.
    pub(super) fn record<'a>(
        &self,
        attestation: &Attestation,
        identities: impl IntoIterator<Item = &'a HeldSvid>,
    ) {
        let process = &attestation.evidence;
        for identity in identities {
            if !self.is_new(process.process, &identity.svid.serial) {
                continue;
            }
            let detail = format!(
                "{} (serial {}, entry {}) to pid {} of user {}, {}",
                identity.svid.id,
                identity.svid.serial,
                identity.entry.id,
                process.process.pid,
                process.uid,
                process.exe.as_deref().unwrap_or("an executable without a path"),
            );
            self.audit.daemon("svid_handed_over", Some(detail));
        }
    }

    fn is_new(&self, process: ProcessKey, serial: &str) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert((process, serial.to_owned()))
    }
}
