//! Names of kernel packages: which of them is the newest of a series. Nothing is fetched here.

use std::cmp::Ordering;

/// The newest release of a series (`6.1`, `7`) among names of packages, such as
/// `6.1.0-56-cloud-amd64`. A package that only names another has no number after the series.
pub(super) fn newest<'a>(
    names: impl Iterator<Item = &'a str>,
    series: &str,
    flavour: &str,
) -> Option<&'a str> {
    let prefix = format!("linux-image-{series}.");
    names
        .filter(|name| name.starts_with(&prefix) && name.ends_with(flavour))
        .filter_map(|name| name.strip_prefix("linux-image-"))
        .max_by(|a, b| by_number(a, b))
}

/// Compares as people do: runs of digits by their value, all else by its bytes.
pub(super) fn by_number(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (runs(a).into_iter(), runs(b).into_iter());
    loop {
        let order = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (Some(a), Some(b)) => match (a.parse::<u64>(), b.parse::<u64>()) {
                (Ok(a), Ok(b)) => a.cmp(&b),
                _ => a.cmp(b),
            },
            (a, b) => a.is_some().cmp(&b.is_some()),
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// `6.1.0-56` -> `6`, `.`, `1`, `.`, `0`, `-`, `56`.
fn runs(text: &str) -> Vec<&str> {
    let mut runs = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let digits = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        runs.push(run);
        rest = after;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::newest;

    const NAMES: [&str; 9] = [
        "linux-image-6.1-cloud-amd64",
        "linux-image-6.1.0-56-cloud-amd64",
        "linux-image-6.1.0-0.deb11.52-cloud-amd64",
        "linux-image-6.1.0-9-cloud-amd64",
        "linux-image-6.12.100+deb13-cloud-amd64",
        "linux-image-6.12.95+deb13-cloud-amd64",
        "linux-image-6.12.100+deb12-cloud-amd64",
        "linux-image-7.2.12+deb13-cloud-amd64",
        "linux-image-7.10.1+deb13-amd64",
    ];

    #[test]
    fn the_newest_of_a_series_by_number() {
        for (series, expected) in [
            ("6.1", Some("6.1.0-56-cloud-amd64")),
            ("6.12", Some("6.12.100+deb13-cloud-amd64")),
            ("7", Some("7.2.12+deb13-cloud-amd64")),
            ("6", Some("6.12.100+deb13-cloud-amd64")),
            ("5.10", None),
        ] {
            let found = newest(NAMES.into_iter(), series, "-cloud-amd64");
            assert_eq!(found, expected, "{series}");
        }
    }
}
