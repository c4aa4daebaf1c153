//! Files on a real file system: what readers see while versions change, and what becomes of a
//! directory that is not as it should be.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::unistd::{getegid, geteuid};

use super::content::{self, Content};
use super::known::{Known, KnownError};
use super::place::{Place, PlaceError};
use crate::sys::pinned_dir::DirError;
use crate::workload::{FileSet, Owner, Told};

fn own() -> Owner {
    Owner { uid: geteuid().as_raw(), gid: getegid().as_raw() }
}

fn set(directory: &Path) -> FileSet {
    FileSet {
        name: "a test".into(),
        entry: "web".to_owned(),
        directory: directory.to_owned(),
        certificate: "svid.pem".to_owned(),
        key: "svid.key".to_owned(),
        bundle: "bundle.pem".to_owned(),
        owner: own(),
        told: Told::Not,
    }
}

/// Files that all say the same number.
fn files(set: &FileSet, number: u128) -> Vec<Content> {
    let content = |name| Content { name, text: number.to_string().into_bytes().into() };
    content::names(set).into_iter().map(content).collect()
}

/// Writes a version as a set is written.
fn write(set: &FileSet, number: u128) -> Result<String, PlaceError> {
    let staged = Place::open(set)?.stage(&files(set, number), number)?;
    let (place, version) = staged.publish()?;
    place.tidy(&version, &content::names(set))?;
    Ok(version)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn opened(set: &FileSet) -> DirError {
    match Place::open(set).unwrap_err() {
        PlaceError::Dir(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn files_are_written_replaced_and_removed_without_a_rest() {
    let dir = tempfile::tempdir().unwrap();
    let mut set = set(&dir.path().join("svid"));
    write(&set, 1).unwrap();
    let version = write(&set, 2).unwrap();
    let key = set.directory.join("svid.key");
    assert_eq!((fs::read_to_string(&key).unwrap(), mode(&key)), ("2".to_owned(), 0o600));
    assert_eq!(mode(&set.directory), 0o755);
    let expected = ["..data", &version, "bundle.pem", "svid.key", "svid.pem"];
    assert_eq!(names(&set.directory), expected, "the first version is gone");
    // One file for both, and another name: what was there under the old ones goes.
    set.key = "both.pem".to_owned();
    set.certificate = set.key.clone();
    let version = write(&set, 3).unwrap();
    assert_eq!(names(&set.directory), ["..data", &version, "both.pem", "bundle.pem"]);
    fs::write(set.directory.join("theirs"), "x").unwrap();
    assert!(Place::open(&set).unwrap().clear().unwrap());
    assert_eq!(names(&set.directory), ["theirs"], "what is not ours stays");
    assert!(!Place::open(&set).unwrap().clear().unwrap(), "nothing is left");
}

#[test]
fn whether_somebody_took_the_files_away_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let set = set(dir.path());
    let version = write(&set, 1).unwrap();
    let shows = || Place::open(&set).unwrap().shows(&version, &content::names(&set));
    assert!(shows());
    fs::remove_file(set.directory.join("svid.key")).unwrap();
    assert!(!shows());
    write(&set, 2).unwrap();
    assert!(!shows(), "another version is in force");
}

#[test]
fn a_reader_never_sees_a_key_beside_another_ones_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let set = set(dir.path());
    write(&set, 1).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (mut pairs, mut last) = (0, 0);
            while !done.load(Ordering::Relaxed) {
                // Once through the link that chooses, then both in there.
                let Ok(version) = fs::read_link(dir.path().join("..data")) else { continue };
                let read = |name| fs::read_to_string(dir.path().join(&version).join(name));
                // A version that went meanwhile is an error, and never half of another; its files
                // are blank for a moment before they go.
                let (Ok(key), Ok(certificate)) = (read("svid.key"), read("svid.pem")) else {
                    continue;
                };
                let blank = |text: &str| text.starts_with('\0');
                if blank(&key) || blank(&certificate) {
                    continue;
                }
                assert_eq!(key, certificate);
                let number: u128 = key.parse().unwrap();
                assert!(number >= last, "{number} after {last}");
                (pairs, last) = (pairs + 1, number);
            }
            pairs
        });
        for number in 2..400 {
            write(&set, number).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0, "nothing was read meanwhile");
    });
}

#[test]
fn a_directory_that_others_can_change_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let set = set(&dir.path().join("svid"));
    write(&set, 1).unwrap();
    for (path, loose) in [(&set.directory, 0o775), (&dir.path().to_owned(), 0o757)] {
        let before = mode(path);
        fs::set_permissions(path, fs::Permissions::from_mode(loose)).unwrap();
        let error = opened(&set);
        assert!(matches!(&error, DirError::Writable { path: at, .. } if at == path), "{error}");
        assert!(error.to_string().contains("chmod go-w"), "{error}");
        fs::set_permissions(path, fs::Permissions::from_mode(before)).unwrap();
    }
    write(&set, 2).unwrap();
}

