//! Tables of trust bundles.

use crate::admin::dump::{BundleChanged, BundleDump};
use crate::cli::output::{Columns, Tone, cell, clean, maybe, put, toned};

/// From where bundles are, and how they fare.
pub(in crate::cli) fn bundle_list(bundles: &[BundleDump]) -> String {
    let mut columns = Columns::new(&[
        "TRUST DOMAIN",
        "SOURCE",
        "SINCE",
        "SEQUENCE",
        "X.509",
        "JWT",
        "ENTRIES",
        "FETCHED",
        "NEXT",
        "NOTE",
    ]);
    for bundle in bundles {
        let (note, tone) = note(bundle);
        let fetched = bundle.endpoint.as_ref();
        columns.row([
            cell(&bundle.trust_domain),
            cell(&bundle.source),
            maybe(bundle.since.as_ref()),
            maybe(bundle.sequence.map(|sequence| sequence.to_string()).as_ref()),
            cell(bundle.authorities.len().to_string()),
            cell(bundle.jwt_authorities.len().to_string()),
            if bundle.source == "own" { cell("") } else { cell(bundle.entries.to_string()) },
            maybe(fetched.and_then(|endpoint| endpoint.fetched.as_ref())),
            maybe(fetched.and_then(|endpoint| endpoint.next.as_ref())),
            toned(note, tone),
        ]);
    }
    columns.render()
}

fn note(bundle: &BundleDump) -> (String, Tone) {
    let ended = bundle.authorities.iter().filter(|authority| authority.warning.is_some()).count();
    let failing =
        bundle.endpoint.as_ref().and_then(|it| Some((it.failures, it.last_error.as_ref()?)));
    let of_none = bundle.authorities.is_empty() && bundle.jwt_authorities.is_empty();
    match (&bundle.document, failing) {
        (None, Some((times, error))) => (format!("failed {times} times: {error}"), Tone::Bad),
        (None, None) if bundle.endpoint.is_some() => ("not fetched yet".to_owned(), Tone::Doubtful),
        (None, None) => ("there is no bundle of it; its peers are refused".to_owned(), Tone::Bad),
        (Some(_), Some((times, error))) => {
            (format!("failed {times} times, as it was: {error}"), Tone::Doubtful)
        }
        _ if of_none => ("has no authorities: nobody of it is trusted".to_owned(), Tone::Bad),
        _ if ended > 0 => (format!("{ended} of its authorities have ended"), Tone::Doubtful),
        _ if bundle.source != "own" && bundle.entries == 0 => {
            ("no entry is federated with it".to_owned(), Tone::Doubtful)
        }
        _ => (String::new(), Tone::Plain),
    }
}

/// The authorities, and the bundles themselves.
pub(in crate::cli) fn bundles(bundles: &[BundleDump]) -> String {
    let mut columns = Columns::new(&["TRUST DOMAIN", "KEY ID", "NOT AFTER", "NOTE"]);
    for bundle in bundles {
        for authority in &bundle.authorities {
            columns.row([
                cell(&bundle.trust_domain),
                cell(&authority.key_id),
                cell(&authority.not_after),
                toned(authority.warning.as_deref().unwrap_or_default(), Tone::Bad),
            ]);
        }
        for key_id in &bundle.jwt_authorities {
            columns.row([
                cell(&bundle.trust_domain),
                cell(key_id),
                cell(""),
                toned("for JWT-SVIDs", Tone::Plain),
            ]);
        }
    }
    let mut text = columns.render();
    for bundle in bundles.iter().filter(|bundle| !bundle.pem.is_empty()) {
        put(&mut text, format_args!("\n{}", bundle.pem.trim_end()));
    }
    text
}

pub(in crate::cli) fn bundle_changed(done: &BundleChanged) -> String {
    let mut text = String::new();
    let BundleChanged { trust_domain, authorities, jwt_authorities, entries } = done;
    let domain = clean(trust_domain);
    match authorities {
        None => put(&mut text, format_args!("Deleted the bundle of {domain}.")),
        Some(count) => put(
            &mut text,
            format_args!(
                "Set the bundle of {domain}: {count} authorities for X.509-SVIDs, {jwt_authorities} \
                 for JWT-SVIDs."
            ),
        ),
    }
    if authorities.is_some() && *entries == 0 {
        put(
            &mut text,
            format_args!("No entry is federated with it yet (federates_with = [\"{domain}\"])."),
        );
    }
    text
}
