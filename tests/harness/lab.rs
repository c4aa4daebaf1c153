//! Two nodes with a wire between them, made for one test and gone after it: also when the test
//! fails or panics, and, by the next lab, when it was killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tacit::identity::issue_node;

use crate::ca::{self, Minted, TRUST_DOMAIN};
use crate::cgroup;
use crate::config::Rules;
use crate::node::{self, Node};
use crate::pod::{Group, Pod, Server, uid};
use crate::process::{must_run, probe};

/// Every name that a lab gives starts so, followed by the pid of its maker.
const PREFIX: &str = "tacit-test-";

/// Two nodes, `a` and `b`, joined by a veth.
#[derive(Debug)]
pub struct Lab {
    /// By convention the client's node.
    pub a: Node,
    /// By convention the server's node.
    pub b: Node,
    name: String,
    dir: PathBuf,
}

impl Lab {
    /// Makes a lab with these rules on both nodes, runs the test in it, and takes it away. A
    /// failure comes with what the daemons said and recorded.
    ///
    /// # Errors
    /// When the lab cannot be made or the test fails.
    pub fn check(rules: &Rules, test: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let lab = Self::start(rules)?;
        lab.tried(test)
    }

    /// As [`Lab::check`], but the test starts the daemons when it wants them.
    ///
    /// # Errors
    /// When the lab cannot be made or the test fails.
    pub fn prepared(rules: &Rules, test: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let lab = Self::without_daemons()?;
        lab.provision(rules)?;
        lab.tried(test)
    }

    /// As [`Lab::check`], with rules for each node. Nodes of different trust domains have roots of
    /// their own; nothing is known at one of the other.
    ///
    /// # Errors
    /// When the lab cannot be made or the test fails.
    pub fn apart(a: &Rules, b: &Rules, test: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        Self::apart_prepared(a, b, |lab| {
            lab.a.start()?;
            lab.b.start()?;
            test(lab)
        })
    }

    /// As [`Lab::apart`], but the test starts the daemons when it wants them.
    ///
    /// # Errors
    /// When the lab cannot be made or the test fails.
    pub fn apart_prepared(
        a: &Rules,
        b: &Rules,
        test: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        let lab = Self::without_daemons()?;
        for (node, rules) in [(&lab.a, a), (&lab.b, b)] {
            let root = lab.dir.join(format!("root-{}", rules.domain()));
            if !root.exists() {
                ca::init(&root, rules.domain())?;
            }
            node.provision(&root, rules)?;
        }
        lab.tried(test)
    }

    /// As [`Lab::check`], with node a alone, which makes a root of its own.
    ///
    /// # Errors
    /// When the lab cannot be made or the test fails.
    pub fn alone(rules: &Rules, test: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let lab = Self::without_daemons()?;
        lab.a.configure(rules)?;
        lab.a.start()?;
        lab.tried(test)
    }

    fn tried(&self, test: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        test(self).with_context(|| format!("\n{}\n{}", self.a.report(), self.b.report()))
    }

    /// Makes a lab with a running daemon on each node.
    ///
    /// # Errors
    /// When something that it needs is missing.
    pub fn start(rules: &Rules) -> Result<Self> {
        let lab = Self::without_daemons()?;
        lab.provision(rules)?;
        lab.a.start()?;
        lab.b.start()?;
        Ok(lab)
    }

    fn provision(&self, rules: &Rules) -> Result<()> {
        let root = self.dir.join("root");
        ca::init(&root, TRUST_DOMAIN)?;
        self.a.provision(&root, rules)?;
        self.b.provision(&root, rules)
    }

