//! What does not stand in the configuration's files: entries, and a deny list, that a running daemon
//! is given and keeps in files of its own. They are read by the very rules of `[[entry]]` and
//! `[[deny]]`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::build::{denials_alone, entries_alone};
use super::file::{Part, parse, render_denial as render_item, render_entry as render};
use super::{Problem, Problems};
use crate::policy::DenyItem;
use crate::registry::RegistrationEntry;
use crate::spiffe::TrustDomain;
use crate::workload::Selector;

/// An entry as somebody wants it. Nothing of it has been looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryDraft {
    /// Unique id; made of the SPIFFE ID and the selectors if absent.
    pub id: Option<String>,
    /// The identity.
    pub spiffe_id: String,
    /// What a process must have.
    pub selectors: Vec<String>,
    /// Lifetime of its X.509-SVIDs.
    pub svid_ttl: Option<Duration>,
    /// Lifetime of its JWT-SVIDs.
    pub jwt_svid_ttl: Option<Duration>,
    /// What the identity is for.
    pub hint: Option<String>,
    /// DNS names in its X.509-SVIDs.
    pub dns_names: Vec<String>,
    /// Trust domains whose bundles its workloads get.
    pub federates_with: Vec<String>,
}

/// Entries that were read, and what is worth telling about them.
#[derive(Debug, Clone, Default)]
pub struct ReadEntries {
    /// The entries, in their order.
    pub entries: Vec<RegistrationEntry>,
    /// What stops nobody.
    pub warnings: Vec<Problem>,
}

impl From<&RegistrationEntry> for EntryDraft {
    fn from(entry: &RegistrationEntry) -> Self {
        Self {
            id: Some(entry.id.clone()),
            spiffe_id: entry.spiffe_id.to_string(),
            selectors: entry.selectors.iter().map(Selector::to_string).collect(),
            svid_ttl: entry.svid_ttl,
            jwt_svid_ttl: entry.jwt_svid_ttl,
            hint: Some(entry.hint.clone()).filter(|hint| !hint.is_empty()),
            dns_names: entry.dns_names.clone(),
            federates_with: entry.federates_with.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Reads a file that the daemon keeps: `[[entry]]` tables and nothing else.
///
/// # Errors
/// Everything that is wrong, with file, line, key, value and remedy.
pub fn read_entries(
    path: &Path,
    text: String,
    trust_domain: &TrustDomain,
) -> Result<ReadEntries, Problems> {
    let mut problems = Vec::new();
    let document = parse(path, text, Part::State("entry"), &mut problems);
    let (entries, warnings) = document.map_or_else(Default::default, |document| {
        entries_alone(document, trust_domain, &mut problems)
    });
    if problems.is_empty() {
        Ok(ReadEntries { entries, warnings })
    } else {
        Err(Problems(problems))
    }
}

/// Judges drafts by the rules of `[[entry]]`. `source` says to people where they come from.
///
/// # Errors
/// Everything that is wrong; `entry[0]` is the first of the drafts.
pub fn check_drafts(
    source: &str,
    drafts: &[EntryDraft],
    trust_domain: &TrustDomain,
) -> Result<ReadEntries, Problems> {
    let text = drafts.iter().map(render).collect();
    // The lines are those of a text that nobody has seen.
    let unlined = |mut problem: Problem| {
        problem.line = None;
        problem
    };
    match read_entries(&PathBuf::from(source), text, trust_domain) {
        Ok(mut read) => {
            for entry in &mut read.entries {
                source.clone_into(&mut entry.origin);
            }
            read.warnings = read.warnings.into_iter().map(unlined).collect();
            Ok(read)
        }
        Err(Problems(problems)) => Err(Problems(problems.into_iter().map(unlined).collect())),
    }
}

/// An entry as the text that [`read_entries`] reads.
pub fn render_entry(entry: &RegistrationEntry) -> String {
    render(&EntryDraft::from(entry))
}

/// Reads a file that the daemon keeps: `[[deny]]` tables and nothing else.
///
/// # Errors
/// Everything that is wrong, with file, line, key, value and remedy.
pub fn read_denials(path: &Path, text: String) -> Result<Vec<DenyItem>, Problems> {
    let mut problems = Vec::new();
    let document = parse(path, text, Part::State("deny"), &mut problems);
    let items = document.map(|document| denials_alone(document, &mut problems)).unwrap_or_default();
    if problems.is_empty() { Ok(items) } else { Err(Problems(problems)) }
}

/// An item of the deny list as the text that [`read_denials`] reads.
pub fn render_denial(item: &DenyItem) -> String {
    render_item(item)
}
