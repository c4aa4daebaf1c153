//! Processes that exited, became another program, or never were the one that has their pid.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use super::running::{Running, as_root, attestor, copy_of_sleep, digest_of, only, sleep, values};
use crate::attest::AttestError;
use crate::workload::{ClaimSource, ProcessClaim, ProcessKey};

#[tokio::test]
async fn an_exited_process_has_what_was_recorded() {
    let mut running = Running::program(&mut sleep(), "sleep");
    let claim = running.claim();
    running.end();
    let attested = attestor().attest(&claim).await.unwrap();
    assert!(attested.evidence.exited);
    assert_eq!(only(&attested, "unix:uid:"), Some(claim.uid.to_string()));
    assert!(only(&attested, "cgroup:path:").is_some());
    for absent in ["unix:path:", "unix:sha256:", "unix:supplementary_gid:"] {
        assert_eq!(values(&attested, absent), BTreeSet::new(), "{absent}");
    }
}

#[tokio::test]
async fn an_exited_process_has_the_digest_that_was_known_before() {
    let (_directory, copy) = copy_of_sleep();
    let digest = digest_of(&copy);
    let attestor = attestor();
    let mut early = Running::program(Command::new(&copy).arg("60"), "tacit-sleeper");
    let claim_before = early.claim();
    let earlier = Running::program(Command::new(&copy).arg("60"), "tacit-sleeper");
    attestor.attest(&earlier.claim()).await.unwrap();
    let mut late = Running::program(Command::new(&copy).arg("60"), "tacit-sleeper");
    let claim_after = late.claim();
    early.end();
    late.end();
    let known = attestor.attest(&claim_after).await.unwrap();
    assert_eq!(only(&known, "unix:sha256:"), Some(digest));
    assert_eq!(only(&known, "unix:path:").as_deref(), copy.to_str());
    // The file was not known yet when this one acted: it may have been another then.
    let unknown = attestor.attest(&claim_before).await.unwrap();
    assert_eq!(only(&unknown, "unix:sha256:"), None);
}

/// What would be known of it if it still ran is in doubt, and asked again: it is not kept.
#[tokio::test]
async fn what_an_exited_process_ran_is_in_doubt_until_that_is_known() {
    let (_directory, copy) = copy_of_sleep();
    let attestor = attestor();
    let mut first = Running::program(Command::new(&copy).arg("60"), "tacit-sleeper");
    let mut second = Running::program(Command::new(&copy).arg("60"), "tacit-sleeper");
    let (gone, lives) = (ProcessClaim { seen_ns: u64::MAX, ..first.claim() }, second.claim());
    first.end();
    let doubts = attestor.attest(&gone).await.unwrap().doubts;
    assert!(doubts.path && doubts.digest && doubts.supplementary, "{doubts:?}");
    assert!(!attestor.attest(&lives).await.unwrap().doubts.any());
    second.end();
    let doubts = attestor.attest(&gone).await.unwrap().doubts;
    assert!(!doubts.path && !doubts.digest && doubts.supplementary, "{doubts:?}");
}

#[tokio::test]
async fn a_digest_is_not_recalled_for_a_file_that_was_written_to() {
    let (_directory, copy) = copy_of_sleep();
    let attestor = attestor();
    let mut running = Running::program(Command::new(&copy).arg("60"), "tacit-sleeper");
    attestor.attest(&running.claim()).await.unwrap();
    let claim = running.claim();
    running.end();
    attestor.forget(claim.process);
    fs::OpenOptions::new().append(true).open(&copy).unwrap().write_all(b"more").unwrap();
    let attested = attestor.attest(&claim).await.unwrap();
    assert!(attested.evidence.exited);
    assert_eq!(only(&attested, "unix:sha256:"), None);
    // It runs again as what it is now.
    let again = Running::program(Command::new(&copy).arg("60"), "tacit-sleeper");
    let attested = attestor.attest(&again.claim()).await.unwrap();
    assert_eq!(only(&attested, "unix:sha256:"), Some(digest_of(&copy)));
}

#[tokio::test]
async fn a_fresh_result_is_not_taken_again_after_the_exit() {
    let mut running = Running::program(&mut sleep(), "sleep");
    let attestor = attestor();
    let claim = running.claim();
    assert!(!attestor.attest(&claim).await.unwrap().evidence.exited);
    running.end();
    assert!(attestor.attest(&claim).await.unwrap().evidence.exited);
}

