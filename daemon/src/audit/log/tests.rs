//! Tests of the log as files: what a crash leaves is repaired, and what somebody does to the log
//! behind the daemon's back is found, each kind by its name.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::append::{CHECKPOINT_EVERY, Log, LogError};
use super::files::rotated_name;
use super::verify::{Evidence, Fault, Verified, verify};
use super::{Head, Query, lines};
use crate::audit::{AuditSettings, Event, Overflow, Record};

const TIME: &str = "2023-11-14T22:13:20.000Z";

struct Lab {
    dir: tempfile::TempDir,
    settings: AuditSettings,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = AuditSettings {
            path: dir.path().join("audit.log"),
            state_dir: dir.path().to_owned(),
            node: "n1".to_owned(),
            rotate_bytes: 1 << 20,
            keep: 3,
            queue: 16,
            overflow: Overflow::Block,
            open_after: std::time::Duration::from_secs(10),
            sync_every: std::time::Duration::ZERO,
        };
        Self { dir, settings }
    }

    fn path(&self) -> &Path {
        &self.settings.path
    }

    fn open(&self) -> Log {
        Log::open(&self.settings, TIME).unwrap()
    }

    fn verify(&self) -> Verified {
        let evidence = Evidence::gather(self.path(), Some(self.dir.path())).unwrap();
        verify(self.path(), &evidence).unwrap()
    }

    fn faults(&self) -> Vec<Fault> {
        self.verify().faults
    }

    /// A log of a start record, a checkpoint, `count` closing records and a checkpoint.
    fn filled(count: usize) -> Self {
        let lab = Self::new();
        let mut log = lab.open();
        for n in 0..count {
            append(&mut log, &[closing(n)]);
        }
        log.sign(TIME).unwrap();
        log.sync().unwrap();
        lab
    }

    fn lines(&self) -> Vec<String> {
        fs::read_to_string(self.path()).unwrap().lines().map(str::to_owned).collect()
    }

    fn rewrite(&self, lines: &[String]) {
        fs::write(self.path(), lines.join("\n") + "\n").unwrap();
    }

    fn records(&self, query: &Query) -> Vec<Record> {
        let mut found = Vec::new();
        let each = |_: &str, record: &Record| {
            found.push(record.clone());
            ControlFlow::Continue(())
        };
        let (alien, _) = lines(self.path(), query, each).unwrap();
        assert_eq!(alien, 0);
        found
    }
}

fn closing(n: usize) -> Record {
    Record { id: Some(format!("r-{n}")), ..Record::new(Event::Close) }
}

fn opening(n: usize) -> Record {
    Record { id: Some(format!("r-{n}")), ..Record::new(Event::Open) }
}

fn append(log: &mut Log, records: &[Record]) {
    log.append(&mut records.to_vec(), TIME).unwrap();
}

fn place(lab: &Lab, line: u64) -> super::verify::Place {
    super::verify::Place { file: lab.path().to_owned(), line }
}

#[test]
fn a_log_that_nobody_touched_is_whole() {
    let lab = Lab::filled(5);
    let seen = lab.verify();
    assert_eq!(seen.faults, []);
    assert_eq!((seen.first_seq, seen.last_seq), (Some(1), Some(8)));
    assert_eq!((seen.checkpoints, seen.signed_to, seen.anchored_to), (2, Some(8), Some(8)));
}

#[test]
fn an_edited_line_is_found() {
    let lab = Lab::filled(5);
    let mut lines = lab.lines();
    lines[3] = lines[3].replace("r-1", "r-9");
    lab.rewrite(&lines);
    assert_eq!(lab.faults(), [Fault::Edited { at: place(&lab, 5), seq: 5 }]);
}

#[test]
fn an_edited_last_line_is_found_by_the_head() {
    let lab = Lab::new();
    let mut log = lab.open();
    append(&mut log, &[closing(1)]);
    log.sync().unwrap();
    let mut lines = lab.lines();
    lines[2] = lines[2].replace("r-1", "r-9");
    lab.rewrite(&lines);
    assert_eq!(lab.faults(), [Fault::Rewritten { seq: 3 }]);
}

