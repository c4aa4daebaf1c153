//! A kernel, unpacked: its image and its modules, cached by version under `target/`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::run;

use super::apt::Index;

/// A kernel that can be booted.
pub(super) struct Image {
    /// As `uname -r` says it, such as `6.1.0-56-cloud-amd64`.
    pub(super) release: String,
    /// The kernel itself.
    pub(super) kernel: PathBuf,
    /// Its root: `lib/modules/<release>` lies below.
    pub(super) root: PathBuf,
}

impl Image {
    /// The newest kernel of a series, fetched and unpacked where it is not yet.
    pub(super) fn ready(place: &Path, index: &Index, series: &str) -> Result<Self> {
        let release = index.newest(series)?;
        let root = place.join("kernels").join(&release);
        let complete = root.join("complete");
        if !complete.exists() {
            unpack(index, &release, &root)?;
            fs::write(complete, "")?;
        }
        let candidates =
            [format!("boot/vmlinuz-{release}"), format!("lib/modules/{release}/vmlinuz")];
        let mut candidates = candidates.iter().map(|path| root.join(path));
        let kernel = candidates.find(|path| path.is_file());
        let kernel = kernel.with_context(|| format!("no kernel image for {release}"))?;
        Ok(Self { release, kernel, root })
    }

    /// Where its modules are.
    pub(super) fn modules(&self) -> PathBuf {
        self.root.join("lib/modules")
    }
}

fn unpack(index: &Index, release: &str, root: &Path) -> Result<()> {
    if root.exists() {
        // What an interrupted run has left.
        fs::remove_dir_all(root)?;
    }
    let packages = root.join("packages");
    fs::create_dir_all(&packages)?;
    index.fetch(release, &packages)?;
    let to = root.to_string_lossy().into_owned();
    for package in fs::read_dir(&packages)?.flatten() {
        let file = package.path().to_string_lossy().into_owned();
        run::output(&mut run::command("dpkg-deb", &["-x", &file, &to]))?;
    }
    fs::remove_dir_all(packages)?;
    if !root.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", root.join("lib"))?;
    }
    // Packages do not hold the index of modules: it is made where they are installed.
    run::output(&mut run::command(tool("depmod")?, &["-b", &to, release])).map(drop)
}

/// A system program by its name.
pub(super) fn tool(name: &str) -> Result<PathBuf> {
    run::find(name).with_context(|| format!("there is no `{name}`"))
}
