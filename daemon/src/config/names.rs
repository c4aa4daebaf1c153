//! Host names in rules, looked up when the rules are loaded and never again until the next load.
//! A name that cannot be looked up is an error, unless an older configuration knew it: then its
//! addresses stay. A daemon that starts waits for no resolver: such names have no addresses until
//! they can be looked up, which is tried again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// Looks up a name; may block.
pub trait Resolve: Send + Sync {
    /// All addresses of a name.
    ///
    /// # Errors
    /// The name is unknown or nobody can be asked.
    fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's own resolver (`getaddrinfo`).
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
    }
}

/// Addresses by name.
pub type Addresses = BTreeMap<String, Vec<IpAddr>>;

/// How names are looked up while a configuration is loaded.
pub struct Names {
    resolver: Arc<dyn Resolve>,
    timeout: Duration,
    known: Addresses,
    later: Later,
}

/// Which names may be without addresses for now.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Later {
    All,
    These(BTreeSet<String>),
}

/// The longest that all lookups of one load may take together.
const TIMEOUT: Duration = Duration::from_secs(5);

impl Names {
    /// Looks up names with this resolver; all of them together may take 5 seconds.
    pub fn new(resolver: Arc<dyn Resolve>) -> Self {
        let later = Later::These(BTreeSet::new());
        Self { resolver, timeout: TIMEOUT, known: Addresses::new(), later }
    }

    /// Keeps these addresses for names that cannot be looked up.
    #[must_use]
    pub fn or_keep(mut self, known: Addresses) -> Self {
        self.known = known;
        self
    }

    /// Names that cannot be looked up are no error: they have no addresses for now.
    #[must_use]
    pub fn or_later(mut self) -> Self {
        self.later = Later::All;
        self
    }

    /// The same, for these names alone.
    #[must_use]
    pub fn or_later_these(mut self, names: BTreeSet<String>) -> Self {
        self.later = Later::These(names);
        self
    }

    /// Whether this name may be without addresses for now.
    pub(super) fn may_come_later(&self, name: &str) -> bool {
        match &self.later {
            Later::All => true,
            Later::These(names) => names.contains(name),
        }
    }

    /// Another limit than 5 seconds.
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Looks up all names at one time. Says for each that failed why, and whether its old
    /// addresses stay.
    pub(super) fn look_up(
        &self,
        names: &BTreeSet<String>,
    ) -> (Addresses, BTreeMap<String, String>) {
        let deadline = Instant::now() + self.timeout;
        let (sender, answers) = mpsc::channel();
        for name in names {
            let (resolver, sender, name) =
                (Arc::clone(&self.resolver), sender.clone(), name.clone());
            // A thread that is not waited for: `getaddrinfo` knows no deadline of its own, and
            // ends when the system's resolver gives up.
            std::thread::spawn(move || {
                let answer = resolver.resolve(&name);
                // Nobody listens any more once the time is up.
                let _late = sender.send((name, answer)).is_err();
            });
        }
        drop(sender);
        let (mut found, mut failed) = (Addresses::new(), BTreeMap::new());
        while found.len() + failed.len() < names.len() {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((name, answer)) = answers.recv_timeout(left) else {
                break;
            };
            match answer {
                Ok(addresses) if addresses.is_empty() => {
                    failed.insert(name, "it has no addresses".to_owned());
                }
                Ok(mut addresses) => {
                    // The order of answers rotates; a rule must not change with it.
                    addresses.sort_unstable();
                    addresses.dedup();
                    found.insert(name, addresses);
                }
                Err(error) => {
                    failed.insert(name, error.to_string());
                }
            }
        }
        for name in names {
            if !found.contains_key(name) && !failed.contains_key(name) {
                failed.insert(name.clone(), format!("no answer within {:?}", self.timeout));
            }
        }
        for name in failed.keys() {
            if let Some(addresses) = self.known.get(name) {
                found.insert(name.clone(), addresses.clone());
            }
        }
        (found, failed)
    }
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Names");
        debug.field("timeout", &self.timeout).field("known", &self.known).finish_non_exhaustive()
    }
}