#[test]
fn a_removed_line_is_found() {
    let lab = Lab::filled(5);
    let mut lines = lab.lines();
    lines.drain(3..5);
    lab.rewrite(&lines);
    assert_eq!(lab.faults(), [Fault::Missing { at: place(&lab, 4), from: 4, to: 5 }]);
}

#[test]
fn moved_lines_are_found() {
    let lab = Lab::filled(5);
    let mut lines = lab.lines();
    lines.swap(3, 4);
    lab.rewrite(&lines);
    assert!(lab.faults().contains(&Fault::OutOfOrder { at: place(&lab, 5), seq: 4 }));
}

#[test]
fn a_forged_line_is_found() {
    let lab = Lab::filled(2);
    let mut lines = lab.lines();
    lines.insert(3, "{\"seq\":4}".to_owned());
    lab.rewrite(&lines);
    assert!(lab.faults().contains(&Fault::NotARecord { at: place(&lab, 4) }));
}

#[test]
fn an_end_cut_off_is_found() {
    let lab = Lab::filled(5);
    let mut lines = lab.lines();
    lines.truncate(6);
    lab.rewrite(&lines);
    assert_eq!(lab.faults(), [Fault::CutShort { expected: 8, found: 6 }]);
    fs::remove_file(lab.path()).unwrap();
    assert_eq!(lab.faults(), [Fault::CutShort { expected: 8, found: 0 }]);
}

#[test]
fn a_daemon_that_goes_on_after_a_cut_leaves_the_gap_visible() {
    let lab = Lab::filled(5);
    let mut lines = lab.lines();
    lines.truncate(6);
    lab.rewrite(&lines);
    drop(lab.open());
    assert_eq!(lab.faults(), [Fault::Missing { at: place(&lab, 7), from: 7, to: 8 }]);
    let told = lab.records(&Query { reason: Some("log_cut_short".to_owned()), ..Query::default() });
    assert_eq!(told.len(), 1);
}

#[test]
fn a_chain_computed_afresh_is_found_by_its_signature_and_by_the_head() {
    let (lab, forger) = (Lab::filled(5), Lab::filled(4));
    // Somebody with a key of their own writes a log that is whole in itself.
    fs::copy(forger.path(), lab.path()).unwrap();
    let faults = lab.faults();
    assert!(matches!(
        faults[..],
        [Fault::ForeignKey { seq: 2, .. }, Fault::ForeignKey { seq: 7, .. }, ..]
    ));
    assert!(faults.contains(&Fault::CutShort { expected: 8, found: 7 }));
}

#[test]
fn a_key_put_beside_a_forged_log_does_not_help() {
    let (lab, forger) = (Lab::filled(5), Lab::filled(5));
    fs::copy(forger.path(), lab.path()).unwrap();
    let public = super::public_key_name(lab.path());
    fs::copy(super::public_key_name(forger.path()), &public).unwrap();
    assert!(lab.faults().contains(&Fault::Rewritten { seq: 8 }));
    assert!(lab.faults().iter().any(|fault| matches!(fault, Fault::ForeignKey { .. })));
}

#[test]
fn a_checkpoint_moved_to_another_chain_is_found() {
    let lab = Lab::filled(5);
    let mut lines = lab.lines();
    let mut mark: Record = serde_json::from_str(&lines[7]).unwrap();
    mark.time = "2024-01-01T00:00:00.000Z".to_owned();
    lines[7] = String::from_utf8(super::line::encode(&mark).unwrap()).unwrap();
    lab.rewrite(&lines);
    assert!(lab.faults().contains(&Fault::BadSignature { at: place(&lab, 8), seq: 8 }));
}

#[test]
fn a_log_without_the_checkpoints_it_must_have_is_found() {
    let lab = Lab::new();
    drop(lab.open());
    // A chain that holds, but that nobody signed.
    let (mut hash, mut text) = (super::line::NO_LINE, String::new());
    for seq in 1..=2 * CHECKPOINT_EVERY + 2 {
        let mut record = Record { seq, time: TIME.to_owned(), ..closing(0) };
        record.prev_hash = super::hex(&hash);
        let line = super::line::encode(&record).unwrap();
        hash = super::line::hash(&line);
        text += &(String::from_utf8(line).unwrap() + "\n");
    }
    fs::write(lab.path(), text).unwrap();
    let evidence = Evidence { head: None, ..Evidence::gather(lab.path(), None).unwrap() };
    let faults = verify(lab.path(), &evidence).unwrap().faults;
    assert!(matches!(faults[..], [Fault::Unsigned { from: 1, .. }]), "{faults:?}");
}

