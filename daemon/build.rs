//! Compiles `ebpf-programs` from source for the bpf target; its object is embedded by `bpf/load.rs`.
//!
//! Needs `bpf-linker` and the source of `core` for the compiler in use: `cargo xtask provision`
//! installs both and says how. It cannot fetch anything itself. `TACIT_BPF_CARGO` and
//! `TACIT_BPF_RUSTC` name another compiler, where that of rustup has no source of `core`.
#![expect(
    clippy::disallowed_methods,
    reason = "cargo speaks to build scripts through the environment"
)]

use std::env;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "bpfel-unknown-none";
const OBJECT: &str = "tacit-programs";

fn main() -> Result<(), Box<dyn Error>> {
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let workspace = manifest.parent().ok_or("the daemon has no parent folder")?.to_path_buf();
    let programs = workspace.join("ebpf-programs");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for watched in ["ebpf-programs/src", "ebpf-programs/Cargo.toml", "ebpf-abi/src"] {
        println!("cargo:rerun-if-changed={}", workspace.join(watched).display());
    }
    for variable in ["TACIT_BPF_CARGO", "TACIT_BPF_RUSTC"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let target_dir = out.join("ebpf");
    let built = compile(&programs, &target_dir)?;
    std::fs::copy(built, out.join(OBJECT))?;
    Ok(())
}

fn compile(programs: &Path, target_dir: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let cargo = env::var("TACIT_BPF_CARGO").or_else(|_| env::var("CARGO"))?;
    let rustc = env::var("TACIT_BPF_RUSTC").or_else(|_| env::var("RUSTC"))?;
    let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
    let mut command = Command::new(cargo);
    // What cargo sets for build scripts would confuse the inner cargo.
    for (key, _) in env::vars() {
        if key.starts_with("CARGO_") && key != "CARGO_HOME" {
            command.env_remove(key);
        }
    }
    let status = command
        .current_dir(programs)
        .args(["build", "--release", "--locked", "-Z", "build-std=core", "--target", TARGET])
        .arg("--target-dir")
        .arg(target_dir)
        .env_remove("RUSTUP_TOOLCHAIN_FORCED")
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", &rustc)
        .env("LD_LIBRARY_PATH", llvm_folder(&rustc)?)
        .env("PATH", path_with_cargo_bin()?)
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            [
                "-Clinker=bpf-linker",
                "-Clink-arg=--btf",
                // Copies as loads and stores. As calls of `memcpy` and `memset` they would be loops
                // inside, and kernels before 6.4 judge programs with calls inside so much more
                // slowly (kernel/bpf/verifier.c: `precise = subprog_cnt > 1`) that they give up.
                "-Clink-arg=--disable-expand-memcpy-in-order",
                "-Cdebuginfo=2",
                &format!("--cfg=bpf_target_arch=\"{arch}\""),
            ]
            .join("\u{1f}"),
        )
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status()?;
    if !status.success() {
        return Err("the eBPF programs do not build; `cargo xtask provision` installs what they \
                    need and says what it could not get"
            .into());
    }
    Ok(target_dir.join(TARGET).join("release").join(OBJECT))
}

/// bpf-linker loads LLVM at run time: the one that the compiler itself uses serves.
fn llvm_folder(rustc: &str) -> Result<String, Box<dyn Error>> {
    let sysroot = Command::new(rustc).args(["--print", "sysroot"]).output()?;
    let own = format!("{}/lib", String::from_utf8(sysroot.stdout)?.trim());
    Ok(match env::var("LD_LIBRARY_PATH") {
        Ok(path) if !path.is_empty() => format!("{own}:{path}"),
        _ => own,
    })
}

fn path_with_cargo_bin() -> Result<String, Box<dyn Error>> {
    let home =
        env::var("CARGO_HOME").or_else(|_| env::var("HOME").map(|h| format!("{h}/.cargo")))?;
    Ok(format!("{}:{home}/bin", env::var("PATH")?))
}
