//! One file as its tables: read, parsed, unknown keys told and set aside. Never fails as a whole:
//! what could be read is given, what could not is told.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::{
    AdminSection, AttestSection, AuditSection, BundleEndpointSection, CaptureSection, DenyTable,
    EntryTable, FederatesWithTable, FederationSection, FilesTable, InboundTable, IssuerSection,
    LogSection, NodeSection, OidcSection, OutboundTable, ProxySection, ScopeTable,
    WorkloadApiSection, keys_of,
};
use crate::config::problem::{Place, Problem, Reader, nearest};

/// A file that was read.
#[derive(Debug)]
pub(in crate::config) struct Document {
    pub(in crate::config) path: PathBuf,
    pub(in crate::config) text: String,
    pub(in crate::config) sections: Sections,
    pub(in crate::config) tables: Tables,
}

/// The tables of the main file that stand once.
#[derive(Debug, Default)]
pub(in crate::config) struct Sections {
    pub(in crate::config) node: NodeSection,
    pub(in crate::config) capture: CaptureSection,
    pub(in crate::config) attest: AttestSection,
    pub(in crate::config) issuer: IssuerSection,
    pub(in crate::config) proxy: ProxySection,
    pub(in crate::config) workload_api: WorkloadApiSection,
    pub(in crate::config) bundle_endpoint: BundleEndpointSection,
    pub(in crate::config) federation: FederationSection,
    pub(in crate::config) oidc: OidcSection,
    pub(in crate::config) audit: AuditSection,
    pub(in crate::config) admin: AdminSection,
    pub(in crate::config) log: LogSection,
}

/// The tables that stand any number of times, each with its place in the file.
#[derive(Debug, Default)]
pub(in crate::config) struct Tables {
    pub(in crate::config) scopes: Vec<(usize, ScopeTable)>,
    pub(in crate::config) entries: Vec<(usize, EntryTable)>,
    pub(in crate::config) denials: Vec<(usize, DenyTable)>,
    pub(in crate::config) outbound: Vec<(usize, OutboundTable)>,
    pub(in crate::config) inbound: Vec<(usize, InboundTable)>,
    pub(in crate::config) files: Vec<(usize, FilesTable)>,
    pub(in crate::config) federates_with: Vec<(usize, FederatesWithTable)>,
}

/// Which tables a file may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) enum Part {
    /// The main file: all.
    Main,
    /// An included file: all that may stand any number of times.
    Included,
    /// What the daemon itself keeps: tables of this name alone.
    State(&'static str),
}

const SECTIONS: [&str; 12] = [
    "node",
    "capture",
    "attest",
    "issuer",
    "proxy",
    "workload_api",
    "bundle_endpoint",
    "federation",
    "oidc",
    "audit",
    "admin",
    "log",
];
const TABLES: [&str; 7] =
    ["scope", "entry", "deny", "outbound", "inbound", "files", "federates_with"];

/// Reads a file. `None` if it cannot be read or is not TOML, which is then told.
pub(in crate::config) fn read(
    path: &Path,
    part: Part,
    problems: &mut Vec<Problem>,
) -> Option<Document> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            problems.push(Problem {
                file: path.to_owned(),
                line: None,
                key: String::new(),
                value: None,
                what: format!("cannot be read: {error}"),
                remedy: "check that it exists and that root may read it".to_owned(),
            });
            return None;
        }
    };
    parse(path, text, part, problems)
}

/// Reads a file's text. `None` if it is not TOML, which is then told.
pub(in crate::config) fn parse(
    path: &Path,
    text: String,
    part: Part,
    problems: &mut Vec<Problem>,
) -> Option<Document> {
    let mut sections = Sections::default();
    let mut tables = Tables::default();
    {
        let mut reader = Reader::new(path, &text, problems);
        let (root, errors) = DeTable::parse_recoverable(&text);
        for error in &errors {
            let at = error.span().map(|span| span.start);
            let place = Place { key: String::new(), at: at.map(|at| at..at), value: None };
            let what = format!("not TOML: {}", error.message().trim().replace('\n', " "));
            reader.problem(&place, what, "correct the syntax");
        }
        // What follows a syntax error may be misread; to report on it would mislead.
        if !errors.is_empty() {
            return None;
        }
        tables_of(root.into_inner(), part, &mut reader, &mut sections, &mut tables);
    }
    Some(Document { path: path.to_owned(), text, sections, tables })
}

/// The tables that stand once, as far as they can be read; what is wrong is for others to tell. Gives
/// the text, and whether the syntax is whole.
pub(in crate::config) fn read_leniently(path: &Path) -> std::io::Result<(String, Sections, bool)> {
    let text = std::fs::read_to_string(path)?;
    let (root, errors) = DeTable::parse_recoverable(&text);
    let is_whole = errors.is_empty();
    let mut ignored = Vec::new();
    let (mut sections, mut tables) = (Sections::default(), Tables::default());
    let mut reader = Reader::new(path, &text, &mut ignored);
    tables_of(root.into_inner(), Part::Main, &mut reader, &mut sections, &mut tables);
    Ok((text, sections, is_whole))
}

