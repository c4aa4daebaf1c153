//! Registration entries in SPIRE's JSON: both the shape of `entry show -output json` and that of
//! `entry create -data`. Keys that only say how SPIRE keeps an entry are passed over; a key that
//! would make an entry mean something that Tacit has no counterpart for refuses the whole file.
//!
//! Source: SPIRE API types, `entry.proto`; SPIRE `proto/spire/common/common.proto`.

use std::fmt;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::admin::dump::{EntryDump, NewEntry};

/// Why a file cannot be imported.
#[derive(Debug, Error)]
pub(in crate::cli) enum SpireError {
    /// Not of either shape.
    #[error("is not SPIRE's JSON of registration entries")]
    Json(#[source] serde_json::Error),
    /// Entries that mean what cannot be.
    #[error("{}", lines(.0))]
    NoCounterpart(Vec<Foreign>),
    /// No entry is left.
    #[error("holds no entries{}", .0.as_ref().map(|id| format!(" of parent {id}")).unwrap_or_default())]
    Empty(Option<String>),
}

/// A key of one entry that has no counterpart.
#[derive(Debug)]
pub(in crate::cli) struct Foreign {
    index: usize,
    spiffe_id: String,
    key: &'static str,
    remedy: &'static str,
}

#[derive(Debug, Deserialize)]
struct File {
    entries: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(alias = "entry_id", default)]
    id: String,
    spiffe_id: Id,
    #[serde(default)]
    parent_id: Option<Id>,
    selectors: Vec<SpireSelector>,
    #[serde(default)]
    x509_svid_ttl: u64,
    #[serde(default)]
    jwt_svid_ttl: u64,
    #[serde(default)]
    federates_with: Vec<String>,
    #[serde(default)]
    dns_names: Vec<String>,
    #[serde(default)]
    hint: String,
    #[serde(default)]
    admin: bool,
    #[serde(default)]
    downstream: bool,
    #[serde(default)]
    store_svid: bool,
    #[serde(alias = "entryExpiry", alias = "entry_expiry", default)]
    expires_at: Number,
    #[serde(default)]
    additional_attributes: Option<Attributes>,
    #[serde(default, rename = "created_at", alias = "createdAt")]
    _created_at: Option<IgnoredAny>,
    #[serde(default, rename = "revision_number", alias = "revisionNumber")]
    _revision_number: Option<IgnoredAny>,
}

/// An ID as text, or in the two parts of the API.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Parts {
        trust_domain: String,
        #[serde(default)]
        path: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct SpireSelector {
    r#type: String,
    value: String,
}

