//! SVIDs in files: what `[[files]]` means. Whether a directory is safe to write into is looked at
//! when it is written into, since it may come and go with its program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::settings::interval;
use super::values::{absolute, list};
use super::whole::LONGEST_NAME;
use crate::config::file::{FilesTable, Key, UserWord};
use crate::config::problem::{Place, Problem, Reader};
use crate::registry::Registry;
use crate::spiffe::{SpiffeId, parse_id};
use crate::workload::{FileSet, Owner, ReloadSignal, Told};

/// How long a command may run.
const COMMAND_TIMEOUT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_mins(5));
const USUAL_COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest name of a file, in bytes. Source: `NAME_MAX`, less what a temporary name adds.
const LONGEST_FILE_NAME: usize = 200;

/// A set that was read, before it is known whether all sets can stand together.
pub(super) struct Read {
    set: FileSet,
    spiffe_id: Option<SpiffeId>,
    entry: Option<String>,
    /// The problem to tell if no entry gives what it wants.
    nobody: Problem,
    /// The problem to tell if its name or directory turns out to be taken.
    clash: Problem,
}

/// Reads one set. `None` if there is a problem, which is then told.
pub(super) fn file_set(
    table: FilesTable,
    place: &Place,
    prefix: &str,
    reader: &mut Reader<'_>,
) -> Option<Read> {
    let key = |name: &str| format!("{}.{name}", place.key);
    let name = name(reader.given(key("name"), table.name), place, prefix, reader);
    let entry = reader.given(key("entry"), table.entry);
    let spiffe_id = reader.given(key("spiffe_id"), table.spiffe_id);
    if entry.is_none() && spiffe_id.is_none() {
        reader.problem(place, "does not say whose SVID it is", "give a spiffe_id or an entry");
    }
    let wanted = entry.as_ref().or(spiffe_id.as_ref()).map_or(place, |(_, at)| at).clone();
    let spiffe_id = spiffe_id.and_then(|(text, at)| {
        let remedy = "write a SPIFFE ID such as spiffe://example.org/shop/web";
        let told = |error| reader.problem(&at, format!("is not a SPIFFE ID: {error}"), remedy);
        parse_id(&text).map_err(told).ok()
    });
    let directory = directory((key("directory"), table.directory), place, reader);
    let certificate = file_name(key("certificate"), table.certificate, "svid.pem", reader);
    let private = file_name(key("key"), table.key, "svid.key", reader);
    let bundle = file_name(key("bundle"), table.bundle, "bundle.pem", reader);
    if bundle == certificate || bundle == private {
        let what = "the bundle has the name of another file";
        reader.problem(place, what, "only certificate and key may be one file: rename the bundle");
    }
    let remedy = "say whose the files are, such as owner = \"nginx\"";
    let owner = reader.required("owner", table.owner, place, remedy);
    let owner = owner.and_then(|(word, at)| owner_of(word, &at, reader));
    let signal = reader.given(key("signal"), table.signal).map(|(word, at)| (word.0, at));
    let by_signal = pid_file(&key("pid_file"), table.pid_file, signal, reader);
    let timeout = interval(
        &key("command_timeout"),
        table.command_timeout,
        USUAL_COMMAND_TIMEOUT,
        COMMAND_TIMEOUT,
        reader,
    );
    let command = command(key("command"), table.command, timeout, reader);
    if by_signal.is_some() && command.is_some() {
        let what = "tells its program twice";
        reader.problem(place, what, "keep either pid_file and signal, or command");
    }
    let line = place.at.as_ref().map_or(0, |at| reader.line(at.start));
    let set = FileSet {
        name,
        entry: String::new(),
        directory: directory?,
        certificate,
        key: private,
        bundle,
        owner: owner?,
        told: by_signal.or(command).unwrap_or(Told::Not),
    };
    let mut clash = reader.warning(place, "", "");
    clash.line = Some(line);
    let nobody = reader.warning(&wanted, "", "");
    Some(Read { set, spiffe_id, entry: entry.map(|(entry, _)| entry), nobody, clash })
}

/// The sets with the entries that they mean. What cannot stand together is told.
pub(super) fn settle(
    read: Vec<Read>,
    registry: Option<&Registry>,
    problems: &mut Vec<Problem>,
) -> Vec<FileSet> {
    let mut names: BTreeMap<Arc<str>, String> = BTreeMap::new();
    let mut directories: BTreeMap<PathBuf, String> = BTreeMap::new();
    let mut sets = Vec::new();
    for Read { mut set, spiffe_id, entry, nobody, clash } in read {
        let here = format!("{}:{}", clash.file.display(), clash.line.unwrap_or_default());
        let mut told = |what: String, remedy: &str| {
            problems.push(Problem { what, remedy: remedy.to_owned(), ..clash.clone() });
        };
        if let Some(first) = names.insert(Arc::clone(&set.name), here.clone()) {
            told(format!("the files at {first} have the same name"), "choose another name");
        }
        if let Some(first) = directories.insert(set.directory.clone(), here) {
            told(format!("the files at {first} are in the same directory"), "choose another one");
        }
        // Without a registry it is not known what there is, and why is told elsewhere.
        let Some(registry) = registry else { continue };
        let mut fitting = registry.entries().iter().filter(|it| {
            entry.as_ref().is_none_or(|id| *id == it.id)
                && spiffe_id.as_ref().is_none_or(|id| *id == it.spiffe_id)
        });
        match fitting.next() {
            Some(found) => {
                set.entry.clone_from(&found.id);
                sets.push(set);
            }
            None => problems.push(Problem {
                what: "no entry of the configuration gives this identity".to_owned(),
                remedy: "declare the [[entry]], or correct the ID".to_owned(),
                ..nobody
            }),
        }
    }
    sets
}

