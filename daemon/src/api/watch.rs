//! A stream of messages about one caller: the first at once, the next whenever it would say
//! something else. The caller is attested anew before each, and now and then between them, so that
//! a stream ends soon after its caller has lost what it was entitled to.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use tonic::{Response, Status};

use super::caller::Caller;
use super::handover::Handovers;
use super::status;
use crate::identity::{Entitlement, Subscription};
use crate::shutdown::Stop;

/// How often a caller is looked at though nothing is known to have changed. Chosen: as long as an
/// attestation is taken for fresh.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How soon an issuer that failed is asked again. Chosen; it has a pace of its own besides.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What a stream consists of.
pub(super) type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A message that is made of what a caller is entitled to.
pub(super) trait Message: PartialEq + Send + Sized + 'static {
    /// Whether private keys are in it.
    const HOLDS_KEYS: bool;

    /// What to say to a caller.
    fn of(entitlement: &Entitlement) -> Self;

    /// A copy without keys, kept to tell whether the next message would say anything new.
    fn trace(&self) -> Self;
}

/// One stream.
#[derive(Debug)]
pub(super) struct Watch<T> {
    pub(super) caller: Arc<Caller>,
    pub(super) subscription: Subscription,
    pub(super) handovers: Arc<Handovers>,
    pub(super) stop: Stop,
    pub(super) said: Option<T>,
}

impl<T: Message> Watch<T> {
    /// The stream, whose first message is ready.
    ///
    /// # Errors
    /// Why there is nothing to say.
    pub(super) async fn open(mut self) -> Result<Response<Messages<T>>, Status> {
        let first = self.next().await?;
        let rest = stream::unfold(Some(self), |watch| async {
            let mut watch = watch?;
            match watch.next().await {
                Ok(message) => Some((Ok(message), Some(watch))),
                Err(status) => Some((Err(status), None)),
            }
        });
        let all = stream::once(std::future::ready(Ok(first))).chain(rest);
        Ok(Response::new(Box::pin(all)))
    }

    /// The next message, when there is something new to say.
    async fn next(&mut self) -> Result<T, Status> {
        loop {
            let pause = match self.caller.entitlement(&mut self.subscription).await {
                Ok(entitlement) => match self.news(&entitlement) {
                    Some(message) => return Ok(message),
                    None => LOOK_AGAIN,
                },
                Err(refusal) if refusal.passes && self.said.is_some() => TRY_AGAIN,
                Err(refusal) => return Err(refusal.into()),
            };
            self.wait(pause).await?;
        }
    }

    fn news(&mut self, entitlement: &Entitlement) -> Option<T> {
        let message = T::of(entitlement);
        let trace = message.trace();
        if self.said.as_ref() == Some(&trace) {
            return None;
        }
        self.said = Some(trace);
        if T::HOLDS_KEYS {
            self.handovers.record(&entitlement.attestation, &entitlement.identities);
        }
        Some(message)
    }

    /// Waits until there may be something to say.
    async fn wait(&mut self, pause: Duration) -> Result<(), Status> {
        tokio::select! {
            biased;
            () = self.stop.draining() => Err(status::stopping()),
            () = self.caller.peer.exited() => Err(status::not_attested()),
            () = self.subscription.changed() => Ok(()),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }
}
