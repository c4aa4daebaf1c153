//! Processes that are what was recorded.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::Command;
use std::sync::Arc;

use super::running::{Running, as_root, attestor, copy_of_sleep, digest_of, only, sleep, values};
use crate::attest::{AttestSettings, Attestor};
use crate::sys::cgroup::Cgroups;
use crate::workload::{NetnsCookie, ProcessClaim};

#[tokio::test]
async fn a_live_process_has_all_its_selectors() {
    let running = Running::program(&mut sleep(), "sleep");
    let claim = running.claim();
    let attested = attestor().attest(&claim).await.unwrap();
    let sleep = fs::canonicalize("/bin/sleep").unwrap();
    assert_eq!(only(&attested, "unix:uid:"), Some(claim.uid.to_string()));
    assert_eq!(only(&attested, "unix:gid:"), Some(claim.gid.to_string()));
    assert_eq!(only(&attested, "unix:path:").as_deref(), sleep.to_str());
    assert_eq!(only(&attested, "unix:sha256:"), Some(digest_of(&sleep)));
    let cgroup = Cgroups::find().unwrap().path_of(claim.cgroup).unwrap();
    assert_eq!(only(&attested, "cgroup:path:").as_deref(), Some(cgroup.as_ref()));
    let user = nix::unistd::User::from_uid(claim.uid.into()).unwrap().map(|user| user.name);
    assert_eq!(only(&attested, "unix:user:"), user);
    assert_eq!(attested.evidence.exe.as_deref(), sleep.to_str());
    assert_eq!((attested.evidence.exited, attested.evidence.netns), (false, NetnsCookie(1)));
}

#[tokio::test]
async fn fresh_results_are_taken_again_until_forgotten() {
    let running = Running::program(&mut sleep(), "sleep");
    let attestor = attestor();
    let first = attestor.attest(&running.claim()).await.unwrap();
    let second = attestor.attest(&running.claim()).await.unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    attestor.forget(running.claim().process);
    let third = attestor.attest(&running.claim()).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &third));
    assert_eq!(first, third);
    // Another record of the same process is another question.
    let other = ProcessClaim { exec_id: 2, ..running.claim() };
    assert!(!Arc::ptr_eq(&third, &attestor.attest(&other).await.unwrap()));
}

#[tokio::test]
async fn many_who_ask_at_once_share_one_answer() {
    let running = Running::program(&mut sleep(), "sleep");
    let attestor = attestor();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let (attestor, claim) = (attestor.clone(), running.claim());
        asking.spawn(async move { attestor.attest(&claim).await.unwrap() });
    }
    let answers = asking.join_all().await;
    assert!(answers.iter().all(|answer| Arc::ptr_eq(answer, &answers[0])));
}

#[tokio::test]
async fn a_glance_reads_no_executable_and_takes_what_is_known() {
    let (_directory, copy) = copy_of_sleep();
    let running = Running::program(Command::new(&copy).arg("60"), "tacit-sleeper");
    let attestor = attestor();
    let glanced = attestor.glance(&running.claim()).await.unwrap();
    assert_eq!(only(&glanced, "unix:path:").as_deref(), copy.to_str());
    assert_eq!(only(&glanced, "unix:sha256:"), None);
    let attested = attestor.attest(&running.claim()).await.unwrap();
    assert_eq!(only(&attested, "unix:sha256:"), Some(digest_of(&copy)), "a glance is not kept");
    let another = Running::program(Command::new(&copy).arg("60"), "tacit-sleeper");
    let glanced = attestor.glance(&another.claim()).await.unwrap();
    assert_eq!(only(&glanced, "unix:sha256:"), Some(digest_of(&copy)));
}

