//! The certificate that an endpoint shows: from files, which are looked at again and again, or an
//! X.509-SVID of the node's own. What cannot be had anew leaves the last one in place.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use thiserror::Error;

use super::tls::certified;
use crate::identity::{IssueError, IssueRequest, Issuer, renew_at, retry_after};
use crate::shutdown::Stop;
use crate::spiffe::{BundleSet, IdError, X509Svid, parse_id, verify};
use crate::sys::clock;
use crate::sys::private_files::{FileError, read_private, read_public};

/// How often files are looked at. As SPIRE does.
const LOOK: Duration = Duration::from_secs(10);
/// Where in its window a renewal falls: one SVID needs no spreading.
const NO_JITTER: f64 = 0.5;

/// Where a certificate comes from.
#[derive(Debug, Clone)]
pub enum CertificateSource {
    /// Files in PEM: the chain, leaf first, and its key.
    Files {
        /// The chain.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// An X.509-SVID of this ID.
    Svid {
        /// The ID.
        id: String,
        /// How long one is to be valid.
        ttl: Duration,
    },
}

/// Why there is no certificate.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// What is in one.
    #[error("{}: holds no {what} in PEM", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// Certificate and key.
    #[error("{}: its key cannot be used with the certificate", path.display())]
    Mismatch {
        /// The file of the key.
        path: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
    /// No ID.
    #[error("{0} is no SPIFFE ID for an endpoint: {1}")]
    Id(String, IdError),
    /// The issuer.
    #[error("no X.509-SVID for the endpoint: {0}")]
    Issue(#[from] IssueError),
    /// The SVID.
    #[error("the endpoint's X.509-SVID cannot be used")]
    Unusable(#[source] rustls::Error),
}

/// The certificate that is shown now. Cheap to clone.
#[derive(Clone)]
pub struct Shown {
    source: CertificateSource,
    issuer: Arc<dyn Issuer>,
    now: Arc<ArcSwapOption<CertifiedKey>>,
}

/// What the files held when they were read last.
type Content = (Vec<u8>, zeroize::Zeroizing<Vec<u8>>);

impl Shown {
    /// Has the first certificate. Blocks on files: call it at start.
    ///
    /// # Errors
    /// See [`CertificateError`]; the operator mends the files.
    pub async fn first(
        source: CertificateSource,
        issuer: Arc<dyn Issuer>,
    ) -> Result<Self, CertificateError> {
        let shown = Self { source, issuer, now: Arc::default() };
        match &shown.source {
            CertificateSource::Files { certificate, key } => {
                shown.show(read(certificate, key, &content(certificate, key)?)?);
            }
            CertificateSource::Svid { id, ttl } => {
                shown.issue(id, *ttl).await?;
            }
        }
        Ok(shown)
    }

    /// Keeps it fresh until the daemon drains.
    pub async fn keep(self, mut stop: Stop) {
        let keeping = async {
            match &self.source {
                CertificateSource::Files { certificate, key } => {
                    self.follow(certificate, key).await;
                }
                CertificateSource::Svid { id, ttl } => self.renew(id, *ttl).await,
            }
        };
        tokio::select! {
            biased;
            () = stop.draining() => {}
            () = keeping => {}
        }
    }

    async fn follow(&self, certificate: &Path, key: &Path) {
        let mut seen: Option<Content> = content(certificate, key).ok();
        loop {
            tokio::time::sleep(LOOK).await;
            let found = content(certificate, key);
            let read = match found {
                Ok(found) if seen.as_ref() == Some(&found) => continue,
                Ok(found) => {
                    let read = read(certificate, key, &found);
                    seen = Some(found);
                    read
                }
                Err(error) => Err(error.into()),
            };
            match read {
                Ok(fresh) => {
                    self.show(fresh);
                    tracing::info!(path = %certificate.display(), "the endpoint's certificate was renewed");
                }
                Err(error) => {
                    tracing::warn!(%error, "the endpoint's certificate stays as it was");
                }
            }
        }
    }

    /// At half of its life, and at once when another authority signs or its own is no longer trusted.
    async fn renew(&self, id: &str, ttl: Duration) {
        let (mut bundles, mut signs) = (self.issuer.bundles(), self.issuer.signs_with());
        let (mut failures, mut renew) = (0_u32, clock::now());
        loop {
            let wait = renew.duration_since(clock::now()).unwrap_or_default();
            let known = Arc::clone(&bundles.borrow_and_update());
            if self.is_valid(&known) {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    Ok(()) = signs.changed() => {}
                    Ok(()) = bundles.changed() => continue,
                }
            }
            match self.issue(id, ttl).await {
                Ok(svid) if !self.is_valid(&Arc::clone(&bundles.borrow())) => {
                    failures = failures.saturating_add(1);
                    let serial = svid.serial;
                    tracing::warn!(
                        serial,
                        failures,
                        "a fresh X.509-SVID is not valid; check the clock"
                    );
                    tokio::time::sleep(retry_after(failures, ttl, NO_JITTER)).await;
                }
                Ok(svid) => {
                    failures = 0;
                    renew = renew_at(svid.not_before.max(clock::now()), svid.not_after, NO_JITTER);
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    tracing::warn!(%error, failures, "the endpoint's X.509-SVID stays as it was");
                    tokio::time::sleep(retry_after(failures, ttl, NO_JITTER)).await;
                }
            }
        }
    }

    async fn issue(&self, id: &str, ttl: Duration) -> Result<X509Svid, CertificateError> {
        let spiffe_id = parse_id(id).map_err(|error| CertificateError::Id(id.to_owned(), error))?;
        let request = IssueRequest { spiffe_id, ttl, dns_names: Vec::new() };
        let svid = self.issuer.issue(request).await?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(svid.key.as_slice()));
        let fresh = certified(svid.chain.clone(), &key).map_err(CertificateError::Unusable)?;
        self.show(fresh);
        Ok(svid)
    }

    fn is_valid(&self, bundles: &BundleSet) -> bool {
        let now = self.now.load();
        now.as_ref().is_some_and(|shown| verify(&shown.cert, bundles, clock::now()).is_ok())
    }

    fn show(&self, fresh: CertifiedKey) {
        self.now.store(Some(Arc::new(fresh)));
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.now.load_full()
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").field("source", &self.source).finish_non_exhaustive()
    }
}

/// Small files, looked at rarely: not worth another thread.
fn content(certificate: &Path, key: &Path) -> Result<Content, FileError> {
    Ok((read_public(certificate)?, read_private(key)?))
}

fn read(
    certificate: &Path,
    key: &Path,
    (chain, key_pem): &Content,
) -> Result<CertifiedKey, CertificateError> {
    let unreadable =
        |path: &Path, what| CertificateError::Unreadable { path: path.to_owned(), what };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|_bad_pem| unreadable(certificate, "certificates"))?;
    if chain.is_empty() {
        return Err(unreadable(certificate, "certificates"));
    }
    let private = PrivateKeyDer::from_pem_slice(key_pem)
        .map_err(|_bad_pem| unreadable(key, "private key"))?;
    certified(chain, &private)
        .map_err(|source| CertificateError::Mismatch { path: key.to_owned(), source })
}
