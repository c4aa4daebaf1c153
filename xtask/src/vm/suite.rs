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
use crate::{build, run, switched};

use super::apt::Index;
use super::guest;
use super::image::Image;
use super::publish::{self, Outcome};

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
    /// The daemon in which countermeasures can be switched off, for the tier of attacks.
    switched: Option<PathBuf>,
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
        let outcomes: Vec<_> =
            tiers.iter().map(|tier| (*tier, suite.tier(&image, *tier, &place))).collect();
        failed += outcomes.iter().map(|(_, outcome)| outcome.count.failed).sum::<u64>();
        if only.is_none() {
            publish::publish(&image.release, &outcomes)?;
        }
    }
    for tier in IN_GUESTS.iter().filter(|tier| !tiers.contains(tier)) {
        println!("not run: tier {} ({})", tier.name(), tier.purpose());
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
        let environment = ebpf::ready()?.environment();
        let attacks = tiers.contains(&Tier::Attack);
        let switched = attacks.then(|| switched::build(environment)).transpose()?;
        let mut binaries = BTreeMap::new();
        for tier in tiers {
            binaries.insert(tier.name(), tests(*tier)?);
        }
        Ok(Self { daemon, switched, binaries, only: only.map(str::to_owned) })
    }

    /// Runs a tier in a guest; a guest that fails is a failed test.
    fn tier(&self, image: &Image, tier: Tier, place: &Path) -> Outcome {
        let (name, began) = (tier.name(), Instant::now());
        println!("\n== tier {name} on {}: {}", image.release, tier.purpose());
        let mut heard = Heard::default();
        let work = place.join("guest");
        let ended = self
            .script(tier)
            .and_then(|script| guest::run(image, &script, &work, LIMIT, |line| heard.line(line)));
        let outcome = heard.outcome(ended);
        let Count { passed, failed } = outcome.count;
        let took = test::shown(began.elapsed());
        println!("== tier {name} on {}: {passed} passed, {failed} failed, {took}", image.release);
        outcome
    }

    /// What the guest runs.
    fn script(&self, tier: Tier) -> Result<String> {
        let binary = self.binaries.get(tier.name()).context("the tier was not built")?;
        let folder = run::root().join("tests");
        let switched = self.switched.as_deref().map(|it| format!("{}", it.display()));
        let switched = switched.unwrap_or_default();
        let (daemon, only) = (self.daemon.display(), self.only.as_deref().unwrap_or_default());
        let features = if tier == Tier::Features { &FEATURES[..] } else { &[] };
        let checks: String = features.iter().map(check).collect();
        Ok(format!(
            "export TACIT_BIN='{daemon}' TACIT_TEST_SWITCHED='{switched}'\n\
             export TACIT_TEST_STRETCH={STRETCH}\ncd '{}'\n\
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

/// What a guest has said so far.
#[derive(Default)]
struct Heard {
    outcome: Outcome,
    /// What `tacit doctor` found, JSON.
    doctor: String,
}

impl Heard {
    fn line(&mut self, line: &str) {
        if let Some(found) = line.strip_prefix(DOCTOR) {
            self.doctor.push_str(found);
            return;
        }
        println!("{line}");
        self.outcome.count.add(test::summary(line).unwrap_or_default());
        let test = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED"));
        self.outcome.failures.extend(test.map(str::to_owned));
        let missing = line.strip_prefix("not run: features, ");
        let missing = missing.and_then(|rest| rest.split(' ').next());
        self.outcome.not_run.extend(missing.map(str::to_owned));
    }

    /// The whole of it, with how the guest ended.
    fn outcome(mut self, ended: Result<i32>) -> Outcome {
        let why = match ended {
            Ok(0) => None,
            Ok(_) if self.outcome.count.failed > 0 => None,
            Ok(status) => Some(format!("the tests ended with {status} and counted no failed test")),
            Err(error) => Some(format!("{error:#}")),
        };
        if let Some(why) = why {
            println!("FAIL: {why}");
            self.outcome.count.failed += 1;
            self.outcome.failures.extend(why.lines().next().map(str::to_owned));
        }
        self.outcome.refused = refused(&self.doctor);
        self.outcome
    }
}

/// The programs that `tacit doctor` says the kernel does not take: it is asked by loading them.
fn refused(doctor: &str) -> Option<Vec<String>> {
    let found: Value = serde_json::from_str(doctor).ok()?;
    let checks = found.get("checks")?.as_array()?;
    let about_programs = |check: &&Value| {
        let name = check.get("name").and_then(Value::as_str).unwrap_or_default();
        name.starts_with("program") && check.get("verdict").and_then(Value::as_str) != Some("ok")
    };
    let detail = |check: &Value| check.get("detail")?.as_str().map(str::to_owned);
    Some(checks.iter().filter(about_programs).filter_map(detail).collect())
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
    fn tells_what_the_kernel_refuses() {
        let doctor = "{\"checks\": [{\"name\": \"kernel\", \"verdict\": \"ok\", \"detail\": \"6\"}, \
             {\"name\": \"program tacit_egress\", \"verdict\": \"warning\", \"detail\": \"why\"}]}";
        assert_eq!(refused(doctor), Some(vec!["why".to_owned()]));
        assert_eq!(refused(""), None);
    }

    #[test]
    fn a_guest_that_fails_is_a_failed_test() {
        let mut heard = Heard::default();
        heard.line("test payload::a ... ok");
        heard.line("not run: features, sctp (this kernel has no SCTP)");
        let outcome = heard.outcome(Err(anyhow::anyhow!("the guest failed\nconsole")));
        assert_eq!(outcome.count, Count { passed: 0, failed: 1 });
        assert_eq!(outcome.failures, ["the guest failed"]);
        assert_eq!(outcome.not_run, ["sctp"]);
    }

    #[test]
    fn finds_the_binary_among_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"harness\"},\
             \"executable\":null}\nnoise\n{\"reason\":\"compiler-artifact\",\
             \"target\":{\"name\":\"kernel\"},\"executable\":\"/t/kernel-1\"}\n";
        assert_eq!(executable(messages, "kernel"), Some("/t/kernel-1".into()));
        assert_eq!(executable(messages, "harness"), None);
    }
}
