//! New connections: how many a second, and what `connect()` alone costs.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use socket2::SockRef;

use crate::kind;
use crate::trips::percentile;

/// Connections after which a thread stops, whatever the time: its ports are finite.
const MOST: u32 = 50_000;

/// Prints `connections=` and `seconds=`. Each connection carries a byte there and back, and is
/// closed by the server first, so that no port of the client lingers.
pub(crate) fn new(to: SocketAddr, at_once: usize, time: Duration) -> Result<()> {
    let start = Instant::now();
    let threads: Vec<_> = (0..at_once)
        .map(|_| {
            thread::spawn(move || -> Result<u32> {
                let mut count = 0;
                while start.elapsed() < time && count < MOST {
                    once(to)?;
                    count += 1;
                }
                Ok(count)
            })
        })
        .collect();
    let mut connections = 0;
    for thread in threads {
        connections += thread.join().map_err(|_| anyhow!("a thread panicked"))??;
    }
    println!("connections={connections} seconds={:.6}", start.elapsed().as_secs_f64());
    Ok(())
}

fn once(to: SocketAddr) -> Result<()> {
    let mut socket = TcpStream::connect(to).context("cannot connect")?;
    socket.set_nodelay(true)?;
    socket.write_all(&[kind::ONCE, 1])?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).context("the connection broke")?;
    ensure!(answer == [1], "the server answered {answer:?}");
    Ok(())
}

/// Prints `p50_ns=` and `p99_ns=` of `connect()` alone. The connections are reset, which leaves
/// nothing behind on either side.
pub(crate) fn time(to: SocketAddr, count: u32) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..count.min(MOST) {
        let start = Instant::now();
        let socket = TcpStream::connect(to).context("cannot connect")?;
        times.push(u64::try_from(start.elapsed().as_nanos())?);
        SockRef::from(&socket).set_linger(Some(Duration::ZERO))?;
    }
    times.sort_unstable();
    println!("p50_ns={} p99_ns={}", percentile(&times, 50)?, percentile(&times, 99)?);
    Ok(())
}
