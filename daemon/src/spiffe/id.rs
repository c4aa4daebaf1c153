//! Reads SPIFFE IDs and trust domain names, byte for byte.
//!
//! The `spiffe` crate lower-cases what it reads (SPIFFE-ID §2.4 calls scheme and trust domain
//! case-insensitive). An identity that a certificate, a rule or an entry spells in two ways is an
//! invitation to compare it wrongly, so here only the canonical spelling is one: start from
//! [`parse_id`].

use thiserror::Error;

use super::{SpiffeId, TrustDomain};

/// Longest SPIFFE ID in bytes. Source: SPIFFE-ID §2.3.
pub const MAX_ID_BYTES: usize = 2048;

/// Why a text is no SPIFFE ID or trust domain name.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum IdError {
    /// Longer than [`MAX_ID_BYTES`].
    #[error("it has {0} bytes; a SPIFFE ID has at most {MAX_ID_BYTES}")]
    TooLong(usize),
    /// Readable, but not in its canonical spelling.
    #[error("it is not in canonical form; write `{0}`")]
    NotCanonical(String),
    /// Breaks a rule of SPIFFE-ID §2.
    #[error("{0}")]
    Malformed(::spiffe::SpiffeIdError),
}

/// Reads a SPIFFE ID, with or without a path, in its canonical spelling only.
///
/// # Errors
/// Whatever SPIFFE-ID §2 forbids, and whatever would have to be changed to be canonical.
pub fn parse_id(text: &str) -> Result<SpiffeId, IdError> {
    if text.len() > MAX_ID_BYTES {
        return Err(IdError::TooLong(text.len()));
    }
    let id = SpiffeId::new(text).map_err(IdError::Malformed)?;
    let canonical = id.to_string();
    if canonical == text { Ok(id) } else { Err(IdError::NotCanonical(canonical)) }
}

/// Reads the bare name of a trust domain (`example.org`), in its canonical spelling only.
///
/// # Errors
/// Whatever SPIFFE-ID §2.1 forbids; upper case; a `spiffe://` in front.
pub fn parse_trust_domain(text: &str) -> Result<TrustDomain, IdError> {
    let domain = TrustDomain::new(text).map_err(IdError::Malformed)?;
    if domain.as_str() == text {
        Ok(domain)
    } else {
        Err(IdError::NotCanonical(domain.as_str().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_the_standard_allows() {
        let longest = format!("spiffe://td/{}", "a".repeat(MAX_ID_BYTES - 12));
        for id in [
            "spiffe://td",
            "spiffe://td/a",
            "spiffe://td/A/b-c/d.e/f_g",
            "spiffe://1.2.3.4/x",
            "spiffe://a..b/x",
            "spiffe://.a/x",
            "spiffe://-a_/x",
            "spiffe://td/.x/..x/...",
            longest.as_str(),
        ] {
            assert_eq!(parse_id(id).map(|id| id.to_string()), Ok(id.to_owned()), "{id}");
        }
    }

    #[test]
    fn refuses_what_the_standard_forbids() {
        let too_long = format!("spiffe://td/{}", "a".repeat(MAX_ID_BYTES - 11));
        let long_domain = format!("spiffe://{}/a", "t".repeat(256));
        for id in [
            "",
            "spiffe:",
            "spiffe://",
            "spiffe:///a",
            "spiffe:td/a",
            "https://td/a",
            "Spiffe://td/a",
            "SPIFFE://td/a",
            "spiffe://TD/a",
            "spiffe://td/",
            "spiffe://td/a/",
            "spiffe://td//a",
            "spiffe://td/a//b",
            "spiffe://td/.",
            "spiffe://td/../a",
            "spiffe://td/%61",
            "spiffe://t%64/a",
            "spiffe://td/a?b",
            "spiffe://td/a#b",
            "spiffe://user@td/a",
            "spiffe://td:80/a",
            "spiffe://[::1]/a",
            "spiffe://td/a b",
            "spiffe://td/a\0",
            "spiffe://td/\u{e9}",
            "spiffe://t\u{e9}/a",
            " spiffe://td/a",
            "spiffe://td/a\n",
            "spiffe://td/*",
            "spiffe://td/a\\b",
            too_long.as_str(),
            long_domain.as_str(),
        ] {
            assert!(parse_id(id).is_err(), "{id:?}");
        }
    }

    #[test]
    fn a_trust_domain_is_a_bare_lower_case_name() {
        assert_eq!(parse_trust_domain("example.org").unwrap().as_str(), "example.org");
        for bad in ["", "Example.org", "spiffe://example.org", "a/b", "a:1", "a b", "a\0"] {
            assert!(parse_trust_domain(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        /// What is read is written back unchanged, and nothing but plain ASCII is ever read.
        #[test]
        fn reading_never_changes_an_id(text in "(spiffe|SPIFFE|Spiffe)?:?/?/?[ -~\u{0}é/%.A-Z]{0,40}") {
            if let Ok(id) = parse_id(&text) {
                prop_assert_eq!(id.to_string(), text.clone());
                prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b":/.-_".contains(&b)));
                prop_assert!(!text.ends_with('/'));
            }
        }

        /// One metacharacter anywhere in a good ID spoils it.
        #[test]
        fn a_metacharacter_spoils_an_id(
            path in "(/[a-z]{1,5}){1,3}",
            bad in "[\u{0}-,;-@\\[-^`{-\u{7f}é]",
            at in 0usize..8,
        ) {
            let mut id = format!("spiffe://td{path}");
            let at = id.len() - at.min(path.len() - 1);
            id.insert_str(at, &bad);
            prop_assert!(parse_id(&id).is_err(), "{:?}", id);
        }
    }
}
