//! From application to application: what one says the other hears, ends and resets included.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::rules::{policy, to_peer};
use super::{A, B, LONG, Two, is_reset, pattern};
use crate::audit::Record;
use crate::policy::{Expectation, OutboundPlan, plan_outbound};
use crate::proxy::relay::Inbox;
use crate::proxy::tls::{Channel, Offer, Tls, Trust};
use crate::spiffe::{PeerIdentity, parse_id};
use crate::sys::{clock, sockopt};
use crate::workload::{Mode, OriginalDst};

fn label(record: &Record) -> (&str, &str) {
    (record.outcome.as_deref().unwrap_or(""), record.reason.as_deref().unwrap_or(""))
}

/// Writes everything and says so, while reading everything that the other side says.
async fn converse(socket: &mut TcpStream, say: &[u8]) -> Vec<u8> {
    let (mut reader, mut writer) = socket.split();
    let mut heard = Vec::new();
    let speak = async {
        writer.write_all(say).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let ((), _) = tokio::join!(speak, async { reader.read_to_end(&mut heard).await.unwrap() });
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_transfers_arrive_whole_and_are_recorded_alike() {
    let mut two = Two::start().await;
    let (mut app, mut server) = two.connected().await;
    let (question, answer) = (pattern(20_000_000), pattern(17_000_001));
    let (heard_answer, heard_question) =
        tokio::join!(converse(&mut app, &question), converse(&mut server, &answer));
    assert_eq!(heard_question.len(), question.len());
    assert_eq!(digest(&SHA256, &heard_question).as_ref(), digest(&SHA256, &question).as_ref());
    assert_eq!(digest(&SHA256, &heard_answer).as_ref(), digest(&SHA256, &answer).as_ref());
    let (near, far) = (two.client.record().await, two.server.record().await);
    assert_eq!(label(&near), ("completed", ""));
    assert_eq!(label(&far), ("completed", ""));
    assert_eq!((near.bytes_sent, near.bytes_received), (Some(20_000_000), Some(17_000_001)));
    assert_eq!((far.bytes_sent, far.bytes_received), (Some(17_000_001), Some(20_000_000)));
    assert!(near.connection_id.is_some());
    assert_eq!(near.connection_id, far.connection_id);
    let id = |end: Option<crate::audit::Endpoint>| end.unwrap().spiffe_id.unwrap();
    assert_eq!((id(near.local), id(near.peer)), (A.to_owned(), B.to_owned()));
    assert_eq!((id(far.local), id(far.peer)), (B.to_owned(), A.to_owned()));
    assert_eq!(near.rule.as_deref(), Some("out"));
    assert_eq!(far.rule.as_deref(), Some("in"));
    assert_eq!(near.protection.as_deref(), Some("mtls"));
    assert_eq!(near.tls.unwrap().group, "X25519MLKEM768");
    assert!(far.process.unwrap().pid == std::process::id());
    // The application is to see the client as the wire shows it.
    let marked = two.server.table.marked_for();
    assert_eq!(marked.len(), 1);
    assert_eq!(Some(marked[0].to_string()), far_address(&two.server.record().await));
}

fn far_address(record: &Record) -> Option<String> {
    record.peer.as_ref().and_then(|peer| peer.address.clone())
}

#[tokio::test]
async fn the_end_of_one_direction_leaves_the_other_open() {
    let mut two = Two::start().await;
    for client_ends_first in [true, false] {
        let (app, server) = two.connected().await;
        let (mut first, mut second) = if client_ends_first { (app, server) } else { (server, app) };
        first.write_all(b"question").await.unwrap();
        first.shutdown().await.unwrap();
        let mut question = Vec::new();
        timeout(LONG, second.read_to_end(&mut question)).await.unwrap().unwrap();
        assert_eq!(question, b"question");
        tokio::time::sleep(Duration::from_millis(100)).await;
        second.write_all(&pattern(300_000)).await.unwrap();
        second.shutdown().await.unwrap();
        let mut answer = Vec::new();
        timeout(LONG, first.read_to_end(&mut answer)).await.unwrap().unwrap();
        assert!(answer == pattern(300_000));
    }
    for record in two.client.records(2).await.iter().chain(&two.server.records(2).await) {
        assert_eq!(label(record), ("completed", ""));
    }
}

#[tokio::test]
async fn an_abortive_close_is_one_at_the_other_end() {
    let mut two = Two::start().await;
    let (app, mut server) = two.connected().await;
    sockopt::reset_on_close(&app).unwrap();
    drop(app);
    assert!(is_reset(&mut server).await);
    assert_eq!(label(&two.client.record().await), ("local_failed", "reset"));
    assert_eq!(label(&two.server.record().await), ("peer_failed", "reset"));

    let mut two = Two::start().await;
    let (mut app, server) = two.connected().await;
    sockopt::reset_on_close(&server).unwrap();
    drop(server);
    assert!(is_reset(&mut app).await);
    assert_eq!(label(&two.client.record().await), ("peer_failed", "reset"));
    assert_eq!(label(&two.server.record().await), ("local_failed", "reset"));
}

#[tokio::test]
async fn tiny_writes_go_through_one_by_one() {
    let mut two = Two::start().await;
    let (mut app, mut server) = two.connected().await;
    app.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    for byte in 0..=250 {
        app.write_all(&[byte]).await.unwrap();
        let mut echo = [0; 1];
        server.read_exact(&mut echo).await.unwrap();
        server.write_all(&echo).await.unwrap();
        app.read_exact(&mut echo).await.unwrap();
        assert_eq!(echo, [byte]);
    }
}

#[tokio::test]
async fn the_server_may_speak_first() {
    let mut two = Two::start().await;
    let (mut app, mut server) = two.connected().await;
    server.write_all(b"220 ready\r\n").await.unwrap();
    let mut greeting = [0; 11];
    timeout(LONG, app.read_exact(&mut greeting)).await.unwrap().unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
}

#[tokio::test]
async fn a_slow_reader_slows_the_writer_and_loses_nothing() {
    let mut two = Two::start().await;
    let (mut app, mut server) = two.connected().await;
    let chunk = pattern(1 << 20);
    let mut sent = 0_usize;
    while let Ok(written) = timeout(Duration::from_millis(500), app.write(&chunk)).await {
        sent += written.unwrap();
        assert!(sent < 128 << 20, "nothing stops the writer");
    }
    app.shutdown().await.unwrap();
    let mut received = Vec::new();
    server.read_to_end(&mut received).await.unwrap();
    assert_eq!(received.len(), sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_at_a_time() {
    let mut two = Two::start().await;
    let mut near = Vec::new();
    for _ in 0..200 {
        near.push(two.client.dial(two.server.listen).await);
    }
    let mut far = Vec::new();
    for _ in 0..200 {
        far.push(two.server.accept().await);
    }
    let say = pattern(10_000);
    let mut work = tokio::task::JoinSet::new();
    for mut server in far {
        work.spawn(async move {
            let heard = converse(&mut server, &[]).await;
            assert_eq!(heard.len(), 10_000);
        });
    }
    for mut app in near {
        let say = say.clone();
        work.spawn(async move {
            assert_eq!(converse(&mut app, &say).await, b"");
        });
    }
    while let Some(done) = work.join_next().await {
        done.unwrap();
    }
    for record in two.client.records(200).await.iter().chain(&two.server.records(200).await) {
        assert_eq!(label(record), ("completed", ""), "{record:?}");
    }
    assert_eq!((two.client.live(), two.server.live()), (0, 0));
}

#[tokio::test]
async fn a_peer_that_closes_tcp_only_is_not_taken_for_one_that_is_done() {
    let mut two = Two::start().await;
    let (socket, mut channel) = stranger(&two).await;
    let mut app = two.server.accept().await;
    let sent = poll_fn(|cx| channel.poll_send(&socket, cx, b"half a sent")).await;
    assert_eq!(sent.unwrap(), 11);
    let mut heard = [0; 11];
    app.read_exact(&mut heard).await.unwrap();
    drop(socket);
    assert!(is_reset(&mut app).await);
    assert_eq!(label(&two.server.record().await), ("peer_failed", "closed without close_notify"));
}

/// What is held back in the hope of more is sent when nothing more comes: the kernel alone would
/// wait for its shortest retransmission timeout, 200 ms.
#[tokio::test]
async fn a_record_does_not_wait_for_the_rest_of_the_next() {
    /// Bytes of a TLS 1.3 record besides its content. Source: RFC 8446 §5.2, with AES-GCM.
    const AROUND: usize = 5 + 1 + 16;
    let mut two = Two::start().await;
    let (socket, mut channel) = stranger(&two).await;
    let mut app = two.server.accept().await;
    let taps = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tap = TcpStream::connect(taps.local_addr().unwrap()).await.unwrap();
    let (mut tapped, _) = taps.accept().await.unwrap();
    let (mut socket, words) = (socket, pattern((16 << 10) + 9000));
    let mut fastest = Duration::MAX;
    for _ in 0..10 {
        let sent = poll_fn(|cx| channel.poll_send(&tap, cx, &words)).await.unwrap();
        assert_eq!(sent, words.len());
        poll_fn(|cx| channel.poll_flush(&tap, cx)).await.unwrap();
        let mut records = vec![0; words.len() + 2 * AROUND];
        tapped.read_exact(&mut records).await.unwrap();
        let (now, later) = records.split_at((16 << 10) + AROUND + 8000);
        let start = tokio::time::Instant::now();
        socket.write_all(now).await.unwrap();
        let mut heard = vec![0; words.len()];
        app.read_exact(&mut heard[..16 << 10]).await.unwrap();
        fastest = fastest.min(start.elapsed());
        socket.write_all(later).await.unwrap();
        app.read_exact(&mut heard[16 << 10..]).await.unwrap();
        assert!(heard == words);
    }
    assert!(fastest < Duration::from_millis(150), "{fastest:?}");
}

/// A client of the server's node that the test plays by itself.
async fn stranger(two: &Two) -> (TcpStream, Box<Channel>) {
    let svid = Arc::new(two.ca.svid(A));
    let credential = Tls::default().credential(&svid, &two.ca.bundles(), clock::now()).unwrap();
    let expectation = expectation();
    let judge = Box::new(move |peer: &PeerIdentity| expectation.confirm(peer));
    let trust = Trust { bundles: Arc::new(two.ca.bundles()), clock: clock::now, judge };
    let socket = TcpStream::connect(two.server.listen).await.unwrap();
    let inbox = Inbox::new(64 << 10);
    let shaken = credential.connect(&socket, inbox, Offer::default(), trust).await.unwrap();
    (socket, shaken.channel)
}

fn expectation() -> Expectation {
    let (policy, local) = (policy([to_peer(B)], []), parse_id(A).unwrap());
    let to = OriginalDst::new("10.0.0.1:1".parse().unwrap());
    match plan_outbound(&policy, Some(&local), Mode::Strict, to) {
        OutboundPlan::Mtls(expectation) => expectation,
        other => panic!("{other:?}"),
    }
}