#[test]
fn no_symbolic_link_is_followed_anywhere_on_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().join("real");
    fs::create_dir_all(real.join("svid")).unwrap();
    symlink(&real, dir.path().join("link")).unwrap();
    symlink(real.join("svid"), dir.path().join("last")).unwrap();
    for path in ["link/svid", "last", "link/new"] {
        let error = opened(&set(&dir.path().join(path)));
        assert!(matches!(error, DirError::Link(_)), "{path}: {error}");
    }
    assert_eq!(names(&real), ["svid"]);
    assert!(names(&real.join("svid")).is_empty());
    // A directory above the last one is not made: it would be guessed whose it is to be.
    let error = opened(&set(&dir.path().join("no/such")));
    assert!(error.is_missing(), "{error}");
    fs::write(dir.path().join("file"), "").unwrap();
    let error = opened(&set(&dir.path().join("file")));
    assert!(matches!(error, DirError::NotDirectory(_)), "{error}");
}

#[test]
fn what_bears_the_name_of_a_file_to_be_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let set = set(dir.path());
    let key = dir.path().join("svid.key");
    fs::write(&key, "an older key").unwrap();
    let error = write(&set, 1).unwrap_err();
    assert!(matches!(error, PlaceError::Taken(_)), "{error}");
    assert_eq!(fs::read_to_string(&key).unwrap(), "an older key");
    fs::remove_file(&key).unwrap();
    symlink("/etc/passwd", &key).unwrap();
    assert!(matches!(write(&set, 2), Err(PlaceError::Taken(_))));
    assert_eq!(fs::read_link(&key).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(names(dir.path()), ["svid.key"], "no version was left");
}

#[test]
fn privileged_a_directory_of_a_third_party_is_not_used() {
    assert!(geteuid().is_root(), "needs root: run it by `cargo xtask test`");
    let dir = tempfile::tempdir().unwrap();
    let mut set = set(&dir.path().join("svid"));
    set.owner = Owner { uid: 21_002, gid: 21_002 };
    fs::create_dir(&set.directory).unwrap();
    std::os::unix::fs::chown(&set.directory, Some(21_003), None).unwrap();
    let error = opened(&set);
    assert!(matches!(error, DirError::Foreign { uid: 21_003, .. }), "{error}");
    std::os::unix::fs::chown(&set.directory, Some(21_002), None).unwrap();
    write(&set, 1).unwrap();
    let key = fs::metadata(set.directory.join("svid.key")).unwrap();
    assert_eq!((key.uid(), key.gid(), key.mode() & 0o7777), (21_002, 21_002, 0o600));
}

#[test]
fn privileged_a_directory_of_ours_under_a_borrowed_name_keeps_its_files() {
    assert!(geteuid().is_root(), "needs root: run it by `cargo xtask test`");
    let dir = tempfile::tempdir().unwrap();
    let mut set = set(&dir.path().join("svid"));
    set.owner = Owner { uid: 21_002, gid: 21_002 };
    fs::create_dir(&set.directory).unwrap();
    std::os::unix::fs::chown(&set.directory, Some(21_002), None).unwrap();
    // Root keeps something there, and the program gives it the name of a version of ours.
    let borrowed = set.directory.join("..tacit-1");
    fs::create_dir(&borrowed).unwrap();
    fs::set_permissions(&borrowed, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(borrowed.join("svid.key"), "root's own").unwrap();
    assert!(write(&set, 1).is_err(), "it was taken for a new one");
    write(&set, 2).unwrap();
    Place::open(&set).unwrap().clear().unwrap();
    assert_eq!(fs::read_to_string(borrowed.join("svid.key")).unwrap(), "root's own");
    assert_eq!(mode(&borrowed), 0o700);
}

#[test]
fn the_list_of_directories_outlives_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut known = Known::open(&state).unwrap();
    let (one, two) = (PathBuf::from("/run/a dir/svid"), PathBuf::from("/run/b"));
    known.add(&one, Owner { uid: 1, gid: 2 }).unwrap();
    known.add(&two, own()).unwrap();
    known.remove(&two).unwrap();
    let expected = [(one, Owner { uid: 1, gid: 2 })];
    assert_eq!(Known::open(&state).unwrap().all(), expected);
    fs::write(state.join("files"), "# x\n1:2 relative\n").unwrap();
    let error = Known::open(&state).unwrap_err();
    assert!(matches!(error, KnownError::Line { line: 2, .. }), "{error}");
}
