//! Connections one after the other on several threads, until told to end: each says its text,
//! expects it back, and is counted by how it ended. What an application would have noticed is what
//! counts here.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use nix::sys::signal::{SigSet, Signal};

/// How it is done.
#[derive(Debug, Clone, Args)]
pub(crate) struct Manner {
    /// Threads, each with one connection at a time.
    #[arg(long, default_value_t = 4)]
    threads: usize,
    /// What is said on each connection.
    #[arg(long, default_value = "load")]
    text: String,
    /// Milliseconds for which each connection stays open.
    #[arg(long, default_value_t = 0)]
    hold: u64,
    /// Milliseconds between two connections of a thread.
    #[arg(long, default_value_t = 5)]
    pause: u64,
}

/// What came of all connections.
#[derive(Debug, Default)]
struct Tally {
    ok: AtomicU64,
    /// `connect()` said EPERM.
    not_permitted: AtomicU64,
    /// `connect()` failed otherwise.
    refused: AtomicU64,
    /// The connection was made, and ended before all was said.
    lost: AtomicU64,
    /// It was made, and nothing came back for a long time.
    stuck: AtomicU64,
    slowest_ms: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// Longer than anybody waits for a daemon that comes back.
const STUCK: Duration = Duration::from_secs(25);
/// Failures that are told one by one.
const TOLD: usize = 20;

/// Talks until SIGTERM.
pub(crate) fn run(address: SocketAddr, manner: &Manner) -> Result<()> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    // Before there are threads, which inherit it.
    set.thread_block()?;
    let (tally, over, began) = (Tally::default(), AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        for _ in 0..manner.threads {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    tally.count(&once(address, manner), began);
                    thread::sleep(Duration::from_millis(manner.pause));
                }
            });
        }
        println!("loading={}", manner.threads);
        let told = set.wait();
        over.store(true, Ordering::Relaxed);
        told
    })
    .context("sigwait")?;
    tally.say();
    Ok(())
}

struct Ended {
    took: Duration,
    outcome: Result<(), (&'static str, io::Error)>,
}

fn once(address: SocketAddr, manner: &Manner) -> Ended {
    let began = Instant::now();
    let outcome = exchange(address, manner);
    Ended { took: began.elapsed().saturating_sub(Duration::from_millis(manner.hold)), outcome }
}

fn exchange(address: SocketAddr, manner: &Manner) -> Result<(), (&'static str, io::Error)> {
    let mut stream = TcpStream::connect(address).map_err(|error| ("connect", error))?;
    let lost = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ("stuck", error),
        _ => ("lost", error),
    };
    stream.set_read_timeout(Some(STUCK)).map_err(lost)?;
    stream.write_all(manner.text.as_bytes()).map_err(lost)?;
    let mut back = vec![0; manner.text.len()];
    stream.read_exact(&mut back).map_err(lost)?;
    thread::sleep(Duration::from_millis(manner.hold));
    stream.shutdown(Shutdown::Write).map_err(lost)?;
    let mut more = Vec::new();
    stream.read_to_end(&mut more).map_err(lost)?;
    if back != manner.text.as_bytes() || !more.is_empty() {
        return Err(("lost", io::Error::other("other bytes came back")));
    }
    Ok(())
}

impl Tally {
    fn count(&self, ended: &Ended, began: Instant) {
        let took = u64::try_from(ended.took.as_millis()).unwrap_or(u64::MAX);
        self.slowest_ms.fetch_max(took, Ordering::Relaxed);
        let counter = match &ended.outcome {
            Ok(()) => &self.ok,
            Err(("connect", error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                &self.not_permitted
            }
            Err(("connect", _)) => &self.refused,
            Err(("stuck", _)) => &self.stuck,
            Err(_) => &self.lost,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if let (Err((what, error)), Ok(mut failures)) = (&ended.outcome, self.failures.lock())
            && failures.len() < TOLD
        {
            failures.push(format!("{what} at {} ms: {error}", began.elapsed().as_millis()));
        }
    }

    fn say(&self) {
        for failure in self.failures.lock().iter().flat_map(|all| all.iter()) {
            println!("failed: {failure}");
        }
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        println!(
            "ok={} not_permitted={} refused={} lost={} stuck={} slowest_ms={}",
            read(&self.ok),
            read(&self.not_permitted),
            read(&self.refused),
            read(&self.lost),
            read(&self.stuck),
            read(&self.slowest_ms)
        );
    }
}