#[test]
fn rotation_keeps_the_chain_and_only_so_many_files() {
    let mut lab = Lab::new();
    lab.settings.rotate_bytes = 2000;
    let mut log = lab.open();
    for n in 0..60 {
        log.rotate_if_due(TIME).unwrap();
        append(&mut log, &[closing(n)]);
        log.sync().unwrap();
        assert_eq!(lab.faults(), [], "after record {n}");
    }
    assert!(rotated_name(lab.path(), 3).exists());
    assert!(!rotated_name(lab.path(), 4).exists());
    let seen = lab.verify();
    assert_eq!(seen.files, 4);
    assert!(seen.first_seq > Some(1));
    // The oldest file is removed by somebody else: that is no rotation.
    fs::remove_file(rotated_name(lab.path(), 3)).unwrap();
    assert!(matches!(lab.faults()[..], [Fault::BeginningMissing { .. }]));
    // A file in the middle.
    fs::remove_file(rotated_name(lab.path(), 1)).unwrap();
    assert!(lab.faults().iter().any(|fault| matches!(fault, Fault::Missing { .. })));
}

#[test]
fn the_run_after_a_crash_closes_what_was_open_and_mends_the_last_line() {
    let lab = Lab::new();
    let mut log = lab.open();
    append(&mut log, &[opening(1), opening(2), closing(1)]);
    drop(log);
    let mut torn = fs::read(lab.path()).unwrap();
    torn.extend_from_slice(b"{\"seq\":6,\"time\":\"2023");
    fs::write(lab.path(), torn).unwrap();
    assert!(lab.verify().torn);

    drop(lab.open());
    assert_eq!(lab.faults(), []);
    let interrupted =
        lab.records(&Query { outcome: Some("interrupted".to_owned()), ..Query::default() });
    assert_eq!(interrupted.iter().map(|r| r.id.as_deref()).collect::<Vec<_>>(), [Some("r-2")]);
    let repaired =
        lab.records(&Query { reason: Some("log_repaired".to_owned()), ..Query::default() });
    assert_eq!(repaired.len(), 1);

    // And the run after that has nothing left to close.
    drop(lab.open());
    let query = Query { outcome: Some("interrupted".to_owned()), ..Query::default() };
    assert_eq!(lab.records(&query).len(), 1);
}

/// Not a test by itself: the process that `a_killed_writer_loses_nothing_that_was_synced` kills.
#[test]
#[ignore = "run by another test, in a directory of its own"]
fn writes_until_killed() {
    if !Path::new("to-be-killed").exists() {
        return;
    }
    let mut lab = Lab::new();
    lab.settings.path = PathBuf::from("audit.log");
    lab.settings.state_dir = PathBuf::from(".");
    lab.settings.rotate_bytes = 50_000;
    lab.settings.keep = 1000;
    let mut log = lab.open();
    append(&mut log, &[opening(0)]);
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    for n in (1..).take_while(|_| std::time::Instant::now() < until) {
        if log.rotate_if_due(TIME).unwrap() {
            append(&mut log, &[opening(0)]);
        }
        append(&mut log, &[closing(n), closing(n), closing(n)]);
        if n % 7 == 0 {
            log.sync().unwrap();
        }
    }
}

#[test]
fn a_killed_writer_loses_nothing_that_was_synced() {
    for pause_ms in [0, 70, 150] {
        let mut lab = Lab::new();
        lab.settings.keep = 1000;
        fs::write(lab.dir.path().join("to-be-killed"), "").unwrap();
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "audit::log::tests::writes_until_killed", "--ignored"])
            .current_dir(lab.dir.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let opened = || fs::read_to_string(lab.path()).is_ok_and(|log| log.contains("\"open\""));
        while !opened() && !rotated_name(lab.path(), 1).exists() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        std::thread::sleep(std::time::Duration::from_millis(pause_ms));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(lab.faults(), []);
        let query = Query { outcome: Some("interrupted".to_owned()), ..Query::default() };
        drop(lab.open());
        assert_eq!(lab.faults(), []);
        assert_eq!(lab.records(&query).len(), 1);
    }
}

