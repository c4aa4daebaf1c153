//! Tests of the audit trail as a whole: builders in many tasks, the writer, the log on disk.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::log::{Evidence, Query, lines, verify};
use super::*;
use crate::metrics::Metrics;
use crate::policy::DenyReason;
use crate::shutdown::Tasks;
use crate::workload::{Mode, ScopeId};

struct Lab {
    dir: tempfile::TempDir,
    audit: Audit,
    tasks: Tasks,
}

fn settings(dir: &std::path::Path) -> AuditSettings {
    AuditSettings {
        path: dir.join("audit.log"),
        state_dir: dir.to_owned(),
        node: "n1".to_owned(),
        rotate_bytes: 64 << 10,
        keep: 100,
        queue: 64,
        overflow: Overflow::Block,
        open_after: Duration::from_millis(100),
        sync_every: Duration::from_millis(50),
    }
}

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn clock() -> Clock {
    Clock {
        now: || SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        since_boot: || Duration::from_secs(1000),
    }
}

impl Lab {
    fn start(dir: tempfile::TempDir, change: impl FnOnce(&mut AuditSettings)) -> Self {
        let mut settings = settings(dir.path());
        change(&mut settings);
        let (audit, writer) = Audit::open(&settings, clock(), Arc::new(metrics())).unwrap();
        let mut tasks = Tasks::new();
        let stop = tasks.stop();
        tasks.spawn("audit", writer.run(stop));
        Self { dir, audit, tasks }
    }

    async fn stop(mut self) -> (tempfile::TempDir, Vec<Record>) {
        assert_eq!(self.tasks.drain(Duration::from_secs(10)).await, 0);
        let records = read(&self.dir);
        (self.dir, records)
    }
}

fn metrics() -> Metrics {
    Metrics::new(&Direction::ALL.map(Direction::as_str), &DenyReason::ALL.map(DenyReason::as_str))
}

fn read(dir: &tempfile::TempDir) -> Vec<Record> {
    let path = settings(dir.path()).path;
    let seen = verify(&path, &Evidence::gather(&path, Some(dir.path())).unwrap()).unwrap();
    assert_eq!(seen.faults, []);
    let mut records = Vec::new();
    let each = |_: &str, record: &Record| {
        records.push(record.clone());
        ControlFlow::Continue(())
    };
    lines(&path, &Query::default(), each).unwrap();
    records
}

fn of(records: &[Record], event: Event) -> Vec<&Record> {
    records.iter().filter(|record| record.event == event).collect()
}

