//! The deny list: what `[[deny]]` means.

use crate::config::file::{DenyTable, Key};
use crate::config::problem::{Place, Reader};
use crate::policy::{Denied, DenyError, DenyItem};

/// Reads one item. `None` if there is a problem, which is then told.
pub(in crate::config::build) fn denial(
    table: DenyTable,
    place: &Place,
    reader: &mut Reader<'_>,
) -> Option<DenyItem> {
    let key = |name: &str| format!("{}.{name}", place.key);
    let count = usize::from(table.spiffe_id.0.is_some()) + usize::from(table.serial.0.is_some());
    if count != 1 {
        let what = if count == 0 { "does not say whom it denies" } else { "denies two at once" };
        reader.problem(place, what, "write spiffe_id or serial, and not both");
    }
    let id = read(key("spiffe_id"), table.spiffe_id, Denied::id, reader);
    let serial = read(key("serial"), table.serial, Denied::serial, reader);
    let reason = reader.given(key("reason"), table.reason);
    let (reason, at) = reason.unwrap_or_else(|| (String::new(), place.clone()));
    let line = place.at.as_ref().map_or(0, |at| reader.line(at.start));
    let origin = format!("{}:{line}", reader.path.display());
    let denied = id.or(serial).filter(|_| count == 1);
    let item = DenyItem::new(denied?, &reason, &origin);
    item.map_err(|error| reader.problem(&at, error.to_string(), "shorten it to a line")).ok()
}

fn read(
    key: String,
    field: Key<String>,
    read: fn(&str) -> Result<Denied, DenyError>,
    reader: &mut Reader<'_>,
) -> Option<Denied> {
    let (text, place) = reader.given(key, field)?;
    let remedy = "write spiffe_id = \"spiffe://td/path\", or serial = \"4f00…\" in hex";
    read(&text).map_err(|error| reader.problem(&place, error.to_string(), remedy)).ok()
}