#[test]
fn an_open_connection_is_found_in_the_file_before() {
    let mut lab = Lab::new();
    lab.settings.rotate_bytes = 1;
    let mut log = lab.open();
    append(&mut log, &[opening(7)]);
    assert!(log.rotate_if_due(TIME).unwrap());
    drop(log);
    drop(lab.open());
    let query = Query { connection: Some("r-7".to_owned()), ..Query::default() };
    assert_eq!(lab.records(&query).len(), 2);
    assert_eq!(lab.faults(), []);
}

#[test]
fn a_second_daemon_is_refused() {
    let lab = Lab::new();
    let _log = lab.open();
    assert!(matches!(Log::open(&lab.settings, TIME), Err(LogError::InUse(_))));
}

#[test]
fn a_log_that_was_moved_away_is_begun_anew_at_its_name() {
    let lab = Lab::new();
    let mut log = lab.open();
    assert!(!log.reopen_if_moved().unwrap());
    let elsewhere: PathBuf = rotated_name(lab.path(), 1);
    fs::rename(lab.path(), &elsewhere).unwrap();
    assert!(log.reopen_if_moved().unwrap());
    append(&mut log, &[closing(1)]);
    log.sync().unwrap();
    assert_eq!(lab.faults(), []);
    assert_eq!(lab.verify().files, 2);
}

#[test]
fn the_head_never_runs_ahead_of_the_log() {
    let lab = Lab::new();
    let mut log = lab.open();
    append(&mut log, &[closing(1)]);
    let head = Head::read(lab.dir.path()).unwrap().unwrap();
    assert_eq!((head.seq, log.seq()), (2, 3));
    // Lines beyond the head are accepted: a crash may leave it behind.
    assert_eq!(lab.faults(), []);
}

#[test]
fn following_a_log_goes_on_over_a_rotation() {
    let mut lab = Lab::new();
    lab.settings.rotate_bytes = 1;
    let mut log = lab.open();
    let query = Query { events: vec![Event::Close], ..Query::default() };
    let (_, mut follow) = lines(lab.path(), &query, |_, _| ControlFlow::Continue(())).unwrap();
    let mut seen = Vec::new();
    for n in 0..4 {
        append(&mut log, &[closing(n)]);
        if n % 2 == 0 {
            log.rotate_if_due(TIME).unwrap();
        }
        follow
            .poll(&query, |_, record| {
                seen.extend(record.id.clone());
                ControlFlow::Continue(())
            })
            .unwrap();
    }
    assert_eq!(seen, ["r-0", "r-1", "r-2", "r-3"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever one byte of a signed and anchored log becomes, somebody notices.
    #[test]
    fn no_byte_can_be_changed_unseen(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let lab = Lab::filled(3);
        let mut bytes = fs::read(lab.path()).unwrap();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        fs::write(lab.path(), bytes).unwrap();
        prop_assert_ne!(lab.faults(), []);
    }

    /// Wherever a crash cuts the log off, the next run mends it, and tells if anything is missing.
    #[test]
    fn a_log_cut_anywhere_is_mended(at in any::<prop::sample::Index>()) {
        let lab = Lab::filled(3);
        let bytes = fs::read(lab.path()).unwrap();
        let at = at.index(bytes.len());
        fs::write(lab.path(), &bytes[..at]).unwrap();
        drop(lab.open());
        prop_assert!(!lab.verify().torn);
        // Everything had been synced, so a cut is a loss, and must stay visible.
        let missing = |fault: &Fault| {
            matches!(fault, Fault::Missing { .. } | Fault::BeginningMissing { .. })
        };
        prop_assert!(lab.faults().iter().all(missing), "{:?}", lab.faults());
        prop_assert_ne!(lab.faults(), []);
    }
}