/// A number; JSON of protobuf writes large ones as text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Number {
    Plain(i64),
    Text(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Attributes {
    disable_x509_svid_prefetch: bool,
    jwt_svid_include_jti: bool,
}

/// Reads entries; only those of one parent if it is given.
///
/// # Errors
/// Everything that has no counterpart, at once.
pub(super) fn read(text: &str, parent: Option<&str>) -> Result<Vec<NewEntry>, SpireError> {
    let file: File = serde_json::from_str(text).map_err(SpireError::Json)?;
    let wanted = |entry: &Entry| {
        parent.is_none_or(|parent| {
            entry.parent_id.as_ref().is_some_and(|it| it.to_string() == parent)
        })
    };
    let entries: Vec<_> =
        file.entries.into_iter().enumerate().filter(|(_, entry)| wanted(entry)).collect();
    let foreign: Vec<_> = entries.iter().flat_map(|(index, entry)| entry.foreign(*index)).collect();
    if !foreign.is_empty() {
        return Err(SpireError::NoCounterpart(foreign));
    }
    if entries.is_empty() {
        return Err(SpireError::Empty(parent.map(str::to_owned)));
    }
    Ok(entries.into_iter().map(|(_, entry)| entry.into()).collect())
}

impl Entry {
    fn foreign(&self, index: usize) -> Vec<Foreign> {
        let expires = match &self.expires_at {
            Number::Plain(number) => *number != 0,
            Number::Text(text) => !text.is_empty() && text != "0",
        };
        let attributes = self.additional_attributes.as_ref();
        let no_prefetch = attributes.is_some_and(|it| it.disable_x509_svid_prefetch);
        let jti = attributes.is_some_and(|it| it.jwt_svid_include_jti);
        let nobody = "leave it out: no workload here speaks to a SPIRE server";
        let is_node = self.parent_id.as_ref().is_some_and(Id::is_server);
        [
            (is_node, "parent_id", "leave it out: it names nodes, and this is one node"),
            (self.admin, "admin", nobody),
            (self.downstream, "downstream", nobody),
            (self.store_svid, "store_svid", "write a [[files]] rule for what is to be stored"),
            (expires, "expires_at", "set it to 0, and remove the entry when it is time"),
            (no_prefetch, "additional_attributes.disable_x509_svid_prefetch", "set it to false"),
            (jti, "additional_attributes.jwt_svid_include_jti", "set it to false"),
        ]
        .into_iter()
        .filter(|(is_foreign, ..)| *is_foreign)
        .map(|(_, key, remedy)| Foreign {
            index,
            spiffe_id: self.spiffe_id.to_string(),
            key,
            remedy,
        })
        .collect()
    }
}

impl From<Entry> for NewEntry {
    fn from(entry: Entry) -> Self {
        // SPIRE writes 0 for "the default", and trust domains with or without their scheme.
        let ttl = |seconds: u64| Some(seconds).filter(|seconds| *seconds > 0);
        let domain =
            |name: String| name.strip_prefix("spiffe://").map_or(name.clone(), str::to_owned);
        let selector = |it: SpireSelector| format!("{}:{}", it.r#type, it.value);
        Self {
            id: Some(entry.id).filter(|id| !id.is_empty()),
            spiffe_id: entry.spiffe_id.to_string(),
            selectors: entry.selectors.into_iter().map(selector).collect(),
            svid_ttl: ttl(entry.x509_svid_ttl),
            jwt_svid_ttl: ttl(entry.jwt_svid_ttl),
            hint: Some(entry.hint).filter(|hint| !hint.is_empty()),
            dns_names: entry.dns_names,
            federates_with: entry.federates_with.into_iter().map(domain).collect(),
        }
    }
}

impl Id {
    /// Entries of the server itself give names to nodes. Source: SPIRE, "reserved" IDs.
    fn is_server(&self) -> bool {
        self.to_string().ends_with("/spire/server")
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Parts { trust_domain, path } => write!(f, "spiffe://{trust_domain}{path}"),
        }
    }
}

impl Default for Number {
    fn default() -> Self {
        Self::Plain(0)
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, spiffe_id, key, remedy } = self;
        write!(f, "entries[{index}] ({spiffe_id}): `{key}` has no counterpart; {remedy}")
    }
}

