//! The answer to `tacit explain`: who it is, why, and what that leads to.

use super::record;
use crate::admin::dump::{DecisionDump, ExplainDump, IdentityDump, ProcessDump, ScopeDump};
use crate::cli::output::{Columns, cell, clean, put};

pub(in crate::cli) fn explanation(found: &ExplainDump) -> String {
    let mut facts = Vec::new();
    facts.push(("Asked about", found.subject.clone()));
    facts.extend(found.process.as_ref().map(|it| ("Process", process(it))));
    // Two identities between which something is supposed to happen are in no scope.
    if found.scope.is_some() || found.process.is_some() || found.record.is_some() {
        let scope = found.scope.as_ref().map_or_else(|| "none: only observed".to_owned(), scope);
        facts.push(("Scope", scope));
    }
    facts.extend(found.identity.as_ref().map(|it| ("Identity", identity(it))));
    facts.extend(found.decision.as_ref().map(|it| ("Decision", decision(it))));
    facts.extend(found.notes.iter().map(|note| ("Note", note.clone())));
    let mut text = String::new();
    for (name, value) in facts {
        put(&mut text, format_args!("{name:<12}  {}", clean(&value)));
    }
    if let Some(found) = &found.record {
        put(&mut text, format_args!("\nRecord\n{}", record(found).trim_end()));
    }
    if let Some(found) = &found.identity {
        selectors(&mut text, found);
        entries(&mut text, found);
    }
    if let Some(found) = &found.decision {
        rules(&mut text, found);
    }
    text
}

fn process(process: &ProcessDump) -> String {
    let exe = process.exe.as_deref().unwrap_or("an executable that cannot be seen");
    let place = process.unit.as_deref().or(process.cgroup.as_deref());
    let place = place.map(|place| format!(", in {place}")).unwrap_or_default();
    format!("pid {} {exe}, uid {} gid {}{place}", process.pid, process.uid, process.gid)
}

fn scope(scope: &ScopeDump) -> String {
    let user = scope.uid.map(|uid| format!(" user {uid}")).unwrap_or_default();
    format!("{}{user}: {}", scope.cgroup, scope.mode)
}

fn identity(identity: &IdentityDump) -> String {
    match (&identity.attest_error, &identity.entry) {
        (Some(error), _) => format!("none: {error}"),
        (None, Some(entry)) => {
            let denied = identity.denied.as_ref().map(|why| format!(", denied: {why}"));
            format!("{} by entry {}{}", entry.spiffe_id, entry.id, denied.unwrap_or_default())
        }
        (None, None) => "none: no registration entry matches".to_owned(),
    }
}

fn decision(decision: &DecisionDump) -> String {
    let why = decision.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let rule = decision.rule.as_ref().map(|rule| format!(", rule {rule}")).unwrap_or_default();
    let more = decision.detail.as_ref().map(|more| format!(" ({more})")).unwrap_or_default();
    format!("{} {}{why}{rule}{more}", decision.direction, decision.verdict)
}

fn selectors(text: &mut String, found: &IdentityDump) {
    if found.selectors.is_empty() {
        return;
    }
    text.push_str("\nSelectors found\n");
    for selector in &found.selectors {
        put(text, format_args!("  {}", clean(selector)));
    }
}

fn entries(text: &mut String, found: &IdentityDump) {
    for tied in &found.tied {
        let what = "matches as well, and loses by its id";
        put(text, format_args!("\nEntry {} {what}", clean(&tied.id)));
    }
    if found.near_misses.is_empty() {
        return;
    }
    text.push_str("\nEntries that nearly match\n");
    let mut columns = Columns::new(&["ENTRY", "SPIFFE ID", "MATCHED", "FIRST THAT FAILED"]);
    for miss in &found.near_misses {
        let matched = format!("{} of {}", miss.matched, miss.of);
        columns.row([cell(&miss.entry), cell(&miss.spiffe_id), cell(matched), cell(&miss.missing)]);
    }
    text.push_str(&columns.render());
}

fn rules(text: &mut String, found: &DecisionDump) {
    if found.rules.is_empty() {
        return;
    }
    put(text, format_args!("\nRules for {} connections", clean(&found.direction)));
    let mut columns = Columns::new(&["RULE", "ACTION", "STANDING"]);
    for rule in &found.rules {
        let action =
            if rule.dry_run { format!("{} (dry run)", rule.action) } else { rule.action.clone() };
        columns.row([cell(&rule.rule), cell(action), cell(&rule.standing)]);
    }
    text.push_str(&columns.render());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::dump::NearMissDump;

    #[test]
    fn says_which_selector_failed() {
        let identity = IdentityDump {
            selectors: vec!["unix:uid:1000".to_owned()],
            near_misses: vec![NearMissDump {
                entry: "redis".to_owned(),
                spiffe_id: "spiffe://example.org/redis".to_owned(),
                matched: 1,
                of: 2,
                missing: "unix:path:/usr/bin/redis-server".to_owned(),
            }],
            ..IdentityDump::default()
        };
        let decision = DecisionDump {
            direction: "outbound".to_owned(),
            verdict: "denied".to_owned(),
            reason: Some("no_identity".to_owned()),
            ..DecisionDump::default()
        };
        let found = ExplainDump {
            subject: "4711".to_owned(),
            identity: Some(identity),
            decision: Some(decision),
            ..ExplainDump::default()
        };
        let expected = "\
Asked about   4711
Identity      none: no registration entry matches
Decision      outbound denied: no_identity

Selectors found
  unix:uid:1000

Entries that nearly match
ENTRY  SPIFFE ID                   MATCHED  FIRST THAT FAILED
redis  spiffe://example.org/redis  1 of 2   unix:path:/usr/bin/redis-server
";
        assert_eq!(explanation(&found), expected);
    }
}
