//! The configuration of a test node: who may be whom, and the rules. Both nodes have the same.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::ca::TRUST_DOMAIN;
use crate::pod::{Group, uid};
use crate::wait::stretched;

/// The SPIFFE ID of the usual client.
pub fn client_id() -> String {
    format!("spiffe://{TRUST_DOMAIN}/client")
}

/// The SPIFFE ID of the usual server.
pub fn server_id() -> String {
    format!("spiffe://{TRUST_DOMAIN}/server")
}

#[derive(Debug, Clone)]
struct Entry {
    id: String,
    path: String,
    selectors: Vec<String>,
    more: String,
}

/// What a test writes into both nodes' configuration.
#[derive(Debug, Clone)]
pub struct Rules {
    domain: String,
    entries: Vec<Entry>,
    decisions: String,
    issuer: String,
    audit: String,
    proxy: String,
    attest: String,
    strict: String,
    log: String,
    log_in: String,
    permissive: String,
    turned: Option<Group>,
    attached: Attached,
}

/// Where the programs are attached.
#[derive(Debug, Clone, Copy)]
enum Attached {
    Node,
    Root,
    Below(&'static str),
}

impl Rules {
    /// No entries, no rules.
    pub fn none() -> Self {
        Self {
            domain: TRUST_DOMAIN.to_owned(),
            entries: Vec::new(),
            decisions: String::new(),
            issuer: String::new(),
            audit: String::new(),
            proxy: String::new(),
            attest: String::new(),
            strict: String::new(),
            log_in: String::new(),
            permissive: String::new(),
            turned: None,
            attached: Attached::Node,
            log: "debug".to_owned(),
        }
    }

    /// The client may call the server, on every port; a third workload has an identity that no
    /// rule allows.
    pub fn client_calls_server() -> Self {
        Self::none()
            .entry("client", &[&format!("unix:uid:{}", uid::CLIENT)])
            .entry("server", &[&format!("unix:uid:{}", uid::SERVER)])
            .entry("other", &[&format!("unix:uid:{}", uid::OTHER)])
            .rule(&format!(
                "[[outbound]]\nname = \"client-to-server\"\nworkloads = [\"{client}\"]\n\
                 action = \"mtls\"\npeers = [\"{server}\"]\n\n\
                 [[outbound]]\nname = \"other-to-server\"\nworkloads = [\"spiffe://{TRUST_DOMAIN}/other\"]\n\
                 action = \"mtls\"\npeers = [\"{server}\"]\n\n\
                 [[inbound]]\nname = \"server-from-client\"\nworkloads = [\"{server}\"]\n\
                 action = \"allow\"\npeers = [\"{client}\"]\n",
                client = client_id(),
                server = server_id(),
            ))
    }

    /// Has the node in another trust domain; its entries are of it.
    #[must_use]
    pub fn in_domain(mut self, trust_domain: &str) -> Self {
        trust_domain.clone_into(&mut self.domain);
        self
    }

    /// The trust domain.
    pub(crate) fn domain(&self) -> &str {
        &self.domain
    }

    /// Adds an entry: the last part of its SPIFFE ID, which also names it, and its selectors.
    #[must_use]
    pub fn entry(self, name: &str, selectors: &[&str]) -> Self {
        self.push(name, name, selectors)
    }

    /// Takes an entry away, and leaves the rules as they are.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.entries.retain(|entry| entry.id != name);
        self
    }

    /// Adds another entry for the same SPIFFE ID.
    #[must_use]
    pub fn also(self, name: &str, selectors: &[&str]) -> Self {
        let id = format!("{name}-{}", self.entries.len());
        self.push(&id, name, selectors)
    }

    /// Adds a line to the entry that was added last.
    #[must_use]
    pub fn with(mut self, line: &str) -> Self {
        if let Some(entry) = self.entries.last_mut() {
            entry.more.push_str(line);
            entry.more.push('\n');
        }
        self
    }

    fn push(mut self, id: &str, path: &str, selectors: &[&str]) -> Self {
        let selectors = selectors.iter().map(|&one| one.to_owned()).collect();
        let (id, path) = (id.to_owned(), path.to_owned());
        self.entries.push(Entry { id, path, selectors, more: String::new() });
        self
    }

    /// Adds rules, in the configuration's own words.
    #[must_use]
    pub fn rule(mut self, toml: &str) -> Self {
        self.decisions.push_str(toml);
        self.decisions.push('\n');
        self
    }

    /// Replaces the rules.
    #[must_use]
    pub fn rules(mut self, toml: &str) -> Self {
        self.decisions = format!("{toml}\n");
        self
    }

    /// Adds a line to `[issuer]`.
    #[must_use]
    pub fn issuer(mut self, line: &str) -> Self {
        self.issuer.push_str(line);
        self.issuer.push('\n');
        self
    }

    /// Adds a line to `[audit]`.
    #[must_use]
    pub fn audit(mut self, line: &str) -> Self {
        self.audit.push_str(line);
        self.audit.push('\n');
        self
    }

