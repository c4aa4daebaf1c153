//! A pattern of SPIFFE IDs: a literal ID, or whole trailing path segments with `/*`.
//! There are no other wildcards and no regular expressions: a rule says what it looks like.

use std::fmt;

use thiserror::Error;

use crate::spiffe::{SpiffeId, TrustDomain};

/// Which SPIFFE IDs a rule speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerPattern {
    trust_domain: TrustDomain,
    /// The path of a literal ID, or what the path must start with, trailing slash included.
    path: String,
    below: bool,
}

/// Why a pattern cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatternError {
    /// `*` elsewhere than as the last whole segment.
    #[error("`*` may only stand for all that follows a `/` at the end, as in spiffe://td/shop/*")]
    Wildcard,
    /// Names a trust domain and no path, which no workload has.
    #[error("names no workload; for every workload of the trust domain end it with `/*`")]
    NoPath,
    /// Not a SPIFFE ID in canonical form.
    #[error("is not a SPIFFE ID such as spiffe://td/shop/web: {0}")]
    NotSpiffeId(String),
}

impl PeerPattern {
    /// Reads `spiffe://td/a/b` (that ID), `spiffe://td/a/*` (every ID with one or more segments
    /// below `/a`, not `/a` itself) or `spiffe://td/*` (every workload of the trust domain).
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let (id, below) = match text.strip_suffix("/*") {
            Some(id) => (id, true),
            None => (text, false),
        };
        if id.contains('*') {
            return Err(PatternError::Wildcard);
        }
        let parsed = SpiffeId::new(id).map_err(|e| PatternError::NotSpiffeId(e.to_string()))?;
        if parsed.to_string() != id {
            let canonical = format!("it is not in canonical form, which is {parsed}");
            return Err(PatternError::NotSpiffeId(canonical));
        }
        if !below && parsed.path().is_empty() {
            return Err(PatternError::NoPath);
        }
        let slash = if below { "/" } else { "" };
        Ok(Self {
            trust_domain: parsed.trust_domain().clone(),
            path: format!("{}{slash}", parsed.path()),
            below,
        })
    }

    /// Whether the pattern speaks of this ID.
    pub fn matches(&self, id: &SpiffeId) -> bool {
        if id.trust_domain() != &self.trust_domain {
            return false;
        }
        match id.path().strip_prefix(self.path.as_str()) {
            // The prefix of a `/*` pattern ends in a slash, so segments are never split.
            Some(rest) => rest.is_empty() != self.below,
            None => false,
        }
    }

    /// The trust domain that it speaks of.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }
}

impl fmt::Display for PeerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.below { "*" } else { "" };
        write!(f, "spiffe://{}{}{star}", self.trust_domain, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, id: &str, matches: bool) {
        let id = SpiffeId::new(id).unwrap();
        assert_eq!(PeerPattern::parse(pattern).unwrap().matches(&id), matches, "{pattern} {id}");
    }

    #[test]
    fn matches_whole_segments() {
        check("spiffe://td/shop/web", "spiffe://td/shop/web", true);
        check("spiffe://td/shop/web", "spiffe://td/shop/web/1", false);
        check("spiffe://td/shop/web", "spiffe://td/shop/webs", false);
        check("spiffe://td/shop/*", "spiffe://td/shop/web", true);
        check("spiffe://td/shop/*", "spiffe://td/shop/web/1", true);
        check("spiffe://td/shop/*", "spiffe://td/shop", false);
        check("spiffe://td/shop/*", "spiffe://td/shops/web", false);
        check("spiffe://td/*", "spiffe://td/shop", true);
        check("spiffe://td/*", "spiffe://td", false);
        check("spiffe://td/*", "spiffe://td.evil/shop", false);
        check("spiffe://t.d/a", "spiffe://txd/a", false);
        check("spiffe://td/a.b", "spiffe://td/axb", false);
    }

    #[test]
    fn refuses_all_other_wildcards() {
        for bad in ["*", "spiffe://*/a", "spiffe://td/*/a", "spiffe://td/a*", "spiffe://td/a/**"] {
            assert_eq!(PeerPattern::parse(bad), Err(PatternError::Wildcard), "{bad}");
        }
        for bad in
            ["", "/*", "spiffe:///*", "http://td/a", "spiffe://TD/a", "SPIFFE://td/a", "td/a"]
        {
            let error = PeerPattern::parse(bad).unwrap_err();
            assert!(matches!(error, PatternError::NotSpiffeId(_)), "{bad}: {error}");
        }
        for bad in ["spiffe://td/a/../b", "spiffe://td/a//*", "spiffe://td/.+/a", "spiffe://td/a|b"]
        {
            assert!(PeerPattern::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(PeerPattern::parse("spiffe://td"), Err(PatternError::NoPath));
    }

    #[test]
    fn prints_what_it_read() {
        for text in ["spiffe://td/*", "spiffe://td/a/*", "spiffe://td/a/b"] {
            assert_eq!(PeerPattern::parse(text).unwrap().to_string(), text);
        }
    }
}
