//! The own bundle as other trust domains get it: one document, at `/`. Its sequence number grows with
//! every change of the contents, also over restarts. Source: SPIFFE Federation §5.2.1.3, §5.2.2.3.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;

use crate::shutdown::Stop;
use crate::spiffe::{BundleDocument, BundleSet, TrustDomain};
use crate::state::{Sequence, StateError};
use crate::sys::clock;

/// The document as it stands.
#[derive(Debug)]
pub struct Published {
    trust_domain: TrustDomain,
    refresh_hint: Duration,
    bundles: watch::Receiver<Arc<BundleSet>>,
    sequence: Sequence,
    document: watch::Sender<Arc<str>>,
}

impl Published {
    /// The document of now. Blocks: it reads and may write a file; call it at start.
    ///
    /// # Errors
    /// The file of the sequence number.
    pub fn new(
        trust_domain: TrustDomain,
        refresh_hint: Duration,
        bundles: watch::Receiver<Arc<BundleSet>>,
        sequence: Sequence,
    ) -> Result<Self, StateError> {
        let document = watch::Sender::new(Arc::from(""));
        let mut published = Self { trust_domain, refresh_hint, bundles, sequence, document };
        published.publish()?;
        Ok(published)
    }

    /// The document as it changes.
    pub fn document(&self) -> watch::Receiver<Arc<str>> {
        self.document.subscribe()
    }

    /// Follows the authorities until the daemon drains.
    pub async fn keep(mut self, mut stop: Stop) {
        loop {
            tokio::select! {
                biased;
                () = stop.draining() => return,
                changed = self.bundles.changed() => if changed.is_err() { return },
            }
            if let Err(error) = self.publish() {
                tracing::error!(%error, "the published bundle stays as it was");
            }
        }
    }

    /// Rare and short: authorities change a few times in a month.
    fn publish(&mut self) -> Result<(), StateError> {
        let bundles = Arc::clone(&self.bundles.borrow_and_update());
        let Some(bundle) = bundles.get(&self.trust_domain) else {
            return Ok(());
        };
        let mut document = BundleDocument::plain(bundle.as_ref().clone());
        document.refresh_hint = Some(self.refresh_hint);
        let sequence = self.sequence.of(&document.to_json(), clock::now())?;
        document.sequence = Some(sequence);
        let text: Arc<str> = document.to_json().into();
        if **self.document.borrow() != *text {
            tracing::info!(sequence, "the bundle is published");
            self.document.send_replace(text);
        }
        Ok(())
    }
}

/// The one route.
pub fn bundle_routes(document: watch::Receiver<Arc<str>>) -> Router {
    Router::new().route("/", get(bundle)).with_state(document)
}

async fn bundle(State(document): State<watch::Receiver<Arc<str>>>) -> Response {
    let text = Arc::clone(&document.borrow());
    if text.is_empty() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    ([(CONTENT_TYPE, "application/json")], text.to_string()).into_response()
}
