//! JWT-SVIDs at hand: a token is signed once for an identity and an audience, and given out until
//! half of its life has passed. One that is still valid is given out, too, when the issuer fails.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::issuer::{IssueError, JwtRequest};
use super::resolve::Identities;
use crate::registry::RegistrationEntry;
use crate::spiffe::{BundleSet, JwtSvid};

/// How many tokens are kept. As SPIRE has it.
const KEPT: usize = 1000;

/// The tokens that have been given out.
#[derive(Debug, Default)]
pub(super) struct JwtCache(Mutex<HashMap<JwtRequest, Arc<JwtSvid>>>);

impl Identities {
    /// A token for a workload that this entry names. The audience is a set.
    ///
    /// # Errors
    /// The issuer's, where no valid token is at hand.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn jwt(
        &self,
        entry: &RegistrationEntry,
        audience: &[String],
    ) -> Result<Arc<JwtSvid>, IssueError> {
        if let Some(item) = self.denied(&entry.spiffe_id) {
            return Err(IssueError::Denied(item.to_string()));
        }
        let mut audience = audience.to_vec();
        audience.sort();
        audience.dedup();
        let ttl = entry.jwt_svid_ttl.unwrap_or(self.inner.settings.jwt_svid_ttl);
        let (spiffe_id, issuer) = (entry.spiffe_id.clone(), self.inner.settings.jwt_issuer.clone());
        let request = JwtRequest { spiffe_id, audience, issuer, ttl };
        let now = (self.inner.settings.clock)();
        let bundles = Arc::clone(&self.bundles().borrow());
        let known = self.inner.jwts.valid(&request, &bundles, now);
        if let Some(fresh) = known.as_ref().filter(|token| !token.is_past_half_life(now)) {
            return Ok(Arc::clone(fresh));
        }
        match self.sign(request.clone(), self.inner.settings.issue_timeout).await {
            Ok(token) => {
                let token = Arc::new(token);
                self.inner.jwts.keep(request, Arc::clone(&token), now);
                Ok(token)
            }
            Err(error) => known.ok_or(error),
        }
    }

    async fn sign(&self, request: JwtRequest, patience: Duration) -> Result<JwtSvid, IssueError> {
        let signed = tokio::time::timeout(patience, self.inner.source.issuer.issue_jwt(request));
        signed.await.unwrap_or(Err(IssueError::TimedOut(patience)))
    }
}

impl JwtCache {
    /// A token that is valid, and whose authority still is one.
    fn valid(
        &self,
        request: &JwtRequest,
        bundles: &BundleSet,
        now: SystemTime,
    ) -> Option<Arc<JwtSvid>> {
        let authorities = bundles.for_id(&request.spiffe_id)?.jwt_authorities();
        let is_valid = |token: &&Arc<JwtSvid>| {
            token.is_valid_at(now) && authorities.iter().any(|key| key.key_id == token.key_id)
        };
        self.tokens().get(request).filter(is_valid).map(Arc::clone)
    }

    fn keep(&self, request: JwtRequest, token: Arc<JwtSvid>, now: SystemTime) {
        let mut tokens = self.tokens();
        if tokens.len() >= KEPT {
            tokens.retain(|_, token| !token.is_past_half_life(now));
            if tokens.len() >= KEPT {
                tokens.clear();
            }
        }
        tokens.insert(request, token);
    }

    /// A panic while it is held leaves at most one token too few.
    fn tokens(&self) -> MutexGuard<'_, HashMap<JwtRequest, Arc<JwtSvid>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
