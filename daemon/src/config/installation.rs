//! Where an installation is: what has to be known to look at it, or to remove it, and no more. Read
//! also from a file that is wrong elsewhere, and without asking anybody for the address of a host.

use std::io;
use std::path::{Path, PathBuf};

use super::build::{admin, capture, is_instance};
use super::file::read_leniently;
use super::problem::Reader;
use super::{AdminConfig, CaptureConfig, NodeConfig, Problem, Problems};

/// Where an installation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// Where its programs are attached and pinned.
    pub capture: CaptureConfig,
    /// Where its daemon answers.
    pub socket: PathBuf,
}

/// What the command line says instead of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Given {
    /// `capture.bpffs`.
    pub bpffs: Option<PathBuf>,
    /// `capture.instance`.
    pub instance: Option<String>,
}

impl Installation {
    /// Where a file without a word about it means.
    pub fn usual() -> Self {
        let run_dir = Path::new(NodeConfig::USUAL_RUN_DIR);
        let socket = AdminConfig::default_for(run_dir).socket;
        Self { capture: CaptureConfig::default(), socket }
    }

    /// Reads what `path` says of it; a file that is not there says nothing. What is given counts
    /// for more.
    ///
    /// # Errors
    /// What is wrong with these very keys, or that broken syntax may hide them: give them.
    pub fn read(path: &Path, given: Given) -> Result<Self, Problems> {
        let mut found = match read_leniently(path) {
            Ok((text, sections, is_whole)) => {
                let is_named = sections.capture.instance.0.is_some();
                let mut problems = Vec::new();
                let mut reader = Reader::new(path, &text, &mut problems);
                let run_dir = reader.given("node.run_dir", sections.node.run_dir);
                let run_dir =
                    run_dir.map_or_else(|| NodeConfig::USUAL_RUN_DIR.into(), |(it, _)| it);
                let socket = admin(sections.admin, &run_dir, &mut reader).socket;
                let capture = capture(sections.capture, &mut reader);
                problems.retain(|it| counts(&it.key, &given));
                if !is_whole && !is_named && given.instance.is_none() {
                    let what =
                        "is no TOML as a whole, and what can be read of it names no instance";
                    problems.push(problem(path, "capture.instance", None, what));
                }
                if !problems.is_empty() {
                    return Err(Problems(problems));
                }
                Self { capture, socket }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::usual(),
            Err(error) => {
                let what = format!("cannot be read: {error}");
                return Err(Problems(vec![problem(path, "", None, &what)]));
            }
        };
        if let Some(bpffs) = given.bpffs {
            found.capture.bpffs = bpffs;
        }
        if let Some(instance) = given.instance {
            // It becomes part of a path of which all is removed.
            if !is_instance(&instance) {
                let what = "is no name of an instance";
                return Err(Problems(vec![problem(path, "--instance", Some(instance), what)]));
            }
            found.capture.instance = instance;
        }
        Ok(found)
    }
}

/// Whether what is wrong with this key matters here.
fn counts(key: &str, given: &Given) -> bool {
    match key {
        "capture.instance" => given.instance.is_none(),
        "capture.bpffs" => given.bpffs.is_none(),
        "capture.cgroup" | "admin.socket" | "node.run_dir" => true,
        _ => false,
    }
}

fn problem(path: &Path, key: &str, value: Option<String>, what: &str) -> Problem {
    Problem {
        file: path.to_owned(),
        line: None,
        key: key.to_owned(),
        value,
        what: what.to_owned(),
        remedy: "correct it, or say --instance and --bpffs".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, given: Given) -> Result<Installation, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tacit.toml");
        std::fs::write(&path, text).unwrap();
        Installation::read(&path, given).map_err(|problems| problems.to_string())
    }

    fn instance(name: &str) -> Given {
        Given { instance: Some(name.to_owned()), ..Given::default() }
    }

    #[test]
    fn a_file_that_is_wrong_elsewhere_says_where_it_is() {
        let text = "[node]\nrun_dir = \"/run/x\"\nnope = 1\n[capture]\ninstance = \"blue\"\n\
                    bpffs = \"/mnt/bpf\"\ncgroup = \"/a\"\n[proxy]\nkeepalive = \"soon\"\n\
                    [[outbound]]\naction = \"refuse\"\nhosts = [\"no.such.host.invalid\"]\n";
        let found = read(text, Given::default()).unwrap();
        let CaptureConfig { cgroup, instance: name, bpffs } = &found.capture;
        assert_eq!(
            (cgroup.as_str(), name.as_str(), bpffs.to_str()),
            ("/a", "blue", Some("/mnt/bpf"))
        );
        assert_eq!(found.socket, Path::new("/run/x/tacit.sock"));
        assert_eq!(read(text, instance("green")).unwrap().capture.instance, "green");
    }

    #[test]
    fn what_is_not_said_is_the_default_but_nothing_is_guessed() {
        let missing = Installation::read(Path::new("/no/such/tacit.toml"), Given::default());
        assert_eq!(missing, Ok(Installation::usual()));
        assert_eq!(read("", Given::default()), Ok(Installation::usual()));
        let broken = "[node\ntrust_domain = ";
        let told = read(broken, Given::default()).unwrap_err();
        assert!(told.contains("names no instance") && told.contains("--instance"), "{told}");
        assert_eq!(read(broken, instance("blue")).unwrap().capture.instance, "blue");
        let told = read("[capture]\ninstance = \"a/b\"\n", Given::default()).unwrap_err();
        assert!(told.contains("capture.instance: `a/b`"), "{told}");
        for bad in ["..", "a/b", "", "."] {
            let told = read("", instance(bad)).unwrap_err();
            assert!(told.contains("no name of an instance"), "{told}");
        }
    }
}
