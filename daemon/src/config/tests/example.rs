//! `config.example.toml` parses, is complete, and shows the defaults that hold.

use super::*;
use crate::config::file::{
    AdminSection, AttestSection, AuditSection, BundleEndpointSection, CaptureSection, DenyTable,
    EntryTable, FederatesWithTable, FederationSection, FilesTable, InboundTable, IssuerSection,
    LogSection, NodeSection, OidcSection, OutboundTable, ProxySection, ScopeTable,
    WorkloadApiSection, keys_of,
};
use crate::spiffe::{BundleDocument, parse_trust_domain};

const EXAMPLE: &str = include_str!("../../../../config.example.toml");

/// The example with every key in force: lines such as `#name = "node-1"` are keys, `# Name` is
/// prose.
fn complete() -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(key) if !key.starts_with(' ') && !key.is_empty() => key.to_owned(),
        _ => line.to_owned(),
    };
    EXAMPLE.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_says_the_defaults() {
    let config = Files::new(EXAMPLE).load().unwrap().0;
    assert_eq!(config, Config::default_for(parse_trust_domain("example.org").unwrap()));
}

#[test]
fn a_trust_domain_is_enough() {
    let config = Files::new("[node]\ntrust_domain = \"example.org\"").load().unwrap().0;
    assert_eq!(config, Config::default_for(parse_trust_domain("example.org").unwrap()));
}

#[test]
fn every_key_of_the_example_is_understood() {
    let files = Files::new(&complete());
    std::fs::create_dir(files.path("conf.d")).unwrap();
    let bundle = crate::identity::void_bundle(
        &parse_trust_domain("partner.example.com").unwrap(),
        std::time::SystemTime::UNIX_EPOCH,
    );
    let bundle = bundle.unwrap();
    files.write("partner.json", &BundleDocument::plain(bundle.clone()).to_json());
    files.write("partner-web.pem", &bundle.to_pem());
    let (config, warnings) = files.load().unwrap_or_else(|problems| panic!("{problems}"));
    assert!(warnings.is_empty(), "{warnings:?}");
    let found = (config.scopes.len(), config.registry.entries().len(), config.files.len());
    assert_eq!((found, config.outbound.len(), config.inbound.len()), ((2, 2, 2), 1, 1));
    assert_eq!(config.denied.len(), 2);
}

#[test]
fn the_example_has_every_key() {
    let table: toml::Table = complete().parse().unwrap();
    let sections: [(&str, &[&str]); 19] = [
        ("node", keys_of::<NodeSection>()),
        ("capture", keys_of::<CaptureSection>()),
        ("attest", keys_of::<AttestSection>()),
        ("issuer", keys_of::<IssuerSection>()),
        ("proxy", keys_of::<ProxySection>()),
        ("workload_api", keys_of::<WorkloadApiSection>()),
        ("bundle_endpoint", keys_of::<BundleEndpointSection>()),
        ("federation", keys_of::<FederationSection>()),
        ("federates_with", keys_of::<FederatesWithTable>()),
        ("oidc", keys_of::<OidcSection>()),
        ("audit", keys_of::<AuditSection>()),
        ("admin", keys_of::<AdminSection>()),
        ("log", keys_of::<LogSection>()),
        ("scope", keys_of::<ScopeTable>()),
        ("entry", keys_of::<EntryTable>()),
        ("deny", keys_of::<DenyTable>()),
        ("outbound", keys_of::<OutboundTable>()),
        ("inbound", keys_of::<InboundTable>()),
        ("files", keys_of::<FilesTable>()),
    ];
    for (name, keys) in sections {
        assert!(!keys.is_empty(), "{name}");
        let sections: Vec<&toml::Table> = match &table[name] {
            toml::Value::Array(tables) => tables.iter().filter_map(toml::Value::as_table).collect(),
            one => vec![one.as_table().unwrap()],
        };
        for key in keys {
            let has = sections.iter().any(|section| section.contains_key(*key));
            assert!(has, "[{name}] lacks {key}");
        }
    }
}

#[test]
fn every_key_has_a_comment() {
    let mut commented = false;
    for line in EXAMPLE.lines() {
        let key = line.strip_prefix('#').unwrap_or(line);
        if line.starts_with("# ") {
            commented = true;
        } else if key.contains('=') && !line.starts_with('[') {
            let second_example = key.contains("shop-db.service") || key.contains("\"strict\"");
            assert!(commented || second_example || key.contains("/shop/db"), "{line}");
            commented = false;
        }
    }
}
