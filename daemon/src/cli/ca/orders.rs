//! Orders about the authorities of a node, done to the files of a directory.

use std::path::Path;
use std::time::SystemTime;

use super::files;
use crate::admin::dump::{CaChanged, CaOrder};
use crate::cli::fault::Fault;
use crate::identity::{CaError, Held, PATIENCE};

pub(super) fn obey(
    directory: &Path,
    name: Option<&str>,
    order: &CaOrder,
    now: SystemTime,
) -> Result<CaChanged, Fault> {
    let changed = |key_id: String| CaChanged { changed: vec![key_id], ..CaChanged::default() };
    if let CaOrder::Request = order {
        let held = Held::begin(directory, PATIENCE, now)?;
        let request = Some(held.request(name.unwrap_or_default())?);
        return Ok(CaChanged { request, ..CaChanged::default() });
    }
    let held = Held::of(directory, PATIENCE, now)?;
    let done = match order {
        CaOrder::Accept { pem, compromised } => changed(held.accept(pem.as_bytes(), *compromised)?),
        CaOrder::Trust { pem } => {
            let told = held.trust(pem.as_bytes())?;
            let (changed, unchanged) = (told.added, told.unchanged);
            CaChanged { changed, unchanged, ..CaChanged::default() }
        }
        CaOrder::Retire { key_id } => changed(held.retire(key_id)?),
        CaOrder::Distrust { key_id } => changed(held.distrust(key_id)?),
        CaOrder::UndoDistrust { key_id } => changed(held.undo_distrust(key_id)?),
        // Only a daemon can see to what follows.
        CaOrder::Rotate { .. } | CaOrder::Replace | CaOrder::Request => {
            return Err(CaError::RootElsewhere.into());
        }
    };
    Ok(CaChanged { ca: files::read(directory, now)?, ..done })
}
