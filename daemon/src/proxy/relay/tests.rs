//! The relay between real sockets, in the clear: bytes, ends, resets, idleness, cuts.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{End, Inbox, ResetOnDrop, Terms, run};
use crate::audit::{ByteCounters, CutReason, LocalFailure, Outcome, PeerFailure};
use crate::policy::plan_outbound;
use crate::policy::{Networks, OutboundAction, OutboundPlan, OutboundRule, Permit, Policy};
use crate::proxy::live::{Live, Road, Standing};
use crate::spiffe::BundleSet;
use crate::sys::sockopt;
use crate::workload::{
    CgroupId, ClaimSource, FileId, Mode, NetnsCookie, OriginalDst, PortSet, ProcessClaim,
    ProcessKey, ScopeId,
};

fn claim() -> ProcessClaim {
    ProcessClaim {
        process: ProcessKey { pid: 1, start_ns: 1 },
        uid: 1,
        gid: 1,
        real_uid: 1,
        real_gid: 1,
        cgroup: CgroupId(1),
        netns: NetnsCookie(1),
        exe: FileId { dev: 1, ino: 1 },
        exec_id: 1,
        seen_ns: 2,
        source: ClaimSource::Kernel,
    }
}

/// Two applications with a relay between them.
struct Lab {
    app: TcpStream,
    peer: TcpStream,
    counters: Arc<ByteCounters>,
    relay: JoinHandle<Outcome>,
    policy: watch::Sender<Arc<Policy>>,
    live: Arc<Live>,
}

fn policy(epoch: u64, action: OutboundAction) -> Arc<Policy> {
    let rule = OutboundRule {
        name: "all".into(),
        workloads: vec![],
        to: Networks::default(),
        ports: PortSet::all(),
        action,
        dry_run: false,
    };
    Arc::new(Policy { epoch, outbound: vec![rule], ..Policy::default() })
}

fn dst() -> OriginalDst {
    OriginalDst::new("10.0.0.1:80".parse().unwrap())
}

fn permit(policy: &Policy) -> Permit {
    match plan_outbound(policy, None, Mode::Permissive, dst()) {
        OutboundPlan::Plaintext(permit) => permit,
        other => panic!("{other:?}"),
    }
}

async fn pair() -> (TcpStream, ResetOnDrop) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, ResetOnDrop::new(listener.accept().await.unwrap().0))
}

#[expect(clippy::disallowed_methods, reason = "a test awaits its task by itself")]
async fn lab(idle: Duration) -> Lab {
    let (app, app_side) = pair().await;
    let (peer, peer_side) = pair().await;
    let (policy, rules) = watch::channel(policy(1, OutboundAction::Plaintext));
    let permit = permit(&rules.borrow());
    let bundles = watch::channel(Arc::new(BundleSet::default())).1;
    let live =
        Arc::new(Live::new(rules, bundles, (watch::channel(Arc::default()).1, Arc::new(|_| None))));
    let road = Road::Outbound(dst());
    let (scope, mode) = (ScopeId(1), Mode::Permissive);
    let entered =
        live.enter(Standing { local: None, peer: None, claim: claim(), scope, mode, road });
    let counters = Arc::new(ByteCounters::default());
    let terms = Terms::new(Arc::clone(&counters), Some(idle), entered);
    let (near, far) =
        (End::plain(app_side, Inbox::new(64 << 10)), End::plain(peer_side, Inbox::new(64 << 10)));
    let relay = tokio::spawn(async move { run(&permit, near, far, terms).await });
    Lab { app, peer, counters, relay, policy, live }
}

const LONG: Duration = Duration::from_secs(30);

async fn ended(relay: JoinHandle<Outcome>) -> Outcome {
    timeout(LONG, relay).await.unwrap().unwrap()
}

async fn is_reset(socket: &mut TcpStream) -> bool {
    let read = timeout(LONG, socket.read(&mut [0; 1])).await.unwrap();
    read.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
}

#[tokio::test]
async fn bytes_arrive_whole_and_are_counted() {
    let Lab { mut app, mut peer, counters, relay, .. } = lab(LONG).await;
    let (out, back) = (pattern(9_000_000), pattern(3_000_001));
    let (mut seen_out, mut seen_back) = (Vec::new(), Vec::new());
    let (mut app_read, mut app_write) = app.split();
    let (mut peer_read, mut peer_write) = peer.split();
    let send = async {
        app_write.write_all(&out).await.unwrap();
        app_write.shutdown().await.unwrap();
    };
    let reply = async {
        peer_write.write_all(&back).await.unwrap();
        peer_write.shutdown().await.unwrap();
    };
    let ((), (), out_length, back_length) = tokio::join!(
        send,
        reply,
        peer_read.read_to_end(&mut seen_out),
        app_read.read_to_end(&mut seen_back),
    );
    assert_eq!((out_length.unwrap(), back_length.unwrap()), (out.len(), back.len()));
    assert!(seen_out == out && seen_back == back);
    assert_eq!(ended(relay).await, Outcome::Completed);
    assert_eq!(counters.read(), (9_000_000, 3_000_001));
}

