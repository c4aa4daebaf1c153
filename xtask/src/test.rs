//! `cargo xtask test`: runs the tiers, says which and how long each took, and sums them up.
//! A tier that needs root fails without it; it is never skipped in silence.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::provision::packages::{self, Use};
use crate::provision::{ebpf, go, python};
use crate::{build, run, switched, tidy};

/// A group of tests that need the same things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tier {
    /// Pure parts, beside the code. Needs nothing.
    Unit,
    /// The rules of the house. Needs nothing.
    Tidy,
    /// eBPF programs, loaded and exercised. Needs root.
    Kernel,
    /// Two nodes with two daemons, and unmodified programs. Needs root.
    Netns,
    /// Death, restart and upgrade of the daemon under load. Needs root.
    Survival,
    /// Attacks, each with a control run in which it works. Needs root.
    Attack,
    /// What only some kernels have. Needs root; names what is not run for want of a feature.
    Features,
    /// Peers that know nothing of Tacit. Needs root and downloads.
    Interop,
}

/// Run unless tiers are named. A tier that is missing here is named as not run.
const USUAL: [Tier; 8] = [
    Tier::Tidy,
    Tier::Unit,
    Tier::Kernel,
    Tier::Netns,
    Tier::Features,
    Tier::Survival,
    Tier::Attack,
    Tier::Interop,
];

/// Tiers that other kernels are tried with, in guests.
pub(crate) const IN_GUESTS: [Tier; 4] = [Tier::Kernel, Tier::Netns, Tier::Attack, Tier::Features];

/// A feature that only some kernels have.
pub(crate) struct Feature {
    /// The module of its tests in the tier `features`.
    pub(crate) module: &'static str,
    pub(crate) name: &'static str,
    /// What a shell runs to see whether the kernel has it.
    pub(crate) check: &'static str,
}

/// Asked before their tests are run.
pub(crate) const FEATURES: [Feature; 2] = [
    Feature {
        module: "sctp",
        name: "SCTP",
        check: "python3 -c 'import socket; socket.socket(2, 1, socket.IPPROTO_SCTP)'",
    },
    Feature {
        module: "netem",
        name: "netem",
        check: "unshare --net tc qdisc add dev lo root netem loss 1%",
    },
];

/// How many tests passed and failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Count {
    /// Adds another count to this one.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// Runs the tiers, all of them even if one fails.
pub(crate) fn run(tiers: &[Tier], only: Option<&str>) -> Result<()> {
    let tiers = if tiers.is_empty() { &USUAL } else { tiers };
    let began = Instant::now();
    let mut total = Count::default();
    for tier in tiers {
        let name = tier.name();
        println!("\n== tier {name}: {}", tier.purpose());
        let began = Instant::now();
        let count = tier.run(only).unwrap_or_else(|error| {
            println!("FAIL: tier {name}: {error:#}");
            Count { passed: 0, failed: 1 }
        });
        let Count { passed, failed } = count;
        println!("== tier {name}: {passed} passed, {failed} failed, {}", shown(began.elapsed()));
        total.add(count);
    }
    for tier in Tier::value_variants().iter().filter(|tier| !tiers.contains(tier)) {
        println!("not run: tier {} ({})", tier.name(), tier.purpose());
    }
    println!("\nall tiers: {}", shown(began.elapsed()));
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed > 0 {
        bail!("tests failed");
    }
    Ok(())
}

/// The tier of attacks with its races at full length; each row leaves its result in a file.
pub(crate) fn attack_at_length(only: Option<&str>, results: &Path) -> Result<()> {
    let told =
        [("TACIT_ATTACK_FULL", OsStr::new("1")), ("TACIT_ATTACK_RESULTS", results.as_os_str())];
    let count = Tier::Attack.privileged(only, &told)?;
    println!("{} passed, {} failed", count.passed, count.failed);
    if count.failed > 0 {
        bail!("an attack worked, or a control run showed nothing; nothing is published");
    }
    Ok(())
}

/// The conformance suite, which leaves its table in a file.
pub(crate) fn conformance(results: &Path) -> Result<()> {
    let told = [("TACIT_CONFORMANCE_TABLE", results.as_os_str())];
    let count = Tier::Interop.privileged(Some("every_demand_of_the_conformance_suite"), &told)?;
    if count.failed > 0 || count.passed == 0 {
        bail!("a demand is not met; nothing is published");
    }
    Ok(())
}

/// Kills daemons under load this often.
pub(crate) fn survive(kills: u64) -> Result<()> {
    let wanted = kills.to_string();
    let told = [("TACIT_SURVIVAL_KILLS", OsStr::new(&wanted))];
    let count = Tier::Survival.privileged(Some("kills::"), &told)?;
    if count.failed > 0 || count.passed == 0 {
        bail!("it did not survive {kills} kills");
    }
    Ok(())
}

