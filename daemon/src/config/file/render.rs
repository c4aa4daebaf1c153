//! An entry as the text of an `[[entry]]` table, an item of the deny list as that of a `[[deny]]`: how the daemon writes what it will read again.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use crate::config::EntryDraft;
use crate::policy::{Denied, DenyItem};

/// The table, with the keys that the draft gives.
pub(in crate::config) fn render_entry(draft: &EntryDraft) -> String {
    let mut table = Table("[[entry]]\n".to_owned());
    if let Some(id) = &draft.id {
        table.line("id", text(id));
    }
    table.line("spiffe_id", text(&draft.spiffe_id));
    table.line("selectors", list(&draft.selectors));
    for (key, ttl) in [("svid_ttl", draft.svid_ttl), ("jwt_svid_ttl", draft.jwt_svid_ttl)] {
        if let Some(ttl) = ttl {
            table.line(key, duration(ttl));
        }
    }
    if let Some(hint) = &draft.hint {
        table.line("hint", text(hint));
    }
    for (key, items) in [("dns_names", &draft.dns_names), ("federates_with", &draft.federates_with)]
    {
        if !items.is_empty() {
            table.line(key, list(items));
        }
    }
    table.0
}

/// An item of the deny list as the text of a `[[deny]]` table.
pub(in crate::config) fn render_denial(item: &DenyItem) -> String {
    let mut table = Table("[[deny]]\n".to_owned());
    match &item.denied {
        Denied::Id(id) => table.line("spiffe_id", text(&id.to_string())),
        Denied::Serial(serial) => table.line("serial", text(serial)),
    }
    if !item.reason.is_empty() {
        table.line("reason", text(&item.reason));
    }
    table.0
}

struct Table(String);

impl Table {
    fn line(&mut self, key: &str, value: impl Display) {
        // Writing into a string cannot fail.
        let _infallible = writeln!(self.0, "{key} = {value}").is_ok();
    }
}

fn text(value: &str) -> toml::Value {
    toml::Value::String(value.to_owned())
}

fn list(items: &[String]) -> toml::Value {
    toml::Value::Array(items.iter().map(|item| text(item)).collect())
}

fn duration(value: Duration) -> toml::Value {
    text(&humantime::format_duration(value).to_string())
}