#[tokio::test]
async fn one_direction_may_end_before_the_other() {
    let Lab { mut app, mut peer, relay, .. } = lab(LONG).await;
    app.write_all(b"question").await.unwrap();
    app.shutdown().await.unwrap();
    let mut question = Vec::new();
    peer.read_to_end(&mut question).await.unwrap();
    assert_eq!(question, b"question");
    peer.write_all(b"answer").await.unwrap();
    let mut answer = [0; 6];
    app.read_exact(&mut answer).await.unwrap();
    assert!(!relay.is_finished());
    drop(peer);
    assert_eq!(app.read(&mut [0; 1]).await.unwrap(), 0);
    assert_eq!(ended(relay).await, Outcome::Completed);
}

#[tokio::test]
async fn a_reset_is_carried_on_either_way() {
    let Lab { app, mut peer, relay, .. } = lab(LONG).await;
    sockopt::reset_on_close(&app).unwrap();
    drop(app);
    assert!(is_reset(&mut peer).await);
    assert_eq!(ended(relay).await, Outcome::LocalFailed(LocalFailure::Reset));

    let Lab { mut app, peer, relay, .. } = lab(LONG).await;
    sockopt::reset_on_close(&peer).unwrap();
    drop(peer);
    assert!(is_reset(&mut app).await);
    assert_eq!(ended(relay).await, Outcome::PeerFailed(PeerFailure::Reset));
}

#[tokio::test]
async fn a_reset_after_the_end_is_noticed() {
    let Lab { mut app, mut peer, relay, .. } = lab(LONG).await;
    app.shutdown().await.unwrap();
    assert_eq!(peer.read(&mut [0; 1]).await.unwrap(), 0);
    sockopt::reset_on_close(&app).unwrap();
    drop(app);
    assert_eq!(ended(relay).await, Outcome::LocalFailed(LocalFailure::Reset));
    // The end was read before, so the reset shows when writing.
    timeout(LONG, async { while peer.write_all(b"x").await.is_ok() {} }).await.unwrap();
}

#[tokio::test]
async fn what_came_before_a_reset_is_delivered() {
    let Lab { mut app, mut peer, relay, .. } = lab(LONG).await;
    peer.write_all(b"last words").await.unwrap();
    let mut words = [0; 10];
    app.read_exact(&mut words).await.unwrap();
    sockopt::reset_on_close(&peer).unwrap();
    drop(peer);
    assert!(is_reset(&mut app).await);
    assert!(matches!(ended(relay).await, Outcome::PeerFailed(_)));
}

#[tokio::test]
async fn a_reader_that_does_not_read_stops_the_writer() {
    let Lab { mut app, mut peer, relay, .. } = lab(LONG).await;
    let chunk = pattern(1 << 20);
    let mut sent = 0_usize;
    while let Ok(written) = timeout(Duration::from_millis(300), app.write(&chunk)).await {
        sent += written.unwrap();
        assert!(sent < 64 << 20, "nothing stops the writer");
    }
    app.shutdown().await.unwrap();
    let mut received = Vec::new();
    peer.read_to_end(&mut received).await.unwrap();
    assert_eq!(received.len(), sent);
    drop(peer);
    assert_eq!(ended(relay).await, Outcome::Completed);
}

#[tokio::test]
async fn an_idle_connection_ends_and_a_busy_one_does_not() {
    let Lab { mut app, mut peer, relay, .. } = lab(Duration::from_millis(200)).await;
    for _ in 0..10 {
        app.write_all(b"x").await.unwrap();
        peer.read_exact(&mut [0; 1]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert!(!relay.is_finished());
    assert_eq!(ended(relay).await, Outcome::Cut(CutReason::Idle));
    assert!(is_reset(&mut app).await && is_reset(&mut peer).await);
}

#[tokio::test]
async fn a_change_of_policy_cuts_at_once() {
    let Lab { mut app, mut peer, relay, policy: rules, live, .. } = lab(LONG).await;
    rules.send_replace(policy(2, OutboundAction::Plaintext));
    live.check_all();
    app.write_all(b"x").await.unwrap();
    peer.read_exact(&mut [0; 1]).await.unwrap();
    rules.send_replace(policy(3, OutboundAction::Refuse));
    live.check_all();
    assert_eq!(ended(relay).await, Outcome::Cut(CutReason::PolicyChanged));
    assert!(is_reset(&mut app).await && is_reset(&mut peer).await);
}
