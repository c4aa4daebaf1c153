//! The road of a connection that a local workload opens. Each line of [`road`] is one stage; the
//! first that refuses ends it, and the application sees a reset.

use std::os::fd::AsFd as _;
use std::sync::Arc;

use tokio::time::Instant;

use super::dial::{dial_peer, while_there};
use super::limits::Remote;
use super::live::{Road, Standing};
use super::local::{Local, identify};
use super::relay::{self, End, ResetOnDrop, Terms};
use super::state::Proxy;
use super::tls::{Offer, Trust};
use crate::audit::{CutReason, Direction, Outcome, PeerFailure, Protection, RecordBuilder};
use crate::policy::{DenyReason, Expectation, OutboundPlan, Permit, plan_outbound};
use crate::shutdown::Stop;
use crate::spiffe::PeerIdentity;
use crate::sys::clock;
use crate::workload::Flow;

/// A peer that has been reached, and what lets bytes flow to it.
struct Reached {
    permit: Permit,
    end: End,
    peer: Option<PeerIdentity>,
}

/// Serves one captured connection and writes its record.
pub(super) async fn serve(app: ResetOnDrop, proxy: Arc<Proxy>, mut stop: Stop) {
    let mut record = proxy.audit.connection(Direction::Outbound);
    let outcome = tokio::select! {
        biased;
        () = stop.cancelled() => Outcome::Cut(CutReason::Drained),
        ended = road(app, &proxy, &mut record) => match ended {
            Ok(outcome) | Err(outcome) => outcome,
        },
    };
    record.close(outcome).await;
}

/// # Cancel safety
/// Dropped, it resets both ends.
async fn road(
    app: ResetOnDrop,
    proxy: &Proxy,
    record: &mut RecordBuilder,
) -> Result<Outcome, Outcome> {
    proxy.settled().await;
    let flow = captured(&app, proxy, record)?;
    let _place = proxy.limits.on_node()?;
    let mut local = identify(proxy, &flow.claim, flow.mode, record).await?;
    let plan = decide(proxy, &flow, &local, record);
    let Reached { permit, end, peer } =
        while_there(&app, Box::pin(reach(proxy, &flow, plan, &mut local, record))).await?;
    record.permit(&permit);
    let standing = Standing {
        local: local.standing(),
        peer,
        claim: flow.claim.clone(),
        scope: flow.scope,
        mode: flow.mode,
        road: Road::Outbound(flow.original_dst),
    };
    let life = proxy.enter(&local, standing).await?;
    let terms = Terms::new(record.counters(), proxy.settings.idle_timeout, life);
    Ok(relay::run(&permit, End::plain(app, proxy.inbox()), end, terms).await)
}

/// The kernel's record of this very socket.
///
/// Closed: whoever comes without one has dialled the proxy's own port, and is not relayed anywhere.
fn captured(app: &ResetOnDrop, proxy: &Proxy, record: &RecordBuilder) -> Result<Flow, Outcome> {
    let flow = proxy.flows.outbound(app.as_fd());
    match flow {
        Ok(Some(flow)) => {
            record.flow(&flow);
            Ok(flow)
        }
        missing => {
            record.addresses(app.local_addr().ok(), app.peer_addr().ok());
            if let Err(error) = missing {
                record.detail(&error);
            }
            Err(Outcome::Denied(DenyReason::UnknownFlow))
        }
    }
}

/// What is to be done. The rule stands in the record from here on, also if the peer is never
/// reached.
fn decide(proxy: &Proxy, flow: &Flow, local: &Local, record: &mut RecordBuilder) -> OutboundPlan {
    let policy = proxy.policy();
    let plan = plan_outbound(&policy, local.id(), flow.mode, flow.original_dst);
    match &plan {
        OutboundPlan::Deny(denial) => record.denial(denial),
        OutboundPlan::Plaintext(permit) => {
            record.permit(permit);
            record.protection(Protection::Plaintext);
        }
        OutboundPlan::Mtls(expectation) => {
            record.rule(Some(expectation.rule()), policy.epoch, None);
            record.protection(Protection::Mtls);
        }
    }
    plan
}

/// Follows the plan as far as a peer that bytes may flow to.
///
/// # Cancel safety
/// Dropped, it resets what was dialled.
async fn reach(
    proxy: &Proxy,
    flow: &Flow,
    plan: OutboundPlan,
    local: &mut Local,
    record: &mut RecordBuilder,
) -> Result<Reached, Outcome> {
    match plan {
        OutboundPlan::Deny(denial) => Err(Outcome::Denied(denial.reason())),
        OutboundPlan::Plaintext(permit) => {
            let socket = dial_peer(flow, &proxy.settings).await?;
            Ok(Reached { permit, end: End::plain(socket, proxy.inbox()), peer: None })
        }
        OutboundPlan::Mtls(expectation) => {
            let socket = dial_peer(flow, &proxy.settings).await?;
            let remote = Remote::from(flow.original_dst.get().ip());
            shake_hands(proxy, expectation, (socket, remote), local, record).await
        }
    }
}

/// Mutual TLS with the peer that is expected, and with nobody else.
async fn shake_hands(
    proxy: &Proxy,
    expectation: Expectation,
    (mut socket, remote): (ResetOnDrop, Remote),
    local: &mut Local,
    record: &mut RecordBuilder,
) -> Result<Reached, Outcome> {
    let credential = local.credential(proxy, record)?;
    let (alpn, sni) = (expectation.alpn().to_vec(), expectation.sni().map(str::to_owned));
    let offer = Offer { alpn: &alpn, sni: sni.as_deref() };
    let judge = Box::new(move |peer: &PeerIdentity| expectation.confirm(peer));
    let trust = Trust { bundles: local.bundles(proxy), clock: clock::now, judge };
    let start = Instant::now();
    let connecting = credential.connect(&socket, proxy.inbox(), offer, trust);
    let turn = (local.owner(), remote);
    let wait = (&*socket, proxy.settings.handshake_timeout);
    match proxy.limits.shake(Direction::Outbound, turn, wait, connecting).await {
        Some(Ok(established)) => {
            proxy.metrics.handshake(Direction::Outbound.as_str(), start.elapsed());
            record.peer_id(established.peer.id());
            record.tls(established.facts);
            let end = End::tls(socket, established.channel);
            Ok(Reached { permit: established.permit, end, peer: Some(established.peer) })
        }
        Some(Err(error)) => {
            // The alert that says why is on its way; a reset might overtake it.
            socket.end_in_order();
            Err(error.into_outcome(record))
        }
        None => Err(Outcome::PeerFailed(PeerFailure::HandshakeTimedOut)),
    }
}