fn tables_of(
    root: DeTable<'_>,
    part: Part,
    reader: &mut Reader<'_>,
    sections: &mut Sections,
    tables: &mut Tables,
) {
    for (key, value) in root {
        let at = key.span().start;
        let name = key.get_ref().as_ref();
        match (name, part) {
            (_, Part::State(own)) if name != own => unknown(name, "", at, &[own], reader),
            ("entry", _) => tables.entries = list(name, value, reader),
            ("deny", _) => tables.denials = list(name, value, reader),
            ("scope", _) => tables.scopes = list(name, value, reader),
            ("outbound", _) => tables.outbound = list(name, value, reader),
            ("federates_with", _) => tables.federates_with = list(name, value, reader),
            ("inbound", _) => tables.inbound = list(name, value, reader),
            ("files", _) => tables.files = list(name, value, reader),
            ("node", Part::Main) => sections.node = section(name, value, reader),
            ("capture", Part::Main) => sections.capture = section(name, value, reader),
            ("attest", Part::Main) => sections.attest = section(name, value, reader),
            ("issuer", Part::Main) => sections.issuer = section(name, value, reader),
            ("proxy", Part::Main) => sections.proxy = section(name, value, reader),
            ("workload_api", Part::Main) => {
                sections.workload_api = section(name, value, reader);
            }
            ("bundle_endpoint", Part::Main) => {
                sections.bundle_endpoint = section(name, value, reader);
            }
            ("federation", Part::Main) => sections.federation = section(name, value, reader),
            ("oidc", Part::Main) => sections.oidc = section(name, value, reader),
            ("audit", Part::Main) => sections.audit = section(name, value, reader),
            ("admin", Part::Main) => sections.admin = section(name, value, reader),
            ("log", Part::Main) => sections.log = section(name, value, reader),
            (_, Part::Included) if SECTIONS.contains(&name) => reader.problem(
                &Place::table(name, at),
                "an included file holds scopes, entries, rules, the deny list and files only",
                format!("move [{name}] to the main file"),
            ),
            _ => unknown(name, "", at, &[SECTIONS.as_slice(), TABLES.as_slice()].concat(), reader),
        }
    }
}

/// A table that stands once.
fn section<T>(name: &str, value: Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> T
where
    T: DeserializeOwned + Default,
{
    let at = value.span().start;
    if value.get_ref().is_table() {
        return table(name, value, reader);
    }
    let remedy = format!("write it as a table, under the line [{name}]");
    reader.problem(&Place::table(name, at), "must be a table", remedy);
    T::default()
}

/// A table that stands any number of times.
fn list<T>(name: &str, value: Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> Vec<(usize, T)>
where
    T: DeserializeOwned + Default,
{
    let at = value.span().start;
    let items = match value.into_inner() {
        DeValue::Array(items) if items.iter().all(|item| item.get_ref().is_table()) => items,
        _ => {
            let remedy = format!("begin each with a line [[{name}]], in double brackets");
            reader.problem(&Place::table(name, at), "must be a list of tables", remedy);
            return Vec::new();
        }
    };
    let mut read = |(index, item): (usize, Spanned<DeValue<'_>>)| {
        (item.span().start, table(&format!("{name}[{index}]"), item, reader))
    };
    items.into_iter().enumerate().map(&mut read).collect()
}

fn table<T>(name: &str, value: Spanned<DeValue<'_>>, reader: &mut Reader<'_>) -> T
where
    T: DeserializeOwned + Default,
{
    let (span, value) = (value.span(), value.into_inner());
    let DeValue::Table(entries) = value else {
        return T::default();
    };
    let known = keys_of::<T>();
    let mut kept = DeTable::new();
    for (key, value) in entries {
        if known.contains(&key.get_ref().as_ref()) {
            kept.insert(key, value);
        } else {
            unknown(key.get_ref(), name, key.span().start, known, reader);
        }
    }
    let table = Spanned::new(span.clone(), DeValue::Table(kept));
    T::deserialize(ValueDeserializer::from(table)).unwrap_or_else(|error| {
        let remedy = "write it as config.example.toml shows";
        reader.problem(&Place::table(name, span.start), error.message(), remedy);
        T::default()
    })
}

fn unknown(key: &str, table: &str, at: usize, known: &[&str], reader: &mut Reader<'_>) {
    let remedy = match nearest(key, known) {
        Some(near) => format!("perhaps `{near}` is meant"),
        None => format!("known here are {}", known.join(", ")),
    };
    let dot = if table.is_empty() { "" } else { "." };
    reader.problem(&Place::table(format!("{table}{dot}{key}"), at), "unknown key", remedy);
}
