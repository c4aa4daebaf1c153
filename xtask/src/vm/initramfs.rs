//! The guest's first file system: busybox, the modules that reach the machine's files, and what to
//! run. It is gone as soon as the guest stands on those files.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::run;

use super::image::{Image, tool};

/// Without these no file of the machine is reached; the kernel finds all others there by itself.
const MODULES: [&str; 3] = ["virtio_pci", "virtiofs", "overlay"];
/// The first process: mounts the machine's files and goes there.
const INIT: &str = include_str!("init.sh");
/// The first process on the machine's files: what a system's start does, then the script.
const GUEST: &str = include_str!("guest.sh");

/// Writes the archive, with `script` as what the guest is to run.
pub(super) fn write(image: &Image, script: &str, work: &Path) -> Result<std::path::PathBuf> {
    let tree = work.join("initramfs");
    for folder in ["bin", "proc", "sys", "dev", "host", "layer", "modules"] {
        fs::create_dir_all(tree.join(folder))?;
    }
    fs::copy(tool("busybox")?, tree.join("bin/busybox"))?;
    symlink("busybox", tree.join("bin/sh"))?;
    for (name, text) in [("init", INIT), ("guest", GUEST), ("script", script)] {
        let file = tree.join(name);
        fs::write(&file, text)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    }
    fs::write(tree.join("modules-at"), image.modules().to_string_lossy().as_bytes())?;
    for (number, module) in needed(image)?.iter().enumerate() {
        // In the order of their names they are put in, and each comes after what it needs.
        fs::write(tree.join(format!("modules/{number:03}.ko")), plain(Path::new(module))?)?;
    }
    pack(&tree, &work.join("initramfs.cpio"))
}

/// The files of the modules, each after what it needs. What is built in has no file.
fn needed(image: &Image) -> Result<Vec<String>> {
    let root = image.root.to_string_lossy().into_owned();
    let mut files: Vec<String> = Vec::new();
    for module in MODULES {
        let arguments = ["-d", &root, "-S", &image.release, "--show-depends", module];
        let said = run::output(&mut run::command(tool("modprobe")?, &arguments))?;
        for file in said.lines().filter_map(|line| line.strip_prefix("insmod ")) {
            let file = file.trim().to_owned();
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

/// A module as busybox loads it: uncompressed.
fn plain(module: &Path) -> Result<Vec<u8>> {
    match module.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => fs::read(module).context("cannot read a module"),
        Some("xz") => {
            let packed = module.to_string_lossy().into_owned();
            let unpacked = run::command("xz", &["-dc", &packed]).output()?;
            if !unpacked.status.success() {
                bail!("cannot unpack {packed}");
            }
            Ok(unpacked.stdout)
        }
        _ => bail!("{} is packed in a way that is not known here", module.display()),
    }
}

fn pack(tree: &Path, archive: &Path) -> Result<std::path::PathBuf> {
    let line = "cd \"$1\" && find . | cpio --create --format=newc --quiet >\"$2\"";
    let (tree, file) = (tree.to_string_lossy().into_owned(), archive.to_string_lossy());
    run::output(&mut run::command("sh", &["-c", line, "sh", &tree, &file]))?;
    Ok(archive.to_owned())
}