impl Tier {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Tidy => "tidy",
            Self::Kernel => "kernel",
            Self::Netns => "netns",
            Self::Survival => "survival",
            Self::Attack => "attack",
            Self::Features => "features",
            Self::Interop => "interop",
        }
    }

    pub(crate) fn purpose(self) -> &'static str {
        match self {
            Self::Unit => "the pure parts",
            Self::Tidy => "the rules of the house",
            Self::Kernel => "each eBPF program on this kernel (root)",
            Self::Netns => "two nodes, two daemons, unmodified programs (root)",
            Self::Survival => "death, restart and upgrade of the daemon under load (root)",
            Self::Attack => "attacks that fail, and controls in which they work (root)",
            Self::Features => "what only some kernels have (root)",
            Self::Interop => "stock SPIFFE and TLS peers (root, downloads)",
        }
    }

    fn run(self, only: Option<&str>) -> Result<Count> {
        match self {
            Self::Tidy => tidy::run().map(|()| Count { passed: 1, failed: 0 }),
            Self::Unit => {
                let product = ["-p", "ebpf-abi", "-p", "tacit", "-p", "proto", "-p", "xtask"];
                // What the other tiers stand on.
                let tools = ["-p", "tests", "--lib", "--bins"];
                let mut count = Count::default();
                for packages in [product.as_slice(), &tools] {
                    let mut cargo = run::cargo(&["test", "--no-fail-fast"]);
                    cargo.args(packages).envs(ebpf::ready()?.environment());
                    count.add(counted(cargo.arg("--").args(only))?);
                }
                Ok(count)
            }
            Self::Kernel
            | Self::Netns
            | Self::Features
            | Self::Survival
            | Self::Attack
            | Self::Interop => self.privileged(only, &[]),
        }
    }

    fn privileged(self, only: Option<&str>, told: &[(&str, &OsStr)]) -> Result<Count> {
        if !run::is_root() {
            bail!("needs root: it makes network namespaces and cgroups and loads eBPF programs");
        }
        packages::ready(Use::Tests)?;
        let daemon = build::daemon(false)?;
        let mut cargo =
            run::cargo(&["test", "--no-fail-fast", "--package", "tests", "--test", self.name()]);
        cargo.envs(ebpf::ready()?.environment()).env("TACIT_BIN", daemon).envs(told.to_vec());
        if self == Self::Attack {
            cargo.env("TACIT_TEST_SWITCHED", switched::build(ebpf::ready()?.environment())?);
        }
        if self == Self::Interop {
            cargo.env("TACIT_TEST_GO", go::ready()?).env("TACIT_TEST_ENVOY", python::envoy()?);
            cargo.env("TACIT_TEST_PYTHON", python::clients()?);
            cargo.env("TACIT_TEST_RUST_TARGET", run::target_dir().join("tools/rust-spiffe"));
        }
        // Each test has its own nodes; two at a time keep two processors busy and no deadline tight.
        // Attackers mostly wait for what does not come.
        let threads = if self == Self::Attack { "--test-threads=3" } else { "--test-threads=2" };
        cargo.args(["--", threads]);
        for module in FEATURES.iter().filter(|_| self == Self::Features).filter_map(missing) {
            cargo.args(["--skip", module]);
        }
        counted(cargo.args(only))
    }
}

/// Names a feature that this kernel does not have as not run, and gives the module of its tests.
fn missing(feature: &Feature) -> Option<&'static str> {
    let Feature { module, name, check } = feature;
    if run::output(&mut run::command("sh", &["-c", check])).is_ok() {
        return None;
    }
    println!("not run: features, {module} (this kernel has no {name})");
    Some(module)
}

/// Runs `cargo test`, shows its output as it comes, and adds up its summaries.
fn counted(command: &mut Command) -> Result<Count> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let mut count = Count::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            println!("{line}");
            count.add(summary(&line).unwrap_or_default());
        }
    }
    let status = child.wait()?;
    if !status.success() && count.failed == 0 {
        bail!("cargo test ended with {status} and counted no failed test");
    }
    Ok(count)
}

/// `test result: ok. 3 passed; 0 failed; …` -> the two numbers.
pub(crate) fn summary(line: &str) -> Option<Count> {
    let (_, rest) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |label: &str| -> Option<u64> {
        let part = rest.split("; ").find(|part| part.ends_with(label))?;
        part.split(' ').next()?.parse().ok()
    };
    Some(Count { passed: number(" passed")?, failed: number(" failed")? })
}

pub(crate) fn shown(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds / 60 {
        0 => format!("{:.1} s", duration.as_secs_f64()),
        minutes => format!("{minutes} min {:02} s", seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_what_cargo_says() {
        let line =
            "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 1 filtered out";
        assert_eq!(summary(line), Some(Count { passed: 12, failed: 3 }));
        assert_eq!(summary("running 3 tests"), None);
    }

    #[test]
    fn shows_durations() {
        assert_eq!(shown(Duration::from_millis(1500)), "1.5 s");
        assert_eq!(shown(Duration::from_secs(125)), "2 min 05 s");
    }
}
