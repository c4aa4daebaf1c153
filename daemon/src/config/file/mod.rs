//! The shape of the file: one struct per table, every key documented with unit, default and range.
//! Pure shape: what the values mean is decided in `build`.

mod document;
mod federation;
mod key;
mod render;
mod scalar;
mod sections;
mod tables;
mod words;

pub(super) use document::{Document, Part, Sections, Tables, parse, read, read_leniently};
pub(super) use federation::{
    BundleEndpointSection, FederatesWithTable, FederationSection, OidcSection,
};
pub(super) use key::{Given, Key, keys_of};
pub(super) use render::{render_denial, render_entry};
pub(super) use scalar::{Interval, Ports, Size};
pub(super) use sections::{
    AdminSection, AttestSection, AuditSection, CaptureSection, IssuerSection, LogSection,
    NodeSection, ProxySection, WorkloadApiSection,
};
pub(super) use tables::{
    DenyTable, EntryTable, FilesTable, InboundTable, OutboundTable, ScopeTable,
};
pub(super) use words::{InboundActionKind, OutboundActionKind, UserWord};
