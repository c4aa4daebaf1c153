//! What compiling the eBPF programs needs: library source for `-Z build-std=core`, and
//! bpf-linker with an LLVM that it can load. Two routes lead there; both compile from source.
//!
//! Route A is rustup's own toolchain plus its `rust-src` component. Route B is Debian's
//! `rustc-web` with `rust-web-src`, for machines whose rustup cannot get the component.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::provision::packages;
use crate::run;

/// The LLVM that bpf-linker 0.10 loads at run time.
const LLVM_MAJOR: &str = "22";
/// The version that is known to link these programs.
const LINKER_VERSION: &str = "0.10.1";

/// The compiler and the linker that will build the programs.
#[derive(Debug)]
pub(crate) struct Toolchain {
    rustc: PathBuf,
    cargo: PathBuf,
    llvm: PathBuf,
    linker_dir: PathBuf,
}

impl Toolchain {
    /// What the build script of the daemon reads.
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("TACIT_BPF_RUSTC", self.rustc.clone().into()),
            ("TACIT_BPF_CARGO", self.cargo.clone().into()),
            ("LD_LIBRARY_PATH", front(&self.llvm, "LD_LIBRARY_PATH")),
            ("PATH", front(&self.linker_dir, "PATH")),
        ]
    }
}

/// Makes the pieces exist and says which route was taken.
pub(crate) fn ready() -> Result<Toolchain> {
    let (rustc, cargo, route) = match rustup() {
        Ok(pair) => (pair.0, pair.1, "A (rustup and its rust-src)"),
        Err(why) => {
            println!("eBPF: route A is closed: {why:#}");
            let pair = debian()?;
            (pair.0, pair.1, "B (Debian's rustc-web and rust-web-src)")
        }
    };
    let llvm = llvm_folder(&rustc).with_context(|| {
        format!(
            "no LLVM {LLVM_MAJOR} library for bpf-linker: neither in a Rust toolchain nor under \
             /usr/lib/llvm-{LLVM_MAJOR}; install a toolchain whose `rustc -vV` names LLVM {LLVM_MAJOR}"
        )
    })?;
    let linker_dir = linker(&llvm)?;
    println!("eBPF: route {route}, LLVM from {}", llvm.display());
    Ok(Toolchain { rustc, cargo, llvm, linker_dir })
}

fn rustup() -> Result<(PathBuf, PathBuf)> {
    let sysroot =
        PathBuf::from(run::output(&mut run::command("rustc", &["--print", "sysroot"]))?.trim());
    let rustc = sysroot.join("bin/rustc");
    let version = run::output(&mut run::command(&rustc, &["-vV"]))?;
    let major = llvm_major(&version).unwrap_or_default();
    if major != LLVM_MAJOR {
        bail!("the active Rust toolchain has LLVM {major}, bpf-linker loads LLVM {LLVM_MAJOR}");
    }
    if !has_source(&sysroot) {
        println!(
            "eBPF: adding rust-src to the active toolchain (the programs need their own `core`)"
        );
        run::output(&mut run::command("rustup", &["component", "add", "rust-src"]))?;
    }
    if !has_source(&sysroot) {
        bail!("rust-src was added, but {} has no library source", sysroot.display());
    }
    Ok((rustc, sysroot.join("bin/cargo")))
}

fn debian() -> Result<(PathBuf, PathBuf)> {
    let (rustc, cargo) = (PathBuf::from("/usr/bin/rustc"), PathBuf::from("/usr/bin/cargo"));
    let sourced = || {
        let sysroot = run::output(&mut run::command(&rustc, &["--print", "sysroot"]));
        sysroot.is_ok_and(|sysroot| has_source(Path::new(sysroot.trim())))
    };
    if !sourced() {
        packages::install(
            &["rustc-web", "cargo-web", "rust-web-src"],
            "a Rust compiler with matching library source",
        )?;
    }
    if !sourced() {
        bail!("Debian's compiler is installed, but its library source is not where it looks");
    }
    Ok((rustc, cargo))
}

/// Finds or installs bpf-linker; gives the folder it is in.
fn linker(llvm: &Path) -> Result<PathBuf> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let installed =
        cargo_home.context("neither CARGO_HOME nor HOME is set")?.join("bin/bpf-linker");
    let candidates = run::find("bpf-linker").into_iter().chain([installed.clone()]);
    for candidate in candidates.filter(|file| file.is_file()) {
        let works =
            run::output(run::command(&candidate, &["--version"]).env("LD_LIBRARY_PATH", llvm));
        if works.is_ok() {
            return Ok(candidate.parent().unwrap_or(Path::new("/")).to_owned());
        }
    }
    println!(
        "eBPF: installing bpf-linker {LINKER_VERSION} with cargo (links the programs; about a minute)"
    );
    run::check(&mut run::cargo(&[
        "install",
        "--quiet",
        "--locked",
        "--force",
        "bpf-linker",
        "--version",
        LINKER_VERSION,
    ]))?;
    Ok(installed.parent().unwrap_or(Path::new("/")).to_owned())
}

fn has_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
}

fn llvm_major(version: &str) -> Option<&str> {
    version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?.split('.').next()
}

/// A folder with an LLVM library of the right major.
fn llvm_folder(rustc: &Path) -> Option<PathBuf> {
    let sysroots = [rustc, Path::new("rustc")].into_iter().filter_map(|rustc| {
        let sysroot = run::output(&mut run::command(rustc, &["--print", "sysroot"])).ok()?;
        Some(Path::new(sysroot.trim()).join("lib"))
    });
    sysroots
        .chain([
            PathBuf::from(format!("/usr/lib/llvm-{LLVM_MAJOR}/lib")),
            PathBuf::from(format!("/usr/lib/{}-linux-gnu", env::consts::ARCH)),
        ])
        .find(|folder| holds_llvm(folder))
}

fn holds_llvm(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else {
        return false;
    };
    entries.flatten().any(|entry| is_llvm(&entry.file_name().to_string_lossy()))
}

fn is_llvm(name: &str) -> bool {
    ["libLLVM-22", "libLLVM.so.22"].iter().any(|start| name.starts_with(start))
}

fn front(folder: &Path, variable: &str) -> OsString {
    let old = env::var_os(variable).unwrap_or_default();
    let rest = env::split_paths(&old).filter(|path| !path.as_os_str().is_empty());
    let all: Vec<_> = std::iter::once(folder.to_owned()).chain(rest).collect();
    // A folder with a colon in its name cannot be on a path; then it goes alone.
    env::join_paths(all).unwrap_or_else(|_| folder.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_llvm_of_a_compiler() {
        assert_eq!(llvm_major("release: 1.95.0\nLLVM version: 22.1.2\n"), Some("22"));
        assert_eq!(llvm_major("release: 1.95.0\n"), None);
    }

    #[test]
    fn knows_the_library_by_its_name() {
        for (name, ours) in [
            ("libLLVM.so.22.1-rust-1.95.0-stable", true),
            ("libLLVM-22-rust-1.95.0-stable.so", true),
            ("libLLVM.so.19.1", false),
            ("libLLVM-14.so.1", false),
        ] {
            assert_eq!(is_llvm(name), ours, "{name}");
        }
    }
}
