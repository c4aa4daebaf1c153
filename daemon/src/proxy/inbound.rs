//! The road of a connection to a local workload. Each line of [`road`] is one stage; the first
//! that refuses ends it. Nothing of what the client says reaches the application before the client
//! is admitted, nor does anybody but the attested listener ever see it.

use std::sync::Arc;

use tokio::time::Instant;

use super::dial::{check_accepted, dial_listener};
use super::hello::{self, Hello};
use super::limits::Remote;
use super::live::{Road, Standing};
use super::local::{Local, identify};
use super::relay::{self, End, Inbox, ResetOnDrop, Terms};
use super::state::Proxy;
use super::tls::Trust;
use crate::audit::{CutReason, Direction, Outcome, PeerFailure, Protection, RecordBuilder};
use crate::policy::{DenyReason, Peer, Permit, UnmarkedTls, admit_inbound, plan_inbound};
use crate::shutdown::Stop;
use crate::spiffe::PeerIdentity;
use crate::sys::clock;
use crate::workload::{ClientAddr, ListenAddr, Listener, ListenerLookup, Mode};

/// Who was dialled, and by whom.
#[derive(Debug, Clone)]
struct Arrival {
    listener: Listener,
    listen: ListenAddr,
    client: ClientAddr,
    /// Several listeners share the address and are not one workload: none of them has an identity.
    ambiguous: bool,
}

/// How the client is to be received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reception {
    Terminate,
    Passthrough,
    Plaintext,
}

/// A client that is admitted.
struct Admitted {
    permit: Permit,
    end: End,
    peer: Option<PeerIdentity>,
}

/// Serves one steered connection and writes its record.
pub(super) async fn serve(client: ResetOnDrop, proxy: Arc<Proxy>, mut stop: Stop) {
    let mut record = proxy.audit.connection(Direction::Inbound);
    let outcome = tokio::select! {
        biased;
        () = stop.cancelled() => Outcome::Cut(CutReason::Drained),
        ended = road(client, &proxy, &mut record) => match ended {
            Ok(outcome) | Err(outcome) => outcome,
        },
    };
    record.close(outcome).await;
}

/// # Cancel safety
/// Dropped, it resets both ends.
async fn road(
    client: ResetOnDrop,
    proxy: &Proxy,
    record: &mut RecordBuilder,
) -> Result<Outcome, Outcome> {
    proxy.settled().await;
    let arrival = dialled(&client, proxy, record)?;
    let _place = proxy.limits.on_node()?;
    let mut local = own(proxy, &arrival, record).await?;
    let (Admitted { permit, end, peer }, reception) =
        Box::pin(prove(proxy, client, &arrival, &mut local, record)).await?;
    record.permit(&permit);
    let app = Box::pin(last_mile(proxy, &arrival)).await?;
    let standing = Standing {
        local: local.standing(),
        peer,
        claim: arrival.listener.claim.clone(),
        scope: arrival.listener.scope,
        mode: arrival.listener.mode,
        road: Road::Inbound {
            listen: arrival.listen,
            client: arrival.client,
            passthrough: reception == Reception::Passthrough,
        },
    };
    let life = proxy.enter(&local, standing).await?;
    let terms = Terms::new(record.counters(), proxy.settings.idle_timeout, life);
    Ok(relay::run(&permit, End::plain(app, proxy.inbox()), end, terms).await)
}

/// Nothing was rewritten on the way here: the socket's own address is the one that was dialled.
fn dialled(
    socket: &ResetOnDrop,
    proxy: &Proxy,
    record: &RecordBuilder,
) -> Result<Arrival, Outcome> {
    let gone = |_error| Outcome::PeerFailed(PeerFailure::Reset);
    let listen = ListenAddr::new(socket.local_addr().map_err(gone)?);
    let client = ClientAddr::new(socket.peer_addr().map_err(gone)?);
    record.addresses(Some(listen.get()), Some(client.get()));
    let (listener, ambiguous) = match proxy.flows.listener(listen) {
        ListenerLookup::Found(listener) => (listener, false),
        ListenerLookup::Ambiguous(listener) => (listener, true),
        // Closed: without a listener there is nobody whose identity could be shown.
        ListenerLookup::Missing => return Err(Outcome::Denied(DenyReason::NoListener)),
    };
    record.listener(&listener, listen, client);
    Ok(Arrival { listener, listen, client, ambiguous })
}

/// Who the workload is, before TLS: which SVID to show depends on it.
async fn own(
    proxy: &Proxy,
    arrival: &Arrival,
    record: &mut RecordBuilder,
) -> Result<Local, Outcome> {
    let Listener { claim, mode, .. } = &arrival.listener;
    match (arrival.ambiguous, mode) {
        (false, _) => identify(proxy, claim, *mode, record).await,
        // Closed: whoever of them accepts, the identity shown could be another's.
        (true, Mode::Strict) => Err(Outcome::Denied(DenyReason::ListenerAmbiguous)),
        (true, Mode::Permissive | Mode::Observe) => Local::nobody(proxy, claim),
    }
}