fn lines(foreign: &[Foreign]) -> String {
    foreign.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Entries as `spire-server entry create -data` reads them.
#[derive(Debug, Serialize)]
pub(super) struct Written {
    entries: Vec<WrittenEntry>,
}

#[derive(Debug, Serialize)]
struct WrittenEntry {
    entry_id: String,
    spiffe_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_id: Option<String>,
    selectors: Vec<SpireSelector>,
    x509_svid_ttl: u64,
    jwt_svid_ttl: u64,
    federates_with: Vec<String>,
    dns_names: Vec<String>,
    hint: String,
}

/// The entries, as children of this parent.
pub(super) fn write(entries: &[EntryDump], parent: Option<&str>) -> Written {
    let selector = |text: &String| {
        let (kind, value) = text.split_once(':').unwrap_or((text, ""));
        SpireSelector { r#type: kind.to_owned(), value: value.to_owned() }
    };
    let written = entries.iter().map(|entry| WrittenEntry {
        entry_id: entry.id.clone(),
        spiffe_id: entry.spiffe_id.clone(),
        parent_id: parent.map(str::to_owned),
        selectors: entry.selectors.iter().map(selector).collect(),
        x509_svid_ttl: entry.svid_ttl.unwrap_or(0),
        jwt_svid_ttl: entry.jwt_svid_ttl.unwrap_or(0),
        federates_with: entry.federates_with.iter().map(|it| format!("spiffe://{it}")).collect(),
        dns_names: entry.dns_names.clone(),
        hint: entry.hint.clone(),
    });
    Written { entries: written.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = r#"{"entries":[{"id":"e1","spiffe_id":{"trust_domain":"example.org","path":"/a"},
        "parent_id":{"trust_domain":"example.org","path":"/spire/agent/x"},
        "selectors":[{"type":"unix","value":"uid:1000"},{"type":"unix","value":"path:/bin/a:b"}],
        "x509_svid_ttl":0,"federates_with":["spiffe://partner.org"],"admin":false,"created_at":"1",
        "downstream":false,"expires_at":"0","dns_names":["a.org"],"revision_number":"2",
        "store_svid":false,"jwt_svid_ttl":300,"hint":"internal"}],"next_page_token":""}"#;

    #[test]
    fn reads_what_spire_shows_and_what_it_creates_from() {
        let expected = NewEntry {
            id: Some("e1".to_owned()),
            spiffe_id: "spiffe://example.org/a".to_owned(),
            selectors: vec!["unix:uid:1000".to_owned(), "unix:path:/bin/a:b".to_owned()],
            svid_ttl: None,
            jwt_svid_ttl: Some(300),
            hint: Some("internal".to_owned()),
            dns_names: vec!["a.org".to_owned()],
            federates_with: vec!["partner.org".to_owned()],
        };
        assert_eq!(read(SHOWN, None).unwrap(), [expected]);
        let created = r#"{"entries":[{"selectors":[{"type":"unix","value":"uid:1"}],
            "spiffe_id":"spiffe://example.org/b","parent_id":"spiffe://example.org/spire/agent/x",
            "x509_svid_ttl":200,"jwt_svid_ttl":30,"entryExpiry":0,"entry_id":"b",
            "additional_attributes":{"disable_x509_svid_prefetch":false}}]}"#;
        let read_back = read(created, Some("spiffe://example.org/spire/agent/x")).unwrap();
        assert_eq!(read_back[0].svid_ttl, Some(200));
        assert!(matches!(read(created, Some("spiffe://other.org/x")), Err(SpireError::Empty(_))));
    }

    #[test]
    fn says_everything_that_has_no_counterpart() {
        let entry = |more: &str| {
            format!(
                r#"{{"spiffe_id":"spiffe://example.org/b","selectors":[{{"type":"unix","value":"uid:1"}}]{more}}}"#
            )
        };
        let text = format!(
            r#"{{"entries":[{},{},{}]}}"#,
            entry(""),
            entry(r#","admin":true,"downstream":true,"store_svid":true,"expires_at":"99""#),
            entry(
                r#","parent_id":"spiffe://example.org/spire/server",
                "additional_attributes":{"jwt_svid_include_jti":true,"disable_x509_svid_prefetch":true}"#
            ),
        );
        let error = read(&text, None).unwrap_err().to_string();
        for part in [
            "entries[1] (spiffe://example.org/b): `admin`",
            "entries[1] (spiffe://example.org/b): `downstream`",
            "`store_svid`",
            "`expires_at`",
            "entries[2] (spiffe://example.org/b): `parent_id`",
            "jwt_svid_include_jti",
            "disable_x509_svid_prefetch",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
        let unknown = format!(r#"{{"entries":[{}]}}"#, entry(r#","surprise":1"#));
        assert!(matches!(read(&unknown, None), Err(SpireError::Json(_))));
        assert!(matches!(read("[]", None), Err(SpireError::Json(_))));
    }

    #[test]
    fn what_is_exported_is_imported_alike() {
        let dump = EntryDump {
            id: "e1".to_owned(),
            spiffe_id: "spiffe://example.org/a".to_owned(),
            selectors: vec!["unix:uid:1000".to_owned(), "unix:path:/bin/a:b".to_owned()],
            jwt_svid_ttl: Some(300),
            hint: "internal".to_owned(),
            dns_names: vec!["a.org".to_owned()],
            federates_with: vec!["partner.org".to_owned()],
            ..EntryDump::default()
        };
        let text = serde_json::to_string(&write(&[dump], Some("spiffe://example.org/p"))).unwrap();
        assert_eq!(read(&text, None).unwrap(), read(SHOWN, None).unwrap());
    }
}
