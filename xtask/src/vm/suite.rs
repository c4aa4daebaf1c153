//! The privileged tiers in guests: built once on this machine, run unchanged on each kernel, one
//! guest a tier, so that what breaks a kernel is known by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::provision::ebpf;
use crate::provision::packages::{self, Use};
use crate::test::{self, Count, FEATURES, Feature, IN_GUESTS, Tier};
use crate::{build, run};

use super::apt::Index;
use super::guest;
use super::image::Image;

/// How much longer than on the machine itself anything may take: the guest computes as if it ran
/// an instruction a nanosecond on one processor.
const STRETCH: u32 = 5;
/// How long a guest may run. One that hangs in a test is ended.
const LIMIT: Duration = Duration::from_hours(3);

/// Before each line of what `tacit doctor` finds in the guest.
const DOCTOR: &str = "guest doctor: ";

/// What runs in a guest.
struct Suite {
    daemon: PathBuf,
    /// The tests of each tier.
    binaries: BTreeMap<&'static str, PathBuf>,
    only: Option<String>,
}

/// Runs tiers on the newest kernel of each series, all of them even if one fails.
pub(crate) fn run(series: &[String], tiers: &[Tier], only: Option<&str>) -> Result<()> {
    if !run::is_root() {
        bail!("needs root: guests read this machine's files as their own root");
    }
    let tiers = if tiers.is_empty() { &IN_GUESTS } else { tiers };
    if let Some(tier) = tiers.iter().find(|tier| !IN_GUESTS.contains(tier)) {
        bail!("tier {} does not run in a guest", tier.name());
    }
    guest::ready()?;
    packages::ready(Use::Tests)?;
    let place = run::target_dir().join("vm");
    let index = Index::ready(&place.join("apt"))?;
    let suite = Suite::build(tiers, only)?;
    let mut failed = 0;
    for one in series {
        let image = Image::ready(&place, &index, one)?;
        println!("\n== kernel {}", image.release);
        for tier in tiers {
            let count = suite.tier(&image, *tier, &place);
            failed += count.failed;
        }
    }
    if failed > 0 {
        bail!("{failed} tests failed");
    }
    Ok(())
}

/// Runs a command in a guest, as a shell takes it, in the root of the repository.
pub(crate) fn command(series: &str, line: &str) -> Result<()> {
    guest::ready()?;
    let place = run::target_dir().join("vm");
    let index = Index::ready(&place.join("apt"))?;
    let image = Image::ready(&place, &index, series)?;
    let script = format!("cd '{}'\n{line}\n", run::root().display());
    let work = place.join("guest");
    match guest::run(&image, &script, &work, LIMIT, |said| println!("{said}"))? {
        0 => Ok(()),
        status => bail!("`{line}` ended with {status}"),
    }
}

impl Suite {
    fn build(tiers: &[Tier], only: Option<&str>) -> Result<Self> {
        let daemon = build::daemon(false)?;
        let mut binaries = BTreeMap::new();
        for tier in tiers {
            binaries.insert(tier.name(), tests(*tier)?);
        }
        Ok(Self { daemon, binaries, only: only.map(str::to_owned) })
    }

    /// Runs a tier in a guest; a guest that fails is a failed test.
    fn tier(&self, image: &Image, tier: Tier, place: &Path) -> Count {
        let (name, began) = (tier.name(), Instant::now());
        println!("\n== tier {name} on {}: {}", image.release, tier.purpose());
        let (mut count, mut doctor) = (Count::default(), String::new());
        let mut hear = |line: &str| {
            match line.strip_prefix(DOCTOR) {
                Some(found) => doctor.push_str(found),
                None => println!("{line}"),
            }
            count.add(test::summary(line).unwrap_or_default());
        };
        let work = place.join("guest");
        let ended = self
            .script(tier)
            .and_then(|script| guest::run(image, &script, &work, LIMIT, &mut hear));
        match ended {
            Ok(0) => {}
            Ok(status) if count.failed == 0 => {
                println!("FAIL: the tests ended with {status} and counted no failed test");
                count.failed = 1;
            }
            Ok(_) => {}
            Err(error) => {
                println!("FAIL: {error:#}");
                count.failed += 1;
            }
        }
        let Count { passed, failed } = count;
        let took = test::shown(began.elapsed());
        println!("== tier {name} on {}: {passed} passed, {failed} failed, {took}", image.release);
        count
    }

    /// What the guest runs.
    fn script(&self, tier: Tier) -> Result<String> {
        let binary = self.binaries.get(tier.name()).context("the tier was not built")?;
        let folder = run::root().join("tests");
        let (daemon, only) = (self.daemon.display(), self.only.as_deref().unwrap_or_default());
        let features = if tier == Tier::Features { &FEATURES[..] } else { &[] };
        let checks: String = features.iter().map(check).collect();
        Ok(format!(
            "export TACIT_BIN='{daemon}' TACIT_TEST_STRETCH={STRETCH}\ncd '{}'\n\
             '{daemon}' doctor --output json | sed 's/^/{DOCTOR}/'\n{checks}\
             exec '{}' --test-threads=2 $skip {only}\n",
            folder.display(),
            binary.display()
        ))
    }
}

/// As `cargo xtask test` on this machine: a feature that is missing is named, its tests not run.
fn check(feature: &Feature) -> String {
    let Feature { module, name, check } = feature;
    format!(
        "{check} 2>/dev/null || {{ skip=\"$skip --skip {module}\"; \
         echo 'not run: features, {module} (this kernel has no {name})'; }}\n"
    )
}

/// Builds the tests of a tier and says where they are.
fn tests(tier: Tier) -> Result<PathBuf> {
    let mut cargo = run::cargo(&["test", "--no-run", "--package", "tests", "--test", tier.name()]);
    cargo.arg("--message-format=json-render-diagnostics").envs(ebpf::ready()?.environment());
    let built = cargo.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !built.status.success() {
        bail!("the tests of tier {} do not build", tier.name());
    }
    let messages = String::from_utf8_lossy(&built.stdout).into_owned();
    executable(&messages, tier.name()).context("cargo names no binary of the tests")
}

/// The binary of a test target among cargo's messages (one JSON object a line).
fn executable(messages: &str, target: &str) -> Option<PathBuf> {
    messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|it| {
        let named = it.pointer("/target/name")?.as_str()? == target;
        named.then(|| it.get("executable")?.as_str().map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_binary_among_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"harness\"},\
             \"executable\":null}\nnoise\n{\"reason\":\"compiler-artifact\",\
             \"target\":{\"name\":\"kernel\"},\"executable\":\"/t/kernel-1\"}\n";
        assert_eq!(executable(messages, "kernel"), Some("/t/kernel-1".into()));
        assert_eq!(executable(messages, "harness"), None);
    }
}