#[tokio::test]
async fn a_deleted_or_replaced_executable_has_a_digest_and_no_path() {
    let (_directory, copy) = copy_of_sleep();
    let digest = digest_of(&copy);
    let running = Running::program(Command::new(&copy).arg("60"), "tacit-sleeper");
    let before = attestor().attest(&running.claim()).await.unwrap();
    assert_eq!(only(&before, "unix:path:").as_deref(), copy.to_str());
    fs::remove_file(&copy).unwrap();
    let deleted = attestor().attest(&running.claim()).await.unwrap();
    fs::write(&copy, "another program").unwrap();
    fs::write(copy.with_file_name("tacit-sleeper (deleted)"), "a forgery").unwrap();
    let replaced = attestor().attest(&running.claim()).await.unwrap();
    for attested in [deleted, replaced] {
        assert_eq!(values(&attested, "unix:path:"), BTreeSet::new());
        assert_eq!(only(&attested, "unix:sha256:"), Some(digest.clone()));
    }
}

#[tokio::test]
async fn an_executable_above_the_limit_has_no_digest() {
    let settings = AttestSettings { digest_limit_bytes: 10, ..AttestSettings::default() };
    let running = Running::program(&mut sleep(), "sleep");
    let attested = Attestor::new(settings).attest(&running.claim()).await.unwrap();
    assert_eq!(only(&attested, "unix:sha256:"), None);
    assert!(only(&attested, "unix:path:").is_some());
}

#[tokio::test]
async fn privileged_supplementary_groups_are_selectors() {
    as_root();
    let ids = ["--reuid", "65534", "--regid", "65534", "--groups", "0,4000000", "sleep", "60"];
    let running = Running::program(Command::new("setpriv").args(ids), "sleep");
    let attested = attestor().attest(&running.claim()).await.unwrap();
    assert_eq!(only(&attested, "unix:uid:").as_deref(), Some("65534"));
    let gids = BTreeSet::from(["0".to_owned(), "4000000".to_owned()]);
    assert_eq!(values(&attested, "unix:supplementary_gid:"), gids);
    assert_eq!(only(&attested, "unix:supplementary_group:").as_deref(), Some("root"));
}

#[tokio::test]
async fn privileged_a_bind_mount_lends_no_path() {
    as_root();
    let (_directory, copy) = copy_of_sleep();
    let victim = fs::canonicalize("/usr/bin/tac").unwrap();
    fs::OpenOptions::new().append(true).open(&copy).unwrap().write_all(b"forged").unwrap();
    let script = format!("mount --bind {} {1} && exec {1} 60", copy.display(), victim.display());
    let running =
        Running::program(Command::new("unshare").args(["-m", "sh", "-c", &script]), "tac");
    let name = fs::read_link(format!("/proc/{}/exe", running.0.id())).unwrap();
    assert_eq!(name, victim, "the name is forged, or this test proves nothing");
    let attested = attestor().attest(&running.claim()).await.unwrap();
    assert_eq!(values(&attested, "unix:path:"), BTreeSet::new());
    assert_eq!(only(&attested, "unix:sha256:"), Some(digest_of(&copy)));
}

#[tokio::test]
async fn privileged_the_outermost_unit_is_a_selector_on_a_systemd_host() {
    as_root();
    let cgroups = Cgroups::find().unwrap();
    let unit = format!("tacit-unit-{}.service", std::process::id());
    let path = format!("/{unit}/redis.service");
    cgroups.create(&path).unwrap();
    let mut running = Running::program(&mut sleep(), "sleep");
    let procs = cgroups.mount().join(&path[1..]).join("cgroup.procs");
    fs::write(procs, running.0.id().to_string()).unwrap();
    for (systemd_host, expected) in [(true, Some(unit.clone())), (false, None)] {
        let settings =
            AttestSettings { systemd_host: Some(systemd_host), ..AttestSettings::default() };
        let attested = Attestor::new(settings).attest(&running.claim()).await.unwrap();
        assert_eq!(only(&attested, "systemd:id:"), expected);
        assert_eq!(only(&attested, "cgroup:path:").as_ref(), Some(&path));
    }
    running.end();
    cgroups.remove(&path).unwrap();
    cgroups.remove(&format!("/{unit}")).unwrap();
}
