//! A package index of its own under `target/`, made from the machine's own apt sources: Debian's
//! releases with kernels of interest, whatever the machine itself runs. `/etc/apt` stays untouched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::run;

use super::release;

/// Releases whose kernels are offered; each has a security and most have a backports suite.
const RELEASES: [&str; 3] = ["bullseye", "bookworm", "trixie"];
/// Suites of newer kernels for a release.
const BACKPORTS: [&str; 2] = ["bookworm-backports", "trixie-backports"];
/// The kernel flavour: small, and complete for what is tested here.
const FLAVOUR: &str = "-cloud-amd64";
/// How old the index may be.
const FRESH: Duration = Duration::from_hours(24);
/// Packages that make up one kernel; which of them exist changed over time.
const PARTS: [&str; 4] = ["image", "binary", "modules", "base"];

/// The index.
pub(super) struct Index {
    folder: PathBuf,
}

impl Index {
    /// The index in this folder, made or renewed where it is missing or old.
    pub(super) fn ready(folder: &Path) -> Result<Self> {
        let index = Self { folder: folder.to_owned() };
        let stamp = folder.join("updated");
        let age = fs::metadata(&stamp).and_then(|file| file.modified()).ok();
        if age.and_then(|at| at.elapsed().ok()).is_some_and(|age| age < FRESH) {
            return Ok(index);
        }
        println!("kernels: reading the package index");
        index.describe()?;
        run::output(index.apt("apt-get").args(["update", "--quiet"]))?;
        fs::write(stamp, "")?;
        Ok(index)
    }

    /// The newest kernel of a series, as its packages name it.
    pub(super) fn newest(&self, series: &str) -> Result<String> {
        let names = self.names()?;
        let found = release::newest(names.lines(), series, FLAVOUR);
        found.map(str::to_owned).with_context(|| format!("Debian offers no kernel {series} here"))
    }

    /// Fetches the packages of a kernel into a folder.
    pub(super) fn fetch(&self, kernel: &str, into: &Path) -> Result<()> {
        let names = self.names()?;
        let wanted: Vec<String> = PARTS
            .iter()
            .map(|part| format!("linux-{part}-{kernel}"))
            .filter(|name| names.lines().any(|known| known == name))
            .collect();
        println!("kernels: fetching {}", wanted.join(", "));
        let mut apt = self.apt("apt-get");
        // Packages are fetched as this user: apt's own has no access to a folder under target/.
        apt.args(["download", "--quiet", "-o", "APT::Sandbox::User=root"]).args(wanted);
        run::output(apt.current_dir(into)).map(drop)
    }

    fn names(&self) -> Result<String> {
        run::output(self.apt("apt-cache").args(["pkgnames", "linux-"]))
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = run::command(program, &[]);
        command.env("APT_CONFIG", self.folder.join("apt.conf"));
        command
    }

    /// Writes apt's configuration and the list of sources.
    fn describe(&self) -> Result<()> {
        for folder in ["lists/partial", "cache/archives/partial", "none"] {
            fs::create_dir_all(self.folder.join(folder))?;
        }
        let place = self.folder.display();
        let config = format!(
            "Dir::Etc::sourcelist \"{place}/sources.list\";\nDir::Etc::sourceparts \"{place}/none\";\n\
             Dir::State::lists \"{place}/lists\";\nDir::Cache \"{place}/cache\";\n\
             Dir::Cache::archives \"{place}/cache/archives\";\nAcquire::Languages \"none\";\n"
        );
        fs::write(self.folder.join("apt.conf"), config)?;
        fs::write(self.folder.join("sources.list"), sources(&mirrors()?)?)?;
        Ok(())
    }
}

/// What the machine's own sources are: address and release of each index, one a line.
fn mirrors() -> Result<String> {
    let format = "$(REPO_URI) $(RELEASE)";
    let arguments = ["indextargets", "--format", format, "Created-By: Packages"];
    run::output(&mut run::command("apt-get", &arguments))
}

/// The list of sources for the releases of interest, at the machine's own mirrors.
fn sources(mirrors: &str) -> Result<String> {
    const KEYS: &str = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
    let at = |security: bool| {
        let line = mirrors.lines().find(|line| line.ends_with("-security") == security);
        line.and_then(|line| line.split(' ').next())
    };
    let Some(main) = at(false) else {
        bail!("apt has no sources: kernels come from a Debian mirror that the machine knows");
    };
    let suites = RELEASES.iter().chain(&BACKPORTS).map(|suite| (main, (*suite).to_owned()));
    let security = at(true).into_iter();
    let security = security
        .flat_map(|mirror| RELEASES.iter().map(move |it| (mirror, format!("{it}-security"))));
    let lines =
        suites.chain(security).map(|(mirror, suite)| format!("deb {KEYS} {mirror} {suite} main\n"));
    Ok(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::sources;

    #[test]
    fn releases_at_the_machines_own_mirrors() {
        let known = "http://a.example/debian/ bookworm\nhttp://b.example/s/ bookworm-security\n";
        let list = sources(known).unwrap();
        for (mirror, suite) in [
            ("http://a.example/debian/", "trixie-backports"),
            ("http://b.example/s/", "bullseye-security"),
        ] {
            assert!(list.contains(&format!("{mirror} {suite} main\n")), "{list}");
        }
        assert!(sources("").is_err());
    }
}