/// What the client speaks, and the decision on it; until then it is a newcomer, and may have to make
/// room for others.
async fn prove(
    proxy: &Proxy,
    client: ResetOnDrop,
    arrival: &Arrival,
    local: &mut Local,
    record: &mut RecordBuilder,
) -> Result<(Admitted, Reception), Outcome> {
    let mut newcomer = proxy.limits.newcomer(local.owner(), arrival.client.get().ip().into())?;
    let proved = async {
        let (reception, heard) = receive(proxy, &client, arrival, local).await?;
        let admitted = admit(proxy, client, arrival, (reception, heard), local, record).await?;
        Ok((admitted, reception))
    };
    tokio::select! {
        biased;
        () = newcomer.shown_out() => Err(Outcome::Denied(DenyReason::UnprovedLimit)),
        proved = proved => proved,
    }
}

/// What the client speaks, and what the rules say to that.
async fn receive(
    proxy: &Proxy,
    client: &ResetOnDrop,
    arrival: &Arrival,
    local: &Local,
) -> Result<(Reception, Inbox), Outcome> {
    let Arrival { listen, client: from, listener, .. } = arrival;
    let plan = plan_inbound(&proxy.policy(), local.id(), listener.mode, *listen, *from);
    let settings = &proxy.settings;
    let (first, complete) = (settings.first_byte_timeout, settings.handshake_timeout);
    let mut heard = proxy.inbox();
    let hello = hello::listen(client, &mut heard, first, complete).await;
    let hello = hello.map_err(|_reset| Outcome::PeerFailed(PeerFailure::Reset))?;
    let reception = match (hello, plan.unmarked_tls) {
        (Hello::Marked, _) | (Hello::Unmarked | Hello::Garbage, UnmarkedTls::Terminate) => {
            Reception::Terminate
        }
        (Hello::Unmarked | Hello::Garbage, UnmarkedTls::Passthrough) => Reception::Passthrough,
        (Hello::Unmarked | Hello::Garbage, UnmarkedTls::Refuse) => {
            return Err(Outcome::Denied(DenyReason::UnmarkedTlsRefused));
        }
        // A silent client of a protocol in which the server speaks first.
        (Hello::Plaintext | Hello::Silent, _) if plan.plaintext => Reception::Plaintext,
        (Hello::Silent, _) => return Err(Outcome::Denied(DenyReason::FirstByteTimeout)),
        (Hello::Plaintext, _) => Reception::Plaintext,
    };
    Ok((reception, heard))
}

/// The decision on the client, by what it has proved to be.
async fn admit(
    proxy: &Proxy,
    client: ResetOnDrop,
    arrival: &Arrival,
    (reception, heard): (Reception, Inbox),
    local: &mut Local,
    record: &mut RecordBuilder,
) -> Result<Admitted, Outcome> {
    let (peer, protection) = match reception {
        Reception::Terminate => {
            return shake_hands(proxy, client, heard, arrival, (local, record)).await;
        }
        Reception::Passthrough => (Peer::Passthrough, Protection::Passthrough),
        Reception::Plaintext => (Peer::Plaintext, Protection::Plaintext),
    };
    record.protection(protection);
    let Arrival { listen, client: from, listener, .. } = arrival;
    match admit_inbound(&proxy.policy(), local.id(), listener.mode, *listen, *from, peer) {
        Ok(permit) => Ok(Admitted { permit, end: End::plain(client, heard), peer: None }),
        Err(denial) => {
            record.denial(&denial);
            Err(Outcome::Denied(denial.reason()))
        }
    }
}

/// Mutual TLS as the workload; the client is judged inside the handshake.
async fn shake_hands(
    proxy: &Proxy,
    mut socket: ResetOnDrop,
    heard: Inbox,
    arrival: &Arrival,
    (local, record): (&mut Local, &mut RecordBuilder),
) -> Result<Admitted, Outcome> {
    record.protection(Protection::Mtls);
    let credential = local.credential(proxy, record)?;
    let (policy, id) = (proxy.policy(), local.id().cloned());
    let Arrival { listen, client, listener, .. } = arrival.clone();
    let judge = Box::new(move |peer: &PeerIdentity| {
        let peer = Peer::Verified(peer);
        admit_inbound(&policy, id.as_ref(), listener.mode, listen, client, peer)
    });
    let trust = Trust { bundles: local.bundles(proxy), clock: clock::now, judge };
    let start = Instant::now();
    let accepting = credential.accept(&socket, heard, trust);
    let turn = (local.owner(), Remote::from(client.get().ip()));
    let wait = (&*socket, proxy.settings.handshake_timeout);
    match proxy.limits.shake(Direction::Inbound, turn, wait, accepting).await {
        Some(Ok(established)) => {
            proxy.metrics.handshake(Direction::Inbound.as_str(), start.elapsed());
            record.peer_id(established.peer.id());
            record.tls(established.facts);
            let end = End::tls(socket, established.channel);
            Ok(Admitted { permit: established.permit, end, peer: Some(established.peer) })
        }
        Some(Err(error)) => {
            // The alert that says why is on its way; a reset might overtake it.
            socket.end_in_order();
            Err(error.into_outcome(record))
        }
        None => Err(Outcome::Denied(DenyReason::HandshakeTimeout)),
    }
}

/// The application, dialled where the client dialled it, and seen to be the one that was attested.
async fn last_mile(proxy: &Proxy, arrival: &Arrival) -> Result<ResetOnDrop, Outcome> {
    let (flows, settings) = (proxy.flows.as_ref(), &proxy.settings);
    let app = dial_listener(flows, arrival.listen, arrival.client, settings).await?;
    if !arrival.ambiguous {
        check_accepted(flows, &app, &arrival.listener.claim, settings).await?;
    }
    Ok(app)
}
