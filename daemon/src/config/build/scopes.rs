//! Scopes: what `[[scope]]` means, and which combinations cannot hold.

use super::values::{cgroup, ports};
use super::whole::Around;
use crate::config::file::{Key, Ports, ScopeTable, UserWord};
use crate::config::problem::{Place, Reader};
use crate::workload::{FailMode, Mode, OtherTransports, PortSet, Scope, ScopeLimits};

/// What the kernel's tables hold. More is told here, and not found out when it is to be in force.
const HELD: ScopeLimits = ScopeLimits::HELD;

/// Reads one scope and adds it to those before it, with where it stands.
pub(super) fn scope(
    table: ScopeTable,
    place: &Place,
    reader: &mut Reader<'_>,
    scopes: &mut Vec<(Scope, String)>,
    around: &mut Around<'_>,
) {
    let key = |name: &str| format!("{}.{name}", place.key);
    let remedy = "name one, such as cgroup = \"/system.slice/redis.service\"";
    let path = reader.required("cgroup", table.cgroup, place, remedy);
    let remedy = "say mode = \"observe\", \"permissive\" or \"strict\"";
    let mode = reader.required("mode", table.mode, place, remedy);
    let uid = user(key("user"), table.user, reader);
    let path = path.and_then(|(path, place)| Some((cgroup(&path, &place, reader)?, place)));
    let fail = reader.given(key("fail"), table.fail).map(|(word, place)| (word.0, place));
    let others = reader.given(key("other_transports"), table.other_transports);
    let mode = mode.map(|(word, _)| word.0);
    let inbound = captured(key("inbound_ports"), table.inbound_ports, mode, reader);
    let outbound = captured(key("outbound_ports"), table.outbound_ports, mode, reader);
    if let (Some(Mode::Strict), Some((FailMode::Open, place))) = (mode, &fail) {
        let what = "a strict scope is never open";
        let remedy = "remove the key, or say mode = \"permissive\"";
        reader.problem(place, what, remedy);
    }
    let (Some((cgroup, path_place)), Some(mode), Ok(uid)) = (path, mode, uid) else {
        return;
    };
    let (default_fail, default_others) = match mode {
        Mode::Strict => (FailMode::Closed, OtherTransports::DnsOnly),
        Mode::Observe | Mode::Permissive => (FailMode::Open, OtherTransports::Allow),
    };
    let scope = Scope {
        cgroup,
        uid,
        mode,
        fail: fail.map_or(default_fail, |(fail, _)| fail),
        other_transports: others.map_or(default_others, |(word, _)| word.0),
        inbound_ports: inbound,
        outbound_ports: outbound,
    };
    stands_alone(&scope, &path_place, reader, around);
    stands_beside(&scope, &path_place, reader, scopes);
    let line = path_place.at.as_ref().map_or(0, |at| reader.line(at.start));
    scopes.push((scope, format!("{}:{line}", reader.path.display())));
}

/// Whether the scope can hold, and is probably meant, whatever other scopes there are.
fn stands_alone(scope: &Scope, place: &Place, reader: &mut Reader<'_>, around: &mut Around<'_>) {
    let capture = around.capture.as_str();
    let below = scope.cgroup.strip_prefix(capture.trim_end_matches('/'));
    if !below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
        let what = format!("lies outside of capture.cgroup, which is {capture}");
        reader.problem(place, what, "attach the programs further up, or move the scope");
    }
    if scope.cgroup.len() > HELD.path_bytes {
        let what = format!("is longer than {} bytes", HELD.path_bytes);
        reader.problem(place, what, "name one of the cgroups above it");
    }
    if scope.cgroup.split('/').filter(|part| !part.is_empty()).count() > HELD.levels {
        let what = format!("lies deeper than {} levels", HELD.levels);
        reader.problem(place, what, "name one of the cgroups above it");
    }
    if scope.cgroup == "/" && scope.mode == Mode::Strict {
        let what = "every program of this host is strict, also those by which it is reached and \
                    repaired";
        let remedy = "name the slices of the services that are meant, or keep a way in open: a \
                      scope of its own for it, in a deeper cgroup";
        around.warnings.push(reader.warning(place, what, remedy));
    }
}

/// Whether there is room for it beside those before it.
fn stands_beside(
    scope: &Scope,
    place: &Place,
    reader: &mut Reader<'_>,
    before: &[(Scope, String)],
) {
    let same_cgroup = || before.iter().filter(|(it, _)| it.cgroup == scope.cgroup);
    if let Some((_, first)) = same_cgroup().find(|(it, _)| it.uid == scope.uid) {
        let what = format!("the scope at {first} is the same cgroup and user");
        reader.problem(place, what, "keep one of them");
    } else if same_cgroup().count() >= HELD.users {
        let what =
            format!("one cgroup holds scopes for {} users, and this is one more", HELD.users);
        reader.problem(place, what, "give users cgroups of their own");
    }
    if before.len() == HELD.scopes {
        let what = format!("there are more than {} scopes", HELD.scopes);
        reader.problem(place, what, "merge some under a cgroup above them");
    }
}

/// The ports that are captured: all in strict, where nothing may be left out.
fn captured(
    key: String,
    field: Key<Ports>,
    mode: Option<Mode>,
    reader: &mut Reader<'_>,
) -> PortSet {
    let place = field.0.as_ref().map(|given| Place {
        key: key.clone(),
        at: Some(given.at.clone()),
        value: Some(given.text.clone()),
    });
    let ports = ports(key, field, reader);
    if let Some(place) = place.as_ref().filter(|_| ports.ranges().len() > HELD.port_ranges) {
        let what = format!("holds more than {} ports and ranges", HELD.port_ranges);
        reader.problem(place, what, "join some to ranges, or capture \"all\"");
    }
    if let (Some(Mode::Strict), false, Some(place)) = (mode, ports.is_all(), place) {
        let what = "a strict scope leaves no port out";
        let remedy = "remove the key, and say with a rule what may pass in the clear: \
                      [[outbound]] action = \"plaintext\" or [[inbound]] plaintext = \"admit\"";
        reader.problem(&place, what, remedy);
    }
    ports
}

/// The uid, `None` for all users; `Err` if there is a problem, which is then told.
fn user(key: String, field: Key<UserWord>, reader: &mut Reader<'_>) -> Result<Option<u32>, ()> {
    let is_given = field.0.is_some();
    let Some((user, place)) = reader.given(key, field) else {
        return if is_given { Err(()) } else { Ok(None) };
    };
    match user {
        // (uid_t)-1 means "no change" to the kernel and is no user.
        UserWord::Number(u32::MAX) => {
            reader.problem(&place, "is no user", "write a number from 0 to 4294967294");
            Err(())
        }
        UserWord::Number(uid) => Ok(Some(uid)),
        UserWord::Name(name) => {
            if let Some(user) = uzers::get_user_by_name(&name) {
                return Ok(Some(user.uid()));
            }
            let remedy = "create the user first, or write its number";
            reader.problem(&place, "no such user on this host", remedy);
            Err(())
        }
    }
}