    /// The two nodes and the wire, with no daemon on either.
    ///
    /// # Errors
    /// When not run by root.
    pub fn without_daemons() -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        static SWEPT: Once = Once::new();
        if !nix::unistd::geteuid().is_root() {
            bail!("needs root: it makes network namespaces and cgroups and loads eBPF programs");
        }
        SWEPT.call_once(sweep);
        let name = format!("{PREFIX}{}-{}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(&name);
        fs::create_dir_all(&dir)?;
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&dir, open)?;
        let lab = Self { a: Node::new(&name, 0, &dir)?, b: Node::new(&name, 1, &dir)?, name, dir };
        lab.wire()?;
        Ok(lab)
    }

    fn wire(&self) -> Result<()> {
        let (a, b) = (&self.a, &self.b);
        must_run(
            "ip",
            &[
                "link", "add", "veth0", "netns", &a.netns, "type", "veth", "peer", "name", "veth0",
                "netns", &b.netns,
            ],
        )?;
        for node in [a, b] {
            let ip = |arguments: &[&str]| {
                must_run("ip", &[&["-n", node.netns.as_str()], arguments].concat())
            };
            ip(&["addr", "add", &format!("{}/24", node.ip), "dev", "veth0"])?;
            ip(&["addr", "add", &format!("{}/64", node.ip6), "dev", "veth0", "nodad"])?;
            ip(&["link", "set", "veth0", "up"])?;
        }
        Ok(())
    }

    /// The usual client: strict, on node a.
    pub fn client(&self) -> Pod {
        self.a.pod(Group::Strict, uid::CLIENT)
    }

    /// The usual server's place: strict, on node b.
    pub fn server(&self) -> Pod {
        self.b.pod(Group::Strict, uid::SERVER)
    }

    /// An echo server on this port of every address of node b.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn echo(&self, port: u16) -> Result<Server> {
        self.server().serve(probe()?, &["serve", "echo", &format!("[::]:{port}")], port)
    }

    /// An SVID of the lab's trust domain in files, signed by node a's authority.
    ///
    /// # Errors
    /// When it cannot be minted.
    pub fn mint(&self, id: &str, more: &[&str]) -> Result<Minted> {
        let name = id.rsplit('/').next().unwrap_or("svid");
        let out = self.dir.join(format!("minted-{name}"));
        ca::mint(&self.a.state(), id, &out, more)
    }

    /// An SVID of another trust domain, with a root of its own.
    ///
    /// # Errors
    /// When it cannot be minted.
    pub fn mint_foreign(&self, trust_domain: &str, path: &str) -> Result<Minted> {
        let (root, state) = (self.dir.join("foreign-root"), self.dir.join("foreign-node"));
        fs::create_dir_all(&state)?;
        ca::init(&root, trust_domain)?;
        ca::issue_node(&root, "foreign", &state)?;
        ca::mint(&state, &format!("spiffe://{trust_domain}{path}"), &self.dir.join("foreign"), &[])
    }

    /// Gives a node, whose daemon does not run, an authority that ends so soon.
    ///
    /// # Errors
    /// When it cannot be issued.
    pub fn end_authority_in(&self, node: &Node, left: Duration) -> Result<()> {
        /// How long the authority of a node lasts.
        const LIFE: Duration = Duration::from_hours(365 * 24);
        let directory = node.state().join("ca");
        fs::remove_dir_all(&directory)?;
        let issued = tacit::sys::clock::now() + left - LIFE;
        issue_node(&self.dir.join("root"), &node.name, &directory, issued)
            .context("cannot issue an authority")
    }

    /// Another root for the lab's trust domain, in a directory of this name.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn another_root(&self, name: &str) -> Result<PathBuf> {
        let root = self.dir.join(name);
        ca::init(&root, TRUST_DOMAIN)?;
        Ok(root)
    }

    /// Has this node request an authority, this root sign it, and the node take it: as an operator
    /// does, with a file that is carried.
    ///
    /// # Errors
    /// When one of these commands fails.
    pub fn carry_request(&self, node: &Node, root: &Path, more: &[&str]) -> Result<String> {
        let path = |name: &str| self.dir.join(format!("{}.{name}", node.name));
        let (request, signed) = (path("csr"), path("pem"));
        let [root, request, signed] = [root, &request, &signed].map(|it| it.to_string_lossy());
        node.ask(&["ca", "request", "--out", &request])?;
        let words = ["ca", "sign", "--directory", &root, "--request", &request, "--out", &signed];
        node.tacit(&words)?.ok()?;
        node.ask(&[&["ca", "accept", &*signed], more].concat())
    }

    /// Replaces the root that the lab's nodes share, step by step as docs/authorities.md has it, and
    /// does something between any two steps.
    ///
    /// # Errors
    /// When a step fails, or what is done between them.
    pub fn replace_root(&self, between: impl Fn() -> Result<()>) -> Result<()> {
        let root = self.root();
        let words = ["ca", "show", "--output", "json", "--directory", &root.to_string_lossy()];
        let shown: serde_json::Value = serde_json::from_str(self.a.tacit(&words)?.ok()?)?;
        let authorities = shown.get("authorities").and_then(serde_json::Value::as_array);
        let old = authorities
            .and_then(|all| all.iter().find(|it| it.get("role").is_some_and(|it| it == "root")))
            .and_then(|root| root.get("key_id")?.as_str())
            .context("no root")?;
        let new = self.another_root("another-root")?;
        let pem = new.join("root.pem");
        for node in [&self.a, &self.b] {
            node.ask(&["ca", "trust", &pem.to_string_lossy()])?;
            between().context("with both roots trusted")?;
        }
        for node in [&self.a, &self.b] {
            self.carry_request(node, &new, &[])?;
            between().context("with a node under the new root")?;
        }
        for node in [&self.a, &self.b] {
            node.ask(&["ca", "retire", old])?;
            between().context("with the old root retired")?;
        }
        Ok(())
    }

    /// The root that the lab's nodes share.
    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// A directory for files of the test.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // The nodes, dropped after this, empty their own cgroups; the parent goes with the next
        // sweep if it is not yet empty now.
        self.a.stop();
        self.b.stop();
        remove(&self.name);
    }
}

/// Removes what labs of processes that are gone have left.
pub fn sweep() {
    let mut names: Vec<String> = Vec::new();
    let folders = [Some(std::env::temp_dir()), Some("/run/netns".into()), cgroup::mount().ok()];
    for folder in folders.into_iter().flatten() {
        let Ok(entries) = fs::read_dir(folder) else {
            continue;
        };
        names.extend(
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()),
        );
    }
    for name in names {
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let mut parts = rest.split('-');
        let (Some(pid), Some(number)) = (parts.next(), parts.next()) else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            remove(&format!("{PREFIX}{pid}-{number}"));
        }
    }
}

fn remove(name: &str) {
    let Ok(mount) = cgroup::mount() else { return };
    for letter in ["a", "b"] {
        let node = format!("{name}-{letter}");
        let pins = Path::new("/sys/fs/bpf/tacit").join(&node);
        node::remove(&node, &mount.join(name).join(letter), &pins);
    }
    cgroup::remove(&mount.join(name));
    let _removed = fs::remove_dir_all(std::env::temp_dir().join(name)).is_ok();
}