fn name(
    given: Option<(String, Place)>,
    place: &Place,
    prefix: &str,
    reader: &mut Reader<'_>,
) -> Arc<str> {
    let Some((name, place)) = given else {
        return format!("{prefix}{}", place.key).into();
    };
    if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        let remedy = format!("write 1 to {LONGEST_NAME} bytes without control characters");
        reader.problem(&place, "is no name", remedy);
    }
    name.into()
}

fn directory(
    (key, field): (String, Key<PathBuf>),
    table: &Place,
    reader: &mut Reader<'_>,
) -> Option<PathBuf> {
    if field.0.is_none() {
        let remedy = "say where the files are to be, such as /run/shop-web/svid";
        reader.problem(table, "has no directory", remedy);
        return None;
    }
    let place = field.0.as_ref().map(|given| Place {
        key: key.clone(),
        at: Some(given.at.clone()),
        value: Some(given.text.clone()),
    });
    let path = absolute(&key, field, PathBuf::new(), reader);
    let text = path.to_string_lossy();
    if path == Path::new("/") || text.contains(char::is_control) {
        let remedy = "name a directory for these files alone";
        reader.problem(&place.unwrap_or_default(), "cannot hold the files", remedy);
        return None;
    }
    // One spelling, so that the same directory is known again.
    (!text.is_empty()).then(|| path.components().collect())
}

fn file_name(key: String, field: Key<String>, usual: &str, reader: &mut Reader<'_>) -> String {
    let Some((name, place)) = reader.given(key, field) else {
        return usual.to_owned();
    };
    let is_bad = |name: &str| {
        name.is_empty()
            || name.len() > LONGEST_FILE_NAME
            || name.starts_with('.')
            || name.contains('/')
            || name.contains(char::is_control)
    };
    if is_bad(&name) {
        let remedy = "write a bare name such as svid.pem, without `/` and not hidden";
        reader.problem(&place, "is no name of a file", remedy);
    }
    name
}

fn owner_of(word: UserWord, place: &Place, reader: &mut Reader<'_>) -> Option<Owner> {
    let text = match word {
        UserWord::Number(uid) => uid.to_string(),
        UserWord::Name(text) => text,
    };
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user.to_owned(), Some(group.to_owned())),
        None => (text, None),
    };
    // (uid_t)-1 and (gid_t)-1 mean "no change" to the kernel.
    let number = |text: &str| text.parse::<u32>().ok().filter(|id| *id != u32::MAX);
    let known = match number(&user) {
        Some(uid) => uzers::get_user_by_uid(uid),
        None => uzers::get_user_by_name(&user),
    };
    let Some(uid) = number(&user).or_else(|| known.as_ref().map(uzers::User::uid)) else {
        let remedy = "create the user first, or write its number";
        reader.problem(&place.quoting(&user), "no such user on this host", remedy);
        return None;
    };
    let gid = match &group {
        Some(group) => {
            number(group).or_else(|| uzers::get_group_by_name(group).map(|group| group.gid()))
        }
        None => known.map(|user| user.primary_group_id()),
    };
    if gid.is_none() {
        let (what, remedy) = match group {
            Some(_) => ("no such group on this host", "create the group, or write its number"),
            None => ("its group is not known", "write user:group, by number"),
        };
        reader.problem(place, what, remedy);
    }
    Some(Owner { uid, gid: gid? })
}

fn pid_file(
    key: &str,
    field: Key<PathBuf>,
    signal: Option<(ReloadSignal, Place)>,
    reader: &mut Reader<'_>,
) -> Option<Told> {
    let Some(given) = &field.0 else {
        if let Some((_, place)) = signal {
            let remedy = "name a pid_file, which says which process gets it";
            reader.problem(&place, "would reach nobody", remedy);
        }
        return None;
    };
    let is_readable = given.value.is_ok();
    let path = absolute(key, field, PathBuf::new(), reader);
    let signal = signal.map_or(ReloadSignal::Hup, |(signal, _)| signal);
    is_readable.then_some(Told::Signal { pid_file: path, signal })
}

fn command(
    key: String,
    field: Key<Vec<String>>,
    timeout: Duration,
    reader: &mut Reader<'_>,
) -> Option<Told> {
    let (argv, place) = list(key, field, reader)?;
    let is_absolute = argv.first().is_some_and(|program| program.starts_with('/'));
    if !is_absolute {
        let remedy = "write the program's whole path first, such as [\"/usr/sbin/nginx\", \"-s\", \"reload\"]";
        reader.problem(&place, "does not begin with an absolute path", remedy);
        return None;
    }
    if argv.iter().any(|word| word.contains('\0')) {
        reader.problem(&place, "holds a NUL byte", "remove it");
        return None;
    }
    Some(Told::Command { argv, timeout })
}