    /// Has the audit log in this directory below the node's own.
    #[must_use]
    pub fn log_in(mut self, folder: &str) -> Self {
        self.log_in = format!("{folder}/");
        self
    }

    /// Adds a line to `[proxy]`.
    #[must_use]
    pub fn proxy(mut self, line: &str) -> Self {
        self.proxy.push_str(line);
        self.proxy.push('\n');
        self
    }

    /// Adds a line to `[attest]`.
    #[must_use]
    pub fn attest(mut self, line: &str) -> Self {
        self.attest.push_str(line);
        self.attest.push('\n');
        self
    }

    /// Adds a line to the strict `[[scope]]`.
    #[must_use]
    pub fn strict(mut self, line: &str) -> Self {
        self.strict.push_str(line);
        self.strict.push('\n');
        self
    }

    /// Adds a line to the permissive `[[scope]]`.
    #[must_use]
    pub fn permissive(mut self, line: &str) -> Self {
        self.permissive.push_str(line);
        self.permissive.push('\n');
        self
    }

    /// Makes the scope of this group a strict one.
    #[must_use]
    pub fn turned_strict(mut self, group: Group) -> Self {
        self.turned = Some(group);
        self
    }

    /// Attaches the programs at the root of the hierarchy, as the default does.
    #[must_use]
    pub fn at_the_root(mut self) -> Self {
        self.attached = Attached::Root;
        self
    }

    /// Attaches the programs at this cgroup of the node only.
    #[must_use]
    pub fn attached_below(mut self, folder: &'static str) -> Self {
        self.attached = Attached::Below(folder);
        self
    }

    /// How much the daemons say; everything by default.
    #[must_use]
    pub fn log(mut self, level: &str) -> Self {
        level.clone_into(&mut self.log);
        self
    }

    /// On a slow machine the daemon waits longer too, where the test does not say how long.
    fn patience(&self) -> String {
        let usual = Duration::from_secs(10);
        let given = stretched(usual);
        let keys = ["connect_timeout", "handshake_timeout"].iter();
        let open = keys.filter(|key| given > usual && !self.proxy.contains(**key));
        let lines = open.map(|key| format!("{key} = \"{}s\"\n", given.as_secs()));
        lines.collect::<Vec<_>>().concat()
    }

    /// The whole file for one node.
    pub(crate) fn file(&self, place: &Place<'_>) -> String {
        let Place { name, dir, cgroup, instance } = place;
        let dir = dir.display();
        let attached = match self.attached {
            Attached::Node => (*cgroup).to_owned(),
            Attached::Root => "/".to_owned(),
            Attached::Below(folder) => format!("{cgroup}/{folder}"),
        };
        let mut text = format!(
            "[node]\ntrust_domain = \"{domain}\"\nname = \"{name}\"\n\
             state_dir = \"{dir}/state\"\nrun_dir = \"{dir}/run\"\n\n\
             [capture]\ncgroup = \"{attached}\"\ninstance = \"{instance}\"\n\n\
             [issuer]\nkind = \"embedded\"\n{issuer}\n\
             [attest]\n{attest}\n\
             [proxy]\n{patience}{proxy}\n\
             [audit]\npath = \"{dir}/{log_in}audit.jsonl\"\n{audit}\n\
             [admin]\nsocket = \"{dir}/run/admin.sock\"\nmetrics_listen = \"127.0.0.1:9464\"\n\n\
             [log]\nlevel = \"{log}\"\n\n",
            domain = self.domain,
            issuer = self.issuer,
            attest = self.attest,
            patience = self.patience(),
            proxy = self.proxy,
            audit = self.audit,
            log_in = self.log_in,
            log = self.log,
        );
        for (group, more) in [
            (Group::Strict, self.strict.as_str()),
            (Group::Permissive, self.permissive.as_str()),
            (Group::Observe, ""),
        ] {
            let folder = group.folder();
            if matches!(self.attached, Attached::Below(only) if only != folder) {
                continue;
            }
            let mode = if self.turned == Some(group) { "strict" } else { folder };
            // Writing to a String cannot fail.
            let _written = write!(
                text,
                "[[scope]]\ncgroup = \"{cgroup}/{folder}\"\nmode = \"{mode}\"\n{more}\n"
            )
            .is_ok();
        }
        for Entry { id, path, selectors, more } in &self.entries {
            let selectors: Vec<String> = selectors.iter().map(|one| format!("\"{one}\"")).collect();
            let _written = write!(
                text,
                "[[entry]]\nid = \"{id}\"\nspiffe_id = \"spiffe://{domain}/{path}\"\n\
                 selectors = [{}]\n{more}\n",
                selectors.join(", "),
                domain = self.domain,
            )
            .is_ok();
        }
        text + &self.decisions
    }
}

/// Where a node lives.
pub(crate) struct Place<'a> {
    pub(crate) name: &'a str,
    pub(crate) dir: &'a Path,
    /// Below the cgroup2 mount, with a leading slash.
    pub(crate) cgroup: &'a str,
    pub(crate) instance: &'a str,
}
