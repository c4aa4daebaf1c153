//! Real files, really changed, under a running reloader.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::shutdown::Tasks;

const MAIN: &str = "[node]\ntrust_domain = \"td\"\ninclude_dir = \"conf.d\"\n";
/// A change is in force after a second; this is for slow machines.
const SOON: Duration = Duration::from_secs(10);

fn rule(port: u16) -> String {
    format!("[[outbound]]\naction = \"refuse\"\nports = {port}\n")
}

struct Running {
    files: Files,
    handle: ReloadHandle,
    tasks: Tasks,
}

fn start(resolver: Arc<dyn Resolve>) -> Running {
    let files = Files::new(MAIN);
    files.write("conf.d/a.toml", &rule(1));
    let config = files.load().unwrap().0;
    let reloader = Reloader::with_resolver(files.main(), config, resolver);
    let (handle, mut tasks) = (reloader.handle(), Tasks::new());
    let stop = tasks.stop();
    tasks.spawn("reload", reloader.run(stop));
    Running { files, handle, tasks }
}

impl Running {
    fn started() -> Self {
        start(Arc::new(Hosts))
    }

    /// Waits for a configuration in which only this port is refused.
    async fn refuses(&self, ports: &[u16]) {
        let mut config = self.handle.config();
        let told = |config: &Arc<Config>| {
            let has = |port| config.outbound.iter().any(|rule| rule.ports.contains(port));
            config.outbound.len() == ports.len() && ports.iter().all(|port| has(*port))
        };
        tokio::time::timeout(SOON, config.wait_for(told)).await.unwrap().unwrap();
    }

    /// Waits for an error that holds this text.
    async fn says(&self, text: &str) {
        let mut status = self.handle.status();
        let told = |status: &ReloadStatus| {
            status.error.as_ref().is_some_and(|error| error.to_string().contains(text))
        };
        let waited = tokio::time::timeout(SOON, status.wait_for(told)).await;
        assert!(waited.is_ok(), "{:?}", self.handle.status().borrow());
    }

    async fn stop(mut self) {
        assert_eq!(self.tasks.drain(SOON).await, 0);
        assert_eq!(self.handle.reload_now().await, Err(ReloadError::Stopping));
    }
}