#[tokio::test]
async fn a_connection_leaves_one_record_with_all_that_was_told() {
    let lab = Lab::start(tempfile::tempdir().unwrap(), |_| {});
    lab.audit.name_scopes([(ScopeId(3), "/system.slice/a.service".to_owned())].into());
    let record = lab.audit.connection(Direction::Outbound);
    record.scope(ScopeId(3), Mode::Strict);
    record
        .addresses(Some("10.0.0.1:40000".parse().unwrap()), Some("10.0.0.2:443".parse().unwrap()));
    record.peer_id(&"spiffe://example.org/b".parse().unwrap());
    record.rule(Some("to-b"), 7, Some("rehearsed"));
    record.tls(TlsFacts {
        version: "TLSv1.3".to_owned(),
        cipher: "TLS13_AES_256_GCM_SHA384".to_owned(),
        group: "X25519MLKEM768".to_owned(),
        peer_serial: Some("0a".to_owned()),
        peer_not_after: Some(SystemTime::UNIX_EPOCH),
        connection_id: Some(vec![0xab, 0xcd]),
    });
    record.counters().add_sent(11);
    record.counters().add_received(22);
    record.close(Outcome::PeerFailed(PeerFailure::ConnectTimedOut)).await;
    let (_dir, records) = lab.stop().await;
    let [record] = of(&records, Event::Close)[..] else { panic!("{records:?}") };
    let json = serde_json::to_value(record).unwrap();
    for (field, value) in [
        ("/outcome", "peer_failed"),
        ("/reason", "connect: timed out"),
        ("/node", "n1"),
        ("/time", "2023-11-14T22:13:20.000Z"),
        ("/direction", "outbound"),
        ("/connection_id", "abcd"),
        ("/protection", "mtls"),
        ("/mode", "strict"),
        ("/scope", "/system.slice/a.service"),
        ("/rule", "to-b"),
        ("/dry_run", "rehearsed"),
        ("/local/address", "10.0.0.1:40000"),
        ("/peer/spiffe_id", "spiffe://example.org/b"),
        ("/tls/peer_not_after", "1970-01-01T00:00:00.000Z"),
    ] {
        assert_eq!(json.pointer(field).and_then(|v| v.as_str()), Some(value), "{field}");
    }
    assert_eq!((record.bytes_sent, record.bytes_received), (Some(11), Some(22)));
    assert_eq!(record.policy_epoch, Some(7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_records_from_many_tasks_make_one_chain() {
    let lab = Lab::start(tempfile::tempdir().unwrap(), |_| {});
    let mut crowd = Tasks::new();
    for n in 0..1000_u64 {
        let audit = lab.audit.clone();
        crowd.spawn("connection", async move {
            let record = audit.connection(Direction::Inbound);
            record.counters().add_sent(n);
            record.close(Outcome::Completed).await;
        });
    }
    assert_eq!(crowd.drain(Duration::from_secs(30)).await, 0);
    assert_eq!(lab.audit.health().lost, 0);
    let (dir, records) = lab.stop().await;
    let closed = of(&records, Event::Close);
    assert_eq!(closed.len(), 1000);
    assert_eq!(closed.iter().filter_map(|r| r.bytes_sent).sum::<u64>(), 999 * 500);
    assert!(log::rotated_name(&settings(dir.path()).path, 1).exists(), "it was rotated meanwhile");
}

#[tokio::test]
async fn a_task_that_dies_leaves_a_record() {
    let lab = Lab::start(tempfile::tempdir().unwrap(), |_| {});
    let audit = lab.audit.clone();
    let mut connections = Tasks::new();
    connections.spawn("dies", async move {
        let mut record = audit.connection(Direction::Inbound);
        record.outcome(Outcome::Denied(DenyReason::NoRule));
        drop(record);
        let _record = audit.connection(Direction::Inbound);
        panic!("on purpose");
    });
    assert_eq!(connections.drain(Duration::from_secs(5)).await, 0);
    let (_dir, records) = lab.stop().await;
    let outcomes: Vec<_> = of(&records, Event::Close).iter().map(|r| r.outcome.clone()).collect();
    assert_eq!(outcomes, [Some("denied".into()), Some("interrupted".into())]);
}

#[tokio::test]
async fn a_long_connection_is_told_of_before_it_ends_and_closed_when_the_daemon_stops() {
    let lab = Lab::start(tempfile::tempdir().unwrap(), |_| {});
    let record = lab.audit.connection(Direction::Outbound);
    record.counters().add_sent(5);
    let id = record.id().to_owned();
    let told = || of(&read(&lab.dir), Event::Open).len() == 1;
    for _ in 0..100 {
        if told() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(told());
    assert_eq!(lab.audit.open_connections().len(), 1);
    let (_dir, records) = lab.stop().await;
    drop(record);
    let [closed] = of(&records, Event::Close)[..] else { panic!("{records:?}") };
    assert_eq!(
        (closed.id.as_deref(), closed.outcome.as_deref()),
        (Some(&*id), Some("interrupted"))
    );
    let reasons: Vec<_> = of(&records, Event::Daemon).iter().map(|r| r.reason.clone()).collect();
    assert_eq!(reasons, [Some("started".into()), Some("stopped".into())]);
}

#[tokio::test]
async fn what_finds_no_room_is_counted_and_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let mut narrow = settings(dir.path());
    (narrow.overflow, narrow.queue) = (Overflow::Drop, 4);
    let (audit, writer) = Audit::open(&narrow, clock(), Arc::new(metrics())).unwrap();
    // Nobody writes yet.
    for _ in 0..10 {
        audit.connection(Direction::Inbound).close(Outcome::Completed).await;
    }
    assert_eq!(audit.health().lost, 6);
    let mut tasks = Tasks::new();
    let stop = tasks.stop();
    tasks.spawn("audit", writer.run(stop));
    assert!(audit.flush(PATIENCE).await);
    let (_dir, records) = Lab { dir, audit, tasks }.stop().await;
    assert_eq!(of(&records, Event::Close).len(), 4);
    assert_eq!(of(&records, Event::Lost).iter().filter_map(|r| r.lost).sum::<u64>(), 6);
}

#[tokio::test]
async fn with_overflow_block_a_closing_connection_waits_for_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut narrow = settings(dir.path());
    narrow.queue = 1;
    let (audit, writer) = Audit::open(&narrow, clock(), Arc::new(metrics())).unwrap();
    audit.connection(Direction::Inbound).close(Outcome::Completed).await;
    let second = audit.connection(Direction::Inbound).close(Outcome::Completed);
    let mut second = std::pin::pin!(second);
    assert!(tokio::time::timeout(Duration::from_millis(50), &mut second).await.is_err());
    let mut tasks = Tasks::new();
    let stop = tasks.stop();
    tasks.spawn("audit", writer.run(stop));
    second.await;
    let (_dir, records) = Lab { dir, audit, tasks }.stop().await;
    assert_eq!(of(&records, Event::Close).len(), 2);
}

#[tokio::test]
async fn a_log_that_cannot_be_written_is_reported_and_catches_up() {
    // /dev/full takes nothing: every write fails as on a full disk.
    let lab = Lab::start(tempfile::tempdir().unwrap(), |_| {});
    let path = settings(lab.dir.path()).path;
    assert!(lab.audit.flush(PATIENCE).await);
    let aside = path.with_extension("aside");
    std::fs::rename(&path, &aside).unwrap();
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    lab.audit.connection(Direction::Inbound).close(Outcome::Completed).await;
    for _ in 0..100 {
        if lab.audit.health().problem.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        lab.audit.daemon("tick", None);
    }
    assert!(lab.audit.health().problem.is_some());
    std::fs::remove_file(&path).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    assert!(lab.audit.flush(PATIENCE).await);
    assert_eq!(lab.audit.health().problem, None);
    let (_dir, records) = lab.stop().await;
    assert_eq!(of(&records, Event::Close).len(), 1);
}

#[tokio::test]
async fn a_log_that_cannot_be_rotated_grows_on_and_says_so() {
    let lab = Lab::start(tempfile::tempdir().unwrap(), |settings| {
        (settings.rotate_bytes, settings.keep) = (2000, 1);
    });
    // No file can be given the name of a directory.
    let taken = lab.dir.path().join("audit.log.1");
    std::fs::create_dir(&taken).unwrap();
    for _ in 0..20 {
        lab.audit.connection(Direction::Inbound).close(Outcome::Completed).await;
        assert!(lab.audit.flush(PATIENCE).await, "whoever waits is answered: the record is there");
    }
    let told = std::fs::read_to_string(settings(lab.dir.path()).path).unwrap();
    assert_eq!(told.matches("\"close\"").count(), 20);
    let health = lab.audit.health();
    assert!(health.problem.unwrap().contains("cannot be rotated"), "and people are told");
    std::fs::remove_dir(&taken).unwrap();
    for _ in 0..200 {
        if taken.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(taken.is_file(), "it is tried again");
    let (_dir, records) = lab.stop().await;
    assert_eq!(of(&records, Event::Close).len(), 20);
}

/// A file system of its own, of 64 KiB, for as long as this lives. Needs root.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Self {
        let disk = Self(tempfile::tempdir().unwrap());
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k", "tacit-test"]).arg(disk.0.path());
        assert!(mount.status().unwrap().success(), "needs root: it mounts a file system");
        disk
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a failed test leaves a writer with the log open.
        let unmount = std::process::Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmount.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[tokio::test]
async fn privileged_a_full_disk_holds_nobody_up_at_the_end() {
    let disk = SmallDisk::new();
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.path = disk.0.path().join("audit.log");
    settings.queue = 4;
    let (audit, writer) = Audit::open(&settings, clock(), Arc::new(metrics())).unwrap();
    std::fs::write(disk.0.path().join("ballast"), vec![0; 256 << 10]).unwrap_err();
    let mut tasks = Tasks::new();
    let stop = tasks.stop();
    tasks.spawn("audit", writer.run(stop));
    let mut crowd = Tasks::new();
    for _ in 0..64 {
        let audit = audit.clone();
        crowd.spawn("connection", async move {
            let record = audit.connection(Direction::Outbound);
            record.detail(&"x".repeat(1000));
            record.close(Outcome::Completed).await;
        });
    }
    let began = std::time::Instant::now();
    for _ in 0..500 {
        if audit.health().problem.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(audit.health().problem.unwrap().contains("cannot be written"));
    assert!(!audit.flush(Duration::from_millis(500)).await, "the disk is full");
    assert!(crowd.drain(Duration::from_millis(200)).await > 0, "nobody waited");
    assert_eq!(tasks.drain(Duration::from_secs(5)).await, 0, "the writer ends by itself");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(audit.health().lost >= 32, "what was not written is counted: {:?}", audit.health());
}
