//! Authorities, as people read them.

use crate::admin::dump::{AuthorityDump, CaChanged, CaDump, CaOrder};
use crate::cli::output::{self, Columns, Tone, cell, toned};

pub(super) fn authorities(found: &CaDump) -> String {
    let mut columns = Columns::new(&["ROLE", "KEY ID", "NOT AFTER", "STAGE", "NOTE"]);
    for authority in &found.authorities {
        let note = authority.warning.as_deref().unwrap_or_default();
        let tone = if note.is_empty() { Tone::Plain } else { Tone::Bad };
        let (role, key_id, end) = (&authority.role, &authority.key_id, &authority.not_after);
        let stage = stage(authority);
        columns.row([cell(role), cell(key_id), cell(end), cell(stage), toned(note, tone)]);
    }
    let root = if found.root_key_present { "here" } else { "kept elsewhere" };
    let distrusted = found.distrusted.iter().map(|key_id| format!("Distrusted    {key_id}\n"));
    format!(
        "Trust domain  {}\nRoot key      {root}\n{}\n{}",
        output::clean(&found.trust_domain),
        distrusted.collect::<String>(),
        columns.render()
    )
}

pub(super) fn stage(authority: &AuthorityDump) -> String {
    match (authority.stage.as_str(), &authority.stage_until) {
        ("prepared", Some(at)) => format!("signs from {at}"),
        ("retires", Some(at)) => format!("trusted until {at}"),
        (stage, _) => stage.to_owned(),
    }
}

pub(super) fn changed(order: &CaOrder, done: &CaChanged) -> String {
    fn say(key_ids: &[String], what: &str) -> String {
        let lines: Vec<_> = key_ids.iter().map(|key_id| format!("{key_id} {what}\n")).collect();
        lines.concat()
    }
    let what = match order {
        CaOrder::Accept { .. } => "signs for this node",
        CaOrder::Trust { .. } => "is trusted",
        CaOrder::Retire { .. } => "is trusted no more",
        CaOrder::Distrust { .. } => "is distrusted, and all that hangs on it",
        CaOrder::UndoDistrust { .. } => "is no longer distrusted",
        CaOrder::Rotate { .. } | CaOrder::Replace | CaOrder::Request => "",
    };
    let unchanged = say(&done.unchanged, "was trusted before");
    say(&done.changed, what) + &unchanged + "\n" + &authorities(&done.ca)
}
