//! The programs that the tests and the demo drive, from the distribution's packages.
//! No service is started: a policy forbids it while packages are installed.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::run;

/// What the programs are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Use {
    /// Only what the demo shows.
    Demo,
    /// All that the tests drive.
    Tests,
    /// What the benchmarks compare with, besides all that the tests drive.
    Benchmarks,
}

struct Program {
    /// A command, or an absolute path with at most one `*` folder.
    command: &'static str,
    package: &'static str,
    /// The least that needs it.
    least: Use,
}

const PROGRAMS: &[Program] = &[
    program("ip", "iproute2", Use::Demo),
    program("ss", "iproute2", Use::Demo),
    program("tcpdump", "tcpdump", Use::Demo),
    program("curl", "curl", Use::Demo),
    program("nginx", "nginx-light", Use::Demo),
    program("redis-server", "redis-server", Use::Demo),
    program("redis-cli", "redis-tools", Use::Demo),
    program("nsenter", "util-linux", Use::Demo),
    program("setpriv", "util-linux", Use::Demo),
    program("openssl", "openssl", Use::Tests),
    program("python3", "python3", Use::Tests),
    program("haproxy", "haproxy", Use::Tests),
    program("psql", "postgresql-client", Use::Tests),
    program("/usr/lib/postgresql/*/bin/postgres", "postgresql", Use::Tests),
    program("mariadbd", "mariadb-server", Use::Tests),
    program("mariadb", "mariadb-client", Use::Tests),
    program("stunnel4", "stunnel4", Use::Benchmarks),
    program("/usr/lib/nginx/modules/ngx_stream_module.so", "libnginx-mod-stream", Use::Benchmarks),
];

const fn program(command: &'static str, package: &'static str, least: Use) -> Program {
    Program { command, package, least }
}

/// Installs what is missing for `purpose`.
pub(crate) fn ready(purpose: Use) -> Result<()> {
    let missing: BTreeSet<&str> = PROGRAMS
        .iter()
        .filter(|program| program.least <= purpose)
        .filter(|program| !is_there(program.command))
        .map(|program| program.package)
        .collect();
    if missing.is_empty() {
        println!("programs: all there");
        return Ok(());
    }
    let names: Vec<&str> = missing.into_iter().collect();
    install(&names, "the unmodified programs that are driven")
}

/// Installs packages, without starting any service.
pub(crate) fn install(packages: &[&str], why: &str) -> Result<()> {
    let list = packages.join(" ");
    if run::find("apt-get").is_none() {
        bail!("missing: {list} ({why}). Only apt-get is known here; install them and run again");
    }
    if !run::is_root() {
        bail!("missing: {list} ({why}). Installing them needs root: apt-get install {list}");
    }
    println!("packages: installing {list} ({why})");
    let _no_services = NoServices::decree()?;
    let apt = |arguments: &[&str]| {
        run::output(run::command("apt-get", arguments).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    let mut arguments = vec!["install", "--yes", "--quiet", "--no-install-recommends"];
    arguments.extend_from_slice(packages);
    if apt(&arguments).is_err() {
        // Most often the lists are old or were never fetched.
        apt(&["update", "--quiet"])?;
        apt(&arguments)?;
    }
    Ok(())
}

fn is_there(command: &str) -> bool {
    let Some((folder, rest)) = command.split_once("/*/") else {
        return run::find(command).is_some();
    };
    let Ok(entries) = fs::read_dir(folder) else {
        return false;
    };
    entries.flatten().any(|entry| entry.path().join(rest).is_file())
}

/// While it lives, the package system starts no service. An existing policy is left as it is.
struct NoServices {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn decree() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        fs::write(POLICY, "#!/bin/sh\nexit 101\n").context("cannot forbid service starts")?;
        let ours = Self { ours: true };
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        Ok(ours)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours && fs::remove_file(POLICY).is_err() {
            println!("packages: could not remove {POLICY}; it keeps services from starting");
        }
    }
}