#[tokio::test]
async fn of_a_reused_pid_nothing_is_used() {
    let running = Running::program(&mut sleep(), "sleep");
    let now = running.claim();
    let before = ProcessKey { start_ns: now.process.start_ns - 1_000_000_000, ..now.process };
    let recorded = ProcessClaim { process: before, uid: 4_000_000, ..now.clone() };
    let attested = attestor().attest(&recorded).await.unwrap();
    assert!(attested.evidence.exited);
    assert_eq!(only(&attested, "unix:uid:").as_deref(), Some("4000000"));
    assert_eq!(values(&attested, "unix:path:"), BTreeSet::new());

    let scanned = ProcessClaim { source: ClaimSource::Scan, ..recorded };
    let error = attestor().attest(&scanned).await.unwrap_err();
    assert!(matches!(error, AttestError::PidReused(process) if process == before), "{error}");

    let older_socket = ProcessClaim { seen_ns: now.process.start_ns - 1, ..now };
    let error = attestor().attest(&older_socket).await.unwrap_err();
    assert!(matches!(error, AttestError::PidReused(_)), "{error}");
}

#[tokio::test]
async fn after_another_program_was_executed_the_recorded_one_counts() {
    let shell = fs::canonicalize("/bin/sh").unwrap();
    let comm = "sh";
    let mut running =
        Running::program(Command::new("/bin/sh").args(["-c", "read x; exec sleep 60"]), comm);
    let (claim, attestor) = (running.claim(), attestor());
    running.0.stdin.take().unwrap().write_all(b"\n").unwrap();
    running.runs("sleep");
    let attested = attestor.attest(&claim).await.unwrap();
    assert!(!attested.evidence.exited);
    for absent in ["unix:path:", "unix:sha256:", "unix:supplementary_gid:"] {
        assert_eq!(values(&attested, absent), BTreeSet::new(), "{absent}");
    }
    // Once the shell is known, what it did before it became another program is its doing.
    let known = Running::program(Command::new("/bin/sh").args(["-c", "read x; true"]), comm);
    attestor.attest(&known.claim()).await.unwrap();
    let later = ProcessClaim { seen_ns: known.claim().seen_ns, exec_id: 7, ..claim.clone() };
    let attested = attestor.attest(&later).await.unwrap();
    assert_eq!(only(&attested, "unix:path:").as_deref(), shell.to_str());
    assert_eq!(only(&attested, "unix:sha256:"), Some(digest_of(&shell)));

    let scanned = ProcessClaim { source: ClaimSource::Scan, ..claim };
    let error = attestor.attest(&scanned).await.unwrap_err();
    assert!(matches!(error, AttestError::ProcessChanged { what: "executable", .. }), "{error}");
}

#[tokio::test]
async fn credentials_count_as_recorded() {
    let running = Running::program(&mut sleep(), "sleep");
    let now = running.claim();
    let recorded = ProcessClaim { uid: 4_000_000, gid: 4_000_001, ..now.clone() };
    let attested = attestor().attest(&recorded).await.unwrap();
    assert_eq!(only(&attested, "unix:uid:").as_deref(), Some("4000000"));
    assert_eq!(only(&attested, "unix:gid:").as_deref(), Some("4000001"));
    assert_eq!(only(&attested, "unix:user:"), None);
    assert_eq!(values(&attested, "unix:supplementary_gid:"), BTreeSet::new());
    assert_eq!(attested.evidence.real_uid, now.real_uid);

    let scanned = ProcessClaim { source: ClaimSource::Scan, ..recorded };
    let error = attestor().attest(&scanned).await.unwrap_err();
    assert!(matches!(error, AttestError::ProcessChanged { what: "credentials", .. }), "{error}");
}

#[tokio::test]
async fn privileged_a_pid_that_is_used_again_lends_nothing() {
    as_root();
    let mut running = Running::program(&mut sleep(), "sleep");
    let (claim, knowing) = (running.claim(), attestor());
    let before = knowing.attest(&claim).await.unwrap();
    running.end();
    // `/proc` tells starts apart by hundredths of a second.
    std::thread::sleep(Duration::from_millis(20));
    // The next process gets the next number, unless another test is quicker.
    let last = (claim.process.pid - 1).to_string();
    let imposter = (0..1000).find_map(|_| {
        fs::write("/proc/sys/kernel/ns_last_pid", &last).unwrap();
        let cat = Running::start(&mut Command::new("cat"));
        (cat.0.id() == claim.process.pid).then_some(cat)
    });
    let imposter = imposter.unwrap();
    imposter.runs("cat");
    assert_ne!(imposter.claim().process, claim.process);
    for attestor in [knowing, attestor()] {
        let after = attestor.attest(&claim).await.unwrap();
        assert!(!before.evidence.exited && after.evidence.exited);
        let cat = fs::canonicalize("/bin/cat").unwrap();
        assert_ne!(only(&after, "unix:path:").as_deref(), cat.to_str());
        let scanned = ProcessClaim { source: ClaimSource::Scan, ..claim.clone() };
        let error = attestor.attest(&scanned).await.unwrap_err();
        assert!(matches!(error, AttestError::PidReused(_)), "{error}");
    }
}
