//! The file of bundles, as text.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::store::{BundleSource, Kept, KnownBundle};
use crate::spiffe::{BundleDocument, TrustDomain, parse_trust_domain};
use crate::state::StateError;
use crate::sys::private_files::{check_private_dir, read_private};

/// The file as serde sees it. Keys are trust domains.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    bundles: BTreeMap<String, BundleText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BundleText {
    source: String,
    /// Seconds since 1970.
    since: u64,
    /// In SPIFFE's format.
    bundle: Value,
}

pub(super) fn write(kept: &Kept) -> String {
    let text = |known: &KnownBundle| BundleText {
        source: known.source.as_str().to_owned(),
        since: known.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
        bundle: serde_json::from_str(&known.document.to_json()).unwrap_or_default(),
    };
    let bundles = kept.iter().map(|(domain, known)| (domain.to_string(), text(known))).collect();
    // Of strings and numbers: there is nothing that JSON could not say.
    serde_json::to_string_pretty(&Text { bundles }).unwrap_or_default()
}

/// The bundles of the file; none if there is none.
pub(super) fn read(path: &Path, own: &TrustDomain) -> Result<Kept, StateError> {
    let bytes = match read_private(path) {
        Ok(bytes) => bytes,
        Err(error) if error.is_missing() => return Ok(Kept::new()),
        Err(error) => return Err(error.into()),
    };
    if let Some(state_dir) = path.parent() {
        check_private_dir(state_dir)?;
    }
    let wrong = |what: String| StateError::Bundles { path: path.to_owned(), what };
    let text: Text =
        serde_json::from_slice(&bytes).map_err(|error| wrong(format!("not readable: {error}")))?;
    let mut kept = Kept::new();
    for (name, text) in text.bundles {
        let domain = parse_trust_domain(&name)
            .map_err(|error| wrong(format!("`{name}` is no trust domain: {error}")))?;
        if domain == *own {
            return Err(wrong(format!("holds a bundle of {own}, the node's own trust domain")));
        }
        let source = BundleSource::parse(&text.source)
            .ok_or_else(|| wrong(format!("`{}` is no source of a bundle", text.source)))?;
        let document = BundleDocument::parse(&domain, text.bundle.to_string().as_bytes())
            .map_err(|error| wrong(format!("the bundle of {name} {error}")))?;
        let since =
            SystemTime::UNIX_EPOCH + Duration::from_secs(text.since.min(u64::from(u32::MAX)));
        kept.insert(domain, KnownBundle { source, since, document: Arc::new(document) });
    }
    Ok(kept)
}