#[tokio::test]
async fn changes_are_taken_over() {
    let running = Running::started();
    running.refuses(&[1]).await;
    running.files.write("conf.d/a.toml", &rule(2));
    running.refuses(&[2]).await;
    let epoch = running.handle.config().borrow().epoch;
    running.files.replace("conf.d/a.toml", &rule(3));
    running.refuses(&[3]).await;
    running.files.replace("tacit.toml", &format!("{MAIN}{}", rule(4)));
    running.refuses(&[4, 3]).await;
    running.files.write("conf.d/b.toml", &rule(5));
    running.refuses(&[4, 3, 5]).await;
    std::fs::remove_file(running.files.path("conf.d/a.toml")).unwrap();
    running.refuses(&[4, 5]).await;
    let config = running.handle.config().borrow().clone();
    assert!(config.epoch > epoch);
    assert_eq!(config.policy().epoch, config.epoch);
    running.stop().await;
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_says_why() {
    let running = Running::started();
    running.files.write("conf.d/a.toml", "[[outbound]]\naction = \"refuze\"\n");
    running.says("conf.d/a.toml:2: outbound[0].action: `refuze`").await;
    running.refuses(&[1]).await;
    assert_eq!(running.handle.status().borrow().epoch, 1);
    running.files.write("conf.d/a.toml", &rule(2));
    running.refuses(&[2]).await;
    assert_eq!(running.handle.status().borrow().error, None);
    std::fs::remove_dir_all(running.files.path("conf.d")).unwrap();
    running.says("cannot be listed").await;
    running.refuses(&[2]).await;
    running.files.write("conf.d/a.toml", &rule(3));
    running.refuses(&[3]).await;
    running.stop().await;
}

#[tokio::test]
async fn what_needs_a_restart_is_refused_whole() {
    let running = Running::started();
    let main =
        format!("{MAIN}[proxy]\nkeepalive = \"2m\"\n[issuer]\nsvid_ttl = \"2h\"\n{}", rule(9));
    running.files.replace("tacit.toml", &main);
    running.says("issuer.svid_ttl, proxy.keepalive: changed, which needs a restart").await;
    running.refuses(&[1]).await;
    running.stop().await;
}

#[tokio::test]
async fn a_reload_can_be_asked_for() {
    let running = Running::started();
    assert_eq!(running.handle.reload_now().await, Ok(false));
    running.files.write("conf.d/a.toml", "nonsense");
    assert!(matches!(running.handle.reload_now().await, Err(ReloadError::Invalid(_))));
    running.stop().await;
}

/// Knows the name until it forgets it.
struct Forgetful(AtomicBool);

impl Resolve for Forgetful {
    fn resolve(&self, _name: &str) -> io::Result<Vec<IpAddr>> {
        if self.0.load(Ordering::Relaxed) {
            return Err(io::Error::other("nobody answers"));
        }
        Ok(vec!["10.0.0.7".parse().unwrap()])
    }
}

#[tokio::test]
async fn a_name_that_cannot_be_looked_up_any_more_keeps_its_addresses() {
    let resolver = Arc::new(Forgetful(AtomicBool::new(false)));
    let shared: Arc<dyn Resolve> = Arc::<Forgetful>::clone(&resolver);
    let running = start(shared);
    let named = |host: &str| {
        format!("[[outbound]]\naction = \"refuse\"\nports = 1\nhosts = [\"{host}\"]\n")
    };
    running.files.write("conf.d/a.toml", &named("one.example.org"));
    assert!(running.handle.reload_now().await.is_ok());
    resolver.0.store(true, Ordering::Relaxed);
    assert_eq!(running.handle.reload_now().await, Ok(false));
    let status = running.handle.status().borrow().clone();
    assert!(status.warnings[0].to_string().contains("its old addresses stay"), "{status:?}");
    // A name that was never known is refused, unless the daemon has started without it.
    running.files.write("conf.d/a.toml", &named("two.example.org"));
    running.says("cannot be looked up: nobody answers").await;
    assert!(running.handle.config().borrow().addresses.contains_key("one.example.org"));
    running.stop().await;
}

#[tokio::test]
async fn a_daemon_starts_without_a_resolver_and_looks_names_up_when_there_is_one() {
    let resolver = Arc::new(Forgetful(AtomicBool::new(true)));
    let shared: Arc<dyn Resolve> = Arc::<Forgetful>::clone(&resolver);
    let rule = |host: &str| {
        format!("[[outbound]]\naction = \"refuse\"\nports = 1\nhosts = [\"{host}\"]\n")
    };
    let files = Files::new(MAIN);
    files.write("conf.d/a.toml", &rule("one.example.org"));
    let names = Names::new(Arc::clone(&shared)).or_later();
    let (config, warnings) = load_with(&files.main(), &names).unwrap();
    assert!(warnings[0].to_string().contains("cannot be looked up yet"), "{warnings:?}");
    let address = "10.0.0.7".parse().unwrap();
    assert!(!config.outbound[0].to.contains(address), "it matches nothing");
    let reloader = Reloader::with_resolver(files.main(), config, shared);
    let (handle, mut tasks) = (reloader.handle(), Tasks::new());
    let stop = tasks.stop();
    tasks.spawn("reload", reloader.run(stop));
    let running = Running { files, handle, tasks };
    assert_eq!(running.handle.reload_now().await, Ok(false));
    assert_eq!(running.handle.config().borrow().unresolved.len(), 1);
    let more = format!("{}{}", rule("one.example.org"), rule("two.example.org"));
    running.files.write("conf.d/a.toml", &more);
    running.says("`two.example.org`: cannot be looked up: nobody answers").await;
    running.files.write("conf.d/a.toml", &rule("one.example.org"));
    assert_eq!(running.handle.reload_now().await, Ok(false));
    resolver.0.store(false, Ordering::Relaxed);
    let mut config = running.handle.config();
    let found = |config: &Arc<Config>| config.outbound[0].to.contains(address);
    tokio::time::timeout(SOON, config.wait_for(found)).await.unwrap().unwrap();
    assert!(running.handle.config().borrow().unresolved.is_empty());
    let status = running.handle.status().borrow().clone();
    assert_eq!((status.epoch, status.taken_over), (2, 1), "{status:?}");
    assert!(status.refused >= 1, "{status:?}");
    running.stop().await;
}

#[tokio::test]
async fn what_the_host_cannot_keep_is_not_taken_over() {
    let files = Files::new(MAIN);
    files.write("conf.d/a.toml", &rule(1));
    let config = files.load().unwrap().0;
    let few = |config: &Config| match config.outbound.len() {
        1 => Ok(()),
        _ => Err("this host can keep one rule".to_owned()),
    };
    let reloader = Reloader::with_resolver(files.main(), config, Arc::new(Hosts)).taken_up_by(few);
    let (handle, mut tasks) = (reloader.handle(), Tasks::new());
    let stop = tasks.stop();
    tasks.spawn("reload", reloader.run(stop));
    let running = Running { files, handle, tasks };
    running.files.write("conf.d/b.toml", &rule(2));
    running.says("this host can keep one rule").await;
    running.refuses(&[1]).await;
    running.files.write("conf.d/b.toml", "");
    running.files.write("conf.d/a.toml", &rule(3));
    running.refuses(&[3]).await;
    running.stop().await;
}
