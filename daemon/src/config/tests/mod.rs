//! Tests of the configuration: the example file, every kind of problem, and reloading real files.

mod example;
mod problems;
mod reloading;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;

/// Knows `db.example.org` and, unless it is told to fail, nothing else.
struct Hosts;

impl Resolve for Hosts {
    fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        match name {
            "db.example.org" => Ok(vec!["10.0.0.9".parse().unwrap(), "10.0.0.8".parse().unwrap()]),
            "empty.example.org" => Ok(Vec::new()),
            "slow.example.org" => {
                std::thread::sleep(std::time::Duration::from_secs(20));
                Ok(Vec::new())
            }
            _ => Err(io::Error::other("no such name")),
        }
    }
}

fn names() -> Names {
    Names::new(Arc::new(Hosts)).within(std::time::Duration::from_millis(300))
}

/// A main file in a directory of its own.
struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    fn new(text: &str) -> Self {
        let files = Self { dir: tempfile::tempdir().unwrap() };
        files.write("tacit.toml", text);
        files
    }

    fn main(&self) -> PathBuf {
        self.path("tacit.toml")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// As editors and package managers do it.
    fn replace(&self, name: &str, text: &str) {
        self.write(&format!(".{name}.new"), text);
        std::fs::rename(self.path(&format!(".{name}.new")), self.path(name)).unwrap();
    }

    fn load(&self) -> Result<(Config, Vec<Problem>), Problems> {
        load_with(&self.main(), &names())
    }
}
